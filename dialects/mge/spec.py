"""Shapes and element types of the mge dialect, as plain Python values.

`TensorSpec` is what type inference computes with. It is deliberately not an xDSL
object: eager execution infers shapes on every new call signature, and building an
xDSL type costs more than the whole inference. `to_type` and `from_type` translate at
the edge of the IR, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, TypeAlias, cast

import ml_dtypes
import numpy as np
from xdsl.dialects import builtin
from xdsl.ir import Attribute

from mgec.errors import DTypeError

DYNAMIC = builtin.DYNAMIC_INDEX
"""A dimension known only at run time; the value MLIR and xDSL use for `?`."""

DType: TypeAlias = "np.dtype[np.generic]"


def _dtype(scalar: type) -> DType:
    return cast("DType", np.dtype(scalar))


BOOL = _dtype(np.bool_)
INT8, INT16, INT32, INT64 = (_dtype(t) for t in (np.int8, np.int16, np.int32, np.int64))
UINT8, UINT16, UINT32, UINT64 = (_dtype(t) for t in (np.uint8, np.uint16, np.uint32, np.uint64))
FLOAT16, FLOAT32, FLOAT64 = (_dtype(t) for t in (np.float16, np.float32, np.float64))
BFLOAT16 = _dtype(ml_dtypes.bfloat16)

FLOATS = (FLOAT16, BFLOAT16, FLOAT32, FLOAT64)
SIGNED = (INT8, INT16, INT32, INT64)
UNSIGNED = (UINT8, UINT16, UINT32, UINT64)
INTEGERS = SIGNED + UNSIGNED
DTYPES = (BOOL, *INTEGERS, *FLOATS)

_SIGNLESS, _UNSIGNED = builtin.Signedness.SIGNLESS, builtin.Signedness.UNSIGNED
_ELEMENT: dict[DType, Attribute] = {
    BOOL: builtin.IntegerType(1),
    **{d: builtin.IntegerType(d.itemsize * 8, _SIGNLESS) for d in SIGNED},
    **{d: builtin.IntegerType(d.itemsize * 8, _UNSIGNED) for d in UNSIGNED},
    FLOAT16: builtin.f16,
    BFLOAT16: builtin.bf16,
    FLOAT32: builtin.f32,
    FLOAT64: builtin.f64,
}
_DTYPE_OF: dict[Attribute, DType] = {element: dtype for dtype, element in _ELEMENT.items()}


class TensorSpec(NamedTuple):
    """Shape and element type of one tensor.

    Attributes:
        shape: one entry per dimension; `DYNAMIC` where only run time knows it.
        dtype: the NumPy dtype of an element (bfloat16 from `ml_dtypes`).
    """

    shape: tuple[int, ...]
    dtype: DType

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements; only for a static shape."""
        return prod(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every dimension is known."""
        return DYNAMIC not in self.shape

    @property
    def nbytes(self) -> int:
        """Bytes of the dense row-major buffer; only for a static shape."""
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        dims = ", ".join("?" if d == DYNAMIC else str(d) for d in self.shape)
        return f"{self.dtype.name}[{dims}]"


def is_float(dtype: DType) -> bool:
    """Whether `dtype` is one of the floating point element types (NumPy calls bfloat16 'V')."""
    return dtype in _FLOAT_SET


def is_integer(dtype: DType) -> bool:
    """Whether `dtype` is a signed or unsigned integer; bool is not."""
    return dtype.kind in "iu"


_FLOAT_SET = frozenset(FLOATS)


def element_type(dtype: DType) -> Attribute:
    """The MLIR element type of `dtype` (unsigned integers are `ui8`... in this dialect)."""
    if (element := _ELEMENT.get(dtype)) is None:
        names = ", ".join(d.name for d in DTYPES)
        raise DTypeError(f"dtype {dtype} is not supported", fix=f"use one of {names}")
    return element


def dtype_of(element: Attribute) -> DType:
    """The NumPy dtype of an MLIR element type."""
    if (dtype := _DTYPE_OF.get(element)) is None:
        names = ", ".join(str(e) for e in _DTYPE_OF)
        raise DTypeError(f"element type {element} is not an mge element type", fix=f"use {names}")
    return dtype


def to_type(spec: TensorSpec) -> builtin.TensorType[Attribute]:
    """The IR type of `spec`."""
    return builtin.TensorType(element_type(spec.dtype), spec.shape)


def from_type(type_: Attribute) -> TensorSpec:
    """The spec of a ranked tensor type.

    Raises:
        DTypeError: if `type_` is not a ranked tensor of a supported element type.
    """
    if not isinstance(type_, builtin.TensorType):
        raise DTypeError(f"expected a ranked tensor, got {type_}", fix="use tensor<...>")
    tensor = cast("builtin.TensorType[Attribute]", type_)
    return TensorSpec(tensor.get_shape(), dtype_of(tensor.get_element_type()))


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a dense row-major tensor of static `shape`."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
