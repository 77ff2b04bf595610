"""Layouts: images are stored with their channels last wherever convolutions meet them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.constant import ConstantOp, WeightOp
from mgec.dialects.mge.op import MgeOp, Plain
from mgec.dialects.mge.rules import lanes
from mgec.dialects.mge.spec import from_type

Attrs: TypeAlias = "dict[str, Plain]"


@dataclass
class LayoutAssignment:
    """Which values to store with their channels last.

    Attributes:
        moved: the values.
    """

    moved: set[SSAValue] = field(default_factory=set[SSAValue])


def assign_layouts(block: Block) -> LayoutAssignment:
    """Decides the layout of every image of a function.

    Values that one op reads and writes in the same layout, whatever it is, form a group. A
    group is moved if a convolution with constant weights is in it: its weights can be packed
    for the kernels of that layout, so only the borders of the group cost anything.
    """
    groups = _Groups()
    seeds: list[SSAValue] = []
    for op in block.ops:
        if not isinstance(op, MgeOp) or (handled := _handle(op)) is None:
            continue
        groups.join(handled.values)
        if op.name in _CONVOLUTIONS and is_constant(op.operands[1]):
            seeds.append(op.results[0])
    chosen = {groups.find(value) for value in seeds}
    return LayoutAssignment({v for v in groups.values() if groups.find(v) in chosen})


@dataclass(frozen=True)
class AssignLayoutsPass(ModulePass):
    """Stores images with their channels last where convolutions with constant weights are.

        %0 = mge.conv %x, %w : (tensor<1x3x8x8xf32>, ...) -> tensor<1x16x8x8xf32>
        %1 = mge.relu %0 : ...
    becomes
        %2 = mge.transpose %x {perm = [0, 2, 3, 1]} : ...
        %3 = mge.conv %2, %w {channels_last = true} : ... -> tensor<1x8x8x16xf32>
        %4 = mge.relu %3 : ...
        %1 = mge.transpose %4 {perm = [0, 3, 1, 2]} : ...

    Expects primitives. Elementwise ops, pools, concatenations, pads, slices and reductions
    between convolutions follow them; everything else sees the values it saw before, through
    transposes, of which canonicalization removes those that meet. Leaves alone convolutions
    whose weights are not constant (they are being trained).
    """

    name = "mge-assign-layouts"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in op.ops:
            if isinstance(function, func.FuncOp):
                block = function.body.block
                _Mover(assign_layouts(block)).move(block)


# -- what each op allows -------------------------------------------------------------------


@dataclass(frozen=True)
class Handled:
    """An op that can work with channels last.

    Attributes:
        values: the operands and results whose layouts must agree.
        attrs: its attributes in that layout.
        operands: which operands follow the layout, by broadcasting if they are not in `values`.
    """

    values: tuple[SSAValue, ...]
    attrs: Callable[[], Attrs]
    operands: tuple[int, ...]


_CONVOLUTIONS = frozenset({"mge.conv", "mge.conv_dgrad"})
_POOLS = frozenset({"mge.max_pool", "mge.avg_pool"})
_REDUCTIONS = frozenset(
    f"mge.reduce_{kind}" for kind in ("sum", "prod", "max", "min", "all", "any", "mean")
)
_ONE_AXIS = frozenset(
    {"mge.softmax", "mge.log_softmax", "mge.cumsum", "mge.argmax", "mge.argmin", "mge.concat"}
)
_PER_AXIS = frozenset({"mge.slice", "mge.pad", "mge.unslice"})


def _handle(op: MgeOp) -> Handled | None:
    """How an op works with channels last; None if it does not."""
    if len(op.results) != 1 or not all(spec.is_static for spec in op.result_specs):
        return None
    result = op.results[0]
    rank = from_type(op.operands[0].type).rank if op.operands else 0
    attrs = op.attrs
    if op.name in _CONVOLUTIONS | _POOLS:
        if attrs["channels_last"]:
            return None
        return Handled((op.operands[0], result), lambda: {**attrs, "channels_last": True}, (0,))
    if type(op) in lanes:
        shape = from_type(result.type).shape
        if not 3 <= len(shape) <= 5:
            return None
        same = tuple(v for v in op.operands if from_type(v.type).rank == len(shape))
        moved = tuple(v for v in same if not is_constant(v))
        return Handled((*moved, result), lambda: dict(attrs), tuple(range(len(op.operands))))
    if not 3 <= rank <= 5:
        return None
    to_last, _ = permutations(rank)
    place = {axis: i for i, axis in enumerate(to_last)}
    everything = tuple(range(len(op.operands)))
    if op.name in _REDUCTIONS:
        axes = cast("tuple[int, ...]", attrs["axes"])
        moved_axes = tuple(sorted(place[axis] for axis in axes))
        change: Callable[[], Attrs] = lambda: {**attrs, "axes": moved_axes}  # noqa: E731
        if attrs["keepdims"]:
            return Handled((op.operands[0], result), change, (0,))
        kept = [axis for axis in to_last if axis not in axes]
        if kept != sorted(kept):
            return None
        return Handled((op.operands[0],), change, (0,))
    if op.name in _ONE_AXIS and attrs.get("keepdims", True):
        axis = place[cast("int", attrs["axis"]) % rank]
        return Handled((*op.operands, result), lambda: {**attrs, "axis": axis}, everything)
    if op.name in _PER_AXIS:
        return Handled(
            (op.operands[0], result),
            lambda: {
                name: tuple(value[axis] for axis in to_last) if isinstance(value, tuple) else value
                for name, value in attrs.items()
            },
            (0,),
        )
    return None


def permutations(rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The permutations that put channels last, and back at axis 1."""
    return (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))


def is_constant(value: SSAValue) -> bool:
    """Whether a value is computed from constants alone."""
    owner = value.owner
    if isinstance(owner, ConstantOp | WeightOp):
        return True
    if not isinstance(owner, MgeOp) or not owner.operands:
        return False
    return all(is_constant(operand) for operand in owner.operands)


class _Groups:
    """Disjoint sets of values."""

    def __init__(self) -> None:
        self._parents: dict[SSAValue, SSAValue] = {}

    def find(self, value: SSAValue) -> SSAValue:
        """The representative of a value's set."""
        parents = self._parents
        parents.setdefault(value, value)
        while parents[value] is not value:
            parents[value] = parents[parents[value]]
            value = parents[value]
        return value

    def join(self, values: Sequence[SSAValue]) -> None:
        """Makes the values' sets one."""
        for value in values:
            self._parents[self.find(value)] = self.find(values[0])

    def values(self) -> list[SSAValue]:
        """Every value of any set."""
        return list(self._parents)


# -- applying it ---------------------------------------------------------------------------


class _Mover:
    """Rewrites the ops whose values are moved."""

    def __init__(self, assignment: LayoutAssignment) -> None:
        self._moved = assignment.moved
        self._last: dict[SSAValue, SSAValue] = {}

    def move(self, block: Block) -> None:
        """Rewrites a function's body."""
        for op in list(block.ops):
            if not isinstance(op, MgeOp) or (handled := _handle(op)) is None:
                continue
            if any(value in self._moved for value in handled.values):
                self._rewrite(op, handled)

    def _rewrite(self, op: MgeOp, handled: Handled) -> None:
        b = IRBuilder(Builder(InsertPoint.before(op)), op.location)
        rank = max(from_type(v.type).rank for v in handled.values)
        operands = [
            self._channels_last(b, value, rank) if i in handled.operands else value
            for i, value in enumerate(op.operands)
        ]
        (made,) = b.emit(type(op), operands, handled.attrs())
        made.name_hint = op.results[0].name_hint
        result = op.results[0]
        if result in self._moved:
            _, back = permutations(rank)
            old = b.transpose(made, perm=back)
            self._moved.add(old)
            self._last[old] = made
            made = old
        result.replace_all_uses_with(made)
        Rewriter.erase_op(op)

    def _channels_last(self, b: IRBuilder, value: SSAValue, rank: int) -> SSAValue:
        """A value with its channels last; one that broadcasts gets all its axes first."""
        if value in self._last:
            return self._last[value]
        spec = from_type(value.type)
        if not spec.shape:
            return value
        full = b.reshape(value, (1,) * (rank - spec.rank) + spec.shape)
        made = b.transpose(full, perm=permutations(rank)[0])
        if value in self._moved:
            self._last[value] = made
        return made
