"""Bad input through every door: each is an `MgecError` that says what, where and how to fix it.

Headlines are pinned to the letter. Where a row of a table ends in names, the error lists the
values of these names; the headlines of the others hold the value that is wrong. The location of
every error is the line of this file that made the call.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
import mgec.module as M
from mgec import config
from mgec.autodiff import GradManager
from mgec.compiler.loading import load_graph
from mgec.errors import (
    ArgumentError,
    ArtifactError,
    AxisError,
    DeviceError,
    DTypeError,
    FileError,
    FileMissingError,
    GradientError,
    IRError,
    MgecError,
    OptionError,
    RuntimeFailure,
    SerializationError,
    ShapeError,
    TraceError,
)
from mgec.jit import trace
from mgec.tools.main import main

Table = list[tuple[Callable[[], Any], type[MgecError], str, tuple[str, ...]]]
T = mge.tensor
LAYER = M.Linear(3, 2)


def X() -> mge.Tensor:
    return F.ones((2, 3))


def I() -> mge.Tensor:  # noqa: E743
    return T([[0, 1, 2], [1, 1, 1]])


def B() -> mge.Tensor:
    return T([[True, False, True], [True, True, False]])


def IMAGE() -> mge.Tensor:
    return F.ones((1, 3, 8, 8))


def gradient(body: Callable[[GradManager, mge.Tensor], Any]) -> None:
    x = X()
    with GradManager().attach(x) as gm:
        body(gm, x)


def traced(function: Callable[..., Any]) -> Any:
    return trace(function, symbolic=True)(X())


def a_trace() -> Any:
    function = trace(lambda x: F.relu(x) + 1, symbolic=True)
    function(X())
    return function


def leaked() -> mge.Tensor:
    """A tensor that stands for a value of a trace which has ended."""
    kept: list[mge.Tensor] = []
    trace(lambda x: kept.append(x + 1) or x, symbolic=True).trace(X())
    return kept[0]


TENSORS: Table = [
    (lambda: T("abc"), ArgumentError, "tensor: str holds <U3 elements, not numbers", ()),
    (lambda: T(None), ArgumentError, "tensor: NoneType holds object elements, not numbers", ()),
    (lambda: T([[1, 2], [3]]), ShapeError, "tensor: the nested sequence is ragged", ("data",)),
    (lambda: T([1, "a"]), ArgumentError, "tensor: list holds <U21 elements, not numbers", ()),
    (lambda: T(1 + 2j), DTypeError, "tensor: dtype complex128 is not supported", ()),
    (lambda: T([1.0], dtype="nonsense"), DTypeError, "'nonsense' is not a dtype", ()),
    (lambda: T([1.0], device="nowhere"), DeviceError, "invalid device name 'nowhere'", ()),
    (
        lambda: T([1.0], device="gpu0"),
        DeviceError,
        "device gpu0:0 is not available: mgec found no gpu it can run on",
        (),
    ),
    (lambda: T([2**70]), ArgumentError, "tensor: list holds object elements, not numbers", ()),
    (lambda: X().astype("float64"), DTypeError, "tensor: dtype float64 is not supported", ()),
    (lambda: X().astype("foo"), DTypeError, "'foo' is not a dtype", ()),
    (lambda: X().to(5), DeviceError, "5 is not a device", ()),
    (lambda: X().item(), ShapeError, "item: the tensor has 6 elements, not one", ("tensor",)),
    (lambda: len(T(1.0)), ShapeError, "len: the tensor has no dimensions", ()),
    (lambda: [1, 2][X()], DTypeError, "a float32 tensor cannot be an index", ()),
    (lambda: mge.set_default_device("foo"), DeviceError, "invalid device name 'foo'", ()),
    (lambda: mge.set_default_device(None), DeviceError, "invalid device name None", ()),
    (lambda: X()[5], AxisError, "getitem: index 5 is out of range for axis 0 of size 2", ()),
    (lambda: X()[0, 0, 0], AxisError, "getitem: 3 indices for a tensor of rank 2", ("tensor",)),
    (lambda: X()[1.5], ArgumentError, "getitem: 1.5 of type float cannot be an index", ()),
    (lambda: X()["a"], ArgumentError, "getitem: 'a' of type str cannot be an index", ()),
    (lambda: X()[..., ...], ArgumentError, "getitem: the index has two ellipses (...)", ()),
    (
        lambda: X()[::0],
        ArgumentError,
        "getitem: slice(None, None, 0) is not a slice of integers with a step other than 0",
        (),
    ),
    (lambda: X()[[0, 5]], AxisError, "getitem: index 5 is out of range for axis 0 of size 2", ()),
    (lambda: X()[[0.5]], DTypeError, "getitem: a float64 array cannot be an index", ("index",)),
    (
        lambda: X()[T([True])],
        ShapeError,
        "getitem: a mask of shape (1,) does not fit axes of sizes (2,)",
        ("tensor", "mask"),
    ),
    (
        lambda: X().__setitem__(0, F.ones(5)),
        ShapeError,
        "setitem: value of shape (5,) does not broadcast to the part's (3,)",
        ("value",),
    ),
    (
        lambda: X().__setitem__(0, "a"),
        ArgumentError,
        "setitem: a str is not a tensor or a number",
        ("value",),
    ),
]

ELEMENTWISE: Table = [
    (
        lambda: X() + F.ones(4),
        ShapeError,
        "add: shapes (2, 3) and (4,) do not broadcast: sizes 3 and 4 differ on axis -1",
        ("lhs", "rhs"),
    ),
    (lambda: X() + "a", ArgumentError, "add: a str is not a tensor or a number", ("value",)),
    (lambda: X() + None, ArgumentError, "add: a NoneType is not a tensor or a number", ("value",)),
    (lambda: I() + 2**70, ArgumentError, "add: a number of 71 bits does not fit int32", ()),
    (lambda: I() + 1j, ArgumentError, "add: a complex is not a tensor or a number", ("value",)),
    (lambda: X() & X(), DTypeError, "and: operands must be bool, but one is float32", ()),
    (lambda: ~X(), DTypeError, "~: the operand must be bool, but is float32", ("x",)),
    (lambda: -B(), DTypeError, "neg: inp has dtype bool, which is not supported", ("inp",)),
    (
        lambda: B() + B(),
        DTypeError,
        "add: lhs has dtype bool, which is not supported",
        ("lhs", "rhs"),
    ),
    (lambda: F.exp("a"), ArgumentError, "exp: a str is not a tensor or a number", ("value",)),
    (
        lambda: F.left_shift(X(), 1),
        DTypeError,
        "shift_left: lhs has dtype float32, which is not supported",
        ("lhs", "rhs"),
    ),
    (lambda: F.clip(X()), ArgumentError, "clip: both bounds are None", ()),
    (lambda: F.clip(X(), 2, 1), ArgumentError, "clip: lower is 2.0 but upper is 1.0", ("inp",)),
    (
        lambda: F.where(X(), X(), X()),
        DTypeError,
        "where: mask must be bool, but is float32",
        ("mask",),
    ),
    (
        lambda: F.where(B(), X(), F.ones(4)),
        ShapeError,
        "where: the shapes of mask (2, 3), x (2, 3), y (4,) do not broadcast",
        ("mask", "x", "y"),
    ),
    (
        lambda: F.full((2,), float("nan"), dtype="int32"),
        ArgumentError,
        "full: the number nan does not fit int32",
        (),
    ),
    (
        lambda: X().to("cpu0") + X().to("cpu1"),
        DeviceError,
        "add: ambiguous device: operands are on cpu0:0 and cpu1:0",
        (),
    ),
]

REDUCTIONS: Table = [
    (lambda: F.sum(X(), axis=2), AxisError, "sum: axis 2 is out of range for rank 2", ()),
    (
        lambda: F.sum(X(), axis=(0, 0)),
        AxisError,
        "sum: axis (0, 0) names an axis of rank 2 twice",
        (),
    ),
    (
        lambda: F.sum(X(), axis=10**30),
        AxisError,
        "sum: axis 1000000000000000000000000000000 is out of range for rank 2",
        (),
    ),
    (lambda: F.sum(X(), axis="a"), ArgumentError, "sum: axis is 'a', not an integer", ()),
    (
        lambda: F.max(F.zeros((0, 3)), axis=0),
        ShapeError,
        "max: there is no element along axis (0,), but the result needs one",
        ("inp",),
    ),
    (
        lambda: F.argmax(F.zeros((3, 0)), axis=1),
        ShapeError,
        "argmax: axis 1 has size 0 but the result needs at least one element",
        ("inp",),
    ),
    (
        lambda: F.argmax(X(), axis=(0, 1)),
        ArgumentError,
        "argmax: axis is (0, 1), not one axis",
        ("inp",),
    ),
    (lambda: F.norm(X()), ShapeError, "norm: inp has rank 2 but must have rank 1", ("inp",)),
    (lambda: F.norm(X(), axis=7), AxisError, "norm: axis 7 is out of range for rank 2", ()),
    (lambda: F.norm(X(), ord="fro", axis=0), ArgumentError, "norm: ord is 'fro', not a number", ()),
    (
        lambda: F.sort(T(1.0)),
        ShapeError,
        "sort: inp has rank 0 but must have an axis to sort",
        ("inp",),
    ),
    (
        lambda: F.topk(X(), 4),
        ArgumentError,
        "topk: k is 4 but the last axis has 3 elements",
        ("inp",),
    ),
    (
        lambda: F.matmul(X(), X()),
        ShapeError,
        "matmul: lhs has 3 columns but rhs has 2 rows",
        ("lhs", "rhs"),
    ),
    (
        lambda: F.matmul(X(), T(1.0)),
        ShapeError,
        "matmul: inp2 has rank 0 but must have rank 1 or more",
        ("inp1", "inp2"),
    ),
    (
        lambda: F.matmul(F.ones((2, 3, 4)), F.ones((3, 4, 5))),
        ShapeError,
        "matmul: shapes (2,) and (3,) do not broadcast: sizes 2 and 3 differ on axis -1",
        ("lhs", "rhs"),
    ),
    (
        lambda: F.dot(F.ones(3), F.ones(4)),
        ShapeError,
        "matmul: lhs has 3 columns but rhs has 4 rows",
        ("lhs", "rhs"),
    ),
    (
        lambda: F.cross(X(), F.ones((2, 2))),
        ShapeError,
        "cross: the vectors of b have 2 elements, not 3",
        ("b",),
    ),
    (lambda: F.softmax(X(), axis=2), AxisError, "softmax: axis 2 is out of range for rank 2", ()),
    (lambda: F.cumsum(T(1.0), 0), AxisError, "cumsum: axis 0 is out of range for rank 0", ()),
]

SHAPES: Table = [
    (
        lambda: F.zeros((10**9, 10**9)),
        ShapeError,
        "broadcast: the result would have 4e+18 bytes",
        ("result",),
    ),
    (lambda: F.zeros((2, -3)), ShapeError, "full: shape (2, -3) has a negative size", ("shape",)),
    (lambda: F.zeros(None), ArgumentError, "full: shape is None, not an integer", ()),
    (lambda: F.arange(0, 5, 0), ArgumentError, "arange: step is 0", ()),
    (
        lambda: F.arange(float("inf")),
        ArgumentError,
        "arange: there is no end from 0 to inf by 1",
        (),
    ),
    (lambda: F.linspace(0, 1, 0), ArgumentError, "linspace: num is 0 but must be at least 1", ()),
    (lambda: F.eye(()), ArgumentError, "eye: N is (), not one or two sizes", ()),
    (
        lambda: F.diag(F.ones((2, 2, 2))),
        ShapeError,
        "diag: inp has rank 3 but must have rank 1 or 2",
        ("inp",),
    ),
    (
        lambda: F.broadcast_to(X(), (4, 4)),
        ShapeError,
        "broadcast: shape (2, 3) does not broadcast to (4, 4)",
        ("inp",),
    ),
    (
        lambda: F.reshape(X(), (4, 4)),
        ShapeError,
        "reshape: input has 6 elements but shape (4, 4) has 16",
        ("inp",),
    ),
    (
        lambda: F.reshape(X(), (-1, -1)),
        ArgumentError,
        "reshape: shape (-1, -1) has 2 sizes of -1",
        ("inp",),
    ),
    (lambda: F.reshape(X(), (2.5, 3)), ArgumentError, "reshape: shape is 2.5, not an integer", ()),
    (
        lambda: F.transpose(X(), (0, 0)),
        AxisError,
        "transpose: perm (0, 0) does not name each axis of rank 2 once",
        ("inp",),
    ),
    (
        lambda: F.transpose(X(), 1),
        ArgumentError,
        "transpose: pattern is 1, not a sequence of axes",
        ("inp",),
    ),
    (
        lambda: F.expand_dims(X(), 7),
        AxisError,
        "expand_dims: axis 7 is out of range for rank 3",
        (),
    ),
    (lambda: F.squeeze(X(), 0), ShapeError, "squeeze: axis 0 has size 2, not 1", ("inp",)),
    (lambda: F.concat([]), ArgumentError, "concat: inps is [], not a sequence of tensors", ()),
    (
        lambda: F.concat([X(), F.ones((3, 4))]),
        ShapeError,
        "concat: shapes (2, 3) and (3, 4) differ on another axis than 0",
        ("inputs[0]", "inputs[1]"),
    ),
    (
        lambda: F.stack([X(), F.ones((3, 2))]),
        ShapeError,
        "stack: shapes (2, 3) and (3, 2) differ",
        ("inps[0]", "inps[1]"),
    ),
    (
        lambda: F.split(X(), 5),
        ArgumentError,
        "split: cannot cut axis 0 of size 2 into 5 parts",
        ("inp",),
    ),
    (
        lambda: F.repeat(X(), -1),
        ArgumentError,
        "repeat: repeats is -1, but cannot be negative",
        ("inp",),
    ),
    (lambda: F.roll(X(), (1, 2)), ArgumentError, "roll: 2 shifts for 1 axes", ()),
    (
        lambda: F.gather(X(), 0, T([0])),
        ShapeError,
        "gather: index has rank 1 but inp has rank 2",
        ("inp", "index"),
    ),
    (
        lambda: F.gather(X(), 0, T([[5, 0, 0]])),
        AxisError,
        "gather: index holds 5 but must be below 2",
        ("index",),
    ),
    (
        lambda: F.gather(X(), 0, T([[0.5, 0, 0]])),
        DTypeError,
        "gather: index has dtype float32, which is not supported",
        ("inp", "index"),
    ),
    (
        lambda: F.scatter(X(), 0, T([[7, 0, 0]]), 1.0),
        AxisError,
        "scatter: index holds 7 but must be below 2",
        ("index",),
    ),
    (
        lambda: F.non_zero(T(1.0)),
        ShapeError,
        "non_zero: condition has rank 0 but must have an axis",
        ("condition",),
    ),
    (
        lambda: F.cond_take(B(), F.ones((3, 2))),
        ShapeError,
        "cond_take: mask has shape (2, 3) but x has (3, 2)",
        ("mask", "x"),
    ),
    (
        lambda: F.pad(X(), ((1, 1),)),
        ArgumentError,
        "pad: pad_width ((1, 1),) does not fit rank 2",
        ("src",),
    ),
    (
        lambda: F.pad(X(), 3),
        ArgumentError,
        "pad: pad_width is 3, not a sequence of pairs",
        ("src",),
    ),
    (
        lambda: F.pad(X(), ((5, 1), (0, 0)), mode="reflect"),
        ShapeError,
        "pad: axis 0 is padded by (5, 1) in mode reflect but has size 2",
        ("inp",),
    ),
    (
        lambda: F.pad(X(), ((1, 1), (0, 0)), mode="foo"),
        ArgumentError,
        "pad: mode is 'foo', which does not exist",
        (),
    ),
]

NETWORKS: Table = [
    (
        lambda: F.linear(X(), F.ones((4, 5))),
        ShapeError,
        "linear: input has 3 features but weight expects 5",
        ("inp", "weight"),
    ),
    (
        lambda: F.linear(X(), F.ones((4, 3)), F.ones(5)),
        ShapeError,
        "linear: bias has shape (5,) but weight has 4 output features",
        ("weight", "bias"),
    ),
    (
        lambda: F.conv2d(IMAGE(), F.ones((4, 4, 3, 3))),
        ShapeError,
        "conv2d: input has 3 channels but weight expects 4",
        ("inp", "weight"),
    ),
    (
        lambda: F.conv2d(X(), F.ones((4, 3, 3, 3))),
        ShapeError,
        "conv2d: inp has rank 2 but must have rank 4",
        ("inp",),
    ),
    (
        lambda: F.conv2d(IMAGE(), F.ones((4, 3, 9, 9))),
        ShapeError,
        "conv2d: kernel covers 9 rows but input has 8, padding included",
        ("inp", "weight"),
    ),
    (
        lambda: F.conv2d(IMAGE(), F.ones((4, 3, 3, 3)), stride=0),
        ArgumentError,
        "conv2d: stride is [0, 0] but may not be below 1",
        ("inp", "weight"),
    ),
    (
        lambda: F.conv2d(IMAGE(), F.ones((4, 3, 3, 3)), stride=(1, 2, 3)),
        ArgumentError,
        "conv2d: stride is (1, 2, 3), not an int or two ints",
        (),
    ),
    (
        lambda: F.conv2d(IMAGE(), F.ones((4, 3, 3, 3)), padding=10**9),
        ShapeError,
        "conv: the result would have 6.4e+19 bytes",
        ("result",),
    ),
    (
        lambda: F.conv2d(IMAGE(), F.ones((4, 3, 3, 3)), F.ones(5)),
        ShapeError,
        "conv2d: bias has shape (1, 5, 1, 1) but the result has 4 channels",
        ("bias", "out"),
    ),
    (
        lambda: F.conv2d(IMAGE(), F.ones((2, 2, 1, 3, 3)), groups=2),
        ShapeError,
        "conv2d: input has 3 channels but weight expects 2",
        ("inp", "weight"),
    ),
    (
        lambda: F.max_pool2d(IMAGE(), 9),
        ShapeError,
        "max_pool2d: kernel covers 9 rows but input has 8, padding included",
        ("inp",),
    ),
    (
        lambda: F.max_pool2d(IMAGE(), 2, padding=2),
        ArgumentError,
        "max_pool2d: padding is [2, 2, 2, 2] but kernel is [2, 2], "
        "so some windows see padding only",
        ("inp",),
    ),
    (
        lambda: F.adaptive_avg_pool2d(IMAGE(), 0),
        ArgumentError,
        "adaptive_avg_pool2d: oshp is (0, 0) but must be at least 1",
        (),
    ),
    (
        lambda: F.batch_norm(X()),
        ArgumentError,
        "batch_norm: running_mean and running_var are missing but training is False",
        (),
    ),
    (
        lambda: F.layer_norm(X(), (4,), False),
        ShapeError,
        "layer_norm: inp has shape (2, 3), which does not end in (4,)",
        ("inp",),
    ),
    (
        lambda: F.group_norm(IMAGE(), 2, False),
        ShapeError,
        "group_norm: 2 groups do not divide 3 channels",
        ("inp",),
    ),
    (
        lambda: F.dropout(X(), 1.0),
        ArgumentError,
        "dropout: drop_prob is 1.0 but must be at least 0 and below 1",
        (),
    ),
    (lambda: F.dropout(X(), "a"), ArgumentError, "dropout: drop_prob is 'a', not a number", ()),
    (
        lambda: F.one_hot(T([0, 5]), 3),
        AxisError,
        "one_hot: inp holds 5 but must be below 3",
        ("inp",),
    ),
    (
        lambda: F.one_hot(T([-1]), 3),
        AxisError,
        "one_hot: inp holds -1 but must be at least 0",
        ("inp",),
    ),
    (
        lambda: F.embedding(T([0, 7]), X()),
        AxisError,
        "embedding: inp holds 7 but must be below 2",
        ("inp",),
    ),
    (
        lambda: F.cross_entropy(X(), T([0, -1])),
        AxisError,
        "cross_entropy: label holds -1 but must be at least 0",
        ("label",),
    ),
    (
        lambda: F.cross_entropy(X(), T([0, 3])),
        AxisError,
        "cross_entropy: label holds 3 but must be below 3",
        ("label",),
    ),
    (
        lambda: F.cross_entropy(X(), T([0.0, 1.0])),
        DTypeError,
        "cross_entropy: label must be integers, but is float32",
        ("label",),
    ),
    (
        lambda: F.cross_entropy(X(), T([0])),
        ShapeError,
        "cross_entropy: label has shape (1,) but pred without axis 1 has (2,)",
        ("pred", "label"),
    ),
    (
        lambda: F.nll_loss(X(), T([0, 9])),
        AxisError,
        "nll_loss: label holds 9 but must be below 3",
        ("label",),
    ),
    (
        lambda: F.l1_loss(X(), F.ones(4)),
        ShapeError,
        "l1_loss: pred has shape (2, 3) but label has (4,)",
        ("pred", "label"),
    ),
    (
        lambda: F.square_loss(X(), X(), "foo"),
        ArgumentError,
        "square_loss: reduction is 'foo', which does not exist",
        (),
    ),
    (
        lambda: F.sliding_window(IMAGE(), 2, stride=0),
        ArgumentError,
        "sliding_window: kernel_size (2, 2), stride (0, 0) or dilation (1, 1) is below 1",
        ("inp",),
    ),
    (
        lambda: M.Linear(-1, 3),
        ArgumentError,
        "Linear: in_features is -1 but must be at least 1",
        (),
    ),
    (
        lambda: M.Linear(3, 2)(F.ones((2, 4))),
        ShapeError,
        "linear: input has 4 features but weight expects 3",
        ("inp", "weight"),
    ),
    (
        lambda: M.Conv2d(3, 4, 0),
        ArgumentError,
        "Conv2d: kernel_size is 0 but must be at least 1",
        (),
    ),
    (
        lambda: M.Conv2d(3, 4, 3, groups=2),
        ArgumentError,
        "Conv2d: 2 groups do not divide in_channels 3",
        (),
    ),
    (
        lambda: M.BatchNorm2d(3)(F.ones((2, 4, 3, 3))),
        ShapeError,
        "batch_norm: input has 4 channels but running_mean has 3",
        ("inp", "running_mean"),
    ),
    (lambda: M.Sequential(3), ArgumentError, "Sequential: 0 is a int, not a module", ()),
]

TRAINING: Table = [
    (
        lambda: M.Linear(3, 2).load_state_dict({}),
        ArgumentError,
        "load_state_dict: 2 names are missing and 0 unknown",
        ("missing", "unknown"),
    ),
    (
        lambda: M.Linear(3, 2).load_state_dict({"weight": np.zeros((3, 2)), "bias": np.zeros(2)}),
        ShapeError,
        "load_state_dict: weight has shape (3, 2) but the network's has (2, 3)",
        ("weight",),
    ),
    (
        lambda: M.Linear(3, 2).load_state_dict(
            {"weight": np.zeros((2, 3)), "bias": np.zeros(2), "foo": 1}
        ),
        ArgumentError,
        "load_state_dict: 0 names are missing and 1 unknown",
        ("missing", "unknown"),
    ),
    (
        lambda: M.Linear(3, 2).load_state_dict(5),
        ArgumentError,
        "load_state_dict: a int is not a state",
        (),
    ),
    (lambda: mge.optimizer.SGD([], lr=0.1), ArgumentError, "SGD: there are no parameters", ()),
    (
        lambda: mge.optimizer.SGD([X()], lr=0.1),
        ArgumentError,
        "SGD: a Tensor is not a parameter",
        ("params",),
    ),
    (
        lambda: mge.optimizer.SGD(LAYER.parameters(), lr=-1),
        ArgumentError,
        "SGD: lr is -1 but must be a number, at least 0",
        (),
    ),
    (
        lambda: mge.optimizer.SGD(LAYER.parameters(), lr=float("nan")),
        ArgumentError,
        "SGD: lr is nan but must be a number, at least 0",
        (),
    ),
    (
        lambda: mge.optimizer.Adam(LAYER.parameters(), lr=0.1, betas=0.9),
        ArgumentError,
        "Adam: betas is 0.9, not two numbers",
        (),
    ),
    (
        lambda: mge.optimizer.SGD(LAYER.parameters(), lr=0.1).load_state_dict({}),
        ArgumentError,
        "SGD.load_state_dict: groups have [] parameters but must have [2]",
        (),
    ),
    (
        lambda: mge.optimizer.SGD(LAYER.parameters(), lr=0.1).backward(X()),
        GradientError,
        "optimizer.backward: no computation history",
        (),
    ),
    (lambda: GradManager().attach(5), ArgumentError, "attach: int is not a tensor or several", ()),
    (
        lambda: GradManager().attach(I()),
        DTypeError,
        "attach: a int32 tensor has no gradient",
        ("tensor",),
    ),
    (
        lambda: GradManager().attach(X(), callbacks=5),
        ArgumentError,
        "attach: callbacks is 5, not a function or several",
        (),
    ),
    (lambda: GradManager().backward(X()), GradientError, "backward: no computation history", ()),
    (
        lambda: gradient(lambda gm, x: (gm.backward(x * x), gm.backward(x * x))),
        GradientError,
        "backward: no computation history",
        (),
    ),
    (
        lambda: gradient(lambda gm, x: gm.record()),
        GradientError,
        "record: this GradManager is recording already",
        (),
    ),
    (
        lambda: gradient(lambda gm, x: gm.backward(F.argmax(x))),
        DTypeError,
        "backward: y is int32 and has no gradient",
        (),
    ),
    (
        lambda: gradient(lambda gm, x: gm.backward(x * 2, F.ones(4))),
        ShapeError,
        "backward: dy has shape (4,) but y has shape (2, 3)",
        ("y", "dy"),
    ),
    (
        lambda: gradient(lambda gm, x: gm.backward(x * 2, [F.ones((2, 3))] * 2)),
        ArgumentError,
        "backward: 1 tensors y but 2 gradients dy",
        (),
    ),
    (
        lambda: gradient(lambda gm, x: gm.backward((x * 2).numpy())),
        ArgumentError,
        "backward: y is a ndarray, not a tensor or several",
        ("y",),
    ),
    (
        lambda: gradient(lambda gm, x: gm.backward(x * 2, 1.0)),
        ArgumentError,
        "backward: dy is a float, not a tensor or several",
        ("dy",),
    ),
]

TRACES: Table = [
    (lambda: trace(5), ArgumentError, "trace: 5 is not a function", ()),
    (
        lambda: traced(lambda x: F.ones(int(x.numpy().sum()))),
        TraceError,
        "the value of a tensor is asked for while tracing symbolically",
        ("tensor",),
    ),
    (
        lambda: traced(lambda x: x + 1 if x.sum() > 0 else x),
        TraceError,
        "the value of a tensor is asked for while tracing symbolically",
        ("tensor",),
    ),
    (
        lambda: traced(lambda x: x[x > 0]),
        TraceError,
        "the value of a tensor is asked for while tracing symbolically",
        ("tensor",),
    ),
    (
        lambda: traced(lambda x: F.non_zero(x)),
        TraceError,
        "the value of a tensor is asked for while tracing symbolically",
        ("tensor",),
    ),
    (
        lambda: traced(lambda x: x + F.ones(4)),
        ShapeError,
        "add: shapes (2, 3) and (4,) do not broadcast: sizes 3 and 4 differ on axis -1",
        ("lhs", "rhs"),
    ),
    (
        lambda: traced(lambda x: F.sum(x, axis=2)),
        AxisError,
        "sum: axis 2 is out of range for rank 2",
        (),
    ),
    (
        lambda: traced(lambda x: x + leaked()),
        TraceError,
        "a traced function is traced inside another",
        (),
    ),
    (
        lambda: traced(lambda x: trace(lambda y: y + 1, symbolic=True).trace(x)),
        TraceError,
        "a traced function is traced inside another",
        (),
    ),
    (
        lambda: leaked() + 1,
        TraceError,
        "add: an operand was made by a symbolic trace, which has ended, and has no value",
        ("operand 0", "operand 1"),
    ),
    (
        lambda: leaked().numpy(),
        TraceError,
        "the value of a tensor is asked for while tracing symbolically",
        ("tensor",),
    ),
    (
        lambda: trace(lambda: 1).dump("never.mge"),
        TraceError,
        "dump: the function has not been traced yet",
        (),
    ),
    (
        lambda: trace(lambda: 1).graph_text(),
        TraceError,
        "graph_text: nothing has been traced yet",
        (),
    ),
    (
        lambda: a_trace().dump("never.mge", arg_names=["a", "b"]),
        ArgumentError,
        "dump: 2 arg_names for 1 tensor arguments",
        ("arg_names",),
    ),
    (
        lambda: a_trace().dump("never.mge", arg_names=[1]),
        ArgumentError,
        "dump: arg_names holds 1, which is not a name of its own",
        ("arg_names",),
    ),
    (
        lambda: a_trace().dump("never.mge", output_names=["a", "b"]),
        ArgumentError,
        "dump: 2 output_names for 1 outputs",
        (),
    ),
    (
        lambda: a_trace().dump("never.mge", target="z80"),
        OptionError,
        "there is no target 'z80'",
        (),
    ),
    (
        lambda: a_trace().dump("/nowhere/at/all.mge"),
        FileError,
        "artifact: cannot write /nowhere/at/all.mge: No such file or directory",
        (),
    ),
]

OPTIONS: Table = [
    (
        lambda: config.override(debug=9).__enter__(),
        OptionError,
        "config.debug: 9 is not a level from 0 to 5",
        ("default", "meaning"),
    ),
    (
        lambda: config.override(foo=9).__enter__(),
        OptionError,
        "config: there is no option 'foo'",
        (),
    ),
    (
        lambda: config.override(backend="cuda").__enter__(),
        OptionError,
        "config.backend: 'cuda' is not native or reference",
        ("default", "meaning"),
    ),
    (
        lambda: config.override(num_threads=-1).__enter__(),
        OptionError,
        "config.num_threads: -1 is not a number, 0 for all processors",
        ("default", "meaning"),
    ),
    (
        lambda: config.override(cache="maybe").__enter__(),
        OptionError,
        "config.cache: 'maybe' is not on or off",
        ("default", "meaning"),
    ),
    (
        lambda: mge.save(object(), "never"),
        SerializationError,
        "save: the object is a object, which cannot be saved",
        (),
    ),
    (
        lambda: mge.save({"a": {1, 2}}, "never"),
        SerializationError,
        "save: the object['a'] is a set, which cannot be saved",
        (),
    ),
    (
        lambda: mge.save(1, "/nowhere/at/all"),
        FileError,
        "save: cannot write /nowhere/at/all: No such file or directory",
        (),
    ),
    (
        lambda: mge.load("/nowhere/at/all"),
        FileMissingError,
        "load: there is no file /nowhere/at/all",
        (),
    ),
    (lambda: mge.load("/"), FileError, "load: cannot read /: Is a directory", ()),
    (
        lambda: mge.runtime.load("/nowhere/at/all.mge"),
        FileMissingError,
        "artifact: there is no file /nowhere/at/all.mge",
        (),
    ),
    (lambda: mge.runtime.load("/"), FileError, "artifact: cannot read /: Is a directory", ()),
    (
        lambda: mge.random.seed(-1),
        ArgumentError,
        "seed: -1 is not an integer from 0 below 2**64",
        (),
    ),
    (
        lambda: mge.random.uniform(size=(-1,)),
        ShapeError,
        "random_uniform: shape (-1,) has a negative size",
        ("state",),
    ),
]

TABLES = {
    "tensors": TENSORS,
    "elementwise": ELEMENTWISE,
    "reductions": REDUCTIONS,
    "shapes": SHAPES,
    "networks": NETWORKS,
    "training": TRAINING,
    "traces": TRACES,
    "options": OPTIONS,
}
ROWS = [
    pytest.param(*row, id=f"{name} {i}: {row[2][:50]}")
    for name, table in TABLES.items()
    for i, row in enumerate(table)
]
STANDARD: dict[type[MgecError], type[Exception]] = {
    ArgumentError: ValueError,
    ArtifactError: ValueError,
    AxisError: IndexError,
    DeviceError: ValueError,
    DTypeError: TypeError,
    FileError: OSError,
    FileMissingError: FileNotFoundError,
    GradientError: RuntimeError,
    IRError: ValueError,
    OptionError: ValueError,
    RuntimeFailure: RuntimeError,
    SerializationError: ValueError,
    ShapeError: ValueError,
    TraceError: RuntimeError,
}


def refuse(call: Callable[[], Any], error: type[MgecError]) -> MgecError:
    """The error of a call, after what holds for all of them was checked."""
    with pytest.raises(MgecError) as caught:
        call()
    found = caught.value
    assert type(found) is error
    assert isinstance(found, STANDARD[error])
    assert found.location is not None
    assert found.location.file == __file__
    assert found.fix
    assert "\n" not in found.headline
    return found


@pytest.mark.parametrize(("call", "error", "headline", "values"), ROWS)
def test_calls(
    call: Callable[[], Any], error: type[MgecError], headline: str, values: tuple[str, ...]
) -> None:
    found = refuse(call, error)
    assert found.headline == headline
    assert tuple(value.name for value in found.values) == values


def test_the_location_is_the_line() -> None:
    weight = F.ones((4, 4, 3, 3))
    line = sys._getframe().f_lineno + 1
    error = refuse(lambda: F.conv2d(IMAGE(), weight), ShapeError)
    assert error.location is not None
    assert error.location.line == line
    assert f"test_bad_input.py:{line} in <lambda>" in str(error)
    assert "F.conv2d(IMAGE(), weight)" in str(error)


def test_there_are_many_kinds() -> None:
    assert len({row[2] for table in TABLES.values() for row in table}) >= 100


def test_a_failed_trace_leaves_nothing_behind() -> None:
    refuse(lambda: traced(lambda x: x + F.ones(4)), ShapeError)
    assert X().numpy().sum() == 6
    assert traced(lambda x: x * 2).numpy().sum() == 12


def test_a_failed_backward_leaves_nothing_behind() -> None:
    x = X()
    gm = GradManager().attach(x)
    refuse(lambda: gradient(lambda gm, x: gm.backward(x * 2, F.ones(4))), ShapeError)
    with gm:
        gm.backward((x * 2).sum())
    assert x.grad is not None
    assert x.grad.numpy().sum() == 12


# -- files ---------------------------------------------------------------------------------------


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "model.mge"
    a_trace().dump(path, arg_names=["x"], output_names=["y"])
    return path


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 4
    return bytes(changed)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda d: b"", "header: expected at least 64 bytes, found 0 bytes"),
    "junk": (lambda d: b"x" * 100, r"header: expected the magic b'MGECART\x00', found b'xxxxxxxx'"),
    "truncated": (lambda d: d[:-5], "header: expected {n} bytes in the file, found {less} bytes"),
    "newer": (
        lambda d: d[:8] + struct.pack("<I", 2) + d[12:],
        "header: expected version 1, found version 2",
    ),
    "flipped": (lambda d: flipped(d, len(d) // 2), "expected checksum "),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_artifacts(artifact: Path, damage: str) -> None:
    data = artifact.read_bytes()
    change, text = DAMAGE[damage]
    artifact.write_bytes(change(data))
    error = refuse(lambda: mge.runtime.load(artifact), ArtifactError)
    assert error.headline.startswith(f"{artifact}: ")
    assert text.format(n=len(data), less=len(data) - 5) in error.headline
    assert [value.name for value in error.values] == ["file", "section", "expected", "found"]


CALLS: Table = [
    (lambda: model(), ArgumentError, "0 inputs were given, expected 1", ("x",)),
    (lambda: model(A, A), ArgumentError, "2 inputs were given, expected 1", ("x",)),
    (lambda: model(z=A), ArgumentError, "there is no input 'z'", ("x",)),
    (lambda: model(A, x=A), ArgumentError, "input 'x' was given twice", ("x",)),
    (lambda: model(A.astype("f8")), DTypeError, "input 'x' is float64, expected float32", ("x",)),
    (lambda: model(A.T), ShapeError, "input 'x' has shape [3, 2], expected [2, 3]", ("x",)),
    (lambda: model("a"), DTypeError, "input 'x' is <U1, expected float32", ("x",)),
    (lambda: model(None), DTypeError, "input 'x' is object, expected float32", ("x",)),
    (
        lambda: model.run_into([A], []),
        ArgumentError,
        "0 output arrays were given, expected 1",
        ("y",),
    ),
    (
        lambda: model.run_into([A], [np.zeros((2, 3))]),
        DTypeError,
        "output 'y' is float64, expected float32",
        ("y",),
    ),
]
A = np.ones((2, 3), np.float32)
model: Any = None


def test_calls_of_a_model(artifact: Path) -> None:
    global model
    model = mge.runtime.load(artifact)
    for call, kind, headline, values in CALLS:
        error = refuse(call, kind)
        assert error.headline == f"<lambda>: {headline}"
        assert tuple(value.name for value in error.values) == values
    np.testing.assert_array_equal(model(A)[0], A + 1)


SAVED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda d: b"", "is truncated or not a saved file (0 bytes)"),
    "junk": (lambda d: b"x" * 100, "is truncated or not a saved file (100 bytes)"),
    "truncated": (lambda d: d[:-5], "is damaged: "),
    "flipped": (lambda d: flipped(d, -3), "is damaged: the checksum of array 0 does not match"),
}


@pytest.mark.parametrize("damage", SAVED)
def test_damaged_files_of_save(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "saved"
    mge.save({"w": X()}, path)
    change, text = SAVED[damage]
    path.write_bytes(change(path.read_bytes()))
    error = refuse(lambda: mge.load(path), SerializationError)
    assert error.headline.startswith(f"load: {path} {text}")


def test_an_artifact_is_not_a_saved_file(artifact: Path, tmp_path: Path) -> None:
    refuse(lambda: mge.load(artifact), SerializationError)
    mge.save(X(), tmp_path / "saved")
    refuse(lambda: mge.runtime.load(tmp_path / "saved"), ArtifactError)


# -- IR and commands -----------------------------------------------------------------------------

HEAD = "func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {"
TAIL = "func.return %0 : tensor<2xf32> }"
SAME = ": (tensor<2xf32>) -> tensor<2xf32>"
IDENTITY = (
    "func.func @{}(%x: tensor<2xf32>) -> tensor<2xf32> {{ func.return %x : tensor<2xf32> }}\n"
)
IR = {
    "": "{file}: the text is empty",
    "hello": "{file}: the text does not parse: Operation hello is not registered",
    f"{HEAD} %0 = mge.foo %x {SAME} {TAIL}": (
        "{file}: the text does not parse: Operation mge.foo is not registered"
    ),
    f"{HEAD} %0 = mge.softmax %x {{foo = 1}} {SAME} {TAIL}": (
        "{file}: the text does not parse: mge.softmax: unknown attribute foo; it takes axis"
    ),
    f"{HEAD} %0 = mge.softmax %x {SAME} {TAIL}": (
        "{file}: the text does not parse: mge.softmax: attribute axis is missing"
    ),
    f"{HEAD} %0 = mge.softmax %x {{axis = 7}} {SAME} {TAIL}": (
        "{file}: the IR is not valid: softmax: axis 7 is out of range for rank 1"
    ),
    f"{HEAD} %0 = mge.exp %x : (tensor<2xf32>) -> tensor<3xf32> {TAIL}": (
        "{file}: the text does not parse: "
    ),
    f"{HEAD} %0 = mge.add %x {SAME} {TAIL}": (
        "{file}: the IR is not valid: Expected 2 operands, but got 1"
    ),
    f"{HEAD} func.return %y : tensor<2xf32> }}": (
        "{file}: the text does not parse: values used but not defined: [%y]"
    ),
    "builtin.module {}": "a module to compile holds one func.func, this one 0",
    IDENTITY.format("a") + IDENTITY.format("b"): (
        "a module to compile holds one func.func, this one 2"
    ),
    IDENTITY.format("main").replace("2x", "?x"): (
        "{file}: tensor<?xf32> has a size that is not known"
    ),
    "func.func @main(%x: tensor<2xf32>": "{file}: the text does not parse: ')' expected",
    'module attributes {a = "': "{file}: the text does not parse: a string does not end",
    "module {" * 5000: "{file}: the text is nested too deeply",
}


@pytest.mark.parametrize("text", IR, ids=list(IR.values()))
def test_bad_ir(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.mlir"
    path.write_text(text)
    error = refuse(lambda: load_graph(path), IRError)
    assert error.headline.startswith(IR[text].format(file=path))
    assert main(["compile", str(path), "-o", str(tmp_path / "out.mge")]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"mgec.IRError: {error.headline}\n")
    assert "Traceback" not in printed
    assert not (tmp_path / "out.mge").exists()


COMMANDS: dict[str, tuple[int, str]] = {
    "frobnicate": (2, "invalid choice: 'frobnicate'"),
    "compile": (2, "the following arguments are required"),
    "compile none.py:f -o o.mge": (1, "none.py"),
    "compile good.mlir": (2, "there is no place for the artifact"),
    "compile good.mlir -o o.mge --target z80": (2, "there is no target 'z80'"),
    "compile good.mlir -o o.mge --compile-to never": (2, "never"),
    "compile good.mlir -o o.mge --frobnicate": (2, "unrecognized arguments: --frobnicate"),
    "compile good.mlir -o no/such/folder/o.mge": (1, "No such file or directory"),
    "compile good.mlir:f -o o.mge": (2, "only a Python file has functions to choose from"),
    "compile net.py:nothing -o o.mge": (1, "nothing"),
    "compile net.py:number -o o.mge": (1, "number"),
    "run none.mge": (1, "there is no file none.mge"),
    "run .": (1, ". is a folder"),
    "run good.mlir": (1, "good.mlir is a source, not an artifact"),
    "run junk.mge": (1, "expected at least 64 bytes"),
    "bench junk.mge": (1, "expected at least 64 bytes"),
    "inspect junk.mge": (1, "expected at least 64 bytes"),
    "run junk.mge --threads many": (2, "many"),
    "opt good.mlir -p mge-frobnicate": (2, "mge-frobnicate"),
    "opt good.mlir -p mge-decompose{foo=1}": (2, "foo"),
    "opt none.mlir -p mge-dce": (1, "none.mlir"),
    "opt binary.mlir -p mge-dce": (1, "mgec-opt: not MLIR text"),
    "opt deep.mlir -p mge-dce": (1, "mgec-opt: the text is nested too deeply"),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.mlir").write_text(IDENTITY.format("main"))
    Path("junk.mge").write_bytes(b"")
    Path("binary.mlir").write_bytes(b"\xff\xfe\x00")
    Path("deep.mlir").write_text("module {" * 5000)
    Path("net.py").write_text("number = 5\n")
    status, text = COMMANDS[line]
    assert main(line.split()) == status
    printed = capsys.readouterr().err
    assert text in printed
    assert "Traceback" not in printed
    assert "internal error" not in printed
    assert not Path("o.mge").exists()


@pytest.mark.parametrize(
    ("variable", "value", "expects"),
    [
        ("MGEC_DEBUG", "9", "a level from 0 to 5"),
        ("MGEC_DEBUG", "verbose", "a level from 0 to 5"),
        ("MGEC_NUM_THREADS", "-2", "a number, 0 for all processors"),
        ("MGEC_CACHE", "perhaps", "on or off"),
        ("MGEC_BACKEND", "gpu", "native or reference"),
        ("MGEC_LOG", "loud", "debug, info, warning or error"),
    ],
)
def test_environment(variable: str, value: str, expects: str) -> None:
    environment = {**os.environ, variable: value}
    command = [sys.executable, "-m", "mgec", "env"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2
    assert found.stderr.startswith(f"mgec.OptionError: {variable}: '{value}' is not {expects}\n")
    assert f"set {variable} to {expects}, or leave it unset" in found.stderr
    assert "Traceback" not in found.stderr
