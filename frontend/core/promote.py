"""Which dtype an op computes in: tensors decide, Python numbers follow (weak scalars)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import copysign
from typing import Any

import ml_dtypes
import numpy as np

from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError

_BOOL = np.dtype(np.bool_)
_INT32 = np.dtype(np.int32)
FLOAT32 = np.dtype(np.float32)
_FLOAT16 = np.dtype(np.float16)
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def category(dtype: np.dtype[Any]) -> int:
    """0 bool, 1 integer, 2 floating point."""
    return 0 if dtype == _BOOL else 1 if dtype.kind in "iu" else 2


@lru_cache(maxsize=4096)
def common_dtype(dtypes: tuple[np.dtype[Any], ...], scalar: int) -> np.dtype[Any]:
    """The dtype of an op over tensors of `dtypes` and a Python number.

    Args:
        dtypes: dtypes of the tensors.
        scalar: category of the widest Python number, -1 if there is none.
    """
    highest = max((category(d) for d in dtypes), default=-1)
    if scalar > highest:
        return (_BOOL, _INT32, FLOAT32)[scalar]
    result: np.dtype[Any] | None = None
    for dtype in dtypes:
        if category(dtype) < highest:
            continue
        if result is None or result == dtype:
            result = dtype
        elif {result, dtype} == {_FLOAT16, _BFLOAT16} or FLOAT32 in (result, dtype):
            result = FLOAT32
        else:
            result = np.promote_types(result, dtype)
    assert result is not None
    return _INT32 if result.itemsize == 8 else result


def _scalar_category(value: Any) -> int:
    if isinstance(value, bool | np.bool_):
        return 0
    return 1 if isinstance(value, int | np.integer) else 2


def scalar(value: Any, kind: type, dtype: np.dtype[Any]) -> Tensor:
    """A cached 0-d tensor holding a Python number; on no device in particular."""
    return _scalar(value, kind, value == 0 and copysign(1, value) < 0, dtype)


@lru_cache(maxsize=4096)
def _scalar(value: Any, kind: type, is_negative_zero: bool, dtype: np.dtype[Any]) -> Tensor:
    del kind, is_negative_zero  # parts of the key: 1, 1.0 and True are equal; 0.0 and -0.0, too
    if dtype.kind in "iu" and not isinstance(value, float):
        array = np.array(value).astype(dtype)
    else:
        array = np.array(value, dtype=dtype)
    return Tensor._from_array(array)


def operands(name: str, values: Sequence[Any], dtype: np.dtype[Any] | None = None) -> list[Tensor]:
    """Tensors of one dtype from tensors, numbers and array-likes.

    Args:
        name: the op, for errors.
        values: what the user passed.
        dtype: the dtype wanted; the promoted one by default.

    Raises:
        ArgumentError: for something that is neither a number nor an array.
    """
    if dtype is None:
        dtypes: list[np.dtype[Any]] = []
        widest = -1
        for i, v in enumerate(values):
            if isinstance(v, Tensor):
                dtypes.append(v._spec.dtype)
            elif isinstance(v, bool | int | float | np.generic):
                widest = max(widest, _scalar_category(v))
            else:
                values = [*values[:i], _convert(name, v), *values[i + 1 :]]
                dtypes.append(values[i]._spec.dtype)
        dtype = common_dtype(tuple(dtypes), widest)
    result: list[Tensor] = []
    for v in values:
        if isinstance(v, Tensor):
            result.append(v if v._spec.dtype == dtype else v.astype(dtype))
        elif isinstance(v, bool | int | float | np.generic):
            result.append(_number(name, v.item() if isinstance(v, np.generic) else v, dtype))
        else:
            result.append(_convert(name, v).astype(dtype))
    return result


def _number(name: str, value: Any, dtype: np.dtype[Any]) -> Tensor:
    try:
        return scalar(value, type(value), dtype)
    except (OverflowError, ValueError):  # 2 ** 70, inf or NaN as an integer
        raise ArgumentError(
            f"{name}: the number {value:.40} does not fit {dtype.name}"
            if isinstance(value, float)
            else f"{name}: a number of {value.bit_length()} bits does not fit {dtype.name}",
            fix="use a smaller number, or a tensor of another dtype",
        ) from None


def _convert(name: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray | list | tuple):
        return Tensor(value)
    raise ArgumentError(
        f"{name}: a {type(value).__name__} is not a tensor or a number",
        values=[("value", repr(value)[:60], "")],
        fix="pass a tensor, a NumPy array or a Python number",
    )


def as_float(x: Tensor) -> Tensor:
    """Integer and bool tensors as float32; floating point ones as they are."""
    return x if category(x._spec.dtype) == 2 else x.astype(FLOAT32)
