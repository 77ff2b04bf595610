"""The attention template against the reference rule, on every target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mgec.compiler.kernels.attention import attention_kernel
from mgec.compiler.kernels.attention_plan import AttentionShape, AttentionTiles, HeadStrides
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.targets import Target, target_named
from mgec.dialects.mge.attention import AttentionOp
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.spec import FLOAT16, FLOAT32, FLOAT64

Shape = tuple[int, ...]
Array = np.ndarray[Any, Any]


def operands(sizes: Shape, bias: Shape | None = None, dtype: Any = FLOAT32) -> list[Array]:
    """Random operands: N, L, S, H, G, D, E."""
    n, queries, keys, heads, groups, depth, out_depth = sizes
    rng = np.random.default_rng(5)
    shapes = [(n, queries, heads, depth), (n, keys, groups, depth), (n, keys, groups, out_depth)]
    shapes += [] if bias is None else [bias]
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def expected(arrays: list[Array], causal: bool) -> Array:
    wide = [a.astype(np.float64) for a in arrays] + [None] * (4 - len(arrays))
    return evaluate(AttentionOp, wide, {"scale": 0.5, "causal": causal})[0]


def small(target: Target, dtype: Any = FLOAT32) -> AttentionTiles:
    """Tiles that split even a few rows and keys into blocks."""
    tiles = AttentionTiles.for_target(target, dtype)
    return replace(tiles, keys=tiles.nv * target.lanes(dtype.itemsize), rows=2 * tiles.mr)


def check(
    run: Any, target: Target, arrays: list[Array], *, causal: bool = False, blocks: bool = False
) -> Array:
    dtype = arrays[0].dtype
    shapes = [a.shape for a in arrays]
    source = attention_kernel(
        "k", target, *shapes[:3], dtype, scale=0.5, causal=causal,
        bias=shapes[3] if len(shapes) > 3 else None,
        tiles=small(target, dtype) if blocks else None,
    )  # fmt: skip
    assert source.template == "attention"
    out = (*shapes[0][:3], shapes[2][3])
    (actual,) = run(source, target, arrays, [(out, dtype)])
    # Sums of a few hundred terms of about 1.
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(actual, expected(arrays, causal), rtol=tolerance, atol=tolerance)
    return actual


CASES: list[tuple[Shape, Shape | None, bool]] = [
    ((1, 16, 32, 2, 2, 16, 32), None, False),
    ((2, 5, 9, 4, 2, 7, 5), None, False),
    ((1, 1, 70, 2, 2, 33, 20), None, False),  # decoding
    ((1, 1, 70, 6, 2, 16, 16), (1, 6, 1, 70), True),
    ((1, 21, 45, 1, 1, 40, 100), None, True),
    ((1, 45, 21, 2, 1, 8, 8), (45, 1), True),  # rows that see nothing
    ((2, 13, 37, 3, 1, 17, 16), (2, 1, 1, 37), False),
    ((1, 9, 1, 2, 2, 1, 1), (9, 1), False),
]


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize(("sizes", "bias", "causal"), CASES, ids=str)
def test_values(
    run: Any, target: Target, sizes: Shape, bias: Shape | None, causal: bool, blocks: bool
) -> None:
    check(run, target, operands(sizes, bias), causal=causal, blocks=blocks)


def test_many_keys(run: Any, target: Target) -> None:
    """More than one block by the tiles' own choice."""
    arrays = operands((1, 20, 1300, 1, 1, 8, 8))
    keys = AttentionTiles.for_target(target).keys
    assert keys < 1300
    check(run, target, arrays)


@pytest.mark.parametrize("blocks", [False, True])
def test_float64(run: Any, target: Target, blocks: bool) -> None:
    check(run, target, operands((1, 5, 19, 2, 1, 6, 7), (5, 19), FLOAT64), blocks=blocks)


@pytest.mark.parametrize("blocks", [False, True])
def test_hidden_keys_and_special_values(run: Any, target: Target, blocks: bool) -> None:
    """-inf hides a key, also whole blocks of them; what is not finite spreads as it should."""
    sizes = (1, 9, 80, 1, 1, 8, 8)
    bias = np.zeros((9, 80), np.float32)
    bias[0, :50] = bias[1, 30:] = bias[3, ::2] = -np.inf
    bias[2] = -np.inf
    bias[4], bias[5] = -3e38, 3e38
    bias[6, 7], bias[7, 70], bias[7, 3] = np.inf, np.nan, -np.inf
    with np.errstate(invalid="ignore"):
        found = check(run, target, [*operands(sizes), bias], blocks=blocks)
    np.testing.assert_array_equal(
        np.isnan(found).all(axis=(0, 2, 3)), [False, False, True, *[False] * 3, True, True, False]
    )


def test_large_scores_do_not_overflow(run: Any, target: Target) -> None:
    arrays = operands((1, 9, 80, 1, 1, 8, 8))
    arrays[0] *= 1e3
    arrays[1] *= 1e2
    source = attention_kernel("k", target, *[a.shape for a in arrays], scale=0.5)
    (actual,) = run(source, target, arrays, [((1, 9, 1, 8), np.float32)])
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, expected(arrays, False), atol=0.1)  # scores to 1e-7 * 1e6


def test_heads_of_one_projection(run: Any, target: Target) -> None:
    """Query, key and value read in place from one tensor [N, L, 3, H, D]."""
    n, length, heads, depth = 2, 19, 3, 10
    qkv = np.random.default_rng(6).standard_normal((n, length, 3, heads, depth)).astype(np.float32)
    line = 3 * heads * depth
    strides = [HeadStrides(length * line, line, depth, i * heads * depth) for i in range(3)]
    shape = (n, length, heads, depth)
    source = attention_kernel("k", target, shape, shape, shape, scale=0.5, strides=strides)
    (actual,) = run(source, target, [qkv] * 3, [(shape, np.float32)])
    parts = [qkv[:, :, i] for i in range(3)]
    np.testing.assert_allclose(actual, expected(parts, False), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("queries", [1, 2, 12, 49, 128, 197, 1000])
def test_units_and_tiles(queries: int) -> None:
    """Tiles share rows evenly, and a large problem has units for several threads."""
    target = target_named("x86-64-v4")
    shape = AttentionShape(1, queries, 128, 4, 4, 64, 64)
    tiles = AttentionTiles.for_target(target).fit(shape, 16)
    count = -(-queries // tiles.mr)
    assert count * tiles.mr - queries < tiles.mr <= 8 and count == -(-queries // 8)
    assert tiles.rows % tiles.mr == 0 and tiles.rows <= 256
    units = 4 * -(-queries // tiles.rows)
    assert units >= 8 or queries < 64


def test_refused() -> None:
    target, good = target_named("x86-64-v4"), (1, 4, 2, 8)
    with pytest.raises(NotApplicable, match="attention of float16"):
        attention_kernel("k", target, good, good, good, FLOAT16, scale=1.0)
    with pytest.raises(NotApplicable, match="a size is 0"):
        attention_kernel("k", target, (0, 4, 2, 8), (0, 4, 2, 8), (0, 4, 2, 8), scale=1.0)
