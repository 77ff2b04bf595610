"""The template of transposed convolutions against the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest

from mgec.compiler.kernels.conv_tiles import DirectConvTiles
from mgec.compiler.kernels.epilogue import Epilogue, Extra
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.transposed_conv import Spread, pack_transposed, transposed_conv_kernel
from mgec.compiler.targets import host_target
from mgec.dialects.mge.contraction import contraction_maps
from mgec.dialects.mge.convolution import ConvDgradOp
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.spec import BFLOAT16, FLOAT32, FLOAT64

RNG = np.random.default_rng(0)


def kernel(target, image, weight, attrs, **options):
    """The source of a transposed convolution, its attributes and the shape of its result."""
    full = ConvDgradOp.complete_attrs({**attrs, "channels_last": True})
    (out,) = evaluate(ConvDgradOp, [np.zeros(image), np.zeros(weight)], full)
    maps = contraction_maps(ConvDgradOp, image, weight, out.shape, full)
    source = transposed_conv_kernel("k", target, maps, image, weight, out.shape, full, **options)
    return source, full, out.shape


def arrays(*shapes, dtype=np.float32):
    """Random operands."""
    return [RNG.standard_normal(shape).astype(dtype) for shape in shapes]


def check(run, target, image, weight, attrs, dtype=FLOAT32, **options):
    """The kernel computes what the reference says."""
    x, w = arrays(image, weight, dtype=dtype)
    source, full, shape = kernel(target, image, weight, attrs, dtype=dtype, **options)
    (expected,) = evaluate(ConvDgradOp, [x.astype(np.float64), w.astype(np.float64)], full)
    (actual,) = run(source, target, [x, w], [(shape, dtype)])
    bound = 8 * np.finfo(dtype).eps * np.prod(weight) / weight[1]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def square(size, stride=1, padding=0, **others):
    """Attributes that are alike along two axes, for a result of `size` rows and columns."""
    rows, columns = size
    return {
        "stride": (stride,) * 2,
        "padding": (padding,) * 4,
        "input_size": (rows, columns),
        **others,
    }


CASES = [
    # image, weight [O, C/groups, *kernel], attributes
    ((2, 7, 9, 3), (3, 5, 3, 3), square((7, 9), padding=1)),
    ((1, 6, 20, 8), (8, 40, 4, 4), square((12, 40), 2, 1)),
    ((1, 6, 20, 3), (3, 17, 3, 3), square((12, 40), 2, 1)),  # as with an output padding of 1
    ((1, 6, 20, 3), (3, 17, 3, 3), square((11, 39), 2, 1)),
    ((2, 5, 5, 6), (6, 9, 2, 2), square((14, 16), 3)),  # gaps between the windows
    ((1, 4, 5, 2), (2, 3, 5, 5), square((14, 17), 3, 1)),
    ((1, 4, 5, 4), (4, 6, 2, 2), square((9, 10), 2)),  # a row that no window covers
    ((1, 9, 7, 4), (4, 6, 3, 3), square((11, 9), dilation=(2, 2), padding=1)),
    ((1, 9, 9, 12), (12, 5, 3, 3), square((18, 18), 2, 1, groups=3)),
    ((1, 3, 3, 2), (2, 4, 1, 1), square((5, 5), 2)),
    ((1, 3, 4, 2), (2, 4, 7, 7), square((5, 8), 2, 3)),
    ((2, 30, 4), (4, 18, 5), {"stride": (2,), "padding": (2, 1), "input_size": (60,)}),
    ((1, 3, 4, 9, 3), (3, 17, 2, 3, 3),
     {"stride": (1, 2, 2), "padding": (0, 0, 1, 1, 1, 0), "input_size": (4, 7, 18)}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values(run, target, case):
    check(run, target, *case)


def test_float64(run, target):
    check(run, target, (1, 5, 9, 6), (6, 20, 3, 3), square((9, 17), 2, 1), FLOAT64)


def test_tiles(run, target):
    """The result does not depend on the tiles, to the bit."""
    image, weight, attrs = (2, 5, 13, 4), (4, 40, 3, 3), square((10, 26), 2, 1)
    x, w = arrays(image, weight)
    results = []
    for tiles in (None, DirectConvTiles(3, 1, 4, True)):
        source, _, shape = kernel(target, image, weight, attrs, tiles=tiles)
        results.append(run(source, target, [x, w], [(shape, np.float32)])[0])
    np.testing.assert_array_equal(*results)


def test_pairs(run, target):
    """The channels of the image are the ones that stand together."""
    x, w = arrays((1, 5, 6, 8), (8, 10, 3, 3), dtype=BFLOAT16)
    attrs = square((10, 12), 2, 1)
    source, full, shape = kernel(
        target, x.shape, w.shape, attrs, dtype=BFLOAT16, epilogue=Epilogue((), (FLOAT32,))
    )
    (expected,) = evaluate(ConvDgradOp, [x.astype(np.float64), w.astype(np.float64)], full)
    (actual,) = run(source, target, [x, w], [(shape, FLOAT32)])
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_epilogue(run, target):
    """Bias and residual; also where no window is."""
    attrs = square((9, 13), 3)
    x, w, bias, residual = arrays((1, 3, 4, 4), (4, 35, 2, 2), (35,), (1, 9, 13, 35))

    def body(b, acc, extras):
        return [b.maximum(b.add(b.add(acc, extras[0]), extras[1]), b.like(0, acc))]

    extras = (Extra(FLOAT32, (False, False, False, True)), Extra(FLOAT32, (True,) * 4))
    epilogue = Epilogue(extras, (FLOAT32,), body)
    source, full, shape = kernel(target, x.shape, w.shape, attrs, epilogue=epilogue)
    (sums,) = evaluate(ConvDgradOp, [x.astype(np.float64), w.astype(np.float64)], full)
    (actual,) = run(source, target, [x, w, bias, residual], [(shape, np.float32)])
    np.testing.assert_allclose(actual, np.maximum(sums + bias + residual, 0), atol=1e-5)


def test_refusals():
    target = host_target()
    both = {"dilation": (2, 2)}
    for image, weight, attrs, reason in [
        ((1, 4, 4, 2), (2, 3, 3, 3), square((11, 11), 2, **both), "stride and dilation along one"),
        ((1, 4, 4, 2), (2, 3, 2, 2), square((8, 8), 2), "windows that tile the image"),
        ((0, 4, 4, 2), (2, 3, 3, 3), square((6, 6)), "an empty result"),
    ]:
        with pytest.raises(NotApplicable, match=reason):
            kernel(target, image, weight, attrs)


def test_flops_count_no_zeros():
    source, _, _ = kernel(host_target(), (1, 5, 5, 4), (4, 6, 3, 3), square((10, 10), 2, 1))
    assert source.flops == 2 * (5 * 5 * 4) * (6 * 3 * 3)


def test_phases_cover_the_columns():
    spread = Spread(size=5, count=13, taps=4, stride=3, low=1)
    columns = sorted(
        phase.start + phase.step * i for phase in spread.phases() for i in range(phase.axis.count)
    )
    assert columns == list(range(13))
    assert sum(phase.axis.taps for phase in spread.phases()) == 4


def test_taps_of_a_phase_are_packed_side_by_side():
    weight = np.arange(5, dtype=np.float32).reshape(1, 1, 5)
    packed = pack_transposed(weight, 1, 1, 2)
    np.testing.assert_array_equal(packed.ravel(), [4, 2, 0, 3, 1])
