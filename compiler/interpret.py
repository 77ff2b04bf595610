"""What a graph means, without compiling it: functions run with the `@reference` rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, SSAValue

from mgec.dialects.mge.constant import WeightOp
from mgec.dialects.mge.kernel import KernelOp
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.reference import Array, evaluate
from mgec.dialects.mge.spec import DYNAMIC, TensorSpec, from_type
from mgec.errors import ArgumentError, CompileError


def run_module(
    module: ModuleOp,
    inputs: Sequence[Array],
    *,
    function: str | None = None,
    weights: Mapping[str, Array] | None = None,
) -> list[Array]:
    """Runs one function of a module.

    Args:
        module: a module that holds functions of mge ops.
        inputs: one array per argument.
        function: its name; None where the module has only one.
        weights: arrays by key, for `mge.weight`.

    Returns:
        One array per result.

    Raises:
        ArgumentError: if there is no such function, or an input does not fit.
    """
    functions = [op for op in module.ops if isinstance(op, func.FuncOp)]
    names = [op.sym_name.data for op in functions]
    if function is None and len(functions) == 1:
        return run_function(functions[0], inputs, weights=weights)
    if function not in names:
        raise ArgumentError(
            f"interpret: there is no single function {function or ''}".rstrip(),
            fix=f"name one of {', '.join(names) or 'no functions'}",
        )
    return run_function(functions[names.index(function)], inputs, weights=weights)


def run_function(
    function: func.FuncOp, inputs: Sequence[Array], *, weights: Mapping[str, Array] | None = None
) -> list[Array]:
    """Runs a function of mge ops and kernels.

    Args:
        function: its body is one block that ends with func.return.
        inputs: one array per argument, of the argument's shape and dtype.
        weights: arrays by key, for `mge.weight`.

    Returns:
        One array per result.

    Raises:
        ArgumentError: if an input does not fit.
        CompileError: if an op is not one of mge.
    """
    block = function.body.block
    if len(inputs) != len(block.args):
        raise ArgumentError(
            f"interpret: {function.sym_name.data} takes {len(block.args)} inputs "
            f"but {len(inputs)} are given"
        )
    for i, (argument, array) in enumerate(zip(block.args, inputs, strict=True)):
        _check_input(i, from_type(argument.type), array)
    return run_block(block, inputs, weights=weights)


def run_block(
    block: Block, inputs: Sequence[Array], *, weights: Mapping[str, Array] | None = None
) -> list[Array]:
    """Runs the ops of a block; returns the operands of its terminator."""
    values: dict[SSAValue, Array] = dict(zip(block.args, inputs, strict=True))
    terminator = block.last_op
    assert terminator is not None
    for op in block.ops:
        if op is terminator:
            break
        operands = [values[v] for v in op.operands]
        if isinstance(op, WeightOp):
            results: Sequence[Array] = [_weight(op, weights or {})]
        elif isinstance(op, MgeOp):
            results = run_op(op, operands)
        elif isinstance(op, KernelOp):
            results = run_block(op.body.block, operands, weights=weights)
        else:
            raise CompileError(f"interpret: {op.name} is not an op of mge", fix="lower it later")
        values.update(zip(op.results, results, strict=True))
    return [values[v] for v in terminator.operands]


def run_op(op: MgeOp, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Evaluates one op; `arrays` holds one array for each operand it has."""
    present = iter(arrays)
    operands = [None if v is None else next(present) for v in op.operand_list]
    return evaluate(type(op), operands, op.attrs)


def _weight(op: WeightOp, weights: Mapping[str, Array]) -> Array:
    attrs = cast("dict[str, Any]", op.attrs)
    if (array := weights.get(attrs["key"])) is None:
        raise ArgumentError(
            f"interpret: there is no weight {attrs['key']!r}", fix="give it in weights"
        )
    return array


def _check_input(index: int, spec: TensorSpec, array: np.ndarray[Any, Any]) -> None:
    fits = array.dtype == spec.dtype and len(array.shape) == spec.rank
    sizes = zip(array.shape, spec.shape, strict=False)
    if not fits or any(want not in (DYNAMIC, have) for have, want in sizes):
        raise ArgumentError(
            f"interpret: input {index} is {array.dtype.name}{list(array.shape)} but the function "
            f"takes {spec}",
            fix="convert or reshape it",
        )
