"""Eager execution: each op is a compiled kernel, found by what its operands look like.

Two levels of cache. A *plan* belongs to one call signature (op, attributes, shapes and
dtypes): inferred result, filled-in size table, the kernel to call. A *kernel* belongs to a
rank, dtype and broadcast pattern; it takes sizes at run time, so new shapes make new plans
(microseconds) and no new code. On a hit nothing of xDSL is touched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mgec import config
from mgec.compiler.eager import EagerKernel, eager_kernel
from mgec.compiler.kernels.region import collapse
from mgec.compiler.kernels.select import serves_whole
from mgec.compiler.passes.form_kernels import REDUCTIONS
from mgec.core.promote import scalar
from mgec.core.tensor import Tensor, intern_spec
from mgec.device import Device, default_device
from mgec.dialects.mge.builder import OpBuilder
from mgec.dialects.mge.constant import ConstantOp
from mgec.dialects.mge.elementwise import ElementwiseOp
from mgec.dialects.mge.op import MgeOp, Plain
from mgec.dialects.mge.rules import decomposition, lanes, lowering
from mgec.dialects.mge.spec import TensorSpec
from mgec.errors import DeviceError, RuntimeFailure, ShapeError, TraceError, Value
from mgec.runtime.memory import Storage
from mgec.runtime.program import Program, Slot, Step

_plans: dict[tuple[Any, ...], Callable[..., tuple[Tensor, ...]]] = {}
_MAX_PLANS = 65536
_MAX_BYTES = 1 << 48
_PARALLEL_BYTES = 1 << 18
"""Kernels that touch less memory than this run on the calling thread."""


def run(
    op: type[MgeOp], inputs: tuple[Tensor | None, ...], attrs: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    """Runs one op now; see `dispatch.apply` for the arguments."""
    if op is ConstantOp:
        return (Tensor._from_array(attrs["value"], default_device()),)
    # id() of interned specs: hashing shapes and dtypes would cost more than the lookup.
    key = (op, config.backend, config.target, *[0 if x is None else id(x._spec) for x in inputs])
    if attrs:  # repr of floats: 0.0 and -0.0 are equal
        key += tuple([(k, repr(v) if v.__class__ is float else v) for k, v in attrs.items()])
    plan = _plans.get(key)
    if plan is None:
        plan = _make_plan(op, inputs, attrs)
        if len(_plans) >= _MAX_PLANS:
            _plans.clear()
        _plans[key] = plan
    try:
        return plan(inputs)
    except AttributeError:
        if not any(x is not None and x._storage is None for x in inputs):
            raise
        raise TraceError(
            f"{op.name.removeprefix('mge.')}: an operand was made by a symbolic trace, "
            "which has ended, and has no value",
            values=[(f"operand {i}", str(x._spec)) for i, x in enumerate(inputs) if x is not None],
            fix="return it from the traced function, and use what a call returns",
        ) from None
    except RuntimeFailure as error:  # out of memory: for what?
        if error.headline.startswith("native runtime"):
            error.headline = f"{op.name.removeprefix('mge.')}: {error.headline}"
            given = [(f"operand {i}", x._spec) for i, x in enumerate(inputs) if x is not None]
            error.values = (*(Value(n, str(s)) for n, s in given), *error.values)
        raise


def common_device(op: type[MgeOp], inputs: Sequence[Tensor | None]) -> Device | None:
    """The device of an op's operands; None if none of them is on a device in particular.

    Raises:
        DeviceError: if they are on different ones.
    """
    found: Device | None = None
    for x in inputs:
        if x is None or x._device is None or x._device is found:
            continue
        if found is not None and x._device != found:
            raise DeviceError(
                f"{op.name.removeprefix('mge.')}: ambiguous device: operands are on "
                f"{found} and {x._device}",
                fix=f'move one of them, e.g. x.to("{found}")',
            )
        found = x._device
    return found


def _make_plan(
    op: type[MgeOp], inputs: tuple[Tensor | None, ...], attrs: Mapping[str, Any]
) -> Callable[..., tuple[Tensor, ...]]:
    full = op.complete_attrs(attrs)
    specs = [None if x is None else x._spec for x in inputs]
    outputs = [intern_spec(*s) for s in op.infer_specs(specs, full)]
    for out in outputs:
        if out.nbytes > _MAX_BYTES:
            raise ShapeError(
                f"{op.name.removeprefix('mge.')}: the result would have {out.nbytes:.2g} bytes",
                values=[("result", str(out))],
                fix="use smaller sizes",
            )
    if config.backend == "reference":
        return _reference_plan(op, full)
    if op.name == "mge.reshape":
        return _alias_plan(op, outputs[0])
    if issubclass(op, ElementwiseOp) and op in lanes:
        return _elementwise_plan(op, specs, outputs, full)
    if op.name in REDUCTIONS and op in lowering:
        return _reduction_plan(op, specs, outputs, full)
    if op in lowering or serves_whole(op, specs, full):
        present = [s for s in specs if s is not None]
        kernel = eager_kernel(op, specs, outputs, full)
        dims = _sizes([*present, *outputs]) + _runtime_values(op, full)
        return _kernel_plan(op, kernel, dims, present, outputs)
    return _decomposed_plan(op, full)


def _kernel_plan(
    op: type[MgeOp],
    kernel: EagerKernel,
    dims: Sequence[int],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> Callable[..., tuple[Tensor, ...]]:
    assert len(dims) == kernel.num_dims, f"{op.name}: {len(dims)} sizes for {kernel}"
    table = (ctypes.c_int64 * max(1, len(dims)))(*dims)
    units = kernel.units.evaluate(dims)
    work = sum(s.nbytes for s in (*inputs, *outputs))
    function = kernel.function
    parallel = units > 1 and work > _PARALLEL_BYTES and config.num_threads > 1
    pointers = ctypes.c_void_p * kernel.num_buffers
    empty = units == 0 or any(s.size == 0 for s in outputs)
    make = Tensor._make

    if len(outputs) == 1 and not kernel.scratch_bytes and not empty and not parallel:
        (out,) = outputs
        nbytes = out.nbytes

        def simple(inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
            device = None
            addresses: list[int] = []
            for x in inputs:
                if x is not None:
                    addresses.append(x._storage.address)
                    if x._device is not device and x._device is not None:
                        device = common_device(op, inputs)
            storage = Storage(nbytes)
            function(pointers(*addresses, storage.address), table, 0, units)
            return (make(storage, out, device),)

        return simple

    # Parallel or with scratch memory: a program of one step, which gives each thread its own.
    slots = [Slot.io(i, s.nbytes) for i, s in enumerate((*inputs, *outputs))]
    if kernel.scratch_bytes:
        slots.append(Slot.scratch(0, kernel.scratch_bytes))
    step = Step(0, units, tuple(slots), tuple(dims), serial=not parallel)
    program = Program(
        (step,),
        num_kernels=1,
        num_io=len(inputs) + len(outputs),
        scratch_bytes=kernel.scratch_bytes,
    )
    bound = program.bind([kernel.address], threads=None if parallel else 1)

    def general(inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        device = common_device(op, inputs)
        storages = [Storage(s.nbytes) for s in outputs]
        if not empty:
            addresses = [x._storage.address for x in inputs if x is not None]
            bound.run([*addresses, *(s.address for s in storages)])
        return tuple(make(s, spec, device) for s, spec in zip(storages, outputs, strict=True))

    return general


def _elementwise_plan(
    op: type[MgeOp],
    specs: Sequence[TensorSpec | None],
    outputs: Sequence[TensorSpec],
    attrs: Mapping[str, Plain],
) -> Callable[..., tuple[Tensor, ...]]:
    present = [s for s in specs if s is not None]
    shapes = collapse([s.shape for s in present], outputs[0].shape)
    inner = [TensorSpec(shape, s.dtype) for shape, s in zip(shapes, present, strict=False)]
    result = TensorSpec(shapes[-1], outputs[0].dtype)
    kernel = eager_kernel(op, inner, [result], attrs)
    return _kernel_plan(op, kernel, _sizes([*inner, result]), present, outputs)


def _reduction_plan(
    op: type[MgeOp],
    specs: Sequence[TensorSpec | None],
    outputs: Sequence[TensorSpec],
    attrs: Mapping[str, Plain],
) -> Callable[..., tuple[Tensor, ...]]:
    """Neighbouring axes that are reduced, or kept, together are one axis.

    That is also how traced reductions are compiled, so both add in the same order.
    """
    (spec,) = specs
    assert spec is not None
    axes = attrs["axes"]
    assert isinstance(axes, tuple)
    kept = tuple(1 if i in axes else d for i, d in enumerate(spec.shape))
    merged, full = collapse([kept], spec.shape)
    inner = TensorSpec(full, spec.dtype)
    reduced = tuple(i for i, d in enumerate(full) if (merged or (1,) * len(full))[i] != d)
    inner_attrs = {**attrs, "axes": reduced, "keepdims": False}
    (result,) = op.infer_specs([inner], inner_attrs)
    kernel = eager_kernel(op, [inner], [result], inner_attrs)
    return _kernel_plan(op, kernel, _sizes([inner, result]), [spec], outputs)


def _sizes(specs: Sequence[TensorSpec]) -> list[int]:
    """Run-time sizes in the order kernels take them: every dimension that is not 1."""
    return [d for s in specs for d in s.shape if d != 1]


def _runtime_values(op: type[MgeOp], attrs: Mapping[str, Plain]) -> list[int]:
    values: list[int] = []
    for name in op.runtime_attrs:
        value = attrs[name]
        values += list(value) if isinstance(value, tuple) else [int(value)]  # type: ignore[arg-type]
    return values


def _alias_plan(op: type[MgeOp], spec: TensorSpec) -> Callable[..., tuple[Tensor, ...]]:
    """Reshape: buffers are dense and never written in place, so it is the same storage."""

    def alias(inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        (x,) = inputs
        assert x is not None
        return (Tensor._make(x._storage, spec, x._device),)

    return alias


def _decomposed_plan(
    op: type[MgeOp], attrs: Mapping[str, Plain]
) -> Callable[..., tuple[Tensor, ...]]:
    rule = decomposition[op]
    b = QuietBuilder()

    def decomposed(inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        results = rule(b, *inputs, **attrs)
        return results if isinstance(results, tuple) else (results,)

    return decomposed


def _reference_plan(
    op: type[MgeOp], attrs: Mapping[str, Plain]
) -> Callable[..., tuple[Tensor, ...]]:
    from mgec.dialects.mge.reference import evaluate

    def reference(inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        device = common_device(op, inputs)
        arrays = [None if x is None else x.numpy() for x in inputs]
        return tuple(Tensor._from_array(r, device) for r in evaluate(op, arrays, attrs))

    return reference


class TensorBuilder(OpBuilder):
    """Gradient rules over tensors: every op goes through the dispatcher."""

    def emit(
        self, op: type[MgeOp], operands: Sequence[Any], attrs: Mapping[str, Plain]
    ) -> tuple[Tensor, ...]:
        from mgec.core.dispatch import apply

        return apply(op, tuple(operands), attrs)

    def spec(self, value: Tensor) -> TensorSpec:
        return value._spec

    def constant(self, value: np.ndarray[Any, Any]) -> Tensor:
        return Tensor._from_array(value)

    def scalar(self, value: float, like: Tensor) -> Tensor:
        return scalar(value, type(value), like._spec.dtype)


class QuietBuilder(TensorBuilder):
    """Runs ops without recording: the inside of a composite is not the tape's business."""

    def emit(
        self, op: type[MgeOp], operands: Sequence[Any], attrs: Mapping[str, Plain]
    ) -> tuple[Tensor, ...]:
        return run(op, tuple(operands), attrs)
