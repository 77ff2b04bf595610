"""Modules that hold other modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, AxisError
from mgec.module.module import Module

__all__ = ["Sequential"]


class Sequential(Module):
    """Modules one after another.

    Args:
        *args: the modules, or one OrderedDict of names and modules.

    Example:
        >>> import mgec as mge
        >>> import mgec.module as M
        >>> net = M.Sequential(M.Linear(4, 8), M.ReLU(), M.Linear(8, 2))
        >>> net(mge.functional.ones((3, 4))).shape, len(net)
        ((3, 2), 3)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        named = args[0] if len(args) == 1 and isinstance(args[0], dict) else None
        layers = named if named is not None else {str(i): m for i, m in enumerate(args)}
        self.layer_keys: list[str] = []
        for key, module in OrderedDict(layers).items():
            if not isinstance(module, Module):
                raise ArgumentError(
                    f"Sequential: {key} is a {type(module).__name__}, not a module",
                    fix="pass modules, e.g. M.ReLU() instead of F.relu",
                )
            self.layer_keys.append(key)
            setattr(self, key, module)

    @property
    def layer_values(self) -> list[Module]:
        """The modules in order."""
        return [getattr(self, key) for key in self.layer_keys]

    def __len__(self) -> int:
        return len(self.layer_keys)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layer_values)

    def _key(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise AxisError(
                f"Sequential: index {index} is out of range for {len(self)} modules",
                fix=f"use an index from {-len(self)} to {len(self) - 1}",
            )
        return self.layer_keys[index]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            keys = self.layer_keys[index]
            return Sequential(OrderedDict((key, getattr(self, key)) for key in keys))
        return getattr(self, self._key(index))

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._key(index), module)

    def forward(self, inp: Tensor) -> Tensor:
        for module in self.layer_values:
            inp = module(inp)
        return inp
