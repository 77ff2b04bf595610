"""The template of direct convolution against the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest

from mgec.compiler.kernels.conv_geometry import Axis, split_columns, tap_runs
from mgec.compiler.kernels.conv_tiles import ConvSizes, DirectConvTiles
from mgec.compiler.kernels.direct_conv import direct_conv_kernel, pack_weight
from mgec.compiler.kernels.epilogue import Epilogue, Extra
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.targets import host_target, target_named
from mgec.dialects.mge.contraction import contraction_maps
from mgec.dialects.mge.convolution import ConvOp
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.spec import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64

RNG = np.random.default_rng(0)


def arrays(*shapes, dtype=np.float32):
    """Random operands."""
    return [RNG.standard_normal(shape).astype(dtype) for shape in shapes]


def kernel(target, inp, weight, attrs, **options):
    """The source of a convolution, its attributes and the shape of its result."""
    full = ConvOp.complete_attrs({**attrs, "channels_last": True})
    (out,) = evaluate(ConvOp, [np.zeros(inp), np.zeros(weight)], full)
    maps = contraction_maps(ConvOp, inp, weight, out.shape, full)
    source = direct_conv_kernel("k", target, maps, inp, weight, out.shape, full, **options)
    return source, full, out.shape


def check(run, target, inp, weight, attrs, dtype=FLOAT32, **options):
    """The kernel computes what the reference says."""
    x, w = arrays(inp, weight, dtype=dtype)
    source, full, shape = kernel(target, inp, weight, attrs, dtype=dtype, **options)
    (expected,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], full)
    (actual,) = run(source, target, [x, w], [(shape, dtype)])
    close(actual, expected, int(np.prod(weight[1:])))
    return source


def close(actual, expected, terms):
    """Random terms of size 1: their rounding errors add up as the root of their number."""
    bound = 8 * np.finfo(actual.dtype).eps * terms
    np.testing.assert_allclose(actual, expected, rtol=0, atol=max(bound, 1e-15))


def square(stride=1, padding=0, dilation=1, groups=1):
    """Attributes that are alike along two axes."""
    return {
        "stride": (stride,) * 2,
        "padding": (padding,) * 4,
        "dilation": (dilation,) * 2,
        "groups": groups,
    }


CASES = [
    # input, weight, attributes
    ((2, 7, 9, 3), (4, 3, 3, 3), square(padding=1)),
    ((1, 9, 30, 8), (40, 8, 3, 3), square(padding=1)),
    ((1, 8, 57, 4), (16, 4, 3, 3), square(padding=1)),
    ((2, 12, 12, 6), (16, 6, 5, 5), square()),
    ((1, 20, 21, 3), (10, 3, 7, 7), square(2, 3)),
    ((2, 11, 10, 4), (6, 2, 3, 3), square(2, 1, groups=2)),
    ((1, 10, 10, 12), (51, 4, 3, 3), square(padding=1, groups=3)),
    ((1, 6, 9, 20), (40, 10, 1, 1), square(groups=2)),
    ((1, 20, 20, 8), (8, 8, 3, 3), square(padding=2, dilation=2)),
    ((1, 9, 19, 4), (20, 4, 3, 3), square(padding=6, dilation=6)),
    ((2, 8, 8, 5), (7, 5, 1, 1), square(2)),
    ((2, 9, 9, 5), (33, 5, 1, 1), square(3, 1)),
    ((2, 4, 4, 16), (35, 16, 3, 3), square(padding=1)),
    ((3, 1, 1, 7), (70, 7, 3, 3), square(padding=1)),
    ((1, 5, 5, 2), (3, 2, 2, 2), square(1, 3)),  # windows wholly in the padding
    ((1, 9, 11, 2), (3, 2, 3, 2), {"stride": (3, 1), "padding": (2, 0, 0, 1), "dilation": (1, 2)}),
    ((1, 6, 6, 3), (1, 3, 3, 3), square(padding=1)),
    ((2, 40, 5), (18, 5, 7), {"padding": (3, 3)}),
    ((2, 40, 5), (18, 5, 3), {"stride": (2,), "padding": (4, 0), "dilation": (4,)}),
    ((2, 5, 6, 9, 3), (17, 3, 3, 3, 3), {"padding": (1, 1, 1, 1, 1, 1)}),
    ((1, 5, 6, 9, 4), (8, 2, 2, 1, 3), {"stride": (2, 1, 2), "padding": (1, 0, 0, 0, 2, 0),
                                         "groups": 2}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values(run, target, case):
    inp, weight, attrs = case
    check(run, target, inp, weight, attrs)


@pytest.mark.parametrize("outputs", [1, 16, 30, 48, 80])
def test_output_channels(run, target, outputs):
    """Panels of every width, and the last one narrower."""
    check(run, target, (1, 4, 9, 3), (outputs, 3, 3, 3), square(padding=1))


@pytest.mark.parametrize("tiles", [DirectConvTiles(3, 2, 2), DirectConvTiles(5, 1, 3, True)])
def test_tiles(run, target, tiles):
    """The result does not depend on the tiles, to the bit."""
    inp, weight, attrs = (2, 7, 13, 4), (40, 4, 3, 3), square(padding=1)
    x, w = arrays(inp, weight)
    results = []
    for chosen in (None, tiles):
        source, _, shape = kernel(target, inp, weight, attrs, tiles=chosen)
        results.append(run(source, target, [x, w], [(shape, np.float32)])[0])
    np.testing.assert_array_equal(*results)


def test_float64(run, target):
    check(run, target, (2, 7, 9, 3), (20, 3, 3, 3), square(padding=1), FLOAT64)


@pytest.mark.parametrize("attrs", [square(padding=1), square(2, 2, 2)])
def test_several_images(run, target, attrs):
    """Channels of several images are one sum."""
    counts = (3, 8, 1)
    weight = (20, sum(counts), 3, 3)
    *parts, w = arrays(*((2, 9, 10, c) for c in counts), weight)
    source, full, shape = kernel(target, (2, 9, 10, 12), weight, attrs, channels=counts)
    x = np.concatenate(parts, axis=-1)
    (expected,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], full)
    (actual,) = run(source, target, [*parts, w], [(shape, np.float32)])
    close(actual, expected, 108)


@pytest.mark.parametrize("groups", [1, 2])
def test_epilogue(run, target, groups):
    """Bias, residual and a scalar; a mask as second result."""
    inp, weight = (2, 6, 9, 8), (44, 8 // groups, 3, 3)
    x, w, bias, factor = arrays(inp, weight, (44,), (1,))
    (residual,) = arrays((2, 6, 9, 44))

    def body(b, acc, extras):
        by_channel, rest, scale = extras
        value = b.add(b.add(b.mul(acc, scale), by_channel), rest)
        zero = b.like(0, value)
        return [b.maximum(value, zero), b.cmpf("ogt", value, zero)]

    present = [(False, False, False, True), (True,) * 4, (False,) * 4]
    epilogue = Epilogue(tuple(Extra(FLOAT32, p) for p in present), (FLOAT32, BOOL), body)
    attrs = square(padding=1, groups=groups)
    source, full, shape = kernel(target, inp, weight, attrs, epilogue=epilogue)
    (sums,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], full)
    expected = sums * factor + bias + residual
    value, mask = run(
        source, target, [x, w, bias, residual, factor], [(shape, np.float32), (shape, np.bool_)]
    )
    close(value, np.maximum(expected, 0), 72)
    np.testing.assert_array_equal(mask, value > 0)


def test_no_images(run, target):
    """An empty batch is left to others."""
    with pytest.raises(NotApplicable, match="an empty result"):
        kernel(target, (0, 6, 6, 3), (4, 3, 3, 3), square(padding=1))


def test_refusals():
    target = host_target()
    with pytest.raises(NotApplicable, match="groups over several images"):
        kernel(target, (1, 6, 6, 4), (4, 2, 3, 3), square(groups=2), channels=(2, 2))
    with pytest.raises(NotApplicable, match="padding over too many tiles of a row"):
        kernel(target, (1, 4000, 1), (1, 1, 2001), {"padding": (1000, 1000)})


def test_weights_are_packed_by_panel():
    weight = np.arange(6 * 4 * 2, dtype=np.float32).reshape(6, 4, 2)  # [O, C, k]
    packed = pack_weight(weight, 2, 2, (3, 1))
    assert packed.shape == (4, 2 * 4 * 2)  # 2 panels of 2 in each group of 3 channels
    group, output = 1, 2  # the second panel of the second group has one channel
    panel = packed[2 * group + 1]
    first, second = panel[: 2 * 3 * 2].reshape(2, 3, 2), panel[2 * 3 * 2 :].reshape(2, 1, 2)
    np.testing.assert_array_equal(first[:, :, 0], weight[3 * group + output, :3].T)
    np.testing.assert_array_equal(second[:, :, 0], weight[3 * group + output, 3:].T)
    np.testing.assert_array_equal(panel.reshape(-1, 2)[:, 1], 0)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 13, 57, 149, 1001])
@pytest.mark.parametrize("padding", [0, 1, 10])
def test_tiles_cover_a_row(count, padding):
    axis = Axis(count + 2 - 2 * padding, count, 3, low=-padding)
    tiles = split_columns(axis, 8, lambda width: max(width, 4) + 1)
    assert [t.start for t in tiles] == [0, *(t.stop for t in tiles[:-1])]
    assert tiles[-1].stop == count
    for each in tiles:
        assert 1 <= each.width <= 8
        assert (each.stop - each.start) % each.width == 0
        assert each.inside == axis.is_inside(each.start, each.stop - 1)
        assert each.inside or each.stop - each.start == each.width
    assert len(tiles) <= 4 + 2 * -(-padding // 4)


def test_runs_of_taps():
    axis = Axis(20, 20, 3, low=-1)
    left, inner, _ = split_columns(axis, 5, lambda width: 1.0)
    assert [(r.low, r.high, r.windows) for r in tap_runs(axis, left)] == [
        (0, 1, (1, 2, 3, 4)), (1, 3, (0, 1, 2, 3, 4))
    ]  # fmt: skip
    assert [(r.low, r.high) for r in tap_runs(axis, inner)] == [(0, 3)]


def sizes(rows, outputs, inputs, columns=None):
    """Of a 3x3 convolution of square images."""
    axis = Axis(rows, columns or rows, 3, low=-1)
    flops = 2 * rows * axis.count * 9 * inputs * outputs
    return ConvSizes(1, 1, rows, (axis,), rows * rows, 9, 1, inputs, outputs, 4, flops)


@pytest.mark.parametrize("name", ["x86-64", "x86-64-v3", "x86-64-v4", "aarch64"])
def test_tiles_fit_the_registers(name):
    target = target_named(name)
    for outputs in (8, 16, 32, 48, 64, 512):
        for rows in (3, 7, 14, 28, 56):
            tiles = DirectConvTiles.fit(target, sizes(rows, outputs, 64))
            assert tiles.nv * (tiles.mr + 1) < target.vector_registers


def test_vectors_are_as_narrow_as_the_result():
    for name, outputs, lanes in [
        ("x86-64-v4", 9, 16), ("x86-64-v4", 8, 8), ("x86-64-v4", 1, 4), ("x86-64", 1, 4)
    ]:  # fmt: skip
        assert sizes(7, outputs, 16).lanes(target_named(name)) == lanes


def test_units():
    """Large images are divided by rows, small ones by output channels."""
    target = target_named("x86-64-v4")
    large = DirectConvTiles.fit(target, sizes(56, 64, 64))
    assert not large.by_panel
    assert 56 // large.rows % 2 == 0
    assert DirectConvTiles.fit(target, sizes(7, 512, 512)).by_panel


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("inp", "weight", "attrs"),
    [
        ((1, 9, 9, 12), (40, 12, 3, 3), square(stride=2, padding=1)),
        ((2, 7, 8, 6), (8, 3, 3, 2), {"groups": 2, "padding": (1, 0, 0, 1)}),
        ((1, 6, 40, 3), (33, 3, 5, 5), square(padding=2)),  # no pairs: three channels
    ],
)
def test_narrow_floats(run, target, inp, weight, attrs, dtype):
    x, w = arrays(inp, weight, dtype=dtype)
    epilogue = Epilogue((), (FLOAT32,))
    source, full, shape = kernel(target, inp, weight, attrs, dtype=dtype, epilogue=epilogue)
    pairs = dtype == BFLOAT16 and target.has_bfloat16_dot and weight[1] % 2 == 0
    assert ("dpbf16ps" in source.text) == pairs
    (expected,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], full)
    (actual,) = run(source, target, [x, w], [(shape, FLOAT32)])
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_narrow_concatenation(run, target):
    parts = arrays((1, 5, 6, 4), (1, 5, 6, 8), dtype=BFLOAT16)
    (w,) = arrays((10, 12, 3, 3), dtype=BFLOAT16)
    epilogue = Epilogue((), (FLOAT32,))
    source, full, shape = kernel(
        target, (1, 5, 6, 12), w.shape, square(padding=1), dtype=BFLOAT16,
        epilogue=epilogue, channels=(4, 8),
    )  # fmt: skip
    joined = np.concatenate(parts, axis=-1).astype(np.float64)
    (expected,) = evaluate(ConvOp, [joined, w.astype(np.float64)], full)
    (actual,) = run(source, target, [*parts, w], [(shape, FLOAT32)])
    np.testing.assert_allclose(actual, expected, atol=1e-4)
