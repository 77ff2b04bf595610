from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F

RNG = np.random.default_rng(0)
PRED = RNG.standard_normal((4, 3)).astype("float32")
LABEL = np.array([0, 2, 1, 1], "int32")
LOGS = PRED - np.log(np.exp(PRED).sum(1, keepdims=True))
CROSS = -LOGS[np.arange(4), LABEL]


def close(out: mge.Tensor, expected: Any) -> None:
    assert out.shape == np.shape(expected)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_cross_entropy() -> None:
    pred, label = mge.tensor(PRED), mge.tensor(LABEL)
    close(F.cross_entropy(pred, label), CROSS.mean())
    close(F.loss.cross_entropy(pred, label, reduction="sum"), CROSS.sum())
    close(F.nn.softmax(pred, 1), np.exp(LOGS))
    close(F.cross_entropy(pred, label, reduction="none"), CROSS)
    close(F.cross_entropy_with_softmax(pred, label), CROSS.mean())
    smooth = 0.9 * CROSS - 0.1 * LOGS.mean(1)
    close(F.cross_entropy(pred, label, label_smooth=0.1), smooth.mean())
    probabilities = F.softmax(pred, 1)
    close(F.cross_entropy(probabilities, label, with_logits=False), CROSS.mean())
    close(F.cross_entropy(probabilities, label, with_logits=False, label_smooth=0.1), smooth.mean())
    close(F.cross_entropy(mge.tensor(PRED.T), label, axis=0), CROSS.mean())
    close(F.nll_loss(mge.tensor(LOGS), label), CROSS.mean())
    images = np.broadcast_to(PRED[:, :, None], (4, 3, 5))
    labels = np.broadcast_to(LABEL[:, None], (4, 5))
    close(F.cross_entropy(mge.tensor(images), mge.tensor(labels)), CROSS.mean())


def test_gradient_of_cross_entropy() -> None:
    pred = mge.tensor(PRED)
    gm = mge.autodiff.GradManager().attach([pred])
    with gm:
        gm.backward(F.cross_entropy(pred, mge.tensor(LABEL)))
    close(pred.grad, (np.exp(LOGS) - np.eye(3)[LABEL]) / 4)


def test_binary_cross_entropy() -> None:
    x, y = PRED, RNG.random((4, 3)).astype("float32")
    p = 1 / (1 + np.exp(-x))
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    close(F.binary_cross_entropy(mge.tensor(x), mge.tensor(y)), expected.mean())
    out = F.binary_cross_entropy(mge.tensor(p), mge.tensor(y), with_logits=False, reduction="none")
    close(out, expected)
    sure = F.binary_cross_entropy(mge.tensor([0.0, 1.0]), mge.tensor([0.0, 1.0]), with_logits=False)
    assert sure.item() == 0


def test_other_losses() -> None:
    x, y = mge.tensor(PRED), mge.tensor(PRED[::-1])
    difference = PRED - PRED[::-1]
    close(F.l1_loss(x, y), np.abs(difference).mean())
    close(F.square_loss(x, y, "sum"), (difference**2).sum())
    signs = np.sign(PRED[::-1])
    margin = np.maximum(0, 1 - PRED * signs)
    close(F.hinge_loss(x, mge.tensor(signs)), margin.sum(1).mean())
    close(F.hinge_loss(x, mge.tensor(signs), norm="L2"), (margin**2).sum(1).mean())


CASES: list[tuple[Any, type[mge.MgecError], str]] = [
    (
        lambda x, y: F.cross_entropy(x, y, reduction="avg"),
        mge.ArgumentError,
        "cross_entropy: reduction is 'avg', which does not exist",
    ),
    (
        lambda x, y: F.cross_entropy(x, y[:3]),
        mge.ShapeError,
        "cross_entropy: label has shape (3,) but pred without axis 1 has (4,)",
    ),
    (
        lambda x, y: F.cross_entropy(x, y.astype("float32")),
        mge.DTypeError,
        "cross_entropy: label must be integers, but is float32",
    ),
    (
        lambda x, y: F.cross_entropy(x, y + 1),
        mge.AxisError,
        "cross_entropy: label holds 3 but must be below 3",
    ),
    (
        lambda x, y: F.cross_entropy(x, y, axis=2),
        mge.AxisError,
        "cross_entropy: axis 2 is out of range for rank 2",
    ),
    (
        lambda x, y: F.cross_entropy(x, y, label_smooth=2),
        mge.ArgumentError,
        "cross_entropy: label_smooth is 2 but must be from 0 to 1",
    ),
    (
        lambda x, y: F.l1_loss(x, x[:, :2]),
        mge.ShapeError,
        "l1_loss: pred has shape (4, 3) but label has (4, 2)",
    ),
    (
        lambda x, y: F.hinge_loss(x, x, "L3"),
        mge.ArgumentError,
        "hinge_loss: norm is 'L3', which does not exist",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), CASES, ids=[row[2][:40] for row in CASES])
def test_errors(call: Any, error: type[mge.MgecError], text: str) -> None:
    with pytest.raises(error) as caught:
        call(mge.tensor(PRED), mge.tensor(LABEL))
    assert caught.value.headline == text
    assert caught.value.fix
