"""take, gather, scatter, one_hot, sort."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.opcheck import check_gradient, check_round_trip, check_value, compiled

from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import (
    BFLOAT16,
    BOOL,
    DTYPES,
    FLOAT16,
    FLOAT32,
    FLOATS,
    INT8,
    INT32,
    INT64,
    INTEGERS,
    UINT8,
    TensorSpec,
    is_float,
)
from mgec.errors import ArgumentError, AxisError, DTypeError, MgecError, ShapeError


def data(shape: tuple[int, ...], dtype: Any = FLOAT32, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if dtype == BOOL:
        return rng.random(shape) > 0.5
    if not is_float(dtype):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return rng.standard_normal(shape).astype(dtype)


def indices(shape: tuple[int, ...], size: int, dtype: Any = INT32) -> np.ndarray[Any, Any]:
    """Indices from the front and from the end, with repetitions."""
    low = 0 if np.dtype(dtype).kind == "u" else -size
    return np.random.default_rng(1).integers(low, max(size, 1), shape).astype(dtype)


TAKES = [
    # shape of the input, shape of the indices, axis
    ((5,), (), 0),
    ((5,), (7,), 0),
    ((7, 3), (4,), 0),
    ((7, 3), (2, 5), 0),
    ((3, 7), (4,), 1),
    ((4, 7, 3), (2, 5), 1),
    ((4, 7, 3), (0,), 1),
    ((0, 7), (3,), 1),
    ((1, 3), (4,), 0),
    ((0, 3), (0,), 0),
]
INDEXED = [
    # shape of the input, shape of the index, axis
    ((5,), (8,), 0),
    ((4, 5), (9, 5), 0),
    ((4, 5), (4, 3), 1),
    ((4, 5), (2, 9), 1),
    ((4, 7, 3), (4, 9, 2), 1),
    ((4, 5), (0, 5), 0),
    ((0, 5), (0, 5), 0),
    ((2, 1, 3, 4), (2, 1, 5, 4), 2),
]


@pytest.mark.parametrize(("shape", "index", "axis"), TAKES)
def test_take(shape: tuple[int, ...], index: tuple[int, ...], axis: int) -> None:
    x, i = data(shape), indices(index, shape[axis])
    check_value("take", [x, i], {"axis": axis}, dynamic=[True])
    check_gradient("take", [x, i], {"axis": axis})
    d = data((*shape[:axis], *index, *shape[axis + 1 :]), seed=1)
    attrs = {"axis": axis, "shape": shape}
    check_value("take_grad", [d, i], attrs, reduction=5, dynamic=[True])
    check_gradient("take_grad", [d, i], attrs)


@pytest.mark.parametrize(("shape", "index", "axis"), INDEXED)
def test_gather_and_scatter(shape: tuple[int, ...], index: tuple[int, ...], axis: int) -> None:
    x, i, s = data(shape), indices(index, shape[axis]), data(index, seed=2)
    for name, arrays in (("gather", [x, i]), ("scatter", [x, i, s]), ("scatter_add", [x, i, s])):
        check_value(name, arrays, {"axis": axis}, reduction=5, dynamic=[True])
        check_gradient(name, arrays, {"axis": axis})


def test_static_shapes() -> None:
    x, s = data((4, 7, 3)), data((4, 9, 2), seed=2)
    i, j = indices((4, 9, 2), 7), indices((2, 5), 7)
    for name, arrays, attrs in (
        ("take", [x, j], {"axis": 1}),
        ("take_grad", [data((4, 2, 5, 3)), j], {"axis": 1, "shape": (4, 7, 3)}),
        ("gather", [x, i], {"axis": 1}),
        ("scatter", [x, i, s], {"axis": 1}),
        ("scatter_add", [x, i, s], {"axis": 1}),
        ("one_hot", [j], {"num_classes": 4}),
        ("sort", [x], {"axis": 1}),
        ("topk", [x], {"axis": 1, "k": 4}),
        ("take", [data((0, 3)), indices((0,), 0)], {"axis": 0}),
        ("sort", [data((3, 0))], {"axis": 1}),
        ("sort", [data((3, 1))], {"axis": 1}),
    ):
        check_value(name, arrays, attrs, reduction=5, dynamic=[False])


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_index_dtypes(dtype: Any) -> None:
    x = data((100, 2))
    i = np.array([0, 99, 50] if dtype.kind == "u" else [-1, 99, -100]).astype(dtype)
    check_value("take", [x, i], {"axis": 0}, dynamic=[True])
    check_value("one_hot", [i], {"num_classes": 100}, dynamic=[True])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: Any) -> None:
    x, s, i = data((9,), dtype), data((30,), dtype, 1), indices((30,), 9)
    check_value("take", [x, i], dynamic=[True])
    check_value("gather", [x, i], {"axis": 0}, dynamic=[True])
    check_value("scatter", [x, i, s], {"axis": 0}, dynamic=[True])
    check_value("one_hot", [i], {"num_classes": 5, "dtype": dtype}, dynamic=[True])
    if dtype != BOOL:
        check_value("scatter_add", [x, i, s], {"axis": 0}, reduction=8, dynamic=[True])
        check_value("take_grad", [s, i], {"shape": (9,)}, reduction=8, dynamic=[True])
        check_value("sort", [s], {"axis": 0}, dynamic=[True])
        check_value("sort", [s], {"axis": 0, "descending": True}, dynamic=[True])


def test_indices_out_of_range_move_to_the_nearest_end() -> None:
    x, i = data((5, 2)), np.array([5, 1000, -6, -1000, 4, -5], np.int32)
    (y,) = compiled("take", [x, i], dynamic=True)
    np.testing.assert_array_equal(y, x[[4, 4, 0, 0, 4, 0]])
    check_value("take", [x, i], dynamic=[True])
    check_value("one_hot", [i], {"num_classes": 5}, dynamic=[True])


def test_the_last_of_equal_indices_wins() -> None:
    x, i = np.zeros(3, np.float32), np.array([1, 1, -2, 0], np.int32)
    s = np.array([5, 6, 7, 8], np.float32)
    (y,) = compiled("scatter", [x, i, s], {"axis": 0}, dynamic=True)
    np.testing.assert_array_equal(y, [8, 7, 0])
    check_gradient("scatter", [x, i, s], {"axis": 0})


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_narrow_floats_accumulate_in_float32(dtype: Any) -> None:
    ones, zeros = np.ones(4096, dtype), np.zeros(4096, np.int32)
    (y,) = compiled("take_grad", [ones, zeros], {"shape": (2,)}, dynamic=True)
    assert y.astype(np.float32).tolist() == [4096, 0]
    arrays = [np.zeros(2, dtype), zeros, ones]
    (y,) = compiled("scatter_add", arrays, {"axis": 0}, dynamic=True)
    assert y.astype(np.float32).tolist() == [4096, 0]


@pytest.mark.parametrize("descending", [False, True])
def test_sort(descending: bool) -> None:
    for shape, axis in (
        ((1,), 0),
        ((0,), 0),
        *(((n,), 0) for n in (2, 3, 4, 5, 7, 8, 9, 31, 33, 1000)),
        ((5, 7), 0),
        ((5, 7), 1),
        ((3, 6, 5), 1),
    ):
        attrs = {"axis": axis, "descending": descending}
        check_value("sort", [data(shape)], attrs, dynamic=[True])
        few = np.random.default_rng(3).integers(0, 3, shape).astype(np.float32)
        check_value("sort", [few], attrs, dynamic=[True])  # ties keep their order
        if shape != (1000,):  # where the step of the central difference swaps neighbours
            check_gradient("sort", [data(shape)], attrs)
    special = np.array([np.nan, 1, -0.0, np.inf, 0.0, np.nan, -np.inf, 1e-45, -1], np.float32)
    check_value("sort", [special], {"axis": 0, "descending": descending}, dynamic=[True])


def test_topk() -> None:
    for k, axis, descending in ((3, 1, True), (0, 1, True), (5, 0, False)):
        attrs = {"k": k, "axis": axis, "descending": descending}
        check_value("topk", [data((5, 7))], attrs)
        check_gradient("topk", [data((5, 7))], attrs)


def test_one_hot() -> None:
    for shape, classes in (((), 3), ((4,), 3), ((2, 3), 0), ((2, 3), 1), ((0,), 4)):
        attrs = {"num_classes": classes, "dtype": INT8}
        check_value("one_hot", [indices(shape, 3)], attrs, dynamic=[True])


INT, F = INT32, FLOAT32
ROUND_TRIPS: list[tuple[str, list[TensorSpec], dict[str, Any]]] = [
    ("take", [TensorSpec((5, 3), F), TensorSpec((2,), INT)], {}),
    ("take", [TensorSpec((5, 3), F), TensorSpec((2,), INT64)], {"axis": 1}),
    ("take_grad", [TensorSpec((2, 3), F), TensorSpec((2,), INT)], {"shape": (5, 3)}),
    ("gather", [TensorSpec((5, 3), F), TensorSpec((2, 3), INT)], {"axis": 0}),
    ("scatter", [TensorSpec((5,), F), TensorSpec((2,), INT), TensorSpec((2,), F)], {"axis": 0}),
    ("scatter_add", [TensorSpec((5,), F), TensorSpec((2,), INT), TensorSpec((2,), F)], {"axis": 0}),
    ("one_hot", [TensorSpec((5,), UINT8)], {"num_classes": 3, "dtype": BOOL}),
    ("sort", [TensorSpec((5, 3), F)], {"axis": 1, "descending": True}),
    ("topk", [TensorSpec((5, 3), F)], {"k": 2, "axis": 0}),
]


@pytest.mark.parametrize(("name", "specs", "attrs"), ROUND_TRIPS)
def test_round_trip(name: str, specs: list[TensorSpec], attrs: dict[str, Any]) -> None:
    check_round_trip(name, specs, attrs)


X, IX = TensorSpec((4, 3), F), TensorSpec((2,), INT)
EMPTY = TensorSpec((0, 3), F)
ERRORS: list[tuple[str, list[TensorSpec], dict[str, Any], type[MgecError], str]] = [
    ("take", [X, X], {}, DTypeError, "take: indices has dtype float32, which is not supported"),
    ("take", [X, IX], {"axis": 2}, AxisError, "take: axis 2 is out of range for rank 2"),
    ("take", [EMPTY, IX], {}, ShapeError,
     "take: axis 0 has size 0 but there are indices into it"),
    ("take_grad", [TensorSpec((2, 3), BOOL), IX], {"shape": (4, 3)}, DTypeError,
     "take_grad: d_out has dtype bool, which is not supported"),
    ("take_grad", [TensorSpec((2, 3), F), X], {"shape": (4, 3)}, DTypeError,
     "take_grad: indices has dtype float32, which is not supported"),
    ("take_grad", [TensorSpec((2, 3), F), IX], {"shape": (4, -3)}, ShapeError,
     "take_grad: shape (4, -3) has a negative size"),
    ("take_grad", [TensorSpec((2, 3), F), IX], {"shape": (4, 3), "axis": 2}, AxisError,
     "take_grad: axis 2 is out of range for rank 2"),
    ("take_grad", [TensorSpec((2, 3), F), IX], {"shape": (0, 3)}, ShapeError,
     "take_grad: axis 0 has size 0 but there are indices into it"),
    ("take_grad", [TensorSpec((2, 3), F), IX], {"shape": (4, 5)}, ShapeError,
     "take_grad: d_out has shape (2, 3) but a take from (4, 5) has shape (2, 5)"),
    ("gather", [X, IX], {"axis": 0}, ShapeError, "gather: inp has rank 2 but index has rank 1"),
    ("gather", [X, X], {"axis": 0}, DTypeError,
     "gather: index has dtype float32, which is not supported"),
    ("gather", [X, TensorSpec((2, 5), INT)], {"axis": 0}, ShapeError,
     "gather: index has size 5 on axis 1 but inp has size 3"),
    ("gather", [X, TensorSpec((2, 5), INT)], {"axis": -1}, AxisError,
     "gather: axis -1 is out of range for rank 2"),
    ("gather", [EMPTY, TensorSpec((2, 3), INT)], {"axis": 0}, ShapeError,
     "gather: axis 0 has size 0 but there are indices into it"),
    ("scatter", [X, TensorSpec((2, 3), INT), TensorSpec((2, 3), INT8)], {"axis": 0}, DTypeError,
     "scatter: inp is float32 but source is int8"),
    ("scatter", [X, TensorSpec((2, 3), INT), TensorSpec((1, 3), F)], {"axis": 0}, ShapeError,
     "scatter: index has shape (2, 3) but source has shape (1, 3)"),
    ("scatter_add", [TensorSpec((4,), BOOL), IX, TensorSpec((2,), BOOL)], {"axis": 0}, DTypeError,
     "scatter_add: inp has dtype bool, which is not supported"),
    ("one_hot", [X], {"num_classes": 3}, DTypeError,
     "one_hot: indices has dtype float32, which is not supported"),
    ("one_hot", [IX], {"num_classes": -3}, ArgumentError,
     "one_hot: num_classes is -3, but cannot be negative"),
    ("sort", [TensorSpec((2,), BOOL)], {"axis": 0}, DTypeError,
     "sort: inp has dtype bool, which is not supported"),
    ("sort", [X], {"axis": 2}, AxisError, "sort: axis 2 is out of range for rank 2"),
    ("topk", [TensorSpec((2,), BOOL)], {"k": 1, "axis": 0}, DTypeError,
     "topk: inp has dtype bool, which is not supported"),
    ("topk", [X], {"k": 1, "axis": 2}, AxisError, "topk: axis 2 is out of range for rank 2"),
    ("topk", [X], {"k": 4, "axis": 1}, ArgumentError, "topk: k is 4 but axis 1 has size 3"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "specs", "attrs", "error", "headline"), ERRORS)
def test_errors(
    name: str,
    specs: list[TensorSpec],
    attrs: dict[str, Any],
    error: type[MgecError],
    headline: str,
) -> None:
    op = op_class(f"mge.{name}")
    with pytest.raises(error) as caught:
        op.infer_specs(specs, op.complete_attrs(attrs))
    assert caught.value.headline == headline
    assert caught.value.fix


def test_sort_of_every_float_dtype_puts_nan_last() -> None:
    for dtype in FLOATS:
        x = np.array([2, np.nan, -1, np.nan, 0.5]).astype(dtype)
        for descending in (False, True):
            check_value("sort", [x], {"axis": 0, "descending": descending}, dynamic=[True])
