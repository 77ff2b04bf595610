"""What the decompositions of composite ops share."""

from __future__ import annotations

from typing import Any

from mgec.dialects.mge.spec import BFLOAT16, FLOAT16, FLOAT32, DType


def wide_dtype(dtype: DType) -> DType:
    """The dtype a composite computes in: float32 for the 16-bit floats, else `dtype`."""
    return FLOAT32 if dtype in (FLOAT16, BFLOAT16) else dtype


def widen(b: Any, value: Any) -> Any:
    """`value` in the dtype a composite computes in; None stays None.

    A composite of 16-bit floats rounds once, at its end (`b.cast` back), not once per step.
    """
    return None if value is None else b.cast(value, wide_dtype(b.spec(value).dtype))
