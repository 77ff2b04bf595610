"""What the layers' constructors share."""

from __future__ import annotations

from typing import Any

import numpy as np

from mgec.errors import ArgumentError
from mgec.functional._arguments import as_index

__all__ = ["empty", "positive"]


def empty(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The value of a parameter before `reset_parameters`."""
    return np.zeros(shape, np.float32)


def positive(name: str, argument: str, value: Any) -> int:
    """A size of a layer.

    Raises:
        ArgumentError: unless it is an integer above 0.
    """
    found = as_index(name, argument, value)
    if found < 1:
        raise ArgumentError(
            f"{name}: {argument} is {found} but must be at least 1", fix=f"use {argument} >= 1"
        )
    return found
