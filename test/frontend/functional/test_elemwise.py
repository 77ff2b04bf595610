from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F

X = np.array([[-2.5, -1.0, -0.5], [0.25, 0.5, 3.0]], "float32")
Y = np.array([2.0, -3.0, 0.5], "float32")
POSITIVE, UNIT = np.abs(X), X / 4

UNARY: list[tuple[str, Any, Any]] = [
    ("abs", np.abs, X), ("neg", np.negative, X), ("sign", np.sign, X), ("exp", np.exp, X),
    ("expm1", np.expm1, X), ("log", np.log, POSITIVE), ("log1p", np.log1p, POSITIVE),
    ("sqrt", np.sqrt, POSITIVE), ("square", np.square, X), ("sin", np.sin, X), ("cos", np.cos, X),
    ("tan", np.tan, X), ("asin", np.arcsin, UNIT), ("acos", np.arccos, UNIT),
    ("atan", np.arctan, X), ("sinh", np.sinh, X), ("cosh", np.cosh, X), ("tanh", np.tanh, X),
    ("asinh", np.arcsinh, X), ("acosh", np.arccosh, POSITIVE + 1), ("atanh", np.arctanh, UNIT),
    ("floor", np.floor, X), ("ceil", np.ceil, X), ("rsqrt", lambda x: x**-0.5, POSITIVE),
    ("logical_not", np.logical_not, X > 0),
    ("round", lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5), X),
]  # fmt: skip
BINARY: list[tuple[str, Any]] = [
    ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide),
    ("floor_div", np.floor_divide), ("mod", np.mod), ("maximum", np.maximum),
    ("minimum", np.minimum), ("atan2", np.arctan2), ("equal", np.equal),
    ("not_equal", np.not_equal), ("less", np.less), ("less_equal", np.less_equal),
    ("greater", np.greater), ("greater_equal", np.greater_equal), ("logaddexp", np.logaddexp),
    ("logical_and", np.logical_and), ("logical_or", np.logical_or),
    ("logical_xor", np.logical_xor),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected", "x"), UNARY, ids=[row[0] for row in UNARY])
def test_unary(name: str, expected: Any, x: Any) -> None:
    out = getattr(F, name)(mge.tensor(x))
    np.testing.assert_allclose(out.numpy(), expected(x), rtol=2e-6, atol=1e-6)
    assert out.dtype == x.dtype
    assert getattr(F, name).__name__ == name and getattr(F, name).__doc__


@pytest.mark.parametrize(("name", "expected"), BINARY, ids=[row[0] for row in BINARY])
def test_binary(name: str, expected: Any) -> None:
    out = getattr(F, name)(mge.tensor(X), mge.tensor(Y))
    np.testing.assert_allclose(out.numpy(), expected(X, Y), rtol=2e-6, atol=1e-6)


def test_pow_and_shifts() -> None:
    np.testing.assert_allclose(F.pow(mge.tensor(POSITIVE), 1.5).numpy(), POSITIVE**1.5, rtol=1e-5)
    i = mge.tensor([1, -8, 5])
    assert F.left_shift(i, 2).tolist() == [4, -32, 20]
    assert F.right_shift(i, 1).tolist() == [0, -4, 2]


def test_promotion() -> None:
    i, h = mge.tensor([1, 2]), mge.tensor([1.0, 2.0], dtype="float16")
    assert F.add(i, 1.0).dtype is np.float32
    assert F.add(h, 1).dtype is np.float16
    assert F.div(i, 2).dtype is np.float32 and F.exp(i).dtype is np.float32
    assert F.floor(i).dtype is np.int32 and F.floor_div(i, 2).dtype is np.int32
    assert F.equal(i, 1).dtype is np.bool_
    assert F.exp(1.0).shape == ()


def test_clip() -> None:
    x = mge.tensor(X)
    np.testing.assert_array_equal(F.clip(x, -1, 1).numpy(), np.clip(X, -1, 1))
    np.testing.assert_array_equal(F.clip(x, lower=0).numpy(), np.clip(X, 0, None))
    np.testing.assert_array_equal(F.clip(x, upper=mge.tensor(Y)).numpy(), np.minimum(X, Y))
    assert F.clip(mge.tensor([1, 5]), 2, 3).tolist() == [2, 3]
    assert F.clip(mge.tensor([1, 5]), 1.5).tolist() == [1.5, 5]
    with pytest.raises(mge.ArgumentError, match="clip: both bounds are None"):
        F.clip(x)
    with pytest.raises(mge.ArgumentError, match="lower"):
        F.clip(x, 2.0, 1.0)


def test_nan_and_infinity() -> None:
    x = mge.tensor([np.nan, np.inf, -np.inf, 1.0])
    assert F.isnan(x).tolist() == [True, False, False, False]
    assert F.isinf(x).tolist() == [False, True, True, False]
    assert F.isfinite(x).tolist() == [False, False, False, True]
    assert np.isnan(F.maximum(x, 0).numpy()[0])
    assert F.logaddexp(mge.tensor([np.inf, -np.inf]), mge.tensor([np.inf, -np.inf])).tolist() == [
        np.inf,
        -np.inf,
    ]


def test_bad_operands() -> None:
    with pytest.raises(mge.ArgumentError, match="add: a str is not a tensor or a number"):
        F.add(mge.tensor([1.0]), "1")
    with pytest.raises(mge.ShapeError, match="add"):
        F.add(mge.tensor([1.0, 2.0]), mge.tensor([1.0, 2.0, 3.0]))
