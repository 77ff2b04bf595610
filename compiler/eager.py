"""Kernels for eager mode: one op, sizes at run time, compiled once per rank and dtype."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from xdsl.dialects.builtin import UnitAttr
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block

from mgec import config
from mgec.compiler import cache as disk
from mgec.compiler.kernels.compile import compile_region
from mgec.compiler.kernels.source import CompiledKernel, Units
from mgec.compiler.targets import Target, target_named
from mgec.dialects.mge.op import MgeOp, Plain, abstract
from mgec.dialects.mge.spec import TensorSpec, to_type

KERNEL_FUNCTION = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)


@dataclass(frozen=True)
class EagerKernel:
    """A loaded kernel; see `KernelSource` for the meaning of the fields."""

    function: Any
    address: int
    num_buffers: int
    num_dims: int
    units: Units
    scratch_bytes: int
    template: str


_kernels: dict[str, EagerKernel] = {}


def eager_kernel(
    op: type[MgeOp],
    inputs: Sequence[TensorSpec | None],
    outputs: Sequence[TensorSpec],
    attrs: Mapping[str, Plain],
) -> EagerKernel:
    """The kernel of one op for tensors of these ranks and dtypes.

    Args:
        op: the op; it has a lowering of its own.
        inputs: specs of the operands; only rank, dtype and which sizes are 1 matter.
        outputs: specs of the results, likewise.
        attrs: plain attributes; run-time attributes do not matter.

    Returns:
        A kernel that takes, in its dims table, every size that is not 1 of the inputs then
        the outputs, then the run-time attributes.
    """
    ins = [None if s is None else abstract(s) for s in inputs]
    outs = [abstract(s) for s in outputs]
    static = {k: v for k, v in attrs.items() if k not in op.runtime_attrs}
    lengths = [_length(attrs[k]) for k in op.runtime_attrs]
    description = f"eager {op.name} {ins} {outs} {sorted(static.items(), key=str)} {lengths}"
    target = target_named(config.target)
    key = disk.kernel_key(description, target.key)
    if (kernel := _kernels.get(key)) is None:
        compiled = disk.load(key)
        if compiled is None:
            compiled = _compile(op, ins, outs, attrs, f"k{key[:16]}", target)
            disk.store(key, compiled)
        kernel = _kernels[key] = load_kernel(compiled)
    return kernel


def load_kernel(compiled: CompiledKernel) -> EagerKernel:
    """Loads a compiled kernel into this process."""
    address = _loader().load(compiled)
    return EagerKernel(
        function=KERNEL_FUNCTION(address),
        address=address,
        num_buffers=compiled.num_buffers,
        num_dims=compiled.num_dims,
        units=compiled.units,
        scratch_bytes=compiled.scratch_bytes,
        template=compiled.template,
    )


@cache
def _loader() -> Any:
    from mgec.compiler.codegen.llvm_backend import KernelLoader

    return KernelLoader()


def _compile(
    op: type[MgeOp],
    ins: Sequence[TensorSpec | None],
    outs: Sequence[TensorSpec],
    attrs: Mapping[str, Plain],
    name: str,
    target: Target,
) -> CompiledKernel:
    block = Block(arg_types=[to_type(s) for s in ins if s is not None])
    arguments = iter(block.args)
    operands = [None if s is None else next(arguments) for s in ins]
    made = op.create_with_types(operands, attrs, [to_type(s) for s in outs])
    if op.runtime_attrs:
        made.attributes["mge.runtime_attrs"] = UnitAttr()
    block.add_op(made)
    block.add_op(ReturnOp(*made.results))
    return compile_region(block, name, target, title=op.name.removeprefix("mge."))


def _length(value: Any) -> int:
    return len(cast("tuple[int, ...]", value)) if isinstance(value, tuple) else 1
