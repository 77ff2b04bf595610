"""A region around a contraction, as the templates of contractions take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xdsl.ir import SSAValue

from mgec.compiler.kernels.emitter import VectorLanes
from mgec.compiler.kernels.epilogue import Epilogue, Extra
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.region import Region, Size
from mgec.compiler.kernels.source import KernelSource
from mgec.compiler.passes.form_kernels import is_elementwise
from mgec.dialects.mge.constant import ConstantOp
from mgec.dialects.mge.contraction import ContractionMaps, contraction, contraction_maps
from mgec.dialects.mge.lane import Lane
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.reduce import accumulator
from mgec.dialects.mge.spec import DType, from_type, is_float


@dataclass(frozen=True)
class Contracted:
    """A contraction with what feeds it and what follows.

    Attributes:
        region: the whole.
        root: the contraction.
        maps: its loops and index maps.
        lhs: shape of the first operand.
        rhs: shape of the second.
        out: shape of the result.
        dtype: of both operands.
        channels: sizes along the last axis of the inputs that the first operand is a
            concatenation of; None if it is one input.
        epilogue: what follows.
        inputs: entries of the table for the template's buffers: the parts of the first
            operand, the second operand, the operands of the epilogue.
    """

    region: Region
    root: MgeOp
    maps: ContractionMaps
    lhs: tuple[Size, ...]
    rhs: tuple[Size, ...]
    out: tuple[Size, ...]
    dtype: DType
    channels: tuple[int, ...] | None
    epilogue: Epilogue
    inputs: tuple[int, ...]

    @staticmethod
    def of(region: Region) -> Contracted:
        """Describes a region.

        Raises:
            NotApplicable: if it is not a contraction with elementwise ops after it.
        """
        root, joined = _root_of(region)
        lhs, rhs = root.operands
        parts = [lhs] if joined is None else list(joined.operands)
        arguments: list[SSAValue] = list(region.block.args)
        if rhs not in arguments or any(part not in arguments for part in parts):
            raise NotApplicable("an operand is computed in the region")
        total = root.results[0]
        out_spec = from_type(total.type)
        operands = from_type(rhs.type).dtype
        if not is_float(operands):
            raise NotApplicable(f"sums of {operands.name}")
        if region.is_static:
            out: tuple[Size, ...] = out_spec.shape
        else:
            if len(region.ops) != 1:
                raise NotApplicable("run-time sizes with an epilogue")
            out = region.output_dims[0]
        if joined is None:
            lhs_dims = region.input_dims[arguments.index(lhs)]
        else:
            lhs_dims = from_type(lhs.type).shape
        rhs_dims = region.input_dims[arguments.index(rhs)]
        used = {v for op in region.ops if op is not root and op is not joined for v in op.operands}
        extras = [a for a in arguments if a in used]
        if region.is_static and any(s.shape != out_spec.shape for s in region.outputs):
            raise NotApplicable("an output is not of the result's shape")

        def body(b: VectorLanes, acc: Lane, lanes: Sequence[Lane]) -> list[Lane]:
            known: dict[SSAValue, Lane] = dict(zip(extras, lanes, strict=True))
            known[total] = b.convert(acc, accumulator(operands), out_spec.dtype)
            return region.evaluate(b, known, region.yielded)

        dtypes = tuple(s.dtype for s in region.outputs)
        return Contracted(
            region=region,
            root=root,
            maps=contraction_maps(type(root), lhs_dims, rhs_dims, out, root.attrs, divide=_divide),
            lhs=lhs_dims,
            rhs=rhs_dims,
            out=out,
            dtype=operands,
            channels=None if joined is None else tuple(from_type(p.type).shape[-1] for p in parts),
            epilogue=Epilogue(tuple(_extra(value, out) for value in extras), dtypes, body),
            inputs=tuple(arguments.index(v) for v in (*parts, rhs, *extras)),
        )

    @property
    def has_constant_weight(self) -> bool:
        """Whether the second operand is a constant that can be packed."""
        parts = 1 if self.channels is None else len(self.channels)
        return self.region.is_static and self.inputs[parts] in self.region.constants

    def in_order(self, source: KernelSource) -> KernelSource:
        """The template's source with its buffers connected to the kernel's table."""
        return in_order(source, self.inputs, self.region)


def _root_of(region: Region) -> tuple[MgeOp, MgeOp | None]:
    """The contraction of a region, and the concatenation that makes its first operand."""
    others = [op for op in region.ops if not (is_elementwise(op) or isinstance(op, ConstantOp))]
    roots = [op for op in others if type(op) in contraction]
    if len(roots) != 1 or len(others) > 2:
        raise NotApplicable("the region has another root")
    (root,) = roots
    joined = next((op for op in others if op is not root), None)
    if joined is None:
        return root, None
    last = joined.result_specs[0].rank - 1
    along_last = joined.name == "mge.concat" and joined.attrs["axis"] == last
    if not along_last or root.operands[0] is not joined.results[0] or not region.is_static:
        raise NotApplicable("the region has another root")
    return root, joined


def _extra(value: SSAValue, out: Sequence[Size]) -> Extra:
    spec = from_type(value.type)
    padded = (1,) * (len(out) - len(spec.shape)) + spec.shape
    if any(d not in (1, o) for d, o in zip(padded, out, strict=True)):
        raise NotApplicable("an epilogue operand does not broadcast to the result")
    return Extra(spec.dtype, tuple(d != 1 for d in padded))


def _divide(size: Size, by: int) -> Size:
    if by == 1:
        return size
    if isinstance(size, int):
        return size // by
    raise NotApplicable("groups of run-time size")


def in_order(source: KernelSource, inputs: Sequence[int], region: Region) -> KernelSource:
    """Connects the template's buffers to the kernel's table.

    The template has its inputs in its own order, then outputs, workspace and scratch; the
    table the block arguments, outputs, workspace and scratch.
    """
    count = len(region.inputs)
    order = [*inputs, *range(count, count + len(region.outputs))]
    entries = count + len(region.outputs)
    for needed in (source.workspace_bytes, source.scratch_bytes):
        if needed:
            order.append(entries)
            entries += 1
    return replace(
        source,
        order=tuple(order),
        num_buffers=entries,
        packing=tuple((order[i], how) for i, how in source.packing),
        then=source.then and in_order(source.then, inputs, region),
    )
