"""Ceilings: what the kernels compute, and that the best that was measured counts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mgec import config
from mgec.compiler.codegen.llvm_backend import compile_kernel
from mgec.compiler.eager import load_kernel
from mgec.compiler.targets import target_named
from mgec.compiler.tune import ceilings
from mgec.compiler.tune.ceilings import (
    Ceilings,
    measure_ceilings,
    multiply_add_kernel,
    reading_kernel,
)
from mgec.runtime.program import Program, Slot, Step

HOST = target_named("host")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_SECONDS", 0.01)
    monkeypatch.setattr(ceilings, "_MEMORY_BYTES", 8 << 20)
    monkeypatch.setattr(ceilings, "_STEPS", 500)


def run(source: ceilings.KernelSource, *arrays: np.ndarray) -> None:
    slots = tuple(Slot.io(i, array.nbytes) for i, array in enumerate(arrays))
    program = Program((Step(0, source.units.evaluate(), slots),), 1, len(arrays), 0, 0, 0)
    kernel = load_kernel(compile_kernel(source, HOST))
    program.bind([kernel.address], threads=1).run([array.ctypes.data for array in arrays])


def test_the_kernel_of_multiply_adds_computes_all_of_them() -> None:
    lanes = HOST.lanes(4)
    out = np.zeros(16 * lanes, np.float32)
    source = multiply_add_kernel(HOST)
    run(source, np.full(2 * lanes, 2, np.float32), out)
    sums = HOST.vector_registers - 4
    assert (out == sums * 500 * 4).all()  # each sum adds 2 * 2 per step
    assert source.flops == 2 * sums * 500 * out.size


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_reading_kernel_reads_everything(rounds: int) -> None:
    lanes = HOST.lanes(4)
    data = np.arange(2 * 16 * lanes, dtype=np.float32)
    out = np.zeros(2 * lanes, np.float32)
    run(reading_kernel(HOST, 2, 16 * lanes, rounds), data, out)
    expected = rounds * data.reshape(2, 16, lanes).sum(1)
    np.testing.assert_allclose(out.reshape(2, lanes), expected, rtol=1e-6)


def test_the_best_that_was_measured_counts(tmp_path: Path) -> None:
    with config.override(cache_dir=str(tmp_path)):
        first = measure_ceilings(HOST, 1)
        assert all(1e8 < rate < 1e15 for rate in asdict(first).values())
        (path,) = (tmp_path / "ceilings").iterdir()
        path.write_text('{"flops": 1e17, "memory_bytes": 1.0, "cache_bytes": 1.0}')
        second = measure_ceilings(HOST, 1)
        assert second.flops == 1e17
        assert second.memory_bytes > 1e8
        for damaged in ("", "[]", '{"flops": 1}', path.read_text().replace("1e+17", '"fast"')):
            path.write_text(damaged)
            assert measure_ceilings(HOST, 1).flops < 1e15


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with config.override(cache_dir=str(tmp_path / "file")):
        assert measure_ceilings(HOST, 1).flops > 1e8


def test_the_time_that_each_limit_allows() -> None:
    limits = Ceilings(flops=100.0, memory_bytes=10.0, cache_bytes=50.0)
    assert limits.seconds(200, 5, 10) == {"compute": 2.0, "memory": 0.5, "cache": 0.2}
