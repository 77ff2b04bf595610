"""From a region of mge ops to machine code, and what to do when that fails."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region, SSAValue

from mgec import config
from mgec.compiler.kernels.select import select_kernel
from mgec.compiler.kernels.source import CompiledKernel
from mgec.compiler.targets import Target
from mgec.errors import CompileError


def compile_region(
    block: Block,
    name: str,
    target: Target,
    in_place: Mapping[int, int] | None = None,
    *,
    constants: Sequence[int] = (),
    title: str = "",
    label: str | None = None,
) -> CompiledKernel:
    """Compiles the block of a kernel.

    Args:
        block: arguments are the inputs; the terminator's operands the outputs.
        name: symbol of the kernel.
        target: what to compile for.
        in_place: result index -> input index whose buffer it overwrites.
        constants: inputs that are constants, which the kernel may ask to be packed.
        title: what to call the kernel in an error.
        label: of the candidate to take, if it is not the default.

    Raises:
        CompileError: if a template, MLIR or LLVM fails; a reproducer has been written.
    """
    from mgec.compiler.codegen.llvm_backend import compile_kernel

    try:
        source = select_kernel(block, name, target, in_place, constants, label)
        return compile_kernel(source, target)
    except CompileError as error:
        path = write_reproducer(block, name, target)
        raise CompileError(
            f"kernel {title or name}: {error.headline}",
            values=error.values,
            reproducer=str(path),
        ) from error


def write_reproducer(block: Block, name: str, target: Target) -> Path:
    """Writes a module that holds the kernel's region as a function.

    Returns:
        The file, in the dump folder if there is one, else in the folder for temporary files.
    """
    copy = Region(Block(arg_types=[a.type for a in block.args]))
    mapping: dict[SSAValue, SSAValue] = dict(zip(block.args, copy.block.args, strict=True))
    for op in block.ops:
        if op is block.last_op:
            copy.block.add_op(ReturnOp(*(mapping[v] for v in op.operands)))
            break
        clone = op.clone(value_mapper=mapping)
        copy.block.add_op(clone)
        mapping.update(zip(op.results, clone.results, strict=True))
    terminator = copy.block.last_op
    assert terminator is not None
    types = [a.type for a in copy.block.args], [v.type for v in terminator.operands]
    module = ModuleOp([FuncOp("main", types, copy)])
    folder = config.dump or Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"mgec-{name}.mlir"
    path.write_text(f"// mgec compile {path.name} --target {target.name}\n{module}\n")
    return path
