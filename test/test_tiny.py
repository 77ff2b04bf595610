"""A smoke test: one of each thing, in seconds. pre-commit runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import mgec as mge
import mgec.functional as F
import mgec.module as M
from mgec.autodiff import GradManager
from mgec.jit import trace
from mgec.optimizer import SGD


def test_eager() -> None:
    a = mge.tensor([1.0, 2.0, 3.0])
    np.testing.assert_array_equal((a + a * 2).numpy(), np.array([3, 6, 9], "float32"))


def test_gradient() -> None:
    x = mge.tensor([1.0, 3.0, 5.0]).reshape(1, 3)
    w = mge.tensor([2.0, 4.0, 6.0]).reshape(3, 1)
    gm = GradManager().attach([w])
    with gm:
        gm.backward(F.matmul(x, w))
    np.testing.assert_array_equal(w.grad.numpy(), np.array([[1], [3], [5]], "float32"))


def test_traced_training_step_is_the_eager_one() -> None:
    data = np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3)
    label = np.array([0, 1, 1, 0], "int32")
    losses: dict[bool, list[float]] = {}
    for symbolic in (False, True):
        net = M.Linear(3, 2)
        net.weight[:] = mge.tensor(np.arange(6, dtype="float32").reshape(2, 3) / 10)
        optimizer = SGD(net.parameters(), lr=0.1)
        gm = GradManager().attach(net.parameters())

        def step(x: mge.Tensor, y: mge.Tensor) -> mge.Tensor:
            with gm:  # noqa: B023 - used in this round of the loop only
                loss = F.loss.cross_entropy(net(x), y)  # noqa: B023
                gm.backward(loss)  # noqa: B023
            optimizer.step().clear_grad()  # noqa: B023
            return loss

        run = trace(step, symbolic=True) if symbolic else step
        losses[symbolic] = [float(run(mge.tensor(data), mge.tensor(label))) for _ in range(3)]
    assert losses[True][2] < losses[True][0]
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-6)


def test_artifact(tmp_path: Path) -> None:
    @trace(symbolic=True, capture_as_const=True)
    def double(x: mge.Tensor) -> mge.Tensor:
        return x * 2

    double(mge.tensor([1.0, 2.0]))
    double.dump(str(tmp_path / "double.mge"), arg_names=["x"])
    assert (tmp_path / "double.mge").stat().st_size > 0
