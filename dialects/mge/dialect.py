"""The mge dialect as xDSL loads it."""

from __future__ import annotations

from functools import cache

from xdsl.ir import Dialect

from mgec.dialects.mge.registry import all_ops


@cache
def mge_dialect() -> Dialect:
    """Every op of the dialect; importing them all takes a while, so this is done on demand."""
    from mgec.dialects.mge.kernel import OPS

    return Dialect("mge", [*all_ops().values(), *OPS])
