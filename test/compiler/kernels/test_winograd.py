"""Winograd convolutions against the reference rule of the op, in float64."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mgec.compiler.kernels.cost import direct_cost
from mgec.compiler.kernels.epilogue import Epilogue, Extra
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.packing import Packing
from mgec.compiler.kernels.winograd import winograd_kernel
from mgec.compiler.kernels.winograd_tiles import (
    WinogradTiles,
    winograd_cost,
    winograd_tile,
    winograd_weight_bytes,
)
from mgec.compiler.kernels.winograd_transform import TILES, pack_winograd, transforms
from mgec.compiler.targets import host_target, target_named
from mgec.dialects.mge.contraction import contraction_maps
from mgec.dialects.mge.convolution import ConvOp
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.spec import BOOL, FLOAT32

RNG = np.random.default_rng(0)

ERRORS = {2: 1e-6, 4: 4e-6, 6: 4e-5}
"""Largest error over the largest result, up to 256 channels: see docs/numerics.md."""


def normal(*shape: int):
    return RNG.standard_normal(shape).astype(np.float32)


def source_of(target, inp, weight, padding=(1, 1, 1, 1), **options):
    """The kernel for these shapes, and the shape of its result."""
    attrs = ConvOp.complete_attrs({"padding": padding, "channels_last": True})
    n, h, w, _ = inp
    top, bottom, left, right = padding
    out = (n, h + top + bottom - 2, w + left + right - 2, weight[0])
    maps = contraction_maps(ConvOp, inp, weight, out, attrs)
    return winograd_kernel("k", target, maps, inp, weight, out, attrs, **options), out


def reference(x, w, padding=(1, 1, 1, 1)):
    attrs = ConvOp.complete_attrs({"padding": padding, "channels_last": True})
    (expected,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], attrs)
    return expected


def assert_close(actual, expected, bound, scale=None):
    scale = np.abs(expected).max() if scale is None else scale
    assert np.abs(actual - expected).max() <= bound * scale


# -- the matrices --------------------------------------------------------------------------


@pytest.mark.parametrize("tile", TILES)
def test_transforms_are_exact(tile):
    t = transforms(tile)
    signal = [Fraction(i * i - 5 * i + 1, 3) for i in range(t.size)]
    taps = [Fraction(2), Fraction(-1, 7), Fraction(5)]
    at, g, bt = (np.array(m, dtype=object) for m in (t.at, t.g, t.bt))
    result = at.dot(g.dot(np.array(taps)) * bt.dot(np.array(signal)))
    expected = [sum(signal[i + j] * taps[j] for j in range(3)) for i in range(tile)]
    assert list(result) == expected


@pytest.mark.parametrize("tile", TILES)
def test_packing(tile):
    weight = normal(7, 5, 3, 3)
    packed = Packing("winograd", (weight.shape, tile, 4)).apply(weight.reshape(35, 9))
    g = np.array([[float(x) for x in row] for row in transforms(tile).g])
    expected = np.einsum("ia,ocab,jb->ijco", g, weight.astype(np.float64), g)
    points = transforms(tile).points
    flat = np.zeros((points, 5, 8))
    flat[..., :7] = expected.reshape(points, 5, 7)
    assert packed.dtype == np.float32
    np.testing.assert_array_equal(packed[0], flat[..., :4].astype(np.float32))
    np.testing.assert_array_equal(packed[1], flat[..., 4:].astype(np.float32))


def test_packing_in_slices():
    weight = normal(33, 150, 3, 3)  # more than one slice of channels
    whole = pack_winograd(weight, weight.shape, 2, 32)
    part = pack_winograd(weight[:, 140:], (33, 10, 3, 3), 2, 32)
    np.testing.assert_allclose(whole[:, :, 140:], part, rtol=1e-6)


# -- values --------------------------------------------------------------------------------

CASES = [
    # input, output channels, padding
    ((1, 8, 8, 16), 32, (1, 1, 1, 1)),
    ((2, 9, 11, 5), 7, (0, 2, 1, 0)),
    ((1, 3, 2, 21), 40, (1, 1, 1, 1)),
    ((1, 1, 1, 3), 1, (1, 1, 1, 1)),
    ((3, 14, 5, 33), 17, (2, 2, 2, 2)),
    ((1, 13, 13, 1), 3, (0, 0, 0, 0)),
    ((1, 3, 3, 2), 65, (0, 0, 0, 0)),
    ((1, 5, 6, 4), 4, (4, 0, 0, 3)),
]


@pytest.mark.parametrize(
    ("tile", "case"), [(4, case) for case in CASES] + [(m, c) for m in (2, 6) for c in CASES[1:4]]
)
def test_values(run, target, tile, case):
    inp, out_channels, padding = case
    x, w = normal(*inp), normal(out_channels, inp[3], 3, 3)
    source, out = source_of(target, x.shape, w.shape, padding, tile=tile)
    (actual,) = run(source, target, [x, w], [(out, np.float32)])
    assert_close(actual, reference(x, w, padding), ERRORS[tile])


@pytest.mark.parametrize(("block", "ahead"), [(1, True), (3, False)])
@pytest.mark.parametrize("by_panels", [False, True])
def test_forms(run, target, by_panels, block, ahead):
    x, w = normal(2, 10, 9, 20), normal(70, 20, 3, 3)
    mr = min(3, WinogradTiles.for_target(target).mr)
    tiles = replace(
        WinogradTiles.for_target(target),
        tile=4, mr=mr, block=block * mr, by_panels=by_panels, ahead=ahead,
    )  # fmt: skip
    source, out = source_of(target, x.shape, w.shape, tiles=tiles)
    assert len(source.stages) == 1 + by_panels
    assert bool(source.workspace_bytes) == by_panels
    (actual,) = run(source, target, [x, w], [(out, np.float32)])
    assert_close(actual, reference(x, w), ERRORS[4])


@pytest.mark.parametrize("channels", [(16, 16), (5, 20, 3), (1, 1, 33), (40,)])
def test_channels_of_several_buffers(run, target, channels):
    x, w = normal(2, 6, 7, sum(channels)), normal(9, sum(channels), 3, 3)
    source, out = source_of(target, x.shape, w.shape, tile=4, channels=channels)
    ends = np.cumsum(channels)
    parts = [x[..., end - count : end] for count, end in zip(channels, ends, strict=True)]
    assert source.packing[0][0] == len(channels)
    (actual,) = run(source, target, [*parts, w], [(out, np.float32)])
    assert_close(actual, reference(x, w), ERRORS[4])


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("out_channels", [32, 37])
def test_epilogue(run, target, out_channels, size):
    x, w = normal(2, *size, 12), normal(out_channels, 12, 3, 3)
    bias, added, per_image = normal(out_channels), normal(2, *size, out_channels), normal(2)
    extras = (
        Extra(FLOAT32, (False, False, False, True)),
        Extra(FLOAT32, (True, True, True, True)),
        Extra(FLOAT32, (True, False, False, False)),
    )

    def body(b, acc, lanes):
        total = b.mul(b.add(b.add(acc, lanes[0]), lanes[1]), lanes[2])
        return [b.maximum(total, b.like(0, total)), b.cmpf("ogt", lanes[1], lanes[0])]

    epilogue = Epilogue(extras, (FLOAT32, BOOL), body)
    source, out = source_of(target, x.shape, w.shape, tile=2, epilogue=epilogue)
    y, bigger = run(
        source, target, [x, w, bias, added, per_image.reshape(2, 1, 1, 1)],
        [(out, np.float32), (out, np.bool_)],
    )  # fmt: skip
    total = (reference(x, w) + bias + added) * per_image.reshape(2, 1, 1, 1)
    assert_close(y, np.maximum(total, 0), ERRORS[2], np.abs(total).max())
    np.testing.assert_array_equal(bigger, added > bias)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("size", "channels"), [(20, 64), (14, 256)])
def test_accuracy(run, tile, size, channels):
    target = host_target()
    x, w = normal(1, size, size, channels), normal(64, channels, 3, 3)
    source, out = source_of(target, x.shape, w.shape, tile=tile)
    (actual,) = run(source, target, [x, w], [(out, np.float32)])
    assert_close(actual, reference(x, w), ERRORS[tile])


def test_nan_stays_in_its_tiles(run):
    x, w = normal(1, 12, 12, 8), normal(8, 8, 3, 3)
    x[0, 0, 0, 0] = np.nan
    source, out = source_of(host_target(), x.shape, w.shape, tile=4)
    (actual,) = run(source, host_target(), [x, w], [(out, np.float32)])
    assert np.isnan(actual[0, :2, :2]).all()
    assert not np.isnan(actual[0, 4:]).any() and not np.isnan(actual[0, :, 4:]).any()


# -- what it is for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inp", "weight", "attrs", "reason"),
    [
        ((1, 8, 8, 4), (4, 4, 5, 5), {}, "the filters are not 3 x 3"),
        ((1, 8, 8, 4), (4, 4, 3, 3), {"stride": (2, 2)}, "stride, dilation or groups are not 1"),
        ((1, 8, 8, 4), (4, 4, 3, 3), {"dilation": (2, 2)}, "stride, dilation or groups"),
        ((1, 8, 8, 4), (4, 2, 3, 3), {"groups": 2}, "stride, dilation or groups"),
        ((1, 4, 8, 8), (4, 4, 3, 3), {"channels_last": False}, "channels last"),
        ((1, 8, 4), (4, 4, 3), {}, "two-dimensional"),
        ((0, 8, 8, 4), (4, 4, 3, 3), {}, "there is nothing to compute"),
    ],
)
def test_not_applicable(inp, weight, attrs, reason):
    full = ConvOp.complete_attrs({"channels_last": True, **attrs})
    (out,) = evaluate(ConvOp, [np.zeros(inp), np.zeros(weight)], full)
    maps = contraction_maps(ConvOp, inp, weight, out.shape, full)
    with pytest.raises(NotApplicable, match=reason):
        winograd_kernel("k", host_target(), maps, inp, weight, out.shape, full)


AVX512 = target_named("x86-64-v4")


@pytest.mark.parametrize(
    ("size", "channels", "batch", "tile"),
    [(56, 64, 1, 4), (28, 128, 1, 4), (14, 256, 1, 4), (7, 512, 1, 2), (7, 512, 8, 4),
     (128, 128, 1, 6), (256, 64, 1, 6)],
)  # fmt: skip
def test_choice_of_tile(size, channels, batch, tile):
    image, weight = (batch, size, size, channels), (channels, channels, 3, 3)
    assert winograd_tile(AVX512, image, weight, image) == tile
    cost = winograd_cost(AVX512, image, weight, image, tile)
    assert cost < direct_cost(AVX512, weight, image)
    assert winograd_cost(AVX512, image, weight, image, tile, threads=2) < cost


def test_many_channels_and_few_tiles_are_direct():
    image, weight = (1, 4, 4, 1024), (1024, 1024, 3, 3)
    costs = [winograd_cost(AVX512, image, weight, image, tile) for tile in TILES]
    assert min(costs) > direct_cost(AVX512, weight, image)


def test_weight_bytes():
    weight = normal(40, 6, 3, 3)
    for tile in TILES:
        source, _ = source_of(AVX512, (1, 8, 8, 6), weight.shape, tile=tile)
        packed = source.packing[0][1].apply(weight)
        assert winograd_weight_bytes(AVX512, weight.shape, tile) == packed.nbytes


def test_forms_chosen():
    def units(size, channels):
        image, weight = (1, size, size, channels), (channels, channels, 3, 3)
        source, _ = source_of(AVX512, image, weight, tile=4)
        assert source.scratch_bytes <= AVX512.l2_bytes
        return [stage.units.evaluate() for stage in source.stages]

    assert units(56, 64) == [28]  # blocks of tiles
    assert units(14, 256) == [8, 8]  # tiles, then panels
    assert units(28, 128) == [13, 8]  # tiles, then panels of blocks
    assert units(256, 64) == [512]
