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


@dataclass(frozen=True)
class KernelSource:
    """A kernel as upstream MLIR.

    Attributes:
        name: symbol of the compiled function.
        text: MLIR module text that defines `func.func @<name>_body`.
        num_buffers: pointer arguments of the body, scratch included.
        num_dims: index arguments of the body, without begin and end.
        units: units of parallel work.
        scratch_bytes: per-thread scratch; if not 0, the last buffer is the scratch.
        stage: which lowering pipeline the text needs: "linalg" or "vector".
        template: name of the template that made it, for people.
        flops: floating point operations of one run, if known.
        order: for each pointer argument of the body, which entry of the pointer table it is;
            by default the entry of the same number.
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


@dataclass(frozen=True)
class CompiledKernel:
    """Machine code of one kernel and what is needed to call it; see `KernelSource`."""

    name: str
    object_code: bytes
    num_buffers: int
    num_dims: int
    units: Units
    scratch_bytes: int
    template: str
    flops: int
