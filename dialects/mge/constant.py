"""Constants: values known when the graph is built."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.rules import gradient, reference
from mgec.dialects.mge.spec import DType, TensorSpec


@mge_op
class ConstantOp(MgeOp):
    """A small constant held in the IR itself.

    Shapes: `value` has any shape; the result has the same shape and dtype.
    """

    name = "mge.constant"

    @staticmethod
    def infer(*, value: np.ndarray) -> TensorSpec:  # pyright: ignore[reportMissingTypeArgument,reportUnknownParameterType]
        array = cast("np.ndarray[Any, Any]", value)
        return TensorSpec(array.shape, cast("DType", array.dtype))


@reference(ConstantOp)
def _constant_reference(*, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return value


@gradient(ConstantOp)
def _constant_gradient(b: Any, call: Any, d_out: Any) -> tuple[()]:
    return ()


@mge_op
class WeightOp(MgeOp):
    """A constant too large to print: its values stand beside the module under `key`.

    Shapes: any; `shape` and `dtype` describe the tensor stored under `key`.
    """

    name = "mge.weight"

    @staticmethod
    def infer(*, key: str, shape: tuple[int, ...], dtype: DType) -> TensorSpec:
        return TensorSpec(shape, dtype)


OPS = (ConstantOp, WeightOp)
