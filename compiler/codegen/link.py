"""The C compilers and linkers of each target, and linking kernels into one shared object."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mgec import config
from mgec.compiler.kernels.source import CompiledKernel
from mgec.compiler.targets import Target
from mgec.errors import CompileError
from mgec.runtime import host

_GLIBC = "2.17"
"""What zig links for: the first glibc of aarch64, and that of the oldest x86-64 systems in use."""


def link_shared(kernels: Sequence[CompiledKernel], target: Target) -> bytes:
    """Links objects into an ELF shared object that exports the kernels.

    Raises:
        CompileError: if there is no linker for the target, or it fails.
    """
    with tempfile.TemporaryDirectory(prefix="mgec-link-") as name:
        folder = Path(name)
        output = folder / "code.so"
        objects = write_objects(kernels, folder)
        run_compiler(target, ["-shared", "-nostartfiles", "-o", str(output), *objects, "-lm"])
        return output.read_bytes()


def write_objects(kernels: Sequence[CompiledKernel], folder: Path) -> list[str]:
    """Writes the object of each kernel into a folder; returns their paths."""
    paths: list[str] = []
    for i, kernel in enumerate(kernels):
        path = folder / f"{i}.o"
        path.write_bytes(kernel.object_code)
        paths.append(str(path))
    return paths


def run_compiler(target: Target, arguments: Sequence[str], folder: Path | None = None) -> None:
    """Runs the C compiler of a target, which also assembles and links.

    Args:
        target: what to compile for.
        arguments: as gcc and clang take them.
        folder: where to run it; by default where this process is.

    Raises:
        CompileError: if there is none for the target, or it fails; with its first complaint.
    """
    command = [*c_compiler(target), *arguments]
    if config.debug >= 1:
        config.get_logger().info("linking: %s", shlex.join(command))
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise CompileError(
            f"{command[0]} does not run: {error.strerror or error}", fix="install it anew"
        ) from error
    if done.returncode != 0:
        raise CompileError(
            f"the C compiler failed: {_complaint(done.stderr) or f'status {done.returncode}'}",
            fix="see the command with MGEC_DEBUG=1",
        )


def _complaint(text: str) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line or "undefined" in line]
    return (errors or lines or [""])[0]


def c_compiler(target: Target) -> list[str]:
    """The command of a C compiler for `target`.

    The system's for the machine's own architecture, a GNU cross compiler
    (`aarch64-linux-gnu-gcc`) for another, else zig's, which has the libraries of every target.

    Raises:
        CompileError: if there is none.
    """
    gnu = f"{target.architecture}-linux-gnu"
    native = host.triple_matches(target.triple)
    names = ["cc", "gcc", "clang"] if native else [f"{gnu}-gcc"]
    for name in names:
        if (path := shutil.which(name)) is not None:
            return [path]
    if find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{gnu}.{_GLIBC}"]
    if native:
        raise CompileError(
            "there is no linker: an artifact needs a C compiler (cc) or the ziglang package",
            fix="install gcc or clang, or pip install mgec[cross]",
        )
    raise CompileError(
        f"there is no linker for {target.name}: it needs {gnu}-gcc or the ziglang package",
        fix=f"pip install mgec[cross], or install gcc for {gnu}",
    )
