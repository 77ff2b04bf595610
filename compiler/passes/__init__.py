"""Passes over graphs in the mge dialect, one per file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdsl.passes import ModulePass

PASSES = {
    "mge-assign-layouts": "assign_layouts:AssignLayoutsPass",
    "mge-canonicalize": "canonicalize:CanonicalizePass",
    "mge-cse": "eliminate_common_subexpressions:EliminateCommonSubexpressionsPass",
    "mge-dce": "eliminate_dead_code:EliminateDeadCodePass",
    "mge-decompose": "decompose:DecomposePass",
    "mge-fold-batch-norm": "fold_batch_norm:FoldBatchNormPass",
    "mge-fold-constants": "fold_constants:FoldConstantsPass",
    "mge-form-kernels": "form_kernels:FormKernelsPass",
    "mge-fuse-attention": "fuse_attention:FuseAttentionPass",
    "mge-fuse-gelu": "fuse_gelu:FuseGeluPass",
    "mge-lower-precision": "lower_precision:LowerPrecisionPass",
    "mge-plan-memory": "plan_memory:PlanMemoryPass",
}
"""Every pass by name, as "file:class"; the file is imported when the pass is used."""


def all_passes() -> dict[str, Callable[[], type[ModulePass]]]:
    """A function for every pass, by name, that imports and returns the class."""
    return {name: partial(_load, where) for name, where in PASSES.items()}


def _load(where: str) -> type[ModulePass]:
    file, _, name = where.partition(":")
    return getattr(import_module(f"mgec.compiler.passes.{file}"), name)
