"""Mutated models: the outcome is a graph or an `MgecError`, and nothing else.

Bytes are flipped, cut and repeated, and fields of the messages are changed. Seeds are fixed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.onnx_models import info, model_of, node_model

from mgec.errors import MgecError
from mgec.importers import from_onnx

NUMBERS = (0, -1, 1, 2, 3, 7, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63))
FLOATS = (0.0, -1.0, 1e38, float("nan"), float("inf"))


def f32(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def loop() -> Any:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["out"]), helper.make_node("Neg", ["v"], ["w"])],
        "body",
        [info("i", 7), info("go", 9), info("v", 1)],
        [helper.make_empty_tensor_value_info(n) for n in ("out", "w")],
    )
    node = helper.make_node("Loop", ["m", "go0", "v0"], ["y"], body=body)
    fixed = {"m": np.array(3), "go0": np.array(True)}
    return model_of([node], [info("v0", f32())], ["y"], fixed)


@cache
def models() -> list[bytes]:
    """Small models of many kinds of ops, attributes and constants."""
    i64 = [np.array(v) for v in ([0, -1], [1, 1], [2, 2], [1, 1])]
    made = [
        node_model("Conv", [f32(1, 2, 5, 5), f32(2, 2, 3, 3), f32(2)], {"pads": [1, 1, 1, 1]},
                   constant=[1, 2]),
        node_model("MaxPool", [f32(1, 2, 5, 5)], {"kernel_shape": [2, 2], "ceil_mode": 1}),
        node_model("ConvTranspose", [f32(1, 2, 3, 3), f32(2, 1, 3, 3)], {"strides": [2, 2]}),
        node_model("Slice", [f32(3, 4), *i64], constant=[1, 2, 3, 4]),
        node_model("Reshape", [f32(3, 4), i64[0]], constant=[1]),
        node_model("Pad", [f32(3, 4), np.array([1, 0, 0, 2])], {"mode": "wrap"}, constant=[1]),
        node_model("Resize", [f32(1, 1, 4, 4), None, np.array([1, 1, 2, 0.5], np.float32)],
                   {"mode": "cubic"}, constant=[2]),
        node_model("LSTM", [f32(3, 1, 2), f32(1, 8, 2), f32(1, 8, 2)], {"hidden_size": 2},
                   outputs=3, constant=[1, 2]),
        node_model("Einsum", [f32(2, 3), f32(3, 4)], {"equation": "ij,jk->ik"}),
        node_model("GatherND", [f32(3, 4), np.array([[0, 1]])], constant=[1]),
        node_model("ScatterElements", [f32(3, 4), np.array([[0, 1]]), f32(1, 2)],
                   {"reduction": "mul"}),
        node_model("ConstantOfShape", [np.array([2, 3])], constant=[0]),
        node_model("Range", [np.array(0), np.array(5), np.array(2)], constant=[0, 1, 2]),
        node_model("QuantizeLinear", [f32(3, 4), f32(1)], {}, constant=[1]),
        node_model("SoftmaxCrossEntropyLoss", [f32(2, 3), np.array([0, 1])]),
        node_model("Attention", [f32(1, 2, 3, 4)] * 3, {"softcap": 2.0}, opset=23),
        loop(),
    ]  # fmt: skip
    return [model.SerializeToString() for model in made]


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(out))
        match rng.randrange(4):
            case 0:
                out[at] = rng.randrange(256)
            case 1:
                out[at] ^= 1 << rng.randrange(8)
            case 2:
                del out[at : at + rng.choice((1, 4, 50))]
            case _:
                out[at:at] = out[at : at + rng.choice((1, 8, 64))]
        if not out:
            break
    return bytes(out)


def change_field(message: Any, rng: random.Random) -> None:
    """Changes one field somewhere below a message."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = rng.choice(fields)
    if hasattr(value, "append"):
        at = rng.randrange(len(value))
        action = rng.randrange(3)
        if action == 0:
            del value[at]
        elif action == 1:
            value.append(value[at])
        elif field.message_type is not None:
            change_field(value[at], rng)
        else:
            value[at] = other(value[at], rng)
    elif field.message_type is not None:
        change_field(value, rng)
    else:
        setattr(message, field.name, other(value, rng))


def other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool | int):
        return rng.choice((*NUMBERS, *range(1, 25)))
    if isinstance(value, float):
        return rng.choice(FLOATS)
    return rng.choice(("", "x0", "y0", "Loop")) if isinstance(value, str) else b"zz"


def change_message(data: bytes, rng: random.Random) -> bytes:
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        try:
            change_field(model.graph if rng.random() < 0.9 else model, rng)
        except (ValueError, TypeError):  # a value that the field does not take
            continue
    return model.SerializeToString()


@pytest.mark.parametrize("change", [change_bytes, change_message])
@pytest.mark.parametrize("block", range(5))
def test_mutated_models(change: Callable[[bytes, random.Random], bytes], block: int) -> None:
    refused = 0
    for seed in range(20 * block, 20 * block + 20):
        rng = random.Random(seed)
        data = change(rng.choice(models()), rng)
        try:
            from_onnx(data)
        except MgecError as error:
            refused += bool(str(error))
    assert refused > 0  # the mutations matter


@pytest.mark.slow
@pytest.mark.parametrize("change", [change_bytes, change_message])
def test_many_mutated_models(change: Callable[[bytes, random.Random], bytes]) -> None:
    for seed in range(1000, 6000):
        rng = random.Random(seed)
        data = change(rng.choice(models()), rng)
        with contextlib.suppress(MgecError):
            from_onnx(data)
