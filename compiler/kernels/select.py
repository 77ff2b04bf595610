"""Which template makes a kernel: the first that can serve it, in order of speed."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.ir import Block

from mgec.compiler.kernels.source import KernelSource
from mgec.compiler.lowering.linalg_kernel import linalg_kernel
from mgec.compiler.targets import Target

WHOLE: frozenset[str] = frozenset()
"""Composites that a template serves whole, so that passes leave them alone."""


def select_kernel(
    block: Block, name: str, target: Target, in_place: Mapping[int, int] | None = None
) -> KernelSource:
    """The source of a kernel for a region.

    Args:
        block: arguments are the kernel's inputs; the terminator's operands its outputs.
        name: symbol of the kernel.
        target: what it will be compiled for.
        in_place: result index -> input index whose buffer it overwrites.
    """
    del in_place
    return linalg_kernel(block, name, target)
