"""Which dtype an op computes in."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import mgec as mge
from mgec.core import promote
from mgec.errors import ArgumentError

BF16 = ml_dtypes.bfloat16


def zeros(dtype: Any) -> mge.Tensor:
    return mge.tensor(np.zeros(2, dtype), dtype=dtype)


@pytest.mark.parametrize(
    ("lhs", "rhs", "expected"),
    [
        ("float32", "float32", "float32"),
        ("float32", "float16", "float32"),
        ("float32", BF16, "float32"),
        ("float16", BF16, "float32"),
        ("float16", "float16", "float16"),
        (BF16, BF16, BF16),
        # Tensors of a higher category decide alone.
        ("float16", "int32", "float16"),
        (BF16, "uint8", BF16),
        ("int8", "bool", "int8"),
        ("float16", "bool", "float16"),
        ("int8", "int32", "int32"),
        ("int8", "uint8", "int16"),
        ("uint8", "uint16", "uint16"),
        ("bool", "bool", "bool"),
        ("uint16", "int32", "int32"),
    ],
)
def test_two_tensors(lhs: Any, rhs: Any, expected: Any) -> None:
    for a, b in ((lhs, rhs), (rhs, lhs)):
        found = promote.operands("maximum", (zeros(a), zeros(b)))
        assert [x._spec.dtype for x in found] == [np.dtype(expected)] * 2


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [
        ("float16", 1, "float16"),
        ("float16", 1.5, "float16"),
        (BF16, 0.1, BF16),
        ("int8", 1, "int8"),
        ("int8", True, "int8"),
        ("int8", 1.5, "float32"),
        ("bool", 1, "int32"),
        ("bool", 1.5, "float32"),
        ("bool", True, "bool"),
        ("float32", np.float64(1.5), "float32"),
        ("int32", np.int64(7), "int32"),
    ],
)
def test_a_tensor_and_a_number(dtype: Any, number: Any, expected: Any) -> None:
    tensor, other = promote.operands("maximum", (zeros(dtype), number))
    assert tensor._spec.dtype == other._spec.dtype == np.dtype(expected)
    assert other.shape == ()
    assert other.item() == np.array(number).astype(expected)


def test_numbers_alone() -> None:
    for values, expected in (((1, 2), "int32"), ((1, 2.0), "float32"), ((True, False), "bool")):
        found = promote.operands("maximum", values)
        assert {x._spec.dtype for x in found} == {np.dtype(expected)}


def test_numbers_that_are_equal_are_told_apart() -> None:
    """1, 1.0 and True are equal and hash alike; 0.0 and -0.0 too."""
    kinds = [promote.operands("maximum", (zeros("float32"), v))[1].item() for v in (1, 1.0, True)]
    assert kinds == [1, 1, 1]
    for number, sign in ((0.0, False), (-0.0, True), (0.0, False)):
        assert np.signbit(promote.operands("add", (zeros("float32"), number))[1].item()) == sign


def test_arrays_and_lists_are_tensors() -> None:
    found = promote.operands("maximum", (zeros("float32"), np.ones(2), [1, 2]))
    assert [x._spec.dtype for x in found] == [np.dtype("float32")] * 3
    assert [x.tolist() for x in found] == [[0, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("value", ["text", None, object(), 1j])
def test_something_else(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"maximum: a \w+ is not a tensor or a number"):
        promote.operands("maximum", (zeros("float32"), value))


def test_a_number_is_on_no_device_in_particular() -> None:
    x = mge.tensor([1.0], device="cpu0")
    assert (x + 1).device == x.device
    assert (1 + x).device == x.device


def test_integers_become_floats_where_the_op_wants_them() -> None:
    assert promote.as_float(zeros("int8"))._spec.dtype == np.float32
    assert promote.as_float(zeros("float16"))._spec.dtype == np.float16
    assert (mge.tensor([1, 2]) / 2).tolist() == [0.5, 1.0]
    assert (mge.tensor([7, 8]) // 2).dtype is np.int32
