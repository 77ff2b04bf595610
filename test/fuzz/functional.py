"""Fuzzes `mgec.functional` with random, often odd, arguments.

    python test/fuzz/functional.py --seconds 300 --seed 7

Each case is run by compiled kernels, one in five of them also in a trace, and by the NumPy rules
(``MGEC_BACKEND=reference``). A defect is: an exception that is not an `MgecError`, an error from
one way and a result from the other, or results that differ. A crash of the process is a defect,
too: the case is written to ``--last FILE`` before it runs. The case number N of seed S is run
alone with ``--seed S --only N``. Exit status: 0, or 1 after defects.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import mgec as mge
import mgec.functional as F
from mgec import config
from mgec.core import eager
from mgec.core.tensor import Tensor
from mgec.errors import MgecError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float32)] * 4 + [np.dtype(np.float16), BFLOAT16]
INTEGERS = [np.dtype(t) for t in ("int32", "int32", "int16", "int8", "uint8", "uint16")]
ANY = [*FLOATS, *INTEGERS, np.dtype(np.bool_)]
SIZES = [0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, np.nan, np.inf, -np.inf, 1e-40, 1e30, -1e30,
           3.4e38, 127.5, 255.5, 65504.0, 2147483648.0, -2147483904.0,
           88.0, -104.0, 710.0]  # fmt: skip

Rng = np.random.Generator
Case = tuple[str, Callable[..., Any], list[np.ndarray[Any, Any]], dict[str, Any]]
"""A name, a function of tensors, the tensors' values, and what is said about it."""


def is_float(dtype: Any) -> bool:
    return dtype.kind == "f" or dtype == BFLOAT16


def pick(rng: Rng, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def shape_of(rng: Rng, rank: int | None = None, limit: int = 4000) -> tuple[int, ...]:
    rank = int(rng.integers(0, 5)) if rank is None else rank
    shape = [pick(rng, SIZES) for _ in range(rank)]
    while np.prod(shape, dtype=np.int64) > limit:
        shape[int(rng.integers(rank))] = 1
    return tuple(shape)


def values(rng: Rng, shape: tuple[int, ...], dtype: Any, special: float = 0.0) -> Any:
    """Random values; `special` is the share of extreme ones."""
    if dtype == np.bool_:
        return np.asarray(rng.integers(0, 2, shape)).astype(bool)
    if not is_float(dtype):
        info = np.iinfo(dtype)
        small = np.asarray(rng.integers(max(info.min, -9), 10, shape))
        ends = np.array([info.min, info.min + 1, 0, 1, 31, 32, 33, info.max - 1, info.max])
        odd = ends[rng.integers(0, len(ends), shape)]
        return np.where(rng.random(shape) < special, odd, small).astype(dtype)
    usual = rng.standard_normal(shape) * pick(rng, [1.0, 1.0, 10.0])
    odd = np.array(SPECIAL)[rng.integers(0, len(SPECIAL), shape)]
    with np.errstate(all="ignore"):
        return np.asarray(np.where(rng.random(shape) < special, odd, usual)).astype(dtype)


def partner(rng: Rng, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that usually broadcasts with another."""
    result = [1 if rng.random() < 0.25 else d for d in shape]
    result = result[int(rng.integers(0, len(result) + 1)) if rng.random() < 0.3 else 0 :]
    if result and rng.random() < 0.05:
        result[0] = 6
    return tuple(result)


def axis_of(rng: Rng, rank: int) -> int:
    if rng.random() < 0.03:
        return pick(rng, [rank, -rank - 1, 100, -(10**12)])
    return int(rng.integers(-rank, rank)) if rank else 0


def axes_of(rng: Rng, rank: int) -> Any:
    if rng.random() < 0.3:
        return None
    if rng.random() < 0.5 or rank == 0:
        return axis_of(rng, rank)
    count = int(rng.integers(1, rank + 1))
    return tuple(int(a) for a in rng.permutation(rank)[:count])


# -- cases ---------------------------------------------------------------------------------------

UNARY = """abs neg sign exp expm1 log log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh
asinh acosh atanh erf erfc floor ceil round square isnan isinf isfinite relu relu6 sigmoid hsigmoid
hswish silu gelu softplus logsigmoid logical_not leaky_relu""".split()  # noqa: SIM905
BINARY = """add sub mul div floor_div mod pow maximum minimum atan2 equal not_equal less less_equal
greater greater_equal logical_and logical_or logical_xor logaddexp left_shift right_shift""".split()  # noqa: SIM905


REDUCTIONS = "sum prod mean max min all any var std logsumexp argmax argmin".split()  # noqa: SIM905


def unary(rng: Rng) -> Case:
    name, dtype = pick(rng, UNARY), pick(rng, ANY)
    return name, getattr(F, name), [values(rng, shape_of(rng), dtype, 0.3)], {}


def binary(rng: Rng) -> Case:
    name, dtype = pick(rng, BINARY), pick(rng, ANY)
    if name.endswith("shift"):
        dtype = pick(rng, INTEGERS)
    shape = shape_of(rng)
    x = values(rng, shape, dtype, 0.3)
    if rng.random() < 0.2:
        options = [0, 1, -1, 2, 31, 32, 40, -3, 0.5, 0.0, float("nan"), float("inf"), 2**31, 300]
        number = pick(rng, options)
        if rng.random() < 0.5:
            return name, lambda a: getattr(F, name)(a, number), [x], {"y": number}
        return name, lambda a: getattr(F, name)(number, a), [x], {"x": number}
    other = dtype if rng.random() < 0.7 else pick(rng, ANY)
    return name, getattr(F, name), [x, values(rng, partner(rng, shape), other, 0.3)], {}


def cast(rng: Rng) -> Case:
    source, target = pick(rng, ANY), pick(rng, ANY)
    x = values(rng, shape_of(rng), source, 0.5)
    return "astype", lambda a: a.astype(target), [x], {"dtype": target.name}


def clip(rng: Rng) -> Case:
    bounds = [None, 0, 1, -1, 0.5, 300, -(2**31), float("inf"), float("-inf")]
    low, high = pick(rng, bounds), pick(rng, bounds)
    x = values(rng, shape_of(rng), pick(rng, ANY), 0.3)
    return "clip", lambda a: F.clip(a, low, high), [x], {"low": low, "high": high}


def where(rng: Rng) -> Case:
    shape = shape_of(rng)
    mask = values(rng, partner(rng, shape), np.dtype(bool))
    dtype = pick(rng, ANY)
    arrays = [mask, values(rng, shape, dtype, 0.2), values(rng, partner(rng, shape), dtype, 0.2)]
    return "where", F.where, arrays, {}


def reduction(rng: Rng) -> Case:
    name = pick(rng, REDUCTIONS)
    shape, dtype = shape_of(rng), pick(rng, ANY)
    if name == "prod":
        x = values(rng, shape, dtype) if not is_float(dtype) else (
            rng.uniform(0.8, 1.2, shape).astype(dtype)
        )  # fmt: skip
    elif name in ("mean", "var", "std", "logsumexp") and not is_float(dtype):
        x = values(rng, shape, dtype)  # in float32, large integers cancel to anything
    else:
        x = values(rng, shape, dtype, pick(rng, [0.0, 0.0, 0.1]) if name[0] != "a" else 0.3)
        if is_float(dtype):  # sums that overflow on the way depend on the order
            with np.errstate(all="ignore"):
                x = np.where(np.abs(x.astype(np.float64)) > 100, np.sign(x), x).astype(dtype)
                if rng.random() < 0.1 and x.size:
                    x.reshape(-1)[int(rng.integers(x.size))] = pick(rng, [np.nan, np.inf])
    axis = axis_of(rng, len(shape)) if name.startswith("arg") else axes_of(rng, len(shape))
    if name.startswith("arg") and rng.random() < 0.3:
        axis = None
    keep = bool(rng.random() < 0.5)
    function = lambda a: getattr(F, name)(a, axis=axis, keepdims=keep)  # noqa: E731
    return name, function, [np.asarray(x)], {"axis": axis, "keepdims": keep}


def softmax(rng: Rng) -> Case:
    name = pick(rng, ["softmax", "logsoftmax"])
    shape = shape_of(rng)
    x, axis = values(rng, shape, pick(rng, FLOATS), 0.0), axis_of(rng, len(shape))
    if x.size and rng.random() < 0.2:
        x.reshape(-1)[int(rng.integers(x.size))] = pick(rng, [np.nan, np.inf, -np.inf, 100.0])
    return name, lambda a: getattr(F, name)(a, axis), [x], {"axis": axis}


def matmul(rng: Rng) -> Case:
    m, n, k = (pick(rng, SIZES) for _ in range(3))
    lead = shape_of(rng, int(rng.integers(0, 3)), 12)
    ta, tb = bool(rng.random() < 0.4), bool(rng.random() < 0.4)
    a = (*lead, k, m) if ta else (*lead, m, k)
    other = partner(rng, lead)
    b = (*other, n, k) if tb else (*other, k, n)
    if rng.random() < 0.1:
        a, ta = (k,), False
    if rng.random() < 0.1:
        b, tb = (k,), False
    dtype = pick(rng, FLOATS if rng.random() < 0.8 else INTEGERS)
    arrays = [values(rng, a, dtype), values(rng, b, dtype)]
    function = lambda x, y: F.matmul(x, y, transpose_a=ta, transpose_b=tb)  # noqa: E731
    return "matmul", function, arrays, {"transpose": (ta, tb)}


def window(rng: Rng) -> dict[str, Any]:
    options = [0, 1, 1, 1, 2, 3, (1, 2), (2, 1)]
    return {"stride": pick(rng, options), "padding": pick(rng, [0, 0, 0, *options, -1])}


def conv(rng: Rng) -> Case:
    """A convolution over one or three spatial axes."""
    axes, groups = pick(rng, [1, 3]), pick(rng, [1, 1, 2])
    i, o = pick(rng, [1, 2, 5]), pick(rng, [1, 3, 17])
    inp = (pick(rng, [0, 1, 2]), i * groups, *(pick(rng, [1, 3, 5, 8]) for _ in range(axes)))
    kernel = tuple(pick(rng, [1, 2, 3]) for _ in range(axes))
    weight = (o, i, *kernel) if groups == 1 else (groups, o, i, *kernel)
    options = {"stride": pick(rng, [1, 1, 2, (2,) * axes]), "padding": pick(rng, [0, 0, 1, 2])}
    options |= {"dilation": pick(rng, [1, 1, 2]), "groups": groups}
    arrays = [values(rng, inp, FLOATS[0]), values(rng, weight, FLOATS[0])]
    name = f"conv{axes}d"
    return name, lambda *t: getattr(F, name)(*t, **options), arrays, options


def conv2d(rng: Rng) -> Case:
    groups = pick(rng, [1, 1, 1, 2, 3])
    i, o = pick(rng, [1, 1, 2, 5, 8]), pick(rng, [1, 2, 3, 8, 17])
    inp = (pick(rng, [0, 1, 2]), i * groups, *(pick(rng, [0, 1, 3, 5, 8, 9, 17]) for _ in "hw"))
    kernel = tuple(pick(rng, [1, 1, 2, 3, 3, 5]) for _ in "hw")
    weight = (o, i, *kernel) if groups == 1 else (groups, o, i, *kernel)
    options = {**window(rng), "dilation": pick(rng, [1, 1, 1, 2, (1, 2), 0]), "groups": groups}
    dtype = pick(rng, FLOATS)
    arrays = [values(rng, inp, dtype), values(rng, weight, dtype)]
    if rng.random() < 0.4:
        arrays.append(values(rng, (1, o * groups, 1, 1), dtype))
    return "conv2d", lambda *t: F.conv2d(*t, **options), arrays, options


def conv_transpose2d(rng: Rng) -> Case:
    groups = pick(rng, [1, 1, 2])
    i, o = pick(rng, [1, 2, 5]), pick(rng, [1, 3, 8])
    inp = (pick(rng, [0, 1, 2]), i * groups, *(pick(rng, [0, 1, 3, 5, 8]) for _ in "hw"))
    kernel = tuple(pick(rng, [1, 2, 3]) for _ in "hw")
    weight = (i, o, *kernel) if groups == 1 else (groups, i, o, *kernel)
    options = {**window(rng), "dilation": pick(rng, [1, 1, 2]), "groups": groups}
    options["output_padding"] = pick(rng, [0, 0, 0, 1])
    arrays = [values(rng, inp, FLOATS[0]), values(rng, weight, FLOATS[0])]
    return "conv_transpose2d", lambda *t: F.conv_transpose2d(*t, **options), arrays, options


def pooling(rng: Rng) -> Case:
    name = pick(rng, ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"])
    inp = (pick(rng, [0, 1, 2]), pick(rng, [1, 3, 8]), *(pick(rng, SIZES[:11]) for _ in "hw"))
    x = values(rng, inp, pick(rng, FLOATS), 0.1 if "max" in name else 0.0)
    if name.startswith("adaptive"):
        size = pick(rng, [1, 2, 3, 5, (1, 3), (4, 2), 0, 40])
        return name, lambda a: getattr(F, name)(a, size), [x], {"oshp": size}
    options = {**window(rng), "kernel_size": pick(rng, [1, 2, 3, (2, 3), 0, 9, 40])}
    if rng.random() < 0.3:
        options["stride"] = None
    if name == "avg_pool2d":
        options["mode"] = pick(rng, ["average", "average_count_exclude_padding"])
    return name, lambda a: getattr(F, name)(a, **options), [x], options


def norm(rng: Rng) -> Case:
    name = pick(rng, ["layer_norm", "group_norm", "instance_norm", "batch_norm"])
    dtype = pick(rng, FLOATS)
    shape = shape_of(rng, pick(rng, [2, 3, 4]))
    x = values(rng, shape, dtype)
    c = shape[1]
    if name == "layer_norm":
        last = shape[int(rng.integers(0, len(shape))) :]
        w, b = values(rng, last, dtype), values(rng, last, dtype)
        return name, lambda a, w, b: F.layer_norm(a, last, True, w, b), [x, w, b], {"shape": last}
    w, b = values(rng, (c,), dtype), values(rng, (c,), dtype)
    if name == "group_norm":
        groups = pick(rng, [1, 2, 3, max(c, 1)])
        function = lambda a, w, b: F.group_norm(a, groups, True, w, b)  # noqa: E731
        return name, function, [x, w, b], {"groups": groups}
    if name == "instance_norm":
        return name, lambda a, w, b: F.instance_norm(a, True, w, b), [x, w, b], {}
    if rng.random() < 0.5:
        return name, lambda a, w, b: F.batch_norm(a, weight=w, bias=b, training=True), [x, w, b], {}
    var = np.abs(values(rng, (c,), dtype))
    function = lambda a, m, v, w, b: F.batch_norm(a, m, v, w, b)  # noqa: E731
    return name, function, [x, b, var, w, b], {}


def indices(rng: Rng, shape: tuple[int, ...], size: int, outside: bool) -> Any:
    """Indices; half of the time some of them are far or near outside."""
    dtype = pick(rng, INTEGERS)
    low = -size if dtype.kind == "i" and rng.random() < 0.3 else 0
    found = np.asarray(rng.integers(low, max(size, 1), shape))
    if outside:
        ends = [size, -size - 1, size + 1, np.iinfo(dtype).max, np.iinfo(dtype).min]
        found = np.where(
            rng.random(shape) < 0.3, np.array(ends)[rng.integers(5, size=shape)], found
        )
    info = np.iinfo(dtype)
    return np.clip(found, info.min, info.max).astype(dtype)


def indexed(rng: Rng) -> Case:
    name = pick(rng, ["gather", "scatter", "take", "embedding", "one_hot", "indexing_one_hot",
                      "cross_entropy", "setitem"])  # fmt: skip
    outside = bool(rng.random() < 0.4)
    dtype = pick(rng, ANY)
    if name == "one_hot":
        count = pick(rng, [0, 1, 3, 10])
        index = indices(rng, shape_of(rng, limit=400), count, outside)
        return name, lambda i: F.one_hot(i, count), [index], {"num_classes": count}
    if name == "embedding":
        table = values(rng, shape_of(rng, 2), dtype)
        index = indices(rng, shape_of(rng, limit=200), table.shape[0], outside)
        return name, F.embedding, [index, table], {}
    shape = shape_of(rng, int(rng.integers(1, 4)))
    axis = int(rng.integers(0, len(shape)))
    x = values(rng, shape, dtype, 0.1)
    rest = shape[:axis] + shape[axis + 1 :]
    info = {"axis": axis}
    if name in ("take", "setitem"):
        index = indices(rng, shape_of(rng, pick(rng, [0, 1, 2]), 60), shape[axis], outside)
        lead = (slice(None),) * axis
        if name == "take":
            return name, lambda a, i: a[(*lead, i)], [x, index], info
        small = rng.permutation(shape[axis])[: max(1, index.size // 4)].astype(np.int32)
        index = indices(rng, (2,), shape[axis], True) if outside else small

        def assign(a: Tensor, i: Tensor) -> Tensor:
            new = a + 0 if a.dtype is not np.bool_ else F.copy(a)
            new[(*lead, i)] = 1
            return new

        return name, assign, [x, index], info
    if name == "indexing_one_hot":
        index = indices(rng, rest, shape[axis], outside)
        return name, lambda a, i: F.indexing_one_hot(a, i, axis), [x, index], info
    if name == "cross_entropy":
        index = indices(rng, rest, shape[axis], outside)
        x = values(rng, shape, pick(rng, FLOATS))
        return name, lambda a, i: F.cross_entropy(a, i, axis, reduction="none"), [x, index], info
    longer = pick(rng, [shape[axis], 1, 5, 0])
    wide = (*shape[:axis], longer, *shape[axis + 1 :])
    index = indices(rng, wide, shape[axis], outside)
    if name == "gather":
        return name, lambda a, i: F.gather(a, axis, i), [x, index], info
    source = values(rng, wide, dtype, 0.1)
    return name, lambda a, i, s: F.scatter(a, axis, i, s), [x, index, source], info


def subscript(rng: Rng) -> Case:
    shape = shape_of(rng, int(rng.integers(1, 5)))
    numbers = [None, None, 0, 1, 2, 5, -1, -2, -5, 100, -100, 10**12, -(10**12)]
    items: list[Any] = []
    for size in shape[: int(rng.integers(0, len(shape) + 1))]:
        kind = rng.random()
        if kind < 0.25:
            items.append(int(rng.integers(-size, size)) if size else 0)
        elif kind < 0.35:
            items.append(None)
        else:
            step = pick(rng, [None, 1, 2, 3, -1, -2, -3, 100, -100, 2**40])
            items.append(slice(pick(rng, numbers), pick(rng, numbers), step))
    if rng.random() < 0.2:
        items.insert(int(rng.integers(0, len(items) + 1)), Ellipsis)
    index = tuple(items)
    x = values(rng, shape, pick(rng, ANY))
    if rng.random() < 0.3:

        def assign(a: Tensor) -> Tensor:
            new = F.copy(a)
            new[index] = 1
            return new

        return "setitem", assign, [x], {"index": repr(index)}
    return "getitem", lambda a: a[index], [x], {"index": repr(index)}


def reshaped(rng: Rng) -> Case:
    name = pick(rng, ["transpose", "reshape", "flatten", "expand_dims", "squeeze", "broadcast_to",
                      "swapaxes", "flip", "roll", "repeat", "tile", "split", "diag",
                      "cumsum", "pad", "sort", "topk", "argsort"])  # fmt: skip
    shape = shape_of(rng)
    rank = len(shape)
    x = values(rng, shape, pick(rng, ANY), 0.2)
    odd = [0, 1, 2, 3, -1, 7, 100]
    if name == "transpose":
        arg: tuple[Any, ...] = ([int(a) for a in rng.permutation(rank)],)
    elif name == "reshape":
        arg = (pick(rng, [(-1,), (-1, 1), (2, -1), (0, -1), x.size, (1, x.size, 1)]),)
    elif name == "flatten":
        arg = (axis_of(rng, rank), axis_of(rng, rank))
    elif name in ("expand_dims", "squeeze", "flip"):
        arg = (axes_of(rng, rank) if name != "expand_dims" else axis_of(rng, rank + 1),)
    elif name == "broadcast_to":
        lead = pick(rng, [(), (2,), (0,), (3, 1)])
        arg = ((*lead, *(5 if d == 1 and rng.random() < 0.5 else d for d in shape)),)
    elif name == "swapaxes":
        arg = (axis_of(rng, rank), axis_of(rng, rank))
    elif name == "roll":
        arg = (pick(rng, [0, 1, -1, 5, -7, 10**12]), axes_of(rng, rank))
    elif name == "repeat":
        arg = (pick(rng, odd), pick(rng, [None, axis_of(rng, rank)]))
    elif name == "tile":
        arg = (pick(rng, [0, 1, 2, (2, 3), (1, 0, 2), -1, ()]),)
    elif name == "split":
        arg = (pick(rng, [1, 2, 3, 50, [1], [1, 2], [2, 2], [0], [-1], [40]]), axis_of(rng, rank))
    elif name == "diag":
        arg = (pick(rng, [0, 1, -1, 2, -3, 50, -50]),)
    elif name == "cumsum":
        x = values(rng, shape, pick(rng, ANY))
        arg = (axis_of(rng, rank),)
    elif name == "pad":
        widths = [(pick(rng, [0, 0, 1, 2, 5, 40]), pick(rng, [0, 0, 1, 3])) for _ in shape]
        arg = (
            widths,
            pick(rng, ["constant", "replicate", "reflect"]),
            pick(rng, [0.0, -1.5, 300.0]),
        )
    elif name == "topk":
        arg = (pick(rng, [1, 2, 3, 17, 0]), bool(rng.random() < 0.5))
    else:
        arg = (bool(rng.random() < 0.5),)
    function = F.vision.flip if name == "flip" else getattr(F, name)
    return name, lambda a: function(a, *arg), [x], {"arguments": repr(arg)}


def joined(rng: Rng) -> Case:
    name = pick(rng, ["concat", "stack"])
    shape = shape_of(rng, int(rng.integers(1, 4)))
    axis = axis_of(rng, len(shape))
    arrays = []
    for _ in range(int(rng.integers(1, 4))):
        sizes = list(shape)
        if name == "concat" and -len(shape) <= axis < len(shape):
            sizes[axis] = pick(rng, SIZES[:6])
        arrays.append(values(rng, tuple(sizes), pick(rng, ANY), 0.1))
    return name, lambda *t: getattr(F, name)(list(t), axis), arrays, {"axis": axis}


def loss(rng: Rng) -> Case:
    name = pick(rng, ["l1_loss", "square_loss", "binary_cross_entropy", "hinge_loss"])
    shape = shape_of(rng, 2)
    x, y = values(rng, shape, pick(rng, FLOATS)), values(rng, shape, FLOATS[0])
    if name == "binary_cross_entropy":
        y = (y > 0).astype(np.float32)
    kind = pick(rng, ["mean", "sum", "none"])
    return name, lambda a, b: getattr(F, name)(a, b, reduction=kind), [x, y], {"reduction": kind}


FAMILIES = [unary, unary, binary, binary, binary, cast, clip, where, reduction, reduction, softmax,
            matmul, conv, conv2d, conv_transpose2d, pooling, norm, indexed, indexed, indexed,
            subscript, subscript, reshaped, reshaped, reshaped, joined, loss]  # fmt: skip


# -- judging -------------------------------------------------------------------------------------

_reference_plans: dict[Any, Any] = {}
Outcome = list[np.ndarray[Any, Any]] | MgecError


def outcome(function: Callable[..., Any], arrays: list[Any]) -> Outcome:
    """The results as arrays, or the error; anything else that is raised is a defect."""
    try:
        tensors = [mge.tensor(a) for a in arrays]
        result = function(*tensors)
        many = result if isinstance(result, list | tuple) else [result]
        return [r.numpy() for r in many]
    except MgecError as error:
        return error


def expected(function: Callable[..., Any], arrays: list[Any]) -> Outcome:
    """What the reference rules give. Plans are cached, so they have their own cache here."""
    native = eager._plans
    eager._plans = _reference_plans
    try:
        with config.override(backend="reference"), np.errstate(all="ignore"):
            return outcome(function, arrays)
    finally:
        eager._plans = native


TOLERANCE = {np.dtype(np.float32): 2e-5, np.dtype(np.float16): 6e-3, BFLOAT16: 5e-2}
# Where rounding once more or once less is amplified: x ** y, tan near its poles, ...
LOOSE = {"pow": 50.0, "prod": 5.0, "tan": 50.0, "erfc": 20.0, "var": 5.0, "std": 20.0,
         "batch_norm": 50.0, "layer_norm": 50.0, "group_norm": 50.0, "instance_norm": 50.0,
         "mod": 1e4}  # fmt: skip


def difference(name: str, got: Outcome, want: Outcome) -> str:
    """What is wrong with an outcome; empty if nothing is."""
    if isinstance(got, MgecError) or isinstance(want, MgecError):
        if isinstance(got, MgecError) and isinstance(want, MgecError):
            return "" if type(got) is type(want) else f"{got.headline} | not: {want.headline}"
        say = [e.render() if isinstance(e, MgecError) else "a result" for e in (got, want)]
        return f"{say[0]} | but the reference: {say[1]}"
    if len(got) != len(want):
        return f"{len(got)} results, not {len(want)}"
    for i, (a, e) in enumerate(zip(got, want, strict=True)):
        if a.shape != e.shape or a.dtype != e.dtype:
            return f"result {i} is {a.dtype}{a.shape}, not {e.dtype}{e.shape}"
        if not is_float(a.dtype):
            wrong = a != e
        else:
            x, y = a.astype(np.float64), e.astype(np.float64)
            usual = np.abs(y[np.isfinite(y)])
            tolerance = TOLERANCE[a.dtype] * LOOSE.get(name, 1.0)
            scale = min(float(usual.max()), 1e4) if usual.size and name not in UNARY else 1.0
            if name.endswith(("entropy", "loss")):  # small differences of larger numbers
                scale = max(scale, 1.0)
            with np.errstate(all="ignore"):
                close = np.abs(x - y) <= tolerance * (np.abs(y) + scale)
                limit = float(ml_dtypes.finfo(a.dtype).max)
                edge = (np.abs(x) > limit * (1 - tolerance)) & (np.abs(y) > limit * (1 - tolerance))
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            wrong = ~(close | same | (edge & (np.sign(x) == np.sign(y))))
        if wrong.any():
            at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            return (
                f"result {i} at {at} is {a[at]!r}, not {e[at]!r} ({int(wrong.sum())} of {a.size})"
            )
    return ""


def describe(name: str, arrays: list[Any], info: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{a.dtype}{list(a.shape)}' for a in arrays)}) {info}"


def check(rng: Rng, last: Path | None, label: str) -> tuple[str, str]:
    """Runs one case; the family's name and what is wrong, if something is."""
    family = pick(rng, FAMILIES)
    name, function, arrays, info = family(rng)
    arrays = [np.asarray(a) for a in arrays]
    if last is not None:
        last.write_text(f"{label}: {describe(name, arrays, info)}\n")
    traced = bool(rng.random() < 0.2)
    try:
        want = expected(function, arrays)
        wrong = difference(name, outcome(function, arrays), want)
        if not wrong and traced and not isinstance(want, MgecError):
            with np.errstate(all="ignore"):
                once = mge.jit.trace(function, symbolic=True)
                wrong = difference(name, outcome(once, arrays), want)
            wrong = wrong and f"traced: {wrong}"
        elif not wrong and traced and family is indexed:
            outcome(mge.jit.trace(function, symbolic=True), arrays)  # must not touch foreign memory
    except Exception as error:  # anything but an MgecError
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
        wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:200]} @ {place}"
    return name, f"{describe(name, arrays, info)}: {wrong}" if wrong else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--only", type=int, help="the number of the one case to run")
    parser.add_argument("--last", type=Path, help="where each case is noted before it runs")
    arguments = parser.parse_args()
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    defects = 0
    end = time.monotonic() + arguments.seconds
    first = arguments.only or 0
    for number in range(first, first + (1 if arguments.only is not None else arguments.cases)):
        if time.monotonic() > end:
            break
        rng = np.random.default_rng([arguments.seed, number])
        name, wrong = check(rng, arguments.last, f"seed {arguments.seed} case {number}")
        counts[name] += 1
        if wrong:
            defects += 1
            print(f"seed {arguments.seed} case {number}: {wrong}", flush=True)
    print(json.dumps({"cases": counts.total(), "defects": defects, "functions": len(counts)}))
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
