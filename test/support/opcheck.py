"""Checks that every op test uses: compiled against reference, gradient, round trip."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from io import StringIO
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp, UnitAttr
from xdsl.dialects.func import Func, ReturnOp
from xdsl.dialects.test import Test, TestOp
from xdsl.ir import Block, Dialect
from xdsl.parser import Parser
from xdsl.printer import Printer

from mgec.compiler.codegen.llvm_backend import KernelLoader, compile_kernel
from mgec.compiler.lowering.linalg_kernel import linalg_kernel
from mgec.compiler.targets import Target, host_target
from mgec.dialects.mge.builder import Call, ReferenceBuilder
from mgec.dialects.mge.op import abstract
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import all_ops, op_class
from mgec.dialects.mge.rules import decomposition, gradient, lowering
from mgec.dialects.mge.rules import lanes as lane_rules
from mgec.dialects.mge.spec import (
    BFLOAT16,
    DYNAMIC,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    TensorSpec,
    is_float,
    to_type,
)

EPSILON = {FLOAT16: 2**-10, BFLOAT16: 2**-7, FLOAT32: 2**-23, FLOAT64: 2**-52}
_LOADER = KernelLoader()
_KERNELS: dict[Any, tuple[int, int]] = {}
"""Addresses and numbers of run-time sizes: one dynamic kernel serves all sizes of a rank."""
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def compiled(
    name: str,
    arrays: Sequence[np.ndarray[Any, Any] | None],
    attrs: dict[str, Any] | None = None,
    *,
    dynamic: bool = False,
    target: Target | None = None,
) -> list[np.ndarray[Any, Any]]:
    """Runs one op through linalg, LLVM and this CPU.

    Args:
        name: the op, "mge.add" or "add".
        arrays: operands; None for an absent optional one.
        attrs: plain attributes.
        dynamic: compile for run-time sizes (as eager mode does) instead of static ones.
        target: what to compile for; the host by default.
    """
    op = op_class(name if name.startswith("mge.") else f"mge.{name}")
    full = op.complete_attrs(attrs or {})
    specs = [None if a is None else TensorSpec(a.shape, a.dtype) for a in arrays]
    outs = op.infer_specs(specs, full)
    if dynamic and op not in lowering and op not in lane_rules:
        dynamic = False  # composites are decomposed before they meet run-time sizes
    shrink = abstract if dynamic else (lambda s: s)
    present = [s for s in specs if s is not None]
    runtime = op.runtime_attrs if dynamic else ()
    target = target or host_target()
    fixed = tuple((k, _hashable(v)) for k, v in full.items() if k not in runtime)
    signature = tuple(None if s is None else shrink(s) for s in (*specs, *outs))
    key = (op, signature, fixed, dynamic, target)
    if key not in _KERNELS:
        block = Block(arg_types=[to_type(shrink(s)) for s in present])
        args = iter(block.args)
        operands = [None if s is None else next(args) for s in specs]
        made = op.create_with_types(operands, full, [to_type(shrink(s)) for s in outs])
        if runtime:
            made.attributes["mge.runtime_attrs"] = UnitAttr()
        block.add_op(made)
        block.add_op(ReturnOp(*made.results))
        made.verify()
        kernel = compile_kernel(linalg_kernel(block, "k", target), target)
        _KERNELS[key] = (_LOADER.load(kernel), kernel.num_dims)
    address, num_dims = _KERNELS[key]
    inputs = [np.ascontiguousarray(a) for a in arrays if a is not None]
    results = [np.empty(s.shape, s.dtype) for s in outs]
    buffers = (ctypes.c_void_p * max(1, len(inputs) + len(results)))(
        *[a.ctypes.data for a in (*inputs, *results)]
    )
    dims: list[int] = []
    for spec in (*present, *outs):
        dims += [d for d, a in zip(spec.shape, shrink(spec).shape, strict=True) if a == DYNAMIC]
    for key in runtime:
        value = full[key]
        dims += list(value) if isinstance(value, tuple) else [value]
    assert len(dims) == num_dims
    table = (ctypes.c_int64 * max(1, len(dims)))(*dims)
    _KERNEL(address)(buffers, table, 0, 1)
    return results


def _hashable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.tobytes(), value.shape, value.dtype)
    return repr(value) if isinstance(value, float) else value  # 0.0 and -0.0 differ


def assert_close(
    actual: np.ndarray[Any, Any],
    expected: np.ndarray[Any, Any],
    *,
    ulps: float = 4,
    reduction: int = 1,
    scale: float | None = None,
) -> None:
    """Equal within a tolerance that follows from dtype and reduction length.

    Args:
        actual: what the compiler computed.
        expected: what the reference rule says.
        ulps: allowed error of one rounding step, in units of the last place.
        reduction: number of terms summed; the error bound grows with its square root.
        scale: magnitude of the terms summed; the largest output by default.
    """
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, (
        f"{actual.dtype}{actual.shape} is not {expected.dtype}{expected.shape}"
    )
    if not is_float(expected.dtype):
        np.testing.assert_array_equal(actual, expected)
        return
    eps = EPSILON[expected.dtype]
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(e)
    np.testing.assert_array_equal(np.where(finite, 0, a), np.where(finite, 0, e))
    size = np.abs(e[finite])
    magnitude = scale if scale is not None else (float(size.max()) if size.size else 0.0)
    absolute = eps * ulps * max(magnitude, 1e-30) * (reduction**0.5 if reduction > 1 else 0.25)
    np.testing.assert_allclose(a[finite], e[finite], rtol=eps * ulps, atol=absolute)


def assert_ulps(
    actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], ulps: int = 0
) -> None:
    """At most `ulps` representable numbers apart; NaN only where NaN is expected.

    Holds for the smallest numbers as for the largest, unlike a relative tolerance. Zeros of
    either sign are equal.
    """
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if not is_float(expected.dtype):
        np.testing.assert_array_equal(actual, expected)
        return
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(actual), nan)
    distance = np.abs(_ordinal(actual) - _ordinal(expected))
    worst = np.where(nan, 0, distance)
    if worst.size and worst.max() > ulps:
        at = np.unravel_index(worst.argmax(), worst.shape)
        raise AssertionError(
            f"{actual[at]!r} is {worst.max():.0f} ulps from {expected[at]!r} at {at}; "
            f"{int((worst > ulps).sum())} of {worst.size} are further off than {ulps}"
        )


def _ordinal(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Consecutive floats as consecutive Python integers, both zeros as 0."""
    bits = np.ascontiguousarray(x).view(f"i{x.dtype.itemsize}").reshape(x.shape).astype(object)
    lowest = -(2 ** (x.dtype.itemsize * 8 - 1))
    return np.where(bits < 0, lowest - bits, bits)


def check_value(
    name: str,
    arrays: Sequence[np.ndarray[Any, Any] | None],
    attrs: dict[str, Any] | None = None,
    *,
    ulps: float = 4,
    reduction: int = 1,
    dynamic: Sequence[bool] = (False, True),
) -> None:
    """The op, compiled for static and for run-time sizes, equals its reference."""
    op = op_class(f"mge.{name.removeprefix('mge.')}")
    expected = evaluate(op, arrays, attrs or {})
    for flag in dynamic:
        for a, e in zip(compiled(name, arrays, attrs, dynamic=flag), expected, strict=True):
            assert_close(a, e, ulps=ulps, reduction=reduction)


def check_gradient(
    name: str,
    arrays: Sequence[np.ndarray[Any, Any] | None],
    attrs: dict[str, Any] | None = None,
    *,
    tolerance: float = 1e-6,
    step: float = 1e-6,
    seed: int = 0,
) -> None:
    """The gradient rule agrees with central differences in float64, along random directions.

    Floating point operands are converted to float64, so that the rule is checked and not
    the rounding.
    """
    op = op_class(f"mge.{name.removeprefix('mge.')}")
    attrs = op.complete_attrs(attrs or {})
    rng = np.random.default_rng(seed)
    xs = [None if a is None else (a.astype(np.float64) if is_float(a.dtype) else a) for a in arrays]
    outputs = evaluate(op, xs, attrs)
    needs = tuple(x is not None and is_float(x.dtype) for x in xs)
    d_outs = [rng.standard_normal(o.shape) if is_float(o.dtype) else None for o in outputs]
    rule = gradient.get(op)
    b = ReferenceBuilder()
    call = Call(
        op=op,
        inputs=tuple(xs),
        outputs=outputs,
        attrs=attrs,
        specs=tuple(None if x is None else TensorSpec(x.shape, x.dtype) for x in xs),
        output_specs=tuple(TensorSpec(o.shape, o.dtype) for o in outputs),
        needs=needs,
    )
    assert rule is not None or op in decomposition, f"{op.name} has no gradient"
    if rule is None:
        from mgec.dialects.mge.autodiff import gradient_of_decomposition

        grads = gradient_of_decomposition(b, call, *d_outs)
    else:
        grads = rule(b, call, *d_outs)
    for i, (x, grad) in enumerate(zip(xs, grads, strict=True)):
        if not needs[i]:
            continue
        assert x is not None
        if grad is None:
            grad = np.zeros_like(x)
        assert grad.shape == x.shape, f"operand {i}: gradient has shape {grad.shape}"
        direction = rng.standard_normal(x.shape)

        def value(t: float, i: int = i, direction: Any = direction) -> float:
            moved = list(xs)
            moved[i] = xs[i] + t * direction
            results = evaluate(op, moved, attrs)
            pairs = zip(results, d_outs, strict=True)
            return float(sum((r * d).sum() for r, d in pairs if d is not None))

        numeric = (value(step) - value(-step)) / (2 * step)
        analytic = float((grad * direction).sum())
        scale = max(1.0, abs(numeric), abs(analytic))
        assert abs(numeric - analytic) <= tolerance * scale, (
            f"{op.name} operand {i}: rule gives {analytic}, central difference {numeric}"
        )


def context() -> Context:
    """An xDSL context with everything the tests' IR uses."""
    made = Context()
    for dialect in (Builtin, Func, Test, Dialect("mge", list(all_ops().values()))):
        made.load_dialect(dialect)
    return made


def check_round_trip(
    name: str, specs: Sequence[TensorSpec | None], attrs: dict[str, Any] | None = None
) -> str:
    """Pretty and generic text parse back to the same module; returns the pretty line."""
    op = op_class(f"mge.{name.removeprefix('mge.')}")
    source = TestOp(result_types=[to_type(s) for s in specs if s is not None])
    values = iter(source.results)
    made = op.build_op([None if s is None else next(values) for s in specs], attrs or {})
    module = ModuleOp([source, made])
    module.verify()
    pretty = str(module)
    again = Parser(context(), pretty).parse_module()
    again.verify()
    assert str(again) == pretty
    stream = StringIO()
    Printer(stream, print_generic_format=True).print_op(module)
    generic = Parser(context(), stream.getvalue()).parse_module()
    generic.verify()
    assert str(generic) == pretty
    return pretty
