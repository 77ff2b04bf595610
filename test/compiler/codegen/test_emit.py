"""Plain files for C: each is compiled, linked and run by C programs, here and in an emulator."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from support.emulator import cross_compiler, emulator

from mgec.compiler.api import CompiledGraph, compile_graph
from mgec.compiler.codegen import emit as module
from mgec.compiler.codegen.emit import c_name, emit
from mgec.compiler.targets import target_named
from mgec.errors import DeviceError, FileError, OptionError
from mgec.runtime import host, load

Build = Callable[..., Any]
X = np.random.default_rng(0).standard_normal((5, 37)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((37, 21)).astype(np.float32)
RUNTIME = Path(str(sys.modules["mgec.runtime"].__file__)).parent


def matmul(build: Build, target: str = "host") -> CompiledGraph:
    """x[5, 37] -> relu(x @ W)[5, 21] and a count of int32."""

    def body(b: Any, x: Any, n: Any) -> list[Any]:
        y = b.matmul(x, b.constant(W))
        return [b.maximum(y, b.constant(np.zeros((), np.float32))), b.add(n, n)]

    return compile_graph(build(body, (5, 37), ((3,), "int32")), target=target)


N = np.array([1, -2, 3], np.int32)
Y = np.maximum(X.astype(np.float64) @ W, 0)


def check(y: np.ndarray, n: np.ndarray) -> None:
    bound = 37 * np.finfo(np.float32).eps * np.abs(X).max() * np.abs(W).max() * 37**0.5
    np.testing.assert_allclose(y.reshape(5, 21), Y, rtol=0, atol=bound)
    np.testing.assert_array_equal(n, 2 * N)


def native_compiler() -> str:
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found is None:
        pytest.skip("no C compiler (cc, gcc or clang) on PATH")
    return found


# -- shared objects ----------------------------------------------------------------------


def call(library: ctypes.CDLL, name: str, *arrays: np.ndarray, threads: int = 1) -> None:
    """Makes a model, runs it twice, frees it."""
    functions = [getattr(library, f"{name}_{verb}") for verb in ("create", "run", "destroy")]
    for function in functions:
        function.restype = ctypes.c_void_p
    model = ctypes.c_void_p()
    assert functions[0](threads, ctypes.byref(model)) is None
    for _ in range(2):
        assert functions[1](model, *(ctypes.c_void_p(a.ctypes.data) for a in arrays)) is None
    assert functions[2](model) is None


@pytest.mark.parametrize("threads", [1, 2])
def test_shared_object(build: Build, tmp_path: Path, threads: int) -> None:
    written = emit(matmul(build), "so", tmp_path / "net.so", name="net")
    assert written == [tmp_path / "net.so", tmp_path / "net.h"]
    y, n = np.empty((5, 21), np.float32), np.empty(3, np.int32)
    call(ctypes.CDLL(str(written[0])), "net", X, N, y, n, threads=threads)
    check(y, n)


def test_shared_object_exports_its_three_functions(build: Build, tmp_path: Path) -> None:
    compiled = matmul(build)
    emit(compiled, "so", tmp_path / "net.so", name="net")
    library = ctypes.CDLL(str(tmp_path / "net.so"))
    for name in ("net_create", "net_run", "net_destroy"):
        assert hasattr(library, name)
    for name in (compiled.kernels[0].name, "mgec_run", "mgec_pool_shared", "net_weights"):
        assert not hasattr(library, name)


def test_no_path_of_the_builder_is_inside(build: Build, tmp_path: Path) -> None:
    emit(matmul(build), "so", tmp_path / "net.so", name="net")
    assert str(RUNTIME).encode() not in (tmp_path / "net.so").read_bytes()


def test_same_model_gives_the_same_bytes(build: Build, tmp_path: Path) -> None:
    for name in ("one", "two"):
        emit(matmul(build), "obj", tmp_path / f"{name}.o", name="net")
    assert (tmp_path / "one.o").read_bytes() == (tmp_path / "two.o").read_bytes()


def test_failure_is_a_status(build: Build, tmp_path: Path) -> None:
    emit(matmul(build), "so", tmp_path / "net.so", name="net")
    create = ctypes.CDLL(str(tmp_path / "net.so")).net_create
    create.restype = ctypes.c_void_p
    status, model = create(0, ctypes.byref(ctypes.c_void_p())), ctypes.c_void_p()
    message = ctypes.c_char_p.from_address(status + 8).value
    assert message == b"model_create: threads must lie in [1, 256]"
    assert create(1, ctypes.byref(model)) is None


def test_cpu_that_lacks_instructions_is_refused(build: Build, tmp_path: Path) -> None:
    compiled = matmul(build)
    lacking = target_named("host")
    compiled.target = type(lacking)(**{**vars(lacking), "required": ("asimd", "avx")})
    emit(compiled, "so", tmp_path / "net.so", name="net")
    create = ctypes.CDLL(str(tmp_path / "net.so")).net_create
    create.restype = ctypes.c_void_p
    status = create(1, ctypes.byref(ctypes.c_void_p()))
    assert ctypes.c_int32.from_address(status).value == 5  # MGEC_UNSUPPORTED
    message = ctypes.c_char_p.from_address(status + 8).value
    assert message is not None and b"more instructions than this one has" in message


@pytest.mark.parametrize("dtype", ["bool", "float16", "bfloat16", "int64", "uint8"])
def test_types_of_elements(build: Build, tmp_path: Path, dtype: str) -> None:
    element = np.dtype(getattr(ml_dtypes, dtype, dtype))
    graph = build(lambda b, x: b.transpose(x, perm=(1, 0)), ((2, 3), element))
    (so, header) = compile_graph(graph).emit("so", tmp_path / "t.so", name="t")
    x, y = np.arange(6).reshape(2, 3).astype(element), np.empty((3, 2), element)
    call(ctypes.CDLL(str(so)), "t", x, y)
    np.testing.assert_array_equal(y, x.T)
    c_type = {1: "uint8_t", 2: "uint16_t", 8: "int64_t"}[element.itemsize]
    assert f"const {c_type} *in_x0, {c_type} *out_y0" in header.read_text()


def test_model_without_weights_or_steps(build: Build, tmp_path: Path) -> None:
    """An empty result: nothing runs."""
    compiled = compile_graph(build(lambda b, x: b.add(x, x), (0, 3)))
    (so, _) = compiled.emit("so", tmp_path / "empty.so", name="empty")
    call(ctypes.CDLL(str(so)), "empty", np.empty((0, 3), np.float32), np.empty(0, np.float32))


# -- headers and objects -----------------------------------------------------------------

MAIN = """\
#include <stdio.h>
#include "one.h"
#include "two.h"
static int fail(mgec_status status) {
  fprintf(stderr, "%s\\n", status->message);
  return 1;
}
int main(void) {
  static float x[ONE_IN_X0_SIZE], y[ONE_OUT_Y0_SIZE];
  static int32_t n[ONE_IN_X1_SIZE], m[ONE_OUT_Y1_SIZE];
  struct mgec_model *first, *second;
  mgec_status status;
  fread(x, 1, sizeof x, stdin);
  fread(n, 1, sizeof n, stdin);
  if ((status = one_create(2, &first)) || (status = two_create(1, &second))) return fail(status);
  if ((status = one_run(first, x, n, y, m))) return fail(status);
  fwrite(y, 1, sizeof y, stdout);
  if ((status = two_run(second, x, n, y, m))) return fail(status);
  fwrite(y, 1, sizeof y, stdout);
  fwrite(m, 1, sizeof m, stdout);
  one_destroy(first);
  two_destroy(second);
  return 0;
}
"""


def two_models(
    build: Build, folder: Path, target: str, compiler: Sequence[str], runner: Sequence[str]
) -> None:
    """Links two models that share their kernels into one program."""
    for name in ("one", "two"):
        emit(matmul(build, target), "obj", folder / f"{name}.o", name=name)
    (folder / "main.c").write_text(MAIN)
    sources = ["main.c", "one.o", "two.o", "-o", "main"]
    command = [*compiler, "-std=c99", "-Wall", "-Wextra", *sources, "-lm", "-pthread"]
    subprocess.run(command, cwd=folder, check=True)
    given = X.tobytes() + N.tobytes()
    done = subprocess.run(
        [*runner, str(folder / "main")], input=given, capture_output=True, check=True
    )
    n = np.frombuffer(done.stdout[-12:], np.int32)
    for i in range(2):
        check(np.frombuffer(done.stdout, np.float32, 105, offset=i * 420), n)


def test_objects_of_two_models_link_together(build: Build, tmp_path: Path) -> None:
    two_models(build, tmp_path, "host", [native_compiler()], [])


def test_header(build: Build, tmp_path: Path) -> None:
    assert emit(matmul(build), "header", tmp_path / "net.h", name="my net*/") == [
        tmp_path / "net.h"
    ]
    text = (tmp_path / "net.h").read_text()
    assert "#define MY_NET___IN_X0_SIZE 185" in text
    assert " *   output  y0: float32[5, 21]" in text
    (tmp_path / "all.c").write_text('#include "net.h"\n#include "mgec.h"\nint unit;\n')
    options = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", str(RUNTIME / "include")]
    for language, standard in (("c", "c11"), ("c++", "c++11")):
        if language == "c" or shutil.which("g++"):
            command = [native_compiler(), "-x", language, f"-std={standard}", *options]
            subprocess.run([*command, "-c", "all.c", "-o", "all.o"], cwd=tmp_path, check=True)


def test_names_in_c() -> None:
    assert [c_name(name) for name in ("main", "2d", "a-b.c", "é", "_x", "")] == [
        "main", "m2d", "a_b_c", "m_", "m_x", "m"
    ]  # fmt: skip
    specs = [type("Spec", (), {"name": name}) for name in ("x.y", "x/y", "in")]
    assert module._parameters(specs, "in") == ["in_x_y", "in_x_y_1", "in_in"]
    assert module._c_string('a"b\\c\n?é') == '"a\\042b\\134c\\012\\077\\303\\251"'


# -- programs ----------------------------------------------------------------------------


def run_program(program: Path, runner: Sequence[str], *arguments: str) -> Any:
    return subprocess.run(
        [*runner, str(program), *arguments], capture_output=True, text=True, cwd=program.parent
    )


def check_program(program: Path, runner: Sequence[str]) -> None:
    folder = program.parent
    X.tofile(folder / "x.bin")
    N.tofile(folder / "n.bin")
    files = ("x.bin", "n.bin", "y.bin", "m.bin")
    done = run_program(program, runner, "--threads", "2", *files)
    assert done.returncode == 0, done.stderr
    check(np.fromfile(folder / "y.bin", np.float32), np.fromfile(folder / "m.bin", np.int32))


def test_program(build: Build, tmp_path: Path) -> None:
    program = tmp_path / "net"
    assert emit(matmul(build), "exe", program, name="net") == [program]
    check_program(program, [])
    done = run_program(program, [], "--bench", "0.01")
    assert done.returncode == 0 and "runs, shortest" in done.stdout
    done = run_program(program, [])
    assert done.returncode == 2
    assert "input   x0  float32[5, 37], 740 bytes" in done.stderr
    for wrong in (["--threads", "0"], ["--threads", "x"], ["--bench", "-1"], ["--what", "1"]):
        assert run_program(program, [], *wrong, "a", "b", "c", "d").returncode == 2
    done = run_program(program, [], "missing", "n.bin", "y.bin", "m.bin")
    assert (done.returncode, done.stderr) == (1, "error: missing: No such file or directory\n")
    done = run_program(program, [], "n.bin", "n.bin", "y.bin", "m.bin")
    message = "error: n.bin: the input has 740 bytes, but the file has fewer\n"
    assert (done.returncode, done.stderr) == (1, message)
    done = run_program(program, [], "x.bin", "n.bin", "no/where", "m.bin")
    assert (done.returncode, done.stderr) == (1, "error: no/where: No such file or directory\n")


# -- errors ------------------------------------------------------------------------------


def test_weights_that_do_not_fit(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WEIGHT_BYTES", 100)
    with pytest.raises(OptionError, match="bytes of weights, and at most 100 fit") as caught:
        emit(matmul(build), "so", tmp_path / "net.so")
    assert caught.value.fix == "use --emit mge, whose weights are mapped from the file"
    assert not list(tmp_path.iterdir())


def test_place_of_the_header(build: Build, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="the header goes to .*net.h, so nothing else can"):
        emit(matmul(build), "so", tmp_path / "net.h")


def test_place_that_cannot_be_written(build: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write"):
        emit(matmul(build), "header", tmp_path / "file" / "net.h")


# -- another architecture ----------------------------------------------------------------

ARM = "aarch64"


@pytest.fixture
def arm() -> list[str]:
    """The command in front of a program for ARM; the test is skipped on ARM, and without one."""
    if host.architecture() == ARM:
        pytest.skip("this machine is not another architecture than aarch64")
    cross_compiler(target_named(ARM))
    return emulator(ARM)


def test_program_for_another_architecture(build: Build, tmp_path: Path, arm: list[str]) -> None:
    emit(matmul(build, ARM), "exe", tmp_path / "net", name="net")
    check_program(tmp_path / "net", arm)


def test_objects_for_another_architecture(build: Build, tmp_path: Path, arm: list[str]) -> None:
    two_models(build, tmp_path, ARM, cross_compiler(target_named(ARM)), arm)


LOADER = """\
#include <stdio.h>
#include "mgec.h"
int main(int count, char **arguments) {
  static float x[185], y[105];
  static int32_t n[3], m[3];
  void *io[] = {x, n, y, m};
  mgec_model *model;
  mgec_status status = mgec_model_load(arguments[count - 1], NULL, 2, &model);
  if (status) {
    fprintf(stderr, "%s\\n", status->message);
    return 1;
  }
  fread(x, 1, sizeof x, stdin);
  fread(n, 1, sizeof n, stdin);
  mgec_model_run(model, io, 4);
  fwrite(y, 1, sizeof y, stdout);
  fwrite(m, 1, sizeof m, stdout);
  mgec_model_destroy(model);
  return 0;
}
"""


def test_artifact_for_another_architecture(build: Build, tmp_path: Path, arm: list[str]) -> None:
    """It is refused here, and runs there; and the other way round."""
    matmul(build, ARM).write(tmp_path / "arm.mge")
    matmul(build).write(tmp_path / "here.mge")
    with pytest.raises(DeviceError) as caught:
        load(tmp_path / "arm.mge")
    assert "compiled for aarch64-unknown-linux-gnu, this machine is" in caught.value.headline

    (tmp_path / "loader.c").write_text(LOADER)
    sources = [str(path) for path in (RUNTIME / "native").glob("*.c")]
    include = ["-I", str(RUNTIME / "include")]
    command = [*cross_compiler(target_named(ARM)), "-O1", "-std=gnu11", *include, "loader.c"]
    libraries = ["-ldl", "-lm", "-pthread"]
    subprocess.run([*command, *sources, *libraries, "-o", "loader"], cwd=tmp_path, check=True)

    def run(artifact: str) -> Any:
        return subprocess.run(
            [*arm, str(tmp_path / "loader"), str(tmp_path / artifact)],
            input=X.tobytes() + N.tobytes(),
            capture_output=True,
        )

    done = run("arm.mge")
    assert done.returncode == 0, done.stderr
    check(np.frombuffer(done.stdout[:420], np.float32), np.frombuffer(done.stdout[420:], np.int32))
    done = run("here.mge")
    assert (done.returncode, done.stderr) == (
        1, b"model_load: the artifact has no code for this machine\n"
    )  # fmt: skip
