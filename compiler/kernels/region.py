"""A kernel's region, described for the templates: what it reads, computes and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from xdsl.ir import Block, SSAValue

from mgec.compiler.kernels.source import DimRef
from mgec.dialects.mge.constant import ConstantOp
from mgec.dialects.mge.elementwise import apply
from mgec.dialects.mge.lane import Lane, LaneBuilder, lane_type
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.spec import DYNAMIC, TensorSpec, from_type

Size = int | DimRef


@dataclass(frozen=True)
class Region:
    """The block of a kernel.

    Attributes:
        block: the block itself.
        ops: its ops in order, without the terminator.
        inputs: specs of the block arguments.
        outputs: specs of the yielded values.
        yielded: the yielded values.
        input_dims: sizes of each input; a `DimRef` where only run time knows.
        output_dims: likewise.
        num_dims: entries of the dims table, run-time attributes included.
        constants: inputs that are constants, which the compiler can pack.
    """

    block: Block
    ops: tuple[MgeOp, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    yielded: tuple[SSAValue, ...]
    input_dims: tuple[tuple[Size, ...], ...]
    output_dims: tuple[tuple[Size, ...], ...]
    num_dims: int
    constants: frozenset[int] = frozenset()

    @staticmethod
    def of(block: Block, constants: Sequence[int] = ()) -> Region:
        """Describes a block; run-time sizes are numbered inputs first, then outputs."""
        terminator = block.last_op
        assert terminator is not None
        ops = tuple(cast("MgeOp", op) for op in block.ops if op is not terminator)
        inputs = tuple(from_type(a.type) for a in block.args)
        outputs = tuple(from_type(v.type) for v in terminator.operands)
        count = 0
        dims: list[tuple[Size, ...]] = []
        for spec in (*inputs, *outputs):
            sizes: list[Size] = []
            for size in spec.shape:
                sizes.append(DimRef(count) if size == DYNAMIC else size)
                count += size == DYNAMIC
            dims.append(tuple(sizes))
        for op in ops:
            if "mge.runtime_attrs" in op.attributes:
                values = [op.attrs[name] for name in op.runtime_attrs]
                count += sum(len(v) if isinstance(v, tuple) else 1 for v in values)
        n = len(inputs)
        return Region(
            block, ops, inputs, outputs, tuple(terminator.operands),
            tuple(dims[:n]), tuple(dims[n:]), count, frozenset(constants),
        )  # fmt: skip

    @property
    def is_static(self) -> bool:
        """Whether every size is known."""
        return self.num_dims == 0

    def evaluate(
        self, b: LaneBuilder, known: Mapping[SSAValue, Lane], wanted: Sequence[SSAValue]
    ) -> list[Lane]:
        """Computes values of the region on lanes.

        Args:
            b: where to emit.
            known: lanes of block arguments and of values computed already.
            wanted: the values to compute.

        Returns:
            One lane per wanted value, in lane types (bool is i1).
        """
        values = dict(known)
        needed = self.slice(wanted, set(known))
        for op in self.ops:
            if op not in needed:
                continue
            result = op.results[0]
            if result in values:
                continue
            spec = from_type(result.type)
            if isinstance(op, ConstantOp):
                number: Any = cast("np.ndarray[Any, Any]", op.attrs["value"]).reshape(-1)[0]
                number = float(number) if spec.dtype.kind not in "iub" else int(number)
                values[result] = b.constant(number, lane_type(spec.dtype))
            elif op.name == "mge.broadcast":
                values[result] = values[op.operands[0]]
            else:
                dtypes = [from_type(v.type).dtype for v in op.operands]
                lanes = [values[v] for v in op.operands]
                values[result] = apply(type(op), b, lanes, dtypes, op.attrs, spec.dtype)
        return [values[v] for v in wanted]

    def slice(self, wanted: Sequence[SSAValue], known: set[SSAValue]) -> set[MgeOp]:
        """The ops that `wanted` depends on, stopping at `known`."""
        found: set[MgeOp] = set()
        pending = list(wanted)
        while pending:
            value = pending.pop()
            if value in known or not isinstance(value.owner, MgeOp) or value.owner in found:
                continue
            found.add(value.owner)
            pending.extend(value.owner.operands)
        return found


def collapse(shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Merges dimensions that all operands step through alike.

    Args:
        shapes: operand shapes, broadcasting to `out`.
        out: the result's shape.

    Returns:
        The merged shape of each operand (dimensions of size 1 where it broadcasts, () where
        it does everywhere), then of the result.
    """
    rank = len(out)
    full = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    patterns: list[tuple[bool, ...]] = []
    sizes: list[int] = []
    for axis, size in enumerate(out):
        if size == 1:
            continue
        pattern = tuple(s[axis] != 1 for s in full)
        if patterns and patterns[-1] == pattern:
            sizes[-1] *= size
        else:
            patterns.append(pattern)
            sizes.append(size)
    merged: list[tuple[int, ...]] = []
    for i in range(len(shapes)):
        dims = tuple(
            size if pattern[i] else 1 for size, pattern in zip(sizes, patterns, strict=True)
        )
        merged.append(() if not any(p[i] for p in patterns) else dims)
    return [*merged, tuple(sizes)]
