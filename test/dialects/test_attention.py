"""The attention op: values against the reference rule, gradients, what is hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.opcheck import check_gradient, check_value

from mgec.dialects.mge.attention import AttentionOp
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.spec import FLOAT32, FLOAT64, FLOATS

Shape = tuple[int, ...]
# Examples, positions of query and of key, heads of query and of key, depth of key and of value.
CASES: list[tuple[Shape, Shape | None, bool]] = [
    ((2, 3, 5, 2, 2, 4, 6), None, False),
    ((1, 1, 1, 1, 1, 1, 1), None, False),
    ((1, 4, 4, 4, 2, 3, 3), None, True),
    ((1, 2, 6, 3, 1, 5, 2), (1, 1, 1, 6), True),
    ((2, 3, 4, 2, 2, 4, 4), (2, 2, 3, 4), False),
    ((2, 3, 4, 2, 2, 4, 4), (3, 1), False),
    ((0, 3, 4, 2, 2, 4, 4), None, False),
    ((1, 0, 4, 2, 2, 4, 4), None, True),
]


def operands(sizes: Shape, bias: Shape | None, dtype: Any = FLOAT32) -> list[Any]:
    n, rows, keys, heads, groups, depth, out_depth = sizes
    rng = np.random.default_rng(3)
    shapes = [(n, rows, heads, depth), (n, keys, groups, depth), (n, keys, groups, out_depth), bias]
    return [None if s is None else rng.standard_normal(s).astype(dtype) for s in shapes]


@pytest.mark.parametrize(("sizes", "bias", "causal"), CASES, ids=str)
def test_value_and_gradient(sizes: Shape, bias: Shape | None, causal: bool) -> None:
    attrs = {"scale": 0.7, "causal": causal}
    check_value("attention", operands(sizes, bias), attrs, ulps=16)
    check_gradient("attention", operands(sizes, bias), attrs)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_dtypes(dtype: Any) -> None:
    arrays = operands((1, 3, 5, 2, 1, 4, 4), (3, 5), dtype)
    check_value("attention", arrays, {"scale": 0.5}, ulps=16)


def attend(*arrays: Any, **attrs: Any) -> np.ndarray[Any, Any]:
    return evaluate(AttentionOp, arrays, {"scale": 1.0, **attrs})[0]


def test_the_last_query_is_as_late_as_the_last_key() -> None:
    """Queries one by one, over the keys so far, are the causal attention of all of them."""
    q, k, v, _ = operands((1, 6, 6, 2, 2, 4, 4), None, FLOAT64)
    whole = attend(q, k, v, None, causal=True)
    np.testing.assert_allclose(attend(q[:, 4:], k, v, None, causal=True), whole[:, 4:])
    for i in range(6):
        alone = attend(q[:, i : i + 1], k[:, : i + 1], v[:, : i + 1], None)
        np.testing.assert_allclose(alone, whole[:, i : i + 1])


def test_grouped_queries_share_keys_with_their_neighbours() -> None:
    q, k, v, _ = operands((1, 3, 5, 4, 2, 4, 4), None, FLOAT64)
    parts = [
        attend(q[:, :, 2 * g : 2 * g + 2], k[:, :, [g, g]], v[:, :, [g, g]], None) for g in (0, 1)
    ]
    np.testing.assert_allclose(attend(q, k, v, None), np.concatenate(parts, axis=2))


def test_a_query_that_sees_no_key_is_nan() -> None:
    arrays = operands((1, 3, 2, 1, 1, 4, 4), None)
    check_value("attention", arrays, {"scale": 1.0, "causal": True}, ulps=16)
    found = attend(*arrays, causal=True)
    np.testing.assert_array_equal(np.isnan(found).any(axis=(0, 2, 3)), [True, False, False])
    arrays[3] = np.array([[-np.inf], [0], [0]], np.float32)
    check_value("attention", arrays, {"scale": 1.0}, ulps=16)
