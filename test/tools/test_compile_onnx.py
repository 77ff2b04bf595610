"""`mgec compile` of ONNX files: the cache of models, precision, size, the graph left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mgec.compiler.targets import host_target
from mgec.runtime import load

onnx = pytest.importorskip("onnx")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, fresh_config: pytest.MonkeyPatch) -> None:
    fresh_config.setenv("MGEC_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A 3x3 convolution of 32 channels, which Winograd's algorithm computes, and a dense layer."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    weights = {
        "w": RNG.standard_normal((32, 32, 3, 3)).astype(np.float32),
        "v": RNG.standard_normal((32, 16)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", float32, [1, 32, 32, 32])],
        [helper.make_tensor_value_info("y", float32, [1, 16])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(made, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_the_second_time_is_a_copy(mgec: Callable, model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.mge", tmp_path / "2.mge"
    assert "compiled now" in mgec("compile", model, "-o", first).out
    assert "from the cache" in mgec("compile", model, "-o", second).out
    assert first.read_bytes() == second.read_bytes()
    assert "1 model" in mgec("cache").out
    assert mgec("cache", "--clear").status == 0
    assert "compiled now" in mgec("compile", model, "-o", second).out
    assert first.read_bytes() == second.read_bytes()  # the same bytes, from nothing


def test_options_and_content_make_another_entry(
    mgec: Callable, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "net.mge"
    mgec("compile", model, "-o", out)
    for options in (["--target", "x86-64-v3"], ["--opt-level", "0"], ["--graph", "keep"]):
        assert "compiled now" in mgec("compile", model, "-o", out, *options).out
    model.write_bytes(model.read_bytes().replace(b"net", b"ten"))
    assert "compiled now" in mgec("compile", model, "-o", out).out


def test_external_data_is_not_cached(mgec: Callable, model: Path, tmp_path: Path) -> None:
    onnx.save(
        onnx.load(model), tmp_path / "apart.onnx", save_as_external_data=True, size_threshold=0
    )
    for _ in range(2):
        assert (
            "from the cache"
            not in mgec("compile", tmp_path / "apart.onnx", "-o", tmp_path / "apart.mge").out
        )


def test_size(mgec: Callable, model: Path, tmp_path: Path) -> None:
    fast, small = tmp_path / "fast.mge", tmp_path / "small.mge"
    mgec("compile", model, "-o", fast)
    mgec("compile", model, "-o", small, "--optimize", "size")
    x = RNG.standard_normal((1, 32, 32, 32)).astype(np.float32)
    (a,), (b,) = load(fast)(x), load(small)(x)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert small.stat().st_size < fast.stat().st_size - 2 * 32 * 32 * 9 * 4  # F(4): four times


@pytest.mark.skipif(
    not host_target().has_bfloat16_dot, reason="no instruction for pairs of bfloat16"
)
def test_precision(mgec: Callable, model: Path, tmp_path: Path) -> None:
    wide, narrow = tmp_path / "wide.mge", tmp_path / "narrow.mge"
    mgec("compile", model, "-o", wide)
    mgec("compile", model, "-o", narrow, "--precision", "bf16")
    x = RNG.standard_normal((1, 32, 32, 32)).astype(np.float32)
    (a,), (b,) = load(wide)(x), load(narrow)(x)
    assert 0 < np.abs(a - b).max() < 0.02 * np.abs(a).max()


@pytest.mark.skipif(
    not host_target().has_bfloat16_dot, reason="no instruction for pairs of bfloat16"
)
def test_small_and_narrow(mgec: Callable, model: Path, tmp_path: Path) -> None:
    """Without Winograd's algorithm its convolution gains from narrow products, too."""
    small, both = tmp_path / "small.mge", tmp_path / "both.mge"
    mgec("compile", model, "-o", small, "--optimize", "size")
    mgec("compile", model, "-o", both, "--optimize", "size", "--precision", "bf16")
    assert both.stat().st_size < small.stat().st_size - 32 * 32 * 9  # of 4 bytes, and then 2
    x = RNG.standard_normal((1, 32, 32, 32)).astype(np.float32)
    (a,), (b,) = load(small)(x), load(both)(x)
    assert 0 < np.abs(a - b).max() < 0.02 * np.abs(a).max()


def test_the_graph_is_left_out(mgec: Callable, model: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "net.mge", tmp_path / "again.mge"
    mgec("compile", model, "-o", out)
    result = mgec("compile", out, "-o", again, "--target", "x86-64-v3")
    assert result.status == 1 and "graph" in result.err
    mgec("compile", model, "-o", out, "--graph", "keep")
    assert mgec("compile", out, "-o", again, "--target", "x86-64-v3").status == 0
