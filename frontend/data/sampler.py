"""Samplers decide which samples make a batch; they own the batch size, as in MegEngine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence, Sized

import numpy as np

from mgec.errors import ArgumentError

__all__ = ["RandomSampler", "Sampler", "SequentialSampler"]


class Sampler(ABC):
    """Base of the samplers: iterating gives lists of indices.

    Args:
        dataset: what is sampled.
        batch_size: samples in a batch.
        drop_last: leave out a last batch that is smaller.
        num_samples: how many samples to take; all by default.
        seed: of the random numbers; from the operating system by default.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int = 1,
        drop_last: bool = False,
        num_samples: int | None = None,
        seed: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ArgumentError(
                f"{type(self).__name__}: batch_size is {batch_size} but must be at least 1",
                fix="use batch_size >= 1",
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.num_samples = len(dataset) if num_samples is None else num_samples
        self.rng = np.random.default_rng(seed)

    @abstractmethod
    def sample(self) -> Sequence[int]:
        """The indices of one epoch, in order."""

    def __len__(self) -> int:
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        order = [int(i) for i in self.sample()]
        for i in range(len(self)):
            yield order[i * self.batch_size : (i + 1) * self.batch_size]


class SequentialSampler(Sampler):
    """Samples in order.

    Example:
        >>> from mgec.data import SequentialSampler
        >>> list(SequentialSampler(range(5), batch_size=2))
        [[0, 1], [2, 3], [4]]
    """

    def sample(self) -> Sequence[int]:
        return range(self.num_samples)


class RandomSampler(Sampler):
    """Samples in random order, another one in each epoch; each sample once."""

    def sample(self) -> Sequence[int]:
        return self.rng.permutation(len(self.dataset))[: self.num_samples].tolist()
