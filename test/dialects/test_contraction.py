"""matmul, and the index maps of contractions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.opcheck import assert_close, check_gradient, check_round_trip, check_value, compiled

from mgec.dialects.mge.contraction import AxisMap, MatmulOp, contraction_maps
from mgec.dialects.mge.spec import (
    BFLOAT16,
    BOOL,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FLOATS,
    INT8,
    INT16,
    INT32,
    UINT8,
    TensorSpec,
)
from mgec.errors import DTypeError, ShapeError


def data(shape: tuple[int, ...], dtype: Any = FLOAT32, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(-100, 100, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


SHAPES = [
    # lhs and rhs as seen after transposing
    ((2, 3), (3, 4)),
    ((1, 1), (1, 1)),
    ((5, 0), (0, 3)),  # an empty sum is 0
    ((0, 3), (3, 2)),
    ((1, 17), (17, 1)),
    ((2, 3, 5), (2, 5, 4)),
    ((2, 3, 5), (5, 4)),
    ((3, 5), (2, 5, 4)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((1, 3, 4), (5, 4, 2)),
    ((0, 3, 4), (1, 4, 2)),
]


def stored(shape: tuple[int, ...], transpose: bool) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if transpose else shape


@pytest.mark.parametrize(("lhs", "rhs"), SHAPES, ids=str)
@pytest.mark.parametrize(
    "flips", [(False, False), (True, False), (False, True), (True, True)], ids=str
)
def test_matmul_shapes(lhs: Any, rhs: Any, flips: tuple[bool, bool]) -> None:
    arrays = [data(stored(lhs, flips[0])), data(stored(rhs, flips[1]), seed=1)]
    attrs = {"transpose_lhs": flips[0], "transpose_rhs": flips[1]}
    check_value("matmul", arrays, attrs, reduction=lhs[-1])
    check_gradient("matmul", arrays, attrs)


@pytest.mark.parametrize("dtype", [*FLOATS, INT8, INT16, INT32, UINT8], ids=lambda d: d.name)
def test_matmul_dtypes(dtype: Any) -> None:
    check_value("matmul", [data((3, 40), dtype), data((40, 5), dtype, 1)], reduction=40)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=lambda d: d.name)
def test_narrow_floats_accumulate_in_float32(dtype: Any) -> None:
    # 4096 ones and a last 1: a 16-bit sum would get stuck far below.
    ones = np.ones((1, 4096), dtype)
    (out,) = compiled("matmul", [ones, np.ones((4096, 1), dtype)])
    assert_close(out, np.array([[4096]], dtype), ulps=0)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=lambda d: d.name)
def test_sums_of_narrow_floats_as_they_are(dtype: Any) -> None:
    arrays = [data((3, 40), dtype), data((40, 5), dtype, 1)]
    check_value("matmul", arrays, {"dtype": FLOAT32}, reduction=40)
    (out,) = compiled("matmul", arrays, {"dtype": FLOAT32})
    assert out.dtype == FLOAT32 and not np.array_equal(out, out.astype(dtype))
    text = check_round_trip(
        "matmul", [TensorSpec((2, 3), dtype), TensorSpec((3, 4), dtype)], {"dtype": FLOAT32}
    )
    assert "{dtype = f32}" in text


def test_nan_and_infinity_follow_ieee() -> None:
    lhs = np.array([[np.inf, 1], [np.nan, 0], [1e38, 1e38]], np.float32)
    rhs = np.array([[0, 1, 10], [1, 1, 10]], np.float32)
    check_value("matmul", [lhs, rhs])


ERRORS: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (
        TensorSpec((3,), FLOAT32), TensorSpec((3, 4), FLOAT32), {}, ShapeError,
        "matmul: lhs has rank 1 but needs rank 2 or more",
    ),
    (
        TensorSpec((2, 3), FLOAT32), TensorSpec((), FLOAT32), {}, ShapeError,
        "matmul: rhs has rank 0 but needs rank 2 or more",
    ),
    (
        TensorSpec((2, 3), FLOAT32), TensorSpec((4, 5), FLOAT32), {}, ShapeError,
        "matmul: lhs has 3 columns but rhs has 4 rows",
    ),
    (
        TensorSpec((3, 2), FLOAT32), TensorSpec((5, 4), FLOAT32),
        {"transpose_lhs": True, "transpose_rhs": True}, ShapeError,
        "matmul: lhs has 3 columns but rhs has 4 rows",
    ),
    (
        TensorSpec((2, 2, 3), FLOAT32), TensorSpec((5, 3, 4), FLOAT32), {}, ShapeError,
        "matmul: shapes (2,) and (5,) do not broadcast: sizes 2 and 5 differ on axis -1",
    ),
    (
        TensorSpec((2, 3), FLOAT32), TensorSpec((3, 4), FLOAT64), {}, DTypeError,
        "matmul: lhs is float32 but rhs is float64",
    ),
    (
        TensorSpec((2, 3), FLOAT32), TensorSpec((3, 4), FLOAT32), {"dtype": FLOAT16}, DTypeError,
        "matmul: the result cannot be float16 where the operands are float32",
    ),
    (
        TensorSpec((2, 3), BOOL), TensorSpec((3, 4), BOOL), {}, DTypeError,
        "matmul: lhs has dtype bool, which is not supported",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("lhs", "rhs", "attrs", "kind", "headline"), ERRORS)
def test_matmul_errors(lhs: Any, rhs: Any, attrs: Any, kind: Any, headline: str) -> None:
    with pytest.raises(kind) as caught:
        MatmulOp.infer(lhs, rhs, **attrs)
    assert caught.value.headline == headline


def test_matmul_error_shows_the_operands() -> None:
    with pytest.raises(ShapeError) as caught:
        MatmulOp.infer(TensorSpec((2, 3), FLOAT32), TensorSpec((4, 5), FLOAT32), transpose_lhs=True)
    text = str(caught.value)
    assert "lhs  float32[2, 3]  (..., K, M), transpose_lhs" in text
    assert "rhs  float32[4, 5]  (..., K, N)" in text


def test_matmul_round_trip() -> None:
    specs = [TensorSpec((2, 3), FLOAT32), TensorSpec((4, 3), FLOAT32)]
    text = check_round_trip("matmul", specs, {"transpose_rhs": True})
    assert "{transpose_rhs = true}" in text


def run_maps(maps: Any, lhs: Any, rhs: Any, shape: tuple[int, ...]) -> Any:
    """What the maps say, loop by loop: the meaning of `ContractionMaps` in ten lines."""

    def at(axes: Any, sizes: Any, position: dict[str, int]) -> tuple[int, ...] | None:
        index: list[int] = []
        for axis, size in zip(axes, sizes, strict=True):
            value = axis.offset + sum(c * position[loop] for loop, c in axis.terms)
            if value % axis.divisor:
                return None
            value //= axis.divisor
            if not 0 <= value < size:
                assert axis.checked
                return None
            index.append(value)
        return tuple(index)

    out = np.zeros(shape)
    for indices in np.ndindex(*(loop.extent for loop in maps.loops)):
        position = {loop.name: i for loop, i in zip(maps.loops, indices, strict=True)}
        x, y = at(maps.lhs, lhs.shape, position), at(maps.rhs, rhs.shape, position)
        if x is not None and y is not None:
            out[at(maps.out, shape, position)] += lhs[x] * rhs[y]
    return out


def test_maps_of_matmul() -> None:
    lhs, rhs = data((2, 1, 4, 3)), data((5, 4, 2), seed=1)
    attrs = {"transpose_lhs": True, "transpose_rhs": False}
    maps = contraction_maps(MatmulOp, lhs.shape, rhs.shape, (2, 5, 3, 2), attrs)
    assert [(loop.name, loop.kind) for loop in maps.loops] == [
        ("b0", "m"), ("b1", "n"), ("m", "m"), ("n", "n"), ("k", "k")
    ]  # fmt: skip
    assert maps.lhs[1] == AxisMap(())
    assert (maps.size("batch"), maps.size("m"), maps.size("n"), maps.size("k")) == (1, 6, 10, 4)
    assert maps.flops == 2 * 6 * 10 * 4 and not maps.is_masked
    expected = np.swapaxes(lhs, -1, -2) @ rhs
    np.testing.assert_allclose(run_maps(maps, lhs, rhs, (2, 5, 3, 2)), expected, rtol=1e-5)
