"""Quantization ops of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from mgec.dialects.mge.spec import (
    DTYPES,
    FLOAT32,
    INT8,
    INT16,
    INT32,
    UINT8,
    UINT16,
    DType,
    is_float,
    is_integer,
)
from mgec.errors import ModelError
from mgec.importers.onnx_file import dtype_of
from mgec.importers.onnx_node import Node, Unsupported, cut, onnx_op
from mgec.importers.onnx_ops.contraction import matmul, without_zero
from mgec.importers.onnx_ops.convolution import convolve
from mgec.importers.onnx_value import Value

_NARROW = (INT8, UINT8, INT16, UINT16)


def _aligned(b: Any, node: Node, x: Value, parameter: Value) -> Value:
    """A scale or zero point, so that it broadcasts with x: one, one per axis, or one per block."""
    if parameter.spec.size == 1 and parameter.rank <= 1:
        return b.reshape(parameter, ())
    axis = node.axis(x.rank, default=1)
    block = node.int("block_size")
    if parameter.rank == 1 and not block:
        return b.reshape(parameter, (*parameter.shape, *(1,) * (x.rank - axis - 1)))
    if parameter.rank != x.rank or block < 1:
        raise ModelError(
            f"a scale or zero point {parameter.spec} for {x.spec}",
            fix="the file may be damaged: export it again",
        )
    return cut(b, b.repeat(parameter, repeats=block, axis=axis), axis, 0, x.shape[axis])


def quantize(b: Any, x: Value, scale: Value, zero: Value | None, dtype: DType) -> Value:
    """Rounds x / scale, adds the zero point and moves it into the range of `dtype`."""
    if dtype not in _NARROW:
        raise Unsupported(f"quantization to {dtype.name}")
    whole = b.cast(b.round_even(b.div(x, scale)), FLOAT32)
    if zero is not None:
        whole = b.add(whole, b.cast(zero, FLOAT32))
    info = np.iinfo(dtype)  # pyright: ignore[reportArgumentType,reportCallIssue]
    low, high = b.scalar(info.min, whole), b.scalar(info.max, whole)
    return b.cast(b.minimum(b.maximum(whole, low), high), dtype)


@onnx_op("QuantizeLinear")
def quantize_linear(b: Any, node: Node) -> Value:
    """To 8 or 16 bits, the type of the zero point."""
    x, scale, zero = node.x(0), node.x(1), node.optional(2)
    node.ignore("axis", "block_size", "saturate", "output_dtype")
    dtype = UINT8
    if zero is not None:
        dtype = zero.dtype
    elif node.attr("output_dtype", 0):
        dtype = dtype_of(node.int("output_dtype"))
    if dtype not in _NARROW:
        raise Unsupported(f"quantization to {dtype.name}")
    wide = node.attr("precision", 0)
    if wide:
        x, scale = (b.cast(v, dtype_of(int(wide))) for v in (x, scale))
    elif is_integer(x.dtype) or x.dtype != scale.dtype:
        x = b.cast(x, scale.dtype)
    zero = None if zero is None else _aligned(b, node, x, zero)
    return quantize(b, x, _aligned(b, node, x, scale), zero, dtype)


@onnx_op("DequantizeLinear")
def dequantize_linear(b: Any, node: Node) -> Value:
    """(x - zero point) * scale."""
    x, scale, zero = node.x(0), node.x(1), node.optional(2)
    node.ignore("axis", "block_size")
    x, zero = _widened(x), None if zero is None else _widened(zero)
    wide = b.cast(x, INT32)
    if zero is not None:
        wide = b.sub(wide, b.cast(_aligned(b, node, x, zero), INT32))
    out = b.mul(b.cast(wide, scale.dtype), _aligned(b, node, x, scale))
    to = node.attr("output_dtype", 0)
    return b.cast(out, dtype_of(int(to))) if to else out


def _widened(x: Value) -> Value:
    """Constants of 4 or 2 bits as bytes."""
    if x.dtype in DTYPES:
        if is_float(x.dtype):
            raise Unsupported(f"dequantization of {x.dtype.name}")
        return x
    if x.array is None or "int" not in x.dtype.name:
        raise Unsupported(f"dequantization of {x.dtype.name}")
    return Value(x.array.astype(np.int8))


def _rescaled(
    b: Any, total: Value, scales: tuple[Value, ...], out_scale: Value, zero: Value
) -> Value:
    """Sums of products of quantized numbers, quantized again."""
    factor = b.reshape(out_scale, ()) if out_scale.spec.size == 1 else out_scale
    ratio = b.div(b.mul(*scales), factor)
    ratio = b.cast(ratio, FLOAT32)
    value = b.mul(b.cast(total, FLOAT32), ratio)
    one = b.constant(np.array(1, np.float32))
    return quantize(b, value, one, b.reshape(zero, ()), zero.dtype)


def _scalar(b: Any, x: Value) -> Value:
    return b.reshape(x, ()) if x.spec.size == 1 else x


@onnx_op("QLinearMatMul")
def qlinear_matmul(b: Any, node: Node) -> Value:
    """The product of two quantized matrices, quantized."""
    lhs_scale, rhs_scale = node.x(1), node.x(4)
    if lhs_scale.rank == 1 and lhs_scale.spec.size != 1:
        lhs_scale = b.reshape(lhs_scale, (*lhs_scale.shape, 1))
    lhs = without_zero(b, node.x(0), node.x(2), axis=-2)
    rhs = without_zero(b, node.x(3), node.x(5), axis=-1)
    scales = (_scalar(b, lhs_scale), _scalar(b, rhs_scale))
    return _rescaled(b, matmul(b, lhs, rhs), scales, node.x(6), node.x(7))


@onnx_op("QLinearConv")
def qlinear_conv(b: Any, node: Node) -> Value:
    """The convolution of a quantized image, quantized."""
    x = without_zero(b, node.x(0), node.x(2), axis=-1)
    weight, zero, scale = node.x(3), node.x(5), node.x(4)
    if zero.spec.size != 1:
        zero = b.reshape(zero, (*zero.shape, *(1,) * (weight.rank - 1)))
    wide = b.sub(b.cast(weight, INT32), b.cast(_scalar(b, zero), INT32))
    total = convolve(b, node, x, wide, node.optional(8))
    if scale.spec.size != 1:
        scale = b.reshape(scale, (*scale.shape, *(1,) * (weight.rank - 2)))
    scales = (_scalar(b, node.x(1)), _scalar(b, scale))
    return _rescaled(b, total, scales, node.x(6), node.x(7))
