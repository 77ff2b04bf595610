"""Memory planning: which buffer every value of a graph of kernels lives in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from xdsl.context import Context
from xdsl.dialects import builtin, func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, SSAValue
from xdsl.passes import ModulePass

from mgec.compiler.graph_module import DONATE
from mgec.compiler.passes.form_kernels import is_elementwise, root_of
from mgec.dialects.mge.constant import ConstantOp
from mgec.dialects.mge.kernel import KernelOp
from mgec.dialects.mge.spec import from_type

ALIGNMENT = 64


@dataclass
class Interval:
    """A buffer of the arena: its size, and the first and last step that touch it."""

    value: SSAValue
    nbytes: int
    first: int
    last: int
    offset: int = 0


@dataclass
class MemoryPlan:
    """Where every value lives.

    Attributes:
        arena_bytes: size of the arena.
        live_bytes: the largest sum of sizes alive at one step: no plan can do better.
        offsets: arena offset of each value that lives there.
        outputs: result index of each value that is a function result.
        in_place: for each kernel, result index -> operand index whose buffer it takes over.
        donated: function results that take over the buffer of the argument they replace.
        workspaces: arena offset of what kernels need while they run.
    """

    arena_bytes: int = 0
    live_bytes: int = 0
    offsets: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])
    outputs: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])
    in_place: dict[KernelOp, dict[int, int]] = field(default_factory=dict[KernelOp, dict[int, int]])
    donated: dict[int, int] = field(default_factory=dict[int, int])
    workspaces: dict[KernelOp, int] = field(default_factory=dict[KernelOp, int])


def plan_memory(
    block: Block,
    donations: Sequence[int | None],
    workspaces: Mapping[KernelOp, int] | None = None,
) -> MemoryPlan:
    """Plans the buffers of a function of kernels.

    Args:
        block: the function's body after kernel formation.
        donations: for each function result, the argument it replaces, or None.
        workspaces: bytes that kernels need of the arena while they run.
    """
    plan = MemoryPlan()
    kernels = [op for op in block.ops if isinstance(op, KernelOp)]
    step = {kernel: i for i, kernel in enumerate(kernels)}
    terminator = block.last_op
    assert isinstance(terminator, func.ReturnOp)
    last_use: dict[SSAValue, int] = {}
    for kernel in kernels:
        for value in kernel.operands:
            last_use[root_of(value)] = step[kernel]
    for i, value in enumerate(terminator.operands):
        plan.outputs[root_of(value)] = i
    _donate(plan, block, step, last_use, donations)

    shared: dict[SSAValue, SSAValue] = {}
    intervals: dict[SSAValue, Interval] = {}
    for kernel in kernels:
        now = step[kernel]
        pairs = plan.in_place.setdefault(kernel, {})
        for i, result in enumerate(kernel.results):
            if result in plan.outputs:
                continue
            last = max(last_use.get(result, now), now)
            spec = from_type(result.type)
            taken = None
            for j in reusable_operands(kernel, i):
                root = root_of(kernel.operands[j])
                owner = shared.get(root, root)
                if (
                    owner in intervals
                    and intervals[owner].last == now
                    and j not in pairs.values()
                    and sum(root_of(v) is root for v in kernel.operands) == 1
                ):
                    taken = (j, owner)
                    break
            if taken is not None:
                pairs[i] = taken[0]
                shared[result] = taken[1]
                intervals[taken[1]].last = last
            else:
                intervals[result] = Interval(result, spec.nbytes, now, last)
    spaces = {
        kernel: Interval(kernel.results[0], nbytes, step[kernel], step[kernel])
        for kernel, nbytes in (workspaces or {}).items()
        if nbytes
    }
    everything = [*intervals.values(), *spaces.values()]
    plan.arena_bytes = assign_offsets(everything)
    plan.live_bytes = _most_alive(everything, len(kernels))
    plan.workspaces = {kernel: space.offset for kernel, space in spaces.items()}
    for value, interval in intervals.items():
        plan.offsets[value] = interval.offset
    for value, owner in shared.items():
        plan.offsets[value] = intervals[owner].offset
    return plan


def reusable_operands(kernel: KernelOp, result: int) -> list[int]:
    """Operands whose buffer a result of an elementwise kernel may overwrite as it goes.

    The kernel reads element i of them before it writes element i of the result, and reads
    them nowhere else.
    """
    body = kernel.body.block
    members = [op for op in body.ops if op is not body.last_op]
    if not all(is_elementwise(op) or isinstance(op, ConstantOp) for op in members):
        return []
    type_ = kernel.results[result].type
    shape = from_type(type_).shape
    if any(from_type(v.type).shape != shape for v in kernel.yielded):
        return []
    return [i for i, v in enumerate(kernel.operands) if v.type == type_]


def _donate(
    plan: MemoryPlan,
    block: Block,
    step: dict[KernelOp, int],
    last_use: dict[SSAValue, int],
    donations: Sequence[int | None],
) -> None:
    """Lets results overwrite the arguments they replace where nothing reads those later."""
    results = {i: value for value, i in plan.outputs.items()}
    for i, argument in enumerate(donations):
        if argument is None or i not in results:
            continue
        value, source = results[i], block.args[argument]
        kernel = value.owner
        if not isinstance(kernel, KernelOp) or last_use.get(source) != step[kernel]:
            continue
        position = list(kernel.results).index(value)  # type: ignore[arg-type]
        pairs = plan.in_place.setdefault(kernel, {})
        for j in reusable_operands(kernel, position):
            used_once = sum(root_of(v) is source for v in kernel.operands) == 1
            if kernel.operands[j] is source and used_once and j not in pairs.values():
                pairs[position] = j
                plan.donated[i] = argument
                break


def assign_offsets(intervals: Sequence[Interval]) -> int:
    """Gives every buffer an offset such that buffers alive together do not overlap.

    Largest first, each at the lowest offset that is free for its whole life (the greedy by
    size of Pisarchyk and Lee, "Efficient memory management for deep neural net inference",
    2020, section 5.2).

    Returns:
        The size of the arena in bytes.
    """
    placed: list[Interval] = []
    total = 0
    for interval in sorted(intervals, key=lambda i: (-i.nbytes, i.first, i.last)):
        offset = 0
        overlapping = [p for p in placed if p.first <= interval.last and interval.first <= p.last]
        for other in sorted(overlapping, key=lambda p: p.offset):
            if offset + _round(interval.nbytes) <= other.offset:
                break
            offset = max(offset, other.offset + _round(other.nbytes))
        interval.offset = offset
        placed.append(interval)
        total = max(total, offset + _round(interval.nbytes))
    return total


def _round(nbytes: int) -> int:
    return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)


def _most_alive(intervals: Sequence[Interval], steps: int) -> int:
    change = [0] * (steps + 1)
    for i in intervals:
        change[i.first] += _round(i.nbytes)
        change[i.last + 1] -= _round(i.nbytes)
    most = now = 0
    for delta in change:
        now += delta
        most = max(most, now)
    return most


@dataclass(frozen=True)
class PlanMemoryPass(ModulePass):
    """Writes the memory plan into the IR, for people and for the artifact.

        %1 = mge.kernel "relu" (%a = %0 : tensor<8xf32>) -> tensor<8xf32> {...}
    ->  %1 = mge.kernel "relu" in_place [0 = 0] (%a = %0 : ...) -> ... attributes
             {offsets = array<i64: 128>} {...}

    Expects kernels to be formed. An offset of -1 is a function result.
    """

    name = "mge-plan-memory"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in op.ops:
            if isinstance(function, func.FuncOp):
                write_plan(function, plan_memory(function.body.block, _donations(function)))


def write_plan(function: func.FuncOp, plan: MemoryPlan) -> None:
    """Attaches a plan to the kernels of a function."""
    for kernel in function.body.block.ops:
        if isinstance(kernel, KernelOp):
            kernel.in_place = plan.in_place.get(kernel, {})
            offsets = [plan.offsets.get(r, -1) for r in kernel.results]
            kernel.attributes["offsets"] = builtin.DenseArrayBase.from_list(builtin.i64, offsets)
    function.attributes["mge.arena_bytes"] = builtin.IntegerAttr(plan.arena_bytes, 64)


def _donations(function: func.FuncOp) -> list[int | None]:
    terminator = function.body.block.last_op
    assert terminator is not None
    attrs = function.res_attrs
    if attrs is None:
        return [None] * len(terminator.operands)
    found = [cast("builtin.IntegerAttr[Any] | None", e.data.get(DONATE)) for e in attrs.data]
    return [None if i is None else i.value.data for i in found]  # an IntegerAttr of 0 is false
