"""Attention, where `mge.attention` means the same; everything else is ONNX's own function."""

from __future__ import annotations

from math import sqrt
from typing import Any

from mgec.dialects.mge.spec import FLOAT32, FLOAT64
from mgec.importers.onnx_node import Node, moved, onnx_op
from mgec.importers.onnx_value import Value


@onnx_op("Attention")
def attention(b: Any, node: Node) -> Value:
    """Without masks, caches, caps and further outputs, in the dtype of the operands."""
    known = {"scale", "is_causal", "q_num_heads", "kv_num_heads"}
    plain = (
        {attribute.name for attribute in node.proto.attribute} <= known
        and not any(node.has_input(i) for i in range(3, 7))
        and not any(node.wanted[1:])
        and node.x(0).dtype in (FLOAT32, FLOAT64)
    )
    node.ignore("q_num_heads", "kv_num_heads")
    operands = [node.x(i) for i in range(3)]
    query, key, value = (_by_position(b, node, x, i) for i, x in enumerate(operands))
    causal = node.flag("is_causal")
    # A mask of a rectangle is aligned at the other corner than mge's.
    square = query is not None and key is not None and query.shape[1] == key.shape[1]
    if not plain or query is None or key is None or value is None or (causal and not square):
        return NotImplemented
    scale = node.attr("scale")
    scale = 1 / sqrt(query.shape[3]) if scale is None else float(scale)
    out = b.attention(query, key, value, scale=scale, causal=causal)
    if operands[0].rank == 4:
        return moved(b, out, (0, 2, 1, 3))
    n, positions, heads, depth = out.shape
    return b.reshape(out, (n, positions, heads * depth))


def _by_position(b: Any, node: Node, x: Value, index: int) -> Value | None:
    """An operand as [N, positions, heads, depth]; None if the attributes do not say how."""
    if x.rank == 4:
        return moved(b, x, (0, 2, 1, 3))
    heads = node.int("q_num_heads" if index == 0 else "kv_num_heads")
    if x.rank != 3 or heads < 1 or x.shape[2] % heads:
        return None
    return b.reshape(x, (*x.shape[:2], heads, x.shape[2] // heads))
