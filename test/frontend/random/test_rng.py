from __future__ import annotations

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
from mgec.random.rng import _words


def test_a_seed_gives_the_same_numbers() -> None:
    draws = []
    for _ in range(2):
        mge.random.seed(42)
        draws.append([mge.random.uniform(size=(5,)).numpy(), mge.random.normal(size=3).numpy()])
        draws[-1].append(mge.module.Linear(3, 2).weight.numpy())
        draws[-1].append(mge.random.permutation(10).numpy())
    for first, second in zip(*draws, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(mge.random.uniform(size=(5,)).numpy(), draws[0][0])


def test_distributions() -> None:
    rng = mge.random.RNG(seed=0)
    uniform = rng.uniform(2, 4, size=(200, 100)).numpy()
    assert uniform.min() >= 2 and uniform.max() < 4 and abs(uniform.mean() - 3) < 0.02
    normal = rng.normal(1, 2, size=(200, 100)).numpy()
    assert abs(normal.mean() - 1) < 0.05 and abs(normal.std() - 2) < 0.05
    assert abs(rng.exponential(3.0, size=(200, 100)).numpy().mean() - 3) < 0.1
    means = mge.tensor([0.0, 100.0])
    assert rng.normal(means, 1.0).shape == (2,)
    assert rng.normal(means, 1.0, size=(500, 2)).numpy().mean(0)[1] > 99


def test_permutation_and_shuffle() -> None:
    rng = mge.random.RNG(seed=0)
    order = rng.permutation(50)
    assert order.dtype is np.int32 and sorted(order.tolist()) == list(range(50))
    x = F.arange(20)
    rng.shuffle(x)
    assert sorted(x.tolist()) == list(range(20)) and x.tolist() != list(range(20))
    assert rng.permutation(0).shape == (0,)


def test_the_counter_carries() -> None:
    rng = mge.random.RNG(seed=3)
    rng.uniform(size=(1,))
    (state,) = rng._states.values()
    state._reset(_words(3, 0, 2**32 - 2, 7))
    rng.uniform(size=(12,))  # three blocks
    assert state.numpy().tolist() == [3, 0, 1, 8]


def test_traced_draws_are_the_eager_ones() -> None:
    def draw(x: mge.Tensor) -> mge.Tensor:
        return F.dropout(x, 0.5) + mge.random.normal(size=(6,))

    results = []
    for function in (draw, mge.jit.trace(draw, symbolic=True)):
        mge.random.seed(5)
        results.append([function(F.ones(6)).numpy() for _ in range(3)])
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[1][1], results[1][2])


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_bad_seed(seed: object) -> None:
    with pytest.raises(mge.ArgumentError, match="is not an integer from 0 below 2"):
        mge.random.seed(seed)
