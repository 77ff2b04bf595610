"""Training that stops and goes on later: weights and optimizer in one file, without pickle.

python examples/save_load.py
"""

import tempfile
from pathlib import Path

import numpy as np

import mgec as mge
import mgec.functional as F
import mgec.module as M
from mgec.autodiff import GradManager
from mgec.optimizer import SGD

x = mge.tensor(np.linspace(-1, 1, 32, dtype="float32").reshape(8, 4))


def train(net: M.Module, optimizer: SGD, steps: int) -> float:
    """Teaches the network to double its input; returns the last loss."""
    gm = GradManager().attach(net.parameters())
    for _ in range(steps):
        with gm:
            loss = F.loss.square_loss(net(x), 2 * x)
            gm.backward(loss)
        optimizer.step().clear_grad()
    return float(loss)


net = M.Linear(4, 4)
optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
train(net, optimizer, steps=20)

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "checkpoint.safetensors"
    mge.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    checkpoint = mge.load(file)

same_net = M.Linear(4, 4)
same_optimizer = SGD(same_net.parameters(), lr=0.1, momentum=0.9)
same_net.load_state_dict(checkpoint["net"])
same_optimizer.load_state_dict(checkpoint["optimizer"])

print("loss without a stop", train(net, optimizer, steps=20))
print("loss after loading ", train(same_net, same_optimizer, steps=20))
