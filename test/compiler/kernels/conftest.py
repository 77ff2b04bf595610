"""Running kernels straight from their sources."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mgec.compiler.codegen.llvm_backend import KernelLoader, compile_kernel
from mgec.compiler.kernels.source import KernelSource
from mgec.compiler.targets import Target, host_target, target_named

_LOADER = KernelLoader()
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def _run(
    source: KernelSource,
    target: Target,
    inputs: Sequence[np.ndarray[Any, Any]],
    outputs: Sequence[tuple[tuple[int, ...], Any]],
    dims: Sequence[int] = (),
) -> list[np.ndarray[Any, Any]]:
    """Compiles a kernel, runs it in one piece and in three, and checks that the bits agree."""
    address = _LOADER.load(compile_kernel(source, target))
    units = source.units.evaluate(dims)
    table = (ctypes.c_int64 * max(1, len(dims)))(*dims)
    results: list[list[np.ndarray[Any, Any]]] = []
    for pieces in (1, 3):
        made = [np.zeros(shape, dtype) for shape, dtype in outputs]  # then what must not stay
        for array in made:
            array.reshape(-1).view(np.uint8).fill(0xA5)
        arrays = [np.ascontiguousarray(a) for a in inputs] + made
        if source.scratch_bytes:
            arrays.append(np.full(source.scratch_bytes, 0xFF, np.uint8))  # NaN, if ever used
        assert len(arrays) == source.num_buffers
        buffers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        bounds = [units * i // pieces for i in range(pieces + 1)]
        for low, high in pairwise(bounds):
            _FUNCTION(address)(buffers, table, low, high)
        results.append(made)
    for one, other in zip(*results, strict=True):
        assert one.tobytes() == other.tobytes(), "the result depends on how units are divided"
    return results[0]


@pytest.fixture
def run() -> Callable[..., list[np.ndarray[Any, Any]]]:
    """`run(source, target, inputs, [(shape, dtype)...], dims) -> outputs`."""
    return _run


@pytest.fixture(params=["host", "x86-64-v3", "x86-64"])
def target(request: pytest.FixtureRequest) -> Target:
    """Each target the host can run."""
    chosen = target_named(request.param)
    best = host_target()
    if not set(chosen.required) <= set(best.required):
        pytest.skip(f"this machine lacks what {chosen.name} requires: {chosen.required}")
    return chosen
