"""Matrix products of ONNX."""

from __future__ import annotations

from typing import Any

from mgec.dialects.mge.spec import INT32, is_integer
from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, onnx_op
from mgec.importers.onnx_value import Value


def matmul(b: Any, lhs: Value, rhs: Value) -> Value:
    """NumPy's matmul: vectors are rows or columns, and leave no axis behind."""
    if not lhs.rank or not rhs.rank:
        raise ModelError(
            f"a matrix product of {lhs.spec} and {rhs.spec}",
            fix="the file may be damaged: export it again",
        )
    left = b.reshape(lhs, (1, *lhs.shape)) if lhs.rank == 1 else lhs
    right = b.reshape(rhs, (*rhs.shape, 1)) if rhs.rank == 1 else rhs
    out = b.matmul(left, right)
    shape = list(out.shape)
    if rhs.rank == 1:
        shape.pop()
    if lhs.rank == 1:
        shape.pop(-1 if rhs.rank == 1 else -2)
    return b.reshape(out, tuple(shape))


@onnx_op("MatMul")
def matmul_op(b: Any, node: Node) -> Value:
    """As NumPy's."""
    return matmul(b, node.x(0), node.x(1))


@onnx_op("Gemm")
def gemm(b: Any, node: Node) -> Value:
    """alpha * lhs @ rhs + beta * c, either operand transposed."""
    lhs, rhs, c = node.x(0), node.x(1), node.optional(2)
    node.ignore("broadcast", "beta")
    if lhs.rank != 2 or rhs.rank != 2:
        raise ModelError(
            f"Gemm of {lhs.spec} and {rhs.spec}, but matrices are needed",
            fix="the file may be damaged: export it again",
        )
    flags = {"transpose_lhs": node.flag("transA"), "transpose_rhs": node.flag("transB")}
    out = _scaled(b, b.matmul(lhs, rhs, **flags), node.attr("alpha"))
    return out if c is None else b.add(out, _scaled(b, c, node.attr("beta")))


def _scaled(b: Any, x: Value, factor: float) -> Value:
    if factor == 1:
        return x
    if is_integer(x.dtype) and factor != int(factor):
        raise ModelError(
            f"a factor of {factor} for {x.dtype.name}", fix="use a floating point dtype"
        )
    return b.mul(x, b.scalar(factor, x))


@onnx_op("MatMulInteger")
def matmul_integer(b: Any, node: Node) -> Value:
    """Exact: 8-bit integers less their zero points, summed in int32."""
    lhs = without_zero(b, node.x(0), node.optional(2), axis=-2)
    rhs = without_zero(b, node.x(1), node.optional(3), axis=-1)
    return matmul(b, lhs, rhs)


def without_zero(b: Any, x: Value, zero: Value | None, axis: int) -> Value:
    """x as int32, less a zero point: one number, or one for each place along `axis`."""
    wide = b.cast(x, INT32)
    if zero is None:
        return wide
    if zero.spec.size == 1:
        zero = b.reshape(zero, ())
    elif zero.rank == 1:
        zero = b.reshape(zero, (*zero.shape, *(1,) * (-1 - axis)))
    return b.sub(wide, b.cast(zero, INT32))
