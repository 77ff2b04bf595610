"""Random tensors: ``mge.random.seed(0)``, ``mge.random.normal(size=(2, 3))``.

The generator is counter-based (Philox): its state is a small tensor that each draw advances,
so traced functions draw new numbers at every call, and a seed gives the same numbers on every
machine, eager or traced.
"""

from mgec.random.rng import (
    RNG,
    default_rng,
    exponential,
    host_generator,
    normal,
    permutation,
    seed,
    shuffle,
    uniform,
)

__all__ = [
    "RNG",
    "default_rng",
    "exponential",
    "host_generator",
    "normal",
    "permutation",
    "seed",
    "shuffle",
    "uniform",
]
