"""Ops that move data: reshape, transpose, broadcast, slice, pad, concat and kin."""

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
    INTEGERS,
    UINT8,
    UINT16,
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


# (op, shapes of the operands, attributes). One compiled kernel serves all shapes of a rank,
# so a row costs little.
CASES: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("reshape", [(3, 5, 4)], {"shape": (15, 4)}),
    ("reshape", [(3, 4)], {"shape": (4, 3)}),
    ("reshape", [(3, 5, 4)], {"shape": (5, 3, 2, 2)}),
    ("reshape", [(1, 1)], {"shape": ()}),
    ("reshape", [()], {"shape": (1,)}),
    ("reshape", [(0, 3)], {"shape": (5, 0, 2)}),
    ("reshape", [(2, 1, 7)], {"shape": (7, 2)}),
    ("transpose", [()], {"perm": ()}),
    ("transpose", [(7,)], {"perm": (0,)}),
    ("transpose", [(3, 5)], {"perm": (1, 0)}),
    ("transpose", [(0, 5)], {"perm": (1, 0)}),
    ("transpose", [(2, 3, 5)], {"perm": (2, 0, 1)}),
    ("transpose", [(2, 3, 1, 5)], {"perm": (3, 1, 0, 2)}),
    ("broadcast", [()], {"shape": (2, 3)}),
    ("broadcast", [(3,)], {"shape": (3,)}),
    ("broadcast", [(3, 1)], {"shape": (3, 5)}),
    ("broadcast", [(3, 1)], {"shape": (2, 3, 1)}),
    ("broadcast", [(1, 5, 1)], {"shape": (2, 3, 5, 4)}),
    ("broadcast", [(3, 1)], {"shape": (3, 0)}),
    ("slice", [()], {"starts": (), "stops": (), "steps": ()}),
    ("slice", [(9,)], {"starts": (2,), "stops": (7,), "steps": (1,)}),
    ("slice", [(9,)], {"starts": (8,), "stops": (-1,), "steps": (-3,)}),
    ("slice", [(9,)], {"starts": (5,), "stops": (5,), "steps": (2,)}),
    ("slice", [(0,)], {"starts": (-1,), "stops": (-1,), "steps": (-1,)}),
    ("slice", [(3, 5, 4)], {"starts": (1, 4, 0), "stops": (3, -1, 4), "steps": (1, -2, 3)}),
    ("slice", [(3, 5, 4)], {"starts": (2, 0, 3), "stops": (1, 5, 2), "steps": (-1, 9, -1)}),
    ("unslice", [()], {"starts": (), "steps": (), "shape": ()}),
    ("unslice", [(3,)], {"starts": (6,), "steps": (-2,), "shape": (9,)}),
    ("unslice", [(0,)], {"starts": (-1,), "steps": (-1,), "shape": (4,)}),
    ("unslice", [(0,)], {"starts": (4,), "steps": (3,), "shape": (4,)}),
    ("unslice", [(3, 5)], {"starts": (1, 9), "steps": (2, -2), "shape": (6, 10)}),
    ("reverse", [(7,)], {"axes": (0,)}),
    ("reverse", [(3, 5, 4)], {"axes": (0, 2)}),
    ("reverse", [(3, 5)], {"axes": ()}),
    ("reverse", [(0, 5)], {"axes": (0,)}),
    ("pad", [()], {"low": (), "high": ()}),
    ("pad", [(5,)], {"low": (2,), "high": (0,)}),
    ("pad", [(0,)], {"low": (2,), "high": (1,)}),
    ("pad", [(3, 5, 4)], {"low": (1, 0, 2), "high": (0, 3, 1), "value": 2.5}),
    ("pad", [(5,)], {"low": (4,), "high": (3,), "mode": "reflect"}),
    ("pad", [(3, 5, 2)], {"low": (1, 0, 1), "high": (2, 4, 0), "mode": "reflect"}),
    ("pad", [(2, 1)], {"low": (0, 0), "high": (1, 0), "mode": "reflect"}),
    ("pad", [(1,)], {"low": (4,), "high": (3,), "mode": "replicate"}),
    ("pad", [(3, 5, 2)], {"low": (1, 0, 3), "high": (7, 4, 0), "mode": "replicate"}),
    ("pad", [(0, 2)], {"low": (0, 1), "high": (0, 1), "mode": "replicate"}),
    ("concat", [(3,)], {"axis": 0}),
    ("concat", [(3,), (2,), (0,)], {"axis": 0}),
    ("concat", [(3, 5), (3, 2), (3, 1)], {"axis": 1}),
    ("concat", [(2, 5, 3), (4, 5, 3)], {"axis": 0}),
    ("concat", [(0, 5), (0, 2)], {"axis": 1}),
    ("iota", [], {"shape": (7,), "axis": 0, "dtype": FLOAT32}),
    ("iota", [], {"shape": (3, 4), "axis": 0, "dtype": INT32, "start": -1, "step": 3}),
    ("iota", [], {"shape": (3, 4), "axis": 1, "dtype": UINT8, "start": -1, "step": 3}),
    ("iota", [], {"shape": (3, 40), "axis": 1, "dtype": FLOAT16, "start": 0.1, "step": 1.7}),
    ("iota", [], {"shape": (3, 40), "axis": 1, "dtype": BFLOAT16, "start": 0.1, "step": 1.7}),
    ("iota", [], {"shape": (0, 4), "axis": 1, "dtype": FLOAT32}),
]  # fmt: skip

COMPOSITES: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("repeat", [(3, 5)], {"repeats": 3, "axis": 1}),
    ("repeat", [(3, 5)], {"repeats": 2, "axis": 0}),
    ("repeat", [(3,)], {"repeats": 0, "axis": 0}),
    ("tile", [(3, 5)], {"reps": (2, 3)}),
    ("tile", [(2, 1, 3)], {"reps": (1, 4, 2)}),
    ("tile", [()], {"reps": ()}),
]


def name_of(case: Any) -> str:
    return case if isinstance(case, str) else ""


@pytest.mark.parametrize(("name", "shapes", "attrs"), CASES, ids=name_of)
def test_value(name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any]) -> None:
    arrays = [data(s, FLOAT32, i) for i, s in enumerate(shapes)]
    check_value(name, arrays, attrs, ulps=1, dynamic=[True])


STATIC = [case for i, case in enumerate(CASES) if i % 3 == 0 or 0 in (case[1] or [(1,)])[0]]


@pytest.mark.parametrize(("name", "shapes", "attrs"), STATIC + COMPOSITES, ids=name_of)
def test_static_value(name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any]) -> None:
    arrays = [data(s, FLOAT32, i) for i, s in enumerate(shapes)]
    check_value(name, arrays, attrs, ulps=1, dynamic=[False])


@pytest.mark.parametrize(("name", "shapes", "attrs"), CASES + COMPOSITES, ids=name_of)
def test_gradient(name: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any]) -> None:
    if shapes:
        check_gradient(name, [data(s, FLOAT32, i) for i, s in enumerate(shapes)], attrs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: Any) -> None:
    x, y = data((4, 6), dtype), data((4, 6), dtype, 1)
    for name, arrays, attrs in (
        ("reshape", [x], {"shape": (24,)}),
        ("slice", [x], {"starts": (3, 1), "stops": (-1, 6), "steps": (-2, 2)}),
        ("unslice", [x], {"starts": (3, 1), "steps": (-1, 2), "shape": (4, 12)}),
        ("pad", [x], {"low": (1, 0), "high": (0, 2), "value": 1}),
        ("concat", [x, y], {"axis": 0}),
        ("transpose", [x], {"perm": (1, 0)}),
    ):
        check_value(name, arrays, attrs, dynamic=[True])


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_iota_dtypes(dtype: Any) -> None:
    attrs = {"shape": (300,), "axis": 0, "dtype": dtype, "start": -2, "step": 7}
    check_value("iota", [], attrs, ulps=0.5, dynamic=[True])


def test_special_values_are_moved_as_they_are() -> None:
    x = np.array([np.nan, -0.0, np.inf, -np.inf, 1e-45, -1e-45], np.float32)
    (y,) = compiled("reverse", [x], {"axes": (0,)}, dynamic=True)
    assert y.tobytes() == x[::-1].tobytes()
    (y,) = compiled("pad", [x], {"low": (1,), "high": (1,), "value": -np.inf}, dynamic=True)
    assert y.tobytes() == np.pad(x, 1, constant_values=-np.inf).tobytes()
    (y,) = compiled("pad", [x], {"low": (1,), "high": (0,), "value": np.nan}, dynamic=True)
    assert np.isnan(y[0])
    assert y[1:].tobytes() == x.tobytes()


def test_no_value_of_a_run_time_attribute_makes_a_kernel() -> None:
    from support import opcheck

    x = data((4, 6))
    check_value("slice", [x], {"starts": (0, 0), "stops": (4, 6), "steps": (2, 2)}, dynamic=[True])
    before = len(opcheck._KERNELS)
    for lo, hi, by in ((1, 3, 1), (3, -1, -1), (0, 4, 3)):
        attrs = {"starts": (lo, 5), "stops": (hi, 1), "steps": (by, -2)}
        check_value("slice", [x], attrs, dynamic=[True])
    assert len(opcheck._KERNELS) == before


F = FLOAT32
ROUND_TRIPS: list[tuple[str, list[TensorSpec], dict[str, Any]]] = [
    ("reshape", [TensorSpec((6,), F)], {"shape": (2, 3)}),
    ("reshape", [TensorSpec((1,), F)], {"shape": ()}),
    ("transpose", [TensorSpec((2, 3), F)], {"perm": (1, 0)}),
    ("broadcast", [TensorSpec((1,), UINT8)], {"shape": (2, 3)}),
    ("slice", [TensorSpec((5,), BOOL)], {"starts": (4,), "stops": (-1,), "steps": (-1,)}),
    ("unslice", [TensorSpec((2,), F)], {"starts": (4,), "steps": (-1,), "shape": (5,)}),
    ("reverse", [TensorSpec((2, 3), F)], {"axes": (1,)}),
    ("pad", [TensorSpec((2,), F)], {"low": (1,), "high": (0,), "value": float("-inf")}),
    ("pad", [TensorSpec((2,), F)], {"low": (1,), "high": (0,), "mode": "reflect"}),
    ("concat", [TensorSpec((2,), F), TensorSpec((3,), F)], {"axis": 0}),
    ("repeat", [TensorSpec((2,), F)], {"repeats": 2, "axis": 0}),
    ("tile", [TensorSpec((2,), F)], {"reps": (3,)}),
    ("iota", [], {"shape": (3, 4), "axis": 1, "dtype": BFLOAT16, "start": 0.5, "step": 1e-20}),
]


@pytest.mark.parametrize(("name", "specs", "attrs"), ROUND_TRIPS, ids=name_of)
def test_round_trip(name: str, specs: list[TensorSpec], attrs: dict[str, Any]) -> None:
    check_round_trip(name, specs, attrs)


X = TensorSpec((2, 3), FLOAT32)
EMPTY = TensorSpec((0, 3), FLOAT32)
ERRORS: list[tuple[str, list[TensorSpec], dict[str, Any], type[MgecError], str]] = [
    ("reshape", [X], {"shape": (4,)}, ShapeError,
     "reshape: input has 6 elements but shape (4,) has 4"),
    ("reshape", [X], {"shape": (-1,)}, ShapeError, "reshape: shape (-1,) has a negative size"),
    ("transpose", [X], {"perm": (0,)}, AxisError,
     "transpose: perm (0,) does not name each axis of rank 2 once"),
    ("transpose", [X], {"perm": (1, 1)}, AxisError,
     "transpose: perm (1, 1) does not name each axis of rank 2 once"),
    ("broadcast", [X], {"shape": (4, 2, 4)}, ShapeError,
     "broadcast: shape (2, 3) does not broadcast to (4, 2, 4)"),
    ("broadcast", [X], {"shape": (3,)}, ShapeError,
     "broadcast: shape (2, 3) does not broadcast to (3,)"),
    ("broadcast", [X], {"shape": (-2, 3)}, ShapeError,
     "broadcast: shape (-2, 3) has a negative size"),
    ("slice", [X], {"starts": (0,), "stops": (2, 3), "steps": (1, 1)}, ArgumentError,
     "slice: starts has 1 entries but inp has rank 2"),
    ("slice", [X], {"starts": (0, 0), "stops": (2, 3), "steps": (1, 0)}, ArgumentError,
     "slice: the step of axis 1 is 0"),
    ("slice", [X], {"starts": (0, 0), "stops": (2, 4), "steps": (1, 1)}, ShapeError,
     "slice: stop 4 of axis 1 is not within [0, 3], but the axis has size 3 and the step is 1"),
    ("slice", [X], {"starts": (0, 3), "stops": (2, -1), "steps": (1, -1)}, ShapeError,
     "slice: start 3 of axis 1 is not within [-1, 2], but the axis has size 3 and the step is -1"),
    ("unslice", [X], {"starts": (0, 0), "steps": (1, 1), "shape": (2,)}, ArgumentError,
     "unslice: shape has 1 entries but inp has rank 2"),
    ("unslice", [X], {"starts": (0, 0), "steps": (1, 1), "shape": (2, -3)}, ShapeError,
     "unslice: shape (2, -3) has a negative size"),
    ("unslice", [X], {"starts": (0, 0), "steps": (0, 1), "shape": (2, 3)}, ArgumentError,
     "unslice: the step of axis 0 is 0"),
    ("unslice", [X], {"starts": (0, 1), "steps": (1, 2), "shape": (2, 5)}, ShapeError,
     "unslice: axis 1 writes places 1 to 5 but the result has size 5"),
    ("reverse", [X], {"axes": (2,)}, AxisError, "reverse: axis 2 is out of range for rank 2"),
    ("pad", [X], {"low": (0, 0), "high": (0, 0), "mode": "wrap"}, ArgumentError,
     "pad: mode 'wrap' does not exist"),
    ("pad", [X], {"low": (0,), "high": (0, 0)}, ArgumentError,
     "pad: low has 1 entries but inp has rank 2"),
    ("pad", [X], {"low": (0, 0), "high": (0, -1)}, ArgumentError,
     "pad: axis 1 is padded by (0, -1), but padding cannot be negative"),
    ("pad", [TensorSpec((2,), UINT8)], {"low": (0,), "high": (1,), "value": -1}, DTypeError,
     "pad: value -1.0 is not a value of dtype uint8"),
    ("pad", [X], {"low": (0, 0), "high": (2, 0), "mode": "reflect"}, ShapeError,
     "pad: axis 0 is padded by (0, 2) in mode reflect but has size 2"),
    ("pad", [EMPTY], {"low": (1, 0), "high": (0, 0), "mode": "replicate"}, ShapeError,
     "pad: axis 0 is padded by (1, 0) in mode replicate but has size 0"),
    ("concat", [], {"axis": 0}, ArgumentError, "concat: there is nothing to concatenate"),
    ("concat", [X], {"axis": 2}, AxisError, "concat: axis 2 is out of range for rank 2"),
    ("concat", [X, TensorSpec((2, 3), INT8)], {"axis": 0}, DTypeError,
     "concat: inputs have dtypes float32 and int8"),
    ("concat", [X, TensorSpec((3, 3), F)], {"axis": 1}, ShapeError,
     "concat: shapes (2, 3) and (3, 3) differ on another axis than 1"),
    ("concat", [X, TensorSpec((2,), F)], {"axis": 1}, ShapeError,
     "concat: shapes (2, 3) and (2,) differ on another axis than 1"),
    ("repeat", [X], {"repeats": 2, "axis": 5}, AxisError,
     "repeat: axis 5 is out of range for rank 2"),
    ("repeat", [X], {"repeats": -1, "axis": 1}, ArgumentError,
     "repeat: repeats is -1, but cannot be negative"),
    ("tile", [X], {"reps": (2,)}, ArgumentError, "tile: reps has 1 entries but inp has rank 2"),
    ("tile", [X], {"reps": (2, -1)}, ArgumentError, "tile: reps (2, -1) has a negative entry"),
    ("iota", [], {"shape": (2,), "axis": 0, "dtype": BOOL}, DTypeError,
     "iota: the result has dtype bool, which is not supported"),
    ("iota", [], {"shape": (), "axis": 0, "dtype": F}, AxisError,
     "iota: axis 0 is out of range for rank 0"),
    ("iota", [], {"shape": (-2,), "axis": 0, "dtype": F}, ShapeError,
     "iota: shape (-2,) has a negative size"),
    ("iota", [], {"shape": (2,), "axis": 0, "dtype": UINT16, "step": 0.5}, DTypeError,
     "iota: step 0.5 is not a value of dtype int64"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "specs", "attrs", "error", "headline"), ERRORS, ids=name_of)
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
