"""What mgec adds to xDSL: `xdsl-opt` finds this through the `xdsl.universe` entry point."""

from __future__ import annotations

from xdsl.ir import Dialect
from xdsl.universe import Universe

from mgec.compiler.passes import all_passes


def _mge() -> Dialect:
    from mgec.dialects.mge.dialect import mge_dialect

    return mge_dialect()


MGEC_UNIVERSE = Universe(all_dialects={"mge": _mge}, all_passes=dict(all_passes()))
