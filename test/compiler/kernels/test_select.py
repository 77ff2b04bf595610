"""Which template serves which kernel, and that run-time sizes give the bits of known ones."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mgec.compiler.api import compile_graph
from mgec.compiler.eager import eager_kernel
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.interpret import run_module
from mgec.compiler.kernels.select import select_kernel
from mgec.compiler.loading import parse_graph
from mgec.compiler.pipeline import run_phases
from mgec.compiler.targets.target import TARGETS
from mgec.dialects.mge.kernel import KernelOp
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import TensorSpec

BF16 = ml_dtypes.bfloat16


def templates(graph: GraphModule, target: str = "x86-64-v3") -> list[str]:
    """The templates of a graph's kernels, after the passes."""
    run_phases(graph)
    kernels = [op for op in graph.main.body.block.ops if isinstance(op, KernelOp)]
    return [
        select_kernel(k.body.block, f"k{i}", TARGETS[target], k.in_place).template
        for i, k in enumerate(kernels)
    ]


SELECTION: dict[str, tuple[list[str], Any, tuple[Any, ...]]] = {
    "matmul": (["contraction"], lambda b, x, w: b.matmul(x, w), ((8, 4), (4, 16))),
    "matmul of one tensor": (["contraction"], lambda b, x: b.matmul(x, x), ((4, 4),)),
    "matmul, transposed": (
        ["contraction"], lambda b, x, w: b.matmul(x, w, transpose_rhs=True), ((8, 4), (16, 4)),
    ),
    "matmul, epilogue": (
        ["contraction"],
        lambda b, x, w, c: b.relu(b.add(b.matmul(x, w), c)),
        ((8, 4), (4, 16), (16,)),
    ),
    "matmul, bfloat16": (
        ["contraction"], lambda b, x, w: b.matmul(x, w), (((8, 4), BF16), ((4, 16), BF16)),
    ),
    "matmul, int32": (
        ["linalg"], lambda b, x, w: b.matmul(x, w), (((8, 4), "int32"), ((4, 16), "int32")),
    ),
    "conv": (["contraction"], lambda b, x, w: b.conv(x, w), ((1, 4, 6, 6), (8, 4, 3, 3))),
    "conv, three axes": (
        ["contraction"], lambda b, x, w: b.conv(x, w), ((1, 4, 3, 6, 6), (8, 4, 3, 3, 3)),
    ),
    "conv, channels last": (
        ["contraction"], lambda b, x, w: b.conv(x, w, channels_last=True),
        ((1, 6, 6, 4), (8, 4, 3, 3)),
    ),
    "max_pool, one axis": (
        ["pooling"], lambda b, x: b.max_pool(x, kernel=(3,)), ((1, 4, 9),),
    ),
    "max_pool, three axes": (
        ["linalg"], lambda b, x: b.max_pool(x, kernel=(2, 2, 2)), ((1, 4, 3, 6, 6),),
    ),
    "avg_pool, channels last": (
        ["pooling"], lambda b, x: b.avg_pool(x, kernel=(2, 2, 2), channels_last=True),
        ((1, 3, 6, 6, 4),),
    ),
    "reduction": (["reduce rows"], lambda b, x: b.reduce_sum(x, axes=(1,)), ((8, 40),)),
    "reduction, prologue and epilogue": (
        ["reduce rows"],
        lambda b, x, y: b.sqrt(b.add(b.reduce_sum(b.mul(x, x), axes=(1,)), y)),
        ((8, 40), (8,)),
    ),
    "reduction, bfloat16": (
        ["reduce rows"], lambda b, x: b.reduce_sum(x, axes=(1,)), (((8, 40), BF16),),
    ),
    "reduction, int32": (
        ["linalg"], lambda b, x: b.reduce_sum(x, axes=(1,)), (((8, 40), "int32"),),
    ),
    "softmax": (["softmax rows"], lambda b, x: b.softmax(x, axis=1), ((8, 40),)),
    "log_softmax": (["softmax rows"], lambda b, x: b.log_softmax(x, axis=1), ((8, 40),)),
    "softmax, first axis": (["linalg"], lambda b, x: b.softmax(x, axis=0), ((8, 40),)),
    "softmax, float16": (
        ["elementwise", "reduce rows", "elementwise", "reduce rows", "elementwise"],
        lambda b, x: b.softmax(x, axis=1),
        (((8, 40), "float16"),),
    ),
    "attention": (
        ["attention"],
        lambda b, q, k, c: b.attention(q, k, k, c, scale=0.5, causal=True),
        ((1, 8, 4, 16), (1, 8, 2, 16), (8, 8)),
    ),
    "attention of one tensor": (
        ["attention"], lambda b, x: b.attention(x, x, x, scale=0.5), ((1, 8, 4, 16),),
    ),
    "attention of nothing": (
        ["linalg"], lambda b, x: b.attention(x, x, x, scale=0.5), ((0, 8, 4, 16),),
    ),
    "layer_norm": (
        ["layer norm rows"], lambda b, x, w, c: b.layer_norm(x, w, c), ((8, 40), (40,), (40,)),
    ),
    "layer_norm, no weight": (["layer norm rows"], lambda b, x: b.layer_norm(x), ((8, 40),)),
    "layer_norm, two axes": (
        ["layer norm rows"], lambda b, x: b.layer_norm(x, num_axes=2), ((8, 4, 10),),
    ),
    "layer_norm, only a weight": (
        ["linalg"], lambda b, x, w: b.layer_norm(x, w), ((8, 40), (40,)),
    ),
    "elementwise": (["elementwise"], lambda b, x, y: b.add(b.exp(x), y), ((8, 4), (8, 4))),
    "elementwise, broadcast": (
        ["elementwise"], lambda b, x, y: b.mul(b.add(x, y), x), ((8, 4), (4,)),
    ),
    "broadcast": (["elementwise"], lambda b, x: b.broadcast(x, shape=(8, 4)), ((4,),)),
}  # fmt: skip


@pytest.mark.parametrize("case", SELECTION)
def test_template(build: Any, case: str) -> None:
    expected, body, shapes = SELECTION[case]
    assert templates(build(body, *shapes)) == expected


def test_layer_norm_with_one_tensor_for_weight_and_bias(build: Any) -> None:
    """A kernel takes a value once, however often its op does."""
    graph = build(lambda b, x, v: b.layer_norm(x, v, v), (5, 40), (40,))
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((5, 40), np.float32), rng.standard_normal(40, np.float32)
    (actual,) = compile_graph(graph).load()(x, v)
    centered = x - x.mean(1, keepdims=True, dtype=np.float64)
    expected = centered / np.sqrt((centered**2).mean(1, keepdims=True) + 1e-5) * v + v
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


ONE_VALUE: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "take": (lambda b, x: b.take(x, x), (3,), "int32"),
    "gather": (lambda b, x: b.gather(x, x, axis=1), (3, 3), "int32"),
    "scatter": (lambda b, x: b.scatter(x, x, x, axis=0), (3,), "int32"),
    "matmul": (lambda b, x: b.matmul(x, x, transpose_rhs=True), (3, 5), "float32"),
    "concat": (lambda b, x: b.concat(x, x, x, axis=0), (3, 5), "float32"),
    "layer_norm": (lambda b, x: b.layer_norm(x, x, x), (7,), "float32"),
    "conv": (lambda b, x: b.conv(x, x), (2, 2, 3, 3), "float32"),
    "conv_dgrad": (
        lambda b, x: b.conv_dgrad(x, x, input_size=(1, 1)), (2, 2, 1, 1), "float32",
    ),
    "conv_wgrad": (
        lambda b, x: b.conv_wgrad(x, x, kernel_size=(1, 1)), (2, 2, 1, 1), "float32",
    ),
    "max_pool_grad": (
        lambda b, x: b.max_pool_grad(x, x, x, kernel=(1, 1), stride=(1, 1)),
        (1, 2, 3, 3), "float32",
    ),
    "max_pool_pick": (
        lambda b, x: b.max_pool_pick(x, x, x, kernel=(1, 1), stride=(1, 1)),
        (1, 2, 3, 3), "float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_VALUE)
def test_one_value_for_every_operand(build: Any, case: str) -> None:
    body, shape, dtype = ONE_VALUE[case]
    graph = build(body, (shape, dtype))
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    x = (rng.permutation(size) % 3).astype(dtype).reshape(shape)
    x = x if dtype == "int32" else x + np.float32(0.5)
    expected = run_module(graph.clone().module, [x])
    for actual, wanted in zip(compile_graph(graph).load()(x), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)


def test_operands_in_any_order() -> None:
    """A kernel that was written by hand may list its operands in another order than its op."""
    graph = parse_graph(
        """
        func.func @main(%c: tensor<8xf32>, %x: tensor<2x8xf32>, %w: tensor<8xf32>) -> tensor<2x8xf32> {
          %0 = mge.kernel "norm" (%a = %w : tensor<8xf32>, %b = %c : tensor<8xf32>, %d = %x : tensor<2x8xf32>) -> tensor<2x8xf32> {
            %1 = mge.layer_norm %d, weight = %a, bias = %b : (tensor<2x8xf32>, tensor<8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
            mge.yield %1 : tensor<2x8xf32>
          }
          func.return %0 : tensor<2x8xf32>
        }
        """  # noqa: E501
    )
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    w, c = np.full(8, 2, np.float32), np.full(8, 100, np.float32)
    compiled = compile_graph(graph, since="kernels")
    assert compiled.kernels[0].template == "layer norm rows"
    (actual,) = compiled.load()(c, x, w)
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(actual, normal * 2 + 100, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["softmax", "matmul", "layer_norm", "reduce_sum"])
def test_results_that_nobody_needs(build: Any, name: str) -> None:
    """Without optimization nothing removes them earlier, and no template writes no result."""

    def body(b: Any, x: Any) -> Any:
        _ = {
            "softmax": lambda: b.softmax(x, axis=1),
            "matmul": lambda: b.matmul(x, x),
            "layer_norm": lambda: b.layer_norm(x),
            "reduce_sum": lambda: b.reduce_sum(x, axes=(0,)),
        }[name]()
        return b.neg(x)

    compiled = compile_graph(build(body, (4, 4)), optimize=False)
    assert [call.name for call in compiled.calls] == ["neg"]


# -- run-time sizes ----------------------------------------------------------------------

EAGER: dict[str, tuple[str, str, list[tuple[int, ...] | None], dict[str, Any]]] = {
    "add": ("elementwise", "add", [(3, 5), (3, 5)], {}),
    "add, broadcast": ("elementwise", "add", [(3, 5), (5,)], {}),
    "matmul": ("contraction", "matmul", [(3, 5), (5, 7)], {}),
    "matmul, batched": ("contraction", "matmul", [(2, 3, 5), (5, 7)], {}),
    "conv": ("contraction", "conv", [(1, 2, 6, 6), (4, 2, 3, 3)], {"padding": (1, 1, 1, 1)}),
    "sum": ("reduce rows", "reduce_sum", [(3, 50)], {"axes": (1,)}),
    "softmax": ("softmax rows", "softmax", [(3, 50)], {"axis": 1}),
    "layer_norm": ("layer norm rows", "layer_norm", [(3, 50), (50,), (50,)], {}),
    "argmax": ("linalg", "argmax", [(3, 5)], {"axis": 1}),
}


@pytest.mark.parametrize("case", EAGER)
def test_template_of_run_time_sizes(case: str) -> None:
    template, name, shapes, attrs = EAGER[case]
    op = op_class(f"mge.{name}")
    full = op.complete_attrs(attrs)
    inputs = [None if s is None else TensorSpec(s, np.dtype("float32")) for s in shapes]
    outputs = op.infer_specs(inputs, full)
    assert eager_kernel(op, inputs, outputs, full).template == template
