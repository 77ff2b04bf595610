"""The contraction template against NumPy in float64, for every role its operands can have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mgec.compiler.kernels.contraction import (
    ContractionTiles,
    contraction_kernel,
)
from mgec.compiler.kernels.epilogue import Epilogue, Extra
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.source import DimRef
from mgec.compiler.targets import host_target
from mgec.dialects.mge.contraction import MatmulOp, contraction_maps
from mgec.dialects.mge.convolution import ConvDgradOp, ConvOp, ConvWgradOp
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.spec import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT32

RNG = np.random.default_rng(0)


def symbolic(shapes: list[tuple[int, ...]], dynamic: bool) -> tuple[list[Any], list[int]]:
    """Shapes as the templates take them, and the dims table."""
    if not dynamic:
        return list(shapes), []
    dims = [size for shape in shapes for size in shape]
    positions = iter(range(len(dims)))
    return [tuple(DimRef(next(positions)) for _ in shape) for shape in shapes], dims


def kernel(op, target, lhs, rhs, out, attrs, dynamic, dtype=FLOAT32, **options):
    """The source for an op on these shapes, and the dims table."""
    (left, right, result), dims = symbolic([lhs, rhs, out], dynamic)

    def divide(size, by):
        if by == 1:
            return size
        if dynamic:
            raise NotApplicable("groups over run-time channels")
        return size // by

    maps = contraction_maps(op, left, right, result, attrs, divide)
    source = contraction_kernel(
        "k", target, maps, left, right, result, dtype, num_dims=len(dims), **options
    )
    return source, dims


def check(run, op, target, lhs, rhs, attrs, dynamic, dtype=FLOAT32, terms=1, **options):
    """The op's kernel computes what its reference rule says."""
    full = op.complete_attrs(attrs)
    (expected,) = evaluate(op, [lhs.astype(np.float64), rhs.astype(np.float64)], full)
    source, dims = kernel(
        op, target, lhs.shape, rhs.shape, expected.shape, full, dynamic, dtype, **options
    )
    (actual,) = run(source, target, [lhs, rhs], [(expected.shape, dtype)], dims)
    # Random terms of size 1: errors of rounding add up as the square root of their number.
    bound = 8 * np.finfo(dtype).eps * max(terms, 1) ** 0.5
    scale = max(1.0, terms**0.5)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound * scale)


MATMULS = [
    (1, 1, 1), (3, 5, 7), (8, 32, 16), (9, 33, 17), (64, 120, 100), (100, 70, 1500), (40, 10, 84),
    (1, 300, 40), (300, 1, 40), (5, 100, 1), (0, 3, 4), (3, 0, 4), (3, 4, 0),
]  # fmt: skip


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize(("m", "n", "depth"), MATMULS)
def test_matmul(run, target, m, n, depth, transposed, dynamic):
    lhs_t, rhs_t = map(bool, transposed)
    lhs = RNG.standard_normal((depth, m) if lhs_t else (m, depth)).astype(np.float32)
    rhs = RNG.standard_normal((n, depth) if rhs_t else (depth, n)).astype(np.float32)
    attrs = {"transpose_lhs": lhs_t, "transpose_rhs": rhs_t}
    check(run, MatmulOp, target, lhs, rhs, attrs, dynamic, terms=depth)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("lhs", "rhs"),
    [((3, 10, 20), (3, 20, 40)), ((3, 10, 20), (20, 40)), ((10, 20), (3, 20, 40)),
     ((2, 3, 10, 20), (2, 3, 20, 7)), ((2, 1, 10, 20), (1, 3, 20, 7)), ((0, 4, 5), (0, 5, 6))],
)  # fmt: skip
def test_batched_matmul(run, target, lhs, rhs, dynamic):
    a = RNG.standard_normal(lhs).astype(np.float32)
    b = RNG.standard_normal(rhs).astype(np.float32)
    if dynamic and 1 in (*lhs, *rhs):
        pytest.skip("broadcast axes are compiled for their pattern, not for run-time sizes")
    check(run, MatmulOp, target, a, b, {}, dynamic, terms=20)


@pytest.mark.parametrize("dynamic", [False, True])
def test_float64(run, target, dynamic):
    a, b = RNG.standard_normal((37, 50)), RNG.standard_normal((50, 29))
    check(run, MatmulOp, target, a, b, {}, dynamic, FLOAT64, terms=50)


CONVOLUTIONS = [
    # input, weight, stride, padding, dilation, groups
    ((2, 3, 7, 9), (4, 3, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    ((1, 1, 28, 28), (6, 1, 5, 5), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((2, 6, 12, 12), (16, 6, 5, 5), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((2, 4, 11, 10), (6, 2, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 2),
    ((1, 8, 20, 20), (8, 8, 3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 1),
    ((3, 5, 8, 8), (7, 5, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((2, 5, 8, 8), (7, 5, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    ((2, 4, 9, 9), (4, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    ((1, 3, 40, 70), (10, 3, 7, 7), (2, 2), (3, 3, 3, 3), (1, 1), 1),
    ((1, 1, 1, 50), (3, 1, 1, 5), (1, 1), (0, 0, 2, 2), (1, 1), 1),
    ((2, 16, 4, 4), (33, 16, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    ((1, 2, 9, 11), (3, 2, 3, 2), (3, 1), (2, 0, 0, 1), (1, 2), 1),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("kind", ["forward", "dgrad", "wgrad"])
def test_convolution(run, target, case, kind, dynamic):
    inp, weight, stride, padding, dilation, groups = case
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x = RNG.standard_normal(inp).astype(np.float32)
    w = RNG.standard_normal(weight).astype(np.float32)
    if dynamic and groups > 1:
        with pytest.raises(NotApplicable):
            check(run, ConvOp, target, x, w, attrs, dynamic)
        return
    if kind == "forward":
        check(run, ConvOp, target, x, w, attrs, dynamic, terms=int(np.prod(weight[1:])))
        return
    (y,) = evaluate(ConvOp, [x, w], ConvOp.complete_attrs(attrs))
    dy = RNG.standard_normal(y.shape).astype(np.float32)
    if kind == "dgrad":
        terms = int(np.prod(weight)) // weight[1]
        attrs = {**attrs, "input_size": inp[2:]}
        op, other = ConvDgradOp, w
    else:
        terms = int(np.prod(dy.shape)) // dy.shape[1]
        attrs = {**attrs, "kernel_size": weight[2:]}
        op, other = ConvWgradOp, x
    check(run, op, target, dy, other, attrs, dynamic, terms=terms)


def test_epilogue(run, target):
    """Bias per column and per row, a residual, a scalar, and a mask as second result."""
    a = RNG.standard_normal((50, 30)).astype(np.float32)
    b = RNG.standard_normal((30, 70)).astype(np.float32)
    column, row = (RNG.standard_normal(s).astype(np.float32) for s in ((70,), (50,)))
    residual = RNG.standard_normal((50, 70)).astype(np.float32)
    scale = np.array([1.5], np.float32)

    def body(lanes, acc, extras):
        by_column, by_row, rest, factor = extras
        value = lanes.add(lanes.add(lanes.add(lanes.mul(acc, factor), by_column), by_row), rest)
        return [
            lanes.maximum(value, lanes.like(0, value)),
            lanes.cmpf("ogt", value, lanes.like(0, value)),
        ]

    present = [(False, True), (True, False), (True, True), (False, False)]
    epilogue = Epilogue(tuple(Extra(FLOAT32, p) for p in present), (FLOAT32, BOOL), body)
    maps = contraction_maps(MatmulOp, (50, 30), (30, 70), (50, 70), MatmulOp.complete_attrs({}))
    expected = a.astype(np.float64) @ b * 1.5 + column + row[:, None] + residual
    for tiles in (None, ContractionTiles(4, 2, kc=8, nc=1, mc=16, pack_a=4)):
        source = contraction_kernel(
            "k", target, maps, (50, 30), (30, 70), (50, 70), epilogue=epilogue, tiles=tiles
        )
        value, mask = run(
            source, target, [a, b, column, row, residual, scale],
            [((50, 70), np.float32), ((50, 70), np.bool_)],
        )  # fmt: skip
        np.testing.assert_allclose(value, np.maximum(expected, 0), atol=2e-5)
        np.testing.assert_array_equal(mask, value > 0)


def test_convolution_epilogue(run, target):
    """A bias per channel goes with the rows."""
    x = RNG.standard_normal((2, 3, 9, 9)).astype(np.float32)
    w = RNG.standard_normal((5, 3, 3, 3)).astype(np.float32)
    bias = RNG.standard_normal(5).astype(np.float32)
    attrs = ConvOp.complete_attrs({"padding": (1, 1, 1, 1)})
    (expected,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], attrs)
    expected = np.maximum(expected + bias[:, None, None], 0)
    epilogue = Epilogue(
        (Extra(FLOAT32, (False, True, False, False)),),
        (FLOAT32,),
        lambda b, acc, xs: [b.maximum(b.add(acc, xs[0]), b.like(0, acc))],
    )
    source, _ = kernel(
        ConvOp, target, x.shape, w.shape, expected.shape, attrs, False, epilogue=epilogue
    )
    (actual,) = run(source, target, [x, w, bias], [(expected.shape, np.float32)])
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("m", "n", "depth"),
    [(1, 75, 45), (2, 10, 7), (7, 32, 64), (20, 75, 45), (49, 100, 33), (300, 40, 70),
     (130, 24, 9), (0, 5, 3), (3, 0, 5), (5, 7, 0)],
)  # fmt: skip
def test_packed_b(run, target, m, n, depth, transposed):
    attrs = MatmulOp.complete_attrs({"transpose_rhs": transposed})
    a = RNG.standard_normal((m, depth)).astype(np.float32)
    b = RNG.standard_normal((n, depth) if transposed else (depth, n)).astype(np.float32)
    maps = contraction_maps(MatmulOp, a.shape, b.shape, (m, n), attrs)
    source = contraction_kernel("k", target, maps, a.shape, b.shape, (m, n), packable=["rhs"])
    assert [entry for entry, _ in source.packing] == [1]
    (actual,) = run(source, target, [a, b], [((m, n), np.float32)])
    expected = a.astype(np.float64) @ (b.T if transposed else b)
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_packed_lhs(run, target):
    """A transposed result: the left operand is the one with contiguous columns."""
    attrs = MatmulOp.complete_attrs({})
    a = RNG.standard_normal((50, 30)).astype(np.float32)
    b = RNG.standard_normal((30, 1)).astype(np.float32)
    maps = contraction_maps(MatmulOp, a.shape, b.shape, (50, 1), attrs)
    source = contraction_kernel("k", target, maps, a.shape, b.shape, (50, 1), packable=["lhs"])
    (actual,) = run(source, target, [a, b], [((50, 1), np.float32)])
    np.testing.assert_allclose(actual, a.astype(np.float64) @ b, atol=2e-5)


def test_packed_batch_and_epilogue(run, target):
    attrs = MatmulOp.complete_attrs({})
    a = RNG.standard_normal((3, 9, 20)).astype(np.float32)
    b = RNG.standard_normal((3, 20, 70)).astype(np.float32)
    bias = RNG.standard_normal(70).astype(np.float32)
    added = RNG.standard_normal((3, 9, 70)).astype(np.float32)
    out = (3, 9, 70)
    maps = contraction_maps(MatmulOp, a.shape, b.shape, out, attrs)
    epilogue = Epilogue(
        (Extra(FLOAT32, (False, False, True)), Extra(FLOAT32, (True, True, True))),
        (FLOAT32,),
        lambda b, acc, xs: [b.add(b.add(acc, xs[0]), xs[1])],
    )
    source = contraction_kernel(
        "k", target, maps, a.shape, b.shape, out, packable=["rhs"], epilogue=epilogue
    )
    (actual,) = run(source, target, [a, b, bias, added], [(out, np.float32)])
    np.testing.assert_allclose(actual, a.astype(np.float64) @ b + bias + added, atol=2e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_packed_weight_of_channels_last(run, target, groups):
    x = RNG.standard_normal((2, 5, 7, 12)).astype(np.float32)
    w = RNG.standard_normal((36, 12 // groups, 1, 1)).astype(np.float32)
    attrs = ConvOp.complete_attrs({"groups": groups, "channels_last": True})
    (expected,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], attrs)
    maps = contraction_maps(ConvOp, x.shape, w.shape, expected.shape, attrs)
    source = contraction_kernel(
        "k", target, maps, x.shape, w.shape, expected.shape, packable=["rhs"]
    )
    assert source.packing
    (actual,) = run(source, target, [x, w], [(expected.shape, np.float32)])
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution_without_overlap(run, target, groups):
    """Taps are columns; a bias per channel does not lie along them, so they become a batch."""
    d_out = RNG.standard_normal((1, 5, 3, 8)).astype(np.float32)
    w = RNG.standard_normal((8, 10, 2, 3)).astype(np.float32)
    bias = RNG.standard_normal(10 * groups).astype(np.float32)
    given = {
        "groups": groups, "stride": (2, 3), "input_size": (10, 9), "channels_last": True,
    }  # fmt: skip
    attrs = ConvDgradOp.complete_attrs(given)
    (expected,) = evaluate(ConvDgradOp, [d_out.astype(np.float64), w.astype(np.float64)], attrs)
    maps = contraction_maps(ConvDgradOp, d_out.shape, w.shape, expected.shape, attrs)
    assert not maps.is_masked
    for extras in ((), (Extra(FLOAT32, (False, False, False, True)),)):
        epilogue = Epilogue(
            extras, (FLOAT32,), lambda b, acc, xs: [b.add(acc, xs[0]) if xs else acc]
        )
        source = contraction_kernel(
            "k", target, maps, d_out.shape, w.shape, expected.shape,
            packable=["rhs"], epilogue=epilogue,
        )  # fmt: skip
        inputs = [d_out, w, bias] if extras else [d_out, w]
        (actual,) = run(source, target, inputs, [(expected.shape, np.float32)])
        np.testing.assert_allclose(actual, expected + bias if extras else expected, atol=2e-5)


def test_small_blocks(run, target):
    """Every block size is cut, and K in pieces is summed in order."""
    a = RNG.standard_normal((45, 100)).astype(np.float32)
    b = RNG.standard_normal((100, 90)).astype(np.float32)
    for lanes, direct in ((8, 0), (4, 31)):
        tiles = ContractionTiles(4, 1, kc=lanes * 3 + 1, nc=2, mc=12, pack_a=4, direct_rows=direct)
        check(run, MatmulOp, target, a, b, {}, False, terms=100, tiles=tiles)
        attrs = {"transpose_lhs": True, "transpose_rhs": True}
        left, right = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
        check(run, MatmulOp, target, left, right, attrs, True, terms=100, tiles=tiles)


def test_refuses_integers():
    maps = contraction_maps(MatmulOp, (2, 3), (3, 4), (2, 4), MatmulOp.complete_attrs({}))
    with pytest.raises(NotApplicable, match="sums of int32"):
        contraction_kernel("k", host_target(), maps, (2, 3), (3, 4), (2, 4), INT32)


@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("m", "n", "depth"), [(9, 33, 17), (100, 70, 1500), (5, 40, 2500), (2, 37, 300), (3, 100, 19)]
)
def test_static_and_run_time_sizes_agree(run, target, m, n, depth, transposed):
    """Blocks of K differ, the order of the sum does not: eager and traced give the same bits."""
    lhs_t, rhs_t = transposed
    lhs = RNG.standard_normal((depth, m) if lhs_t else (m, depth)).astype(np.float32)
    rhs = RNG.standard_normal((n, depth) if rhs_t else (depth, n)).astype(np.float32)
    attrs = {"transpose_lhs": lhs_t, "transpose_rhs": rhs_t}
    bits = set()
    for dynamic in (False, True):
        source, dims = kernel(MatmulOp, target, lhs.shape, rhs.shape, (m, n), attrs, dynamic)
        (actual,) = run(source, target, [lhs, rhs], [((m, n), np.float32)], dims)
        bits.add(actual.tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize("m", [1, 2, 3, 4, 20, 40])
@pytest.mark.parametrize("transposed", [False, True])
def test_few_rows_of_run_time_number(run, target, m, transposed):
    """One kernel reads B in place or packs it, as the number of rows says; with an epilogue."""
    a = RNG.standard_normal((2, m, 45)).astype(np.float32)
    b = RNG.standard_normal((2, 70, 45) if transposed else (2, 45, 70)).astype(np.float32)
    attrs = MatmulOp.complete_attrs({"transpose_rhs": transposed})
    (expected,) = evaluate(MatmulOp, [a.astype(np.float64), b.astype(np.float64)], attrs)
    epilogue = Epilogue(
        (), (FLOAT32,), lambda lanes, acc, xs: [lanes.maximum(acc, lanes.like(0, acc))]
    )
    source, dims = kernel(
        MatmulOp, target, a.shape, b.shape, expected.shape, attrs, True, epilogue=epilogue
    )
    (actual,) = run(source, target, [a, b], [(expected.shape, np.float32)], dims)
    np.testing.assert_allclose(actual, np.maximum(expected, 0), atol=2e-5)


# -- 16-bit floats -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=lambda d: d.name)
@pytest.mark.parametrize("packable", [(), ("rhs",)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("m", "n", "depth"), [(1, 40, 30), (5, 33, 18), (64, 70, 96), (40, 20, 1500), (3, 4, 7)]
)
def test_narrow_matmul(run, target, m, n, depth, transposed, packable, dtype):
    attrs = MatmulOp.complete_attrs({"transpose_rhs": transposed, "dtype": FLOAT32})
    a = RNG.standard_normal((m, depth)).astype(dtype)
    b = RNG.standard_normal((n, depth) if transposed else (depth, n)).astype(dtype)
    maps = contraction_maps(MatmulOp, a.shape, b.shape, (m, n), attrs)
    source = contraction_kernel(
        "k", target, maps, a.shape, b.shape, (m, n), dtype, packable=packable
    )
    dots = dtype == BFLOAT16 and target.has_bfloat16_dot and packable and depth % 2 == 0
    assert ("dpbf16ps" in source.text) == bool(dots)
    (actual,) = run(source, target, [a, b], [((m, n), np.float32)])
    expected = a.astype(np.float64) @ (b.T if transposed else b).astype(np.float64)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * depth**0.5)


@pytest.mark.parametrize("groups", [1, 3])
def test_narrow_convolution_of_channels_last(run, target, groups):
    x = RNG.standard_normal((2, 5, 7, 12)).astype(BFLOAT16)
    w = RNG.standard_normal((36, 12 // groups, 1, 1)).astype(BFLOAT16)
    attrs = ConvOp.complete_attrs({"groups": groups, "channels_last": True})
    (expected,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], attrs)
    maps = contraction_maps(ConvOp, x.shape, w.shape, expected.shape, attrs)
    epilogue = Epilogue((), (BFLOAT16,), lambda b, acc, _: [b.convert(acc, FLOAT32, BFLOAT16)])
    source = contraction_kernel(
        "k", target, maps, x.shape, w.shape, expected.shape, BFLOAT16,
        packable=["rhs"], epilogue=epilogue,
    )  # fmt: skip
    (actual,) = run(source, target, [x, w], [(expected.shape, BFLOAT16)])
    np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=2**-8, atol=1e-5)
