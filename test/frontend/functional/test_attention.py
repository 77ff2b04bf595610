"""Attention, eager and traced; a transformer layer becomes one attention kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.compiler.api as api
import mgec.functional as F
import mgec.module as M
from mgec.dialects.mge.attention import AttentionOp
from mgec.dialects.mge.reference import evaluate
from mgec.jit import trace

RNG = np.random.default_rng(8)
N, ROWS, KEYS, HEADS, GROUPS, DEPTH = 2, 3, 7, 4, 2, 6


def random(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype("float32")


QUERY, KEY, VALUE = random(N, HEADS, ROWS, DEPTH), *(random(N, GROUPS, KEYS, 6) for _ in range(2))


def expected(bias: Any = None, **attrs: Any) -> np.ndarray[Any, Any]:
    arrays = [x.transpose(0, 2, 1, 3).astype("float64") for x in (QUERY, KEY, VALUE)]
    out = evaluate(AttentionOp, [*arrays, bias], {"scale": DEPTH**-0.5, **attrs})[0]
    return out.transpose(0, 2, 1, 3)


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The templates of the kernels of the graphs that the test traces."""
    found: list[str] = []
    compile_graph = api.compile_graph

    def watch(*args: Any, **kwargs: Any) -> Any:
        compiled = compile_graph(*args, **kwargs)
        found.extend(step["template"] for step in compiled.report()["steps"])
        return compiled

    monkeypatch.setattr(api, "compile_graph", watch)
    return found


def both(function: Any, *arrays: Any) -> tuple[Any, Any]:
    """What a function returns eagerly and traced."""
    tensors = [mge.tensor(a) for a in arrays]
    traced = trace(symbolic=True, capture_as_const=True)(function)
    return function(*tensors).numpy(), traced(*tensors).numpy()


ALLOWED = RNG.integers(0, 2, (ROWS, KEYS)).astype(bool)
ALLOWED[:, 2] = True
ADDED = random(N, 1, 1, KEYS)
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "scale": ({"scale": 2}, {"scale": 2.0}),
    "causal": ({"is_causal": True}, {"causal": True}),
    "bool": ({"attn_mask": ALLOWED}, {"bias": np.where(ALLOWED, 0, -np.inf)}),
    "added": ({"attn_mask": ADDED}, {"bias": ADDED.astype("float64")}),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_scaled_dot_product_attention(case: str, templates: list[str]) -> None:
    options, attrs = OPTIONS[case]

    def attend(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, **options)

    for out in both(attend, QUERY, KEY, VALUE):
        np.testing.assert_allclose(out, expected(**attrs), rtol=1e-5, atol=1e-5)
    assert templates.count("attention") == 1 and "contraction" not in templates


def test_gradients() -> None:
    tensors = [mge.Parameter(x) for x in (QUERY, KEY, VALUE)]
    with mge.autodiff.GradManager().attach(tensors) as gm:
        out = F.scaled_dot_product_attention(*tensors, is_causal=True)
        gm.backward((out * out).sum())
    step = 1e-2 * np.sign(VALUE)
    moved = F.scaled_dot_product_attention(*tensors[:2], VALUE + step, is_causal=True).numpy()
    back = F.scaled_dot_product_attention(*tensors[:2], VALUE - step, is_causal=True).numpy()
    difference = float(((moved**2).sum() - (back**2).sum()) / 2)
    assert abs(difference - float((tensors[2].grad.numpy() * step).sum())) < 1e-3 * abs(difference)
    assert all(np.isfinite(t.grad.numpy()).all() for t in tensors)


def test_integers_are_float32_and_dtypes_promote() -> None:
    ones = mge.tensor(np.ones((1, 1, 2, 2), "int32"))
    half = mge.tensor(np.ones((1, 1, 2, 2), "float16"))
    assert F.scaled_dot_product_attention(ones, ones, ones).dtype == np.float32
    assert F.scaled_dot_product_attention(half, half, half).dtype == np.float16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": QUERY[0]}, "scaled_dot_product_attention: query has rank 3 but must have rank"),
        ({"key": KEY[:1]}, "attention: query has 2 examples but key has 1"),
        ({"attn_mask": np.zeros((KEYS, ROWS), "float32")}, "attention: bias has shape [7, 3]"),
        ({"scale": float("nan")}, "attention: scale is nan, and must be finite"),
    ],
)
def test_errors(change: dict[str, Any], message: str) -> None:
    given = {"query": QUERY, "key": KEY, "value": VALUE, **change}
    with pytest.raises(mge.MgecError) as caught:
        F.scaled_dot_product_attention(**given)
    assert message in str(caught.value)


@pytest.mark.parametrize("causal", [False, True])
def test_the_module_attends_in_one_kernel_where_weights_are_not_used(
    causal: bool, templates: list[str]
) -> None:
    layer = M.MultiHeadAttention(8, 2)
    layer.eval()

    def attend(x: Any) -> Any:
        return layer(x, x, x, is_causal=causal)[0]

    eager, traced = both(attend, random(2, 5, 8))
    np.testing.assert_allclose(traced, eager, rtol=1e-5, atol=1e-5)
    assert sorted(templates) == ["attention", *["contraction"] * 4]


def test_an_encoder_layer(templates: list[str]) -> None:
    """As a framework would export BERT's: products, transposes and a softmax."""
    length, heads, depth = 20, 3, 16
    size = heads * depth
    weights = {n: mge.tensor(random(size, size) / 7) for n in "qkvo"}
    wide, narrow = mge.tensor(random(size, 2 * size) / 7), mge.tensor(random(2 * size, size) / 7)
    one, zero = mge.tensor(np.ones(size, "float32")), mge.tensor(random(size))

    def layer(x: Any, mask: Any) -> Any:
        def project(name: str) -> Any:
            y = F.reshape(F.matmul(x, weights[name]) + zero, (2, length, heads, depth))
            return F.transpose(y, (0, 2, 1, 3))

        q, k, v = project("q"), project("k"), project("v")
        scores = F.matmul(q, F.transpose(k, (0, 1, 3, 2))) / depth**0.5 + mask
        mixed = F.matmul(F.softmax(scores, axis=3), v)
        mixed = F.reshape(F.transpose(mixed, (0, 2, 1, 3)), (2, length, size))
        y = F.layer_norm(F.matmul(mixed, weights["o"]) + x, size, True, one, zero)
        z = F.matmul(F.gelu(F.matmul(y, wide)), narrow) + y
        return F.layer_norm(z, size, True, one, zero)

    mask = np.zeros((2, 1, 1, length), "float32")
    mask[1, ..., 15:] = np.finfo("float32").min
    eager, traced = both(layer, random(2, length, size), mask)
    np.testing.assert_allclose(traced, eager, rtol=1e-4, atol=1e-4)
    kinds = ["attention", *["contraction"] * 6, *["layer norm rows"] * 2]
    assert sorted(templates) == kinds
