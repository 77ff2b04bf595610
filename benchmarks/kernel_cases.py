"""The kernels that kernels.py times: each a small graph of ops, and the same in PyTorch.

What becomes of a graph is up to the compiler from here on: no row names a template or a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import prod, sqrt
from typing import Any

from mgec.dialects.mge.convolution import ConvOp
from mgec.dialects.mge.spec import BFLOAT16, FLOAT32, INT32, DType, TensorSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operand:
    """An input or a weight.

    Attributes:
        shape: its shape.
        dtype: its dtype.
        fill: "normal", "positive" or "index": see `torch_peer.values`.
        below: the end of indices.
    """

    shape: Shape
    dtype: DType = FLOAT32
    fill: str = "normal"
    below: int = 0


@dataclass(frozen=True)
class Peer:
    """The same in PyTorch: a function of torch_peer.py, which is given inputs, then weights."""

    function: str
    attrs: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Case:
    """A row.

    Attributes:
        name: what it is called.
        inputs: what the graph is given.
        body: `body(b, *inputs, *weights)` builds the graph with a builder `b`.
        weights: constants of the graph.
        flops: multiplications and additions, those with padding too; 0 if only bytes count.
        read: bytes that have to be read, if those are not all of the operands.
        peer: the same in PyTorch.
        saves_memory: whether weights must stay small, which rules out Winograd's algorithm.
        goal: percent of the ceiling that it should reach.
        peer_goal: how many times as fast as PyTorch it should be.
    """

    name: str
    inputs: tuple[Operand, ...]
    body: Callable[..., Any]
    weights: tuple[Operand, ...] = ()
    flops: int = 0
    read: int | None = None
    peer: Peer | None = None
    saves_memory: bool = False
    goal: float | None = None
    peer_goal: float | None = None

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The inputs, then the weights."""
        return (*self.inputs, *self.weights)

    @property
    def is_narrow(self) -> bool:
        """Whether it multiplies bfloat16."""
        return any(each.dtype == BFLOAT16 for each in self.operands)


def _normal(*shapes: Shape, dtype: DType = FLOAT32) -> tuple[Operand, ...]:
    return tuple(Operand(shape, dtype) for shape in shapes)


# ---- Products ---------------------------------------------------------------------------------

_LARGE = 1 << 30
"""Multiplications of products that no cache holds: their goal is lower."""


def matmul(
    m: int, n: int, k: int, form: str = "NN", *, packed: bool = True, dtype: DType = FLOAT32
) -> Case:
    """A matrix product; `form` says of each operand whether it is transposed."""
    flags = [letter == "T" for letter in form]
    lhs = Operand((k, m) if flags[0] else (m, k), dtype)
    rhs = Operand((n, k) if flags[1] else (k, n), dtype)
    title = "bf16 matmul" if dtype == BFLOAT16 else "matmul"
    detail = "" if packed else f" {form} unpacked"
    wide = {"dtype": FLOAT32} if dtype == BFLOAT16 else {}  # as `--precision bf16` has it

    def body(b: Any, x: Any, w: Any) -> Any:
        return b.matmul(x, w, transpose_lhs=flags[0], transpose_rhs=flags[1], **wide)

    return Case(
        f"{title} {m}x{n}x{k}{detail}",
        (lhs,) if packed else (lhs, rhs),
        body,
        (rhs,) if packed else (),
        flops=2 * m * n * k,
        peer=Peer("matmul", {"transposed": flags}),
    )


def linear(m: int, n: int, k: int, then: str) -> Case:
    """A product with bias, then gelu or a residual sum, as transformers have them."""
    adds = then == "residual"

    def body(b: Any, x: Any, *rest: Any) -> Any:
        residual, w, bias = rest if adds else (None, *rest)
        y = b.add(b.matmul(x, w), bias)
        return b.add(y, residual) if adds else b.gelu(y)

    case = matmul(m, n, k)
    function = "linear_residual" if adds else "linear_gelu"
    return replace(
        case,
        name=f"{case.name} + bias + {then}",
        inputs=(*case.inputs, *_normal((m, n))) if adds else case.inputs,
        weights=(*case.weights, *_normal((n,))),
        body=body,
        peer=Peer(function),
    )


def product_cases() -> Iterator[Case]:
    """Matrix products, of constant weights and of two inputs, and attention."""
    sizes = [
        (512, 512, 512), (128, 768, 768), (128, 3072, 768), (128, 768, 3072), (3136, 256, 64),
        (3136, 64, 256), (196, 256, 1024), (1024, 1024, 1024), (2048, 2048, 2048),
        (49, 2048, 512),
    ]  # fmt: skip
    for size in sizes:
        yield replace(matmul(*size), goal=90 if prod(size) >= _LARGE else 95)
    yield matmul(1, 1000, 2048)
    yield matmul(8, 768, 768)
    yield linear(128, 3072, 768, "gelu")
    yield linear(128, 768, 3072, "residual")
    for size in sizes:
        yield matmul(*size, packed=False)
    for form in ("NT", "TN"):
        yield matmul(512, 512, 512, form, packed=False)
        yield matmul(128, 768, 768, form, packed=False)
    yield matmul(1, 1000, 2048, packed=False)
    yield matmul(1, 1000, 2048, "NT", packed=False)
    yield matmul(64, 120, 400, "NT", packed=False)
    yield attention("BERT-base", 128, 12, 64)
    yield attention("MiniLM", 128, 12, 32)
    yield attention("long", 1024, 12, 64)
    yield attention("long causal", 1024, 12, 64, causal=True)


def attention(title: str, length: int, heads: int, depth: int, *, causal: bool = False) -> Case:
    """Self-attention of one sequence; causal attention needs half of the products."""
    shape = (1, length, heads, depth)
    products = 2 * heads * length * length * depth
    return Case(
        f"attention {title} {length}x{heads}x{depth}",
        _normal(shape, shape, shape),
        lambda b, q, k, v: b.attention(q, k, v, None, scale=1 / sqrt(depth), causal=causal),
        flops=2 * products // (2 if causal else 1),
        peer=Peer("attention", {"causal": causal}),
    )


# ---- Convolutions -----------------------------------------------------------------------------


def conv(
    channels: int, filters: int, kernel: int, size: int, *, stride: int = 1, full: bool = False,
    dtype: DType = FLOAT32, **options: Any,
) -> Case:  # fmt: skip
    """A convolution of one square image, channels last, with padding that keeps its size.

    With `filters` 0 it is depthwise; with `full` it has a bias, a residual sum and relu.
    """
    groups = 1 if filters else channels
    filters = filters or channels
    padding = kernel // 2
    image, weight = (1, size, size, channels), (filters, channels // groups, kernel, kernel)
    attrs: dict[str, Any] = {
        "stride": (stride, stride), "padding": (padding,) * 4, "groups": groups,
        "channels_last": True,
    }  # fmt: skip
    if dtype == BFLOAT16:
        attrs["dtype"] = FLOAT32  # as `--precision bf16` has it
    specs = [TensorSpec(image, dtype), TensorSpec(weight, dtype)]
    out = ConvOp.infer_specs(specs, ConvOp.complete_attrs(attrs))[0].shape

    def body(b: Any, x: Any, *rest: Any) -> Any:
        if not full:
            return b.conv(x, rest[0], **attrs)
        residual, w, bias = rest
        return b.relu(b.add(b.add(b.conv(x, w, **attrs), bias), residual))

    title = f"{'bf16 ' if dtype == BFLOAT16 else ''}{'conv' if groups == 1 else 'depthwise'}"
    shown = f"{channels}->{filters}" if groups == 1 else f"{channels}"
    steps = f" s{stride}" if stride > 1 else ""
    return Case(
        f"{title} {kernel}x{kernel}{steps} {shown} @{size}{' + bias + residual + relu' * full}",
        _normal(image, out) if full else _normal(image, dtype=dtype),
        body,
        _normal(weight, (filters,)) if full else _normal(weight, dtype=dtype),
        flops=2 * prod(out) * prod(weight[1:]),
        peer=Peer("conv2d", {"stride": stride, "padding": padding, "groups": groups, "full": full}),
        **options,
    )


def convolution_cases() -> Iterator[Case]:
    """Convolutions: direct, Winograd's, of the first layer, depthwise."""
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        case = conv(channels, channels, 3, size, goal=95, saves_memory=True)
        yield replace(case, name=f"{case.name} small weights")
    yield conv(256, 64, 1, 56, goal=95)
    yield conv(512, 2048, 1, 7, goal=95)
    yield conv(3, 64, 7, 224, stride=2, goal=95)
    yield conv(96, 0, 3, 112, stride=2, goal=64)  # it loads several times what it writes
    yield conv(144, 0, 3, 56, goal=95)
    yield conv(384, 0, 3, 14, goal=95)
    # More than 100% is possible: Winograd's algorithm needs fewer multiplications.
    goals = {(64, 56): 301, (128, 28): 328, (256, 14): 260, (512, 7): 149, (64, 256): 245,
             (128, 128): 280}  # fmt: skip
    for (channels, size), goal in goals.items():
        yield conv(channels, channels, 3, size, full=True, goal=goal)
    for channels, filters, size in ((64, 128, 56), (128, 256, 28), (256, 512, 14)):
        yield conv(channels, filters, 3, size, stride=2)
    for channels, filters, size in ((64, 256, 56), (256, 1024, 14), (1024, 256, 14)):
        yield conv(channels, filters, 1, size, full=True)
    yield from gradient_cases()


def gradient_cases() -> Iterator[Case]:
    """Gradients of convolutions, as training has them: channels first, nothing constant."""
    for batch, channels, filters, kernel, size in (
        (1, 256, 256, 3, 14), (8, 64, 64, 3, 32), (64, 6, 16, 5, 12),
    ):  # fmt: skip
        padding = kernel // 2
        image, weight = (batch, channels, size, size), (filters, channels, kernel, kernel)
        result = (batch, filters, size, size)
        flops, pads = 2 * prod(result) * prod(weight[1:]), (padding,) * 4
        name = f"{kernel}x{kernel} {channels}->{filters} @{size} N{batch}"
        yield Case(
            f"conv dgrad {name}",
            _normal(result, weight),
            lambda b, d, w, s=size, p=pads: b.conv_dgrad(d, w, padding=p, input_size=(s, s)),
            flops=flops,
            peer=Peer("conv_dgrad", {"size": (size, size), "padding": padding}),
        )
        yield Case(
            f"conv wgrad {name}",
            _normal(result, image),
            lambda b, d, x, k=kernel, p=pads: b.conv_wgrad(d, x, padding=p, kernel_size=(k, k)),
            flops=flops,
            peer=Peer("conv_wgrad", {"size": (kernel, kernel), "padding": padding}),
        )


def narrow_cases() -> Iterator[Case]:
    """Products of bfloat16 with sums in float32, as `--precision bf16` makes them."""
    for size in ((512, 512, 512), (128, 768, 768), (128, 3072, 768), (196, 256, 1024)):
        yield matmul(*size, dtype=BFLOAT16)
    yield matmul(128, 768, 768, packed=False, dtype=BFLOAT16)
    yield conv(64, 64, 3, 56, dtype=BFLOAT16)
    yield conv(256, 256, 3, 14, dtype=BFLOAT16)
    yield conv(256, 64, 1, 56, dtype=BFLOAT16)
    yield conv(512, 2048, 1, 7, dtype=BFLOAT16)


# ---- Bytes ------------------------------------------------------------------------------------

_WIDE = (128, 3072)


def _function(name: str, peer: Peer, body: Any, *operands: Operand, **options: Any) -> Case:
    return Case(f"{name} {[*operands[0].shape]}".replace(", ", ","), operands, body, peer=peer,
                **options)  # fmt: skip


def elementwise_cases() -> Iterator[Case]:
    """Arithmetic and functions of every element."""
    (x,) = _normal(_WIDE)
    some = replace(x, fill="positive")
    yield _function("add", Peer("call", {"of": "add"}), lambda b, x, y: b.add(x, y), x, x)
    yield _function(
        "add of a row", Peer("call", {"of": "add"}), lambda b, x, y: b.add(x, y), x,
        Operand(_WIDE[1:]),
    )  # fmt: skip
    yield _function("relu", Peer("call", {"of": "relu"}), lambda b, x: b.relu(x), x)
    for name in ("exp", "tanh", "sigmoid", "silu"):
        yield _function(name, Peer("call", {"of": name}), lambda b, x, n=name: getattr(b, n)(x), x,
                        peer_goal=1.4)  # fmt: skip
    for name, approximate in (("gelu", False), ("gelu tanh", True)):
        peer = Peer("call", {"of": "gelu", "approximate": "tanh" if approximate else "none"})
        yield _function(name, peer, lambda b, x, a=approximate: b.gelu(x, approximate=a), x,
                        peer_goal=1.4)  # fmt: skip
    for name, operand in (("log", some), ("sin", x), ("cos", x), ("tan", x), ("erf", x),
                          ("expm1", x), ("log1p", some)):  # fmt: skip
        yield _function(name, Peer("call", {"of": name}), lambda b, x, n=name: getattr(b, n)(x),
                        operand)  # fmt: skip
    yield _function("pow", Peer("call", {"of": "pow"}), lambda b, x, y: b.pow(x, y), some, x)


def row_cases() -> Iterator[Case]:
    """Softmax, layer norm and reductions."""
    for shape in ((12, 128, 128), (512, 1000)):
        axis = len(shape) - 1
        yield _function(
            "softmax", Peer("call", {"of": "softmax", "dim": -1}),
            lambda b, x, a=axis: b.softmax(x, axis=a), Operand(shape), peer_goal=1.4,
        )  # fmt: skip
    for shape in (_WIDE, (128, 384), (2048, 768)):
        case = _function("layer norm", Peer("layer_norm"),
                         lambda b, x, w, c: b.layer_norm(x, w, c), Operand(shape))  # fmt: skip
        yield replace(case, weights=_normal(shape[1:], shape[1:]), peer_goal=1.4)
    for shape, axes in ((_WIDE, (1,)), (_WIDE, (0,)), ((32, 64, 1024), (0, 2)), ((2048, 10), (1,))):
        for name, of in (("sum", "sum"), ("max", "amax")):
            yield _function(
                f"{name} over {[*axes]} of", Peer("call", {"of": of, "dim": axes}),
                lambda b, x, n=name, a=axes: getattr(b, f"reduce_{n}")(x, axes=a),
                Operand(shape),
            )  # fmt: skip


def pooling_cases() -> Iterator[Case]:
    """Pooling, channels last."""
    for kind, shape, kernel, stride, padding in (
        ("max", (1, 112, 112, 64), 3, 2, 1), ("max", (1, 56, 56, 64), 2, 2, 0),
        ("max", (8, 28, 28, 100), 3, 1, 1), ("avg", (1, 56, 56, 64), 2, 2, 0),
        ("avg", (1, 56, 56, 64), 3, 1, 1), ("avg", (1, 7, 7, 2048), 7, 1, 0),
    ):  # fmt: skip
        attrs: dict[str, Any] = {
            "kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 4,
            "channels_last": True,
        }  # fmt: skip
        if kind == "avg":
            attrs["count_include_pad"] = True
        given = {"kind": kind, "kernel": kernel, "stride": stride, "padding": padding}
        yield _function(
            f"{kind} pool {kernel}x{kernel} s{stride}", Peer("pool", given),
            lambda b, x, k=kind, a=attrs: getattr(b, f"{k}_pool")(x, **a), Operand(shape),
        )  # fmt: skip


def movement_cases() -> Iterator[Case]:
    """Ops that only move data."""
    for shape, perm in (
        ((1024, 1024), (1, 0)), ((500, 300), (1, 0)), ((8, 128, 12, 64), (0, 2, 1, 3)),
        ((8, 128, 12, 64), (0, 2, 3, 1)), ((8, 64, 32, 32), (0, 2, 3, 1)),
        ((1, 3, 224, 224), (0, 2, 3, 1)),
    ):  # fmt: skip
        yield _function(
            f"transpose {[*perm]} of", Peer("transpose", {"perm": perm}),
            lambda b, x, p=perm: b.transpose(x, perm=p), Operand(shape),
        )  # fmt: skip
    for shape, starts, stops, steps in (
        ((64, 128, 96), (0, 0, 32), (64, 128, 64), (1, 1, 1)),
        ((512, 1024), (0, 0), (512, 1024), (1, 2)),
    ):  # fmt: skip
        given = {"starts": starts, "stops": stops, "steps": steps}
        bounds = zip(starts, stops, strict=True)
        count = prod(stop - start for start, stop in bounds)  # every line, whatever the step
        yield _function("slice of", Peer("slice", given), lambda b, x, g=given: b.slice(x, **g),
                        Operand(shape), read=FLOAT32.itemsize * count)  # fmt: skip
    yield _function(
        "reverse", Peer("call", {"of": "flip", "dims": (1,)}),
        lambda b, x: b.reverse(x, axes=(1,)), Operand((512, 1024)),
    )  # fmt: skip
    for mode in ("constant", "reflect"):
        ends = (0, 0, 1, 1)
        yield _function(
            f"pad {mode}", Peer("pad", {"by": 1, "mode": mode}),
            lambda b, x, m=mode, e=ends: b.pad(x, low=e, high=e, mode=m),
            Operand((8, 64, 56, 56)),
        )  # fmt: skip
    for shape, count, axis in (((64, 128, 32), 3, 2), ((8, 64, 32, 32), 2, 1)):
        yield _function(
            f"concat {count} over {axis} of", Peer("concat", {"axis": axis}),
            lambda b, *xs, a=axis: b.concat(*xs, axis=a), *_normal(*[shape] * count),
        )  # fmt: skip
    for shape, axis, count in (((30000, 256), 0, 512), ((64, 1000), 1, 500)):
        indices = Operand((count,), INT32, "index", shape[axis])
        taken = count * shape[1] * FLOAT32.itemsize if axis == 0 else None
        yield _function(
            f"take {count} over {axis} of", Peer("take", {"axis": axis}),
            lambda b, x, i, a=axis: b.take(x, i, axis=a), Operand(shape), indices, read=taken,
        )  # fmt: skip
    indices = Operand((512, 256), INT32, "index", 1000)
    yield _function(
        "gather over 0 of", Peer("gather", {"axis": 0}), lambda b, x, i: b.gather(x, i, axis=0),
        Operand((1000, 256)), indices, read=2 * prod(indices.shape) * FLOAT32.itemsize,
    )  # fmt: skip


def all_cases() -> Iterator[Case]:
    """Every row."""
    yield from product_cases()
    yield from convolution_cases()
    yield from narrow_cases()
    yield from elementwise_cases()
    yield from row_cases()
    yield from pooling_cases()
    yield from movement_cases()
