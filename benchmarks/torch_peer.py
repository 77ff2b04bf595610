"""Times single ops in PyTorch, whose Python runs this; kernels.py asks it row by row.

    venv-torch/bin/python benchmarks/torch_peer.py < requests

It needs torch and NumPy only. A request is a line of JSON: `function` (a name of `FUNCTIONS`),
`attrs` for it, `operands` (each a shape, dtype, fill, and below: see `values`), `weights` (how
many of them, at the end, are weights), `copies` of the weights to use in turn, `threads` and
`seconds`. The answer is a line with `seconds` of one call, or with `error`. The time of a call
holds what a user of torch cannot avoid: its dispatcher, and memory for the result.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

CHUNK_SECONDS = 0.002
"""Shortest time measured by the thread's clock, which jumps by microseconds."""

Prepared = Callable[[], Any]
"""What makes one call, on tensors that were laid out for it."""


def values(
    shape: Sequence[int], fill: str, below: int, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Random numbers for an operand, float32 or int32.

    Args:
        shape: of the array.
        fill: "normal", "positive" (their magnitudes), or "index" (integers).
        below: the end of the integers.
        rng: where they come from.
    """
    if fill == "index":
        return rng.integers(0, below, shape, np.int32)
    normal = rng.standard_normal(tuple(shape), np.float32)
    return np.abs(normal) if fill == "positive" else normal


def least_seconds(
    run: Callable[[float], Sequence[float]], seconds: float, threads: int, parts: int = 1
) -> float:
    """The least time of a run.

    It is that of the quickest single run by the wall clock; on one thread also that of the
    quickest chunk of runs by the clock of the thread, which other processes do not disturb.

    Args:
        run: repeats for the given seconds, at least once; returns how long each run took.
        seconds: how long to go on.
        threads: how many share the work.
        parts: how many runs are timed as one sample, whose time `run` has divided by them.
    """
    best = math.inf
    end = time.perf_counter() + seconds
    while True:
        start = time.thread_time_ns()
        samples = run(CHUNK_SECONDS)
        busy = (time.thread_time_ns() - start) * 1e-9
        best = min(best, *samples)
        if threads == 1 and busy >= CHUNK_SECONDS:
            best = min(best, busy / len(samples) / parts)
        if time.perf_counter() > end:
            return best


def _repeat(calls: Sequence[Prepared]) -> Callable[[float], list[float]]:
    turns = itertools.cycle(calls)

    def run(seconds: float) -> list[float]:
        samples: list[float] = []
        begin = before = time.perf_counter()
        while before - begin < seconds or not samples:
            next(turns)()
            now = time.perf_counter()
            samples.append(now - before)
            before = now
        return samples

    return run


# ---- The functions ----------------------------------------------------------------------------


def _torch() -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    return torch


def matmul(lhs: Any, rhs: Any, *, transposed: Sequence[bool]) -> Prepared:
    torch = _torch()
    lhs, rhs = (t.mT if flag else t for t, flag in zip((lhs, rhs), transposed, strict=True))
    return lambda: torch.matmul(lhs, rhs)


def linear_gelu(inp: Any, weight: Any, bias: Any) -> Prepared:
    torch = _torch()
    return lambda: torch.nn.functional.gelu(torch.addmm(bias, inp, weight))


def linear_residual(inp: Any, residual: Any, weight: Any, bias: Any) -> Prepared:
    torch = _torch()
    return lambda: torch.addmm(bias, inp, weight).add_(residual)


def conv2d(
    inp: Any, *rest: Any, stride: int = 1, padding: int = 0, groups: int = 1, full: bool = False
) -> Prepared:
    """Channels last; `full` is with a residual (the second operand), a bias, and relu."""
    torch = _torch()
    residual, weight, bias = rest if full else (None, rest[0], None)
    inp = inp.permute(0, 3, 1, 2)
    weight = weight.contiguous(memory_format=torch.channels_last)
    if residual is None:
        return lambda: torch.conv2d(inp, weight, bias, stride, padding, 1, groups)
    residual = residual.permute(0, 3, 1, 2)
    return lambda: torch.conv2d(inp, weight, bias, stride, padding).add_(residual).relu_()


def conv_dgrad(d_out: Any, weight: Any, *, size: Sequence[int], **attrs: Any) -> Prepared:
    torch = _torch()
    size = (d_out.shape[0], weight.shape[1], *size)
    return lambda: torch.nn.grad.conv2d_input(size, weight, d_out, **attrs)


def conv_wgrad(d_out: Any, inp: Any, *, size: Sequence[int], **attrs: Any) -> Prepared:
    torch = _torch()
    size = (d_out.shape[1], inp.shape[1], *size)
    return lambda: torch.nn.grad.conv2d_weight(inp, size, d_out, **attrs)


def attention(query: Any, key: Any, value: Any, *, causal: bool = False) -> Prepared:
    function = _torch().nn.functional.scaled_dot_product_attention
    query, key, value = (t.transpose(1, 2) for t in (query, key, value))
    return lambda: function(query, key, value, is_causal=causal)


def pool(inp: Any, *, kind: str, kernel: int, stride: int, padding: int) -> Prepared:
    function = getattr(_torch().nn.functional, f"{kind}_pool2d")
    inp = inp.permute(0, 3, 1, 2)
    return lambda: function(inp, kernel, stride, padding)


def layer_norm(inp: Any, weight: Any, bias: Any) -> Prepared:
    function = _torch().nn.functional.layer_norm
    return lambda: function(inp, weight.shape, weight, bias)


def transpose(inp: Any, *, perm: Sequence[int]) -> Prepared:
    return lambda: inp.permute(*perm).contiguous()


def slice_(inp: Any, *, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> Any:
    where = tuple(map(slice, starts, stops, steps))
    return lambda: inp[where].contiguous()


def pad(inp: Any, *, by: int, mode: str) -> Prepared:
    function = _torch().nn.functional.pad
    return lambda: function(inp, (by, by, by, by), mode=mode)


def concat(*inps: Any, axis: int) -> Prepared:
    torch = _torch()
    return lambda: torch.cat(inps, axis)


def take(inp: Any, indices: Any, *, axis: int) -> Prepared:
    torch = _torch()
    return lambda: torch.index_select(inp, axis, indices)


def gather(inp: Any, indices: Any, *, axis: int) -> Prepared:
    torch = _torch()
    return lambda: torch.gather(inp, axis, indices)


def call(*tensors: Any, of: str, **attrs: Any) -> Prepared:
    """Any function of torch or torch.nn.functional, by its name."""
    torch = _torch()
    function = getattr(torch, of, None) or getattr(torch.nn.functional, of)
    return lambda: function(*tensors, **attrs)


FUNCTIONS: dict[str, Callable[..., Prepared]] = {
    "matmul": matmul, "linear_gelu": linear_gelu, "linear_residual": linear_residual,
    "conv2d": conv2d, "conv_dgrad": conv_dgrad, "conv_wgrad": conv_wgrad,
    "attention": attention, "pool": pool, "layer_norm": layer_norm, "transpose": transpose,
    "slice": slice_, "pad": pad, "concat": concat, "take": take, "gather": gather, "call": call,
}  # fmt: skip


# ---- Answering --------------------------------------------------------------------------------


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Times what a request asks for."""
    torch = _torch()
    torch.set_num_threads(request["threads"])
    rng = np.random.default_rng(0)
    operands: list[Any] = []
    for shape, dtype, fill, below in request["operands"]:
        tensor = torch.from_numpy(values(shape, fill, below, rng))
        # Its gather takes no other integers.
        operands.append(tensor.to(torch.int64 if fill == "index" else getattr(torch, dtype)))
    first_weight = len(operands) - request["weights"]
    function, attrs = FUNCTIONS[request["function"]], request["attrs"]
    calls: list[Prepared] = []
    with torch.inference_mode():
        for _ in range(request["copies"]):
            weights = [w.clone() for w in operands[first_weight:]]
            calls.append(function(*operands[:first_weight], *weights, **attrs))
        for each in calls:
            each()
        best = least_seconds(_repeat(calls), request["seconds"], request["threads"])
    return {"seconds": best}


def main() -> None:
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
