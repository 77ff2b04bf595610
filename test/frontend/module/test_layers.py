from __future__ import annotations

from collections import OrderedDict
from math import sqrt
from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
import mgec.module as M

IMAGE = mge.tensor(np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype("float32"))
VOLUME = mge.tensor(np.random.default_rng(2).standard_normal((2, 4, 3, 5, 5)).astype("float32"))
ROWS = mge.tensor(np.random.default_rng(1).standard_normal((3, 5, 4)).astype("float32"))

SHAPES: list[tuple[Any, Any, tuple[int, ...], dict[str, tuple[int, ...]]]] = [
    (lambda: M.Linear(4, 3), ROWS, (3, 5, 3), {"weight": (3, 4), "bias": (3,)}),
    (lambda: M.Linear(4, 3, bias=False), ROWS, (3, 5, 3), {"weight": (3, 4)}),
    (
        lambda: M.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        IMAGE,
        (2, 6, 3, 3),
        {"weight": (2, 3, 2, 3, 3), "bias": (1, 6, 1, 1)},
    ),
    (
        lambda: M.Conv2d(4, 6, (3, 1), padding=(1, 0), padding_mode="reflect"),
        IMAGE,
        (2, 6, 6, 6),
        {"weight": (6, 4, 3, 1), "bias": (1, 6, 1, 1)},
    ),
    (lambda: M.Conv1d(5, 2, 3), ROWS, (3, 2, 2), {"weight": (2, 5, 3), "bias": (1, 2, 1)}),
    (
        lambda: M.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        IMAGE,
        (2, 6, 12, 12),
        {"weight": (2, 2, 3, 3, 3), "bias": (1, 6, 1, 1)},
    ),
    (
        lambda: M.Conv3d(4, 6, (1, 3, 2), stride=(1, 2, 1), padding=(0, 1, 0), groups=2),
        VOLUME,
        (2, 6, 3, 3, 4),
        {"weight": (2, 3, 2, 1, 3, 2), "bias": (1, 6, 1, 1, 1)},
    ),
    (
        lambda: M.ConvTranspose3d(4, 2, 3, stride=2, padding=1, output_padding=1),
        VOLUME,
        (2, 2, 6, 10, 10),
        {"weight": (4, 2, 3, 3, 3), "bias": (1, 2, 1, 1, 1)},
    ),
    (lambda: M.ConvTransposeRelu2d(4, 2, 1), IMAGE, (2, 2, 6, 6), {}),
    (lambda: M.ConvTransposeBn2d(4, 2, 2, stride=2, output_padding=1), IMAGE, (2, 2, 13, 13), {}),
    (lambda: M.ConvTransposeBnRelu2d(4, 2, 1), IMAGE, (2, 2, 6, 6), {}),
    (lambda: M.ConvRelu2d(4, 2, 1), IMAGE, (2, 2, 6, 6), {}),
    (lambda: M.ConvBnRelu2d(4, 2, 1), IMAGE, (2, 2, 6, 6), {}),
    (
        lambda: M.BatchNorm2d(4),
        IMAGE,
        (2, 4, 6, 6),
        dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (1, 4, 1, 1)),
    ),
    (lambda: M.BatchNorm1d(5, affine=False), ROWS, (3, 5, 4), {"running_mean": (1, 5, 1, 1)}),
    (lambda: M.BatchNorm2d(4, track_running_stats=False), IMAGE, (2, 4, 6, 6), {}),
    (lambda: M.LayerNorm((5, 4)), ROWS, (3, 5, 4), {"weight": (5, 4), "bias": (5, 4)}),
    (lambda: M.GroupNorm(2, 4), IMAGE, (2, 4, 6, 6), {"weight": (4,), "bias": (4,)}),
    (lambda: M.InstanceNorm(4), IMAGE, (2, 4, 6, 6), {"weight": (4,)}),
    (lambda: M.GeneralNorm((5,), 1), ROWS, (3, 5, 4), {"weight": (5,)}),
    (lambda: M.LocalResponseNorm(), IMAGE, (2, 4, 6, 6), {}),
    (lambda: M.MaxPool2d(3, 2, 1), IMAGE, (2, 4, 3, 3), {}),
    (lambda: M.AvgPool2d(2), IMAGE, (2, 4, 3, 3), {}),
    (lambda: M.AdaptiveAvgPool2d(1), IMAGE, (2, 4, 1, 1), {}),
    (lambda: M.AdaptiveMaxPool2d((2, 3)), IMAGE, (2, 4, 2, 3), {}),
    (lambda: M.PReLU(4), IMAGE, (2, 4, 6, 6), {"weight": (1, 4, 1, 1)}),
    (lambda: M.PReLU(), IMAGE, (2, 4, 6, 6), {"weight": (1,)}),
    (lambda: M.Pad(((0, 0), (0, 0), (1, 1), (0, 2))), IMAGE, (2, 4, 8, 8), {}),
    (lambda: M.PixelShuffle(2), IMAGE, (2, 1, 12, 12), {}),
    (lambda: M.Flatten(), IMAGE, (2, 144), {}),
    (lambda: M.Identity(), IMAGE, (2, 4, 6, 6), {}),
    (
        lambda: M.Embedding(7, 3),
        mge.tensor([[1, 6]]),
        (1, 2, 3),
        {"weight": (7, 3)},
    ),
]


@pytest.mark.parametrize("case", SHAPES, ids=lambda case: repr(case[0]())[:50])
def test_shapes(case: Any) -> None:
    make, inp, expected, tensors = case
    layer = make()
    out = layer(inp)
    assert out.shape == expected and np.isfinite(out.numpy()).all()
    for name, shape in tensors.items():
        assert getattr(layer, name).shape == shape
    assert repr(layer).startswith(type(layer).__name__)


@pytest.mark.parametrize(
    ("layer", "function"),
    [(M.ReLU, F.relu), (M.ReLU6, F.relu6), (M.Sigmoid, F.sigmoid), (M.Tanh, F.tanh),
     (M.SiLU, F.silu), (M.GELU, F.gelu), (M.HSigmoid, F.hsigmoid), (M.HSwish, F.hswish),
     (M.Softplus, F.softplus), (M.LogSigmoid, F.logsigmoid), (M.LeakyReLU, F.leaky_relu),
     (M.Softmax, F.softmax), (M.LogSoftmax, lambda x: F.logsoftmax(x, 1))],
)  # fmt: skip
def test_activations(layer: Any, function: Any) -> None:
    np.testing.assert_array_equal(layer()(ROWS).numpy(), function(ROWS).numpy())


def test_attention() -> None:
    layer = M.MultiHeadAttention(4, 2)
    out, weights = layer(ROWS, ROWS, ROWS, is_causal=True)
    assert out.shape == (3, 5, 4) and weights.shape == (3, 2, 5, 5)
    np.testing.assert_allclose(weights.numpy().sum(-1), 1, rtol=1e-5)
    assert (np.triu(weights.numpy()[0, 0], 1) == 0).all()
    assert [n for n, _ in layer.named_parameters()] == [
        "qkv_weight", "qkv_bias", "out_proj.weight", "out_proj.bias",
    ]  # fmt: skip


def test_batch_norm_modes() -> None:
    layer = M.BatchNorm2d(4)
    layer.eval()
    np.testing.assert_allclose(layer(IMAGE).numpy(), IMAGE.numpy() / np.sqrt(1 + 1e-5), rtol=1e-5)
    assert layer.running_mean.numpy().sum() == 0
    layer.train()
    layer(IMAGE)
    mean = IMAGE.numpy().mean((0, 2, 3))
    np.testing.assert_allclose(layer.running_mean.numpy().ravel(), 0.1 * mean, rtol=1e-4, atol=1e-7)
    frozen = M.BatchNorm2d(4, freeze=True)
    frozen(IMAGE)
    assert frozen.running_mean.numpy().sum() == 0
    layer.reset_parameters()
    assert (layer.running_var.numpy() == 1).all()


def test_dropout_is_off_for_inference() -> None:
    layer = M.Dropout(0.5)
    layer.eval()
    assert layer(ROWS) is ROWS
    assert M.Dropout()(ROWS) is ROWS


def test_sequential() -> None:
    net = M.Sequential(M.Linear(4, 3), M.ReLU(), M.Linear(3, 2))
    assert len(net) == 3 and isinstance(net[1], M.ReLU) and net[-1] is list(net)[2]
    assert net(ROWS).shape == (3, 5, 2) and net[:2](ROWS).shape == (3, 5, 3)
    net[1] = M.Identity()
    assert isinstance(net[1], M.Identity)
    named = M.Sequential(OrderedDict(first=M.Linear(4, 3), second=M.ReLU()))
    assert [n for n, _ in named.named_parameters()] == ["first.weight", "first.bias"]
    with pytest.raises(mge.ArgumentError, match="Sequential: 0 is a function, not a module"):
        M.Sequential(F.relu)
    with pytest.raises(mge.AxisError, match="Sequential: index 3 is out of range for 3 modules"):
        net[3]


def test_embedding_from_pretrained() -> None:
    table = mge.tensor([[1.0, 2.0], [3.0, 4.0]])
    layer = M.Embedding.from_pretrained(table)
    assert layer(mge.tensor([1])).tolist() == [[3, 4]] and not list(layer.parameters())
    assert list(M.Embedding.from_pretrained(table, freeze=False).parameters())


def test_first_values() -> None:
    mge.random.seed(0)
    w = M.Linear(1000, 500).weight.numpy()
    assert abs(w.std() - sqrt(1 / 1000)) < 1e-3 and abs(w.mean()) < 1e-3
    w = M.Conv2d(64, 32, 3).weight.numpy()
    assert abs(w.std() - sqrt(1 / (64 * 9))) < 1e-3


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: M.Linear(0, 3), "Linear: in_features is 0 but must be at least 1"),
        (lambda: M.Linear(2.5, 3), "Linear: in_features is 2.5, not an integer"),
        (lambda: M.Conv2d(3, 4, 3, groups=2), "Conv2d: 2 groups do not divide in_channels 3"),
        (lambda: M.Conv2d(3, 4, "3"), "Conv2d: kernel_size is '3', not an int or two ints"),
        (
            lambda: M.Conv2d(3, 4, 3, padding_mode="circular"),
            "Conv2d: padding_mode is 'circular', which does not exist",
        ),
        (lambda: M.Dropout(1.5), "Dropout: drop_prob is 1.5 but must be at least 0 and below 1"),
        (lambda: M.AvgPool2d(2, mode="max"), "AvgPool2d: mode is 'max', which does not exist"),
        (lambda: M.GroupNorm(3, 4), "GroupNorm: 3 groups do not divide 4 channels"),
        (
            lambda: M.MultiHeadAttention(5, 2),
            "MultiHeadAttention: 2 heads do not divide embed_dim 5",
        ),
        (
            lambda: M.Embedding(3, 2, padding_idx=0),
            "Embedding: padding_idx, max_norm and norm_type are not supported",
        ),
        (
            lambda: M.BatchNorm2d(3, track_running_stats=False, freeze=True),
            "BatchNorm2d: freeze is True but track_running_stats is False",
        ),
        (
            lambda: M.BatchNorm2d(5)(ROWS),
            "BatchNorm2d: inp has rank 3 but must have rank 4",
        ),
    ],
)
def test_errors(call: Any, text: str) -> None:
    with pytest.raises(mge.MgecError) as caught:
        call()
    assert caught.value.headline == text
    assert caught.value.fix


@pytest.mark.parametrize("case", SHAPES, ids=lambda case: repr(case[0]())[:50])
def test_gradients_are_those_of_central_differences(case: Any) -> None:
    make, inp, _, _ = case
    mge.random.seed(0)
    layer = make()
    wanted = list(layer.parameters())
    if inp.dtype is np.float32:
        inp = mge.tensor(inp.numpy())
        wanted.append(inp)
    gm = mge.autodiff.GradManager().attach(wanted)
    weights = mge.random.host_generator().standard_normal(layer(inp).shape).astype("float32")
    with gm:
        gm.backward((layer(inp) * mge.tensor(weights)).sum())
    for tensor in wanted:
        assert tensor.grad is not None and tensor.grad.shape == tensor.shape
        start, direction = tensor.numpy(), np.sign(tensor.grad.numpy())
        ends = []
        for step in (1e-2, -1e-2):
            tensor.set_value(start + step * direction)
            ends.append((layer(inp).numpy().astype("float64") * weights).sum())
        tensor.set_value(start)
        slope = (ends[0] - ends[1]) / 2e-2
        np.testing.assert_allclose(np.abs(tensor.grad.numpy()).sum(), slope, rtol=0.08, atol=0.02)
