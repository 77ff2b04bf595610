"""Which template makes a kernel: the first that can serve it, in order of speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.ir import Block, SSAValue

from mgec.compiler.kernels.elementwise import Access, dense_strides, elementwise_kernel
from mgec.compiler.kernels.emitter import VectorLanes
from mgec.compiler.kernels.region import Region, Size, collapse
from mgec.compiler.kernels.source import KernelSource
from mgec.compiler.lowering.linalg_kernel import linalg_kernel
from mgec.compiler.passes.form_kernels import is_elementwise
from mgec.compiler.targets import Target
from mgec.dialects.mge.constant import ConstantOp
from mgec.dialects.mge.lane import Lane

WHOLE: frozenset[str] = frozenset()
"""Composites that a template serves whole, so that passes leave them alone."""


def select_kernel(
    block: Block, name: str, target: Target, in_place: Mapping[int, int] | None = None
) -> KernelSource:
    """The source of a kernel for a region.

    Args:
        block: arguments are the kernel's inputs; the terminator's operands its outputs.
        name: symbol of the kernel.
        target: what it will be compiled for.
        in_place: result index -> input index whose buffer it overwrites; only elementwise
            kernels have any, and their template reads an element before it writes it.
    """
    region = Region.of(block)
    if (source := _elementwise(region, name, target)) is not None:
        return source
    assert not in_place, f"{name}: only elementwise kernels work in place"
    return linalg_kernel(block, name, target)


def _elementwise(region: Region, name: str, target: Target) -> KernelSource | None:
    """One loop nest over the outputs, all of one shape."""
    if not all(is_elementwise(op) or isinstance(op, ConstantOp) for op in region.ops):
        return None
    if len({dims if region.is_static else len(dims) for dims in region.output_dims}) != 1:
        return None
    sizes: tuple[Size, ...]
    if region.is_static:
        shapes = collapse([s.shape for s in region.inputs], region.outputs[0].shape)
        sizes = shapes.pop()
        operands: Sequence[tuple[Size, ...]] = shapes
    else:
        sizes, operands = region.output_dims[0], region.input_dims
    rank = len(sizes)
    inputs: list[Access] = []
    for spec, dims in zip(region.inputs, operands, strict=True):
        present = [False] * (rank - len(dims)) + [d != 1 for d in dims]
        inputs.append(Access(spec.dtype, dense_strides(sizes, present)))
    everywhere = dense_strides(sizes, [True] * rank)
    outputs = [Access(spec.dtype, everywhere) for spec in region.outputs]

    def body(b: VectorLanes, lanes: Sequence[Lane]) -> list[Lane]:
        known: dict[SSAValue, Lane] = dict(zip(region.block.args, lanes, strict=True))
        return region.evaluate(b, known, region.yielded)

    return elementwise_kernel(name, target, sizes, inputs, outputs, body, num_dims=region.num_dims)
