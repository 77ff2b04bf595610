"""Runs ops with their `@reference` rules: the oracle that every test compares with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from mgec.dialects.mge.op import MgeOp, Plain
from mgec.dialects.mge.rules import as_tuple, decomposition, reference
from mgec.dialects.mge.spec import FLOAT64, DType, TensorSpec, is_float

Array = np.ndarray[Any, Any]


def evaluate(
    op: type[MgeOp], operands: Sequence[Array | None], attrs: Mapping[str, Plain]
) -> tuple[Array, ...]:
    """Applies one op to arrays.

    Floating point operands are widened to float64 for the rule and the results rounded once
    to the inferred dtypes. A composite without a rule of its own is evaluated through its
    decomposition.

    Args:
        op: the op's class.
        operands: one array per operand; None for an absent optional one.
        attrs: plain attributes.

    Returns:
        The results, with exactly the inferred shapes and dtypes.
    """
    full = op.complete_attrs(attrs)
    specs = [None if x is None else TensorSpec(x.shape, cast("DType", x.dtype)) for x in operands]
    expected = op.infer_specs(specs, full)
    if (rule := reference.get(op)) is None:
        from mgec.dialects.mge.builder import ReferenceBuilder

        results = decomposition[op](ReferenceBuilder(), *operands, **full)
    else:
        wide = [None if x is None else _widen(x) for x in operands]
        with np.errstate(all="ignore"):
            results = rule(*wide, **full)
    pairs = zip(as_tuple(results), expected, strict=True)
    return tuple(_narrow(np.asarray(value), spec) for value, spec in pairs)


def _widen(array: Array) -> Array:
    dtype = cast("DType", array.dtype)
    return array.astype(FLOAT64) if is_float(dtype) and dtype != FLOAT64 else array


def _narrow(array: Array, spec: TensorSpec) -> Array:
    assert array.shape == spec.shape, f"reference gave shape {array.shape}, inferred {spec}"
    with np.errstate(all="ignore"):
        return array.astype(spec.dtype)
