"""Every handler: imported, interpreted, and compared with ONNX's own reference in NumPy.

Where the reference does not follow the specification, or the specification has a corner that it
does not show, the expected numbers are written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from support.onnx_models import Array, info, interpret, model_of, node_model, run_node

from mgec.errors import UnsupportedModelError
from mgec.importers import from_onnx

RNG = np.random.default_rng(7)


def f32(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def i64(*values: int) -> Array:
    return np.array(values, np.int64)


X = f32(2, 3, 4)
IMAGE = f32(2, 4, 7, 6)
NAN, INF = float("nan"), float("inf")

Case = tuple[str, Sequence[Any], dict[str, Any], dict[str, Any]]

CASES: dict[str, Case] = {
    # elementwise and activations
    "add": ("Add", [X, f32(4)], {}, {}),
    "mul": ("Mul", [X, f32(2, 1, 4)], {}, {}),
    "sum of three": ("Sum", [X, f32(4), f32(3, 1)], {}, {}),
    "mean": ("Mean", [X, f32(4)], {}, {}),
    "max": ("Max", [X, f32(4), f32(1)], {}, {}),
    "celu": ("Celu", [X], {"alpha": 0.7}, {}),
    "elu": ("Elu", [X], {"alpha": 1.5}, {}),
    "selu": ("Selu", [X], {}, {}),
    "gelu": ("Gelu", [X], {}, {}),
    "gelu tanh": ("Gelu", [X], {"approximate": "tanh"}, {}),
    "hard sigmoid": ("HardSigmoid", [X * 4], {"alpha": 0.3}, {}),
    "hard swish": ("HardSwish", [X * 4], {}, {}),
    "leaky relu": ("LeakyRelu", [X], {"alpha": 0.3}, {}),
    "mish": ("Mish", [X], {}, {}),
    "prelu": ("PRelu", [X, f32(3, 1)], {}, {}),
    "shrink": ("Shrink", [X], {"lambd": 0.4, "bias": 0.2}, {}),
    "softplus": ("Softplus", [X], {}, {}),
    "softsign": ("Softsign", [X], {}, {}),
    "thresholded relu": ("ThresholdedRelu", [X], {"alpha": 0.2}, {}),
    "where": ("Where", [X > 0, X, f32(4)], {}, {}),
    "cast": ("Cast", [X * 3], {"to": 7}, {}),
    "is nan": ("IsNaN", [np.array([1, NAN], np.float32)], {}, {}),
    "bit shift": (
        "BitShift", [np.array([1, 200], np.uint8), np.array([3, 2], np.uint8)],
        {"direction": "RIGHT"}, {},
    ),
    "softmax": ("Softmax", [X], {"axis": 1}, {}),
    "log softmax": ("LogSoftmax", [X], {}, {}),
    "hardmax": ("Hardmax", [X], {"axis": 1}, {}),
    # reductions
    "reduce sum": ("ReduceSum", [X, i64(0, -1)], {"keepdims": 0}, {"constant": [1]}),
    "reduce sum, all": ("ReduceSum", [X], {}, {}),
    "reduce mean": ("ReduceMean", [X, i64(1)], {}, {"constant": [1]}),
    "reduce mean, old": ("ReduceMean", [X], {"axes": [1]}, {"opset": 13}),
    "reduce l1": ("ReduceL1", [X, i64(1)], {}, {"constant": [1]}),
    "reduce l2": ("ReduceL2", [X, i64(1)], {}, {"constant": [1]}),
    "reduce log sum exp": ("ReduceLogSumExp", [X, i64(1)], {}, {"constant": [1]}),
    "reduce sum square": ("ReduceSumSquare", [X, i64(1)], {}, {"constant": [1]}),
    "reduce max of bool": ("ReduceMax", [X > 1, i64(1)], {}, {"constant": [1]}),
    "reduce prod": ("ReduceProd", [X, i64(2)], {}, {"constant": [1]}),
    "argmax": ("ArgMax", [X], {"axis": 2, "keepdims": 0}, {}),
    "argmin, last": (
        "ArgMin", [np.array([[2, 1, 1]], np.float32)], {"axis": 1, "select_last_index": 1}, {},
    ),
    "cumsum": ("CumSum", [X, np.array(1)], {"exclusive": 1, "reverse": 1}, {"constant": [1]}),
    # shapes
    "reshape": ("Reshape", [X, i64(0, -1)], {}, {"constant": [1]}),
    "flatten": ("Flatten", [X], {"axis": -1}, {}),
    "squeeze": ("Squeeze", [f32(1, 3, 1), i64(-1)], {}, {"constant": [1]}),
    "unsqueeze": ("Unsqueeze", [X, i64(-1, 1)], {}, {"constant": [1]}),
    "transpose": ("Transpose", [X], {}, {}),
    "expand": ("Expand", [f32(3, 1), i64(2, 1, 4)], {}, {"constant": [1]}),
    "tile": ("Tile", [X, i64(1, 2, 3)], {}, {"constant": [1]}),
    "concat": ("Concat", [X, f32(2, 1, 4)], {"axis": -2}, {}),
    "split": ("Split", [X], {"axis": 2, "num_outputs": 3}, {"outputs": 3}),
    "slice": (
        "Slice", [X, i64(-1, 0), i64(-100, 100), i64(1, 2), i64(-2, 3)], {},
        {"constant": [1, 2, 3, 4]},
    ),
    "pad": (
        "Pad", [X, i64(0, 1, 2, 3), np.array(7, np.float32), i64(0, 2)], {},
        {"constant": [1, 2, 3]},
    ),
    "pad, edge": ("Pad", [X, i64(0, 1, 2, 0, 3, 0)], {"mode": "edge"}, {"constant": [1]}),
    "pad, reflect": ("Pad", [X, i64(0, 1, 2, 0, 2, 0)], {"mode": "reflect"}, {"constant": [1]}),
    "pad, wrap": ("Pad", [X, i64(0, 1, 2, 0, 5, 0)], {"mode": "wrap"}, {"constant": [1]}),
    "depth to space": ("DepthToSpace", [IMAGE], {"blocksize": 2, "mode": "CRD"}, {}),
    "space to depth": ("SpaceToDepth", [f32(1, 2, 4, 6)], {"blocksize": 2}, {}),
    "trilu": ("Trilu", [X, np.array(-1)], {"upper": 0}, {"constant": [1]}),
    "eye like": ("EyeLike", [f32(3, 4)], {"k": 1}, {}),
    "reverse sequence": (
        "ReverseSequence", [f32(4, 3), i64(1, 4, 2)], {"time_axis": 0, "batch_axis": 1}, {},
    ),
    # indexing
    "gather": ("Gather", [X, i64(-1, 0)], {"axis": 1}, {}),
    "gather elements": ("GatherElements", [X, np.zeros((2, 1, 4), np.int64)], {"axis": 1}, {}),
    "gather nd": ("GatherND", [X, np.array([[1], [2]])], {"batch_dims": 1}, {}),
    "scatter elements": (
        "ScatterElements", [X, np.array([[[0, 0, 1, 1]]]), f32(1, 1, 4)],
        {"axis": 1, "reduction": "max"}, {},
    ),
    "scatter nd": (
        "ScatterND", [X, np.array([[1, 2], [1, 2]]), f32(2, 4)], {"reduction": "add"}, {},
    ),
    "one hot": (
        "OneHot", [i64(1, -1), np.array(3), np.array([2, 5], np.float32)], {"axis": 0},
        {"constant": [1]},
    ),
    "top k": ("TopK", [X, i64(2)], {"axis": 1, "largest": 0}, {"constant": [1], "outputs": 2}),
    # products
    "matmul of a vector": ("MatMul", [f32(4), f32(2, 4, 3)], {}, {}),
    "matmul by a vector": ("MatMul", [f32(2, 3, 4), f32(4)], {}, {}),
    "gemm": (
        "Gemm", [f32(4, 2), f32(3, 4), f32(3)],
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}, {},
    ),
    "matmul integer": (
        "MatMulInteger",
        [np.arange(6, dtype=np.uint8).reshape(2, 3), np.arange(6, dtype=np.uint8).reshape(3, 2),
         np.array(3, np.uint8), np.array(2, np.uint8)],
        {}, {},
    ),
    # convolution and pooling
    "conv": (
        "Conv", [IMAGE, f32(6, 2, 3, 2), f32(6)],
        {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [2, 1]}, {},
    ),
    "conv, same": ("Conv", [IMAGE, f32(3, 4, 3, 3)], {"auto_pad": "SAME_LOWER",
                                                     "strides": [2, 2]}, {}),
    "conv 1d": ("Conv", [X, f32(2, 3, 3)], {"pads": [1, 1]}, {}),
    "conv transpose": (
        "ConvTranspose", [f32(1, 2, 3, 3), f32(2, 3, 3, 3), f32(3)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]}, {},
    ),
    "max pool": ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2],
                                      "pads": [1, 1, 1, 1]}, {}),
    "max pool, ceil": ("MaxPool", [IMAGE], {"kernel_shape": [2, 3], "strides": [2, 2],
                                            "ceil_mode": 1}, {}),
    "average pool": ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, {}),
    "average pool, padding counts": (
        "AveragePool", [IMAGE],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, {},
    ),
    "global average pool": ("GlobalAveragePool", [IMAGE], {}, {}),
    "global max pool": ("GlobalMaxPool", [IMAGE], {}, {}),
    # normalization
    "batch norm": (
        "BatchNormalization", [IMAGE, f32(4), f32(4), f32(4), np.abs(f32(4))], {"epsilon": 0.01},
        {},
    ),
    "instance norm": ("InstanceNormalization", [IMAGE, f32(4), f32(4)], {}, {}),
    "layer norm": ("LayerNormalization", [X, f32(3, 4), f32(3, 4)], {"axis": 1}, {"outputs": 3}),
    "layer norm, one scale": ("LayerNormalization", [X, f32(4)], {"axis": 1}, {}),
    "group norm": ("GroupNormalization", [IMAGE, f32(4), f32(4)], {"num_groups": 2}, {}),
    "lp norm": ("LpNormalization", [X], {"axis": 1}, {}),
    # quantization
    "quantize": (
        "QuantizeLinear",
        [X * 50, np.array([0.5, 1, 2], np.float32), np.array([3, 100, 0], np.uint8)],
        {"axis": 1}, {},
    ),
    "dequantize": (
        "DequantizeLinear",
        [np.arange(12, dtype=np.int8).reshape(3, 4), f32(3), np.array([1, 2, 3], np.int8)],
        {"axis": 0}, {},
    ),
    # recurrent
    "rnn": ("RNN", [f32(3, 2, 4), f32(1, 5, 4), f32(1, 5, 5), f32(1, 10)], {"hidden_size": 5},
            {"outputs": 2}),
    "gru": ("GRU", [f32(3, 2, 4), f32(1, 15, 4), f32(1, 15, 5), f32(1, 30)],
            {"hidden_size": 5, "linear_before_reset": 1}, {"outputs": 2}),
    "lstm": ("LSTM", [f32(3, 2, 4), f32(1, 20, 4), f32(1, 20, 5), f32(1, 40), None, f32(1, 2, 5),
                      f32(1, 2, 5), f32(1, 15)], {"hidden_size": 5}, {"outputs": 3}),
    # resize
    "resize, nearest": (
        "Resize", [IMAGE, None, np.array([1, 1, 2, 0.5], np.float32)], {"mode": "nearest"},
        {"constant": [2]},
    ),
    "resize, linear": ("Resize", [IMAGE, None, None, i64(2, 4, 5, 9)], {"mode": "linear"},
                       {"constant": [3]}),
    "resize, cubic": (
        "Resize", [IMAGE, None, None, i64(2, 4, 5, 9)],
        {"mode": "cubic", "coordinate_transformation_mode": "align_corners"}, {"constant": [3]},
    ),
    "resize, antialias": ("Resize", [IMAGE, None, None, i64(2, 4, 3, 2)],
                          {"mode": "linear", "antialias": 1}, {"constant": [3]}),
    "grid sample": ("GridSample", [IMAGE, f32(2, 3, 2, 2)], {"padding_mode": "border"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_reference(name: str) -> None:
    """Float32 on both sides; sums here have at most 60 terms."""
    op, inputs, attrs, options = CASES[name]
    with np.errstate(all="ignore"):
        proto = node_model(op, inputs, attrs, **options)
        feeds = {v.name: inputs[int(v.name[1:])] for v in proto.graph.input}
        expected = ReferenceEvaluator(proto).run(None, feeds)
    outputs = run_node(op, inputs, attrs, **options)
    for out, want in zip(outputs, expected, strict=True):
        assert out.shape == want.shape
        assert out.dtype == want.dtype
        np.testing.assert_allclose(out, want, rtol=2e-5, atol=2e-6)


def check(op: str, inputs: Sequence[Any], expected: Any, attrs: Any = None, **options: Any) -> None:
    (out,) = run_node(op, inputs, attrs, **options)
    want = np.asarray(expected)
    assert out.shape == want.shape
    np.testing.assert_allclose(out.astype(np.float64), want.astype(np.float64), rtol=1e-6)


A = np.array([7, -7, 7, -7, 0], np.int32)
B = np.array([2, 2, -2, -2, 5], np.int32)


def test_integer_division_rounds_toward_zero() -> None:
    check("Div", [A, B], [3, -3, -3, 3, 0])


def test_mod_has_the_sign_of_the_divisor_or_of_the_dividend() -> None:
    check("Mod", [A, B], [1, 1, -1, -1, 0])
    check("Mod", [A, B], [1, -1, 1, -1, 0], {"fmod": 1})
    x, y = A.astype(np.float32) + 0.5, B.astype(np.float32)
    check("Mod", [x, y], np.fmod(x, y), {"fmod": 1})


def test_power_of_integers() -> None:
    base, exponent = np.array([2, -3, 1, -1, 5], np.int64), np.array([62, 3, -4, -3, -1], np.int64)
    check("Pow", [base, exponent], [2**62, -27, 1, -1, 0])
    check("Pow", [np.array([3], np.int32), np.array([5.0], np.float32)], [243])
    check("Pow", [np.array([1.5], np.float32), np.array([2], np.int64)], [2.25])


def test_clip_keeps_nan_and_lets_the_upper_bound_win() -> None:
    x = np.array([NAN, -INF, 0, INF], np.float32)
    low, high = np.array(1, np.float32), np.array(-1, np.float32)
    check("Clip", [x, low, high], [NAN, -1, -1, -1])
    check("Clip", [x, None, low], [NAN, -INF, 0, 1])
    check("Clip", [x], [NAN, -2, 0, 3], {"min": -2.0, "max": 3.0}, opset=6)


def test_round_to_even() -> None:
    check("Round", [np.array([0.5, 1.5, -2.5, 2.6], np.float32)], [0, 2, -2, 3])


@pytest.mark.parametrize(("positive", "negative"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_is_inf_of_one_sign(positive: int, negative: int) -> None:
    x = np.array([INF, -INF, 1, NAN], np.float32)
    attrs = {"detect_positive": positive, "detect_negative": negative}
    check("IsInf", [x], [positive == 1, negative == 1, False, False], attrs)


def test_softmax_before_opset_13_is_over_all_later_axes() -> None:
    flat = np.exp(X.astype(np.float64).reshape(2, 12))
    want = (flat / flat.sum(axis=1, keepdims=True)).reshape(X.shape)
    (out,) = run_node("Softmax", [X], {"axis": 1}, opset=11)
    np.testing.assert_allclose(out, want, rtol=1e-6)


def test_operands_before_opset_7_are_aligned_by_an_axis() -> None:
    y = f32(3)
    check("Add", [X, y], X + y[:, None], {"broadcast": 1, "axis": 1}, opset=6)


def test_reductions_over_nothing() -> None:
    empty = np.zeros((2, 0), np.float32)
    axes = {"constant": [1]}
    check("ReduceMax", [empty, i64(1)], [[-INF], [-INF]], **axes)
    check("ReduceMin", [empty.astype(np.int32), i64(1)], [[2**31 - 1]] * 2, **axes)
    check("ReduceLogSumExp", [empty, i64(1)], [[-INF], [-INF]], **axes)
    check("ReduceSumSquare", [X, i64()], X * X, {"noop_with_empty_axes": 1}, **axes)


def test_running_product() -> None:
    x = np.array([[1, 2, 3, 4, 5]], np.float32)
    axis = np.array(1)
    check("CumProd", [x, axis], [[1, 2, 6, 24, 120]], constant=[1], opset=26)
    want = [[120, 60, 20, 5, 1]]
    attrs = {"exclusive": 1, "reverse": 1}
    check("CumProd", [x, axis], want, attrs, constant=[1], opset=26)


def test_padding_takes_away_and_keeps_large_integers() -> None:
    x = np.array([1, 2, 3], np.int64)
    value = np.array(2**53 + 1, np.int64)
    check("Pad", [x, i64(-1, 1), value], [2, 3, 2**53 + 1], constant=[1, 2])


def windows(x: Array, kernel: int, stride: int, dilation: int, pads: tuple[int, int]) -> Any:
    """Places of each window in a padded line; None is padding."""
    size = len(x)
    starts = range(-pads[0], size + pads[1] - (kernel - 1) * dilation, stride)
    return [[s + k * dilation for k in range(kernel)] for s in starts]


def test_max_pool_dilated_with_indices() -> None:
    x = np.array([5, 5, NAN, 1, 9, -INF, -INF, 2], np.float32)
    attrs = {"kernel_shape": [2], "dilations": [3], "pads": [2, 2], "strides": [1]}
    out, places = run_node("MaxPool", [x[None, None]], attrs, outputs=2)
    for got, place, taps in zip(out[0, 0], places[0, 0], windows(x, 2, 1, 3, (2, 2)), strict=True):
        inside = [t for t in taps if 0 <= t < len(x)]
        values = x[inside]
        nan = np.isnan(values)
        best = inside[int(np.argmax(nan if nan.any() else values))]
        assert place == best
        np.testing.assert_equal(got, x[best])


def test_average_pool_counts_padding_that_was_asked_for_only() -> None:
    x = np.arange(1, 7, dtype=np.float32)
    attrs = {"kernel_shape": [3], "strides": [3], "pads": [1, 1], "ceil_mode": 1}
    include = {**attrs, "count_include_pad": 1}
    check("AveragePool", [x[None, None]], [[[1.5, 4, 6]]], attrs)
    # The last window has elements 5 (6), one pad that counts, and one place beyond that.
    check("AveragePool", [x[None, None]], [[[1, 4, 3]]], include)


def test_output_padding_of_a_transposed_convolution_beyond_the_stride() -> None:
    x, w = f32(1, 1, 3), f32(1, 1, 2)
    attrs = {"output_padding": [1], "dilations": [2]}
    want = np.zeros(6)
    for i in range(3):
        for k in range(2):
            want[i + 2 * k] += float(x[0, 0, i]) * float(w[0, 0, k])
    check("ConvTranspose", [x, w], want[None, None].astype(np.float32), attrs)


EQUATIONS = {
    "ij,jk->ik": [(2, 3), (3, 4)],
    "bij,bkj->bik": [(2, 3, 4), (2, 5, 4)],
    "...ij,...jk->...ik": [(5, 2, 3), (3, 4)],
    "ii->i": [(3, 3)],
    "iji": [(3, 2, 3)],
    "ij->": [(2, 3)],
    "i,j,jk->ki": [(2,), (3,), (3, 4)],
    "bhld,bhsd->bhls": [(2, 2, 3, 4), (2, 2, 5, 4)],
    "ij,kl->": [(2, 3), (4, 5)],
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation: str) -> None:
    operands = [f32(*shape) for shape in EQUATIONS[equation]]
    (out,) = run_node("Einsum", operands, {"equation": equation})
    want = np.einsum(equation, *(x.astype(np.float64) for x in operands))
    assert out.shape == want.shape
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-6)


def test_cubic_samples_beyond_the_border_see_the_border() -> None:
    """As PyTorch and ONNX Runtime: pixels are moved to the border, coordinates are not."""
    row = np.array([[[[1.0, 2.0, 4.0]]]], np.float32)
    grid = np.array([[[[4 / 3, 0.0]]]], np.float32)  # coordinate 3: half a pixel beyond the border
    attrs = {"mode": "cubic", "padding_mode": "border", "align_corners": 0}
    (out,) = run_node("GridSample", [row, grid], attrs, opset=20)
    np.testing.assert_allclose(out, [[[[4.0]]]], rtol=1e-6)
    grid[0, 0, 0, 0] = 1.0  # coordinate 2.5: pixels 1 and 2, and twice the border
    a = -0.75
    near = ((a + 2) * 0.5 - (a + 3)) * 0.25 + 1
    far = ((a * 1.5 - 5 * a) * 1.5 + 8 * a) * 1.5 - 4 * a
    (out,) = run_node("GridSample", [row, grid], attrs, opset=20)
    np.testing.assert_allclose(out, [[[[2 * far + 4 * (2 * near + far)]]]], rtol=1e-5)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def test_lstm_in_both_directions_over_sequences_of_different_lengths() -> None:
    steps, batch, inputs, hidden = 4, 3, 2, 3
    x, w, r = f32(steps, batch, inputs), f32(2, 4 * hidden, inputs), f32(2, 4 * hidden, hidden)
    bias, lengths = f32(2, 8 * hidden), np.array([4, 1, 2], np.int32)
    attrs = {"hidden_size": hidden, "direction": "bidirectional"}
    y, h, c = run_node("LSTM", [x, w, r, bias, lengths], attrs, outputs=3, constant=[1, 2, 3])
    want = np.zeros((steps, 2, batch, hidden))
    for d in range(2):
        for n in range(batch):
            state, cell = np.zeros(hidden), np.zeros(hidden)
            order = range(lengths[n]) if d == 0 else reversed(range(lengths[n]))
            for t in order:
                gates = w[d] @ x[t, n] + r[d] @ state + bias[d][: 4 * hidden]
                gates = gates + bias[d][4 * hidden :]
                i, o, f, g = np.split(gates.astype(np.float64), 4)
                cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                state = sigmoid(o) * np.tanh(cell)
                want[t, d, n] = state
            np.testing.assert_allclose(h[d, n], state, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(c[d, n], cell, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_the_1_norm_is_of_absolute_values() -> None:
    want = X / np.abs(X).sum(axis=1, keepdims=True)
    check("LpNormalization", [X], want, {"p": 1, "axis": 1})


@pytest.mark.parametrize("size", [1, 2, 5])
def test_local_response_norm(size: int) -> None:
    square = IMAGE.astype(np.float64) ** 2
    total = np.zeros_like(square)
    for c in range(4):
        first, last = max(0, c - (size - 1) // 2), min(3, c + size // 2)
        total[:, c] = square[:, first : last + 1].sum(axis=1)
    want = IMAGE / (1.5 + 0.1 / size * total) ** 0.6
    attrs = {"size": size, "alpha": 0.1, "beta": 0.6, "bias": 1.5}
    (out,) = run_node("LRN", [IMAGE], attrs)
    np.testing.assert_allclose(out, want, rtol=1e-5)


def test_group_norm_before_opset_21_has_one_scale_per_group() -> None:
    scale, bias = f32(2), f32(2)
    attrs = {"num_groups": 2}
    old = run_node("GroupNormalization", [IMAGE, scale, bias], attrs, opset=18)[0]
    each = [np.repeat(p, 2) for p in (scale, bias)]
    new = run_node("GroupNormalization", [IMAGE, *each], attrs, opset=21)[0]
    np.testing.assert_allclose(old, new, rtol=1e-6)


def test_blocked_dequantization() -> None:
    x = np.arange(10, dtype=np.int8).reshape(2, 5)
    scale = np.array([[1, 10, 100], [2, 20, 200]], np.float32)
    want = x * np.repeat(scale, 2, axis=1)[:, :5]
    check("DequantizeLinear", [x, scale], want, {"axis": 1, "block_size": 2})


# -- control flow ----------------------------------------------------------------------------


def branch(name: str, op: str) -> Any:
    node = helper.make_node(op, ["x"], [f"{name}_out"])
    out = helper.make_empty_tensor_value_info(f"{name}_out")
    return helper.make_graph([node], name, [], [out])


def test_if_selects_or_is_decided() -> None:
    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("a", "Exp"), else_branch=branch("b", "Neg")
    )
    x, c = f32(3), np.array(False)
    both = from_onnx(model_of([node], [info("c", c), info("x", x)], ["y"]))
    np.testing.assert_allclose(interpret(both, c, x)[0], -x)
    np.testing.assert_allclose(interpret(both, np.array(True), x)[0], np.exp(x), rtol=1e-6)
    decided = from_onnx(model_of([node], [info("x", x)], ["y"], {"c": c}))
    assert [op.name for op in decided.graph.main.body.block.ops] == ["mge.neg", "func.return"]


def test_loop_is_unrolled() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_out"]),
            helper.make_node("Add", ["v", "x"], ["v_out"]),
            helper.make_node("Cast", ["i"], ["i_float"], to=1),
            helper.make_node("Mul", ["v_out", "i_float"], ["scan"]),
        ],
        "body",
        [info(n, t, ()) for n, t in (("i", 7), ("go", 9), ("v", 1))],
        [helper.make_empty_tensor_value_info(n) for n in ("go_out", "v_out", "scan")],
    )
    node = helper.make_node("Loop", ["m", "go0", "v0"], ["v_last", "all"], body=body)
    x = f32(2)
    constants = {"m": np.array(3), "go0": np.array(True), "v0": np.zeros(2, np.float32)}
    model = from_onnx(model_of([node], [info("x", x)], ["v_last", "all"], constants))
    last, every = interpret(model, x)
    np.testing.assert_allclose(last, 3 * x, rtol=1e-6)
    np.testing.assert_allclose(every, np.stack([0 * x, 2 * x, 6 * x]), rtol=1e-6)


def test_scan_backward() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["s", "e"], ["s_out"]),
            helper.make_node("Identity", ["s_out"], ["o"]),
        ],
        "body",
        [info("s", 1, (2,)), info("e", 1, (2,))],
        [helper.make_empty_tensor_value_info(n) for n in ("s_out", "o")],
    )
    node = helper.make_node(
        "Scan", ["s0", "x"], ["last", "all"], body=body, num_scan_inputs=1,
        scan_input_axes=[1], scan_input_directions=[1], scan_output_axes=[1],
    )  # fmt: skip
    x = f32(2, 3)
    zeros = {"s0": np.zeros(2, np.float32)}
    model = from_onnx(model_of([node], [info("x", x)], ["last", "all"], zeros))
    last, every = interpret(model, x)
    np.testing.assert_allclose(last, x.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(every, np.cumsum(x[:, ::-1], axis=1), rtol=1e-5, atol=1e-6)


def test_sequences_exist_during_the_import() -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0),
        helper.make_node("SequenceErase", ["parts", "one"], ["fewer"]),
        helper.make_node("ConcatFromSequence", ["fewer"], ["y"], axis=0),
    ]
    x = f32(3, 2)
    model = from_onnx(model_of(nodes, [info("x", x)], ["y"], {"one": np.array(1)}))
    np.testing.assert_array_equal(interpret(model, x)[0], x[[0, 2]])


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "options", "reason"),
    [
        ("Reshape", [X, i64(4, 6)], {}, {},
         "shape must be known when the model is imported, but it is computed"),
        ("Dropout", [X, np.array(0.5, np.float32), np.array(True)], {}, {"constant": [1, 2]},
         "dropout in training mode"),
        ("RandomNormalLike", [X], {}, {}, "there is no handler for this op"),
        ("Cast", [X], {"to": 17}, {}, "element type FLOAT8E4M3FN"),
        ("MaxPool", [IMAGE[0, 0]], {"kernel_shape": [2]}, {}, "an input of rank 2"),
        ("LSTM", [f32(1, 1, 2), f32(1, 8, 2), f32(1, 8, 2)], {"hidden_size": 2, "clip": 1.0}, {},
         "an LSTM with a clip"),
        ("NonZero", [X], {}, {},
         "the input must be known when the model is imported, but it is computed"),
        ("Resize", [IMAGE, None, None, i64(2, 4, 5, 9)],
         {"mode": "linear", "coordinate_transformation_mode": "x"}, {"constant": [3]},
         "coordinate_transformation_mode 'x'"),
        ("Gather", [X, i64(9)], {}, {"constant": [1]},
         "an index is out of range for an axis of size 2"),
        ("Attention", [X, X, X], {}, {"opset": 10},
         "there is no such op in opset 10 of domain ''"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_refused(op: str, inputs: Any, attrs: Any, options: Any, reason: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        from_onnx(node_model(op, inputs, attrs, **options))
    (node,) = caught.value.nodes
    assert (node.op, node.reason) == (op, reason)


def test_an_attribute_that_no_handler_reads_is_refused() -> None:
    """A newer schema may add attributes; ignoring one would give wrong numbers."""
    proto = node_model("Attention", [f32(1, 2, 3, 4)] * 3, {"softcap": 2.0}, opset=23)
    model = from_onnx(proto)  # a handler that does not know it leaves it to ONNX's function
    names = {op.name for op in model.graph.main.body.block.ops}
    assert "mge.tanh" in names and "mge.attention" not in names
    with pytest.raises(UnsupportedModelError) as caught:
        from_onnx(node_model("RMSNormalization", [X, f32(4)], {"stash_type": 11}, opset=23))
    assert caught.value.nodes[0].reason == "attribute 'stash_type'"
