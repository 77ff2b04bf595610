from __future__ import annotations

import numpy as np
import pytest

import mgec as mge
from mgec.data import ArrayDataset, DataLoader, RandomSampler, SequentialSampler

X, Y = np.arange(20.0).reshape(10, 2), np.arange(10)


def test_batches_in_order() -> None:
    dataset = ArrayDataset(X, Y)
    loader = DataLoader(dataset, SequentialSampler(dataset, batch_size=4))
    batches = list(loader)
    assert len(loader) == 3 and [len(y) for _, y in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), X)
    short = DataLoader(dataset, SequentialSampler(dataset, batch_size=4, drop_last=True))
    assert len(short) == 2 == len(list(short))
    assert len(DataLoader(dataset)) == 10


def test_random_batches() -> None:
    dataset = ArrayDataset(Y)
    loader = DataLoader(dataset, RandomSampler(dataset, batch_size=5, seed=0))
    first, second = ([i for (y,) in loader for i in y.tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    again = DataLoader(dataset, RandomSampler(dataset, batch_size=5, seed=0))
    assert [i for (y,) in again for i in y.tolist()] == first
    assert len(list(RandomSampler(dataset, num_samples=4))) == 4


def test_transform_and_structure() -> None:
    dataset = ArrayDataset(X, Y)
    loader = DataLoader(
        dataset,
        SequentialSampler(dataset, batch_size=2),
        transform=lambda sample: {"x": mge.tensor(sample[0]), "y": [int(sample[1])]},
    )
    batch = next(iter(loader))
    assert batch["x"].shape == (2, 2) and batch["y"][0].tolist() == [0, 1]


def test_errors() -> None:
    with pytest.raises(mge.ShapeError, match="ArrayDataset: arrays have lengths"):
        ArrayDataset(X, Y[:3])
    with pytest.raises(mge.ArgumentError, match="ArrayDataset: there are no arrays"):
        ArrayDataset()
    with pytest.raises(mge.ArgumentError, match="RandomSampler: batch_size is 0"):
        RandomSampler(Y, batch_size=0)
    with pytest.raises(mge.ArgumentError, match="DataLoader: num_workers is 2"):
        DataLoader(ArrayDataset(X), num_workers=2)
