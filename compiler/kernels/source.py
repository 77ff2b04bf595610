"""A kernel before it is code: upstream MLIR text and how to call it.

Every kernel is compiled to `void name(void *const *buffers, const int64_t *dims, int64_t
begin, int64_t end)`. The MLIR text holds `func.func @name_body` over bare pointers (static
memrefs) followed by one index per run-time size, then begin and end; the wrapper that
unpacks the tables is added by the code generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from mgec.compiler.kernels.packing import Packing
from mgec.compiler.targets import Target


@dataclass(frozen=True)
class DimRef:
    """The run-time size at `position` of the dims table."""

    position: int


@dataclass(frozen=True)
class Units:
    """How many units of parallel work a kernel has: the product of ceil(size / block).

    Attributes:
        terms: pairs (sizes, block); the sizes of a term are multiplied first.
    """

    terms: tuple[tuple[tuple[int | DimRef, ...], int], ...] = ()

    def evaluate(self, dims: Sequence[int] = ()) -> int:
        """The number of units, given the dims table."""
        total = 1
        for sizes, block in self.terms:
            size = prod(dims[s.position] if isinstance(s, DimRef) else s for s in sizes)
            total *= -(-size // block)
        return total

    def to_json(self) -> list[tuple[list[str], int]]:
        """Plain lists, for caches and artifacts; a run-time size is "d<position>"."""
        return [
            ([f"d{s.position}" if isinstance(s, DimRef) else str(s) for s in sizes], block)
            for sizes, block in self.terms
        ]

    @staticmethod
    def from_json(data: Sequence[tuple[Sequence[str], int]]) -> Units:
        """Inverse of `to_json`."""
        return Units(
            tuple(
                (tuple(DimRef(int(s[1:])) if s[0] == "d" else int(s) for s in sizes), block)
                for sizes, block in data
            )
        )


class Tiles(Protocol):
    """The numbers that a template takes: block sizes and choices of form."""

    @property
    def label(self) -> str:
        """All of them as text, which stays the same from version to version."""
        ...

    def alternatives(self, target: Target) -> Sequence[Tiles]:
        """Others near these that may be faster, for the same problem."""
        ...


def named(**values: int) -> str:
    """Numbers with their names, as labels of tiles have them; a True is its name alone.

    >>> named(mr=8, nv=2, ahead=True, by_panels=False)
    'mr=8 nv=2 ahead'
    """
    parts = [name if value is True else f"{name}={value}" for name, value in values.items()
             if value is not False]  # fmt: skip
    return " ".join(parts)


@dataclass(frozen=True)
class KernelSource:
    """A kernel as upstream MLIR.

    Attributes:
        name: symbol of the compiled function.
        text: MLIR module text that defines `func.func @<name>_body`.
        num_buffers: pointer arguments of the body, workspace and scratch included.
        num_dims: index arguments of the body, without begin and end.
        units: units of parallel work.
        scratch_bytes: per-thread scratch; if not 0, the last buffer is the scratch.
        workspace_bytes: memory that all units share; if not 0, the buffer after the outputs.
        stage: which lowering pipeline the text needs: "linalg" or "vector".
        template: name of the template that made it, for people.
        flops: floating point operations of one run, if known.
        order: for each pointer argument of the body, which entry of the pointer table it is;
            by default the entry of the same number.
        packing: pairs (input, how it must lie in memory), for constants; by entry of the table.
        then: what runs when every unit of this is done, on the same table of pointers. What
            the two hand on lies in the workspace, which is as large for both.
        tiles: the numbers that the template took, if it has a choice.
        performed_flops: what the algorithm computes, if that is not `flops`.
        touched: the entries of the table that this stage reads or writes; None for all.
        notes: why it was chosen, for people: what was considered before, and estimates.
    """

    name: str
    text: str
    num_buffers: int
    num_dims: int = 0
    units: Units = Units()
    scratch_bytes: int = 0
    stage: str = "vector"
    template: str = "linalg"
    flops: int = 0
    order: tuple[int, ...] | None = None
    workspace_bytes: int = 0
    packing: tuple[tuple[int, Packing], ...] = ()
    then: KernelSource | None = None
    tiles: Tiles | None = None
    performed_flops: int | None = None
    touched: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The template and its numbers: what tells this kernel from others for its region."""
        return self.template if self.tiles is None else f"{self.template} {self.tiles.label}"

    @property
    def stages(self) -> tuple[KernelSource, ...]:
        """This kernel and what runs after it."""
        return (self, *(self.then.stages if self.then is not None else ()))


@dataclass(frozen=True)
class CompiledKernel:
    """Machine code of one kernel and what is needed to call it; see `KernelSource`.

    The table of pointers is the inputs, the outputs, the workspace if there is one, and the
    scratch if there is any; `num_buffers` counts all of them.
    """

    name: str
    object_code: bytes
    num_buffers: int
    num_dims: int
    units: Units
    scratch_bytes: int
    template: str
    flops: int
    workspace_bytes: int = 0
    packing: tuple[tuple[int, Packing], ...] = ()
    then: CompiledKernel | None = None
    label: str = ""
    performed_flops: int | None = None
    touched: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[CompiledKernel, ...]:
        """This kernel and what runs after it."""
        return (self, *(self.then.stages if self.then is not None else ()))
