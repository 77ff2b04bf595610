"""RNN, GRU and LSTM, unrolled over the sequence.

The products with the inputs do not depend on the state, so that all steps share one matrix
product; a step is left with the product with the state and the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgec.dialects.mge.spec import INT64
from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, Unsupported, cut, moved, onnx_op
from mgec.importers.onnx_ops.activation import clipped_line
from mgec.importers.onnx_value import Value

_DAMAGED = "the file may be damaged: export it again"
Function = Callable[[Any, Value], Value]

_NUM_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
# Activation -> defaults of alpha and beta; None where it has none.
_PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "relu": (None, None),
    "scaledtanh": (1.0, 1.0),
    "sigmoid": (None, None),
    "softplus": (None, None),
    "softsign": (None, None),
    "tanh": (None, None),
    "thresholdedrelu": (1.0, None),
}


def _function(name: str, alpha: float, beta: float) -> Function:
    """An activation function by its lower-case name."""

    def apply(b: Any, x: Value) -> Value:
        def number(value: float) -> Value:
            return b.scalar(value, x)

        match name:
            case "affine":
                return b.add(b.mul(x, number(alpha)), number(beta))
            case "elu":
                return b.elu(x, alpha=alpha)
            case "hardsigmoid":
                return clipped_line(b, x, alpha, beta)
            case "leakyrelu":
                return b.leaky_relu(x, negative_slope=alpha)
            case "scaledtanh":
                return b.mul(b.tanh(b.mul(x, number(beta))), number(alpha))
            case "softsign":
                return b.div(x, b.add(b.abs(x), number(1)))
            case "thresholdedrelu":
                return b.select(b.greater_equal(x, number(alpha)), x, number(0))
            case _:
                return getattr(b, name)(x)

    return apply


def _functions(node: Node, directions: int) -> list[list[Function]]:
    """The activation functions of each direction, with a clip before them."""
    # The schema's own default names both directions' functions, and only for RNN.
    given = node.attr("activations") if node.has("activations") else None
    names = [str(name).lower() for name in given or []]
    default = _DEFAULTS[node.op]
    names = names or [name.lower() for name in default] * directions
    if len(names) != len(default) * directions or any(name not in _PARAMETERS for name in names):
        raise Unsupported(f"activations {names}")
    alphas: Iterator[float] = iter(node.attr("activation_alpha") or [])
    betas: Iterator[float] = iter(node.attr("activation_beta") or [])
    clip = node.attr("clip")
    if clip is not None and node.op == "LSTM":
        # The specification clips the input of every activation, implementations not the last's.
        raise Unsupported("an LSTM with a clip")
    found: list[Function] = []
    for name in names:
        alpha, beta = _PARAMETERS[name]
        if alpha is not None:
            alpha = next(alphas, alpha)
        if beta is not None:
            beta = next(betas, beta)
        found.append(_clipped(_function(name, alpha or 0.0, beta or 0.0), clip))
    count = len(default)
    return [found[i * count : (i + 1) * count] for i in range(directions)]


def _clipped(function: Function, clip: float | None) -> Function:
    if clip is None:
        return function

    def apply(b: Any, x: Value) -> Value:
        return function(b, b.maximum(b.minimum(x, b.scalar(clip, x)), b.scalar(-clip, x)))

    return apply


@dataclass
class _Cell:
    """One direction: its weights and how a step goes."""

    node: Node
    b: Any
    functions: list[Function]
    hidden: int
    state_weight: Value  # [gates * hidden, hidden]
    state_bias: Value | None  # [gates * hidden]
    peephole: Value | None  # [3 * hidden]

    def gate(self, x: Value, i: int) -> Value:
        """Gate i of [N, gates * hidden] or [gates * hidden]."""
        return cut(self.b, x, x.rank - 1, i * self.hidden, (i + 1) * self.hidden)

    def project(self, h: Value, first: int = 0, last: int | None = None) -> Value:
        """The state's product with the rows of some gates, and their bias."""
        stop = (self.state_weight.shape[0] // self.hidden) if last is None else last
        low, high = first * self.hidden, stop * self.hidden
        out = self.b.matmul(h, cut(self.b, self.state_weight, 0, low, high), transpose_rhs=True)
        if self.state_bias is None:
            return out
        return self.b.add(out, cut(self.b, self.state_bias, 0, low, high))

    def step(self, x: Value, h: Value, c: Value | None) -> tuple[Value, Value | None]:
        """The state after an element whose products with the weights are x."""
        b, f = self.b, self.functions
        if self.node.op == "RNN":
            return f[0](b, b.add(x, self.project(h))), None
        if self.node.op == "GRU":
            return self._gru(x, h), None
        assert c is not None
        return self._lstm(x, h, c)

    def _gru(self, x: Value, h: Value) -> Value:
        b, (f, g) = self.b, self.functions
        gates = self.project(h, 0, 2)
        update = f(b, b.add(self.gate(x, 0), self.gate(gates, 0)))
        reset = f(b, b.add(self.gate(x, 1), self.gate(gates, 1)))
        if self.node.flag("linear_before_reset"):
            inner = b.mul(reset, self.project(h, 2, 3))
        else:
            inner = self.project(b.mul(reset, h), 2, 3)
        new = g(b, b.add(self.gate(x, 2), inner))
        return b.add(b.mul(b.sub(b.scalar(1, update), update), new), b.mul(update, h))

    def _lstm(self, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
        b, (f, g, last) = self.b, self.functions
        gates = b.add(x, self.project(h))

        def gate(i: int, cell: Value, place: int) -> Value:
            value = self.gate(gates, i)
            if self.peephole is not None:
                value = b.add(value, b.mul(cell, self.gate(self.peephole, place)))
            return f(b, value)

        enter = gate(0, c, 0)
        if self.node.flag("input_forget"):
            forget = b.sub(b.scalar(1, enter), enter)
        else:
            forget = gate(2, c, 2)
        cell = b.add(b.mul(forget, c), b.mul(enter, g(b, self.gate(gates, 3))))
        leave = gate(1, cell, 1)
        return b.mul(leave, last(b, cell)), cell


@onnx_op("RNN", "GRU", "LSTM")
def recurrent(b: Any, node: Node) -> tuple[Value, ...]:
    """One or two directions over a sequence of known length."""
    x, weight, recurrence = node.x(0), node.x(1), node.x(2)
    direction = node.attr("direction")
    node.ignore("hidden_size", "output_sequence", "activation_alpha", "activation_beta")
    count = 2 if direction == "bidirectional" else 1
    if direction not in ("forward", "reverse", "bidirectional"):
        raise Unsupported(f"direction {direction!r}")
    batch_first = node.flag("layout")
    if x.rank != 3:
        raise ModelError(f"a sequence {x.spec}, but rank 3 is needed", fix=_DAMAGED)
    if batch_first:
        x = moved(b, x, (1, 0, 2))
    gates = _NUM_GATES[node.op]
    hidden = recurrence.shape[-1] if recurrence.rank == 3 else 0
    steps, batch, features = x.shape
    fits = weight.shape == (count, gates * hidden, features)
    if not fits or recurrence.shape != (count, gates * hidden, hidden):
        raise ModelError(f"weights {weight.spec} and {recurrence.spec}", fix=_DAMAGED)
    lengths = _lengths(b, node, steps, batch)
    functions = _functions(node, count)
    ends: list[list[Value]] = [[], []]
    sequences: list[Value] = []
    for d in range(count):
        backward = direction == "reverse" or d == 1
        states = [_initial(b, node, 5 + i, d, x, batch, hidden, batch_first) for i in range(2)]
        cell = _cell(b, node, d, functions[d], hidden)
        inputs = _reversed(b, x, lengths) if backward else x
        products = _products(b, node, inputs, d, gates * hidden)
        outputs, h, c = _run(b, cell, products, states, lengths)
        sequences.append(_reversed(b, outputs, lengths) if backward else outputs)
        ends[0].append(h)
        if c is not None:
            ends[1].append(c)
    stacked = [_stack(b, values, batch_first) for values in ends if values]
    shape = (steps, 1, batch, hidden)
    parts = [b.reshape(s, shape) for s in sequences]
    y = parts[0] if count == 1 else b.concat(*parts, axis=1)
    return (moved(b, y, (2, 0, 1, 3)) if batch_first else y, *stacked)


def _stack(b: Any, values: list[Value], batch_first: bool) -> Value:
    """Final states [N, H] as [D, N, H], or [N, D, H]."""
    parts = [b.reshape(v, (1, *v.shape)) for v in values]
    out = parts[0] if len(parts) == 1 else b.concat(*parts, axis=0)
    return moved(b, out, (1, 0, 2)) if batch_first else out


def _lengths(b: Any, node: Node, steps: int, batch: int) -> Value | None:
    """How many elements of each example count; None if all do."""
    value = node.optional(4)
    if value is None or (value.array is not None and (value.array == steps).all()):
        return None
    if value.shape != (batch,):
        raise ModelError(f"sequence_lens {value.spec} for a batch of {batch}", fix=_DAMAGED)
    return b.cast(value, INT64)


def _initial(
    b: Any, node: Node, index: int, d: int, x: Value, batch: int, hidden: int, batch_first: bool
) -> Value:
    """The state before the first element; zeros if it is not given."""
    given = node.optional(index) if node.op == "LSTM" or index == 5 else None
    if given is None:
        return b.full((batch, hidden), 0, x.dtype)
    if batch_first:
        given = moved(b, given, (1, 0, 2))
    return b.reshape(cut(b, given, 0, d, d + 1), (batch, hidden))


def _row(b: Any, value: Value, d: int) -> Value:
    """What belongs to one direction."""
    return b.reshape(cut(b, value, 0, d, d + 1), value.shape[1:])


def _cell(b: Any, node: Node, d: int, functions: list[Function], hidden: int) -> _Cell:
    bias, peephole = node.optional(3), node.optional(7) if node.op == "LSTM" else None
    state_bias = None
    if bias is not None:
        both = _row(b, bias, d)
        state_bias = cut(b, both, 0, both.shape[0] // 2, both.shape[0])
    return _Cell(
        node=node,
        b=b,
        functions=functions,
        hidden=hidden,
        state_weight=_row(b, node.x(2), d),
        state_bias=state_bias,
        peephole=None if peephole is None else _row(b, peephole, d),
    )


def _products(b: Any, node: Node, x: Value, d: int, rows: int) -> Value:
    """The inputs' products with the weights of all steps, and the bias: [T, N, gates * H]."""
    steps, batch, features = x.shape
    matrix = b.reshape(x, (steps * batch, features))
    out = b.matmul(matrix, _row(b, node.x(1), d), transpose_rhs=True)
    bias = node.optional(3)
    if bias is not None:
        out = b.add(out, cut(b, _row(b, bias, d), 0, 0, rows))
    return b.reshape(out, (steps, batch, rows))


def _run(
    b: Any, cell: _Cell, products: Value, states: list[Value], lengths: Value | None
) -> tuple[Value, Value, Value | None]:
    """All steps: the outputs [T, N, H] and the final states."""
    steps, batch, _ = products.shape
    h, c = states[0], states[1] if cell.node.op == "LSTM" else None
    outputs: list[Value] = []
    for t in range(steps):
        x = b.reshape(cut(b, products, 0, t, t + 1), products.shape[1:])
        new_h, new_c = cell.step(x, h, c)
        out = new_h
        if lengths is not None:
            alive = b.reshape(b.greater(lengths, b.constant(np.array(t, np.int64))), (batch, 1))
            out = b.select(alive, new_h, b.scalar(0, new_h))
            new_h = b.select(alive, new_h, h)
            new_c = None if new_c is None or c is None else b.select(alive, new_c, c)
        h, c = new_h, new_c
        outputs.append(b.reshape(out, (1, *out.shape)))
    if not outputs:
        return b.full((0, batch, cell.hidden), 0, products.dtype), h, c
    return (outputs[0] if steps == 1 else b.concat(*outputs, axis=0)), h, c


def _reversed(b: Any, x: Value, lengths: Value | None) -> Value:
    """[T, N, ...] with the elements that count in reverse order."""
    if lengths is None:
        return b.reverse(x, axes=(0,))
    steps, batch = x.shape[:2]
    along = b.iota(shape=(steps, batch), axis=0, dtype=INT64)
    mirrored = b.sub(b.sub(lengths, b.scalar(1, lengths)), along)
    index = b.select(b.less(along, lengths), mirrored, along)
    index = b.reshape(index, (steps, batch, *(1,) * (x.rank - 2)))
    return b.gather(x, b.broadcast(index, x.shape), axis=0)
