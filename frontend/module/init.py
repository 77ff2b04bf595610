"""First values of parameters. Each function sets the tensor it is given.

Random values come from `mgec.random`, so ``mge.random.seed(0)`` makes a network that is the
same in every run.
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np

from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, ShapeError

__all__ = [
    "calculate_correct_fan",
    "calculate_fan_in_and_fan_out",
    "calculate_gain",
    "fill_",
    "msra_normal_",
    "msra_uniform_",
    "normal_",
    "ones_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


def fill_(tensor: Tensor, val: float | int) -> None:
    """Sets every element to `val`."""
    tensor.set_value(np.full(tensor.shape, val, tensor.dtype))


def zeros_(tensor: Tensor) -> None:
    """Sets every element to 0."""
    fill_(tensor, 0)


def ones_(tensor: Tensor) -> None:
    """Sets every element to 1."""
    fill_(tensor, 1)


def _generator() -> np.random.Generator:
    from mgec.random import host_generator

    return host_generator()


def _set(tensor: Tensor, values: np.ndarray[Any, Any]) -> None:
    tensor.set_value(values.astype(tensor.dtype))


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> None:
    """Draws from the uniform distribution on [a, b)."""
    _set(tensor, _generator().random(tensor.shape, np.float32) * (b - a) + a)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> None:
    """Draws from the normal distribution."""
    _set(tensor, _generator().standard_normal(tensor.shape, np.float32) * std + mean)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity shrinks a signal, inverted.

    Args:
        nonlinearity: "linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", ...
        param: the negative slope of "leaky_relu"; 0.01 by default.

    Raises:
        ArgumentError: for a name that is not known.
    """
    if nonlinearity == "leaky_relu":
        return sqrt(2.0 / (1 + (0.01 if param is None else float(param)) ** 2))
    gains = {"tanh": 5.0 / 3, "relu": sqrt(2.0), "sigmoid": 1.0, "linear": 1.0}
    layers = [f"conv{transposed}{d}d" for transposed in ("", "_transpose") for d in (1, 2, 3)]
    gains |= dict.fromkeys(layers, 1.0)
    if nonlinearity not in gains:
        raise ArgumentError(
            f"calculate_gain: nonlinearity {nonlinearity!r} is not known",
            fix=f"use one of {', '.join(sorted([*gains, 'leaky_relu']))}",
        )
    return gains[nonlinearity]


def calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[float, float]:
    """How many numbers go into one output, and come out of one input, of a layer.

    Args:
        tensor: its weight: (out, in), (O, I, kH, kW) or (G, O/G, I/G, kH, kW).

    Raises:
        ShapeError: for a vector.
    """
    shape = tensor.shape
    if len(shape) < 2:
        raise ShapeError(
            f"calculate_fan_in_and_fan_out: a tensor of rank {len(shape)} has no fans",
            values=[("tensor", tensor)],
            fix="use weights of rank 2 or more",
        )
    if len(shape) == 5:  # groups
        shape = shape[1:]
    field = prod(shape[2:])
    return shape[1] * field, shape[0] * field


def calculate_correct_fan(tensor: Tensor, mode: str) -> float:
    """One of the fans, or their mean.

    Args:
        tensor: the weight of a layer.
        mode: "fan_in", "fan_out" or "fan_avg".

    Raises:
        ArgumentError: for another mode.
    """
    fan_in, fan_out = calculate_fan_in_and_fan_out(tensor)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode.lower() not in fans:
        raise ArgumentError(
            f"calculate_correct_fan: mode {mode!r} does not exist",
            fix=f"use one of {', '.join(fans)}",
        )
    return fans[mode.lower()]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> None:
    """Uniform values with variance gain**2 * 2 / (fan_in + fan_out).

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010, equation 16.
    """
    bound = sqrt(3.0) * _xavier_std(tensor, gain)
    uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> None:
    """Normal values with the variance of `xavier_uniform_`."""
    normal_(tensor, 0.0, _xavier_std(tensor, gain))


def _xavier_std(tensor: Tensor, gain: float) -> float:
    fan_in, fan_out = calculate_fan_in_and_fan_out(tensor)
    return gain * sqrt(2.0 / max(fan_in + fan_out, 1))


def msra_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> None:
    """Uniform values with variance gain**2 / fan.

    Args:
        tensor: the weight of a layer.
        a: the negative slope, if the layer is followed by a leaky ReLU.
        mode: "fan_in" keeps the size of activations, "fan_out" that of gradients.
        nonlinearity: what follows the layer; see `calculate_gain`.

    Source: He et al., "Delving deep into rectifiers", 2015, equation 14.
    """
    bound = sqrt(3.0) * _msra_std(tensor, a, mode, nonlinearity)
    uniform_(tensor, -bound, bound)


def msra_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> None:
    """Normal values with the variance of `msra_uniform_`."""
    normal_(tensor, 0.0, _msra_std(tensor, a, mode, nonlinearity))


def _msra_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fan = calculate_correct_fan(tensor, mode)
    return calculate_gain(nonlinearity, a) / sqrt(max(fan, 1))
