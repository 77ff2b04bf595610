"""Counter-based random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.opcheck import check_gradient, check_round_trip, check_value, compiled

from mgec.dialects.mge.random import blocks, philox
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import FLOAT16, FLOAT32, FLOAT64, FLOATS, INT32, UINT32, TensorSpec
from mgec.errors import ArgumentError, DTypeError, MgecError, ShapeError


def state(seed: int = 0, counter: int = 0) -> np.ndarray[Any, Any]:
    words = [seed % 2**32, seed >> 32, counter % 2**32, counter >> 32]
    return np.array(words, np.uint32)


# Known answers of the authors' library Random123 (kat_vectors): counter, key, result.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
     [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    result = philox(np.array([counter], np.uint32), np.array(key, np.uint32))
    assert result[0].tolist() == expected


def test_compiled_known_answer() -> None:
    (bits,) = compiled("random_bits", [state()], {"shape": (4,)})
    assert bits.tolist() == KNOWN[0][2]


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0,), (3, 5), (2, 3, 5)])
def test_bits_equal_the_reference(shape: tuple[int, ...]) -> None:
    for words in (
        state(1234567890123),
        state(2**64 - 1, 5),
        state(7, 2**32 - 1),  # the counter carries into its high word
        state(7, 2**64 - 2),  # and wraps around
    ):
        check_value("random_bits", [words], {"shape": shape}, dynamic=[True])


def test_bits_static() -> None:
    check_value("random_bits", [state(3, 2**32 - 2)], {"shape": (3, 7)}, dynamic=[False])


def test_draws_continue_where_the_last_one_ended() -> None:
    op = op_class("mge.random_bits")
    (whole,) = evaluate(op, [state(5)], {"shape": (16,)})
    (first,) = evaluate(op, [state(5)], {"shape": (2, 4)})
    (second,) = evaluate(op, [state(5, blocks((2, 4)))], {"shape": (8,)})
    np.testing.assert_array_equal(whole, [*first.ravel(), *second])
    assert [blocks((n,)) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert [blocks((n,), normal=True) for n in (0, 1, 3, 4, 5)] == [0, 1, 1, 1, 2]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_uniform(dtype: Any) -> None:
    attrs = {"shape": (40, 500), "dtype": dtype}
    check_value("random_uniform", [state(11)], attrs, ulps=0.5)
    x = compiled("random_uniform", [state(11)], attrs)[0].astype(np.float64)
    assert x.min() >= 0
    assert x.max() < 1
    # The standard errors of mean and variance are 0.002 and 0.0005; bfloat16 cuts 1/512 off.
    assert abs(x.mean() - 0.5) < 0.012
    assert abs(x.var() - 1 / 12) < 0.003
    assert abs(np.corrcoef(x[:, :-1].ravel(), x[:, 1:].ravel())[0, 1]) < 0.03


def test_float32_and_float64_draw_the_same_numbers() -> None:
    x, y = (
        compiled("random_uniform", [state(1)], {"shape": (99,), "dtype": dtype})[0]
        for dtype in (FLOAT32, FLOAT64)
    )
    np.testing.assert_array_equal(x.astype(np.float64), y)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_normal(dtype: Any) -> None:
    attrs = {"shape": (20001,), "dtype": dtype}
    check_value("random_normal", [state(12)], attrs, ulps=8)
    x = compiled("random_normal", [state(12)], attrs)[0].astype(np.float64)
    assert np.isfinite(x).all()
    # 4.5 standard errors: mean 1 / sqrt(n), variance sqrt(2 / n), skewness sqrt(6 / n).
    assert abs(x.mean()) < 0.032
    assert abs(x.var() - 1) < 0.045
    assert abs((x**3).mean()) < 0.12
    assert abs((x**4).mean() - 3) < 0.35
    assert abs(np.mean(np.abs(x) < 1) - 0.6827) < 0.015


def test_normal_of_few() -> None:
    for shape in ((), (1,), (0,), (3, 1)):
        check_value("random_normal", [state(4)], {"shape": shape}, ulps=8)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dropout(dtype: Any) -> None:
    x = np.random.default_rng(0).uniform(1, 2, (60, 100)).astype(dtype)
    for p in (0.0, 0.25) if dtype == FLOAT32 else (0.25,):
        check_value("dropout", [x, state(13)], {"drop_prob": p})
        out, mask = compiled("dropout", [x, state(13)], {"drop_prob": p})
        assert (out[~mask] == 0).all()
        assert (out[mask] != 0).all()
        assert abs(mask.mean() - (1 - p)) < 0.026  # 4.5 standard errors


def test_dropout_gradient() -> None:
    x = np.random.default_rng(0).standard_normal((6, 7))
    check_gradient("dropout", [x, state(13)], {"drop_prob": 0.4})


S = TensorSpec((4,), UINT32)
ROUND_TRIPS: list[tuple[str, list[TensorSpec], dict[str, Any]]] = [
    ("random_bits", [S], {"shape": (2, 3)}),
    ("random_uniform", [S], {"shape": (2, 3)}),
    ("random_normal", [S], {"shape": (), "dtype": FLOAT16}),
    ("dropout", [TensorSpec((2,), FLOAT32), S], {"drop_prob": 0.1}),
]


@pytest.mark.parametrize(("name", "specs", "attrs"), ROUND_TRIPS)
def test_round_trip(name: str, specs: list[TensorSpec], attrs: dict[str, Any]) -> None:
    check_round_trip(name, specs, attrs)


X = TensorSpec((2, 3), FLOAT32)
STATE_DTYPE = "state has dtype int32, which is not supported"
ERRORS: list[tuple[str, list[TensorSpec], dict[str, Any], type[MgecError], str]] = [
    *((name, [TensorSpec((4,), INT32)], {"shape": (2,)}, DTypeError, f"{name}: {STATE_DTYPE}")
      for name in ("random_bits", "random_uniform", "random_normal")),
    ("random_bits", [TensorSpec((2,), UINT32)], {"shape": (2,)}, ShapeError,
     "random_bits: state has shape (2,) but a state has shape (4,)"),
    *((name, [S], {"shape": (-2,)}, ShapeError, f"{name}: shape (-2,) has a negative size")
      for name in ("random_bits", "random_uniform", "random_normal")),
    *((name, [S], {"shape": (2,), "dtype": INT32}, DTypeError,
       f"{name}: the result has dtype int32, which is not supported")
      for name in ("random_uniform", "random_normal")),
    ("dropout", [TensorSpec((4,), INT32), S], {"drop_prob": 0.1}, DTypeError,
     "dropout: inp has dtype int32, which is not supported"),
    ("dropout", [X, TensorSpec((4,), INT32)], {"drop_prob": 0.1}, DTypeError,
     f"dropout: {STATE_DTYPE}"),
    ("dropout", [X, S], {"drop_prob": 1.0}, ArgumentError,
     "dropout: drop_prob is 1.0, but must be in [0, 1)"),
    ("dropout", [X, S], {"drop_prob": float("nan")}, ArgumentError,
     "dropout: drop_prob is nan, but must be in [0, 1)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "specs", "attrs", "error", "headline"), ERRORS)
def test_errors(
    name: str,
    specs: list[TensorSpec],
    attrs: dict[str, Any],
    error: type[MgecError],
    headline: str,
) -> None:
    op = op_class(f"mge.{name}")
    with pytest.raises(error) as caught:
        op.infer_specs(specs, op.complete_attrs(attrs))
    assert caught.value.headline == headline
    assert caught.value.fix
