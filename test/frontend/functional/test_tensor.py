from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F

X = np.arange(24, dtype="float32").reshape(2, 3, 4)


def equal(out: mge.Tensor, expected: Any) -> None:
    np.testing.assert_array_equal(out.numpy(), expected)


def test_making() -> None:
    equal(F.zeros((2, 3)), np.zeros((2, 3), "float32"))
    assert F.ones(3, dtype="int32").tolist() == [1, 1, 1]
    assert F.full((2,), 2.5).tolist() == [2.5, 2.5]
    assert F.full((), mge.tensor([3.0])).item() == 3
    x = mge.tensor([1, 2]).to("cpu0")
    for made, value in ((F.zeros_like(x), 0), (F.ones_like(x), 1), (F.full_like(x, 7), 7)):
        assert made.dtype is np.int32 and str(made.device) == "cpu0:0"
        assert made.tolist() == [value, value]
    assert str(F.zeros(1, device="cpu0").device) == "cpu0:0"
    assert F.zeros((0, 3)).shape == (0, 3)
    equal(F.eye(2, 3), np.eye(2, 3))
    equal(F.eye(3, dtype="int32"), np.eye(3, dtype="int32"))


@pytest.mark.parametrize(
    "args", [(5,), (2, 7), (0, 1, 0.25), (5, 0, -2), (3, 1), (0, 10, 3), (1.5, 4)]
)
def test_arange(args: tuple[float, ...]) -> None:
    out = F.arange(*args)
    np.testing.assert_allclose(out.numpy(), np.arange(*args, dtype="float32"))
    assert out.dtype is np.float32
    assert F.arange(3, dtype="int32").tolist() == [0, 1, 2]


def test_linspace() -> None:
    np.testing.assert_allclose(F.linspace(3, 10, 5).numpy(), np.linspace(3, 10, 5))
    assert F.linspace(2, 9, 1).tolist() == [2]
    with pytest.raises(mge.ArgumentError, match="linspace: num is 0 but must be at least 1"):
        F.linspace(0, 1, 0)


@pytest.mark.parametrize("k", [-3, -1, 0, 1, 2, 5])
def test_diag(k: int) -> None:
    equal(F.diag(mge.tensor(X[0]), k), np.diag(X[0], k))
    equal(F.diag(mge.tensor(X[0].T), k), np.diag(X[0].T, k))
    equal(F.diag(mge.tensor(X[0, 0]), k), np.diag(X[0, 0], k))


def test_meshgrid() -> None:
    a, b, c = np.arange(2.0), np.arange(3.0), np.arange(4.0)
    for indexing in ("xy", "ij"):
        out = F.meshgrid(mge.tensor(a), mge.tensor(b), mge.tensor(c), indexing=indexing)
        for grid, expected in zip(out, np.meshgrid(a, b, c, indexing=indexing), strict=True):
            equal(grid, expected)


def test_shapes() -> None:
    x = mge.tensor(X)
    equal(F.reshape(x, (4, -1)), X.reshape(4, -1))
    equal(F.flatten(x, 1), X.reshape(2, 12))
    equal(F.flatten(x, 0, 1), X.reshape(6, 4))
    assert F.flatten(mge.tensor(1.0)).shape == (1,)
    equal(F.transpose(x, (2, 0, 1)), X.transpose(2, 0, 1))
    assert F.transpose(x, (1, "x", 0, 2)).shape == (3, 1, 2, 4)
    equal(F.swapaxes(x, 0, -1), X.swapaxes(0, -1))
    assert F.expand_dims(x, (0, -1)).shape == (1, 2, 3, 4, 1)
    assert F.expand_dims(x, 1).shape == (2, 1, 3, 4)
    assert F.squeeze(F.expand_dims(x, (0, 2))).shape == (2, 3, 4)
    assert F.squeeze(F.expand_dims(x, (0, 2)), 2).shape == (1, 2, 3, 4)
    equal(F.broadcast_to(x[0], (5, -1, 4)), np.broadcast_to(X[0], (5, 3, 4)))
    equal(x.T, X.T)
    equal(F.flip(x, 1), X[:, ::-1])
    for k in range(-1, 5):
        equal(F.rot90(x, k, (1, 2)), np.rot90(X, k, (1, 2)))


def test_joining_and_cutting() -> None:
    x = mge.tensor(X)
    equal(F.concat([x, x[:, :1]], 1), np.concatenate([X, X[:, :1]], 1))
    equal(F.stack([x, x], -1), np.stack([X, X], -1))
    assert F.concat([mge.tensor([1]), mge.tensor([1.5])]).tolist() == [1, 1.5]
    for parts in (3, [1, 2], [0, 3]):
        for out, expected in zip(F.split(x, parts, 1), np.array_split(X, parts, 1), strict=True):
            equal(out, expected)
    assert [p.shape[0] for p in F.split(F.arange(10), 3)] == [4, 3, 3]


def test_repeating() -> None:
    x = mge.tensor(X)
    equal(F.repeat(x, 2, 1), X.repeat(2, 1))
    equal(F.repeat(x, 3), X.repeat(3))
    equal(F.repeat(x, [2, 0, 1], 1), X.repeat([2, 0, 1], 1))
    equal(F.tile(x, 2), np.tile(X, 2))
    equal(F.tile(x[0, 0], (2, 3)), np.tile(X[0, 0], (2, 3)))
    equal(F.roll(x, 1, 1), np.roll(X, 1, 1))
    equal(F.roll(x, (5, -1), (2, 0)), np.roll(X, (5, -1), (2, 0)))
    equal(F.roll(x, 7), np.roll(X, 7))
    equal(F.cumsum(x, 1), X.cumsum(1))
    copied = F.copy(x, "cpu0")
    equal(copied, X)
    assert str(copied.device) == "cpu0:0"


def test_choosing() -> None:
    x = mge.tensor(X)
    equal(F.where(x > 7, x, -1), np.where(X > 7, X, -1))
    index = np.array([[[0, 1, 1, 0]], [[1, 0, 2, 2]]])
    equal(F.gather(x, 1, mge.tensor(index)), np.take_along_axis(X, index, 1))
    expected = X.copy()
    np.put_along_axis(expected, index, -5.0, 1)
    equal(F.scatter(x, 1, mge.tensor(index), F.full(index.shape, -5.0)), expected)
    equal(F.non_zero(x > 20), np.stack(np.nonzero(X > 20), 1))
    for out, places in zip(F.non_zero(x > 20, as_tuple=True), np.nonzero(X > 20), strict=True):
        equal(out, places)
    values, places = F.cond_take(x > 20, x)
    assert values.tolist() == [21, 22, 23] and places.tolist() == [21, 22, 23]


CASES: list[tuple[Any, type[mge.MgecError], str]] = [
    (lambda x: F.arange(0, 3, 0), mge.ArgumentError, "arange: step is 0"),
    (lambda x: F.arange("3"), mge.ArgumentError, "arange: stop is '3', not a number"),
    (
        lambda x: F.reshape(x, (-1, -1)),
        mge.ArgumentError,
        "reshape: shape (-1, -1) has 2 sizes of -1",
    ),
    (
        lambda x: F.reshape(x, (5, -1)),
        mge.ShapeError,
        "reshape: input has 24 elements, which shape (5, -1) cannot divide evenly",
    ),
    (
        lambda x: F.reshape(x, (5, 5)),
        mge.ShapeError,
        "reshape: input has 24 elements but shape (5, 5) has 25",
    ),
    (lambda x: F.transpose(x, (0, 1)), mge.AxisError, "transpose: perm (0, 1) does not name"),
    (lambda x: F.transpose(x, (0, 1, 3)), mge.AxisError, "transpose: axis 3 is out of range"),
    (lambda x: F.squeeze(x, 1), mge.ShapeError, "squeeze: axis 1 has size 3, not 1"),
    (lambda x: F.flatten(x, 2, 1), mge.AxisError, "flatten: start_axis 2 comes after end_axis 1"),
    (
        lambda x: F.expand_dims(x, 4),
        mge.AxisError,
        "expand_dims: axis 4 is out of range for rank 4",
    ),
    (lambda x: F.concat([]), mge.ArgumentError, "concat: inps is [], not a sequence of tensors"),
    (lambda x: F.concat([x, x[:1]], 1), mge.ShapeError, "concat: shapes (2, 3, 4) and (1, 3, 4)"),
    (lambda x: F.stack([x, x[:1]]), mge.ShapeError, "stack: shapes (2, 3, 4) and (1, 3, 4) differ"),
    (lambda x: F.split(x, 9, 1), mge.ArgumentError, "split: cannot cut axis 1 of size 3 into 9"),
    (lambda x: F.split(x, [5], 1), mge.ArgumentError, "split: sections (5,) are not in order"),
    (lambda x: F.roll(x, (1, 2), 0), mge.ArgumentError, "roll: 2 shifts for 1 axes"),
    (lambda x: F.repeat(x, [1, 2], 1), mge.ArgumentError, "repeat: repeats (1, 2) does not fit"),
    (lambda x: F.where(x, x, x), mge.DTypeError, "where: mask must be bool, but is float32"),
    (lambda x: F.cond_take(x > 1, x[0]), mge.ShapeError, "cond_take: mask has shape (2, 3, 4)"),
    (lambda x: F.gather(x, 0, mge.tensor([0])), mge.ShapeError, "gather: index has rank 1"),
    (
        lambda x: F.gather(x, 1, F.full((2, 1, 4), 3, dtype="int32")),
        mge.AxisError,
        "gather: index holds 3 but must be below 3",
    ),
    (lambda x: F.broadcast_to(x, (2, 3, 5)), mge.ShapeError, "broadcast: shape (2, 3, 4) does not"),
    (lambda x: F.diag(x), mge.ShapeError, "diag: inp has rank 3 but must have rank 1 or 2"),
    (lambda x: F.full((2, -1), 1), mge.ShapeError, "full: shape (2, -1) has a negative size"),
    (lambda x: F.zeros(2, dtype="complex64"), mge.DTypeError, "tensor: dtype complex64 is not"),
    (lambda x: F.meshgrid(x[0, 0], indexing="yx"), mge.ArgumentError, "meshgrid: indexing is 'yx'"),
]


@pytest.mark.parametrize(("call", "error", "text"), CASES, ids=[row[2][:30] for row in CASES])
def test_errors(call: Any, error: type[mge.MgecError], text: str) -> None:
    with pytest.raises(error) as caught:
        call(mge.tensor(X))
    assert caught.value.headline.startswith(text)
    assert caught.value.fix


def test_gradients_reach_through_rearranging() -> None:
    x = mge.tensor(X)
    gm = mge.autodiff.GradManager().attach([x])
    with gm:
        parts = F.split(F.roll(F.transpose(x, (1, 0, 2)), 1, 0), 3)
        y = F.concat([F.flip(parts[0], 2), F.tile(parts[1], (1, 1, 1)), parts[2] * 2])
        gm.backward(F.pad(F.repeat(y, 2, 1), ((0, 0), (1, 0), (0, 2)), "replicate").sum())
    assert x.grad.shape == X.shape and np.isfinite(x.grad.numpy()).all()
