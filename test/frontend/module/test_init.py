from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest

import mgec as mge
from mgec.module import init


@pytest.fixture
def weight() -> mge.Tensor:
    mge.random.seed(0)
    return mge.tensor(np.zeros((300, 200), "float32"))


def test_constants(weight: mge.Tensor) -> None:
    init.ones_(weight)
    assert (weight.numpy() == 1).all()
    init.fill_(weight, 2.5)
    assert (weight.numpy() == 2.5).all()
    init.zeros_(weight)
    assert (weight.numpy() == 0).all() and weight.dtype is np.float32


CASES: list[tuple[Any, float, float]] = [
    (lambda w: init.normal_(w, 1.0, 2.0), 1.0, 2.0),
    (lambda w: init.uniform_(w, 1.0, 3.0), 2.0, 2 / sqrt(12)),
    (init.xavier_normal_, 0.0, sqrt(2 / 500)),
    (init.xavier_uniform_, 0.0, sqrt(2 / 500)),
    (init.msra_normal_, 0.0, sqrt(2 / 200)),
    (init.msra_uniform_, 0.0, sqrt(2 / 200)),
    (lambda w: init.msra_normal_(w, mode="fan_out", nonlinearity="linear"), 0.0, sqrt(1 / 300)),
]


@pytest.mark.parametrize("case", CASES)
def test_moments(case: Any, weight: mge.Tensor) -> None:
    function, mean, std = case
    function(weight)
    values = weight.numpy()
    assert abs(values.mean() - mean) < 0.03 * std and abs(values.std() - std) < 0.02 * std


def test_fans() -> None:
    shape = mge.tensor(np.zeros((8, 4, 3, 3), "float32"))
    assert init.calculate_fan_in_and_fan_out(shape) == (36, 72)
    assert init.calculate_correct_fan(shape, "fan_avg") == 54
    grouped = mge.tensor(np.zeros((2, 8, 4, 3, 3), "float32"))
    assert init.calculate_fan_in_and_fan_out(grouped) == (36, 72)
    assert init.calculate_gain("relu") == sqrt(2)
    assert init.calculate_gain("leaky_relu", 1.0) == 1


def test_errors() -> None:
    with pytest.raises(mge.ArgumentError, match="calculate_gain: nonlinearity 'x' is not known"):
        init.calculate_gain("x")
    with pytest.raises(mge.ShapeError, match="a tensor of rank 1 has no fans"):
        init.calculate_fan_in_and_fan_out(mge.tensor([1.0]))
    with pytest.raises(mge.ArgumentError, match="calculate_correct_fan: mode 'x' does not exist"):
        init.calculate_correct_fan(mge.tensor([[1.0]]), "x")
