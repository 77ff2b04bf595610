"""Elementwise ops: every op and dtype against its reference, and every gradient.

One compiled kernel serves all sizes of a rank, so most tests are one kernel per op and dtype.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from support.opcheck import (
    assert_ulps,
    check_gradient,
    check_round_trip,
    check_value,
    compiled,
)

from mgec.dialects.mge.elementwise import BINARY, COMPARE, TESTS, UNARY
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.rules import gradient
from mgec.dialects.mge.spec import (
    BFLOAT16,
    BOOL,
    DTYPES,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT8,
    INT32,
    UINT8,
    TensorSpec,
    is_float,
    is_integer,
)
from mgec.errors import DTypeError, MgecError, ShapeError


def cases(ops: tuple[Any, ...]) -> list[Any]:
    pairs = ((op.name.removeprefix("mge."), dtype) for op in ops for dtype in op.dtypes)
    return [pytest.param(name, dtype, id=f"{name}-{dtype.name}") for name, dtype in pairs]


@cache
def values(dtype: Any) -> np.ndarray[Any, Any]:
    """Everything that could go wrong, and ordinary numbers of both signs."""
    rng = np.random.default_rng(0)
    if dtype == BOOL:
        return np.array([False, True, True, False, True])
    if is_integer(dtype):
        info = np.iinfo(dtype)
        edges = [0, 1, 2, 3, 7, info.max, info.max - 1, info.max // 2, info.min, info.min + 1]
        edges += [-1, -2, -7] if info.min else []
        drawn = rng.integers(info.min, info.max, 14, dtype=dtype, endpoint=True)
        return np.concatenate([np.array(edges, dtype), drawn])
    import ml_dtypes

    info = ml_dtypes.finfo(dtype)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 3]
    edges += [float(x) for x in (info.max, info.min, info.tiny, -info.tiny)]
    edges += [float(x) for x in (info.smallest_subnormal, -info.smallest_subnormal)]
    edges += [1e-3, -1e-3, 100.0, -100.0]
    drawn = [*rng.standard_normal(14), *rng.uniform(-30, 30, 9)]
    return np.array([*edges, *drawn]).astype(dtype)


# How far from the rounded reference, in units of the last place; 0 where the hardware rounds.
EXACT = {
    "neg", "abs", "sign", "sqrt", "floor", "ceil", "round", "round_even", "relu",
    "add", "sub", "mul", "div", "maximum", "minimum",
}  # fmt: skip
TOLERANCE = {
    "rsqrt": 2,  # two roundings
    "mod": 1,  # the remainder is exact, adding the divisor rounds
}
SIGNS_OF_ZERO = {"neg", "abs", "floor", "ceil", "round", "round_even", "sqrt", "mul", "div"}


def check(name: str, arrays: list[np.ndarray[Any, Any]], **attrs: Any) -> None:
    """Compiled for run-time sizes equals the reference, to the op's tolerance."""
    (expected,) = evaluate(op_class(f"mge.{name}"), arrays, attrs)
    (actual,) = compiled(name, arrays, attrs, dynamic=True)
    assert_ulps(actual, expected, 0 if name in EXACT else TOLERANCE.get(name, 4))
    if name in SIGNS_OF_ZERO and is_float(expected.dtype):
        zero = expected == 0
        np.testing.assert_array_equal(np.signbit(actual[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize(("name", "dtype"), cases((*UNARY, *TESTS)))
def test_unary(name: str, dtype: Any) -> None:
    check(name, [values(dtype)])


@pytest.mark.parametrize(("name", "dtype"), cases((*BINARY, *COMPARE)))
def test_binary(name: str, dtype: Any) -> None:
    """Every value with every other, through broadcasting."""
    x = y = values(dtype)
    if name.startswith("shift"):
        y = np.array([0, 1, 2, 5, 7, 8, 9, 15, 16, 31, 32, 63, 64, 100]).astype(dtype)
        y = np.concatenate([y, y[1:4] * dtype.type(-1)]) if dtype.kind == "i" else y
    if name == "floor_div" and is_float(dtype):
        # Dyadic, so that the quotient is not just below a whole number in one precision
        # and on it in the other.
        y = np.array([1, -2, 0.5, 4, np.inf, -np.inf, np.nan, 0.0, -0.0, 8]).astype(dtype)
        x = np.array([0, 1, -1, 3.5, -3.5, 100, -101, np.inf, -np.inf, np.nan, 7]).astype(dtype)
    check(name, [x[:, None], y[None, :]])


SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((), ()),
    ((1,), (1,)),
    ((7,), ()),
    ((0,), (0,)),
    ((0,), (1,)),
    ((3, 5), (3, 5)),
    ((3, 5), (5,)),
    ((3, 1), (1, 5)),
    ((1, 1), (3, 5)),
    ((3, 0), (3, 1)),
    ((2, 3, 5), (3, 1)),
    ((4, 1, 5), (4, 3, 1)),
    ((2, 3, 4, 5), (1, 3, 1, 5)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_shapes(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(s).astype(np.float32) for s in (left, right))
    check_value("sub", [x, y])
    check_value("select", [x > 0, y, np.float32(2) * x])
    check_value("exp", [x])
    for name in ("mul", "maximum"):
        check_gradient(name, [x, y])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_select(dtype: Any) -> None:
    x = values(dtype)
    (actual,) = compiled("select", [np.arange(x.size) % 2 == 0, x, x[::-1].copy()], dynamic=True)
    expected = np.where(np.arange(x.size) % 2 == 0, x, x[::-1])
    assert actual.tobytes() == expected.tobytes()  # NaN payloads and signs of zero too


def castable(source: Any, target: Any) -> np.ndarray[Any, Any]:
    """Values whose conversion NumPy defines."""
    x = values(source)
    if not is_float(source) or is_float(target) or target == BOOL:
        return x
    wide = x.astype(np.float64)
    limit = 1000 if target.itemsize < 4 else 30000
    low = 0 if target.kind == "u" and target.itemsize >= 4 else -limit
    return x[np.isfinite(wide) & (wide >= low) & (wide <= limit)]


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_cast(source: Any) -> None:
    for target in DTYPES:
        x = castable(source, target)
        (expected,) = evaluate(op_class("mge.cast"), [x], {"dtype": target})
        (actual,) = compiled("cast", [x], {"dtype": target}, dynamic=True)
        # ml_dtypes rounds twice on the way from 32 and 64 bits to bfloat16.
        assert_ulps(actual, expected, int(target == BFLOAT16 and source.itemsize >= 4))


def test_a_cast_rounds_once() -> None:
    # Just above the middle of two float16 numbers, by less than float32 can tell.
    x = np.array([1 + 2**-11 + 2**-40, 1 + 2**-11, 1 + 2**-11 - 2**-40, 1e300, 1e-30, 6e-8])
    x = np.concatenate([x, -x])
    (y,) = compiled("cast", [x], {"dtype": FLOAT16}, dynamic=True)
    with np.errstate(over="ignore"):
        assert y.tobytes() == x.astype(np.float16).tobytes()
    z = np.array([1 + 2**-8 + 2**-40, 1 + 2**-8, 1 + 2**-8 - 2**-40])
    (y,) = compiled("cast", [z], {"dtype": BFLOAT16}, dynamic=True)
    assert y.astype(np.float64).tolist() == [1 + 2**-7, 1, 1]


# Where each function is smooth; (-2, 2) by default.
DOMAIN = {
    "log": (0.2, 3), "sqrt": (0.2, 3), "rsqrt": (0.2, 3), "log1p": (-0.7, 3),
    "asin": (-0.9, 0.9), "acos": (-0.9, 0.9), "acosh": (1.2, 3), "atanh": (-0.9, 0.9),
    "tan": (-1.2, 1.2), "pow": (0.3, 2), "div": (0.4, 2), "mod": (0.4, 2), "floor_div": (0.4, 2),
    "floor": (0.1, 0.9), "ceil": (0.1, 0.9), "round": (0.6, 1.4), "round_even": (0.6, 1.4),
}  # fmt: skip

DIFFERENTIABLE = [
    (op, arity)
    for ops, arity in ((UNARY, 1), (BINARY, 2))
    for op in ops
    if op in gradient and FLOAT64 in op.dtypes
]


@pytest.mark.parametrize(("op", "arity"), DIFFERENTIABLE, ids=lambda p: getattr(p, "name", ""))
def test_gradient(op: Any, arity: int) -> None:
    name = op.name.removeprefix("mge.")
    low, high = DOMAIN.get(name, (-2, 2))
    rng = np.random.default_rng(3)
    for shapes in (((4, 5), (4, 5)), ((4, 5), (5,)), ((2, 1), (3, 1, 4))):
        check_gradient(name, [rng.uniform(low, high, s) for s in shapes[:arity]])


def test_gradient_of_select_and_cast() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 4, 5))
    check_gradient("select", [x > 0, x, y])
    check_gradient("select", [x > 0, x[:1], y[:, :1]])
    check_gradient("cast", [x], {"dtype": FLOAT64})


def test_gradient_of_pow_at_the_edges() -> None:
    # Zero and negative bases with whole exponents, where log(base) does not exist.
    base, exponent = np.array([0.0, 0.0, -2.0, 2.0]), np.array([2.0, 1.0, 3.0, 0.0])
    from mgec.dialects.mge.autodiff import RecordingBuilder, pullback
    from mgec.dialects.mge.builder import ReferenceBuilder

    b = ReferenceBuilder()
    recorder = RecordingBuilder(b)
    y = recorder.pow(base, exponent)
    d_base, d_exponent = pullback(b, recorder.entries, [(y, np.ones(4))], [base, exponent])
    np.testing.assert_allclose(d_base, [0, 1, 12, 0])
    np.testing.assert_allclose(d_exponent, [0, 0, 0, np.log(2)])


def test_ties_of_an_extremum_go_to_the_left() -> None:
    from mgec.dialects.mge.autodiff import RecordingBuilder, pullback
    from mgec.dialects.mge.builder import ReferenceBuilder

    for name in ("maximum", "minimum"):
        x, y = np.array([1.0, 2.0]), np.array([1.0, 2.0])
        b = ReferenceBuilder()
        recorder = RecordingBuilder(b)
        z = getattr(recorder, name)(x, y)
        d_x, d_y = pullback(b, recorder.entries, [(z, np.ones(2))], [x, y])
        np.testing.assert_array_equal(d_x, [1, 1])
        np.testing.assert_array_equal(d_y, [0, 0])


@pytest.mark.parametrize("op", [*UNARY, *BINARY, *COMPARE, *TESTS], ids=lambda op: op.name)
def test_round_trip(op: Any) -> None:
    specs = [TensorSpec((2, 3), op.dtypes[0])] * len(op.signature.operands)
    assert f"{op.name} " in check_round_trip(op.name, specs)


def test_round_trip_of_select_and_cast() -> None:
    spec = TensorSpec((2, 3), FLOAT32)
    check_round_trip("select", [TensorSpec((2, 3), BOOL), spec, spec])
    for dtype in DTYPES:
        check_round_trip("cast", [spec], {"dtype": dtype})


A, B = TensorSpec((2, 3), FLOAT32), TensorSpec((4,), FLOAT32)
ERRORS: list[tuple[str, list[TensorSpec], type[MgecError], str]] = [
    ("add", [A, B], ShapeError,
     "add: shapes (2, 3) and (4,) do not broadcast: sizes 3 and 4 differ on axis -1"),
    ("add", [A, TensorSpec((2, 3), FLOAT16)], DTypeError,
     "add: operands have dtypes float32 and float16"),
    ("add", [TensorSpec((2,), BOOL)] * 2, DTypeError,
     "add: lhs has dtype bool, which is not supported"),
    ("exp", [TensorSpec((2,), INT32)], DTypeError,
     "exp: inp has dtype int32, which is not supported"),
    ("and", [A, A], DTypeError, "and: lhs has dtype float32, which is not supported"),
    ("select", [A, A, A], DTypeError,
     "select: condition has dtype float32, which is not supported"),
    ("select", [TensorSpec((2, 3), BOOL), A, TensorSpec((2, 3), INT8)], DTypeError,
     "select: lhs is float32 but rhs is int8"),
    ("select", [TensorSpec((4,), BOOL), A, A], ShapeError,
     "select: shapes (4,) and (2, 3) and (2, 3) do not broadcast: "
     "sizes 4 and 3 differ on axis -1"),
    ("is_nan", [TensorSpec((2,), UINT8)], DTypeError,
     "is_nan: inp has dtype uint8, which is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "specs", "error", "headline"), ERRORS)
def test_errors(name: str, specs: list[TensorSpec], error: type[MgecError], headline: str) -> None:
    op = op_class(f"mge.{name}")
    with pytest.raises(error) as caught:
        op.infer_specs(specs, {})
    assert caught.value.headline == headline
    assert caught.value.fix


def test_pow_at_infinity_is_that_of_ieee() -> None:
    x = np.array([-np.inf, np.inf, -4, 4], np.float32)
    for y in (0.5, -0.5, 2.0, 3.0):
        check_value("pow", [x, np.array(y, np.float32)])
        check_value("pow", [x, np.full(4, y, np.float32)])
