"""All ops of the dialect by name. A family file is listed here and nowhere else."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, cast

from mgec.errors import ArgumentError

FAMILIES = (
    "constant",
    "elementwise",
    "reduce",
    "shape",
    "indexing",
    "contraction",
    "convolution",
    "pooling",
    "activation",
    "normalization",
    "softmax",
    "attention",
    "random",
)
"""Modules of `mgec.dialects.mge` that define ops, in the order of the documentation."""


@cache
def all_ops() -> dict[str, Any]:
    """Every op class by its name ("mge.add"), in family order."""
    from mgec.dialects.mge.op import MgeOp

    ops: dict[str, Any] = {}
    for family in FAMILIES:
        module = import_module(f"mgec.dialects.mge.{family}")
        defined = cast("tuple[type[MgeOp], ...]", module.OPS)
        ops.update((op.name, op) for op in defined)
    return ops


def op_class(name: str) -> Any:
    """The op class called `name`.

    Raises:
        ArgumentError: if the dialect has no such op.
    """
    if (op := all_ops().get(name)) is None:
        raise ArgumentError(f"there is no op {name}", fix="see docs/ops.md for the list")
    return op
