"""The constants of a program: one section of memory that every kernel reads from."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from xdsl.ir import Operation, SSAValue

from mgec.compiler.graph_module import GraphModule
from mgec.compiler.kernels.packing import Packing
from mgec.dialects.mge.constant import ConstantOp, WeightOp
from mgec.dialects.mge.spec import from_type

ALIGNMENT = 64
"""Bytes to which every constant is aligned."""

Array: TypeAlias = "np.ndarray[Any, Any]"


def is_constant(value: SSAValue) -> bool:
    """Whether a value, aliases looked through already, is known when the graph is compiled."""
    return isinstance(value.owner, ConstantOp | WeightOp)


def constant_array(graph: GraphModule, made: Operation) -> Array:
    """The array of a constant or weight op."""
    if isinstance(made, ConstantOp):
        return made.attrs["value"]  # type: ignore[return-value]
    assert isinstance(made, WeightOp), f"{made.name} makes no constant"
    return graph.weights[str(made.attrs["key"])]


class ConstantSection:
    """Gives each constant, in each order that kernels want it in, a place.

    Attributes:
        size: bytes so far.
        keys: where weights lie that are there as they are, by their key.
    """

    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        self._offsets: dict[tuple[SSAValue, Packing | None], int] = {}
        self._nbytes: dict[tuple[SSAValue, Packing | None], int] = {}
        self._arrays: list[tuple[int, Array]] = []
        self.keys: dict[str, int] = {}
        self.size = 0

    def place(self, value: SSAValue, root: SSAValue, packing: Packing | None) -> tuple[int, int]:
        """Where a constant lies, and how many bytes it has.

        Args:
            value: as a kernel sees it: maybe a reshape of `root`.
            root: what its op makes.
            packing: the order the kernel wants it in; None as it is.
        """
        made = root.owner
        assert isinstance(made, Operation)
        array = constant_array(self._graph, made)
        key = (value if packing else root, packing)
        if packing is not None:
            array = array.reshape(from_type(value.type).shape)
        if key not in self._offsets:
            if packing is not None:
                array = packing.apply(array)
            elif isinstance(made, WeightOp):
                self.keys[str(made.attrs["key"])] = self.size
            self._offsets[key] = self.size
            self._arrays.append((self.size, array))
            self._nbytes[key] = array.nbytes
            self.size = -(-(self.size + max(1, array.nbytes)) // ALIGNMENT) * ALIGNMENT
        return self._offsets[key], self._nbytes[key]

    def data(self) -> memoryview:
        """The section, aligned as its constants are; zero between them."""
        base = np.zeros(self.size + ALIGNMENT, np.uint8)
        start = -base.ctypes.data % ALIGNMENT
        section = base[start : start + self.size]
        for offset, array in self._arrays:
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            section[offset : offset + len(raw)] = raw
        self._arrays.clear()
        return section.data.toreadonly()
