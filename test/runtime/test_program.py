"""Programs of hand-written kernels, run by the native runtime."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mgec.errors import ArgumentError, RuntimeFailure
from mgec.runtime import BoundProgram, Program, Slot, Step, Storage, native

Kernels = Callable[[str], int]
Sample = Any  # the class in conftest.py


def aligned(array: np.ndarray) -> np.ndarray:
    copy = Storage(array.nbytes).as_array(array.dtype, array.shape)
    copy[...] = array
    return copy


def bind_sample(sample: Sample, kernel: Kernels, threads: int) -> BoundProgram:
    weights = aligned(sample.weights())
    addresses = [kernel(name) for name in ("scale_add", "reverse", "row_sum")]
    return sample.program().bind(
        addresses, weights.ctypes.data, threads=threads, keep_alive=weights
    )


def run_sample(
    sample: Sample, bound: BoundProgram, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = (
        np.random.default_rng(seed)
        .standard_normal((sample.ROWS, sample.COLUMNS))
        .astype(np.float32)
    )
    y, sums = np.full(sample.N, np.nan, np.float32), np.full(sample.ROWS, np.nan, np.float32)
    bound.run([x.ctypes.data, y.ctypes.data, sums.ctypes.data])
    return x, y, sums


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_runs_steps_in_order(sample: Sample, kernel: Kernels, threads: int) -> None:
    bound = bind_sample(sample, kernel, threads)
    for seed in range(200):
        x, y, sums = run_sample(sample, bound, seed)
        expected_y, expected_sums = sample.expected(x)
        np.testing.assert_array_equal(y, expected_y)
        np.testing.assert_allclose(sums, expected_sums, rtol=0, atol=1e-5)


def test_same_bits_for_every_thread_count(sample: Sample, kernel: Kernels) -> None:
    results = [
        run_sample(sample, bind_sample(sample, kernel, threads), 3)[1:]
        for threads in (1, 2, 3, 4, 7)
    ]
    for y, sums in results[1:]:
        assert y.tobytes() == results[0][0].tobytes()
        assert sums.tobytes() == results[0][1].tobytes()


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("units", [0, 1, 2, 3, 5, 64, 1001])
def test_every_unit_runs_once(kernel: Kernels, threads: int, units: int) -> None:
    counts = np.zeros(max(units, 1), np.int32)
    step = Step(0, units, (Slot.io(0, counts.nbytes),))
    bound = Program((step, step, step), num_kernels=1, num_io=1).bind(
        [kernel("count")], threads=threads
    )
    bound.run([counts.ctypes.data])
    assert (counts[:units] == 3).all()
    native.call_kernel(kernel("count"), [counts.ctypes.data], [], units, threads)
    assert (counts[:units] == 4).all()
    assert counts.sum() == 4 * units


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("units", [3, 10, 37, 1001])
def test_ranges_cover_the_units_in_few_calls(kernel: Kernels, threads: int, units: int) -> None:
    for _ in range(20):
        rows = np.zeros((units, 3), np.int64)
        native.call_kernel(kernel("record"), [rows.ctypes.data], [], units, threads)
        ranges = [(begin, end) for begin, end, thread in rows.tolist() if thread]
        assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
        assert ranges[-1][1] == units
        assert len(ranges) <= 4 * threads
        assert len({thread for *_, thread in rows.tolist() if thread}) <= threads


def threads_used(kernel: Kernels, threads: int) -> set[int]:
    """The most threads that took part in a step; no step is sure to have several."""
    used: set[int] = set()
    deadline = time.monotonic() + 20
    while len(used) < threads and time.monotonic() < deadline:
        units = np.zeros(24, np.int64)
        native.call_kernel(kernel("nap"), [units.ctypes.data], [], len(units), threads)
        used = max(used, set(units.tolist()), key=len)
    return used


@pytest.mark.parametrize("threads", [2, 4])
def test_all_threads_take_part(kernel: Kernels, threads: int) -> None:
    used = threads_used(kernel, threads)
    assert len(used) == threads
    assert threading.get_ident() in used


def test_no_more_threads_than_the_run_may_use(kernel: Kernels) -> None:
    native.shared_pool(4)
    for threads in (4, 2, 4, 2, 3, 1):
        for _ in range(3):
            units = np.zeros(24, np.int64)
            native.call_kernel(kernel("nap"), [units.ctypes.data], [], len(units), threads)
            assert len(set(units.tolist())) <= threads


@pytest.fixture
def busy_cpus() -> Iterator[None]:
    """Another process that wants all of each CPU, for at most 10 seconds."""
    loop = "import time; end = time.monotonic() + 10\nwhile time.monotonic() < end: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def test_results_do_not_depend_on_who_runs_when(kernel: Kernels, busy_cpus: None) -> None:
    """Four threads on CPUs that others use: workers come late, in the middle, or not at all."""
    rng = np.random.default_rng(7)
    deadline = time.monotonic() + 2
    runs = 0
    while time.monotonic() < deadline:
        n = int(rng.integers(1, 40 if rng.random() < 0.5 else 4000))
        nbytes, room = n * 4, (n * 4 + 63) // 64 * 64
        a, b = Slot.arena(0, nbytes), Slot.arena(room, nbytes)
        x_slot, out = Slot.io(0, nbytes), Slot.io(1, nbytes)
        serial = (rng.random(5) < 0.2).tolist()
        steps = (
            Step(0, n, (x_slot, x_slot, a), serial=serial[0]),
            Step(1, n, (a, b), (n,), serial=serial[1]),
            Step(0, n, (b, x_slot, a), serial=serial[2]),
            Step(1, n, (a, b), (n,), serial=serial[3]),
            Step(0, n, (b, x_slot, out), serial=serial[4]),
        )
        bound = Program(steps, num_kernels=2, num_io=2, arena_bytes=2 * room).bind(
            [kernel("scale_add"), kernel("reverse")], threads=int(rng.integers(2, 5))
        )
        for _ in range(20):
            x = rng.integers(-1000, 1000, n).astype(np.float32)
            y = np.full(n, np.nan, np.float32)
            bound.run([x.ctypes.data, y.ctypes.data])
            expected = 2 * (2 * (3 * x)[::-1] + x)[::-1] + x
            np.testing.assert_array_equal(y, expected)
            runs += 1
    assert runs > 0


def test_serial_step_stays_on_the_caller(kernel: Kernels) -> None:
    rows = np.zeros((8, 3), np.int64)
    step = Step(0, 8, (Slot.io(0, rows.nbytes),), serial=True)
    Program((step,), num_kernels=1, num_io=1).bind([kernel("record")], threads=4).run(
        [rows.ctypes.data]
    )
    assert rows[0, :2].tolist() == [0, 8]
    assert not rows[1:].any()


def test_huge_unit_counts_do_not_overflow(kernel: Kernels) -> None:
    step = Step(0, 2**63 - 1, ())
    Program((step,), num_kernels=1, num_io=0).bind([kernel("empty")], threads=4).run([])


def test_eight_python_threads_share_one_program(sample: Sample, kernel: Kernels) -> None:
    bound = bind_sample(sample, kernel, 2)
    wrong: list[int] = []

    def work(worker: int) -> None:
        for i in range(150):
            x, y, _ = run_sample(sample, bound, worker * 1000 + i)
            if not np.array_equal(y, sample.expected(x)[0]):
                wrong.append(worker)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_of_a_fork_runs_in_parallel_again(sample: Sample, kernel: Kernels) -> None:
    bound = bind_sample(sample, kernel, 2)
    run_sample(sample, bound, 0)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                x, y, _ = run_sample(sample, bound, 5)
                threads = threads_used(kernel, 2)
                status = 0 if np.array_equal(y, sample.expected(x)[0]) and len(threads) == 2 else 2
            finally:
                os._exit(status)
        deadline = time.monotonic() + 20
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        if done == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        assert os.waitstatus_to_exitcode(done[1]) == 0
    x, y, _ = run_sample(sample, bound, 6)  # the parent is as before
    np.testing.assert_array_equal(y, sample.expected(x)[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_another_thread_runs(sample: Sample, kernel: Kernels) -> None:
    bound = bind_sample(sample, kernel, 2)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            run_sample(sample, bound, 1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    fresh = bind_sample(sample, kernel, 2)
                    x, y, _ = run_sample(sample, fresh, 5)
                    status = 0 if np.array_equal(y, sample.expected(x)[0]) else 2
                finally:
                    os._exit(status)
            deadline = time.monotonic() + 20
            while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.002)
            if done == (0, 0):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                pytest.fail("the child hangs")
            assert os.waitstatus_to_exitcode(done[1]) == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("spin_nanoseconds", [0, 1_000_000])
def test_own_pool_sleeps_wakes_and_ends(kernel: Kernels, spin_nanoseconds: int) -> None:
    library = native.library()
    pool = native.created(library.pool_create, 3, spin_nanoseconds, 0)
    counts = np.zeros(9, np.int32)
    buffers = np.array([counts.ctypes.data], np.uintp)
    for _ in range(50):
        native.check(
            library.parallel_kernel(pool, 0, kernel("count"), buffers.ctypes.data, None, 9)
        )
        time.sleep(0.001)
    native.check(library.pool_destroy(pool))
    assert (counts == 50).all()


def test_timing_and_bench(kernel: Kernels) -> None:
    dims = (200_000,)
    steps = (Step(0, 1, (Slot.arena(0, 8),), dims), Step(1, 1, ()))
    bound = Program(steps, num_kernels=2, num_io=0, arena_bytes=64).bind(
        [kernel("spin"), kernel("empty")], threads=1
    )
    slow, fast = bound.run_timed([])
    assert slow > fast >= 0
    samples = bound.bench([], seconds=0.01)
    assert len(samples) >= 1
    assert min(samples) > 0
    assert len(bound.bench([], seconds=10, max_samples=3)) == 3


DEFECTS: dict[str, tuple[Callable[[Program], Program], str]] = {
    "kernel": (
        lambda p: dataclasses.replace(p, num_kernels=2),
        "program: step 2 calls kernel 2, expected 0 to 1",
    ),
    "arena": (
        lambda p: dataclasses.replace(p, arena_bytes=64),
        "program: step 0 slot 2 covers bytes 0 to 384 of arena, expected at most 64",
    ),
    "constant": (
        lambda p: dataclasses.replace(p, constants_bytes=383),
        "program: step 0 slot 1 covers bytes 64 to 448 of constant, expected at most 383",
    ),
    "io": (
        lambda p: dataclasses.replace(p, num_io=1),
        "program: step 1 slot 1 names input or output 1, expected 0 to 0",
    ),
    "units": (
        lambda p: dataclasses.replace(p, steps=(dataclasses.replace(p.steps[0], units=-1),)),
        "program: step 0 has -1 units, expected 0 to 2**63 - 1",
    ),
    "dims": (
        lambda p: dataclasses.replace(p, steps=(dataclasses.replace(p.steps[0], dims=(2**63,)),)),
        "program: step 0 has a dim outside int64",
    ),
    "arena size": (
        lambda p: dataclasses.replace(p, arena_bytes=-1),
        "program: arena has -1 bytes, expected 0 to 2**48",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_inconsistent_program_is_refused(sample: Sample, defect: str) -> None:
    change, message = DEFECTS[defect]
    with pytest.raises(ArgumentError) as caught:
        change(sample.program()).check()
    assert caught.value.headline == message


def test_encode_and_decode(sample: Sample) -> None:
    program = sample.program()
    data = program.encode()
    assert Program.decode(data) == program
    empty = Program((), num_kernels=0, num_io=0)
    assert Program.decode(empty.encode()) == empty
    for cut in (0, 10, len(data) - 1):
        with pytest.raises(ArgumentError, match="expected"):
            Program.decode(data[:cut])


def test_binding_errors(sample: Sample, kernel: Kernels) -> None:
    program = sample.program()
    with pytest.raises(ArgumentError, match="it was bound to 0 kernels, expected 3"):
        program.bind([])
    with pytest.raises(ArgumentError, match="kernel 1 was bound to address 0"):
        program.bind([1, 0, 1])
    with pytest.raises(
        ArgumentError, match="weights were bound to address 0x8, expected a multiple"
    ):
        program.bind([1, 1, 1], 8)
    with pytest.raises(ArgumentError, match="it cannot run on 0 threads"):
        program.bind([1, 1, 1], 64, threads=0)
    bound = bind_sample(sample, kernel, 1)
    for run in (bound.run, bound.run_timed, bound.bench):
        with pytest.raises(ArgumentError, match="a run needs 3 addresses .* but was given 2"):
            run([1, 2])


def test_native_failures_have_code_message_and_place(kernel: Kernels) -> None:
    library = native.library()
    with pytest.raises(RuntimeFailure) as caught:
        native.check(library.parallel_kernel(None, 1, kernel("empty"), None, None, -1))
    assert caught.value.headline == "native runtime: parallel_kernel: units is negative"
    values = {value.name: value.description for value in caught.value.values}
    assert values["code"] == "1 (invalid argument)"
    assert values["from"].startswith("pool.c:")
    with pytest.raises(RuntimeFailure, match="out of memory"):
        native.created(library.alloc, 1 << 62)
    with pytest.raises(RuntimeFailure, match=r"threads must lie in \[1, 256\]"):
        native.created(library.pool_create, 1000, 0, 0)
    with pytest.raises(RuntimeFailure, match="the shared pool lives as long as the process"):
        native.check(library.pool_destroy(native.shared_pool(2)))
