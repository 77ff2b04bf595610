"""Running kernels straight from their sources, here or in an emulator."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from support.emulator import kernel_server

from mgec.compiler.codegen.llvm_backend import KernelLoader, compile_kernel
from mgec.compiler.kernels.source import KernelSource
from mgec.compiler.targets import Target, target_named
from mgec.runtime import host

_LOADER = KernelLoader()
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)

Array = np.ndarray[Any, Any]
Call = Callable[[Sequence[Array], Sequence[int], Sequence[tuple[int, int]]], None]
"""Calls a kernel: buffers, dims, and the ranges of units, one after the other."""


def _native(source: KernelSource, target: Target) -> Call:
    address = _LOADER.load(compile_kernel(source, target))

    def call(arrays: Sequence[Array], dims: Sequence[int], ranges: Any) -> None:
        table = (ctypes.c_int64 * max(1, len(dims)))(*dims)
        buffers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        for low, high in ranges:
            _FUNCTION(address)(buffers, table, low, high)

    return call


def _emulated(source: KernelSource, target: Target, outputs: Sequence[int]) -> Call:
    server = kernel_server(target.architecture)
    library = server.prepare(compile_kernel(source, target), target)
    return lambda arrays, dims, ranges: server.run(
        library, source.name, arrays, outputs, dims, ranges
    )


def _run(
    source: KernelSource,
    target: Target,
    inputs: Sequence[Array],
    outputs: Sequence[tuple[tuple[int, ...], Any]],
    dims: Sequence[int] = (),
) -> list[Array]:
    """Compiles a kernel, runs it in one piece and in three, and checks that the bits agree.

    Constants are given as they are, and packed as the kernel wants them.
    """
    calls: list[Call] = []
    shared = bool(source.workspace_bytes)
    for stage in source.stages:
        if target.architecture == host.architecture():
            calls.append(_native(stage, target))
        else:
            written = range(len(inputs), len(inputs) + len(outputs) + shared)
            calls.append(_emulated(stage, target, written))
    packing = dict(source.packing)
    inputs = [packing[i].apply(a) if i in packing else a for i, a in enumerate(inputs)]
    results: list[list[Array]] = []
    for pieces in (1, 3):
        made = [np.zeros(shape, dtype) for shape, dtype in outputs]  # then what must not stay
        for array in made:
            array.reshape(-1).view(np.uint8).fill(0xA5)
        arrays = [np.ascontiguousarray(a) for a in inputs] + made
        if shared:
            arrays.append(np.full(source.workspace_bytes, 0xFF, np.uint8))  # NaN, if ever used
        for stage, call in zip(source.stages, calls, strict=True):
            table = list(arrays)
            if stage.scratch_bytes:
                table.append(np.full(stage.scratch_bytes, 0xFF, np.uint8))
            assert len(table) == stage.num_buffers
            assert stage.workspace_bytes == source.workspace_bytes
            units = stage.units.evaluate(dims)
            call(table, dims, list(pairwise(units * i // pieces for i in range(pieces + 1))))
        results.append(made)
    for one, other in zip(*results, strict=True):
        assert one.tobytes() == other.tobytes(), "the result depends on how units are divided"
    return results[0]


@pytest.fixture
def run() -> Callable[..., list[Array]]:
    """`run(source, target, inputs, [(shape, dtype)...], dims) -> outputs`."""
    return _run


_ALWAYS = ("host", "x86-64-v3", "x86-64")
_MATRIX = ("x86-64-v2", "aarch64")  # the others take another path through no template


@pytest.fixture(
    params=[*_ALWAYS, *(pytest.param(name, marks=pytest.mark.matrix) for name in _MATRIX)]
)
def target(request: pytest.FixtureRequest) -> Target:
    """Each target the host can run, itself or in an emulator."""
    chosen = target_named(request.param)
    if chosen.architecture == host.architecture():
        missing = host.missing_features(chosen.required)
        if missing:
            pytest.skip(f"this machine lacks what {chosen.name} requires: {', '.join(missing)}")
    return chosen
