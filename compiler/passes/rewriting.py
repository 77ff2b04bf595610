"""Small rewrites that keep locations: what every pattern-based pass is made of.

xDSL's rewriter gives new ops an unknown location, and then errors cannot name the user's
line. Here every op that a rewrite makes takes the location of the op it was matched on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from xdsl.dialects.builtin import ModuleOp, UnknownLoc
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
)

from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.op import MgeOp

Rewrite: TypeAlias = "Callable[[MgeOp, Any], SSAValue | Sequence[SSAValue] | None]"
"""`(op, b) -> what replaces the op's results`, made with builder `b`; None to leave it alone.

A rewrite that returns None has made nothing."""


class OpRewrites(RewritePattern):
    """Rewrites by the name of the op they match; the first one that applies wins.

    Example:
        rewrites = OpRewrites()

        @rewrites("mge.neg")
        def _double_negation(op, b):
            inner = producer(op.operands[0], "mge.neg")
            return inner.operands[0] if inner else None
    """

    def __init__(self) -> None:
        self._rewrites: dict[str, list[Rewrite]] = {}

    def __call__(self, *names: str) -> Callable[[Rewrite], Rewrite]:
        """Decorator that adds a rewrite for the ops called `names`."""

        def add(rewrite: Rewrite) -> Rewrite:
            for name in names:
                self._rewrites.setdefault(name, []).append(rewrite)
            return rewrite

        return add

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if not isinstance(op, MgeOp):
            return
        for rewrite in self._rewrites.get(op.name, ()):
            found = rewrite(op, IRBuilder(rewriter, op.location))
            if found is None:
                continue
            results = [found] if isinstance(found, SSAValue) else list(found)
            types = [value.type for value in results]
            assert types == list(op.result_types), f"{op.name} is replaced by {types}"
            rewriter.replace(op, [], results)
            return


class KeepLocation(RewritePattern):
    """Gives ops that `inner` makes without a location the location of the op it matched."""

    def __init__(self, inner: RewritePattern) -> None:
        self._inner = inner

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        location = op.location

        def on_insert(new: Operation) -> None:
            for made in new.walk():
                if isinstance(made.location, UnknownLoc):
                    made.location = location

        rewriter.operation_insertion_handler.append(on_insert)
        try:
            self._inner.match_and_rewrite(op, rewriter)
        finally:
            rewriter.operation_insertion_handler.remove(on_insert)


def apply_patterns(module: ModuleOp, *patterns: RewritePattern) -> bool:
    """Applies patterns until none matches; ops whose results nobody uses are removed.

    Args:
        module: changed in place.
        patterns: tried in order on every op, in every region.

    Returns:
        Whether anything changed.
    """
    wrapped: list[RewritePattern] = [KeepLocation(pattern) for pattern in patterns]
    walker = PatternRewriteWalker(GreedyRewritePatternApplier(wrapped, dce_enabled=True))
    return walker.rewrite_module(module)


def producer(value: SSAValue | None, *names: str) -> MgeOp | None:
    """The mge op that makes `value`, if it is called one of `names` (any mge op without)."""
    owner = None if value is None else value.owner
    if isinstance(owner, MgeOp) and (not names or owner.name in names):
        return owner
    return None
