"""Rule tables of the mge dialect: what is known about an op besides its type.

A rule is registered in the file that defines its op. Drivers (the eager dispatcher, the
tracer, passes, code generation, documentation) only look rules up, and a missing rule
explains itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

from mgec.errors import CompileError

Rule = TypeVar("Rule", bound=Callable[..., Any])


class RuleTable(Generic[Rule]):
    """A map from op class to rule, that explains itself when a rule is missing.

    Args:
        what: name of the rule, as used in `@what(Op)`.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._rules: dict[type[Any], Rule] = {}

    def __call__(self, *op_types: type[Any]) -> Callable[[Rule], Rule]:
        """Decorator that registers one rule for each of `op_types`."""

        def register(rule: Rule) -> Rule:
            for op_type in op_types:
                if op_type in self._rules:
                    raise ValueError(
                        f"{op_type.name} already has a {self.what} rule "
                        f"in {self._rules[op_type].__module__}"
                    )
                self._rules[op_type] = rule
            return rule

        return register

    def get(self, op_type: type[Any]) -> Rule | None:
        """The rule of `op_type`, or None."""
        return self._rules.get(op_type)

    def __contains__(self, op_type: type[Any]) -> bool:
        return op_type in self._rules

    def __iter__(self) -> Iterator[type[Any]]:
        return iter(self._rules)

    def __getitem__(self, op_type: type[Any]) -> Rule:
        if (rule := self._rules.get(op_type)) is None:
            raise CompileError(
                f"{op_type.name} has no {self.what} rule",
                fix=f"add one with @{self.what}({op_type.__name__}) in {op_type.__module__}",
            )
        return rule


def as_tuple(results: Any) -> tuple[Any, ...]:
    """What a rule returned, as a tuple: a rule with one result may return it bare."""
    return cast("tuple[Any, ...]", results) if isinstance(results, tuple) else (results,)


reference: RuleTable[Callable[..., Any]] = RuleTable("reference")
"""`(*arrays, **attrs) -> array | tuple`: the oracle, in NumPy. Floating point operands
arrive as float64 and the driver rounds the results to the inferred dtypes."""

gradient: RuleTable[Callable[..., Any]] = RuleTable("gradient")
"""`(b, call, *d_outputs) -> tuple[value | None, ...]`: reverse mode, one entry per operand,
written with the ops of builder `b`."""

decomposition: RuleTable[Callable[..., Any]] = RuleTable("decomposition")
"""`(b, *operands, **attrs) -> value | tuple`: a composite op in terms of simpler ones."""

lanes: RuleTable[Callable[..., Any]] = RuleTable("lanes")
"""`(b, *lanes, dtype, **attrs) -> Lane`: one element of an elementwise op, scalar or vector."""

lowering: RuleTable[Callable[..., Any]] = RuleTable("lowering")
"""`(b, call) -> value | tuple`: linalg on tensors, through a `LinalgBuilder`."""
