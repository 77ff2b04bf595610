"""The one module that imports the upstream MLIR bindings.

The `torch-mlir` wheel carries complete bindings (LLVM trunk); the `mlir-python-bindings`
package is preferred when a real one is installed. Everything else in mgec asks here.
"""

# The bindings have no types, and one of the two packages is always missing.
# pyright: reportMissingTypeStubs=false, reportMissingImports=false
# pyright: reportUnknownVariableType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache
from typing import Any

from mgec.errors import CompileError


@cache
def _modules() -> tuple[Any, Any, Any]:
    try:
        from mlir import ir, passmanager
        from mlir.dialects import llvm
    except ImportError:
        from torch_mlir import ir, passmanager
        from torch_mlir.dialects import llvm
    return ir, passmanager, llvm


@cache
def _linalg() -> Any:
    try:
        from mlir.dialects import linalg
    except ImportError:
        from torch_mlir.dialects import linalg
    return linalg


@cache
def context() -> Any:
    """The process's MLIR context (single-threaded: kernels are small, processes scale)."""
    ir, _, _ = _modules()
    made = ir.Context()
    made.enable_multithreading(False)
    return made


def parse(text: str) -> Any:
    """Parses and verifies a module.

    Raises:
        CompileError: with MLIR's diagnostics.
    """
    ir, _, _ = _modules()
    with context():
        try:
            return ir.Module.parse(text)
        except ir.MLIRError as error:
            raise CompileError(f"MLIR does not accept the module: {_first_line(error)}") from error


def run_passes(module: Any, pipeline: str) -> None:
    """Runs a textual pass pipeline in place.

    Raises:
        CompileError: if a pass fails, or there is no such pass.
    """
    ir, passmanager, _ = _modules()
    with context():
        try:
            passmanager.PassManager.parse(pipeline).run(module.operation)
        except (ir.MLIRError, ValueError) as error:
            raise CompileError(f"an MLIR pass failed: {_first_line(error)}") from error


def copies_to_loops(module: Any) -> None:
    """Replaces `memref.copy` by `linalg.copy`, which becomes a loop instead of a library call."""
    ir, _, _ = _modules()
    copies: list[Any] = []

    def visit(op: Any) -> Any:
        if op.name == "memref.copy":
            copies.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    if not copies:
        return
    linalg = _linalg()
    with context():
        for op in copies:
            with ir.InsertionPoint(op), op.location:
                linalg.copy(op.operands[0], outs=[op.operands[1]])
            op.erase()


def to_llvm_ir(module: Any) -> str:
    """Translates a module in the llvm dialect to LLVM IR text.

    Raises:
        CompileError: if an op outside the llvm dialect is left. (The translation itself
            aborts the process on such a module, so that is checked first.)
    """
    _, _, llvm = _modules()
    with context():
        for op in _walk(module.operation):
            if op not in ("builtin.module",) and not op.startswith("llvm."):
                raise CompileError(f"{op} was not lowered to the llvm dialect")
        return llvm.translate_module_to_llvmir(module.operation)


def _walk(operation: Any) -> list[str]:
    names: list[str] = []
    ir, _, _ = _modules()

    def visit(op: Any) -> Any:
        names.append(op.name)
        return ir.WalkResult.ADVANCE

    operation.walk(visit)
    return names


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])
