"""Generators of random tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from mgec.core import dispatch
from mgec.core.promote import operands
from mgec.core.tensor import Tensor, check_dtype, intern_spec
from mgec.device import Device, default_device
from mgec.device import device as find_device
from mgec.errors import ArgumentError
from mgec.functional._arguments import as_index, as_shape, is_int
from mgec.functional.elemwise import log

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

_UINT32 = np.dtype(np.uint32)
_WORD = 1 << 32


class RNG:
    """A generator with its own seed.

    Args:
        seed: any integer from 0 below 2**64; from the operating system by default.
        device: where the tensors are made; the default device by default.

    Example:
        >>> import mgec as mge
        >>> a, b = mge.random.RNG(seed=1), mge.random.RNG(seed=1)
        >>> bool((a.uniform(size=(4,)) == b.uniform(size=(4,))).numpy().all())
        True
    """

    def __init__(self, seed: int | None = None, device: str | Device | None = None) -> None:
        self._device = device
        self._states: dict[Device, Tensor] = {}
        self.seed(int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed)

    def seed(self, seed: int) -> None:
        """Starts over from a seed.

        Raises:
            ArgumentError: unless 0 <= seed < 2**64.
        """
        if not is_int(seed) or not 0 <= seed < _WORD**2:
            raise ArgumentError(
                f"seed: {seed!r} is not an integer from 0 below 2**64", fix="use e.g. seed(0)"
            )
        self._seed = int(seed)
        self._host: np.random.Generator | None = None
        for device, state in self._states.items():
            # The same tensor with another value: traced functions hold on to it.
            state._reset(self._first_state(device))

    @property
    def host_generator(self) -> np.random.Generator:
        """NumPy's generator of the same seed, for first values of parameters."""
        if self._host is None:
            self._host = np.random.Generator(np.random.Philox(self._seed))
        return self._host

    # -- state ------------------------------------------------------------------------------

    def _first_state(self, device: Device) -> Tensor:
        made = _words(self._seed % _WORD, self._seed // _WORD, 0, 0)
        made._device = device
        return made

    def _state(self, device: Device) -> Tensor:
        state = self._states.get(device)
        if state is None:
            state = self._states[device] = self._first_state(device)
            state.name = "rng_state"
        return state

    def _where(self, *tensors: Any) -> Device:
        for x in tensors:
            if isinstance(x, Tensor) and x._device is not None:
                return x._device
        if self._device is None:
            return default_device()
        found = find_device(self._device)
        found.require()
        return found

    def _advance(self, state: Tensor, count: int) -> None:
        """Moves the state's 64-bit counter on by `count` blocks."""
        step = _words(0, 0, count, 0)
        low = dispatch.call("add", state, step)
        # Where a word became smaller, it wrapped: carry from word 2 into word 3.
        wrapped = dispatch.call("cast", dispatch.call("less", low, step), dtype=_UINT32)
        carry = dispatch.call("slice", wrapped, starts=(2,), stops=(3,), steps=(1,))
        carry = dispatch.call("pad", carry, low=(3,), high=(0,), value=0.0, mode="constant")
        state._reset(dispatch.call("add", low, carry))

    def _draw(self, op: str, shape: tuple[int, ...], device: Device, **attrs: Any) -> Tensor:
        from mgec.dialects.mge.random import blocks

        state = self._state(device)
        out = dispatch.call(op, state, shape=shape, **attrs)
        self._advance(state, blocks(shape, normal=op == "random_normal"))
        return out

    # -- distributions ----------------------------------------------------------------------

    def uniform(self, low: Any = 0, high: Any = 1, size: Any = None) -> Tensor:
        """Numbers uniform on [low, high).

        Args:
            low: number or tensor that broadcasts to `size`.
            high: number or tensor that broadcasts to `size`.
            size: the shape of the result; that of the bounds by default.

        Returns:
            A float32 tensor.
        """
        device = self._where(low, high)
        drawn = self._draw("random_uniform", _size("uniform", size, low, high), device)
        return drawn * (high - low) + low

    def normal(self, mean: Any = 0, std: Any = 1, size: Any = None) -> Tensor:
        """Numbers from the normal distribution.

        Args:
            mean: number or tensor that broadcasts to `size`.
            std: number or tensor that broadcasts to `size`.
            size: the shape of the result; that of `mean` and `std` by default.

        Returns:
            A float32 tensor.
        """
        device = self._where(mean, std)
        drawn = self._draw("random_normal", _size("normal", size, mean, std), device)
        return drawn * std + mean

    def exponential(self, scale: Any = 1, size: Any = None) -> Tensor:
        """Numbers from the exponential distribution with mean `scale`.

        Returns:
            A float32 tensor.
        """
        device = self._where(scale)
        drawn = self._draw("random_uniform", _size("exponential", size, scale), device)
        return -log(1.0 - drawn) * scale

    def permutation(self, n: Any, *, dtype: Any = "int32") -> Tensor:
        """A random order of 0 ... n - 1, or of the rows of a tensor.

        Args:
            n: how many, or a tensor whose rows (axis 0) are shuffled.
            dtype: of the result, if `n` is a number.
        """
        if isinstance(n, Tensor) and n.ndim:
            return n[self._order(n.shape[0], self._where(n))]
        count = as_index("permutation", "n", n)
        if count < 0:
            raise ArgumentError(f"permutation: n is {count}, below 0", fix="use n >= 0")
        return self._order(count, self._where()).astype(check_dtype(dtype))

    def _order(self, count: int, device: Device) -> Tensor:
        keys = self._draw("random_bits", (count,), device)
        return dispatch.call("sort", keys, axis=0, descending=False)[1]

    def shuffle(self, inp: Tensor) -> None:
        """Puts the rows (axis 0) of a tensor into random order, in place."""
        inp._reset(self.permutation(inp))

    def dropout(self, x: Tensor, drop_prob: float) -> Tensor:
        """See `mgec.functional.dropout`."""
        from mgec.dialects.mge.random import blocks

        state = self._state(self._where(x))
        out, _mask = dispatch.call("dropout", x, state, drop_prob=drop_prob)
        self._advance(state, blocks(x.shape))
        return out


def _words(*values: int) -> Tensor:
    """A uint32 tensor, which users cannot make; on no device in particular."""
    from mgec.runtime.memory import Storage

    array = np.array(values, _UINT32)
    storage = Storage(array.nbytes)
    storage.as_array(array.dtype, array.shape)[...] = array
    return Tensor._make(storage, intern_spec(array.shape, _UINT32), None)


def _size(name: str, size: Any, *params: Any) -> tuple[int, ...]:
    if size is not None:
        return as_shape(name, size, "size")
    return np.broadcast_shapes(*(x.shape for x in operands(name, params)))


_default: list[RNG] = []


def default_rng() -> RNG:
    """The generator behind the functions of this module, `dropout` and parameters."""
    if not _default:
        _default.append(RNG())
    return _default[0]


def host_generator() -> np.random.Generator:
    """NumPy's generator that first values of parameters come from; `seed` restarts it."""
    return default_rng().host_generator


def seed(seed: int) -> None:
    """Makes all random numbers from here on the same in every run.

    Args:
        seed: an integer from 0 below 2**64.

    Example:
        >>> import mgec as mge
        >>> mge.random.seed(0)
        >>> a = mge.random.uniform(size=(3,))
        >>> mge.random.seed(0)
        >>> bool((a == mge.random.uniform(size=(3,))).numpy().all())
        True
    """
    default_rng().seed(seed)


def uniform(low: Any = 0, high: Any = 1, size: Any = None) -> Tensor:
    """Numbers uniform on [low, high); see `RNG.uniform`."""
    return default_rng().uniform(low, high, size)


def normal(mean: Any = 0, std: Any = 1, size: Any = None) -> Tensor:
    """Numbers from the normal distribution; see `RNG.normal`."""
    return default_rng().normal(mean, std, size)


def exponential(scale: Any = 1, size: Any = None) -> Tensor:
    """Numbers from the exponential distribution; see `RNG.exponential`."""
    return default_rng().exponential(scale, size)


def permutation(n: Any, *, dtype: Any = "int32") -> Tensor:
    """A random order of numbers or rows; see `RNG.permutation`."""
    return default_rng().permutation(n, dtype=dtype)


def shuffle(inp: Tensor) -> None:
    """Puts rows into random order, in place; see `RNG.shuffle`."""
    default_rng().shuffle(inp)
