"""The kernel that every op has: its region as linalg on tensors, in one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from xdsl.builder import Builder
from xdsl.dialects import bufferization, builtin, func, memref
from xdsl.ir import Attribute, Block, SSAValue
from xdsl.rewriter import InsertPoint

from mgec.compiler.handoff import to_upstream_text
from mgec.compiler.kernels.source import KernelSource
from mgec.compiler.targets import Target
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.lane import storage_type
from mgec.dialects.mge.linalg import (
    Dim,
    LinalgBuilder,
    LoweringCall,
    lower_elementwise,
    mlir_type,
)
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.rules import decomposition, lanes, lowering
from mgec.dialects.mge.spec import DYNAMIC, TensorSpec, from_type

_INDEX = builtin.IndexType()


def lowering_rule(op: type[MgeOp]) -> Callable[[LinalgBuilder, LoweringCall], Any]:
    """The rule that lowers `op` to linalg; elementwise ops share one."""
    return lower_elementwise if op in lanes else lowering[op]


def linalg_kernel(block: Block, name: str, target: Target) -> KernelSource:
    """Lowers a block of mge ops to a kernel that always works.

    Args:
        block: arguments are the kernel's inputs; the terminator's operands its outputs.
        name: symbol of the kernel.
        target: decides whether multiply-add may fuse.

    Returns:
        A kernel of one unit of work whose buffers are the inputs then the outputs, and
        whose dims are the run-time sizes of the inputs, of the outputs, then the run-time
        attributes of the ops, each in order.
    """
    module, num_dims = lower_to_linalg(block, f"{name}_body", target)
    terminator = block.last_op
    assert terminator is not None
    return KernelSource(
        name=name,
        text=to_upstream_text(module),
        num_buffers=len(block.args) + len(terminator.operands),
        num_dims=num_dims,
        stage="linalg",
        template="linalg",
    )


def lower_to_linalg(block: Block, symbol: str, target: Target) -> tuple[builtin.ModuleOp, int]:
    """The module `linalg_kernel` prints, and how many run-time sizes its function takes."""
    terminator = block.last_op
    assert terminator is not None
    inputs = [from_type(a.type) for a in block.args]
    outputs = [from_type(v.type) for v in terminator.operands]
    ops = [op for op in block.ops if op is not terminator]
    runtime = [(op, key) for op in ops if isinstance(op, MgeOp) for key in _runtime_attrs(op)]
    num_sizes = sum(s.shape.count(DYNAMIC) for s in (*inputs, *outputs))
    num_attrs = sum(len(cast("tuple[int, ...]", _as_tuple(op.attrs[key]))) for op, key in runtime)
    num_dims = num_sizes + num_attrs

    argument_types: list[Attribute] = [_memref(s) for s in (*inputs, *outputs)]
    argument_types += [_INDEX] * (num_dims + 2)
    function = func.FuncOp(symbol, (argument_types, []))
    noalias = builtin.DictionaryAttr({"llvm.noalias": builtin.UnitAttr()})
    pointers = len(inputs) + len(outputs)
    function.arg_attrs = builtin.ArrayAttr(
        [noalias] * pointers + [builtin.DictionaryAttr({})] * (num_dims + 2)
    )
    body = function.body.block
    builder = Builder(InsertPoint.at_end(body))
    b = LinalgBuilder(builder, None, has_fma=target.has_fma)
    sizes = iter(body.args[pointers : pointers + num_dims])

    buffers: list[SSAValue] = []
    all_dims: list[tuple[Dim, ...]] = []
    for argument, spec in zip(body.args[:pointers], (*inputs, *outputs), strict=True):
        dims = tuple(d if d != DYNAMIC else next(sizes) for d in spec.shape)
        buffers.append(_view(b, argument, spec, dims))
        all_dims.append(dims)
    attrs: dict[tuple[int, str], Any] = {}
    for op, key in runtime:
        value = op.attrs[key]
        taken = tuple(next(sizes) for _ in cast("tuple[int, ...]", _as_tuple(value)))
        attrs[id(op), key] = taken if isinstance(value, tuple) else taken[0]

    values: dict[SSAValue, SSAValue] = {}
    for argument, buffer, dims in zip(block.args, buffers, all_dims, strict=False):
        to_tensor = bufferization.ToTensorOp(buffer, restrict=True)
        b.insert(to_tensor)
        b.set_dims(to_tensor.tensor, dims)
        values[argument] = to_tensor.tensor
    output_dims = dict(zip(terminator.operands, all_dims[len(inputs) :], strict=True))
    for op in ops:
        assert isinstance(op, MgeOp), f"{op.name} is not an mge op"
        _lower_op(b, op, values, output_dims, attrs)
    b.location = None
    for value, buffer in zip(terminator.operands, buffers[len(inputs) :], strict=True):
        b.insert(
            bufferization.MaterializeInDestinationOp.create(
                operands=[values[value], buffer],
                properties={"restrict": builtin.UnitAttr(), "writable": builtin.UnitAttr()},
            )
        )
    b.insert(func.ReturnOp())
    return builtin.ModuleOp([function]), num_dims


def _lower_op(
    b: LinalgBuilder,
    op: MgeOp,
    values: dict[SSAValue, SSAValue],
    output_dims: dict[SSAValue, tuple[Dim, ...]],
    runtime: dict[tuple[int, str], Any],
) -> None:
    """Lowers one op, through its decomposition if it is a composite."""
    cls = type(op)
    b.location = op.location
    if cls not in lanes and cls not in lowering:
        if not all(s.is_static for s in op.result_specs):
            raise AssertionError(f"{op.name}: a composite must be decomposed before lowering")
        inner = Block(arg_types=[v.type for v in op.operands])
        ir = IRBuilder(Builder(InsertPoint.at_end(inner)), op.location)
        present = iter(inner.args)
        arguments = [None if v is None else next(present) for v in op.operand_list]
        results = _as_tuple(decomposition[cls](ir, *arguments, **op.attrs))
        scope: dict[SSAValue, SSAValue] = dict(
            zip(inner.args, (values[v] for v in op.operands), strict=True)
        )
        for inner_op in inner.ops:
            assert isinstance(inner_op, MgeOp)
            _lower_op(b, inner_op, scope, {}, {})
        for result, value in zip(op.results, results, strict=True):
            values[result] = scope[value]
        return
    attrs = {key: runtime.get((id(op), key), value) for key, value in op.attrs.items()}
    dims = tuple(
        output_dims.get(result, spec.shape)
        for result, spec in zip(op.results, op.result_specs, strict=True)
    )
    call = LoweringCall(
        op=cls,
        inputs=tuple(None if v is None else values[v] for v in op.operand_list),
        specs=tuple(op.operand_specs),
        output_specs=op.result_specs,
        attrs=attrs,
        output_dims=dims,
    )
    results = _as_tuple(lowering_rule(cls)(b, call))
    for old, new in zip(op.results, results, strict=True):
        values[old] = new


def _runtime_attrs(op: MgeOp) -> Sequence[str]:
    """Run-time attributes, for an op over run-time shapes; a static op keeps them static."""
    static = all(s.is_static for s in op.result_specs)
    return () if static and "mge.runtime_attrs" not in op.attributes else op.runtime_attrs


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)


def _memref(spec: TensorSpec) -> Attribute:
    element = mlir_type(storage_type(spec.dtype))
    return builtin.MemRefType(element, spec.shape if _is_plain(spec) else (1,))


def _is_plain(spec: TensorSpec) -> bool:
    """Whether a bare pointer can stand for it: MLIR has no such arguments of size 0."""
    return spec.is_static and 0 not in spec.shape


def _view(b: LinalgBuilder, argument: SSAValue, spec: TensorSpec, dims: Sequence[Dim]) -> SSAValue:
    """The argument as a memref of its run-time shape."""
    if _is_plain(spec):
        return argument
    strides: list[Dim] = [1]
    for dim in reversed(dims[1:]):
        strides.insert(0, b.mul(strides[0], dim))
    static_strides = [s if isinstance(s, int) else DYNAMIC for s in strides]
    layout = builtin.StridedLayoutAttr(
        [builtin.IntAttr(s) if isinstance(s, int) else builtin.NoneAttr() for s in strides]
    )
    result = builtin.MemRefType(mlir_type(storage_type(spec.dtype)), spec.shape, layout)
    new = memref.ReinterpretCastOp(
        argument,
        [],
        [d for d in dims if not isinstance(d, int)],
        [s for s in strides if not isinstance(s, int)],
        [0],
        [d if isinstance(d, int) else DYNAMIC for d in dims],
        static_strides,
        result,
    )
    b.insert(new)
    dense = builtin.MemRefType(mlir_type(storage_type(spec.dtype)), spec.shape)
    cast_op = memref.CastOp.create(operands=[new.result], result_types=[dense])
    b.insert(cast_op)
    return cast_op.results[0]
