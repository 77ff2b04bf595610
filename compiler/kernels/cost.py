"""What a kernel costs, roughly: to choose among templates before any code is written.

An estimate is the time of a kernel that meets its weights cold, as kernels of a network do:
each is run once per inference, and between two runs all other weights pass through the caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from mgec.compiler.targets import Target
from mgec.dialects.mge.spec import FLOAT32

_FEEDING_THREADS = 2
"""From so many threads on memory delivers no more: 31 to 43 GB/s in all (Zen 4, 2026-11)."""


@dataclass(frozen=True)
class Rates:
    """What one thread does per second; only the ratios matter for a choice.

    Attributes:
        flops: float32 multiplications and additions of a kernel that runs from registers.
        cache_bytes: read or written by code that rearranges blocks in the caches.
        memory_bytes: read from memory beside computations, prefetched.
    """

    flops: float
    cache_bytes: float
    memory_bytes: float

    @staticmethod
    def for_target(target: Target) -> Rates:
        """The rates of a usual machine of this kind.

        Measured on Zen 4 (one thread, 2026-11): 118, 105 and 22 GFLOP/s with AVX-512, AVX2 and
        SSE2; transforms of tiles 25 to 45 GB/s with AVX-512; F(4) with 38 MB of cold weights
        20 GB/s. NEON was not measured: two pipes of four lanes at 3 GHz.
        """
        vector = target.vector_bytes
        by_vector = {64: 118e9, 32: 105e9}
        flops = by_vector.get(vector, 48e9 if target.has_fma else 22e9)
        return Rates(flops, cache_bytes=min(vector, 32) * 1e9, memory_bytes=20e9)

    def seconds(
        self, flops: float, *, moved_bytes: float = 0, cold_bytes: float = 0, threads: int = 1
    ) -> float:
        """Time of a kernel.

        Args:
            flops: multiplications and additions.
            moved_bytes: read and written by transforms, in the caches.
            cold_bytes: weights, which come from memory while the kernel computes.
            threads: threads that share the work.
        """
        busy = (flops / self.flops + moved_bytes / self.cache_bytes) / threads
        return max(busy, cold_bytes / self.memory_bytes / min(threads, _FEEDING_THREADS))


def direct_cost(
    target: Target, weight: Sequence[int], out: Sequence[int], *, threads: int = 1
) -> float:
    """About how many seconds a convolution takes, computed directly.

    Args:
        target: what runs it.
        weight: shape of the weight, [O, C, *kernel].
        out: shape of the result, with the channels last.
        threads: threads that share the work.
    """
    flops = 2 * prod(out[:-1]) * prod(weight)
    weight_bytes = prod(weight) * FLOAT32.itemsize
    return Rates.for_target(target).seconds(flops, cold_bytes=weight_bytes, threads=threads)
