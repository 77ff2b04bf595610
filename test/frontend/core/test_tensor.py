"""The tensor itself: making, reading, printing, converting."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import mgec as mge
from mgec.errors import DTypeError, MgecError


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (1, "int32", ()),
        (1.5, "float32", ()),
        (True, "bool", ()),
        ([1, 2], "int32", (2,)),
        ([1, 2.5], "float32", (2,)),
        ([[True], [False]], "bool", (2, 1)),
        (np.zeros((2, 0)), "float32", (2, 0)),
        (np.arange(3), "int32", (3,)),
        (np.arange(3, dtype="uint8"), "uint8", (3,)),
        (np.zeros(2, "float16"), "float16", (2,)),
        (np.zeros(2, ml_dtypes.bfloat16), ml_dtypes.bfloat16, (2,)),
        (np.float64(2), "float32", ()),
    ],
)
def test_making(data: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    x = mge.tensor(data)
    assert x.numpy().dtype == np.dtype(dtype)
    assert x.dtype is np.dtype(dtype).type
    assert x.shape == shape
    assert (x.ndim, x.size) == (len(shape), int(np.prod(shape)))
    np.testing.assert_array_equal(x.numpy(), np.asarray(data))


def test_data_are_copied_in_and_out() -> None:
    array = np.zeros(3, "float32")
    x = mge.tensor(array)
    array[0] = 1
    out = x.numpy()
    with contextlib.suppress(ValueError):  # read-only is as good
        out[1] = 1
    assert x.tolist() == [0, 0, 0]


def test_arrays_in_any_layout() -> None:
    array = np.arange(24, dtype="float32").reshape(2, 3, 4)
    for view in (array.T, array[::-1], array[:, 1:, ::2], array[None].swapaxes(0, 2)):
        x = mge.tensor(view)
        np.testing.assert_array_equal(x.numpy(), view)
        np.testing.assert_array_equal((x + 0).numpy(), view)
    big_endian = array.astype(">f4")
    np.testing.assert_array_equal(mge.tensor(big_endian).numpy(), array)


@pytest.mark.parametrize("dtype", ["float64", "complex64", "U3", "datetime64[s]"])
def test_dtypes_that_tensors_do_not_have(dtype: str) -> None:
    with pytest.raises(MgecError):
        mge.tensor([1, 2], dtype=dtype)
    with pytest.raises(DTypeError):
        mge.tensor([1, 2]).astype(dtype)


def test_python_numbers() -> None:
    assert float(mge.tensor(2.5)) == 2.5
    assert int(mge.tensor([[3]])) == 3
    assert bool(mge.tensor([0.0])) is False
    assert mge.tensor(7).item() == 7
    assert [10, 20, 30][mge.tensor(1)] == 20
    assert list(range(10))[mge.tensor(2) : mge.tensor(4)] == [2, 3]
    for convert in (float, int, bool):
        with pytest.raises(MgecError):
            convert(mge.tensor([1.0, 2.0]))
    with pytest.raises((MgecError, TypeError)):
        _ = [1, 2][mge.tensor(1.0)]


def test_length_and_iteration() -> None:
    x = mge.tensor([[1, 2], [3, 4]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]]
    with pytest.raises((MgecError, TypeError)):
        len(mge.tensor(1))
    with pytest.raises((MgecError, TypeError)):
        iter(mge.tensor(1)).__next__()


def test_numpy_takes_tensors() -> None:
    x = mge.tensor([1.0, 2.0])
    np.testing.assert_array_equal(np.asarray(x), [1, 2])
    assert np.asarray(x, dtype="int32").dtype == np.int32
    for mixed in (np.ones(2, "float32") + x, np.float32(1) + x, np.ones(2, "float32") @ x):
        assert isinstance(mixed, mge.Tensor)
    assert (np.ones(2, "float32") < x).tolist() == [False, True]


def test_comparison_gives_tensors_and_hash_is_identity() -> None:
    x, y = mge.tensor([1, 2]), mge.tensor([1, 3])
    assert (x == y).tolist() == [True, False]
    assert (x != y).tolist() == [False, True]
    assert len({x, y, x}) == 2


def test_changes_in_place_give_the_name_a_new_value() -> None:
    x = mge.tensor([1.0, 2.0])
    same, view = x, x.reshape(2, 1)
    x += 1
    assert x.tolist() == [2, 3]
    assert view.tolist() == [[1], [2]]
    same.set_value([5.0, 6.0])
    assert same.tolist() == [5, 6]
    same.reset_zero()
    assert same.tolist() == [0, 0]


def test_copies() -> None:
    x = mge.tensor([1.0, 2.0], name="x")
    for made in (copy.copy(x), copy.deepcopy(x), x.detach()):
        made[0] = 9
        assert x.tolist() == [1, 2]


def test_transposed() -> None:
    x = mge.tensor(np.arange(6, dtype="float32").reshape(2, 3))
    np.testing.assert_array_equal(x.T.numpy(), x.numpy().T)
    assert x.transpose(1, 0).shape == x.transpose((1, 0)).shape == (3, 2)
    assert x.reshape(3, 2).shape == x.reshape((3, -1)).shape == (3, 2)
    assert x.flatten().shape == (6,)


def test_reductions_are_methods_too() -> None:
    x = mge.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert (x.sum().item(), x.mean().item(), x.min().item(), x.max().item()) == (10, 2.5, 1, 4)
    assert x.prod(axis=0).tolist() == [3, 8]
    assert x.sum(axis=1, keepdims=True).shape == (2, 1)


def test_printing() -> None:
    assert repr(mge.tensor([1.0, 2.0])) == "Tensor([1. 2.], device=xpux:0)"
    assert repr(mge.tensor(3, device="cpu0")) == "Tensor(3, dtype=int32, device=cpu0:0)"
