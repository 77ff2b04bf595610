"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.transforms.dead_code_elimination import is_trivially_dead

from mgec.dialects.mge.kernel import KernelOp, YieldOp


@dataclass(frozen=True)
class EliminateDeadCodePass(ModulePass):
    """Removes ops without side effects whose results nobody uses.

        %0 = mge.exp %x : ...         // no uses
        %1 = mge.neg %x : ...
        func.return %1
    becomes
        %1 = mge.neg %x : ...
        func.return %1

    Every mge op is free of side effects. Kernels lose the results that nobody uses, what only
    those needed, and the operands that are then not read. Functions and their signatures stay.
    """

    name = "mge-dce"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        _sweep(op)


def _sweep(op: Operation) -> None:
    for region in op.regions:
        for block in reversed(list(region.blocks)):
            _sweep_block(block)


def _sweep_block(block: Block) -> None:
    """Backwards, so that what only a dead op used is dead when its turn comes."""
    for op in reversed(list(block.ops)):
        if is_trivially_dead(op):
            op.detach()
            op.erase()
            continue
        trimmed = _without_dead_results(op) if isinstance(op, KernelOp) else op
        _sweep(trimmed)
        if isinstance(trimmed, KernelOp):
            _without_unread_operands(trimmed)


def _without_dead_results(kernel: KernelOp) -> KernelOp:
    """The kernel, rebuilt in its place if some of its results have no use."""
    live = [i for i, result in enumerate(kernel.results) if result.uses]
    if len(live) == len(kernel.results):
        return kernel
    renumbered = {old: new for new, old in enumerate(live)}
    terminator, values = kernel.body.block.last_op, kernel.yielded
    assert terminator is not None
    terminator.detach()
    terminator.erase()
    ended = YieldOp(*(values[i] for i in live))
    ended.location = terminator.location
    kernel.body.block.add_op(ended)
    return _rebuilt(
        kernel,
        live,
        list(kernel.operands),
        {renumbered[r]: o for r, o in kernel.in_place.items() if r in renumbered},
    )


def _without_unread_operands(kernel: KernelOp) -> None:
    """Rebuilds the kernel if some of its operands are not read."""
    block, taken_over = kernel.body.block, set(kernel.in_place.values())
    read = [i for i, a in enumerate(block.args) if a.uses or i in taken_over]
    if len(read) == len(block.args):
        return
    renumbered = {old: new for new, old in enumerate(read)}
    for i in reversed(range(len(block.args))):
        if i not in renumbered:
            block.erase_arg(block.args[i])
    in_place = {r: renumbered[o] for r, o in kernel.in_place.items()}
    operands = [kernel.operands[i] for i in read]
    _rebuilt(kernel, list(range(len(kernel.results))), operands, in_place)


def _rebuilt(
    kernel: KernelOp, results: list[int], operands: list[SSAValue], in_place: dict[int, int]
) -> KernelOp:
    """The same body in a kernel of these results and operands, put in its place."""
    made = KernelOp(
        kernel.kernel_name.data,
        operands,
        [kernel.results[i].type for i in results],
        kernel.detach_region(0),
        template=kernel.template,
        in_place=in_place,
    )
    made.attributes = dict(kernel.attributes)
    made.location = kernel.location
    for new, old in zip(made.results, results, strict=True):
        new.name_hint = kernel.results[old].name_hint
        kernel.results[old].replace_all_uses_with(new)
    block = kernel.parent
    assert block is not None
    block.insert_op_before(made, kernel)
    kernel.detach()
    kernel.erase()
    return made
