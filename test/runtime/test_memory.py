"""Storages: alignment, reuse, lifetime, bounds of what is kept."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from mgec.errors import ArgumentError, RuntimeFailure
from mgec.runtime import Storage, memory


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    gc.collect()
    memory.empty_cache()
    yield
    memory.empty_cache()


@pytest.mark.parametrize(
    "nbytes", [0, 1, 63, 64, 65, 256, 257, 320, 321, 4096, 5000, (1 << 20) + 1]
)
def test_aligned_and_writable(nbytes: int) -> None:
    storage = Storage(nbytes)
    assert storage.nbytes == nbytes
    assert storage.address % 64 == 0
    array = storage.as_array(np.uint8, (nbytes,))
    array[...] = 7
    assert array.sum() == 7 * nbytes


def test_size_classes_waste_little() -> None:
    before = memory.cached_bytes()
    for nbytes in (*range(1, 4200, 7), 100_000, 999_999, 1 << 20, (1 << 20) + 1, 5_000_000):
        memory.empty_cache()
        del_me = Storage(nbytes)
        del del_me
        block = memory.cached_bytes() - before
        assert nbytes <= block <= max(nbytes * 1.25, nbytes + 63)


def test_freed_block_is_reused() -> None:
    first = Storage(1000)
    address = first.address
    del first
    second = Storage(1010)  # the same class
    assert second.address == address
    third = Storage(1000)
    assert third.address != address


def test_view_keeps_the_block() -> None:
    storage = Storage(64)
    array = storage.as_array(np.float32, (4, 4))
    address = storage.address
    del storage
    assert Storage(64).address != address
    array[...] = 1
    row = array[0]
    del array
    assert Storage(64).address != address
    del row
    assert Storage(64).address == address


def test_view_must_fit() -> None:
    with pytest.raises(ArgumentError, match="an array of 68 bytes does not fit into 64 bytes"):
        Storage(64).as_array(np.float32, (17,))


def test_wrapped_array_is_shared_and_kept() -> None:
    array = np.arange(6, dtype=np.int32)
    storage = Storage.from_array(array)
    array[0] = 9
    del array
    assert storage.as_array(np.int32, (2, 3)).tolist() == [[9, 1, 2], [3, 4, 5]]
    del storage
    assert memory.cached_bytes() == 0
    with pytest.raises(ArgumentError, match="the array is not contiguous"):
        Storage.from_array(np.zeros((4, 4))[:, ::2])


def test_kept_bytes_are_bounded() -> None:
    small = [Storage(1 << 16) for _ in range(100)]
    del small
    assert memory.cached_bytes() <= 1 << 20
    memory.empty_cache()
    before = memory.set_cache_limit(10 << 20)
    try:
        large = [Storage(3 << 20) for _ in range(5)]
        large.clear()
        assert memory.cached_bytes() == 9 << 20
    finally:
        assert memory.set_cache_limit(before) == 10 << 20


def test_bad_sizes() -> None:
    with pytest.raises(ArgumentError, match="-1 bytes were asked for"):
        Storage(-1)
    with pytest.raises(RuntimeFailure, match="out of memory"):
        Storage(1 << 60)


def test_threads_never_share_a_block() -> None:
    wrong: list[int] = []

    def work(mark: int) -> None:
        random = np.random.default_rng(mark)
        held: list[np.ndarray] = []
        for _ in range(2000):
            array = Storage(int(random.integers(8, 3000))).as_array(np.uint8, (8,))
            array[...] = mark
            held.append(array)
            if len(held) > 20:
                old = held.pop(int(random.integers(20)))
                if (old != mark).any():
                    wrong.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_interpreter_ends_quietly_with_storages_alive() -> None:
    program = (
        "from mgec.runtime import Storage, native; native.shared_pool(2);"
        "a = [Storage(n) for n in (10, 10**5, 10**7)]"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
