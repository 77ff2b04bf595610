"""Loaded artifacts, called like functions."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgec.errors import ArgumentError, ArtifactError, DeviceError, DTypeError, ShapeError
from mgec.runtime import (
    IOSpec,
    Program,
    Slot,
    Step,
    TargetBuild,
    TargetInfo,
    host,
    load,
    write_artifact,
)

Sample = Any  # the class in conftest.py


def some_input(sample: Sample, seed: int = 0) -> np.ndarray:
    return (
        np.random.default_rng(seed)
        .standard_normal((sample.ROWS, sample.COLUMNS))
        .astype(np.float32)
    )


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_call(sample: Sample, artifact_path: Path, threads: int) -> None:
    module = load(artifact_path, threads=threads)
    assert module.threads == threads
    assert [str(spec) for spec in module.inputs] == ["float32[6, 16]"]
    assert [spec.name for spec in module.outputs] == ["y", "sums"]
    x = some_input(sample)
    expected_y, expected_sums = sample.expected(x)
    y, sums = module(x)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_allclose(sums, expected_sums, rtol=0, atol=1e-5)
    named = module(x=x)
    assert list(named) == ["y", "sums"]
    np.testing.assert_array_equal(named["y"], expected_y)
    assert repr(module) == (
        "<mgec.runtime.Module sample(x: float32[6, 16]) -> "
        "(y: float32[96], sums: float32[6]) for host>"
    )


def test_inputs_of_other_layouts_are_copied(sample: Sample, artifact_path: Path) -> None:
    module = load(artifact_path)
    x = some_input(sample)
    expected_y = sample.expected(x)[0]
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"?" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    fortran = np.asfortranarray(x)
    strided = np.repeat(x, 2, axis=1)[:, ::2]
    subclass = np.ma.masked_array(x)
    same_dtype = x.view(x.dtype.newbyteorder("="))
    for array in (read_only, unaligned, fortran, strided, subclass, same_dtype):
        np.testing.assert_array_equal(module(array)[0], expected_y)


def test_run_into(sample: Sample, artifact_path: Path) -> None:
    module = load(artifact_path)
    x = some_input(sample)
    y, sums = np.empty(sample.N, np.float32), np.empty(sample.ROWS, np.float32)
    module.run_into([x], [y, sums])
    np.testing.assert_array_equal(y, sample.expected(x)[0])
    with pytest.raises(ArgumentError, match="1 output arrays were given, expected 2"):
        module.run_into([x], [y])
    with pytest.raises(ArgumentError, match="0 inputs were given, expected 1"):
        module.run_into([], [y, sums])
    with pytest.raises(ArgumentError, match="output 'y' must be contiguous, aligned and writable"):
        module.run_into([x], [np.empty(2 * sample.N, np.float32)[::2], sums])
    with pytest.raises(ShapeError, match=r"output 'sums' has shape \[5\], expected \[6\]"):
        module.run_into([x], [y, sums[:5]])


def test_wrong_inputs_name_the_input_and_the_fix(sample: Sample, artifact_path: Path) -> None:
    module = load(artifact_path)
    x = some_input(sample)
    cases: list[tuple[Callable[[], object], type[Exception], str, str]] = [
        (lambda: module(), ArgumentError, "sample: 0 inputs were given, expected 1", "add x"),
        (
            lambda: module(x, x),
            ArgumentError,
            "sample: 2 inputs were given, expected 1",
            "leave out what follows the last input",
        ),
        (lambda: module(z=x), ArgumentError, "sample: there is no input 'z'", "use x"),
        (
            lambda: module(x, x=x),
            ArgumentError,
            "sample: input 'x' was given twice",
            "give it once",
        ),
        (
            lambda: module(x.astype(np.float64)),
            DTypeError,
            "sample: input 'x' is float64, expected float32",
            "pass x.astype('float32')",
        ),
        (
            lambda: module(x[:5]),
            ShapeError,
            "sample: input 'x' has shape [5, 16], expected [6, 16]",
            "reshape or pad the array, or compile the model for this shape",
        ),
    ]
    for call, error, headline, fix in cases:
        with pytest.raises(error) as caught:
            call()
        assert caught.value.headline == headline  # type: ignore[attr-defined]
        assert caught.value.fix == fix  # type: ignore[attr-defined]
        assert "float32[6, 16]" in str(caught.value)


def test_bench_and_profile(artifact_path: Path) -> None:
    module = load(artifact_path)
    timing = module.bench(seconds=0.01)
    assert 0 < timing.minimum <= timing.median <= timing.percentile(100)
    assert [name for name, _ in module.profile()] == ["affine", "flip", "sums"]


def test_eight_threads_call_one_module(sample: Sample, artifact_path: Path) -> None:
    module = load(artifact_path, threads=2)
    wrong: list[int] = []

    def work(worker: int) -> None:
        for i in range(100):
            x = some_input(sample, worker * 1000 + i)
            if not np.array_equal(module(x)[0], sample.expected(x)[0]):
                wrong.append(worker)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_modules_unload_and_do_not_mix(
    sample: Sample, build: TargetBuild, write: Callable[..., Path]
) -> None:
    """The loader knows libraries by path; two modules must never get each other's code."""
    x = some_input(sample)
    swapped = dataclasses.replace(
        build, info=dataclasses.replace(build.info, kernels=("empty", "reverse", "row_sum"))
    )
    first, second = write(build, name="a.mge"), write(swapped, name="b.mge")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(30):
        right, other = load(first), load(second)
        np.testing.assert_array_equal(right(x)[0], sample.expected(x)[0])
        other(x)
        del right, other
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert Path("/proc/self/maps").read_text().count("mgec-code") == 0


def test_narrow_and_empty_arrays(kernel_library: Path, tmp_path: Path) -> None:
    path = tmp_path / "narrow.mge"
    specs = [IOSpec("a", "bfloat16", (3,)), IOSpec("b", "float8_e4m3fn", (0, 2))]
    info = TargetInfo("host", host_triple(), kernels=("empty",))
    program = Program((Step(0, 4, (Slot.io(0, 6),)),), num_kernels=1, num_io=3)
    write_artifact(
        path,
        name="narrow",
        inputs=specs,
        outputs=[IOSpec("c", "bool", ())],
        builds=[TargetBuild(info, program, kernel_library.read_bytes())],
    )
    import ml_dtypes

    module = load(path)
    [c] = module(np.zeros(3, ml_dtypes.bfloat16), np.zeros((0, 2), ml_dtypes.float8_e4m3fn))
    assert (c.shape, c.dtype) == ((), np.bool_)


def host_triple() -> str:
    return f"{host.architecture()}-unknown-{host.operating_system()}-gnu"


def with_info(build: TargetBuild, **changes: Any) -> TargetBuild:
    return dataclasses.replace(build, info=dataclasses.replace(build.info, **changes))


def test_missing_feature(
    build: TargetBuild, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "architecture", lambda: "x86_64")
    level_3 = "lm cx16 popcnt lahf_lm pni sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe"
    monkeypatch.setattr(host, "linux_flags", lambda: frozenset(level_3.split()))
    build = with_info(build, triple=f"x86_64-unknown-{host.operating_system()}-gnu")
    path = write(with_info(build, features=("+avx2", "+avx512f", "-avx512vnni")))
    with pytest.raises(DeviceError) as caught:
        load(path)
    assert caught.value.headline == (
        f"{path}: artifact was compiled for avx512f, this CPU lacks it"
    )
    assert caught.value.fix == "recompile with --target x86-64-v3"
    # With a second target that runs, that one is taken.
    wide = with_info(build, name="wide", features=("avx512f", "avx512bw"))
    narrow = with_info(build, name="narrow", features=("avx2", "fma", "lzcnt", "sse4.2"))
    assert load(write(wide, narrow)).target.name == "narrow"


def test_other_architecture(build: TargetBuild, write: Callable[..., Path]) -> None:
    path = write(with_info(build, triple="riscv64-unknown-linux-gnu"))
    with pytest.raises(
        DeviceError, match="compiled for riscv64-unknown-linux-gnu, this machine is"
    ):
        load(path)


def test_code_that_cannot_be_loaded(build: TargetBuild, write: Callable[..., Path]) -> None:
    with pytest.raises(ArtifactError, match="the machine code cannot be loaded"):
        load(write(dataclasses.replace(build, code=b"not an ELF file" * 10)))
    with pytest.raises(ArtifactError, match="the machine code lacks the kernel 'nothing'"):
        load(write(with_info(build, kernels=("nothing", "reverse", "row_sum"))))


def test_interpreter_ends_quietly_with_a_module_alive(artifact_path: Path) -> None:
    program = "import sys, mgec.runtime as r; m = r.load(sys.argv[1], threads=2); m.bench(0.001)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(artifact_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
