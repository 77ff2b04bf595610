"""Fourier transforms, as products with constant matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, Unsupported, cut, moved, onnx_op
from mgec.importers.onnx_value import Value

_DAMAGED = "the file may be damaged: export it again"
_LONGEST = 4096
"""A transform of n places is a product with n x n numbers."""


def _transform(
    b: Any, real: Value, imaginary: Value | None, length: int, kept: int
) -> tuple[Value, Value]:
    """The first `kept` frequencies along the last axis: sums of x exp(-i 2 pi j k / n)."""
    size = real.shape[-1]
    if length > _LONGEST:
        raise Unsupported(f"a transform of {length} places")
    # The product j k is reduced in integers, so that large angles lose no digits.
    turns = np.outer(np.arange(size), np.arange(kept)) % length
    angle = 2 * np.pi * turns / length
    cosine, sine = (b.constant(f(angle).astype(real.dtype)) for f in (np.cos, np.sin))

    def product(x: Value, matrix: Value) -> Value:
        rows = x.spec.size // size if size else 0
        made = b.matmul(b.reshape(x, (rows, size)), matrix)
        return b.reshape(made, (*x.shape[:-1], kept))

    out_real, out_imaginary = product(real, cosine), b.neg(product(real, sine))
    if imaginary is not None:
        out_real = b.add(out_real, product(imaginary, sine))
        out_imaginary = b.add(out_imaginary, product(imaginary, cosine))
    return out_real, out_imaginary


def _parts(b: Any, x: Value) -> tuple[Value, Value | None]:
    """Real and imaginary part of [..., 1] or [..., 2]."""
    last = x.rank - 1
    if x.shape[last] not in (1, 2):
        raise ModelError(f"{x.spec} is neither real nor complex", fix=_DAMAGED)
    parts = [b.reshape(cut(b, x, last, i, i + 1), x.shape[:-1]) for i in range(x.shape[last])]
    return parts[0], parts[1] if len(parts) == 2 else None


def _complex(b: Any, real: Value, imaginary: Value) -> Value:
    parts = [b.reshape(part, (*part.shape, 1)) for part in (real, imaginary)]
    return b.concat(*parts, axis=real.rank)


@onnx_op("DFT")
def dft(b: Any, node: Node) -> Value:
    """Along one axis; real input has one number at the end, complex two."""
    x = node.x(0)
    node.need_float(x)
    if x.rank < 2:
        raise ModelError(f"a transform of {x.spec}", fix=_DAMAGED)
    if node.version < 20:
        axis = node.int("axis", 1)
    else:
        axis = node.known_int(2, "axis") if node.has_input(2) else -2
    axis = node.normal_axis(axis, x.rank)
    if axis == x.rank - 1:
        raise ModelError("a transform along the axis of real and imaginary part", fix=_DAMAGED)
    if node.flag("inverse"):
        raise Unsupported("an inverse transform")
    onesided = node.flag("onesided")
    real, imaginary = _parts(b, x)
    order = [i for i in range(real.rank) if i != axis] + [axis]
    real, imaginary = (None if p is None else moved(b, p, order) for p in (real, imaginary))
    assert real is not None
    size = real.shape[-1]
    length = node.known_int(1, "dft_length") if node.has_input(1) else size
    if length < 1:
        raise ModelError(f"a transform of {length} places", fix=_DAMAGED)
    real, imaginary = (None if p is None else _fit(b, p, length) for p in (real, imaginary))
    assert real is not None
    kept = length // 2 + 1 if onesided else length
    back = [order.index(i) for i in range(len(order))]
    outs = _transform(b, real, imaginary, length, kept)
    first, second = (moved(b, part, back) for part in outs)
    return _complex(b, first, second)


def _fit(b: Any, x: Value, length: int) -> Value:
    """The last axis cut or filled with zeros."""
    last = x.rank - 1
    if x.shape[last] >= length:
        return cut(b, x, last, 0, length)
    high = tuple(length - x.shape[last] if i == last else 0 for i in range(x.rank))
    return b.pad(x, low=(0,) * x.rank, high=high)


@onnx_op("STFT")
def stft(b: Any, node: Node) -> Value:
    """Transforms of overlapping frames: [batch, signal, 1 or 2] to [batch, frames, bins, 2]."""
    x, window = node.x(0), node.optional(2)
    node.need_float(x)
    step = node.known_int(1, "frame_step")
    if node.has_input(3):
        length = node.known_int(3, "frame_length")
    elif window is not None:
        length = window.shape[0]
    else:
        raise ModelError("neither window nor frame_length is given", fix=_DAMAGED)
    if x.rank == 2:
        x = b.reshape(x, (*x.shape, 1))
    if x.rank != 3 or step < 1 or not 1 <= length <= x.shape[1]:
        raise ModelError(f"frames of {length} every {step} of {x.spec}", fix=_DAMAGED)
    onesided = bool(node.attr("onesided", 1))
    frames = (x.shape[1] - length) // step + 1
    index = np.arange(frames)[:, None] * step + np.arange(length)
    real, imaginary = _parts(b, x)

    def framed(part: Value | None) -> Value | None:
        if part is None:
            return None
        taken = b.take(part, b.constant(index), axis=1)
        return taken if window is None else b.mul(taken, window)

    kept = length // 2 + 1 if onesided else length
    first = framed(real)
    assert first is not None
    return _complex(b, *_transform(b, first, framed(imaginary), length, kept))
