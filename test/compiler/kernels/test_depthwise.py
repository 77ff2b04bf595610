"""The template of convolutions with narrow groups against the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest

from mgec.compiler.kernels.depthwise import DepthwiseTiles, depthwise_kernel, pack_groups
from mgec.compiler.kernels.epilogue import Epilogue, Extra
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.targets import target_named
from mgec.dialects.mge.contraction import contraction_maps
from mgec.dialects.mge.convolution import ConvOp
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.spec import BFLOAT16, FLOAT16, FLOAT32, FLOAT64

RNG = np.random.default_rng(0)


def kernel(target, inp, weight, attrs, **options):
    """The source of a convolution, its attributes and the shape of its result."""
    full = ConvOp.complete_attrs({**attrs, "channels_last": True})
    (out,) = evaluate(ConvOp, [np.zeros(inp), np.zeros(weight)], full)
    maps = contraction_maps(ConvOp, inp, weight, out.shape, full)
    source = depthwise_kernel("k", target, maps, inp, weight, out.shape, full, **options)
    return source, full, out.shape


def check(run, target, inp, weight, attrs, dtype=FLOAT32, **options):
    """The kernel computes what the reference says."""
    x, w = (RNG.standard_normal(shape).astype(dtype) for shape in (inp, weight))
    source, full, shape = kernel(target, inp, weight, attrs, dtype=dtype, **options)
    (expected,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], full)
    (actual,) = run(source, target, [x, w], [(shape, dtype)])
    bound = 8 * np.finfo(dtype).eps * int(np.prod(weight[1:]))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def square(groups, stride=1, padding=0, dilation=1):
    """Attributes that are alike along two axes."""
    return {
        "stride": (stride,) * 2,
        "padding": (padding,) * 4,
        "dilation": (dilation,) * 2,
        "groups": groups,
    }


@pytest.mark.parametrize("channels", [2, 4, 15, 16, 17, 40])
@pytest.mark.parametrize(("stride", "columns"), [(1, 5), (1, 19), (2, 18)])
def test_depthwise(run, target, channels, stride, columns):
    inp, weight = (2, 6, columns, channels), (channels, 1, 3, 3)
    check(run, target, inp, weight, square(channels, stride, 1))


@pytest.mark.parametrize(
    ("size", "attrs"),
    [
        (1, square(20, 2)),
        (5, square(20, padding=2)),
        (7, square(20, 2, 3)),
        (11, square(20, padding=5)),
        (3, square(20, 1, 2, 2)),
        (3, square(20, 2, 4, 3)),
        (2, square(20, 3, 4)),  # windows wholly in the padding
    ],
)
def test_windows(run, target, size, attrs):
    check(run, target, (1, 12, 21, 20), (20, 1, size, size), attrs)


@pytest.mark.parametrize(
    ("inp", "weight", "attrs"),
    [
        ((2, 30, 9), (9, 1, 5), {"padding": (2, 2), "groups": 9}),
        ((1, 4, 5, 11, 18), (18, 1, 3, 2, 3), {"padding": (1, 1, 0, 1, 2, 0), "groups": 18}),
        ((1, 4, 9, 6), (6, 1, 3, 1), {"stride": (1, 2), "padding": (1, 1, 0, 0), "groups": 6}),
    ],
)
def test_axes(run, target, inp, weight, attrs):
    check(run, target, inp, weight, attrs)


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs"),
    [(20, 1, 2), (5, 1, 3), (16, 2, 2), (9, 4, 2), (3, 2, 3), (7, 1, 4), (2, 2, 1)],
)
def test_groups(run, target, groups, inputs, outputs):
    """Several channels per group: lanes of a vector need the same input channel."""
    inp, weight = (2, 5, 10, groups * inputs), (groups * outputs, inputs, 3, 3)
    check(run, target, inp, weight, square(groups, padding=1))


def test_float64(run, target):
    check(run, target, (2, 6, 9, 10), (10, 1, 3, 3), square(10, padding=1), FLOAT64)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=lambda d: d.name)
@pytest.mark.parametrize(("groups", "inputs"), [(19, 1), (6, 2)])
def test_narrow_floats(run, target, groups, inputs, dtype):
    """Sums are formed in float32."""
    channels = groups * inputs
    x, w = (
        RNG.standard_normal(shape).astype(dtype)
        for shape in ((1, 6, 9, channels), (channels, inputs, 3, 3))
    )
    attrs, epilogue = square(groups, padding=1), Epilogue((), (FLOAT32,))
    source, full, shape = kernel(target, x.shape, w.shape, attrs, dtype=dtype, epilogue=epilogue)
    (expected,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], full)
    (actual,) = run(source, target, [x, w], [(shape, FLOAT32)])
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("tiles", [DepthwiseTiles(3, 2, 1), DepthwiseTiles(5, 9, 4, 2)])
def test_tiles(run, target, tiles):
    """The result does not depend on the tiles, to the bit."""
    inp, weight, attrs = (2, 7, 13, 40), (40, 1, 3, 3), square(40, padding=1)
    x, w = (RNG.standard_normal(shape).astype(np.float32) for shape in (inp, weight))
    results = []
    for chosen in (None, tiles):
        source, _, shape = kernel(target, inp, weight, attrs, tiles=chosen)
        results.append(run(source, target, [x, w], [(shape, np.float32)])[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("channels", [12, 37])
def test_epilogue(run, target, channels):
    """Bias and residual, also of lanes that two vectors share."""
    inp = (1, 6, 9, channels)
    x, w, bias, residual = (
        RNG.standard_normal(shape).astype(np.float32)
        for shape in (inp, (channels, 1, 3, 3), (channels,), inp)
    )

    def body(b, acc, extras):
        return [b.maximum(b.add(b.add(acc, extras[0]), extras[1]), b.like(0, acc))]

    extras = (Extra(FLOAT32, (False, False, False, True)), Extra(FLOAT32, (True,) * 4))
    attrs = square(channels, padding=1)
    source, full, shape = kernel(
        target, inp, w.shape, attrs, epilogue=Epilogue(extras, (FLOAT32,), body)
    )
    (sums,) = evaluate(ConvOp, [x.astype(np.float64), w.astype(np.float64)], full)
    (actual,) = run(source, target, [x, w, bias, residual], [(shape, np.float32)])
    np.testing.assert_allclose(actual, np.maximum(sums + bias + residual, 0), atol=1e-5)


def test_refusals():
    target = target_named("x86-64-v4")
    for inp, weight, attrs, reason in [
        ((1, 6, 6, 4), (4, 4, 3, 3), square(1), "one group"),
        ((1, 6, 6, 4), (64, 2, 3, 3), square(2), "groups wider than a vector"),
        ((1, 6, 6, 64), (4, 16, 3, 3), square(4), "many input channels and few output"),
        ((1, 99, 999, 4), (4, 1, 1, 99), {"padding": (0, 0, 49, 49), "groups": 4}, "too many taps"),
        ((0, 6, 6, 4), (4, 1, 3, 3), square(4), "an empty result"),
    ]:
        with pytest.raises(NotApplicable, match=reason):
            kernel(target, inp, weight, attrs)


def test_weights_are_packed_by_vector():
    weight = np.arange(5 * 2 * 3, dtype=np.float32).reshape(10, 1, 3)  # 5 groups of 1 -> 2
    packed = pack_groups(weight, 5, 2, 8)
    assert packed.shape == (3, 3, 1, 8)
    np.testing.assert_array_equal(packed[1, :, 0, :4], weight[4:8, 0].T)
    np.testing.assert_array_equal(packed[2, :, 0, :4], weight[6:, 0].T)  # one group again
    np.testing.assert_array_equal(packed[..., 4:], 0)
