"""A traced graph: one function of mge ops, and the weights too large to print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from xdsl.dialects import builtin, func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute

from mgec.dialects.mge.spec import TensorSpec, from_type, to_type
from mgec.errors import IRError

NAME = "mge.name"
DONATE = "mge.donate"


@dataclass
class GraphModule:
    """What the compiler compiles.

    Attributes:
        module: holds one `func.func @main`; arguments and results carry `mge.name`, and a
            result may carry `mge.donate = i`: it replaces the value of argument i.
        weights: arrays that `mge.weight` ops refer to by key.
    """

    module: ModuleOp
    weights: dict[str, np.ndarray[Any, Any]] = field(
        default_factory=dict[str, np.ndarray[Any, Any]]
    )

    @staticmethod
    def empty(inputs: Sequence[TensorSpec], name: str = "main") -> GraphModule:
        """A graph with arguments and no ops yet."""
        function = func.FuncOp(name, ([to_type(s) for s in inputs], []))
        return GraphModule(ModuleOp([function]))

    @property
    def main(self) -> func.FuncOp:
        """The function."""
        functions = [op for op in self.module.ops if isinstance(op, func.FuncOp)]
        if len(functions) != 1:
            raise IRError(
                f"a module to compile holds one func.func, this one {len(functions)}",
                fix="keep the function to compile and remove the others",
            )
        return functions[0]

    @property
    def input_specs(self) -> list[TensorSpec]:
        """Specs of the arguments."""
        return [from_type(a.type) for a in self.main.body.block.args]

    @property
    def output_specs(self) -> list[TensorSpec]:
        """Specs of the results."""
        return [from_type(v.type) for v in self.return_op.operands]

    @property
    def return_op(self) -> func.ReturnOp:
        """The terminator of the function."""
        last = self.main.body.block.last_op
        if not isinstance(last, func.ReturnOp):
            raise IRError("the function has no func.return", fix="end it with func.return")
        return last

    def finish(self, values: Sequence[Any]) -> None:
        """Ends the function: returns `values` and completes its type."""
        function = self.main
        function.body.block.add_op(func.ReturnOp(*values))
        function.update_function_type()

    def set_names(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        donations: Sequence[int | None] | None = None,
    ) -> None:
        """Names arguments and results, and says which result replaces which argument."""
        function = self.main
        function.arg_attrs = builtin.ArrayAttr(
            [builtin.DictionaryAttr({NAME: builtin.StringAttr(n)}) for n in inputs]
        )
        results: list[Attribute] = []
        for i, name in enumerate(outputs):
            entries: dict[str, Attribute] = {NAME: builtin.StringAttr(name)}
            source = None if donations is None else donations[i]
            if source is not None:
                entries[DONATE] = builtin.IntegerAttr(source, 64)
            results.append(builtin.DictionaryAttr(entries))
        function.res_attrs = builtin.ArrayAttr(cast("Any", results))

    def _names(self, attrs: Any, count: int, prefix: str) -> list[str]:
        entries = list(attrs.data) if attrs is not None else [None] * count
        names: list[str] = []
        for i, entry in enumerate(entries):
            found = entry.data.get(NAME) if entry is not None else None
            name = found.data if found is not None else f"{prefix}_{i}"
            # A string with escapes is parsed as bytes.
            names.append(name.decode() if isinstance(name, bytes) else name)
        return names

    @property
    def input_names(self) -> list[str]:
        """Names of the arguments; `arg_i` where there is none."""
        return self._names(self.main.arg_attrs, len(self.main.body.block.args), "arg")

    @property
    def output_names(self) -> list[str]:
        """Names of the results; `out_i` where there is none."""
        return self._names(self.main.res_attrs, len(self.return_op.operands), "out")

    @property
    def donations(self) -> list[int | None]:
        """For each result, the argument it replaces, or None."""
        attrs = self.main.res_attrs
        count = len(self.return_op.operands)
        if attrs is None:
            return [None] * count
        result: list[int | None] = []
        for entry in attrs.data:
            found = cast("builtin.IntegerAttr[Any] | None", entry.data.get(DONATE))
            # `is not None`: an IntegerAttr of 0 is false.
            result.append(found.value.data if found is not None else None)
        return result

    def clone(self) -> GraphModule:
        """A deep copy of the module; the weights are shared."""
        return GraphModule(self.module.clone(), dict(self.weights))
