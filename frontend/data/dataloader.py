"""`DataLoader`: batches of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mgec.core.tensor import Tensor
from mgec.data.dataset import Dataset
from mgec.data.sampler import Sampler, SequentialSampler
from mgec.errors import ArgumentError

__all__ = ["Collator", "DataLoader"]


class Collator:
    """Makes one batch of a list of samples: arrays and numbers are stacked along axis 0."""

    def apply(self, samples: list[Any]) -> Any:
        """The batch, with the structure of a sample."""
        first = samples[0]
        if isinstance(first, tuple | list):
            columns = zip(*samples, strict=True)
            return type(first)(self.apply(list(column)) for column in columns)
        if isinstance(first, dict):
            return {key: self.apply([sample[key] for sample in samples]) for key in first}
        if isinstance(first, Tensor):
            return np.stack([sample.numpy() for sample in samples])
        return np.stack([np.asarray(sample) for sample in samples])


class DataLoader:
    """Iterates over a dataset in batches of NumPy arrays, in the calling process.

    Args:
        dataset: what to read.
        sampler: which samples make a batch; one sample each, in order, by default.
        transform: a function of one sample.
        collator: makes a batch of samples.

    Example:
        >>> import numpy as np
        >>> from mgec.data import ArrayDataset, DataLoader, SequentialSampler
        >>> dataset = ArrayDataset(np.zeros((10, 4)), np.arange(10))
        >>> loader = DataLoader(dataset, SequentialSampler(dataset, batch_size=4))
        >>> [(x.shape, y.tolist()) for x, y in loader]
        [((4, 4), [0, 1, 2, 3]), ((4, 4), [4, 5, 6, 7]), ((2, 4), [8, 9])]
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler | None = None,
        transform: Callable[[Any], Any] | None = None,
        collator: Collator | None = None,
        num_workers: int = 0,
    ) -> None:
        if num_workers:
            raise ArgumentError(
                f"DataLoader: num_workers is {num_workers}, but there are no workers yet",
                fix="leave it at 0",
            )
        self.dataset = dataset
        self.sampler = SequentialSampler(dataset) if sampler is None else sampler
        self.transform = transform
        self.collator = Collator() if collator is None else collator

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        for indices in self.sampler:
            samples = [self.dataset[i] for i in indices]
            if self.transform is not None:
                samples = [self.transform(sample) for sample in samples]
            yield self.collator.apply(samples)
