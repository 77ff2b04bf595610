"""The interpreter: functions, kernels, weights, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.opcheck import context
from xdsl.context import Context
from xdsl.dialects.arith import Arith
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from mgec.compiler.interpret import run_function, run_module
from mgec.dialects.mge.dialect import mge_dialect
from mgec.errors import ArgumentError, CompileError

NET = """
func.func @dense(%x: tensor<2x3xf32>, %b: tensor<4xf32>) -> (tensor<2x4xf32>, tensor<4xf32>) {
  %w = mge.weight {key = "w", shape = [3, 4], dtype = f32} : () -> tensor<3x4xf32>
  %0, %1 = mge.kernel "k" (
      %p = %x : tensor<2x3xf32>, %q = %w : tensor<3x4xf32>, %r = %b : tensor<4xf32>
  ) -> (tensor<2x4xf32>, tensor<4xf32>) {
    %2 = mge.matmul %p, %q : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
    %3 = mge.add %2, %r : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
    %4 = mge.neg %r : (tensor<4xf32>) -> tensor<4xf32>
    mge.yield %3, %4 : tensor<2x4xf32>, tensor<4xf32>
  }
  func.return %0, %1 : tensor<2x4xf32>, tensor<4xf32>
}
"""
OTHER = """
func.func @other(%x: tensor<?x2xf32>) -> tensor<?x2xf32> {
  func.return %x : tensor<?x2xf32>
}
"""


def module(text: str) -> ModuleOp:
    made: Context = context()
    made.load_dialect(Arith)
    for op in mge_dialect().operations:
        if made.get_optional_op(op.name) is None:
            made.load_op(op)
    parsed = Parser(made, text).parse_module()
    parsed.verify()
    return parsed


def array(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_kernels_and_weights() -> None:
    x, b, w = array(2, 3), array(4), array(3, 4)
    out, negated = run_module(module(NET), [x, b], weights={"w": w})
    np.testing.assert_array_equal(out, x @ w + b)
    np.testing.assert_array_equal(negated, -b)
    assert out.dtype == np.float32


def test_functions_by_name_and_sizes_of_run_time() -> None:
    both = module(NET + OTHER)
    (out,) = run_module(both, [array(5, 2)], function="other")
    assert out.shape == (5, 2)
    with pytest.raises(ArgumentError, match="there is no single function\n"):
        run_module(both, [])
    with pytest.raises(ArgumentError, match="there is no single function no"):
        run_module(both, [], function="no")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([array(2, 3)], "dense takes 2 inputs but 1 are given"),
        ([array(2, 3), array(5)], r"input 1 is float32\[5\] but the function takes float32\[4\]"),
        ([array(2, 3).astype(np.float64), array(4)], r"input 0 is float64\[2, 3\]"),
        ([array(2, 3), array(4, 1)], r"input 1 is float32\[4, 1\]"),
        ([array(2, 3), array(4)], "there is no weight 'w'"),
    ],
)
def test_inputs_that_do_not_fit(inputs: list[np.ndarray[Any, Any]], message: str) -> None:
    function = next(iter(module(NET).ops))
    with pytest.raises(ArgumentError, match=message):
        run_function(function, inputs)  # type: ignore[arg-type]


def test_ops_of_other_dialects() -> None:
    text = "func.func @f() {\n  %0 = arith.constant 1.0 : f32\n  func.return\n}"
    with pytest.raises(CompileError, match=r"arith\.constant is not an op of mge"):
        run_module(module(text), [])
