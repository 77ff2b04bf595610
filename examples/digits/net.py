"""LeNet, for 32 x 32 grey images of digits.

mgec compile examples/digits/net.py:LeNet -o lenet.mge          # untrained
mgec compile examples/digits/net.py:TrainedLeNet -o lenet.mge   # after train.py
"""

from pathlib import Path

import mgec as mge
import mgec.module as M

OUTPUT_DIR = Path(__file__).parents[2] / "build" / "digits"
"""Where train.py puts what it makes."""


class LeNet(M.Module):
    """Two convolutions and three linear layers: 61,706 parameters.

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, with
    ReLU instead of tanh and maxima instead of averages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = M.Conv2d(1, 6, 5)
        self.relu1 = M.ReLU()
        self.pool1 = M.MaxPool2d(2, 2)
        self.conv2 = M.Conv2d(6, 16, 5)
        self.relu2 = M.ReLU()
        self.pool2 = M.MaxPool2d(2, 2)
        self.flatten = M.Flatten()
        self.fc1 = M.Linear(16 * 5 * 5, 120)
        self.relu3 = M.ReLU()
        self.fc2 = M.Linear(120, 84)
        self.relu4 = M.ReLU()
        self.classifier = M.Linear(84, 10)

    def forward(self, data: mge.Tensor) -> mge.Tensor:
        x = self.pool1(self.relu1(self.conv1(data)))  # (N, 6, 14, 14)
        x = self.pool2(self.relu2(self.conv2(x)))  # (N, 16, 5, 5)
        x = self.relu3(self.fc1(self.flatten(x)))
        x = self.relu4(self.fc2(x))
        return self.classifier(x)  # (N, 10): how well each digit fits


class TrainedLeNet(LeNet):
    """LeNet with the weights that train.py found."""

    def __init__(self) -> None:
        super().__init__()
        self.load_state_dict(mge.load(OUTPUT_DIR / "weights.safetensors"))


def example_inputs() -> list[mge.Tensor]:
    """What `mgec compile` calls the network with: one image."""
    return [mge.functional.zeros((1, 1, 32, 32))]
