"""Times the kernel templates, one thread, next to the ceilings measured in the same run.

    taskset -c 1 python benchmarks/kernels.py [--only TEXT] [--target NAME] [--dynamic] [--json]

Each kernel is timed as the thread's CPU time, the best of many chunks of 2 ms or more (which
includes the call from Python, about a microsecond); operands are not prepacked.
Contractions are compared with the multiply-add peak of one core, the others with the memory
bandwidth at the size of their operands (both from ceilings.c). A convolution counts the
products with padding too.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mgec.compiler.codegen.llvm_backend import KernelLoader, compile_kernel
from mgec.compiler.kernels.attention import attention_kernel
from mgec.compiler.kernels.contraction import contraction_kernel
from mgec.compiler.kernels.elementwise import Access, dense_strides, elementwise_kernel
from mgec.compiler.kernels.movement import Call, movement_kernel
from mgec.compiler.kernels.pooling import pooling_kernel
from mgec.compiler.kernels.pooling_window import Window
from mgec.compiler.kernels.rows import (
    Loop,
    fold_named,
    layer_norm_kernel,
    reduction_kernel,
    softmax_kernel,
)
from mgec.compiler.kernels.source import DimRef, KernelSource
from mgec.compiler.targets import Target, target_named
from mgec.dialects.mge import lane_math, lane_trig
from mgec.dialects.mge.contraction import MatmulOp, contraction_maps
from mgec.dialects.mge.convolution import ConvDgradOp, ConvOp, ConvWgradOp
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import FLOAT32, INT32, TensorSpec

Shape = tuple[int, ...]


@dataclass
class Case:
    """One kernel to time: how to make it, the shapes of its buffers, and what it does.

    Bytes are those of all buffers if not given.
    """

    name: str
    make: Callable[[Target, bool], tuple[KernelSource, list[int]]]
    shapes: list[Shape]
    flops: int = 0
    nbytes: int = 0


@dataclass
class Result:
    """What was measured."""

    name: str
    microseconds: float
    rate: float
    unit: str
    percent: float
    compile_ms: float
    code_bytes: int
    units: int


def symbolic(shapes: list[Shape], dynamic: bool) -> tuple[list[Any], list[int]]:
    """Shapes for a template, and the dims table if they are run-time sizes."""
    if not dynamic:
        return list(shapes), []
    numbers = iter(range(100))
    dims = [size for shape in shapes for size in shape]
    return [tuple(DimRef(next(numbers)) for _ in shape) for shape in shapes], dims


def contraction_case(
    name: str, op: type[MgeOp], lhs: Shape, rhs: Shape, flops: int = 0, **attrs: Any
) -> Case:
    full = op.complete_attrs(attrs)
    specs = [TensorSpec(lhs, FLOAT32), TensorSpec(rhs, FLOAT32)]
    out = op.infer_specs(specs, full)[0].shape

    def make(target: Target, dynamic: bool) -> tuple[KernelSource, list[int]]:
        (left, right, result), dims = symbolic([lhs, rhs, out], dynamic)
        maps = contraction_maps(op, left, right, result, full, lambda size, by: size)
        source = contraction_kernel("k", target, maps, left, right, result, num_dims=len(dims))
        return source, dims

    maps = contraction_maps(op, lhs, rhs, out, full)
    return Case(name, make, [lhs, rhs, out], flops or maps.flops)


def matmul_case(m: int, n: int, k: int, form: str = "NN") -> Case:
    lhs = (k, m) if form[0] == "T" else (m, k)
    rhs = (n, k) if form[1] == "T" else (k, n)
    name = f"matmul {m}x{n}x{k} {form}"
    flags = {"transpose_lhs": form[0] == "T", "transpose_rhs": form[1] == "T"}
    return contraction_case(name, MatmulOp, lhs, rhs, **flags)


def conv_cases(inp: Shape, weight: Shape, stride: int, padding: int) -> Iterator[Case]:
    attrs = {"stride": (stride, stride), "padding": (padding,) * 4}
    name = f"conv {weight[1]}->{weight[0]} {weight[2]}x{weight[3]} s{stride} @{inp[2]} N{inp[0]}"
    specs = [TensorSpec(inp, FLOAT32), TensorSpec(weight, FLOAT32)]
    out = ConvOp.infer_specs(specs, ConvOp.complete_attrs(attrs))[0].shape
    forward = contraction_case(f"{name} forward", ConvOp, inp, weight, **attrs)
    yield forward
    same = forward.flops  # a gradient has the forward's products; its loops may visit more
    if inp[1] > 3:
        dgrad = {"input_size": inp[2:], **attrs}
        yield contraction_case(f"{name} dgrad", ConvDgradOp, out, weight, same, **dgrad)
    wgrad = {"kernel_size": weight[2:], **attrs}
    yield contraction_case(f"{name} wgrad", ConvWgradOp, out, inp, same, **wgrad)


def elementwise_case(name: str, inputs: int, body: Any, count: int = 128 * 3072) -> Case:
    def make(target: Target, dynamic: bool) -> tuple[KernelSource, list[int]]:
        access = Access(FLOAT32, (1,))
        size = DimRef(0) if dynamic else count
        source = elementwise_kernel(
            "k", target, (size,), [access] * inputs, [access], body, num_dims=int(dynamic)
        )
        return source, [count] if dynamic else []

    return Case(f"{name} {count}", make, [(count,)] * (inputs + 1))


def reduce_case(shape: Shape, axes: tuple[int, ...]) -> Case:
    def make(target: Target, dynamic: bool) -> tuple[KernelSource, list[int]]:
        sizes = [DimRef(i) if dynamic else s for i, s in enumerate(shape)]
        kept = [i not in axes for i in range(len(shape))]
        loops = [Loop(size, keep) for size, keep in zip(sizes, kept, strict=True)]
        source = reduction_kernel(
            "k", target, loops,
            [Access(FLOAT32, dense_strides(sizes, [True] * len(shape)))],
            [Access(FLOAT32, dense_strides(sizes, kept))],
            [fold_named("sum", "f32")], num_dims=len(shape) if dynamic else 0,
        )  # fmt: skip
        return source, list(shape) if dynamic else []

    out = tuple(s for i, s in enumerate(shape) if i not in axes)
    return Case(f"sum {list(shape)} over {list(axes)}", make, [shape, out])


def rows_case(name: str, template: Any, shape: Shape, affine: int) -> Case:
    def make(target: Target, dynamic: bool) -> tuple[KernelSource, list[int]]:
        sizes = (DimRef(0), DimRef(1)) if dynamic else shape
        source = template("k", target, *sizes, num_dims=2 if dynamic else 0)
        return source, list(shape) if dynamic else []

    return Case(f"{name} {list(shape)}", make, [shape, *[shape[1:]] * affine, shape])


def attention_case(queries: int, keys: int, heads: int, depth: int, **options: Any) -> Case:
    """Heads that do not share keys; a case of known sizes only. FLOPs are of the two products."""
    query, key = (1, queries, heads, depth), (1, keys, heads, depth)

    def make(target: Target, dynamic: bool) -> tuple[KernelSource, list[int]]:
        source = attention_kernel("k", target, query, key, key, scale=depth**-0.5, **options)
        return source, []

    name = " ".join(["attention", *options, f"{queries}x{keys} H{heads} D{depth}"])
    flops = 4 * heads * queries * keys * depth
    return Case(name, make, [query, key, key, query], flops)


def pooling_cases(
    image: Shape, kernel: int, stride: int, padding: int, channels_last: bool = False
) -> Iterator[Case]:
    op, axes = op_class("mge.max_pool"), len(image) - 2
    attrs = op.complete_attrs({
        "kernel": (kernel,) * axes, "stride": (stride,) * axes,
        "padding": (padding,) * 2 * axes, "channels_last": channels_last,
    })  # fmt: skip
    window = Window.of(attrs, axes)
    windows = op.infer_specs([TensorSpec(image, FLOAT32)], attrs)[0].shape
    cases = {
        "max_pool": [image, windows],
        "max_pool_grad": [windows, image, windows, image],
        "avg_pool": [image, windows],
        "avg_pool_grad": [windows, image],
    }
    for name, shapes in cases.items():
        if channels_last and name.endswith("grad"):
            continue  # no template

        def make(target: Target, dynamic: bool, name: str = name) -> tuple[KernelSource, list[int]]:
            sizes, dims = symbolic([image, windows], dynamic)
            source = pooling_kernel(name, "k", target, *sizes, window, FLOAT32, num_dims=len(dims))
            return source, dims

        size, where = "x".join(map(str, window.kernel)), " last" if channels_last else ""
        yield Case(f"{name} {size} s{stride} p{padding} {list(image)}{where}", make, shapes)


def movement_case(
    op: str, shapes: list[Shape], dtypes: list[Any] | None = None, **attrs: Any
) -> Case:
    """An op that moves data; what it does not read is not counted, indices are all 0."""
    kind = op_class(f"mge.{op}")
    full = kind.complete_attrs(attrs)
    types = dtypes or [FLOAT32] * len(shapes)
    specs = [TensorSpec(s, d) for s, d in zip(shapes, types, strict=True)]
    out = kind.infer_specs(specs, full)[0]

    def make(target: Target, dynamic: bool) -> tuple[KernelSource, list[int]]:
        sizes, dims = symbolic([*shapes, out.shape], dynamic)
        given = dict(full)
        for key in kind.runtime_attrs if dynamic else ():
            values = full[key] if isinstance(full[key], tuple) else (full[key],)
            refs = tuple(DimRef(len(dims) + i) for i in range(len(values)))
            given[key] = refs if isinstance(full[key], tuple) else refs[0]
            dims = [*dims, *values]
        call = Call(op, tuple(sizes[:-1]), sizes[-1], (*types, out.dtype), given, len(dims))
        return movement_kernel("k", target, call), dims

    shown = " ".join(str(list(s)) for s in shapes)
    detail = attrs.get("perm") or attrs.get("steps") or attrs.get("mode") or attrs.get("axis", "")
    nbytes = out.size * out.dtype.itemsize
    nbytes += min(nbytes, sum(s.size * s.dtype.itemsize for s in specs))
    return Case(f"{op} {shown} {detail}".replace(", ", ","), make, [*shapes, out.shape], 0, nbytes)


def movement_cases() -> Iterator[Case]:
    yield movement_case("transpose", [(1024, 1024)], perm=(1, 0))
    yield movement_case("transpose", [(500, 300)], perm=(1, 0))
    yield movement_case("transpose", [(8, 128, 12, 64)], perm=(0, 2, 1, 3))
    yield movement_case("transpose", [(8, 128, 12, 64)], perm=(0, 2, 3, 1))
    yield movement_case("transpose", [(8, 64, 32, 32)], perm=(0, 2, 3, 1))
    yield movement_case("transpose", [(8, 3, 224, 224)], perm=(0, 2, 3, 1))
    ones = (1, 1, 1)
    yield movement_case(
        "slice", [(64, 128, 96)], starts=(0, 0, 32), stops=(64, 128, 64), steps=ones
    )
    yield movement_case("slice", [(512, 1024)], starts=(0, 0), stops=(512, 1024), steps=(1, 2))
    yield movement_case(
        "unslice", [(64, 128, 32)], starts=(0, 0, 32), steps=ones, shape=(64, 128, 96)
    )
    yield movement_case("reverse", [(512, 1024)], axes=(1,))
    pads = {"low": (0, 0, 1, 1), "high": (0, 0, 1, 1)}
    yield movement_case("pad", [(8, 64, 56, 56)], mode="constant", **pads)
    yield movement_case("pad", [(8, 64, 56, 56)], mode="reflect", **pads)
    yield movement_case("concat", [(64, 128, 32)] * 3, axis=2)
    yield movement_case("concat", [(8, 64, 32, 32)] * 2, axis=1)
    yield movement_case("take", [(30000, 256), (512,)], [FLOAT32, INT32], axis=0)
    yield movement_case("take", [(64, 1000), (500,)], [FLOAT32, INT32], axis=1)
    yield movement_case("one_hot", [(1024,)], [INT32], num_classes=1000)


UNARY: tuple[lane_math.Function, ...] = (
    lane_math.exp, lane_math.expm1, lane_math.log, lane_math.log1p, lane_math.tanh, lane_math.erf,
    lane_math.sigmoid, lane_math.silu, lane_math.gelu, lane_math.gelu_tanh, lane_trig.sin,
    lane_trig.cos, lane_trig.tan,
)  # fmt: skip


def all_cases() -> Iterator[Case]:
    """Every case of this benchmark."""
    for form in ("NN", "NT", "TN"):
        yield matmul_case(512, 512, 512, form)
        yield matmul_case(128, 768, 768, form)
    yield matmul_case(128, 3072, 768)
    yield matmul_case(128, 768, 3072)
    yield matmul_case(1024, 1024, 1024)
    yield matmul_case(3136, 64, 256)
    yield matmul_case(3136, 256, 64)
    yield matmul_case(196, 256, 1024)
    yield matmul_case(64, 120, 400, "NT")
    yield matmul_case(64, 84, 120, "NT")
    yield matmul_case(8, 768, 768)
    yield matmul_case(1, 1000, 2048)
    yield matmul_case(1, 1000, 2048, "NT")
    yield from conv_cases((1, 64, 56, 56), (64, 64, 3, 3), 1, 1)
    yield from conv_cases((1, 256, 14, 14), (256, 256, 3, 3), 1, 1)
    yield from conv_cases((8, 64, 32, 32), (64, 64, 3, 3), 1, 1)
    yield from conv_cases((1, 64, 56, 56), (128, 64, 3, 3), 2, 1)
    yield from conv_cases((1, 64, 56, 56), (256, 64, 1, 1), 1, 0)
    yield from conv_cases((1, 3, 224, 224), (64, 3, 7, 7), 2, 3)
    yield from conv_cases((64, 1, 28, 28), (6, 1, 5, 5), 1, 0)
    yield from conv_cases((64, 6, 12, 12), (16, 6, 5, 5), 1, 0)
    yield elementwise_case("add", 2, lambda b, xs: [b.add(*xs)])
    for rule in UNARY:
        yield elementwise_case(rule.__name__, 1, lambda b, xs, rule=rule: [rule(b, xs[0])])
    yield elementwise_case("pow", 2, lambda b, xs: [lane_math.pow(b, *xs)])
    for shape, axes in (
        ((128, 3072), (1,)), ((128, 3072), (0,)), ((3072, 128), (0,)), ((32, 64, 1024), (1,)),
        ((32, 64, 1024), (0, 2)), ((2048, 10), (1,)),
    ):  # fmt: skip
        yield reduce_case(shape, axes)
    for shape in ((1536, 128), (128, 3072), (1536, 100), (1, 50000)):
        yield rows_case("softmax", softmax_kernel, shape, 0)
    for shape in ((128, 3072), (128, 768), (128, 384)):
        yield rows_case("layer_norm", layer_norm_kernel, shape, 2)
    for sizes in ((128, 128, 12, 64), (128, 128, 12, 32), (2048, 2048, 8, 64), (1, 1024, 16, 64)):
        yield attention_case(*sizes)
    yield attention_case(2048, 2048, 8, 64, causal=True)
    yield from pooling_cases((64, 6, 24, 24), 2, 2, 0)
    yield from pooling_cases((64, 16, 8, 8), 2, 2, 0)
    yield from pooling_cases((8, 64, 32, 32), 2, 2, 0)
    yield from pooling_cases((1, 64, 112, 112), 3, 2, 1)
    yield from pooling_cases((1, 64, 56, 56), 3, 1, 1)
    yield from pooling_cases((1, 112, 112, 64), 3, 2, 1, channels_last=True)
    yield from pooling_cases((1, 56, 56, 64), 3, 1, 1, channels_last=True)
    yield from pooling_cases((1, 28, 28, 100), 2, 2, 0, channels_last=True)
    yield from pooling_cases((1, 16, 28, 28, 64), 3, 2, 1, channels_last=True)
    yield from movement_cases()


def ceilings() -> dict[str, float]:
    """What ceilings.c measures."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "ceilings")
        source = str(Path(__file__).with_name("ceilings.c"))
        subprocess.run(["cc", "-O3", "-march=native", source, "-o", program], check=True)
        text = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in map(str.split, text.splitlines())}


_LOADER = KernelLoader()
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def aligned(shape: Shape) -> np.ndarray[Any, Any]:
    """Random float32 numbers in an array that begins a cache line."""
    count = int(np.prod(shape))
    raw = np.empty(count * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array = raw[start : start + count * 4].view(np.float32).reshape(shape)
    array[...] = np.random.default_rng(0).standard_normal(shape)
    return array


CHUNK_NS = 2_000_000
"""Shortest interval that is timed: the thread clock jumps by microseconds, and the minimum over
single short calls picks out the jumps (it once showed 145% of the multiply-add peak)."""


def chunked(call: Callable[[], None], seconds: float) -> float:
    """Seconds per call: the best of many chunks of calls, each at least `CHUNK_NS` long."""
    call()
    count = 1
    while True:
        start = time.thread_time_ns()
        for _ in range(count):
            call()
        if time.thread_time_ns() - start >= CHUNK_NS:
            break
        count *= 2
    best = float("inf")
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.thread_time_ns()
        for _ in range(count):
            call()
        best = min(best, (time.thread_time_ns() - start) * 1e-9 / count)
    return best


def measure(
    case: Case, target: Target, dynamic: bool, limits: dict[str, float], seconds: float
) -> Result:
    """Compiles and times one case."""
    began = time.perf_counter()
    source, dims = case.make(target, dynamic)
    compiled = compile_kernel(source, target)
    compile_ms = (time.perf_counter() - began) * 1e3
    call = _FUNCTION(_LOADER.load(compiled))
    arrays = [aligned(shape) for shape in case.shapes]
    if source.scratch_bytes:
        arrays.append(aligned((source.scratch_bytes // 4,)))
    buffers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
    table = (ctypes.c_int64 * max(1, len(dims)))(*dims)
    units = source.units.evaluate(dims)
    best = chunked(lambda: call(buffers, table, 0, units), seconds)
    if case.flops:
        rate, unit, limit = case.flops / best / 1e9, "GFLOP/s", limits[f"fma_{target.vector_bytes}"]
    else:
        nbytes = case.nbytes or sum(4 * int(np.prod(s)) for s in case.shapes)
        kib = min((16 * 4**i for i in range(7)), key=lambda size: abs(size - nbytes / 1024))
        rate, unit, limit = nbytes / best / 1e9, "GB/s", limits[f"copy_{kib}"]
    return Result(
        case.name, best * 1e6, rate, unit, 100 * rate / limit, compile_ms,
        len(compiled.object_code), units,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--target", default="host")
    parser.add_argument("--dynamic", action="store_true", help="compile for run-time sizes")
    parser.add_argument("--seconds", type=float, default=0.3, help="time spent on each case")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    limits = ceilings()
    target = target_named(options.target)
    if not options.json:
        print("ceilings: " + ", ".join(f"{name} {value:.0f}" for name, value in limits.items()))
        print(
            f"{'kernel':44}{'us':>10}{'rate':>9} {'':8}{'%':>5}"
            f"{'compile ms':>12}{'bytes':>8}{'units':>7}"
        )
    results: list[Result] = []
    for case in all_cases():
        if options.only not in case.name:
            continue
        result = measure(case, target, options.dynamic, limits, options.seconds)
        results.append(result)
        if not options.json:
            print(
                f"{result.name:44}{result.microseconds:10.1f}{result.rate:9.1f} {result.unit:8}"
                f"{result.percent:5.0f}{result.compile_ms:12.0f}{result.code_bytes:8}{result.units:7}",
                flush=True,
            )
    if options.json:
        print(json.dumps({"ceilings": limits, "results": [asdict(r) for r in results]}, indent=1))


if __name__ == "__main__":
    main()
