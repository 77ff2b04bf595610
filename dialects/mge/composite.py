"""What the decompositions of composite ops share."""

from __future__ import annotations

from typing import Any

from mgec.dialects.mge.reduce import accumulator


def widen(b: Any, value: Any) -> Any:
    """`value` in the dtype a composite computes in; None stays None.

    A composite of 16-bit floats rounds once, at its end (`b.cast` back), not once per step.
    """
    return None if value is None else b.cast(value, accumulator(b.spec(value).dtype))
