"""Kernels are compiled in child processes; what goes wrong there is told here."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mgec import config
from mgec.compiler.kernels.source import CompiledKernel, DimRef, Units
from mgec.compiler.parallel import Job, compile_all
from mgec.errors import CompileError, ShapeError

PARENT = os.getpid()
NAMES = {f"key{i}": f"kernel {i} at net.py:{i}" for i in range(8)}


@pytest.fixture(autouse=True)
def two_workers() -> object:
    with config.override(num_threads=2):
        yield


def kernel(name: str) -> CompiledKernel:
    units = Units((((3, DimRef(0)), 2),))
    return CompiledKernel(name, name.encode() * 100, 2, 1, units, 64, "template", 7)


def make(name: str) -> Job:
    return lambda: kernel(name)


def test_all_kernels_come_back_from_the_children() -> None:
    pids = []

    def job(name: str) -> Job:
        def run() -> CompiledKernel:
            pids.append(os.getpid())
            return kernel(f"{name} {os.getpid() == PARENT}")

        return run

    made = compile_all({key: job(key) for key in NAMES}, NAMES)
    assert {key: made[key] for key in sorted(made)} == {
        key: kernel(f"{key} {i % 2 == 0}") for i, key in enumerate(NAMES)
    }
    assert pids == [PARENT] * 4  # the others ran, and appended, elsewhere


def test_few_kernels_are_compiled_here() -> None:
    def job() -> CompiledKernel:
        return kernel(str(os.getpid()))

    made = compile_all(dict.fromkeys(list(NAMES)[:3], job), NAMES)
    assert {k.name for k in made.values()} == {str(PARENT)}


def test_a_child_that_dies_names_its_kernel() -> None:
    def die() -> CompiledKernel:
        assert os.getpid() != PARENT
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory is short
        raise AssertionError

    jobs = {key: make(key) for key in NAMES}
    jobs["key5"] = die
    with pytest.raises(CompileError) as caught:
        compile_all(jobs, NAMES)
    assert caught.value.headline == "the compiler died (signal 9) in kernel kernel 5 at net.py:5"
    assert "MGEC_DEBUG" in (caught.value.fix or "")


def test_an_error_of_a_child_is_raised_here() -> None:
    def fail() -> CompileError:
        raise ShapeError("conv2d: input has 3 channels but weight expects 4")

    jobs = {key: make(key) for key in NAMES}
    jobs["key3"] = fail  # type: ignore[assignment]
    with pytest.raises(ShapeError, match="input has 3 channels"):
        compile_all(jobs, NAMES)


def test_a_slip_of_a_child_does_no_harm() -> None:
    """A child that failed where the parent does not (no memory, say): the parent does it."""

    def only_here() -> CompiledKernel:
        if os.getpid() != PARENT:
            raise MemoryError
        return kernel("here")

    jobs = {key: make(key) for key in NAMES}
    jobs["key1"] = only_here
    made = compile_all(jobs, NAMES)
    assert made["key1"].name == "here"
    assert set(made) == set(NAMES)


def test_an_error_of_the_parent_waits_for_the_children(tmp_path: Path) -> None:
    def fail() -> CompiledKernel:
        raise ShapeError("no")

    def note(name: str) -> Job:
        def run() -> CompiledKernel:
            (tmp_path / name).touch()
            return kernel(name)

        return run

    jobs: dict[str, Job] = {key: note(key) for key in NAMES}
    jobs["key0"] = fail
    with pytest.raises(ShapeError):
        compile_all(jobs, NAMES)
    assert {p.name for p in tmp_path.iterdir()} == {"key1", "key3", "key5", "key7"}
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # none is left


def test_other_python_threads_keep_it_in_this_process() -> None:
    import threading

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        seen: list[int] = []

        def job(i: int) -> CompiledKernel:
            seen.append(os.getpid())
            return CompiledKernel(f"k{i}", b"", 0, 0, Units(), 0, "", 0)

        jobs = {f"{i}": (lambda i=i: job(i)) for i in range(6)}
        assert len(compile_all(jobs, dict.fromkeys(jobs, ""))) == 6
        assert set(seen) == {os.getpid()} and len(seen) == 6
    finally:
        stop.set()
        thread.join()
