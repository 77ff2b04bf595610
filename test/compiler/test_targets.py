"""One graph with kernels of every template, compiled for every target, and run on those that can.

LLVM must accept the text that MLIR prints for each of them: the two are of different versions.
The whole suites of test/compiler/kernels for each target are `make test-targets`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import archspec.cpu.detect
import ml_dtypes
import numpy as np
import pytest
from support.emulator import run_emulated
from support.graphs import assert_within, interpret, random_graph, random_inputs
from support.opcheck import assert_close

from mgec.compiler.api import CompiledGraph, compile_graph
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.interpret import run_module
from mgec.compiler.targets.target import TARGETS, Target, host_target, target_named
from mgec.errors import OptionError
from mgec.runtime import host
from mgec.tools.commands._python_file import trace_file

Array = np.ndarray[Any, Any]
BF16 = ml_dtypes.bfloat16
ROOT = Path(__file__).parents[2]


def constant(*shape: int) -> Array:
    """Weights of a graph: small numbers, so that sums of them are."""
    return np.random.default_rng(len(shape)).uniform(-1, 1, shape).astype(np.float32)


# What is computed, and how many products or terms the longest of its sums has.
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    "matmul": (lambda b, x, y: b.matmul(x, y), ((17, 37), (37, 29)), 37),
    "matmul, transposed": (
        lambda b, x, y: b.matmul(x, y, transpose_lhs=True, transpose_rhs=True),
        ((37, 17), (29, 37)), 37,
    ),
    "matmul, one row": (lambda b, x, y: b.matmul(x, y), ((1, 130), (130, 70)), 130),
    "matmul, constant": (
        lambda b, x: b.relu(b.matmul(x, b.constant(np.ones((37, 30), np.float32)))), ((9, 37),), 37,
    ),
    "matmul, float64": (
        lambda b, x, y: b.matmul(x, y), (((5, 37), "float64"), ((37, 9), "float64")), 37,
    ),
    "matmul, int32": (
        lambda b, x, y: b.matmul(x, y), (((5, 7), "int32"), ((7, 9), "int32")), 1,
    ),
    "conv": (
        lambda b, x, w: b.conv(x, w, stride=(2, 2), padding=(1, 1, 1, 1)),
        ((2, 3, 11, 11), (10, 3, 3, 3)), 27,
    ),
    "conv, channels last": (
        lambda b, x, w: b.conv(x, w, channels_last=True), ((1, 9, 8, 6), (10, 6, 3, 3)), 54,
    ),
    "conv, winograd": (
        lambda b, x: b.relu(b.conv(x, b.constant(constant(24, 32, 3, 3)), padding=(1, 1, 1, 1))),
        ((1, 32, 18, 17),), 288,
    ),
    "conv, winograd by panels": (
        lambda b, x: b.conv(x, b.constant(constant(64, 64, 3, 3)), padding=(1, 1, 1, 1)),
        ((1, 64, 7, 7),), 576,
    ),
    "conv, direct": (
        lambda b, x: b.conv(x, b.constant(constant(20, 5, 5, 5)), stride=(2, 2), groups=1),
        ((1, 5, 15, 16),), 125,
    ),
    "conv, groups": (
        lambda b, x: b.conv(x, b.constant(constant(24, 1, 3, 3)), groups=24, padding=(1, 1, 1, 1)),
        ((1, 24, 9, 9),), 9,
    ),
    "conv, transposed": (
        lambda b, x: b.conv_dgrad(
            x, b.constant(constant(8, 6, 3, 3)), stride=(2, 2), padding=(1, 1, 1, 1),
            input_size=(13, 13),
        ),
        ((1, 8, 7, 7),), 72,
    ),
    "conv, pointwise": (
        lambda b, x: b.conv(x, b.constant(constant(40, 24, 1, 1))), ((1, 24, 6, 7),), 24,
    ),
    "conv, depthwise": (
        lambda b, x, w: b.conv(x, w, groups=6), ((1, 6, 9, 9), (6, 1, 3, 3)), 9,
    ),
    "conv_dgrad": (
        lambda b, x, w: b.conv_dgrad(x, w, input_size=(9, 9)), ((1, 5, 7, 7), (5, 3, 3, 3)), 45,
    ),
    "conv_wgrad": (
        lambda b, x, y: b.conv_wgrad(x, y, kernel_size=(3, 3)), ((2, 5, 7, 7), (2, 3, 9, 9)), 98,
    ),
    "max_pool": (lambda b, x: b.max_pool(x, kernel=(3, 3)), ((1, 3, 9, 11),), 1),
    "avg_pool": (lambda b, x: b.avg_pool(x, kernel=(2, 2)), ((1, 3, 9, 11),), 4),
    "sum of rows": (lambda b, x: b.reduce_sum(x, axes=(1,)), ((7, 133),), 133),
    "sum of columns": (lambda b, x: b.reduce_sum(x, axes=(0,)), ((133, 7),), 133),
    "maximum": (lambda b, x: b.reduce_max(x, axes=(1,)), ((7, 133),), 1),
    "sum, bfloat16": (lambda b, x: b.reduce_sum(x, axes=(1,)), (((7, 133), BF16),), 133),
    "argmax": (lambda b, x: b.argmax(x, axis=1), ((7, 33),), 1),
    "softmax": (lambda b, x: b.softmax(x, axis=1), ((7, 77),), 77),
    "layer_norm": (lambda b, x, w, c: b.layer_norm(x, w, c), ((7, 45), (45,), (45,)), 45),
    "attention": (
        lambda b, q, k: b.attention(q, k, k, scale=0.5), ((1, 6, 2, 16), (1, 6, 2, 16)), 16,
    ),
    "gelu": (lambda b, x: b.gelu(x), ((5, 33),), 1),
    "sin": (lambda b, x: b.sin(x), ((99,),), 1),
    "float16": (lambda b, x: b.exp(b.mul(x, x)), (((99,), "float16"),), 1),
    "bfloat16": (lambda b, x: b.exp(b.add(x, x)), (((99,), BF16),), 1),
    "float64": (lambda b, x: b.tanh(x), (((99,), "float64"),), 1),
    "int8": (lambda b, x, y: b.mul(b.add(x, y), x), (((99,), "int8"), ((99,), "int8")), 1),
    "cast to float16": (lambda b, x: b.cast(x, dtype=np.dtype("float16")), ((99,),), 1),
    "cast to bfloat16": (lambda b, x: b.cast(x, dtype=np.dtype(BF16)), ((99,),), 1),
    "cast of int32": (lambda b, x: b.cast(x, dtype=np.dtype("float32")), (((99,), "int32"),), 1),
    "select": (lambda b, x, y: b.select(b.less(x, y), x, y), ((5, 33), (5, 33)), 1),
    "broadcast": (lambda b, x, y: b.add(x, y), ((5, 1, 9), (7, 1)), 1),
    "transpose": (lambda b, x: b.transpose(x, perm=(2, 0, 1)), ((5, 6, 7),), 1),
    "transpose, int8": (lambda b, x: b.transpose(x, perm=(1, 0)), (((19, 37), "int8"),), 1),
    "slice": (
        lambda b, x: b.slice(x, starts=(1, 0), stops=(8, 7), steps=(3, 2)), ((9, 7),), 1,
    ),
    "concat": (lambda b, x, y: b.concat(x, y, axis=1), ((3, 4), (3, 5)), 1),
    "pad": (lambda b, x: b.pad(x, low=(1, 0), high=(0, 3)), ((3, 4),), 1),
    "sort": (lambda b, x: b.sort(x, axis=1)[0], ((3, 24),), 1),
}  # fmt: skip
TEMPLATES = {
    "attention", "contraction", "depthwise conv", "direct conv", "elementwise", "layer norm rows",
    "linalg", "movement", "pooling", "reduce columns", "reduce rows", "softmax rows", "transpose",
    "transposed conv", "winograd",
}  # fmt: skip
HERE = [t.name for t in TARGETS.values() if t.architecture == host.architecture()]
OTHER = [name for name in TARGETS if name not in HERE]


def shapes_of(case: str) -> list[tuple[tuple[int, ...], Any]]:
    shapes = CASES[case][1]
    return [s if s and isinstance(s[0], tuple) else (s, "float32") for s in shapes]


def numbers(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Array:
    if np.dtype(dtype).kind in "iu":
        return rng.integers(-9, 10, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


@pytest.fixture
def everything(build: Any) -> tuple[GraphModule, list[Array]]:
    """A graph with a result for each case, and its inputs."""
    counts = [len(CASES[case][1]) for case in CASES]
    shapes = [shape for case in CASES for shape in shapes_of(case)]

    def body(b: Any, *arguments: Any) -> list[Any]:
        rest = iter(arguments)
        bodies = [CASES[case][0] for case in CASES]
        return [
            body(b, *[next(rest) for _ in range(count)])
            for body, count in zip(bodies, counts, strict=True)
        ]

    rng = np.random.default_rng(7)
    return build(body, *shapes), [numbers(*shape, rng) for shape in shapes]


def check(actual: list[Array], expected: list[Array]) -> None:
    for case, one, other in zip(CASES, actual, expected, strict=True):
        terms = CASES[case][2]
        transforms = 8.0 if "winograd" in case else 1.0  # see docs/numerics.md
        scale = (
            4.0 * transforms * max(1.0, float(np.abs(other.astype(np.float64)).max()) / terms**0.5)
        )
        try:
            assert_close(one, other, reduction=terms, scale=scale)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from error


def compiled_for(graph: GraphModule, name: str) -> CompiledGraph:
    compiled = compile_graph(graph, target=name)
    assert {kernel.template for kernel in compiled.kernels} >= TEMPLATES
    return compiled


@pytest.mark.parametrize("name", HERE)
def test_targets_of_this_architecture(
    everything: tuple[GraphModule, list[Array]], name: str
) -> None:
    graph, inputs = everything
    expected = run_module(graph.clone().module, inputs)
    compiled = compiled_for(graph, name)
    if missing := host.missing_features(TARGETS[name].required):
        pytest.skip(f"compiled, but this machine lacks {', '.join(missing)}")
    check(compiled.load()(*inputs), expected)


@pytest.mark.parametrize("name", OTHER)
def test_targets_of_another_architecture(
    everything: tuple[GraphModule, list[Array]], name: str, tmp_path: Path
) -> None:
    graph, inputs = everything
    expected = run_module(graph.clone().module, inputs)
    compiled = compiled_for(graph, name)
    check(run_emulated(compiled, inputs, tmp_path), expected)


def test_lenet_on_another_architecture(tmp_path: Path) -> None:
    graph, _ = trace_file(ROOT / "examples" / "digits" / "net.py", "LeNet", [])
    image = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    (expected,) = run_module(graph.clone().module, [image], weights=graph.weights)
    compiled = compile_graph(graph, target=OTHER[0])
    (actual,) = run_emulated(compiled, [image], tmp_path)
    assert_close(actual, expected, reduction=400)  # the longest sum is that of fc1


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(2000, 2050))
def test_random_graphs_on_another_architecture(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    inputs = random_inputs(rng, graph.inputs)
    expected = interpret(graph.module, inputs)
    compiled = compile_graph(GraphModule(graph.module.clone()), target=OTHER[0])
    assert_within(run_emulated(compiled, inputs, tmp_path), expected, graph.tolerances)


# -- names -------------------------------------------------------------------------------


def test_names() -> None:
    assert target_named("aarch64-linux-gnu") is TARGETS["aarch64"]
    assert target_named("aarch64-linux-gnu-dotprod") is TARGETS["aarch64-dotprod"]
    assert target_named("x86_64-linux-gnu") is TARGETS["x86-64"]
    assert target_named("host").name in HERE
    assert all(len(name) <= 16 and name == target.name for name, target in TARGETS.items())


def test_keys_differ() -> None:
    """Code of one target is never taken for another's."""
    assert len({target.key for target in TARGETS.values()}) == len(TARGETS)


def on_machine(monkeypatch: pytest.MonkeyPatch, architecture: str, flags: set[str]) -> Target:
    """The host's target on another machine."""
    monkeypatch.setattr(host, "architecture", lambda: architecture)
    found = type("Info", (), {"features": flags})
    monkeypatch.setattr(archspec.cpu.detect, "detected_info", lambda: found)
    return host_target.__wrapped__()


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"fp", "asimd"}, "aarch64"),
        ({"fp", "asimd", "asimddp"}, "aarch64-dotprod"),
        ({"fp", "asimd", "asimddp", "i8mm", "bf16"}, "aarch64-i8mm"),
        ({"fp", "asimd", "i8mm", "bf16"}, "aarch64"),
    ],
)
def test_host_on_arm(monkeypatch: pytest.MonkeyPatch, flags: set[str], name: str) -> None:
    assert on_machine(monkeypatch, "aarch64", flags).name == name


def test_host_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError) as caught:
        on_machine(monkeypatch, "riscv64", set())
    assert caught.value.headline == (
        "this machine is riscv64, and mgec compiles only for x86-64 and aarch64"
    )
    assert caught.value.fix == "cross-compile with --target, or run on one of these"
