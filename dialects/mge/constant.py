"""Constants: values known when the graph is built."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from xdsl.dialects import arith, builtin
from xdsl.ir import SSAValue

from mgec.dialects.mge.lane import lane_type
from mgec.dialects.mge.linalg import LinalgBuilder, LoweringCall, storage_tensor
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.rules import gradient, lowering, reference
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


@lowering(ConstantOp)
def _lower_constant(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    value = cast("np.ndarray[Any, Any]", call.attrs["value"])
    (spec,) = call.output_specs
    data = np.ascontiguousarray(value).tobytes()
    if value.size and data == data[: value.itemsize] * value.size:
        first = value.flat[0].item()
        return b.fill(
            spec.shape, spec.dtype, lambda lanes: lanes.constant(first, lane_type(spec.dtype))
        )
    type_ = storage_tensor(spec)
    elements = builtin.DenseIntOrFPElementsAttr(cast("Any", type_), builtin.BytesAttr(data))
    new = arith.ConstantOp.create(result_types=[type_], properties={"value": elements})
    b.insert(new)
    return new.result


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
