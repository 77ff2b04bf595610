"""If, Loop and Scan: decided or unrolled during the import.

The graph has no branches. An `If` whose condition is computed runs both branches and selects;
a loop needs a number of iterations that is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mgec.dialects.mge.spec import BOOL
from mgec.errors import ModelError
from mgec.importers.onnx_node import NeedsValue, Node, Unsupported, cut, onnx_op
from mgec.importers.onnx_value import Sequence_, Value

_DAMAGED = "the file may be damaged: export it again"
_MOST_ITERATIONS = 100_000


@onnx_op("If")
def if_(b: Any, node: Node) -> list[Any]:
    """One branch if the condition is known, else both."""
    condition = node.x(0)
    node.ignore("then_branch", "else_branch")
    if condition.array is not None:
        chosen = "then_branch" if condition.array.reshape(-1)[0] else "else_branch"
        return node.graph.subgraph(node.attr(chosen), [])
    then = node.graph.subgraph(node.attr("then_branch"), [])
    other = node.graph.subgraph(node.attr("else_branch"), [])
    return [_selected(b, condition, x, y) for x, y in zip(then, other, strict=True)]


def _selected(b: Any, condition: Value, x: Any, y: Any) -> Value:
    alike = isinstance(x, Value) and isinstance(y, Value) and x.spec == y.spec
    if not alike:
        raise NeedsValue(0, "the condition (the branches give different shapes)")
    return b.select(b.reshape(condition, ()), x, y)


@onnx_op("Loop")
def loop(b: Any, node: Node) -> list[Any]:
    """Unrolled, as long as the condition is known to hold."""
    body = node.attr("body")
    most = int(node.known(0, "the trip count").reshape(-1)[0]) if node.has_input(0) else None
    going = True
    if node.has_input(1):
        going = bool(node.known(1, "the condition").reshape(-1)[0])
    carried: list[Any] = list(node.inputs[2:])
    collected: list[list[Value]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
    count = 0
    while going and (most is None or count < most):
        if count >= _MOST_ITERATIONS:
            raise Unsupported(f"a loop of more than {_MOST_ITERATIONS} iterations")
        step = Value(np.array(count, np.int64))
        results = node.graph.subgraph(body, [step, Value(np.array(True)), *carried])
        condition = results[0]
        if not isinstance(condition, Value) or condition.array is None:
            raise Unsupported("a loop whose condition is computed by the graph")
        going = bool(condition.array.reshape(-1)[0])
        carried = list(results[1 : 1 + len(carried)])
        for part, value in zip(collected, results[1 + len(carried) :], strict=True):
            part.append(value)
        count += 1
    if count == 0 and collected:
        raise Unsupported("a loop of no iterations, with outputs of each iteration")
    return [*carried, *(_stacked(b, part, 0) for part in collected)]


def _stacked(b: Any, values: list[Value], axis: int) -> Value:
    """Values of equal shape along a new axis."""
    parts: list[Value] = []
    for value in values:
        if not isinstance(value, Value):
            raise Unsupported("sequences that a loop collects")
        shape = (*value.shape[:axis], 1, *value.shape[axis:])
        parts.append(b.reshape(value, shape))
    return parts[0] if len(parts) == 1 else b.concat(*parts, axis=axis)


@onnx_op("Scan", since=9)
def scan(b: Any, node: Node) -> list[Any]:
    """Unrolled over the axis of the scanned inputs."""
    body, count = node.attr("body"), node.int("num_scan_inputs")
    states: list[Any] = list(node.inputs[: len(node.inputs) - count])
    scanned = [node.x(len(states) + i) for i in range(count)]
    outputs = len(body.output) - len(states)
    axes = node.ints("scan_input_axes") or (0,) * count
    backward = node.ints("scan_input_directions") or (0,) * count
    out_axes = node.ints("scan_output_axes") or (0,) * outputs
    out_backward = node.ints("scan_output_directions") or (0,) * outputs
    lengths_fit = len(axes) == len(backward) == count and outputs >= 0
    if not lengths_fit or len(out_axes) != outputs or len(out_backward) != outputs or not count:
        raise ModelError("the attributes of Scan do not fit its inputs and outputs", fix=_DAMAGED)
    axes = [node.normal_axis(a, x.rank) for a, x in zip(axes, scanned, strict=True)]
    steps = {x.shape[axis] for x, axis in zip(scanned, axes, strict=True)}
    if len(steps) != 1:
        raise ModelError(f"the scanned axes have sizes {sorted(steps)}", fix=_DAMAGED)
    (total,) = steps
    if total == 0 or total > _MOST_ITERATIONS:
        raise Unsupported(f"a scan of {total} steps")
    collected: list[list[Value]] = [[] for _ in range(outputs)]
    for step in range(total):
        elements: list[Value] = []
        for x, axis, reverse in zip(scanned, axes, backward, strict=True):
            place = total - 1 - step if reverse else step
            part = cut(b, x, axis, place, place + 1)
            elements.append(b.reshape(part, (*x.shape[:axis], *x.shape[axis + 1 :])))
        results = node.graph.subgraph(body, [*states, *elements])
        states = list(results[: len(states)])
        for part, value in zip(collected, results[len(states) :], strict=True):
            part.append(value)
    made: list[Value] = []
    for part, axis, reverse in zip(collected, out_axes, out_backward, strict=True):
        ordered = part[::-1] if reverse else part
        made.append(_stacked(b, ordered, node.normal_axis(axis, part[0].rank + 1)))
    return [*states, *made]


@onnx_op("OptionalHasElement")
def optional_has_element(b: Any, node: Node) -> Value:
    """Whether there is a value, which the file decides."""
    return Value(np.array(node.has_input(0), BOOL))


@onnx_op("OptionalGetElement")
def optional_get_element(b: Any, node: Node) -> Value | Sequence_ | None:
    """The value of an optional, which is a plain tensor or sequence here."""
    return node.inputs[0]
