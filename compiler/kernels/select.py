"""Which template makes a kernel: the first that can serve it, in order of speed.

A template that cannot serve a region says so with `NotApplicable`; the last resort, linalg
lowered to loops, serves every region.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any, cast

from xdsl.ir import Block, SSAValue

from mgec import config
from mgec.compiler.kernels.attention import attention_kernel
from mgec.compiler.kernels.attention_plan import AttentionShape, AttentionTiles
from mgec.compiler.kernels.candidate import Candidate, Offer, described, with_touched
from mgec.compiler.kernels.contracted import in_order
from mgec.compiler.kernels.contraction_offers import (
    contraction_offers,
    convolution_offers,
    product_offers,
    transposed_offers,
)
from mgec.compiler.kernels.elementwise import Access, dense_strides, elementwise_kernel
from mgec.compiler.kernels.emitter import VectorLanes
from mgec.compiler.kernels.movement import Call, movement_kernel
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.pooling import Window, pooling_kernel
from mgec.compiler.kernels.region import Region, Size, collapse
from mgec.compiler.kernels.rows import (
    Loop,
    fold_named,
    layer_norm_kernel,
    reduction_kernel,
    softmax_kernel,
)
from mgec.compiler.kernels.source import DimRef, KernelSource, Tiles
from mgec.compiler.lowering.linalg_kernel import linalg_kernel
from mgec.compiler.passes.form_kernels import is_elementwise
from mgec.compiler.targets import Target
from mgec.dialects.mge.constant import ConstantOp
from mgec.dialects.mge.contraction import accumulator
from mgec.dialects.mge.lane import Lane, lane_type
from mgec.dialects.mge.op import MgeOp, Plain
from mgec.dialects.mge.spec import FLOAT32, FLOAT64, TensorSpec, from_type, is_float

WHOLE: frozenset[str] = frozenset(
    {"mge.softmax", "mge.log_softmax", "mge.layer_norm", "mge.attention"}
)
"""Composites that a template serves whole, so that passes leave them alone."""

WHOLE_DTYPES = (FLOAT32, FLOAT64)
"""Of which dtypes."""

_FOLDS = {
    "mge.reduce_sum": "sum",
    "mge.reduce_prod": "prod",
    "mge.reduce_max": "max",
    "mge.reduce_min": "min",
}


def serves_whole(
    op: type[MgeOp], specs: Sequence[TensorSpec | None], attrs: Mapping[str, Plain]
) -> bool:
    """Whether a template serves this composite whole, whatever the sizes at run time."""
    return _has_template(op, specs, attrs) and attrs.get("num_axes", 1) == 1


def _has_template(
    op: type[MgeOp], specs: Sequence[TensorSpec | None], attrs: Mapping[str, Plain]
) -> bool:
    if op.name not in WHOLE or specs[0] is None or specs[0].dtype not in WHOLE_DTYPES:
        return False
    if op.name == "mge.attention":
        return False  # not for run-time sizes; `_attention` serves the others
    if op.name == "mge.layer_norm":
        return (specs[1] is None) == (specs[2] is None)
    return attrs["axis"] == specs[0].rank - 1


def select_kernel(
    block: Block,
    name: str,
    target: Target,
    in_place: Mapping[int, int] | None = None,
    constants: Sequence[int] = (),
    label: str | None = None,
) -> KernelSource:
    """The source of a kernel for a region: the first that a template can make.

    Args:
        block: arguments are the kernel's inputs; the terminator's operands its outputs.
        name: symbol of the kernel.
        target: what it will be compiled for.
        in_place: result index -> input index whose buffer it overwrites; only elementwise
            kernels have any, and their template reads an element before it writes it.
        constants: inputs that are constants: a template may ask for them to be packed.
        label: of the candidate to take instead, if there is one of that name.
    """
    region = Region.of(block, constants)
    notes: list[str] = []
    if label is not None:
        for candidate in candidates(region, name, target):
            if candidate.label == label:
                try:
                    source = candidate.make()
                except NotApplicable as reason:
                    notes.append(f"{label} was measured to be the fastest, but: {reason}")
                    break
                return _chosen(source, [*notes, "measured to be the fastest"])
        else:
            notes.append(f"{label} was measured to be the fastest, but is not offered any more")
    for title, template in _TEMPLATES.items():
        try:
            offers = template(region, name, target)
        except NotApplicable as reason:
            notes.append(f"not {title}: {reason}")
            continue
        for offer in offers:
            try:
                source = offer.default()
            except NotApplicable as reason:
                notes.append(f"not {offer.name}: {reason}")
            else:
                return _chosen(source, [*notes, *described(offers)])
    assert not in_place, f"{name}: only elementwise kernels work in place"
    return _chosen(linalg_kernel(block, name, target), notes)


def candidates(region: Region, name: str, target: Target) -> list[Candidate]:
    """Every kernel that templates offer for a region, the default first.

    Defaults of templates come before kernels with other numbers, by their estimates where
    there are any; of templates that are estimated to be far slower there are no others. Sources
    of defaults are made to know their labels. Regions that only linalg
    serves have none.
    """
    offers: list[Offer] = []
    for template in (*_TEMPLATES.values(), *_RIVALS):
        with suppress(NotApplicable):
            offers += template(region, name, target)
    least = min((offer.seconds for offer in offers if offer.seconds is not None), default=0.0)
    found: dict[str, Candidate] = {}
    for offer in offers:
        close = offer.seconds is not None and offer.seconds <= _HOPELESS * least
        for candidate in offer.candidates(target, alternatives=close or not found):
            found.setdefault(candidate.label, candidate)
    default, others = list(found.values())[:1], list(found.values())[1:]
    return [*default, *sorted(others, key=lambda each: each.seconds or inf)]


_HOPELESS = 1.5
"""Other numbers than the default's change less than this factor."""


def _chosen(source: KernelSource, notes: Sequence[str]) -> KernelSource:
    if config.debug >= 3:
        for note in notes:
            config.get_logger().info("%s: %s", source.name, note)
        config.get_logger().info("%s: %s", source.name, source.label)
    return replace(with_touched(source), notes=tuple(notes))


def _elementwise(region: Region, name: str, target: Target) -> KernelSource:
    """One loop nest over the outputs, all of one shape."""
    if not all(is_elementwise(op) or isinstance(op, ConstantOp) for op in region.ops):
        raise NotApplicable("not every op is elementwise")
    if len({dims if region.is_static else len(dims) for dims in region.output_dims}) != 1:
        raise NotApplicable("the outputs differ in shape")
    sizes: tuple[Size, ...]
    if region.is_static:
        shapes = collapse([s.shape for s in region.inputs], region.outputs[0].shape)
        sizes = shapes.pop()
        operands: Sequence[tuple[Size, ...]] = shapes
    else:
        sizes, operands = region.output_dims[0], region.input_dims
    inputs = [
        Access(spec.dtype, _strides(dims, sizes))
        for spec, dims in zip(region.inputs, operands, strict=True)
    ]
    everywhere = dense_strides(sizes, [True] * len(sizes))
    outputs = [Access(spec.dtype, everywhere) for spec in region.outputs]

    def body(b: VectorLanes, lanes: Sequence[Lane]) -> list[Lane]:
        known: dict[SSAValue, Lane] = dict(zip(region.block.args, lanes, strict=True))
        return region.evaluate(b, known, region.yielded)

    return elementwise_kernel(name, target, sizes, inputs, outputs, body, num_dims=region.num_dims)


def _strides(dims: Sequence[Size], sizes: Sequence[Size]) -> tuple[Any, ...]:
    """Strides of a dense operand of `dims` that broadcasts over loops of `sizes`."""
    present = [False] * (len(sizes) - len(dims)) + [d != 1 for d in dims]
    return dense_strides(sizes, present)


def _root(region: Region, is_root: Callable[[MgeOp], bool]) -> MgeOp:
    """The one op of the region that is not elementwise."""
    roots = [op for op in region.ops if not (is_elementwise(op) or isinstance(op, ConstantOp))]
    if len(roots) != 1 or not is_root(roots[0]):
        raise NotApplicable("the region has another root")
    return roots[0]


def _reduction(region: Region, name: str, target: Target) -> KernelSource:
    """One reduction, with what feeds it and what follows."""
    root = _root(region, lambda op: op.name in _FOLDS)
    source, total = root.operands[0], root.results[0]
    dtype = from_type(source.type).dtype
    if not is_float(dtype):
        raise NotApplicable(f"a reduction of {dtype.name}")
    arguments: list[SSAValue] = list(region.block.args)
    before = region.slice([source], set(arguments))
    early: list[SSAValue] = [
        a for a in arguments if a is source or any(a in op.operands for op in before)
    ]
    after = [op for op in region.ops if op is not root and op not in before]
    after = [op for op in after if not isinstance(op, ConstantOp)]
    late = [a for a in arguments if any(a in op.operands for op in after)]
    axes = set(_ints(root.attrs["axes"]))
    result = from_type(total.type)
    if region.is_static:
        full = from_type(source.type).shape
        if any(s.shape != result.shape for s in region.outputs):
            raise NotApplicable("an output is not of the result's shape")
        kept_shape = tuple(1 if i in axes else d for i, d in enumerate(full))
        shapes = collapse([*(from_type(v.type).shape for v in early), kept_shape], full)
        sizes: tuple[Size, ...] = shapes.pop()
        kept_dims = shapes.pop() or (1,) * len(sizes)
        operands: list[tuple[Size, ...]] = list(shapes)
        kept = [d != 1 for d in kept_dims]
    else:
        if len(region.ops) != 1:
            raise NotApplicable("run-time sizes with other ops")
        sizes, operands = region.input_dims[0], [region.input_dims[0]]
        kept = [i not in axes for i in range(len(sizes))]
    if not sizes:
        sizes, kept, operands = (1,), [True], [() for _ in early]
    inputs = [
        Access(from_type(v.type).dtype, _strides(dims, sizes))
        for v, dims in zip(early, operands, strict=True)
    ]
    everywhere = dense_strides(sizes, kept)
    outputs = [Access(s.dtype, everywhere) for s in region.outputs]
    late_accesses: list[Access] = []
    for value in late:
        spec = from_type(value.type)
        if spec.is_static and spec.size == 1:
            late_accesses.append(Access(spec.dtype, (0,) * len(sizes)))
        elif spec.shape == result.shape:
            late_accesses.append(Access(spec.dtype, everywhere))
        else:
            raise NotApplicable("an operand broadcasts to the result of the reduction")
    wide = accumulator(dtype)

    def prologue(b: VectorLanes, lanes: Sequence[Lane]) -> list[Lane]:
        known: dict[SSAValue, Lane] = dict(zip(early, lanes, strict=True))
        (value,) = region.evaluate(b, known, [source])
        return [b.convert(value, dtype, wide)]

    def finish(b: VectorLanes, totals: Sequence[Lane], lanes: Sequence[Lane]) -> list[Lane]:
        known: dict[SSAValue, Lane] = dict(zip(late, lanes, strict=True))
        known[total] = b.convert(totals[0], wide, dtype)
        return region.evaluate(b, known, region.yielded)

    made = reduction_kernel(
        name,
        target,
        [Loop(size, keep) for size, keep in zip(sizes, kept, strict=True)],
        inputs,
        outputs,
        [fold_named(_FOLDS[root.name], lane_type(wide))],
        prologue=prologue,
        finish=finish,
        late=late_accesses,
        num_dims=region.num_dims,
    )
    return in_order(made, [arguments.index(v) for v in (*early, *late)], region)


def _whole(region: Region, name: str, target: Target) -> KernelSource:
    """A composite by a template of its own."""
    if len(region.ops) != 1:
        raise NotApplicable("more than one op")
    (op,) = region.ops
    if not _has_template(type(op), op.operand_specs, op.attrs):
        raise NotApplicable("no template of its own")
    arguments: list[SSAValue] = list(region.block.args)
    if any(v not in arguments for v in op.operands) or region.yielded != tuple(op.results):
        raise NotApplicable("the region does more, or less, than the op")
    buffers = [arguments.index(v) for v in op.operands]
    sizes = region.input_dims[buffers[0]]
    dtype = region.inputs[buffers[0]].dtype
    if op.name == "mge.layer_norm":
        trailing = int(str(op.attrs["num_axes"]))
        rows, row = sizes[: len(sizes) - trailing], sizes[len(sizes) - trailing :]
        if len([d for d in row if d != 1]) > 1 and not region.is_static:
            raise NotApplicable("several trailing axes of run-time size")
        made = layer_norm_kernel(
            name,
            target,
            rows or (1,),
            _product(row),
            dtype,
            eps=float(str(op.attrs["eps"])),
            affine=len(op.operands) == 3,
            num_dims=region.num_dims,
        )
    else:
        made = softmax_kernel(
            name,
            target,
            sizes[:-1] or (1,),
            sizes[-1],
            dtype,
            log=op.name == "mge.log_softmax",
            num_dims=region.num_dims,
        )
    return in_order(made, buffers, region)


def _attention(region: Region, name: str, target: Target) -> list[Offer]:
    """Attention over known sizes."""
    if len(region.ops) != 1:
        raise NotApplicable("more than one op")
    (op,) = region.ops
    if op.name != "mge.attention" or region.yielded != tuple(op.results):
        raise NotApplicable("no attention")
    arguments: list[SSAValue] = list(region.block.args)
    if not region.is_static:
        raise NotApplicable("run-time sizes")
    query, key, value, *bias = (from_type(v.type) for v in op.operands)
    shape = AttentionShape.of(query.shape, key.shape, value.shape)

    def make(tiles: Tiles | None) -> KernelSource:
        assert tiles is None or isinstance(tiles, AttentionTiles)
        made = attention_kernel(
            name, target, query.shape, key.shape, value.shape, query.dtype,
            scale=float(str(op.attrs["scale"])), causal=bool(op.attrs["causal"]),
            bias=bias[0].shape if bias else None, tiles=tiles,
        )  # fmt: skip
        return in_order(made, [arguments.index(v) for v in op.operands], region)

    def refit(tiles: Tiles) -> Tiles:
        assert isinstance(tiles, AttentionTiles)
        return tiles.fit(shape, target.lanes(query.dtype.itemsize))

    return [Offer("attention", make, refit=refit)]


def _only_op(region: Region) -> MgeOp:
    """The one op of a region whose inputs and outputs are its operands and results, in order."""
    if len(region.ops) != 1:
        raise NotApplicable("more than one op")
    (op,) = region.ops
    if tuple(op.operands) != tuple(region.block.args) or region.yielded != tuple(op.results):
        raise NotApplicable("an operand is used twice, or a result is not used")
    return op


_POOLINGS: dict[str, Callable[[Region], tuple[tuple[Size, ...], tuple[Size, ...]]]] = {
    "max_pool": lambda r: (r.input_dims[0], r.output_dims[0]),
    "max_pool_grad": lambda r: (r.input_dims[1], r.input_dims[0]),
    "max_pool_pick": lambda r: (r.input_dims[0], r.output_dims[0]),
    "avg_pool": lambda r: (r.input_dims[0], r.output_dims[0]),
    "avg_pool_grad": lambda r: (r.output_dims[0], r.input_dims[0]),
}
"""Sizes of the image and of the windows."""


def _pooling(region: Region, name: str, target: Target) -> KernelSource:
    """A pooling op or the gradient of one."""
    op = _only_op(region)
    kind = op.name.removeprefix("mge.")
    if kind not in _POOLINGS:
        raise NotApplicable("no pooling")
    image, windows = _POOLINGS[kind](region)
    return pooling_kernel(
        kind,
        name,
        target,
        image,
        windows,
        Window.of(op.attrs, len(image) - 2),
        region.inputs[0].dtype,
        num_dims=region.num_dims,
    )


def _movement(region: Region, name: str, target: Target) -> KernelSource:
    """An op that moves data."""
    op = _only_op(region)
    attrs: dict[str, Any] = dict(op.attrs)
    if "mge.runtime_attrs" in op.attributes:  # after the sizes, in the order of the op
        sizes = [d for dims in (*region.input_dims, *region.output_dims) for d in dims]
        position = sum(isinstance(d, DimRef) for d in sizes)
        for key in op.runtime_attrs:
            several = isinstance(attrs[key], tuple)
            count = len(_ints(attrs[key])) if several else 1
            refs = tuple(DimRef(position + i) for i in range(count))
            attrs[key] = refs if several else refs[0]
            position += count
    dtypes = tuple(s.dtype for s in (*region.inputs, *region.outputs))
    call = Call(
        op.name.removeprefix("mge."),
        region.input_dims,
        region.output_dims[0],
        dtypes,
        attrs,
        region.num_dims,
    )
    return movement_kernel(name, target, call)


_Template = Callable[[Region, str, Target], list[Offer]]


def _plain(make: Callable[[Region, str, Target], KernelSource]) -> _Template:
    """A template without a choice: what it makes is what it offers."""

    def template(region: Region, name: str, target: Target) -> list[Offer]:
        source = make(region, name, target)
        return [Offer(source.template, lambda _: source)]

    return template


_TEMPLATES: dict[str, _Template] = {
    "elementwise": _plain(_elementwise),
    "convolution": convolution_offers,
    "transposed": transposed_offers,
    "contraction": contraction_offers,
    "reduction": _plain(_reduction),
    "whole": _plain(_whole),
    "attention": _attention,
    "pooling": _plain(_pooling),
    "movement": _plain(_movement),
}
"""In the order in which they are asked."""

_RIVALS: tuple[_Template, ...] = (product_offers,)
"""Never the default, but candidates."""


def _product(sizes: Sequence[Size]) -> Size:
    known = 1
    for size in sizes:
        if isinstance(size, DimRef):
            return size
        known *= size
    return known


def _ints(value: object) -> tuple[int, ...]:
    assert isinstance(value, tuple)
    return cast("tuple[int, ...]", value)
