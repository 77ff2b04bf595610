"""What this machine can do at most, measured by kernels of our own.

A busy machine measures too little. So what was measured before is remembered, and the best of
both counts: the ceilings only rise.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import xxhash

from mgec import config
from mgec.compiler.eager import load_kernel
from mgec.compiler.kernels.emitter import KernelEmitter, Value, VectorLanes
from mgec.compiler.kernels.source import KernelSource, Units
from mgec.compiler.targets import Target
from mgec.dialects.mge.lane import Lane
from mgec.dialects.mge.spec import FLOAT32
from mgec.runtime import host
from mgec.runtime.program import Program, Slot, Step

_SECONDS = 0.15
"""How long each of the three is measured."""

_STEPS, _UNITS = 20_000, 16
"""Of the multiply-add kernel: 16 units of about 100 us."""

_MEMORY_BYTES = 256 << 20
"""More than the caches of most machines hold."""

_CHUNK = 1 << 18
"""Elements per unit of what is read from memory: 1 MiB."""

_SUMS = 8
"""Independent sums of the reading kernel, so that loads do not wait for additions."""

_AHEAD = 1024
"""Elements that are fetched ahead."""

_ROUNDS = 64
"""How often a unit reads what lies in the cache."""


@dataclass(frozen=True)
class Ceilings:
    """Rates of all threads together.

    Attributes:
        flops: float32 multiplications and additions per second, in registers.
        memory_bytes: read per second, from memory.
        cache_bytes: read per second, from the second-level caches.
    """

    flops: float
    memory_bytes: float
    cache_bytes: float

    def seconds(self, flops: float, memory: float, cache: float) -> dict[str, float]:
        """The least time that each of them allows.

        Args:
            flops: to compute.
            memory: bytes that pass through the memory bus.
            cache: bytes that do not.
        """
        return {
            "compute": flops / self.flops,
            "memory": memory / self.memory_bytes,
            "cache": cache / self.cache_bytes,
        }


def measure_ceilings(target: Target, threads: int) -> Ceilings:
    """Measures, remembers, and returns the best that was ever measured here.

    Args:
        target: whose instructions to use; this machine must have them.
        threads: how many threads work.
    """
    fresh = Ceilings(
        _flops_per_second(target, threads),
        _bytes_per_second(target, threads, _MEMORY_BYTES // FLOAT32.itemsize, 1),
        _bytes_per_second(target, threads, threads * target.l2_bytes // 2 // FLOAT32.itemsize,
                          _ROUNDS),
    )  # fmt: skip
    path = _path(target, threads)
    if (known := _read(path)) is not None:
        pairs = zip(asdict(fresh).items(), asdict(known).values(), strict=True)
        fresh = Ceilings(**{name: max(new, old) for (name, new), old in pairs})
    _write(path, fresh)
    return fresh


def _flops_per_second(target: Target, threads: int) -> float:
    source = multiply_add_kernel(target)
    vector = np.ones(2 * target.lanes(FLOAT32.itemsize), np.float32)
    out = np.empty(_UNITS * target.lanes(FLOAT32.itemsize), np.float32)
    return source.flops / _least_seconds(source, target, threads, [vector, out])


def _bytes_per_second(target: Target, threads: int, elements: int, rounds: int) -> float:
    blocks = threads if rounds > 1 else -(-elements // _CHUNK)
    source = reading_kernel(target, blocks, elements // blocks, rounds)
    data = np.ones(elements, np.float32)
    out = np.empty(blocks * target.lanes(FLOAT32.itemsize), np.float32)
    return rounds * data.nbytes / _least_seconds(source, target, threads, [data, out])


def multiply_add_kernel(target: Target) -> KernelSource:
    """Multiply-adds of registers: as many sums as there are registers, but for a few.

    Its buffers are two vectors, and one vector for each unit.
    """
    k = KernelEmitter("mgec_ceiling_flops", target)
    b = VectorLanes(k, target.lanes(FLOAT32.itemsize))
    data, out = k.buffer(FLOAT32), k.buffer(FLOAT32)
    sums = target.vector_registers - 4
    x, y = b.load(data, 0), b.load(data, b.width)

    def step(_: Any, acc: list[Value]) -> list[Value]:
        return [b.value(b.fma(x, y, Lane(value.ref, "f32"))) for value in acc]

    with k.loop("%begin", "%end") as unit:
        zero = b.value(b.constant(0, "f32"))
        total, *rest = k.fold(0, _STEPS, 1, [zero] * sums, step)
        lane = Lane(total.ref, "f32")
        for value in rest:
            lane = b.add(lane, Lane(value.ref, "f32"))
        b.store(lane, out, k.mul(unit, b.width))
    flops = 2 * b.width * sums * _STEPS * _UNITS
    return k.finish(Units((((_UNITS,), 1),)), template="ceiling", flops=flops)


def reading_kernel(target: Target, blocks: int, elements: int, rounds: int) -> KernelSource:
    """Reads, and adds, so that nothing is left out.

    Its buffers are what is read, and one vector for each unit.

    Args:
        target: what it is for.
        blocks: how many units.
        elements: of a unit; what is left over of whole steps is not read.
        rounds: how often each unit reads them.
    """
    k = KernelEmitter("mgec_ceiling_bytes", target)
    b = VectorLanes(k, target.lanes(FLOAT32.itemsize))
    data, out = k.buffer(FLOAT32), k.buffer(FLOAT32)
    step_elements = _SUMS * b.width
    with k.loop("%begin", "%end") as unit:
        first = k.mul(unit, elements)

        def step(at: Any, acc: list[Value]) -> list[Value]:
            places = [k.add(first, at, i * b.width) for i in range(_SUMS)]
            for place in places if rounds == 1 else ():  # from memory
                k.prefetch(data, k.add(place, _AHEAD))
            loads = [b.load(data, place) for place in places]
            pairs = zip(acc, loads, strict=True)
            return [b.value(b.add(Lane(value.ref, "f32"), load)) for value, load in pairs]

        def again(_: Any, acc: list[Value]) -> list[Value]:
            return k.fold(0, elements // step_elements * step_elements, step_elements, acc, step)

        total, *rest = k.fold(0, rounds, 1, [b.value(b.constant(0, "f32"))] * _SUMS, again)
        lane = Lane(total.ref, "f32")
        for value in rest:
            lane = b.add(lane, Lane(value.ref, "f32"))
        b.store(lane, out, k.mul(unit, b.width))
    return k.finish(Units((((blocks,), 1),)), template="ceiling")


def _least_seconds(
    source: KernelSource, target: Target, threads: int, arrays: list[np.ndarray[Any, Any]]
) -> float:
    from mgec.compiler.codegen.llvm_backend import compile_kernel

    kernel = load_kernel(compile_kernel(source, target))
    slots = tuple(Slot.io(i, array.nbytes) for i, array in enumerate(arrays))
    program = Program((Step(0, source.units.evaluate(), slots),), 1, len(arrays), 0, 0, 0)
    bound = program.bind([kernel.address], threads=threads, keep_alive=arrays)
    return min(bound.bench([array.ctypes.data for array in arrays], _SECONDS))


def _path(target: Target, threads: int) -> Path:
    machine = f"{host.architecture()} {os.cpu_count()} {target.key} {threads}"
    name = xxhash.xxh3_64(f"{machine} {_processor()}".encode()).hexdigest()
    return config.cache_dir / "ceilings" / f"{name}.json"


def _processor() -> str:
    """The model of this machine's processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("model name")), "")


def _read(path: Path) -> Ceilings | None:
    try:
        found = cast("dict[str, Any]", json.loads(path.read_bytes()))
        rates = Ceilings(**found)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    values = asdict(rates).values()
    return rates if all(isinstance(v, float) and 0 < v < 1e18 for v in values) else None


def _write(path: Path, rates: Ceilings) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(rates), file)
        Path(temporary).replace(path)
    except OSError as error:
        config.get_logger().debug("ceilings not written: %s", error)
