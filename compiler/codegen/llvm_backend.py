"""Upstream MLIR to machine code: pass pipelines, LLVM IR, object files, in-process loading."""

# llvmlite has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
import struct
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from mgec.compiler import mlir
from mgec.compiler.codegen.support import support_functions
from mgec.compiler.kernels.source import CompiledKernel, KernelSource
from mgec.compiler.targets import Target
from mgec.errors import CompileError

_BUFFERIZE = (
    "canonicalize,func.func(linalg-fuse-elementwise-ops),canonicalize,"
    "eliminate-empty-tensors,empty-tensor-to-alloc-tensor,"
    "one-shot-bufferize{allow-return-allocs-from-loops=1},"
    "func.func(buffer-hoisting,promote-buffers-to-stack{max-alloc-size-in-bytes=4096}),"
    "canonicalize,cse,buffer-deallocation-pipeline"
)
_TO_LLVM = (
    "func.func(convert-linalg-to-loops),canonicalize,cse,func.func(convert-vector-to-scf),expand-strided-metadata,lower-affine,"
    "arith-expand{include-bf16=true},convert-scf-to-cf,"
    "convert-vector-to-llvm{%(vector)sreassociate-fp-reductions=1},"
    "convert-math-to-llvm,convert-math-to-libm,"
    "finalize-memref-to-llvm,convert-func-to-llvm{use-bare-ptr-memref-call-conv=1},"
    "convert-index-to-llvm,convert-arith-to-llvm,convert-cf-to-llvm,convert-ub-to-llvm,"
    "canonicalize,reconcile-unrealized-casts"
)

_VECTOR_OPTIONS = {"x86_64": "enable-x86=1 ", "aarch64": "enable-arm-neon=1 "}


def to_llvm_ir(source: KernelSource, target: Target) -> str:
    """LLVM IR text of a kernel, with the wrapper that unpacks its tables."""
    module = mlir.parse(source.text)
    if source.stage == "linalg":
        mlir.run_passes(module, f"builtin.module({_BUFFERIZE})")
        mlir.copies_to_loops(module)
    vector = _VECTOR_OPTIONS[target.architecture]
    mlir.run_passes(module, f"builtin.module({_TO_LLVM % {'vector': vector}})")
    text = for_llvmlite(mlir.to_llvm_ir(module))
    body = f"@{source.name}_body("
    text = text.replace(f"define void {body}", f"define internal void {body}", 1)
    return text + _wrapper(source) + support_functions(text, target)


def compile_kernel(source: KernelSource, target: Target) -> CompiledKernel:
    """Compiles one kernel to an object file for `target`.

    Raises:
        CompileError: if MLIR or LLVM refuses the kernel.
    """
    text = to_llvm_ir(source, target)
    code = emit_object(text, target, optimize=source.stage == "linalg")
    return CompiledKernel(
        source.name,
        code,
        source.num_buffers,
        source.num_dims,
        source.units,
        source.scratch_bytes,
        source.template,
        source.flops,
        source.workspace_bytes,
        source.packing,
        None if source.then is None else compile_kernel(source.then, target),
        source.label,
        source.performed_flops,
        source.touched,
        source.notes,
    )


def _wrapper(source: KernelSource) -> str:
    """`void name(ptr buffers, ptr dims, i64 begin, i64 end)` around the body.

    It is weak: the names of a graph's kernels say what they contain, so that linked objects of
    two models may hold the same kernel.
    """
    table = "ptr %buffers, ptr %dims, i64 %begin, i64 %end"
    lines = [f"define weak_odr void @{source.name}({table}) {{"]
    arguments: list[str] = []
    for i, entry in enumerate(source.order or range(source.num_buffers)):
        lines.append(f"  %pp{i} = getelementptr ptr, ptr %buffers, i64 {entry}")
        lines.append(f"  %p{i} = load ptr, ptr %pp{i}, align 8")
        arguments.append(f"ptr %p{i}")
    for i in range(source.num_dims):
        lines.append(f"  %pd{i} = getelementptr i64, ptr %dims, i64 {i}")
        lines.append(f"  %d{i} = load i64, ptr %pd{i}, align 8")
        arguments.append(f"i64 %d{i}")
    arguments += ["i64 %begin", "i64 %end"]
    lines.append(f"  call void @{source.name}_body({', '.join(arguments)})")
    lines += ["  ret void", "}"]
    return "\n".join(lines) + "\n"


# -- LLVM through llvmlite -------------------------------------------------------------


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@cache
def target_machine(target: Target) -> Any:
    """llvmlite's target machine for `target` (position-independent code, -O3)."""
    _initialize()
    made = llvm.Target.from_triple(target.triple)
    return made.create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="default"
    )


def emit_object(text: str, target: Target, *, optimize: bool) -> bytes:
    """Object code of LLVM IR text.

    Args:
        text: LLVM IR that llvmlite's LLVM parses (see `for_llvmlite`).
        target: what to compile for.
        optimize: run LLVM's -O3 pipeline. Template kernels do without: it was measured to
            change nothing but the compile time (docs/decisions).

    Raises:
        CompileError: if LLVM does not accept the text.
    """
    machine = target_machine(target)
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM does not accept the kernel: {error}") from error
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    if optimize:
        tuning = llvm.create_pipeline_tuning_options(speed_level=3)
        tuning.loop_vectorization = True
        tuning.slp_vectorization = True
        builder = llvm.create_pass_builder(machine, tuning)
        builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def assembly(text: str, target: Target) -> str:
    """Assembly of LLVM IR text, for people."""
    machine = target_machine(target)
    module = llvm.parse_assembly(text)
    module.triple = target.triple
    return machine.emit_assembly(module)


class KernelLoader:
    """Loads object files into this process; keeps them loaded as long as it lives."""

    def __init__(self) -> None:
        _initialize()
        machine = llvm.Target.from_default_triple().create_target_machine(opt=3)
        self._jit = llvm.create_lljit_compiler(machine, use_jit_link=False)
        self._trackers: list[Any] = []
        self._count = 0

    def load(self, kernel: CompiledKernel) -> int:
        """The address of the kernel's function."""
        self._count += 1
        library = (
            llvm.JITLibraryBuilder()
            .add_object_img(kernel.object_code)
            .add_current_process()
            .export_symbol(kernel.name)
            .link(self._jit, f"kernel{self._count}")
        )
        self._trackers.append(library)
        return int(library[kernel.name])


# -- version skew ----------------------------------------------------------------------
# The MLIR wheel's LLVM prints floating point constants as f0x<bits> or as the shortest
# decimal; llvmlite's LLVM 22 wants exact hexadecimal. The type is the last one named on
# the line before the constant.

_TOKEN = re.compile(
    r"\b(float|double|half|bfloat)\b"
    r"|f0x([0-9A-Fa-f]+)"
    r"|(?<![\w.%@\"])([-+]?\d+\.\d*(?:e[+-]?\d+)?|[-+](?:inf|q?nan))(?![\w.])"
)
_SUSPECT = re.compile(r"f0x|\d\.|[-+]inf|[-+]q?nan")


def for_llvmlite(text: str) -> str:
    """Rewrites LLVM IR text of the MLIR wheel into what llvmlite's LLVM accepts."""
    return "\n".join(
        _exact_constants(line) if _SUSPECT.search(line) and line[:1] not in ";!" else line
        for line in text.split("\n")
        if not line.startswith(("source_filename", "target "))
    )


def _exact_constants(line: str) -> str:
    kind = ""

    def replace(match: re.Match[str]) -> str:
        nonlocal kind
        if match[1]:
            kind = match[1]
            return match[0]
        if match[2]:
            return _from_bits(int(match[2], 16), kind)
        value = float(match[3].replace("qnan", "nan"))
        if not kind:
            return match[0]
        return _from_bits(_bits(value, kind), kind)

    return _TOKEN.sub(replace, line)


def _bits(value: float, kind: str) -> int:
    if kind == "double":
        return struct.unpack("<Q", struct.pack("<d", value))[0]
    if kind == "float":
        return int(np.float32(value).view(np.uint32))
    if kind == "half":
        return int(np.float16(value).view(np.uint16))
    import ml_dtypes

    return int(np.array(value, ml_dtypes.bfloat16).view(np.uint16))


def _from_bits(bits: int, kind: str) -> str:
    if kind == "half":
        return f"0xH{bits:04X}"
    if kind == "bfloat":
        return f"0xR{bits:04X}"
    if kind == "double":
        return f"0x{bits:016X}"
    wide = struct.unpack("<f", struct.pack("<I", bits))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', wide))[0]:016X}"
