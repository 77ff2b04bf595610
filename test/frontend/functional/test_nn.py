from __future__ import annotations

from math import erf
from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F

RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("float32")


def close(out: mge.Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    assert out.shape == np.shape(expected)
    np.testing.assert_allclose(out.numpy(), expected, rtol=tolerance, atol=tolerance)


def windows(x: np.ndarray, kernel: Any, stride: Any, dilation: Any = (1, 1)) -> np.ndarray:
    """(N, C, OH, OW, kH, kW) of a padded image."""
    sizes = [
        (x.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)
    ]
    out = np.empty((*x.shape[:2], *sizes, *kernel), x.dtype)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(
                i * dilation[0], i * dilation[0] + (sizes[0] - 1) * stride[0] + 1, stride[0]
            )
            cols = slice(
                j * dilation[1], j * dilation[1] + (sizes[1] - 1) * stride[1] + 1, stride[1]
            )
            out[..., i, j] = x[:, :, rows, cols]
    return out


def convolve(x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """The definition, in float64."""
    (ph, pw) = padding
    x = np.pad(x.astype("float64"), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    w = w.reshape(groups, -1, *w.shape[-3:]).astype("float64")
    parts = np.split(windows(x, w.shape[-2:], stride, dilation), groups, 1)
    outs = [np.einsum("nchwij,ocij->nohw", p, w[g]) for g, p in enumerate(parts)]
    return np.concatenate(outs, 1)


CONVOLUTIONS = [
    # C, O, kernel, stride, padding, dilation, groups
    (3, 4, (3, 3), (1, 1), (0, 0), (1, 1), 1),
    (3, 4, (3, 2), (2, 1), (1, 0), (1, 2), 1),
    (4, 6, (3, 3), (1, 2), (1, 1), (1, 1), 2),
    (4, 4, (3, 3), (1, 1), (1, 1), (2, 2), 4),
    (4, 5, (1, 1), (1, 1), (0, 0), (1, 1), 1),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_conv2d(case: Any) -> None:
    channels, outs, kernel, stride, padding, dilation, groups = case
    x = random(2, channels, 9, 8)
    lead = (groups,) if groups > 1 else ()
    w = random(*lead, outs // groups, channels // groups, *kernel)
    bias = random(1, outs, 1, 1)
    out = F.conv2d(
        mge.tensor(x), mge.tensor(w), mge.tensor(bias), stride, padding, dilation, groups
    )
    close(out, convolve(x, w, stride, padding, dilation, groups) + bias, 1e-4)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_conv_transpose2d_is_the_adjoint(case: Any) -> None:
    channels, outs, kernel, stride, padding, dilation, groups = case
    lead = (groups,) if groups > 1 else ()
    w = mge.tensor(random(*lead, outs // groups, channels // groups, *kernel))
    x = random(2, channels, 9, 8)
    y = F.conv2d(mge.tensor(x), w, None, stride, padding, dilation, groups)
    d = random(*y.shape)
    extra = tuple(
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) % stride[i]
        for i in range(2)
    )
    back = F.conv_transpose2d(mge.tensor(d), w, None, stride, padding, extra, dilation, groups)
    assert back.shape == x.shape
    np.testing.assert_allclose((y.numpy() * d).sum(), (back.numpy() * x).sum(), rtol=1e-4)


def test_conv1d() -> None:
    x, w, b = random(2, 4, 10), random(2, 3, 2, 3), random(1, 6, 1)
    out = F.conv1d(mge.tensor(x), mge.tensor(w), mge.tensor(b), 2, 1, 1, groups=2)
    expected = convolve(x[..., None], w[..., None], (2, 1), (1, 0), (1, 1), 2)[..., 0] + b
    close(out, expected, 1e-4)


def test_conv3d() -> None:
    """A kernel of depth 2 is the sum of two 2-D convolutions of neighbouring planes."""
    x, w, b = random(2, 4, 5, 6, 7), random(2, 3, 2, 2, 3, 3), random(1, 6, 1, 1, 1)
    out = F.conv3d(
        mge.tensor(x), mge.tensor(w), mge.tensor(b), (2, 1, 2), (1, 1, 0), (3, 1, 1), groups=2
    )
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0), (0, 0)))
    planes = [
        sum(
            convolve(padded[:, :, d + 3 * i], w[..., i, :, :], (1, 2), (1, 0), (1, 1), 2)
            for i in range(2)
        )
        for d in range(0, 4, 2)
    ]
    close(out, np.stack(planes, 2) + b, 1e-4)


def test_conv_transpose3d_is_the_adjoint() -> None:
    x, w = random(2, 4, 5, 6, 7), mge.tensor(random(2, 3, 2, 2, 3, 3))
    geometry = (2, 1, 2), (1, 1, 0)
    y = F.conv3d(mge.tensor(x), w, None, *geometry, (3, 1, 1), 2)
    d = random(*y.shape)
    back = F.conv_transpose3d(mge.tensor(d), w, None, *geometry, (1, 0, 0), (3, 1, 1), 2)
    assert back.shape == x.shape
    np.testing.assert_allclose((y.numpy() * d).sum(), (back.numpy() * x).sum(), rtol=1e-4)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, None, 0), (3, 2, 1), ((3, 2), 1, 1)])
def test_pooling(kernel: Any, stride: Any, padding: Any) -> None:
    x = random(2, 3, 7, 8)
    k = (kernel, kernel) if isinstance(kernel, int) else kernel
    s = k if stride is None else (stride, stride)
    around = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    low = windows(np.pad(x, around, constant_values=-np.inf), k, s)
    zero = windows(np.pad(x, around), k, s)
    ones = windows(np.pad(np.ones_like(x), around), k, s)
    t = mge.tensor(x)
    close(F.max_pool2d(t, kernel, stride, padding), low.max((4, 5)))
    close(F.avg_pool2d(t, kernel, stride, padding), zero.sum((4, 5)) / ones.sum((4, 5)))
    close(F.avg_pool2d(t, kernel, stride, padding, mode="average"), zero.mean((4, 5)))


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (3, 5), (7, 8), (9, 2)])
def test_adaptive_pooling(size: tuple[int, int]) -> None:
    x = random(2, 3, 7, 8)
    for function, reduce in ((F.adaptive_avg_pool2d, np.mean), (F.adaptive_max_pool2d, np.max)):
        expected = np.empty((2, 3, *size), "float32")
        for i in range(size[0]):
            for j in range(size[1]):
                rows = slice(i * 7 // size[0], -((i + 1) * 7 // -size[0]))
                cols = slice(j * 8 // size[1], -((j + 1) * 8 // -size[1]))
                expected[:, :, i, j] = reduce(x[:, :, rows, cols], (2, 3))
        close(function(mge.tensor(x), size), expected)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": sigmoid,
    "hsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: x * (1 + np.vectorize(erf)(x / 2**0.5)) / 2,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "softplus": lambda x: np.logaddexp(x, 0),
    "logsigmoid": lambda x: -np.logaddexp(-x, 0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    x = np.linspace(-10, 10, 31, dtype="float32")
    close(getattr(F, name)(mge.tensor(x)), ACTIVATIONS[name](x.astype("float64")))


def test_prelu() -> None:
    x, w = random(2, 3, 4, 4), random(3)
    expected = np.where(x > 0, x, w.reshape(1, 3, 1, 1) * x)
    close(F.prelu(mge.tensor(x), mge.tensor(w)), expected)
    close(F.prelu(mge.tensor(x), mge.tensor(w.reshape(1, 3, 1, 1))), expected)
    close(F.prelu(mge.tensor(x), 0.5), np.where(x > 0, x, 0.5 * x))


def test_softmax_and_its_logarithm() -> None:
    x = random(2, 3, 4)
    e = np.exp(x)
    close(F.softmax(mge.tensor(x), 1), e / e.sum(1, keepdims=True))
    close(F.logsoftmax(mge.tensor(x), -1), np.log(e / e.sum(-1, keepdims=True)))
    close(F.logsumexp(mge.tensor(x), (0, 2)), np.log(e.sum((0, 2))))
    close(F.logsumexp(mge.tensor(x), 1, keepdims=True), np.log(e.sum(1, keepdims=True)))
    close(F.softmax(mge.tensor([1000.0, 1000.0])), [0.5, 0.5])
    close(F.softmax(mge.tensor(x)), e / e.sum(0, keepdims=True))  # MegEngine: axis 0 for rank 3
    close(F.softmax(mge.tensor(x[0])), e[0] / e[0].sum(1, keepdims=True))


def test_linear() -> None:
    x, w, b = random(2, 3, 4), random(5, 4), random(5)
    close(F.linear(mge.tensor(x), mge.tensor(w), mge.tensor(b)), x @ w.T + b)
    close(F.linear(mge.tensor(x[0, 0]), mge.tensor(w)), x[0, 0] @ w.T)


def normalized(x: Any, axes: Any, eps: float = 1e-5) -> Any:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 2, 5)])
def test_batch_norm(shape: tuple[int, ...]) -> None:
    x, w, b = random(*shape), random(1, 3, 1, 1), random(1, 3, 1, 1)
    ones = (1, 3) + (1,) * (len(shape) - 2)
    axes = (0, *range(2, len(shape)))
    mean, var = random(1, 3, 1, 1), np.abs(random(1, 3, 1, 1))
    running = mge.tensor(mean), mge.tensor(var)
    out = F.batch_norm(
        mge.tensor(x), *running, mge.tensor(w), mge.tensor(b), training=True, momentum=0.75
    )
    close(out, normalized(x, axes) * w.reshape(ones) + b.reshape(ones), 1e-4)
    close(running[0], 0.75 * mean + 0.25 * x.mean(axes).reshape(1, 3, 1, 1))
    unbiased = x.var(axes, ddof=1).reshape(1, 3, 1, 1)
    close(running[1], 0.75 * var + 0.25 * unbiased)
    out = F.batch_norm(mge.tensor(x), mge.tensor(mean), mge.tensor(var), training=False, eps=1e-3)
    scale = 1 / np.sqrt(var.reshape(ones) + 1e-3)
    close(out, (x - mean.reshape(ones)) * scale, 1e-4)
    out, new_mean, _ = F.batch_norm(
        mge.tensor(x), mge.tensor(mean), mge.tensor(var), training=True, inplace=False
    )
    close(new_mean, 0.9 * mean + 0.1 * x.mean(axes).reshape(1, 3, 1, 1))


def test_other_norms() -> None:
    x, w, b = random(2, 6, 4, 5), random(6), random(6)
    t, tw, tb = mge.tensor(x), mge.tensor(w), mge.tensor(b)
    wide = w.reshape(1, 6, 1, 1), b.reshape(1, 6, 1, 1)
    grouped = normalized(x.reshape(2, 3, -1), 2).reshape(x.shape)
    close(F.group_norm(t, 3, True, tw, tb), grouped * wide[0] + wide[1], 1e-4)
    close(F.group_norm(t, 3, False), grouped, 1e-4)
    close(F.instance_norm(t, True, tw, tb), normalized(x, (2, 3)) * wide[0] + wide[1], 1e-4)
    w2, b2 = random(4, 5), random(4, 5)
    out = F.layer_norm(t, (4, 5), True, mge.tensor(w2), mge.tensor(b2))
    close(out, normalized(x, (2, 3)) * w2 + b2, 1e-4)
    close(F.layer_norm(t, 5, False), normalized(x, 3), 1e-4)
    close(F.general_norm(t, (1, 3), False), normalized(x, (1, 3)), 1e-4)


def test_local_response_norm() -> None:
    x = random(2, 6, 3, 3)
    total = np.stack([(x[:, max(0, c - 2) : c + 3] ** 2).sum(1) for c in range(6)], 1)
    close(F.local_response_norm(mge.tensor(x)), x / (2 + 1e-4 * total) ** 0.75)


def test_one_hot_embedding_and_indexing() -> None:
    i = mge.tensor([[1, 0], [3, 2]])
    out = F.one_hot(i, 4)
    assert out.dtype is np.int32
    np.testing.assert_array_equal(out.numpy(), np.eye(4, dtype="int32")[i.numpy()])
    w, x = random(4, 3), random(2, 4, 3)
    close(F.embedding(i, mge.tensor(w)), w[i.numpy()])
    index = np.array([[0, 3, 1], [2, 2, 0]])
    expected = np.take_along_axis(x, index[:, None], 1)
    close(F.indexing_one_hot(mge.tensor(x), mge.tensor(index), 1, keepdims=True), expected)
    close(F.indexing_one_hot(mge.tensor(x), mge.tensor(index), 1), expected[:, 0])


@pytest.mark.parametrize(
    ("mode", "numpys"),
    [("constant", "constant"), ("edge", "edge"), ("replicate", "edge"), ("reflect", "reflect")],
)
def test_pad(mode: str, numpys: str) -> None:
    x = random(3, 4)
    np.testing.assert_array_equal(
        F.pad(mge.tensor(x), ((1, 2), (3, 0)), mode).numpy(), np.pad(x, ((1, 2), (3, 0)), numpys)
    )
    out = F.pad(mge.tensor(x), ((0, 1), (0, 0)), constant_value=7)
    assert out.numpy()[3, 0] == 7


def test_pixel_shuffle_and_sliding_window() -> None:
    x = random(2, 8, 3, 4)
    expected = x.reshape(2, 2, 2, 2, 3, 4).transpose(0, 1, 4, 2, 5, 3).reshape(2, 2, 6, 8)
    close(F.pixel_shuffle(mge.tensor(x), 2), expected)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    out = F.sliding_window(mge.tensor(x), (2, 3), (1, 0), 2, 1)
    close(out, windows(padded, (2, 3), (2, 2)))


def test_attention() -> None:
    q, k = random(2, 3, 4), random(2, 5, 4)
    w, b, ow, ob = random(12, 4), random(12), random(4, 4), random(4)
    qh, kh, vh = (
        (x @ w[i * 4 : i * 4 + 4].T + b[i * 4 : i * 4 + 4])
        .reshape(2, -1, 2, 2)
        .transpose(0, 2, 1, 3)
        for i, x in enumerate((q, k, k))
    )
    scores = np.einsum("nhld,nhsd->nhls", qh, kh) / 2**0.5
    allowed = np.tril(np.ones((3, 5), bool))
    scores = np.where(allowed, scores, -1e30)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = (weights @ vh).transpose(0, 2, 1, 3).reshape(2, 3, 4) @ ow.T + ob
    tensors = [mge.tensor(x) for x in (q, k, k)]
    params = [mge.tensor(x) for x in (w, b, ow, ob)]
    for mask in ({"attn_mask": mge.tensor(allowed)}, {"is_causal": True}):
        out, found = F.multi_head_attention(*tensors, 2, *params, **mask)
        close(out, expected, 1e-4)
        close(found, weights, 1e-4)


def test_interpolate() -> None:
    x = np.array([[[[0.0, 1.0, 2.0, 3.0]]]], "float32")
    assert F.interpolate(mge.tensor(x), (1, 2), mode="nearest").tolist() == [[[[0, 2]]]]
    out = F.interpolate(mge.tensor(x), (1, 7), align_corners=True)
    close(out[0, 0, 0], np.linspace(0, 3, 7))
    close(F.interpolate(mge.tensor(x), (1, 8))[0, 0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    assert F.interpolate(mge.tensor(x), scale_factor=2).shape == (1, 1, 2, 8)


IMAGE = np.zeros((1, 3, 8, 8), "float32")
CASES: list[tuple[Any, type[mge.MgecError], str]] = [
    (
        lambda x: F.conv2d(x, F.ones((4, 2, 3, 3))),
        mge.ShapeError,
        "conv2d: input has 3 channels but weight expects 2",
    ),
    (lambda x: F.conv2d(x[0], F.ones((4, 3, 3, 3))), mge.ShapeError, "conv2d: inp has rank 3"),
    (
        lambda x: F.conv2d(x, F.ones((4, 3, 3, 3)), groups=3),
        mge.ShapeError,
        "conv2d: weight has rank 4 but must have rank 5",
    ),
    (
        lambda x: F.conv2d(x, F.ones((2, 1, 3, 3, 3)), groups=3),
        mge.ShapeError,
        "conv2d: weight has 2 groups but groups is 3",
    ),
    (
        lambda x: F.conv2d(x, F.ones((4, 3, 3, 3)), F.ones((1, 5, 1, 1))),
        mge.ShapeError,
        "conv2d: bias has shape (1, 5, 1, 1) but the result has 4 channels",
    ),
    (lambda x: F.conv2d(x, F.ones((4, 3, 9, 9))), mge.ShapeError, "conv2d: kernel covers 9 rows"),
    (
        lambda x: F.conv2d(x, F.ones((4, 3, 3, 3)), stride=(1, 2, 3)),
        mge.ArgumentError,
        "conv2d: stride is (1, 2, 3), not an int or two ints",
    ),
    (
        lambda x: F.conv2d(x, F.ones((4, 3, 3, 3)), conv_mode="convolution"),
        mge.ArgumentError,
        "conv2d: conv_mode is 'convolution', which does not exist",
    ),
    (
        lambda x: F.conv_transpose2d(x, F.ones((4, 3, 3, 3))),
        mge.ShapeError,
        "conv_transpose2d: input has 3 channels but weight expects 4",
    ),
    (
        lambda x: F.conv_transpose2d(x, F.ones((3, 4, 3, 3)), output_padding=1),
        mge.ArgumentError,
        "conv_transpose2d: output_padding is (1, 1) but must be below",
    ),
    (
        lambda x: F.conv1d(x[0], F.ones((4, 8, 3)), stride=(1, 2)),
        mge.ArgumentError,
        "conv1d: stride is (1, 2), not an int or one int",
    ),
    (
        lambda x: F.conv3d(x, F.ones((4, 3, 3, 3, 3))),
        mge.ShapeError,
        "conv3d: inp has rank 4 but must have rank 5",
    ),
    (
        lambda x: F.conv3d(F.ones((1, 3, 4, 8, 8)), F.ones((4, 3, 3, 3, 3)), padding=(1, 1)),
        mge.ArgumentError,
        "conv3d: padding is (1, 1), not an int or three ints",
    ),
    (
        lambda x: F.conv3d(F.ones((1, 3, 2, 8, 8)), F.ones((4, 3, 3, 3, 3))),
        mge.ShapeError,
        "conv3d: kernel covers 3 planes but input has 2, padding included",
    ),
    (
        lambda x: F.conv_transpose3d(F.ones((1, 3, 2, 2, 2)), F.ones((3, 1, 1, 1, 1)), padding=1),
        mge.ShapeError,
        "conv_transpose3d: the result would have size (0, 0, 0)",
    ),
    (lambda x: F.avg_pool2d(x[0], 2), mge.ShapeError, "avg_pool2d: inp has rank 3"),
    (
        lambda x: F.avg_pool2d(x, 2, mode="max"),
        mge.ArgumentError,
        "avg_pool2d: mode is 'max', which does not exist",
    ),
    (lambda x: F.max_pool2d(x, 2, padding=2), mge.ArgumentError, "max_pool2d: padding is"),
    (lambda x: F.max_pool2d(x[0], 2), mge.ShapeError, "max_pool2d: inp has rank 3"),
    (
        lambda x: F.adaptive_avg_pool2d(x, 0),
        mge.ArgumentError,
        "adaptive_avg_pool2d: oshp is (0, 0) but must be at least 1",
    ),
    (
        lambda x: F.linear(x, F.ones((4, 3))),
        mge.ShapeError,
        "linear: input has 8 features but weight expects 3",
    ),
    (lambda x: F.softmax(x, 4), mge.AxisError, "softmax: axis 4 is out of range for rank 4"),
    (
        lambda x: F.batch_norm(x),
        mge.ArgumentError,
        "batch_norm: running_mean and running_var are missing but training is False",
    ),
    (
        lambda x: F.batch_norm(x, weight=F.ones(4), training=True),
        mge.ShapeError,
        "batch_norm: input has 3 channels but weight has 4",
    ),
    (
        lambda x: F.layer_norm(x, (7, 8), False),
        mge.ShapeError,
        "layer_norm: inp has shape (1, 3, 8, 8), which does not end in (7, 8)",
    ),
    (
        lambda x: F.layer_norm(x, 8, True),
        mge.ArgumentError,
        "layer_norm: affine is True but weight or bias is missing",
    ),
    (
        lambda x: F.group_norm(x, 2, False),
        mge.ShapeError,
        "group_norm: 2 groups do not divide 3 channels",
    ),
    (
        lambda x: F.dropout(x, 1.0),
        mge.ArgumentError,
        "dropout: drop_prob is 1.0 but must be at least 0 and below 1",
    ),
    (lambda x: F.one_hot(x, 3), mge.DTypeError, "one_hot: inp must be integers, but is float32"),
    (
        lambda x: F.one_hot(mge.tensor([3]), 3),
        mge.AxisError,
        "one_hot: inp holds 3 but must be below 3",
    ),
    (
        lambda x: F.embedding(mge.tensor([9]), F.ones((4, 2))),
        mge.AxisError,
        "embedding: inp holds 9 but must be below 4",
    ),
    (
        lambda x: F.pad(x, ((1, 1),)),
        mge.ArgumentError,
        "pad: pad_width ((1, 1),) does not fit rank 4",
    ),
    (
        lambda x: F.pad(x, ((0, 0),) * 4, "wrap"),
        mge.ArgumentError,
        "pad: mode is 'wrap', which does not exist",
    ),
    (
        lambda x: F.pixel_shuffle(x, 2),
        mge.ShapeError,
        "pixel_shuffle: shape (1, 3, 8, 8) cannot be shuffled by a factor of 2",
    ),
    (
        lambda x: F.interpolate(x),
        mge.ArgumentError,
        "interpolate: give either size or scale_factor",
    ),
    (
        lambda x: F.local_response_norm(x, 4),
        mge.ArgumentError,
        "local_response_norm: kernel_size is 4 but must be odd",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), CASES, ids=[row[2][:40] for row in CASES])
def test_errors(call: Any, error: type[mge.MgecError], text: str) -> None:
    with pytest.raises(error) as caught:
        call(mge.tensor(IMAGE))
    assert caught.value.headline.startswith(text)
    assert caught.value.fix and caught.value.location.file == __file__


def test_dropout() -> None:
    mge.random.seed(0)
    x = F.ones((100, 100))
    out = F.dropout(x, 0.25).numpy()
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    assert not np.array_equal(out, F.dropout(x, 0.25).numpy())
    assert F.dropout(x, 0.25, training=False) is x
