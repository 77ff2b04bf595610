"""Writing what the compiler has after each phase."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mgec.compiler.loading import save_graph
from mgec.compiler.pipeline import KERNEL_PHASES, PHASES
from mgec.errors import FileError

if TYPE_CHECKING:
    from mgec.compiler.graph_module import GraphModule
    from mgec.compiler.targets import Target


class PhaseWriter:
    """Writes every phase into numbered folders.

        DIR/00-trace/main.mlir (and main.safetensors)    .. 02-kernels
        DIR/03-linalg/000-matmul_add_relu.mlir           .. 06-object, one file per kernel
        DIR/commands.txt                                 what runs each of them again

    Args:
        folder: where; made if it is not there.
        target: what is compiled for.
        optimize: as for `compile_graph`.
    """

    def __init__(self, folder: Path, target: Target, *, optimize: bool) -> None:
        self._folder = folder
        self._target = target
        self._flags = f"--target {target.name} --opt-level {2 if optimize else 0}"
        self._commands: list[str] = []

    def after_phase(self, phase: str, graph: GraphModule) -> None:
        """Writes a phase of the graph; after `kernels` also those of each kernel."""
        file = self._path(phase) / "main.mlir"
        save_graph(graph, file)
        self._commands.append(
            f"mgec compile {file} --compile-from {phase} {self._flags} -o main.mge\n"
        )
        if phase == "kernels":
            for kernel_phase, name, data in kernel_forms(graph, self._target, KERNEL_PHASES):
                write(self._path(kernel_phase) / name, data)
            write(self._folder / "commands.txt", "".join(self._commands).encode())

    def _path(self, phase: str) -> Path:
        return self._folder / f"{PHASES.index(phase):02d}-{phase}"


def kernel_forms(
    graph: GraphModule, target: Target, phases: Sequence[str]
) -> Iterator[tuple[str, str, bytes]]:
    """Every distinct kernel of a graph, in the forms it takes on its way to machine code.

    Args:
        graph: after the phase `kernels`.
        target: what to compile for.
        phases: which forms: "linalg" for any MLIR compiler, "vector" as the chosen template
            wrote it, "llvm" as LLVM IR, "object" as machine code and as assembly.

    Yields:
        The phase, a file name, and what to write into it.
    """
    from mgec.compiler.assemble import canonical_text, constant_operands
    from mgec.compiler.codegen import llvm_backend
    from mgec.compiler.kernels.select import select_kernel
    from mgec.compiler.lowering.linalg_kernel import linalg_kernel
    from mgec.dialects.mge.kernel import KernelOp

    seen: set[str] = set()
    for op in graph.main.body.block.ops:
        if not isinstance(op, KernelOp):
            continue
        constants = constant_operands(op)
        if (text := canonical_text(op, constants)) in seen:
            continue
        symbol = re.sub(r"\W", "_", op.kernel_name.data)[:60] or "kernel"
        name = f"{len(seen):03d}-{symbol}"
        seen.add(text)
        block = op.body.block
        if "linalg" in phases:
            yield "linalg", f"{name}.mlir", linalg_kernel(block, symbol, target).text.encode()
        if not {"vector", "llvm", "object"} & set(phases):
            continue
        source = select_kernel(block, symbol, target, op.in_place, constants)
        for number, stage in enumerate(source.stages):
            part = f"{name}-{number}" if number else name
            if "vector" in phases:
                yield "vector", f"{part}.mlir", stage.text.encode()
            if not {"llvm", "object"} & set(phases):
                continue
            llvm_text = llvm_backend.to_llvm_ir(stage, target)
            if "llvm" in phases:
                yield "llvm", f"{part}.ll", llvm_text.encode()
            if "object" in phases:
                code = llvm_backend.compile_kernel(stage, target).object_code
                yield "object", f"{part}.o", code
                yield "object", f"{part}.s", llvm_backend.assembly(llvm_text, target).encode()


def write(file: Path, data: bytes) -> None:
    """Writes a file, and its folder if need be.

    Raises:
        FileError: if that fails.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except OSError as error:
        raise FileError(
            f"cannot write {file}: {error.strerror or error}",
            fix="choose a folder that can be made and written",
        ) from error
