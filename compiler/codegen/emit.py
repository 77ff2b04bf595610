"""Plain files for C: a shared object, an object or a program that holds one model, and its header.

    lenet.so, lenet.o    exports lenet_create, lenet_run, lenet_destroy and nothing else
    lenet.h              declares them; needs no other header of mgec
    lenet                a program: `lenet image.bin logits.bin`

Each holds the kernels that the model uses, its program as tables, its weights as read-only data
and the native runtime. All of the runtime is `static` in it, so that any number of models, of any
versions of mgec, fit into one program. Kernels are weak symbols named after their contents: two
models that share one may be linked together.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import mgec.runtime
from mgec.compiler.codegen.link import run_compiler, write_objects
from mgec.errors import CompileError, FileError, OptionError
from mgec.runtime.artifact import DTYPE_BYTES, IOSpec
from mgec.runtime.native import ALIGNMENT, STEP_SERIAL
from mgec.version import __version__

if TYPE_CHECKING:
    from mgec.compiler.api import CompiledGraph

KINDS = {"so": ".so", "obj": ".o", "header": ".h", "exe": ""}
"""What can be emitted, and how the names of the files end."""

MAX_WEIGHT_BYTES = 1 << 30
"""Code reaches its data with 32-bit displacements, so more weights do not fit beside it."""

_WEIGHTS = "weights.bin"
_RUNTIME = ("memory.c", "sleep.c", "pool.c", "program.c", "model.c")
_C_TYPES = {"float32": "float", "float64": "double"}


def emit(compiled: CompiledGraph, kind: str, path: str | Path, *, name: str = "main") -> list[Path]:
    """Writes a compiled graph as files that C programs link, load or run.

    Args:
        compiled: the graph; its target decides for which machine.
        kind: a key of `KINDS`; "so" and "obj" come with a header beside them.
        path: the file to write.
        name: the model's name, which its functions begin with.

    Returns:
        The files that were written.

    Raises:
        OptionError: if the weights are too large to be embedded, or `path` is the header's.
        CompileError: if there is no C compiler for the target, or it fails.
        FileError: if a file cannot be written.
    """
    output = Path(path)
    if kind in ("so", "obj") and output.suffix == KINDS["header"]:
        raise OptionError(
            f"--emit {kind}: the header goes to {output}, so nothing else can",
            fix=f"write to {output.with_suffix(KINDS[kind])}",
        )
    model = _Model(compiled, c_name(name), name)
    if kind == "header":
        _write(output, model.header().encode())
        return [output]
    if len(compiled.weights) > MAX_WEIGHT_BYTES:
        raise OptionError(
            f"--emit {kind}: {name} has {len(compiled.weights)} bytes of weights, and at most "
            f"{MAX_WEIGHT_BYTES} fit into a linked file",
            fix="use --emit mge, whose weights are mapped from the file",
        )
    with tempfile.TemporaryDirectory(prefix="mgec-emit-") as folder:
        built = model.build(kind, Path(folder))
        _write(output, built.read_bytes(), executable=kind == "exe")
    if kind == "exe":
        return [output]
    header = output.with_suffix(".h")
    _write(header, model.header().encode())
    return [output, header]


def c_name(name: str) -> str:
    """A name as part of a C identifier: what C does not allow becomes an underscore."""
    made = re.sub(r"\W", "_", name, flags=re.ASCII)
    return made if made[:1].isalpha() else f"m{made}"


def _write(path: Path, data: bytes, *, executable: bool = False) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # not into a file that is mapped, or runs
        path.write_bytes(data)
        if executable:
            path.chmod(path.stat().st_mode | 0o111)
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror or error}", fix="choose another folder"
        ) from error


class _Model:
    """The C text of one model.

    Args:
        compiled: the graph.
        symbol: what its functions begin with.
        name: what it calls itself.
    """

    def __init__(self, compiled: CompiledGraph, symbol: str, name: str) -> None:
        self.compiled = compiled
        self.symbol = symbol
        self.name = name
        self.inputs, self.outputs = compiled.io
        self.parameters = _parameters(self.inputs, "in") + _parameters(self.outputs, "out")

    # -- files ---------------------------------------------------------------------------

    def build(self, kind: str, folder: Path) -> Path:
        """Compiles and links everything; returns the file, which lies in `folder`."""
        native = Path(str(mgec.runtime.__file__)).parent / "native"
        (folder / _WEIGHTS).write_bytes(self.compiled.weights)
        (folder / "emitted.c").write_text(self.source(main=kind == "exe"))
        target = self.compiled.target
        include = [f"-I{native}", f"-I{native.parent / 'include'}"]
        options = ["-O2", "-g0", "-std=gnu11", "-fPIC", "-pthread", "-Wno-unused-function"]
        options.append(f"-ffile-prefix-map={native}/=")  # no path of this machine in messages
        run_compiler(target, [*options, *include, "-c", "emitted.c", "-o", "emitted.o"], folder)
        objects = ["emitted.o", *write_objects(self.compiled.kernels, folder)]
        if kind == "obj":
            link = ["-r", "-nostdlib"]
        elif kind == "so":
            exports = f"{{ global: {'; '.join(self.functions)}; local: *; }};\n"
            (folder / "exports.map").write_text(exports)
            link = ["-shared", "-s", "-Wl,--version-script=exports.map", "-pthread"]
        else:
            link = ["-s", "-pthread"]
        libraries = [] if kind == "obj" else ["-lm"]
        run_compiler(target, [*link, "-o", "output", *objects, *libraries], folder)
        return folder / "output"

    @property
    def functions(self) -> list[str]:
        """The symbols that C programs call."""
        return [f"{self.symbol}_{verb}" for verb in ("create", "run", "destroy")]

    # -- header --------------------------------------------------------------------------

    def header(self) -> str:
        """The text of the header."""
        guard = f"{self.symbol.upper()}_H"
        lines = [
            f"/* The model {_comment(self.name)}, compiled by mgec {__version__} for "
            f"{self.compiled.target.name}.",
            " *",
            *(f" *   input   {_comment(str(each.name))}: {each}" for each in self.inputs),
            *(f" *   output  {_comment(str(each.name))}: {each}" for each in self.outputs),
            " *",
            " * Link it with -lm and -pthread. A function returns NULL, or what went wrong: a",
            " * constant that is never freed. */",
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stdint.h>",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            _status_declarations(),
            "",
            "/* Elements of each array. */",
            *(
                f"#define {self.symbol.upper()}_{parameter.upper()}_SIZE {prod(each.shape)}"
                for parameter, each in zip(
                    self.parameters, (*self.inputs, *self.outputs), strict=True
                )
            ),
            "",
            "struct mgec_model;",
            "",
            "/* Makes the model, with memory for one run at a time, on up to `threads` threads. */",
            f"{self._create()};",
            "",
            "/* Runs the model. Arrays are dense, in C order, aligned to their elements; outputs",
            " * must overlap nothing. */",
            f"{self._run()};",
            "",
            "/* Frees the model, which must not be running. NULL is allowed. */",
            f"{self._destroy()};",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "#endif",
        ]
        return "\n".join(lines) + "\n"

    def _create(self) -> str:
        return f"mgec_status {self.symbol}_create(int32_t threads, struct mgec_model **model)"

    def _destroy(self) -> str:
        return f"mgec_status {self.symbol}_destroy(struct mgec_model *model)"

    def _run(self) -> str:
        inputs = [f"const {_c_type(each)} *" for each in self.inputs]
        outputs = [f"{_c_type(each)} *" for each in self.outputs]
        arguments = [
            f"{ty}{parameter}"
            for ty, parameter in zip((*inputs, *outputs), self.parameters, strict=True)
        ]
        listed = ", ".join(["struct mgec_model *model", *arguments])
        return f"mgec_status {self.symbol}_run({listed})"

    # -- source --------------------------------------------------------------------------

    def source(self, *, main: bool) -> str:
        """The text of the one C file: runtime, tables, weights, and functions or a main."""
        parts = [
            "#define MGEC_API static",
            "#define MGEC_INTERNAL static",
            *(f'#include "{file}"' for file in _RUNTIME),
            self._weights(),
            self._tables(),
        ]
        if main:
            parts.append('#include "standalone/main.c"')
        else:
            exported = '__attribute__((visibility("default")))'
            casts = ", ".join(f"(void *){parameter}" for parameter in self.parameters)
            parts += [
                f"{exported} {self._create()} {{",
                "  return mgec_model_create(&mgec_standalone_model, NULL, threads, model);",
                "}",
                f"{exported} {self._run()} {{",
                f"  void *io[] = {{{casts or 'NULL'}}};",
                f"  return mgec_model_run(model, io, {len(self.parameters)});",
                "}",
                f"{exported} {self._destroy()} {{ return mgec_model_destroy(model); }}",
            ]
        return "\n".join(parts) + "\n"

    def _weights(self) -> str:
        """The weights as read-only data, from a file and not through the compiler."""
        if not self.compiled.weights:
            return ""
        symbol = f"{self.symbol}_weights"
        return "\n".join(
            [
                f'__asm__(".section .rodata.{symbol},\\"a\\",%progbits\\n"',
                f'        ".balign {ALIGNMENT}\\n"',
                f'        ".globl {symbol}\\n.hidden {symbol}\\n{symbol}:\\n"',
                f'        ".incbin \\"{_WEIGHTS}\\"\\n"',
                '        ".text\\n");',
                f'extern const char {symbol}[] __attribute__((visibility("hidden")));',
            ]
        )

    def _tables(self) -> str:
        compiled, program = self.compiled, self.compiled.program
        signature = "(void *const *, const int64_t *, int64_t, int64_t)"
        steps: list[str] = []
        slots: list[str] = []
        dims: list[str] = []
        for step in program.steps:
            row = (
                step.kernel, STEP_SERIAL if step.serial else 0, len(slots), len(step.slots),
                len(dims), len(step.dims), step.units,
            )  # fmt: skip
            steps.append(_row(row))
            slots += [_row((s.kind.value, s.index, s.offset, s.nbytes)) for s in step.slots]
            dims += [str(dim) for dim in step.dims]
        tensors = (*self.inputs, *self.outputs)
        shapes = [
            f"static const int64_t shape{i}[] = {_row(each.shape or (0,))};"
            for i, each in enumerate(tensors)
        ]
        io = [
            f"{{{_c_string(each.name)}, {_c_string(each.dtype)}, shape{i}, {each.nbytes}u, "
            f"{len(each.shape)}, 0}}"
            for i, each in enumerate(tensors)
        ]
        fields = {
            "kernels": "kernels",
            "steps": "steps",
            "slots": "slots",
            "dims": "dims",
            "constants": f"{self.symbol}_weights" if compiled.weights else "NULL",
            "constants_bytes": f"{program.constants_bytes}u",
            "arena_bytes": f"{program.arena_bytes}u",
            "scratch_bytes": f"{program.scratch_bytes}u",
            "num_kernels": str(program.num_kernels),
            "num_steps": str(len(steps)),
            "num_slots": str(len(slots)),
            "num_dims": str(len(dims)),
            "num_io": str(program.num_io),
        }
        names = [kernel.name for kernel in compiled.kernels]
        return "\n".join(
            [
                *(f"extern void {each}{signature};" for each in names),
                _table("mgec_kernel_fn", "kernels", names, "NULL"),
                _table("mgec_step", "steps", steps, "{0}"),
                _table("mgec_slot", "slots", slots, "{0}"),
                _table("int64_t", "dims", dims, "0"),
                *shapes,
                _table("mgec_tensor", "io", io, "{0}"),
                "static const mgec_model_desc mgec_standalone_model = {",
                f"  .name = {_c_string(self.name)},",
                f"  .required = {_c_string(' '.join(compiled.target.required))},",
                "  .io = io,",
                f"  .num_inputs = {len(self.inputs)},",
                f"  .program = {{{', '.join(f'.{k} = {v}' for k, v in fields.items())}}},",
                "};",
            ]
        )


def _table(ty: str, name: str, rows: Sequence[str], empty: str) -> str:
    """A constant array; C has none without elements."""
    return f"static const {ty} {name}[] = {{{', '.join(rows) or empty}}};"


def _row(values: Sequence[int]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def _c_type(spec: IOSpec) -> str:
    """The C type of an element: C's own where it has one, else an integer of its bits."""
    if "int" in spec.dtype:
        return f"{spec.dtype}_t"
    return _C_TYPES.get(spec.dtype, f"uint{8 * DTYPE_BYTES[spec.dtype]}_t")


def _c_string(text: str) -> str:
    """A C string literal of any text."""
    made = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{made}"'


def _comment(text: str) -> str:
    """Text that can stand in a C comment."""
    return re.sub(r"\*/|[^\x20-\x7e]", "?", text)


def _parameters(specs: Sequence[IOSpec], prefix: str) -> list[str]:
    """Names of parameters, all different: `in_x` for x."""
    names: list[str] = []
    for i, spec in enumerate(specs):
        name = f"{prefix}_{re.sub(r'[^0-9A-Za-z]', '_', spec.name)}"
        names.append(name if name not in names else f"{name}_{i}")
    return names


def _status_declarations() -> str:
    """The part of mgec.h that says what a status is."""
    header = Path(str(mgec.runtime.__file__)).parent / "include" / "mgec.h"
    begin, end = "#ifndef MGEC_STATUS", "typedef const mgec_failure *mgec_status;\n\n#endif"
    _, found, rest = header.read_text().partition(begin)
    body, closed, _ = rest.partition(end)
    if not found or not closed:
        raise CompileError(f"{header} does not declare mgec_status", fix="reinstall mgec")
    return found + body + closed
