"""compile_graph: programs, constants, reports, and the cache of kernels on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgec import config
from mgec.compiler import cache
from mgec.compiler.api import CompiledGraph, compile_graph, compile_to_file
from mgec.compiler.assemble import canonical_text
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.kernels.source import CompiledKernel, DimRef, Units
from mgec.compiler.pipeline import run_phases
from mgec.dialects.mge.constant import WeightOp
from mgec.dialects.mge.kernel import KernelOp
from mgec.errors import IRError, OptionError
from mgec.runtime.program import SlotKind


def mlp(b: Any, x: Any) -> Any:
    rng = np.random.default_rng(0)
    for _ in range(3):
        w = b.constant(rng.standard_normal((16, 16), np.float32) / 4)
        x = b.relu(b.add(b.matmul(x, w), b.constant(rng.standard_normal(16, np.float32))))
    return x


def mlp_reference(x: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    for _ in range(3):
        w = rng.standard_normal((16, 16), np.float32) / 4
        x = np.maximum(x @ w + rng.standard_normal(16, np.float32), 0)
    return x


# -- running ---------------------------------------------------------------------------


def test_a_small_graph(build: Any) -> None:
    compiled = compile_graph(build(mlp, (4, 16)))
    x = np.random.default_rng(1).standard_normal((4, 16), np.float32)
    (y,) = compiled.load()(x)
    np.testing.assert_allclose(y, mlp_reference(x), rtol=1e-5, atol=1e-5)  # sums of 16, thrice
    assert [c.name for c in compiled.calls] == ["matmul_add_relu"] * 3
    assert compiled.input_names == ["x0"]
    assert compiled.output_names == ["y0"]
    assert [str(s) for s in compiled.input_specs] == ["float32[4, 16]"]


@pytest.mark.parametrize("optimize", [True, False])
def test_results_that_are_not_computed(build: Any, optimize: bool) -> None:
    """An argument, a constant, one value twice, a reshape of it: each has its own buffer."""

    def body(b: Any, x: Any) -> Any:
        y = b.neg(x)
        return x, b.constant(np.float32([1, 2])), y, y, b.reshape(y, shape=(2, 2))

    x = np.arange(4, dtype=np.float32)
    results = compile_graph(build(body, (4,)), optimize=optimize).load()(x)
    for actual, expected in zip(results, (x, [1, 2], -x, -x, -x.reshape(2, 2)), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_graph_of_nothing(build: Any) -> None:
    compiled = compile_graph(build(lambda b, x: [], (4,)))
    assert compiled.program.steps == ()
    assert compiled.load()(np.zeros(4, np.float32)) == []


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_tensors_of_no_elements(build: Any, shape: tuple[int, ...]) -> None:
    def body(b: Any, x: Any) -> Any:
        return b.exp(x), b.reduce_sum(x, axes=(0,)), b.transpose(x, perm=range_of(x))

    def range_of(x: Any) -> tuple[int, ...]:
        return tuple(range(len(shape)))

    exp, total, moved = compile_graph(build(body, shape)).load()(np.zeros(shape, np.float32))
    assert exp.shape == moved.shape == shape
    np.testing.assert_array_equal(total, np.zeros(shape[1:], np.float32))


def test_zero_dimensional_tensors(build: Any) -> None:
    compiled = compile_graph(build(lambda b, x, y: b.mul(b.add(x, y), x), (), ()))
    (y,) = compiled.load()(np.float32(3), np.float32(4))
    assert y.shape == ()
    assert y == 21


# -- donations -------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_a_result_overwrites_the_argument_it_replaces(build: Any, which: int) -> None:
    compiled = compile_graph(build(lambda b, w, g: b.sub(w, g), (100,), (100,), donations=[which]))
    assert compiled.donations == [which]
    assert compiled.program.arena_bytes == 0
    run = compiled.load().run
    arrays = [np.arange(100, dtype=np.float32), np.ones(100, np.float32)]
    expected = arrays[0] - arrays[1]
    run([a.ctypes.data for a in (*arrays, arrays[which])])
    np.testing.assert_array_equal(arrays[which], expected)


def test_no_donation_where_the_argument_is_read_later(build: Any) -> None:
    def body(b: Any, w: Any, g: Any) -> Any:
        return b.sub(w, g), b.matmul(w, g)

    compiled = compile_graph(build(body, (4, 4), (4, 4), donations=[0, None]))
    assert compiled.donations == [None, None]


# -- constants -------------------------------------------------------------------------


def constant_slots(compiled: CompiledGraph) -> set[tuple[int, int]]:
    slots = [s for step in compiled.program.steps for s in step.slots]
    return {(s.offset, s.nbytes) for s in slots if s.kind == SlotKind.CONSTANT}


def test_constants_lie_once_and_aligned(build: Any) -> None:
    v, u = np.arange(5, dtype=np.float32), np.arange(5, 10, dtype=np.float32)

    def body(b: Any, x: Any) -> Any:
        a = b.matmul(x, b.reshape(b.constant(v), shape=(5, 1)))
        c = b.matmul(x, b.reshape(b.constant(v.copy()), shape=(5, 1)))
        d = b.matmul(x, b.reshape(b.constant(u), shape=(5, 1)))
        return a, c, d, b.matmul(b.exp(x), b.reshape(b.constant(v), shape=(5, 1)))

    compiled = compile_graph(build(body, (2, 5)))
    slots = constant_slots(compiled)
    assert slots == {(0, 20), (64, 20)}
    assert len(compiled.weights) == compiled.program.constants_bytes == 128
    assert {bytes(compiled.weights[o : o + n]) for o, n in slots} == {v.tobytes(), u.tobytes()}


def test_weights(build: Any) -> None:
    w = np.random.default_rng(0).standard_normal((16, 8), np.float32)

    def body(b: Any, x: Any) -> Any:
        made = WeightOp.build_op([], {"key": "w", "shape": w.shape, "dtype": w.dtype})
        x.owner.add_op(made)
        return b.add(x, made.results[0]), b.matmul(x, made.results[0], transpose_rhs=True)

    graph = build(body, (16, 8))
    graph.weights["w"] = w
    compiled = compile_graph(graph)
    # As it is for the sum, and in panels for the product.
    start = compiled.weight_offsets["w"]
    assert compiled.weights[start : start + w.nbytes] == w.tobytes()
    assert len(compiled.weights) >= 2 * w.nbytes
    x = np.random.default_rng(1).standard_normal((16, 8), np.float32)
    total, product = compiled.load()(x)
    np.testing.assert_array_equal(total, x + w)
    np.testing.assert_allclose(product, x @ w.T, rtol=0, atol=2e-6 * 8)


# -- kernels ---------------------------------------------------------------------------


def test_equal_kernels_compile_once(build: Any, empty_cache: Path) -> None:
    compiled = compile_graph(build(mlp, (4, 16)))
    assert len(compiled.calls) == 3
    assert len(compiled.kernels) == compiled.compiled_kernels == 1
    assert len(list(empty_cache.rglob("*.kernel"))) == 1


def test_what_tells_kernels_apart(build: Any) -> None:
    def text(body: Any, *shapes: Any) -> str:
        graph = build(body, *shapes)
        run_phases(graph)
        (kernel,) = [op for op in graph.main.body.block.ops if isinstance(op, KernelOp)]
        return canonical_text(kernel)

    one = text(lambda b, x, y: b.sub(x, y), (4,), (4,))
    assert text(lambda b, x, y: b.sub(x, y), (4,), (4,)) == one
    assert text(lambda b, x, y: b.sub(y, x), (4,), (4,)) == one  # called with y, x
    different = [
        text(lambda b, x, y: b.sub(x, y), (5,), (5,)),
        text(lambda b, x, y: b.sub(x, y), (4,), (1,)),
        text(lambda b, x, y: b.sub(x, y), ((4,), "float64"), ((4,), "float64")),
        text(lambda b, x, y: b.add(x, y), (4,), (4,)),
        text(lambda b, x, y: b.sub(x, b.scalar(1.0, y)), (4,), (4,)),
        text(lambda b, x, y: b.sub(x, b.scalar(2.0, y)), (4,), (4,)),
        text(lambda b, x: b.reduce_sum(x, axes=(0,)), (4, 4)),
        text(lambda b, x: b.reduce_sum(x, axes=(1,)), (4, 4)),
    ]
    assert len({one, *different}) == 1 + len(different)


def test_report(build: Any) -> None:
    report = compile_graph(build(mlp, (4, 16))).report()
    json.dumps(report)
    assert report["arena_bytes"] == report["live_bytes"] == 512
    assert report["weight_bytes"] == 3 * (16 * 16 * 4 + 64)
    (step, *others) = report["steps"]
    assert len(others) == 2
    assert step["name"] == "matmul_add_relu"
    assert step["template"] == "contraction"
    assert step["flops"] == 2 * 4 * 16 * 16
    assert "net.py" in step["line"]


def test_phases_and_passes_are_told(build: Any) -> None:
    seen: list[tuple[str, str]] = []
    dumps: dict[str, str] = {}
    compiled = compile_graph(
        build(mlp, (4, 16)),
        observe=lambda phase, name, seconds: seen.append((phase, name)),
        after_phase=lambda phase, graph: dumps.update({phase: str(graph.module)}),
    )
    assert ("graph", "mge-canonicalize") in seen
    assert ("kernels", "mge-plan-memory") in seen
    assert list(dumps) == ["trace", "graph", "kernels"]
    assert "mge.kernel" not in dumps["graph"]
    assert "mge.kernel" in dumps["kernels"]
    assert set(compiled.seconds) == {"graph", "kernels", "object"}


TOLD = {
    1: ["compiled 1 steps, 1 kernels (1 new)", "linking: "],
    2: ["graph: mge-canonicalize: ", "kernels: mge-plan-memory: "],
    3: [": not elementwise: not every op is elementwise", ": softmax rows"],
    4: ["phase trace:\n", "phase kernels:\n"],
    5: ["after mge-canonicalize:\n"],
}


@pytest.mark.parametrize("level", range(6))
def test_what_each_level_of_debugging_tells(
    build: Any, empty_cache: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path, level: int
) -> None:
    with config.override(debug=level):
        compile_to_file(build(lambda b, x: b.softmax(x, axis=1), (4, 4)), tmp_path / "a.mge")
    for at, texts in TOLD.items():
        for text in texts:
            assert (text in caplog.text) == (level >= at), text


def test_a_target_that_does_not_exist(build: Any) -> None:
    with pytest.raises(OptionError, match="there is no target 'z80'"):
        compile_graph(build(mlp, (4, 16)), target="z80")


def test_a_function_without_a_return(build: Any) -> None:
    with pytest.raises(IRError, match=r"no func\.return"):
        compile_graph(GraphModule.empty([]))


# -- the cache on disk -----------------------------------------------------------------


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_a_second_time_nothing_is_compiled(build: Any, empty_cache: Path) -> None:
    first = compile_graph(build(mlp, (4, 16)))
    second = compile_graph(build(mlp, (4, 16)))
    assert (first.compiled_kernels, second.compiled_kernels) == (1, 0)
    assert second.kernels == first.kernels
    with config.override(cache=False):
        assert compile_graph(build(mlp, (4, 16))).compiled_kernels == 1
    assert all(p.suffix == ".kernel" for p in files(empty_cache))  # no temporary files


DAMAGE = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "one bit of the code": lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
    "one bit of the header": lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
    "length of the header": lambda data: data[:16] + bytes([data[16] ^ 1]) + data[17:],
    "length of the header, huge": lambda data: data[:16] + b"\xff" * 8 + data[24:],
    "checksum": lambda data: data[:8] + bytes([data[8] ^ 1]) + data[9:],
    "another file": lambda data: b"#!/bin/sh\necho hello there, all of you\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_compiled_again(build: Any, empty_cache: Path, damage: str) -> None:
    first = compile_graph(build(mlp, (4, 16)))
    (path,) = files(empty_cache)
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    second = compile_graph(build(mlp, (4, 16)))
    assert second.compiled_kernels == 1
    assert second.kernels == first.kernels
    assert path.read_bytes() == whole


def test_every_flipped_bit_is_seen() -> None:
    kernel = CompiledKernel("k", b"code", 2, 1, Units((((3, DimRef(0)), 2),)), 64, "t", 7)
    data = cache.encode(kernel)
    assert cache.decode(data) == kernel
    for i in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[i // 8] ^= 1 << i % 8
        assert cache.decode(bytes(damaged)) is None, f"bit {i}"
    for i in range(len(data)):
        assert cache.decode(data[:i]) is None, f"{i} bytes"


def test_a_folder_that_cannot_be_written(build: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with config.override(cache_dir=str(tmp_path / "file" / "cache")):
        for _ in range(2):
            assert compile_graph(build(mlp, (4, 16))).compiled_kernels == 1


PROGRAM = """
import sys
import numpy as np
import mgec.functional as F
from mgec import config, tensor
from mgec.compiler.api import compile_graph
from mgec.jit import trace

@trace(symbolic=True, capture_as_const=True)
def net(x):
    for i in range(4):
        x = F.softmax(F.relu(F.matmul(x, x) + i), axis=-1) + F.sum(F.exp(x), axis=0)
        x = F.concat([x, F.tanh(x)], axis=0)[::2]
    return x

x = np.linspace(-1, 1, 64, dtype="float32").reshape(8, 8)
y = net(tensor(x)).numpy()
print(y.tobytes().hex())
"""


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    with config.override(cache_dir=str(folder)):
        variables = {**config.environment(), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables,
    )  # fmt: skip


def test_processes_share_a_cache_and_make_the_same_code(tmp_path: Path) -> None:
    """Two processes at once on an empty cache; one more, with other hashes, on another."""
    shared, other = tmp_path / "shared", tmp_path / "other"
    running = [start(shared, PYTHONHASHSEED="1") for _ in range(2)]
    running.append(start(other, PYTHONHASHSEED="12345"))
    outputs: list[str] = []
    for process in running:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        outputs.append(out)
    assert outputs[0]
    assert outputs[0] == outputs[1] == outputs[2]
    kernels = [{p.name: p.read_bytes() for p in files(f)} for f in (shared, other)]
    assert len(kernels[0]) > 5
    assert kernels[0] == kernels[1]


def test_artifacts_are_the_same_bytes(build: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        compile_to_file(build(mlp, (4, 16)), tmp_path / f"{name}.mge")
    assert (tmp_path / "a.mge").read_bytes() == (tmp_path / "b.mge").read_bytes()
