"""Running what was compiled for another architecture: qemu, a sysroot, and a server of kernels."""

from __future__ import annotations

import atexit
import functools
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgec.compiler.api import CompiledGraph
from mgec.compiler.codegen.link import c_compiler, link_shared
from mgec.compiler.kernels.source import CompiledKernel
from mgec.compiler.targets import Target, target_named
from mgec.errors import CompileError

SERVER = Path(__file__).with_name("kernel_server.c")
START_SECONDS = 60  # zig builds its C library's stubs the first time


def emulator(architecture: str) -> list[str]:
    """The command in front of a program of that architecture; skips the test if there is none."""
    names = (f"qemu-{architecture}-static", f"qemu-{architecture}")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no qemu-{architecture} on PATH (package qemu-user-static)")
    sysroot = Path(f"/usr/{architecture}-linux-gnu")
    if not (sysroot / "lib").is_dir():
        pytest.skip(f"no C library for {architecture} in {sysroot} (package libc6-dev-arm64-cross)")
    return [program, "-L", str(sysroot)]


def cross_compiler(target: Target) -> list[str]:
    """The C compiler for a target; skips the test if there is none."""
    try:
        return c_compiler(target)
    except CompileError as error:
        pytest.skip(error.headline)


class KernelServer:
    """One emulated process that runs kernels, started again after one has killed it.

    Args:
        architecture: such as "aarch64".
    """

    def __init__(self, architecture: str) -> None:
        command = emulator(architecture)
        compiler = cross_compiler(target_named(architecture))
        self._folder = tempfile.TemporaryDirectory(prefix="mgec-emulator-")
        program = Path(self._folder.name) / "server"
        subprocess.run(
            [*compiler, "-O1", "-std=gnu11", str(SERVER), "-o", str(program), "-ldl"],
            check=True,
            timeout=START_SECONDS,
        )
        self._command = [*command, str(program)]
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0

    def prepare(self, kernel: CompiledKernel, target: Target) -> Path:
        """Links a kernel into a file that the server can load."""
        self._count += 1
        path = Path(self._folder.name) / f"{self._count}.so"
        path.write_bytes(link_shared([kernel], target))
        return path

    def run(
        self,
        library: Path,
        symbol: str,
        buffers: Sequence[np.ndarray[Any, Any]],
        outputs: Sequence[int],
        dims: Sequence[int],
        ranges: Sequence[tuple[int, int]],
    ) -> None:
        """Calls a kernel for each range of units; the buffers numbered `outputs` are replaced."""
        message = bytearray()
        for text in (str(library).encode(), symbol.encode()):
            message += struct.pack("<Q", len(text)) + text
        message += struct.pack("<Q", len(buffers))
        for i, array in enumerate(buffers):
            message += struct.pack("<2Q", array.nbytes, i in outputs) + array.tobytes()
        message += struct.pack(f"<Q{len(dims)}q", len(dims), *dims)
        flat = [bound for pair in ranges for bound in pair]
        message += struct.pack(f"<Q{len(flat)}q", len(ranges), *flat)
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        pipes = self._process.stdin, self._process.stdout
        assert pipes[0] is not None and pipes[1] is not None
        pipes[0].write(message)
        pipes[0].flush()
        for i in sorted(outputs):
            data = pipes[1].read(buffers[i].nbytes)
            if len(data) != buffers[i].nbytes:
                status = self._process.wait()
                pytest.fail(f"the emulated kernel ended its process with status {status}")
            buffers[i].reshape(-1).view(np.uint8)[...] = np.frombuffer(data, np.uint8)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
        self._folder.cleanup()


@functools.cache
def kernel_server(architecture: str) -> KernelServer:
    """The server of this test process, which ends with it."""
    server = KernelServer(architecture)
    atexit.register(server.close)
    return server


def run_emulated(
    compiled: CompiledGraph, arrays: Sequence[np.ndarray[Any, Any]], folder: Path
) -> list[np.ndarray[Any, Any]]:
    """Runs a graph that was compiled for another architecture, as a program under the emulator."""
    command = emulator(compiled.target.architecture)
    cross_compiler(compiled.target)
    program = folder / "model"
    compiled.emit("exe", program)
    inputs = [folder / f"in{i}.bin" for i in range(len(arrays))]
    outputs = [folder / f"out{i}.bin" for i in range(len(compiled.output_specs))]
    for path, array in zip(inputs, arrays, strict=True):
        path.write_bytes(np.ascontiguousarray(array).tobytes())
    files = [str(path) for path in (*inputs, *outputs)]
    done = subprocess.run([*command, str(program), *files], capture_output=True, text=True)
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
    return [
        np.frombuffer(path.read_bytes(), spec.dtype).reshape(spec.shape)
        for path, spec in zip(outputs, compiled.output_specs, strict=True)
    ]
