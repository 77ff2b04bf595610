"""Kernel formation: groups ops into `mge.kernel` regions, with what fuses into them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from mgec.dialects.mge.constant import ConstantOp, WeightOp
from mgec.dialects.mge.elementwise import CastOp
from mgec.dialects.mge.kernel import KernelOp, YieldOp
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.rules import lanes
from mgec.dialects.mge.spec import FLOAT32, TensorSpec, from_type

ALIASES = frozenset({"mge.reshape"})
"""Ops that change no byte: their result is their operand's buffer."""

CONTRACTIONS = frozenset({"mge.matmul", "mge.conv", "mge.conv_dgrad", "mge.conv_wgrad"})
REDUCTIONS = frozenset(
    {"mge.reduce_sum", "mge.reduce_max", "mge.reduce_min", "mge.reduce_prod", "mge.reduce_mean"}
)


def is_elementwise(op: Operation) -> bool:
    """Whether each output element depends on one element of each operand (broadcast)."""
    return type(op) in lanes or op.name == "mge.broadcast"


def is_outside(op: Operation) -> bool:
    """Whether an op stays outside kernels: constants and aliases."""
    return isinstance(op, ConstantOp | WeightOp) or op.name in ALIASES


@dataclass
class Group:
    """Ops that will be one kernel.

    Attributes:
        index: position among the groups; a group depends on groups of lower index only.
        kind: "elementwise", "contraction", "reduction" or "other".
        shape: shape of the loop nest that elementwise ops may join.
        ops: the members, in graph order.
    """

    index: int
    kind: str
    shape: tuple[int, ...]
    ops: list[MgeOp] = field(default_factory=list[MgeOp])


def group_ops(ops: Sequence[Operation], *, fuse: bool = True) -> list[Group]:
    """Decides which ops share a kernel.

    An elementwise op joins the latest group that makes one of its operands, if the loop
    shapes agree; a reduction takes in the elementwise group that feeds only it; other
    elementwise groups that feed only the joined group are merged into it; a convolution reads
    the parts of a concatenation of channels. Since a group never depends on a later one, the
    result has no cycles.
    """
    groups: list[Group] = []
    group_of: dict[Operation, Group] = {}
    count = 0

    def maker(value: SSAValue) -> Group | None:
        owner = value.owner
        while isinstance(owner, Operation) and owner.name in ALIASES:
            owner = owner.operands[0].owner
        return group_of.get(owner) if isinstance(owner, Operation) else None

    def direct(value: SSAValue) -> Group | None:
        return group_of.get(value.owner) if isinstance(value.owner, Operation) else None

    def only_feeds(group: Group, ops: Iterable[Operation]) -> bool:
        allowed = {*group.ops, *ops}
        return all(
            use.operation in allowed for op in group.ops for r in op.results for use in r.uses
        )

    def merge(small: Group, into: Group) -> None:
        into.ops = [*small.ops, *into.ops]
        for op in small.ops:
            group_of[op] = into
        small.ops = []

    for op in ops:
        if not isinstance(op, MgeOp) or is_outside(op):
            continue
        makers = [g for v in op.operands if (g := maker(v)) is not None]
        latest = max(makers, key=lambda g: g.index, default=None)
        feeding = {id(g): g for v in op.operands if (g := direct(v)) is not None}
        kind, shape = _kind(op)
        joined: Group | None = None
        if fuse and latest is not None and id(latest) in feeding:
            if kind == "elementwise" and latest.shape == shape and latest.kind != "other":
                joined = latest
            elif (
                kind == "reduction"
                and latest.kind == "elementwise"
                and latest.shape == from_type(op.operands[0].type).shape
                and only_feeds(latest, [op])
            ):
                joined = latest
                joined.kind, joined.shape = kind, shape
        if joined is None:
            joined = Group(count, kind, shape)
            count += 1
            groups.append(joined)
        joined.ops.append(op)
        group_of[op] = joined
        if fuse and (parts := _joined_channels(op)) is not None:
            merge(group_of[parts], joined)
        if fuse and kind == "elementwise":
            for other in feeding.values():
                if (
                    other is not joined
                    and other.ops
                    and other.kind == "elementwise"
                    and joined.kind == "elementwise"
                    and other.shape == joined.shape
                    and only_feeds(other, joined.ops)
                ):
                    merge(other, joined)
    return [g for g in groups if g.ops]


def _joined_channels(op: MgeOp) -> MgeOp | None:
    """The concatenation of channels that only this convolution reads: it reads the parts."""
    if op.name != "mge.conv" or not op.attrs["channels_last"] or op.attrs["groups"] != 1:
        return None
    inp, weight = op.operands
    made = inp.owner
    if not isinstance(made, MgeOp) or made.name != "mge.concat" or not inp.has_one_use():
        return None
    (spec,) = made.result_specs
    constant = isinstance(weight.owner, ConstantOp | WeightOp)
    whole = constant and spec.is_static and spec.dtype == FLOAT32
    return made if whole and made.attrs["axis"] == spec.rank - 1 else None


def _kind(op: MgeOp) -> tuple[str, tuple[int, ...]]:
    shape = from_type(op.results[0].type).shape
    if is_elementwise(op):
        return "elementwise", shape
    if op.name in CONTRACTIONS:
        return "contraction", shape
    if op.name in REDUCTIONS:
        return "reduction", shape
    return "other", shape


@dataclass(frozen=True)
class FormKernelsPass(ModulePass):
    """Wraps every op that computes into a kernel, fused with its neighbours.

        %0 = mge.matmul %x, %w : ...          %2 = mge.kernel "matmul_add_relu" (%a = %x, ...) {
        %1 = mge.add %0, %b : ...         ->    ...
        %2 = mge.relu %1 : ...                  mge.yield ...
                                              }

    Expects composites to be decomposed, but for those that stay whole. Leaves constants,
    weights and reshapes outside; 0-d constants are copied into the kernels that use them.
    Every result of the function becomes a kernel result of its own.
    """

    name = "mge-form-kernels"
    fuse: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in list(op.ops):
            if isinstance(function, func.FuncOp):
                self._form(function.body.block)

    def _form(self, block: Block) -> None:
        _erase_unused(block)
        _own_results(block)
        groups = sorted(group_ops(list(block.ops), fuse=self.fuse), key=lambda g: g.index)
        _schedule(block, [_outline(group) for group in groups])


def _erase_unused(block: Block) -> None:
    """Removes ops that nobody needs: every kernel has a result."""
    for op in reversed(list(block.ops)):
        if isinstance(op, MgeOp) and not any(use for r in op.results for use in r.uses):
            Rewriter.erase_op(op)


def _own_results(block: Block) -> None:
    """Gives each function result a kernel result of its own.

    Copies one that is an argument, a constant, or returned twice.
    """
    terminator = block.last_op
    assert isinstance(terminator, func.ReturnOp)
    seen: set[SSAValue] = set()
    for i, value in enumerate(list(terminator.operands)):
        root = root_of(value)
        owner = root.owner
        if isinstance(owner, MgeOp) and not is_outside(owner) and root not in seen:
            seen.add(root)
            continue
        copy = CastOp.build_op([value], {"dtype": from_type(value.type).dtype})
        copy.location = terminator.location
        Rewriter.insert_op(copy, InsertPoint.before(terminator))
        terminator.operands[i] = copy.results[0]
        seen.add(copy.results[0])


def root_of(value: SSAValue) -> SSAValue:
    """The value whose buffer `value` is: aliases looked through."""
    owner = value.owner
    while isinstance(owner, Operation) and owner.name in ALIASES:
        value = owner.operands[0]
        owner = value.owner
    return value


def _outline(group: Group) -> KernelOp:
    """Moves the ops of a group into a kernel; `_schedule` finds its place."""
    members = set(group.ops)
    last = group.ops[-1]
    inputs: list[SSAValue] = []
    scalars: list[ConstantOp] = []
    for op in group.ops:
        for value in op.operands:
            owner = value.owner
            if isinstance(owner, Operation) and owner in members:
                continue
            if (
                isinstance(owner, ConstantOp)
                and from_type(value.type).size == 1
                and not from_type(value.type).shape
            ):
                if owner not in scalars:
                    scalars.append(owner)
            elif value not in inputs:
                inputs.append(value)
    outputs = [
        r for op in group.ops for r in op.results
        if any(use.operation not in members for use in r.uses)
    ]  # fmt: skip
    body = Block(arg_types=[v.type for v in inputs])
    mapping: dict[SSAValue, SSAValue] = dict(zip(inputs, body.args, strict=True))
    for scalar in scalars:
        copy = scalar.clone()
        body.add_op(copy)
        mapping[scalar.results[0]] = copy.results[0]
    kernel = KernelOp(_name(group), inputs, [v.type for v in outputs], body)
    kernel.location = _main_op(group).location
    Rewriter.insert_op(kernel, InsertPoint.before(last))
    for old, new in zip(outputs, kernel.results, strict=True):
        old.replace_uses_with_if(new, lambda use: use.operation not in members)
    for op in group.ops:
        op.detach()
        op.operands = [mapping.get(v, v) for v in op.operands]
        body.add_op(op)
    terminator = YieldOp(*outputs)
    terminator.location = last.location
    body.add_op(terminator)
    return kernel


def _main_op(group: Group) -> MgeOp:
    return next((op for op in group.ops if not is_elementwise(op)), group.ops[-1])


def _name(group: Group) -> str:
    """`conv_add_relu`: the ops, shortened where there are many."""
    names = [op.name.removeprefix("mge.") for op in group.ops if op.name != "mge.broadcast"]
    names = names or ["broadcast"]
    if len(names) <= 4:
        return "_".join(names)
    main = _main_op(group).name.removeprefix("mge.")
    return f"{main}_and_{len(names) - 1}_more"


def _schedule(block: Block, kernels: Sequence[KernelOp]) -> None:
    """Puts the kernels in this order; constants and aliases go where they are first needed."""
    order: list[Operation] = []
    placed: set[Operation] = set()

    def place(op: Operation) -> None:
        if op in placed:
            return
        placed.add(op)
        for value in op.operands:
            if isinstance(value.owner, Operation):
                place(value.owner)
        order.append(op)

    for kernel in kernels:
        place(kernel)
    terminator = block.last_op
    assert terminator is not None
    place(terminator)
    for op in list(block.ops):
        op.detach()
    for op in order:
        block.add_op(op)


def kernel_specs(kernel: KernelOp) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Specs of a kernel's inputs and outputs."""
    return [from_type(v.type) for v in kernel.operands], [from_type(r.type) for r in kernel.results]
