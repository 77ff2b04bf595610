"""Writing graphs: the same calls make IR, run eagerly or evaluate with the reference rules.

Gradient and decomposition rules are written against `OpBuilder`; who calls a rule chooses
what it builds. `b.softmax(x, axis=-1)` is `b.emit(SoftmaxOp, [x], {"axis": -1})`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.builder import Builder
from xdsl.ir import Attribute as IRAttribute
from xdsl.ir import SSAValue

from mgec.dialects.mge.op import MgeOp, Plain
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import DType, TensorSpec, from_type, is_float


@dataclass(frozen=True)
class Call:
    """One application of an op, as a gradient rule sees it.

    Attributes:
        op: the op's class.
        inputs: operands in the order of the signature; None for an absent optional one.
        outputs: results.
        attrs: plain attributes, defaults filled in.
        specs: specs of `inputs`.
        output_specs: specs of `outputs`.
        needs: for each input, whether its gradient is wanted.
    """

    op: type[MgeOp]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    attrs: Mapping[str, Any]
    specs: tuple[Any, ...]
    output_specs: tuple[TensorSpec, ...]
    needs: tuple[bool, ...]


class OpBuilder(ABC):
    """Makes ops. `b.<name>(*operands, **attrs)` emits `mge.<name>`."""

    @abstractmethod
    def emit(
        self, op: type[MgeOp], operands: Sequence[Any], attrs: Mapping[str, Plain]
    ) -> tuple[Any, ...]:
        """Applies `op` and returns its results, always as a tuple."""

    @abstractmethod
    def spec(self, value: Any) -> TensorSpec:
        """Shape and dtype of a value."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        op = op_class(f"mge.{name}")

        def call(*operands: Any, **attrs: Any) -> Any:
            results = self.emit(op, operands, attrs)
            return results[0] if len(results) == 1 and not op.variadic_results else results

        return call

    # -- small conveniences that rules share --------------------------------------------

    def constant(self, value: np.ndarray[Any, Any]) -> Any:
        """A constant tensor."""
        return self.emit(op_class("mge.constant"), (), {"value": value})[0]

    def scalar(self, value: float, like: Any) -> Any:
        """A 0-d constant of the dtype of `like`; elementwise ops broadcast it."""
        return self.constant(np.array(value, dtype=self.spec(like).dtype))

    def full(self, shape: tuple[int, ...], value: float, dtype: DType) -> Any:
        """A tensor filled with one value."""
        return self.broadcast(self.constant(np.array(value, dtype=dtype)), shape=shape)

    def broadcast(self, value: Any, shape: tuple[int, ...]) -> Any:
        """`value` broadcast to `shape`, or itself if it has that shape already."""
        if self.spec(value).shape == tuple(shape):
            return value
        return self.emit(op_class("mge.broadcast"), (value,), {"shape": tuple(shape)})[0]

    def reshape(self, value: Any, shape: tuple[int, ...]) -> Any:
        """`value` reshaped, or itself if it has that shape already."""
        if self.spec(value).shape == tuple(shape):
            return value
        return self.emit(op_class("mge.reshape"), (value,), {"shape": tuple(shape)})[0]

    def cast(self, value: Any, dtype: DType) -> Any:
        """`value` converted to `dtype`, or itself if it has that dtype already."""
        if self.spec(value).dtype == dtype:
            return value
        return self.emit(op_class("mge.cast"), (value,), {"dtype": dtype})[0]

    def sum_to(self, value: Any, shape: tuple[int, ...]) -> Any:
        """Undoes broadcasting: sums `value` over the axes along which `shape` was stretched."""
        have = self.spec(value).shape
        if have == tuple(shape):
            return value
        lead = len(have) - len(shape)
        axes = tuple(range(lead)) + tuple(
            lead + i for i, size in enumerate(shape) if size == 1 and have[lead + i] != 1
        )
        if axes:
            value = self.reduce_sum(value, axes=axes, keepdims=False)
        return self.reshape(value, tuple(shape))

    def zeros_like(self, value: Any) -> Any:
        """Zeros of the shape and dtype of `value`."""
        spec = self.spec(value)
        return self.full(spec.shape, 0, spec.dtype)


class IRBuilder(OpBuilder):
    """Inserts ops into a block through an xDSL builder.

    Args:
        builder: where to insert.
        location: the location every new op gets (the user's line), if given.
    """

    def __init__(self, builder: Builder, location: IRAttribute | None = None) -> None:
        self._builder = builder
        self.location = location

    def emit(
        self, op: type[MgeOp], operands: Sequence[Any], attrs: Mapping[str, Plain]
    ) -> tuple[SSAValue, ...]:
        new = op.build_op(operands, attrs)
        if self.location is not None:
            new.location = self.location  # pyright: ignore[reportAttributeAccessIssue]
        self._builder.insert(new)
        return tuple(new.results)

    def spec(self, value: SSAValue) -> TensorSpec:
        return from_type(value.type)


class ReferenceBuilder(OpBuilder):
    """Evaluates ops at once with their `@reference` rules; values are NumPy arrays."""

    def emit(
        self, op: type[MgeOp], operands: Sequence[Any], attrs: Mapping[str, Plain]
    ) -> tuple[np.ndarray[Any, Any], ...]:
        from mgec.dialects.mge.reference import evaluate

        return evaluate(op, operands, attrs)

    def spec(self, value: np.ndarray[Any, Any]) -> TensorSpec:
        return TensorSpec(value.shape, value.dtype)


def differentiable(spec: TensorSpec | None) -> bool:
    """Whether a gradient can flow into a value of this spec."""
    return spec is not None and is_float(spec.dtype)
