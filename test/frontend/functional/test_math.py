from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F

X = np.random.default_rng(0).standard_normal((3, 4, 5)).astype("float32")


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "max", "min", "var", "std"])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), [1, -1]])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(name: str, axis: Any, keepdims: bool) -> None:
    out = getattr(F, name)(mge.tensor(X), axis, keepdims)
    axes = tuple(axis) if isinstance(axis, list) else axis
    expected = getattr(np, name)(X, axis=axes, keepdims=keepdims)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_reductions_of_other_dtypes() -> None:
    flags = mge.tensor([True, False, True])
    assert F.sum(flags).item() == 2 and F.sum(flags).dtype is np.int32
    assert F.mean(mge.tensor([1, 2])).dtype is np.float32
    assert F.sum(mge.tensor([1, 2])).dtype is np.int32
    assert F.all(flags).item() is False and F.any(flags).item() is True
    assert F.all(mge.tensor([1, 2])).item() is True


def test_var_is_biased() -> None:
    assert str(F.std(mge.tensor([1.0, 2.0, 3.0, 4.0]))) == "Tensor(1.118034, device=xpux:0)"


def test_arg_reductions() -> None:
    x = mge.tensor(X)
    for axis in (0, 1, -1):
        np.testing.assert_array_equal(F.argmax(x, axis).numpy(), X.argmax(axis))
        np.testing.assert_array_equal(F.argmin(x, axis).numpy(), X.argmin(axis))
    assert F.argmax(x).item() == X.argmax() and F.argmax(x).dtype is np.int32
    assert F.argmax(x, 1, keepdims=True).shape == (3, 1, 5)
    assert F.argmin(x, keepdims=True).shape == (1, 1, 1)


def test_sort_argsort_topk() -> None:
    x = mge.tensor(X)
    values, indices = F.sort(x)
    np.testing.assert_array_equal(values.numpy(), np.sort(X, -1))
    np.testing.assert_array_equal(indices.numpy(), np.argsort(X, -1, kind="stable"))
    np.testing.assert_array_equal(F.argsort(x, descending=True).numpy(), np.argsort(-X, -1))
    values, indices = F.topk(x, 2)
    np.testing.assert_array_equal(values.numpy(), -np.sort(-X, -1)[..., :2])
    np.testing.assert_array_equal(
        F.topk(x, 2, descending=False)[0].numpy(), np.sort(X, -1)[..., :2]
    )
    np.testing.assert_array_equal(F.topk(x, 2, kth_only=True).numpy(), values.numpy()[..., 1])
    with pytest.raises(mge.ArgumentError, match="topk: k is 6 but the last axis has 5 elements"):
        F.topk(x, 6)


@pytest.mark.parametrize("order", [None, 0, 1, 2, 3, np.inf, -np.inf])
def test_norm(order: float | None) -> None:
    out = F.norm(mge.tensor(X), order, axis=1)
    np.testing.assert_allclose(out.numpy(), np.linalg.norm(X, order, axis=1), rtol=1e-5)
    v = X[0, 0]
    np.testing.assert_allclose(F.norm(mge.tensor(v), order).item(), np.linalg.norm(v, order), 1e-5)
    with pytest.raises(mge.ShapeError, match="norm: inp has rank 3 but must have rank 1"):
        F.norm(mge.tensor(X))


def test_normalize() -> None:
    out = F.normalize(mge.tensor(X), axis=1).numpy()
    np.testing.assert_allclose(out, X / np.linalg.norm(X, axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)),
     ((2, 1, 3, 4), (5, 4, 2)), ((6, 3, 4), (4,))],
)  # fmt: skip
def test_matmul(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(a).astype("float32"), rng.standard_normal(b).astype("float32")
    out = F.matmul(mge.tensor(x), mge.tensor(y)).numpy()
    assert out.shape == (x @ y).shape
    np.testing.assert_allclose(out, x @ y, rtol=1e-5, atol=1e-5)


def test_matmul_transposes_and_promotes() -> None:
    x, y = X[0], X[1]
    out = F.matmul(mge.tensor(x), mge.tensor(y), transpose_a=True).numpy()
    np.testing.assert_allclose(out, x.T @ y, rtol=1e-5, atol=1e-5)
    out = F.matmul(mge.tensor(x), mge.tensor(y), transpose_b=True).numpy()
    np.testing.assert_allclose(out, x @ y.T, rtol=1e-5, atol=1e-5)
    assert F.matmul(mge.tensor([[1, 2]]), mge.tensor([[3], [4]])).dtype is np.float32
    assert (mge.tensor(x) @ mge.tensor(y.T)).shape == (4, 4)


def test_dot_and_cross() -> None:
    a, b = X[0, 0, :3], X[1, 1, :3]
    np.testing.assert_allclose(F.dot(mge.tensor(a), mge.tensor(b)).item(), a @ b, rtol=1e-5)
    np.testing.assert_allclose(
        F.cross(mge.tensor(X[..., :3]), mge.tensor(b)).numpy(), np.cross(X[..., :3], b), rtol=1e-5
    )
    with pytest.raises(mge.ShapeError, match="dot: operands have ranks 2 and 1"):
        F.dot(mge.tensor(X[0]), mge.tensor(a))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: F.sum(x, 3), mge.AxisError, "sum: axis 3 is out of range for rank 3"),
        (
            lambda x: F.sum(x, (0, 0)),
            mge.AxisError,
            "sum: axis (0, 0) names an axis of rank 3 twice",
        ),
        (lambda x: F.max(x, -4), mge.AxisError, "max: axis -4 is out of range for rank 3"),
        (lambda x: F.argmax(x, 5), mge.AxisError, "argmax: axis 5 is out of range for rank 3"),
        (lambda x: F.sum(x, "a"), mge.ArgumentError, "sum: axis is 'a', not an integer"),
        (
            lambda x: F.sort(x[0, 0, 0]),
            mge.ShapeError,
            "sort: inp has rank 0 but must have an axis to sort",
        ),
        (
            lambda x: F.matmul(x, x[0, 0, 0]),
            mge.ShapeError,
            "matmul: inp2 has rank 0 but must have rank 1 or more",
        ),
        (
            lambda x: F.matmul(x, x, compute_mode="fast"),
            mge.ArgumentError,
            "matmul: compute_mode is 'fast', which does not exist",
        ),
    ],
)
def test_errors(call: Any, error: type[mge.MgecError], text: str) -> None:
    with pytest.raises(error) as caught:
        call(mge.tensor(X))
    assert caught.value.headline == text
    assert caught.value.fix
