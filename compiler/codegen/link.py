"""Linking kernels into one shared object, for artifacts."""

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


def link_shared(kernels: Sequence[CompiledKernel], target: Target) -> bytes:
    """Links objects into an ELF shared object that exports the kernels.

    Raises:
        CompileError: if there is no linker, or it fails.
    """
    with tempfile.TemporaryDirectory(prefix="mgec-link-") as name:
        folder = Path(name)
        objects: list[str] = []
        for i, kernel in enumerate(kernels):
            path = folder / f"{i}.o"
            path.write_bytes(kernel.object_code)
            objects.append(str(path))
        output = folder / "code.so"
        command = [*_linker(target), "-shared", "-o", str(output), *objects, "-lm"]
        if config.debug >= 1:
            config.get_logger().info("linking: %s", shlex.join(command))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CompileError(
                f"the linker failed: {done.stderr.strip().splitlines()[-1:] or done.returncode}",
                fix="see the command with MGEC_DEBUG=1",
            )
        return output.read_bytes()


def _linker(target: Target) -> list[str]:
    """The command that links for `target`: the system's C compiler, else zig's."""
    for name in ("cc", "gcc", "clang"):
        if (path := shutil.which(name)) is not None:
            return [path, "-nostartfiles"]
    if find_spec("ziglang") is not None:
        arch = target.triple.split("-")[0]
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-gnu"]
    raise CompileError(
        "there is no linker: an artifact needs a C compiler (cc) or the ziglang package",
        fix="install gcc or clang, or pip install mgec[cross]",
    )
