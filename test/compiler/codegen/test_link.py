"""Which C compiler is used for which target, and what is said when there is none."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.emulator import emulator, kernel_server

from mgec.compiler.codegen import link
from mgec.compiler.codegen.link import c_compiler, link_shared, run_compiler
from mgec.compiler.codegen.llvm_backend import emit_object
from mgec.compiler.kernels.source import CompiledKernel, Units
from mgec.compiler.targets import Target
from mgec.compiler.targets.target import TARGETS, host_target
from mgec.errors import CompileError
from mgec.runtime import host

OTHER = next(t for t in TARGETS.values() if t.architecture != host.architecture())
GNU = f"{OTHER.architecture}-linux-gnu"


def find_only(monkeypatch: pytest.MonkeyPatch, *names: str, zig: bool = False) -> None:
    """A machine with only these programs, and zig or not."""
    monkeypatch.setattr(
        link.shutil, "which", lambda name: f"/bin/{name}" if name in names else None
    )
    monkeypatch.setattr(link, "find_spec", lambda name: object() if zig else None)


def test_system_compiler_for_the_own_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    find_only(monkeypatch, "gcc", "clang", f"{GNU}-gcc", zig=True)
    assert c_compiler(host_target()) == ["/bin/gcc"]
    assert c_compiler(OTHER) == [f"/bin/{GNU}-gcc"]


def test_zig_for_what_the_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    find_only(monkeypatch, "gcc", zig=True)
    command = c_compiler(OTHER)
    assert command[1:] == ["-m", "ziglang", "cc", "-target", f"{GNU}.2.17"]
    find_only(monkeypatch, zig=True)
    assert c_compiler(host_target())[-1] == f"{host.architecture()}-linux-gnu.2.17"


def test_no_compiler_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    find_only(monkeypatch)
    with pytest.raises(CompileError) as caught:
        c_compiler(host_target())
    assert caught.value.headline == (
        "there is no linker: an artifact needs a C compiler (cc) or the ziglang package"
    )
    assert caught.value.fix == "install gcc or clang, or pip install mgec[cross]"
    with pytest.raises(CompileError) as caught:
        c_compiler(OTHER)
    assert caught.value.headline == (
        f"there is no linker for {OTHER.name}: it needs {GNU}-gcc or the ziglang package"
    )
    assert caught.value.fix == f"pip install mgec[cross], or install gcc for {GNU}"


def test_compiler_that_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int main(void) { return what; }\n")
    with pytest.raises(CompileError, match="the C compiler failed: .*bad.c:1.*error") as caught:
        run_compiler(host_target(), ["-c", "bad.c"], tmp_path)
    assert caught.value.fix == "see the command with MGEC_DEBUG=1"


def test_compiler_that_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(link, "c_compiler", lambda target: [str(tmp_path / "cc")])
    with pytest.raises(CompileError, match="cc does not run: No such file or directory"):
        run_compiler(host_target(), ["-c", "x.c"])


def kernel(target: Target) -> CompiledKernel:
    """exp of one float, with the C library's function."""
    text = """
    declare float @expf(float)
    define void @k(ptr %buffers, ptr %dims, i64 %begin, i64 %end) {
      %p = load ptr, ptr %buffers
      %x = load float, ptr %p
      %y = call float @expf(float %x)
      store float %y, ptr %p
      ret void
    }
    """
    code = emit_object(text, target, optimize=False)
    return CompiledKernel("k", code, 1, 0, Units(), 0, "test", 0)


def elf_machine(data: bytes) -> int:
    return int.from_bytes(data[18:20], "little")


@pytest.mark.matrix  # zig builds its C library the first time: minutes
def test_zig_links_for_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("ziglang") is None:
        pytest.skip("no ziglang package")
    find_only(monkeypatch, zig=True)
    machines = {"x86_64": 62, "aarch64": 183}
    assert elf_machine(link_shared([kernel(OTHER)], OTHER)) == machines[OTHER.architecture]


def test_emulated_kernel_that_reads_too_far(tmp_path: Path) -> None:
    """The server of the kernel tests notices: a buffer ends where its page does."""
    import numpy as np

    emulator(OTHER.architecture)
    server = kernel_server(OTHER.architecture)
    library = server.prepare(kernel(OTHER), OTHER)
    one: Any = np.ones(1, np.float32)
    server.run(library, "k", [one], [0], [], [(0, 1)])
    assert abs(one[0] - np.e) < 1e-6
    with pytest.raises(pytest.fail.Exception, match="ended its process with status"):
        server.run(library, "k", [np.ones(2, np.uint8)], [0], [], [(0, 1)])
    server.run(library, "k", [one], [0], [], [(0, 1)])  # it starts again
