"""Running one op now: devices, threads, backends, memory."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
from mgec import config
from mgec.core import eager
from mgec.errors import DeviceError, ShapeError

X = np.linspace(-2, 2, 24, dtype="float32").reshape(2, 3, 4)


@pytest.fixture
def no_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made anew, so that options take effect."""
    monkeypatch.setattr(eager, "_plans", {})


def test_devices() -> None:
    a, b = mge.tensor(X, device="cpu0"), mge.tensor(X, device="cpu1")
    assert F.exp(a).device == a.device
    assert (a + mge.tensor(X, device="cpu0")).device == a.device
    with pytest.raises(DeviceError, match="add: ambiguous device: operands are on"):
        _ = a + b
    with pytest.raises(DeviceError, match="matmul: ambiguous device"):
        F.matmul(a, b.transpose(0, 2, 1))
    with pytest.raises(DeviceError, match="concat: ambiguous device"):
        F.concat([a, b], axis=0)


def test_an_error_of_inference_names_the_op_and_the_line() -> None:
    with pytest.raises(ShapeError) as caught:
        F.matmul(mge.tensor(X), mge.tensor(X))
    assert "matmul" in caught.value.headline
    assert "test_eager.py" in str(caught.value)
    with pytest.raises(ShapeError):  # nor is the failure a plan
        F.matmul(mge.tensor(X), mge.tensor(X))


def test_reshape_shares_the_buffer_and_assignment_does_not_show() -> None:
    x = mge.tensor(X)
    y = x.reshape(6, 4)
    assert y._storage is x._storage
    x[0] = 0
    np.testing.assert_array_equal(y.numpy(), X.reshape(6, 4))


def test_results_own_their_memory() -> None:
    y = F.exp(mge.tensor(X))
    array = y.numpy()
    del y
    gc.collect()
    np.testing.assert_allclose(array, np.exp(X), rtol=1e-6)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 4)])
def test_tensors_of_no_elements(shape: tuple[int, ...]) -> None:
    x = mge.tensor(np.zeros(shape, "float32"))
    assert F.exp(x).shape == shape
    assert (x + x).shape == shape
    assert F.sum(x).item() == 0
    np.testing.assert_array_equal(F.sum(x, axis=0).numpy(), np.zeros(shape[1:]))
    assert F.concat([x, x], axis=0).shape == (2 * shape[0], *shape[1:])
    if shape[-1]:
        assert F.softmax(x, axis=len(shape) - 1).shape == shape
    else:
        with pytest.raises(ShapeError, match="has size 0"):
            F.softmax(x, axis=len(shape) - 1)


def test_the_reference_backend(no_plans: None) -> None:
    with config.override(backend="reference"):
        y = F.softmax(F.relu(mge.tensor(X, device="cpu0")), axis=2)
        assert not any("kernel" in repr(plan) for plan in eager._plans.values())
        assert y.device == mge.tensor(X, device="cpu0").device
    e = np.exp(np.maximum(X, 0).astype("float64"))
    np.testing.assert_allclose(y.numpy(), e / e.sum(2, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2), (0, 3)])
def test_neighbouring_axes_are_one(axes: tuple[int, ...]) -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype="float32").reshape(2, 3, 4, 5)
    for keepdims in (False, True):
        total = F.sum(mge.tensor(x), axis=axes, keepdims=keepdims)
        np.testing.assert_array_equal(total.numpy(), x.sum(axis=axes, keepdims=keepdims))


def test_large_ops_run_on_several_threads(no_plans: None) -> None:
    x = np.random.default_rng(0).standard_normal((700, 900)).astype("float32")
    with config.override(num_threads=2):
        np.testing.assert_array_equal((mge.tensor(x) + mge.tensor(x)).numpy(), x + x)
        total = F.sum(mge.tensor(x), axis=0)
        np.testing.assert_allclose(total.numpy(), x.sum(0, dtype="float64"), rtol=0, atol=1e-3)
