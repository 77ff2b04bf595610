"""conv and its two gradients, over one to three spatial axes and in both layouts."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from support.opcheck import check_gradient, check_round_trip, check_value

from mgec.dialects.mge.contraction import ContractionMaps, contraction_maps
from mgec.dialects.mge.convolution import ConvDgradOp, ConvOp, ConvWgradOp
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spatial import Geometry, Layout
from mgec.dialects.mge.spec import FLOAT32, FLOAT64, FLOATS, INT8, INT32, TensorSpec
from mgec.errors import ArgumentError, DTypeError, ShapeError


def data(shape: tuple[int, ...], dtype: Any = FLOAT32, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(-9, 9, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


# input, weight, attributes
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 6, 7), (4, 3, 3, 2), {}),
    "padded": ((1, 2, 5, 5), (3, 2, 3, 3), {"padding": (1, 1, 1, 1)}),
    "pointwise": ((2, 3, 4, 5), (4, 3, 1, 1), {}),
    "strided": ((1, 2, 8, 9), (2, 2, 3, 3), {"stride": (2, 3), "padding": (1, 1, 1, 1)}),
    "rest": ((1, 1, 8, 8), (1, 1, 2, 2), {"stride": (3, 3)}),  # rows no window touches
    "pointwise strided": ((1, 2, 5, 5), (3, 2, 1, 1), {"stride": (2, 2)}),
    "asymmetric": ((1, 2, 5, 6), (2, 2, 3, 3), {"padding": (0, 1, 2, 0), "stride": (2, 1)}),
    "dilated": ((1, 2, 9, 9), (2, 2, 3, 3), {"dilation": (2, 3), "padding": (2, 2, 3, 3)}),
    "groups": ((2, 6, 5, 5), (4, 3, 3, 3), {"groups": 2, "padding": (1, 1, 1, 1)}),
    "depthwise": ((1, 5, 6, 6), (5, 1, 3, 3), {"groups": 5, "stride": (2, 2)}),
    "multiplier": ((1, 3, 5, 5), (6, 1, 3, 3), {"groups": 3, "padding": (1, 1, 1, 1)}),
    "everything": (
        (2, 4, 9, 8),
        (6, 2, 3, 2),
        {"groups": 2, "stride": (2, 3), "padding": (2, 1, 0, 3), "dilation": (2, 1)},
    ),
    "one window": ((1, 1, 3, 3), (1, 1, 3, 3), {}),
    "mostly padding": ((1, 1, 1, 1), (2, 1, 5, 5), {"padding": (3, 2, 4, 4)}),
    "empty batch": ((0, 2, 4, 4), (3, 2, 3, 3), {"padding": (1, 1, 1, 1)}),
    "1-D": ((2, 3, 11), (4, 3, 3), {"stride": (2,), "padding": (2, 1), "dilation": (3,)}),
    "1-D groups": ((2, 4, 9), (6, 2, 2), {"groups": 2}),
    "3-D": ((2, 2, 4, 5, 3), (3, 2, 3, 2, 2), {}),
    "3-D everything": (
        (1, 4, 7, 5, 6),
        (2, 2, 2, 3, 2),
        {
            "groups": 2,
            "stride": (2, 1, 3),
            "padding": (1, 0, 2, 1, 0, 3),
            "dilation": (3, 2, 1),
        },
    ),
    "last": ((2, 6, 7, 3), (4, 3, 3, 2), {"channels_last": True}),
    "last everything": (
        (2, 9, 8, 4),
        (6, 2, 3, 2),
        {
            "groups": 2,
            "stride": (2, 3),
            "padding": (2, 1, 0, 3),
            "dilation": (2, 1),
            "channels_last": True,
        },
    ),
    "last depthwise": (
        (1, 6, 6, 5),
        (5, 1, 3, 3),
        {"groups": 5, "padding": (1, 1, 1, 1), "channels_last": True},
    ),
    "last tiles": (
        (2, 6, 4, 6),
        (4, 3, 3, 2),
        {"groups": 2, "stride": (3, 2), "channels_last": True},
    ),
    "last 1-D": ((2, 9, 3), (4, 3, 2), {"padding": (0, 2), "channels_last": True}),
    "last 3-D": (
        (1, 4, 5, 3, 4),
        (4, 2, 2, 3, 2),
        {
            "groups": 2,
            "stride": (1, 2, 1),
            "padding": (0, 1, 1, 1, 2, 0),
            "channels_last": True,
        },
    ),
}


def layout_of(inp: np.ndarray[Any, Any], attrs: dict[str, Any]) -> Layout:
    return Layout(inp.ndim - 2, attrs.get("channels_last", False))


def operands(case: str, dtype: Any = FLOAT32) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Input, weight, a gradient of the output, attributes."""
    shape, kernel, attrs = CASES[case]
    inp, weight = data(shape, dtype), data(kernel, dtype, 1)
    out = ConvOp.infer(
        TensorSpec(shape, inp.dtype),
        TensorSpec(kernel, inp.dtype),
        **ConvOp.complete_attrs(attrs),
    )
    return inp, weight, data(out.shape, dtype, 2), attrs


def calls(case: str, dtype: Any = FLOAT32) -> dict[str, tuple[list[Any], dict[str, Any], int]]:
    """Per op: operands, attributes, terms summed."""
    inp, weight, d_out, attrs = operands(case, dtype)
    taps, layout = prod(weight.shape[2:]), layout_of(inp, attrs)
    return {
        "conv": ([inp, weight], attrs, taps * weight.shape[1]),
        "conv_dgrad": (
            [d_out, weight], {**attrs, "input_size": layout.spatial(inp.shape)},
            taps * weight.shape[0] // attrs.get("groups", 1),
        ),
        "conv_wgrad": (
            [d_out, inp], {**attrs, "kernel_size": weight.shape[2:]},
            max(1, d_out.size // d_out.shape[layout.channel]),
        ),
    }  # fmt: skip


OPS = ["conv", "conv_dgrad", "conv_wgrad"]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", CASES)
def test_value(op: str, case: str) -> None:
    arrays, attrs, terms = calls(case)[op]
    check_value(op, arrays, attrs, reduction=terms)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", CASES)
def test_gradient(op: str, case: str) -> None:
    arrays, attrs, _ = calls(case)[op]
    check_gradient(op, arrays, attrs)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [*FLOATS, INT8, INT32], ids=lambda d: d.name)
def test_dtypes(op: str, dtype: Any) -> None:
    arrays, attrs, terms = calls("everything", dtype)[op]
    check_value(op, arrays, attrs, reduction=terms, dynamic=(False,))


@pytest.mark.parametrize("case", CASES)
def test_reference_against_loops(case: str) -> None:
    inp, weight, _, attrs = operands(case, FLOAT64)
    full = ConvOp.complete_attrs(attrs)
    (out,) = evaluate(ConvOp, [inp, weight], attrs)
    layout = layout_of(inp, attrs)
    geometry = Geometry.of(full, layout.axes)
    per_group = weight.shape[0] // full["groups"]  # type: ignore[operator]
    sizes = layout.spatial(inp.shape)
    rng = np.random.default_rng(3)
    for _ in range(min(10, out.size)):
        at = [int(rng.integers(size)) for size in out.shape]
        n, o, window = at[0], at[layout.channel], layout.spatial(at)
        total = 0.0
        for c, *taps in np.ndindex(*weight.shape[1:]):
            place = [
                window[i] * geometry.stride[i] + tap * geometry.dilation[i] - geometry.padding[i][0]
                for i, tap in enumerate(taps)
            ]
            if all(0 <= p < size for p, size in zip(place, sizes, strict=True)):
                channel = o // per_group * weight.shape[1] + c
                total += inp[layout.join(n, channel, place)] * weight[(o, c, *taps)]
        np.testing.assert_allclose(out[tuple(at)], total, rtol=1e-12, atol=1e-12)


def flip(array: Any, attrs: dict[str, Any]) -> Any:
    """An image in the other layout."""
    return np.moveaxis(array, -1, 1) if attrs.get("channels_last") else np.moveaxis(array, 1, -1)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", ["everything", "1-D", "3-D everything"])
def test_channels_last_is_channels_first_transposed(op: str, case: str) -> None:
    arrays, attrs, _ = calls(case, FLOAT64)[op]
    (first,) = evaluate(op_class(f"mge.{op}"), arrays, attrs)
    images = arrays if op == "conv_wgrad" else arrays[:1]
    moved = [flip(a, attrs) for a in images] + arrays[len(images) :]
    (last,) = evaluate(op_class(f"mge.{op}"), moved, {**attrs, "channels_last": True})
    if op != "conv_wgrad":
        last = np.moveaxis(last, -1, 1)
    np.testing.assert_allclose(last, first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "case", ["plain", "everything", "depthwise", "3-D everything", "last everything", "last tiles"]
)
def test_maps(op: str, case: str) -> None:
    arrays, attrs, _ = calls(case)[op]
    cls = {"conv": ConvOp, "conv_dgrad": ConvDgradOp, "conv_wgrad": ConvWgradOp}[op]
    full = cls.complete_attrs(attrs)
    (out,) = evaluate(cls, arrays, attrs)
    maps = contraction_maps(cls, arrays[0].shape, arrays[1].shape, out.shape, full)
    assert {loop.kind for loop in maps.loops} >= {"m", "n", "k"}
    assert any(loop.kind == "batch" for loop in maps.loops) == (full["groups"] != 1)
    if op != "conv_wgrad":  # the innermost sum walks what is contiguous in the image
        channel = maps.of_kind("k")[-1].name in ("c", "o")
        assert channel == full["channels_last"]
    assert maps.size("batch") * maps.size("m") * maps.size("n") == out.size
    transposed = op == "conv_dgrad" and case != "last tiles"
    assert maps.is_masked == ("everything" in case or transposed)
    sample(maps, arrays[0], arrays[1], out)


def sample(maps: ContractionMaps, lhs: Any, rhs: Any, out: Any) -> None:
    """Some elements of the result by the definition of the maps."""

    def at(axes: Any, sizes: Any, position: dict[str, int]) -> tuple[int, ...] | None:
        index: list[int] = []
        for axis, size in zip(axes, sizes, strict=True):
            value = axis.offset + sum(c * position[loop] for loop, c in axis.terms)
            quotient, rest = divmod(value, axis.divisor)
            if rest or not 0 <= quotient < size:
                assert axis.is_masked
                return None
            index.append(quotient)
        return tuple(index)

    rng = np.random.default_rng(0)
    free = [loop for loop in maps.loops if loop.kind != "k"]
    reduced = maps.of_kind("k")
    for _ in range(8):
        position = {loop.name: int(rng.integers(loop.extent)) for loop in free}
        total = 0.0
        for indices in np.ndindex(*(loop.extent for loop in reduced)):
            position.update((loop.name, i) for loop, i in zip(reduced, indices, strict=True))
            x, y = at(maps.lhs, lhs.shape, position), at(maps.rhs, rhs.shape, position)
            if x is not None and y is not None:
                total += float(lhs[x]) * float(rhs[y])
        np.testing.assert_allclose(
            out[at(maps.out, out.shape, position)], total, rtol=1e-4, atol=1e-5
        )


X, W = TensorSpec((8, 3, 32, 32), FLOAT32), TensorSpec((16, 3, 3, 3), FLOAT32)
Y = TensorSpec((8, 16, 30, 30), FLOAT32)


def f32(*shape: int) -> TensorSpec:
    return TensorSpec(shape, FLOAT32)


ERRORS: list[tuple[Any, list[TensorSpec], dict[str, Any], type[Exception], str]] = [
    (ConvOp, [X, f32(16, 4, 3, 3)], {}, ShapeError,
     "conv2d: input has 3 channels but weight expects 4"),
    (ConvOp, [f32(8, 4, 9, 9), f32(6, 1, 3, 3)], {"groups": 4}, ShapeError,
     "conv2d: output has 6 channels, which 4 groups do not divide"),
    (ConvOp, [f32(32, 32), W], {}, ShapeError,
     "conv: inp has rank 2 but needs rank 3, 4 or 5 (N, C, spatial axes)"),
    (ConvOp, [f32(3, 32, 32), W], {}, ShapeError,
     "conv1d: weight has rank 4 but needs rank 3 (O, I, kL)"),
    (ConvOp, [X, f32(2, 8, 3, 3, 3)], {}, ShapeError,
     "conv2d: weight has rank 5 but needs rank 4 (O, I, kH, kW)"),
    (ConvOp, [X, TensorSpec(W.shape, FLOAT64)], {}, DTypeError,
     "conv2d: inp is float32 but weight is float64"),
    (ConvOp, [X, W], {"stride": (0, 1)}, ArgumentError,
     "conv2d: stride is [0, 1] but may not be below 1"),
    (ConvOp, [X, W], {"dilation": (1, 0)}, ArgumentError,
     "conv2d: dilation is [1, 0] but may not be below 1"),
    (ConvOp, [X, W], {"padding": (1, 1)}, ArgumentError,
     "conv2d: padding has length 2 but needs length 4"),
    (ConvOp, [X, W], {"padding": (0, -1, 0, 0)}, ArgumentError,
     "conv2d: padding is [0, -1, 0, 0] but may not be below 0"),
    (ConvOp, [X, W], {"groups": 0}, ArgumentError,
     "conv2d: groups is 0 but may not be below 1"),
    (ConvOp, [f32(1, 3, 4, 2), W], {"padding": (0, 0, 0, 0)}, ShapeError,
     "conv2d: kernel covers 3 columns but input has 2, padding included"),
    (ConvOp, [f32(1, 3, 4, 4), W], {"dilation": (2, 1)}, ShapeError,
     "conv2d: kernel covers 5 rows but input has 4, padding included"),
    (ConvOp, [f32(1, 3, 0, 4), W], {"padding": (2, 2, 0, 0)}, ShapeError,
     "conv2d: input has 0 rows"),
    (ConvOp, [X, f32(16, 3, 3, 0)], {}, ShapeError, "conv2d: kernel has 0 columns"),
    (ConvOp, [f32(2, 9, 9, 9, 9, 9), W], {}, ShapeError,
     "conv: inp has rank 6 but needs rank 3, 4 or 5 (N, C, spatial axes)"),
    (ConvOp, [f32(32, 32), W], {"channels_last": True}, ShapeError,
     "conv: inp has rank 2 but needs rank 3, 4 or 5 (N, spatial axes, C)"),
    (ConvOp, [f32(8, 32, 32, 4), W], {"channels_last": True}, ShapeError,
     "conv2d: input has 4 channels but weight expects 3"),
    (ConvOp, [f32(8, 2, 9), f32(4, 2, 3)], {"stride": (2, 2)}, ArgumentError,
     "conv1d: stride has length 2 but needs length 1"),
    (ConvOp, [f32(8, 2, 2), f32(4, 2, 3)], {}, ShapeError,
     "conv1d: kernel covers 3 elements but input has 2, padding included"),
    (ConvOp, [f32(8, 2, 5, 5, 5), f32(4, 2, 3, 3, 3)], {"padding": (1, 1, 1, 1)}, ArgumentError,
     "conv3d: padding has length 4 but needs length 6"),
    (ConvOp, [f32(8, 2, 1, 5, 5), f32(4, 2, 3, 3, 3)], {}, ShapeError,
     "conv3d: kernel covers 3 planes but input has 1, padding included"),
    (ConvDgradOp, [f32(8, 30, 30, 15), W], {"input_size": (32, 32), "channels_last": True},
     ShapeError, "conv2d_dgrad: d_out has 15 channels but weight makes 16"),
    (ConvWgradOp, [f32(8, 4, 3), f32(8, 2, 4, 4)], {"kernel_size": (1,)}, ShapeError,
     "conv1d_wgrad: inp has rank 4 but needs rank 3 (N, C, L)"),
    (ConvDgradOp, [f32(8, 15, 30, 30), W], {"input_size": (32, 32)}, ShapeError,
     "conv2d_dgrad: d_out has 15 channels but weight makes 16"),
    (ConvDgradOp, [Y, W], {"input_size": (33, 32)}, ShapeError,
     "conv2d_dgrad: d_out has 30 rows but a convolution of 33 rows makes 31"),
    (ConvDgradOp, [Y, W], {"input_size": (32,)}, ArgumentError,
     "conv2d_dgrad: input_size has length 1 but needs length 2"),
    (ConvDgradOp, [Y, W], {"input_size": (32, 32), "groups": 3}, ShapeError,
     "conv2d_dgrad: d_out has 16 channels, which 3 groups do not divide"),
    (ConvWgradOp, [Y, f32(7, 3, 32, 32)], {"kernel_size": (3, 3)}, ShapeError,
     "conv2d_wgrad: d_out has 8 images but inp has 7"),
    (ConvWgradOp, [Y, X], {"kernel_size": (3, 2)}, ShapeError,
     "conv2d_wgrad: d_out has 30 columns but a convolution of 32 columns makes 31"),
    (ConvWgradOp, [Y, X], {"kernel_size": (3, 3), "groups": 2}, ShapeError,
     "conv2d_wgrad: inp has 3 channels, which 2 groups do not divide"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "specs", "attrs", "kind", "headline"), ERRORS)
def test_errors(op: Any, specs: Any, attrs: Any, kind: Any, headline: str) -> None:
    with pytest.raises(kind) as caught:
        op.infer_specs(specs, op.complete_attrs(attrs))
    assert caught.value.headline == headline


def test_error_shows_the_operands_and_a_fix() -> None:
    with pytest.raises(ShapeError) as caught:
        ConvOp.infer(X, f32(16, 4, 3, 3))
    text = str(caught.value)
    assert "inp     float32[8, 3, 32, 32]  (N, C, H, W)" in text
    assert "weight  float32[16, 4, 3, 3]   (O, I, kH, kW), groups=1" in text
    fix = "make weight.shape[1] * groups equal inp.shape[1], or transpose an NHWC input first"
    assert f"fix     {fix}" in text


@pytest.mark.parametrize(
    ("shapes", "attrs", "fix"),
    [
        ([(1, 4, 9), (2, 3, 3)], {}, "or transpose an NLC input first"),
        ([(1, 4, 9, 9, 9), (2, 3, 3, 3, 3)], {}, "or transpose an NDHWC input first"),
        ([(1, 9, 9, 4), (2, 3, 3, 3)], {"channels_last": True}, "equal inp.shape[3]"),
        ([(1, 3, 9, 9), (2, 3, 3, 3)], {"stride": (1,)}, "give stride for height and width"),
        ([(1, 3, 9), (2, 3, 3)], {"stride": (1, 1)}, "give stride for length"),
        (
            [(1, 3, 9, 9, 9), (2, 3, 3, 3, 3)], {"padding": (1,)},
            "give padding for front, back, top, bottom, left and right",
        ),
    ],
)  # fmt: skip
def test_fixes_name_the_axes(shapes: Any, attrs: dict[str, Any], fix: str) -> None:
    with pytest.raises((ShapeError, ArgumentError)) as caught:
        ConvOp.infer(*(f32(*shape) for shape in shapes), **attrs)
    assert str(caught.value).endswith(fix)


@pytest.mark.parametrize("op", OPS)
def test_round_trip(op: str) -> None:
    arrays, attrs, _ = calls("everything")[op]
    text = check_round_trip(op, [TensorSpec(a.shape, a.dtype) for a in arrays], attrs)
    assert "padding = [2, 1, 0, 3]" in text
