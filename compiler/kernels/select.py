"""Which template makes a kernel: the first that can serve it, in order of speed."""

from __future__ import annotations

from xdsl.ir import Block

from mgec.compiler.kernels.source import KernelSource
from mgec.compiler.lowering.linalg_kernel import linalg_kernel
from mgec.compiler.targets import Target


def select_kernel(block: Block, name: str, target: Target) -> KernelSource:
    """The source of a kernel for a region.

    Args:
        block: arguments are the kernel's inputs; the terminator's operands its outputs.
        name: symbol of the kernel.
        target: what it will be compiled for.
    """
    return linalg_kernel(block, name, target)
