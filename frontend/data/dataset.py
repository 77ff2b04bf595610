"""Datasets: something with a length whose items are samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from mgec.errors import ArgumentError, ShapeError

__all__ = ["ArrayDataset", "Dataset"]


class Dataset(ABC):
    """Base of the datasets."""

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """One sample."""

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""


class ArrayDataset(Dataset):
    """Samples are the rows of arrays.

    Args:
        *arrays: arrays of one length.

    Raises:
        ShapeError: if the lengths differ.

    Example:
        >>> import numpy as np
        >>> from mgec.data import ArrayDataset
        >>> dataset = ArrayDataset(np.zeros((10, 4)), np.arange(10))
        >>> len(dataset), dataset[3][1]
        (10, np.int64(3))
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise ArgumentError("ArrayDataset: there are no arrays", fix="pass one or more")
        self.arrays = tuple(np.asarray(a) for a in arrays)
        lengths = [len(a) if a.ndim else 0 for a in self.arrays]
        if len(set(lengths)) > 1:
            raise ShapeError(
                f"ArrayDataset: arrays have lengths {lengths}", fix="make the lengths equal"
            )

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(a[index] for a in self.arrays)

    def __len__(self) -> int:
        return len(self.arrays[0])
