"""Twelve architectures that no kernel template was tuned on, for PyTorch's Python.

    venv-torch/bin/python benchmarks/twelve_models.py export DIR [NAME...]
    venv-torch/bin/python benchmarks/twelve_models.py bench NAME --threads 1 [--compile]

`export` writes DIR/NAME.onnx, and DIR/NAME.npz with the input `x` and the output `y`. `bench`
measures the module itself, eagerly or compiled, and prints one line of JSON. Weights and inputs
come from fixed seeds. Needs torch, onnx, onnxscript and NumPy only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx_peer
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEED = 20
"""Of the weights; the input's is the next."""

OPSET = 18


def conv_norm(
    inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A convolution that keeps the size (but for the stride), and a batch norm."""
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(
        inp, out, kernel, stride, padding, groups=groups, dilation=dilation, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(out))


def conv_relu(inp: int, out: int, kernel: int, stride: int = 1, **options: int) -> nn.Sequential:
    return nn.Sequential(*conv_norm(inp, out, kernel, stride, **options), nn.ReLU())


class Residual(nn.Module):
    """relu(body(x) + x), with the other branch projected where the shapes differ."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Classifier(nn.Sequential):
    """Global average, then a linear layer."""

    def __init__(self, channels: int, classes: int = 1000) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def resnext() -> nn.Module:
    """Bottlenecks with 32 groups (ResNeXt, arXiv 1611.05431), 3 stages of 2 blocks."""
    layers: list[nn.Module] = [conv_relu(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, width in enumerate((128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            out = 2 * width
            body = nn.Sequential(
                conv_relu(channels, width, 1),
                conv_relu(width, width, 3, stride, groups=32),
                conv_norm(width, out, 1),
            )
            shortcut = None if channels == out else conv_norm(channels, out, 1, stride)
            layers.append(Residual(body, shortcut))
            channels = out
    return nn.Sequential(*layers, Classifier(channels))


def odd_channels() -> nn.Module:
    """Channel counts and sizes that no vector length divides."""
    channels = (3, 17, 35, 61, 97, 131)
    layers: list[nn.Module] = []
    for i, (inp, out) in enumerate(pairwise(channels)):
        layers += [conv_relu(inp, out, 5 if i == 1 else 3, 2 if i % 2 else 1)]
        layers += [conv_relu(out, out, 3), nn.Conv2d(out, out, 1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, Classifier(channels[-1], 37))


class WaveBlock(nn.Module):
    """A gated, dilated convolution with a residual and a skip output (arXiv 1609.03499)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.gates = nn.Conv1d(channels, 2 * channels, 3, dilation=dilation)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gate = self.gates(F.pad(x, (self.pad, 0))).chunk(2, 1)
        skip = self.out(torch.tanh(value) * torch.sigmoid(gate))
        return x + skip, skip


class WaveNet(nn.Module):
    """Strided 1-D convolutions, then two stacks of dilations from 1 to 64, over audio."""

    def __init__(self, channels: int = 96) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(1, 48, 9, 4, 4), nn.ReLU(), nn.Conv1d(48, channels, 9, 4, 4), nn.ReLU()
        )
        self.blocks = nn.ModuleList(WaveBlock(channels, 2**i) for _ in range(2) for i in range(7))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(channels, 128, 1), nn.ReLU())
        self.out = nn.Conv1d(128, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        total: Tensor | None = None
        for block in self.blocks:
            x, skip = block(x)
            total = skip if total is None else total + skip
        assert total is not None
        return self.out(self.head(total))


def video3d() -> nn.Module:
    """3-D convolutions over 8 frames of 56 x 56."""

    def stage(inp: int, out: int, stride: tuple[int, int, int]) -> list[nn.Module]:
        conv = nn.Conv3d(inp, out, 3, stride, 1, bias=False)
        return [conv, nn.BatchNorm3d(out), nn.ReLU()]

    return nn.Sequential(
        nn.Conv3d(3, 24, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
        nn.BatchNorm3d(24),
        nn.ReLU(),
        *stage(24, 48, (1, 1, 1)),
        nn.MaxPool3d(2),
        *stage(48, 96, (1, 1, 1)),
        *stage(96, 128, (2, 2, 2)),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(128, 101),
    )


class DeepLab(nn.Module):
    """Dilated residual blocks, pyramid pooling with rates 6, 12, 18, and a resize (1706.05587)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_relu(3, 32, 3, 2), conv_relu(32, 64, 3, 2))
        self.low = conv_relu(64, 24, 1)
        self.down = conv_relu(64, 128, 3, 2)
        self.body = nn.Sequential(
            *[Residual(nn.Sequential(conv_relu(128, 128, 3, dilation=d), conv_norm(128, 128, 3)))
              for d in (2, 4)]
        )  # fmt: skip
        self.rates = nn.ModuleList(
            [conv_relu(128, 64, 1), *[conv_relu(128, 64, 3, dilation=d) for d in (6, 12, 18)]]
        )
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(128, 64, 1), nn.ReLU())
        self.merge = conv_relu(5 * 64, 96, 1)
        self.head = nn.Sequential(conv_relu(96 + 24, 64, 3), nn.Conv2d(64, 21, 1))

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        y = self.body(self.down(stem))
        image = self.image(y).expand(-1, -1, y.shape[2], y.shape[3])
        y = self.merge(torch.cat([*[rate(y) for rate in self.rates], image], 1))
        y = F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
        y = self.head(torch.cat([y, self.low(stem)], 1))
        return F.interpolate(y, scale_factor=4.0, mode="bilinear", align_corners=False)


class ConvNeXtBlock(nn.Module):
    """7 x 7 depthwise, layer norm over channels-last, GELU (arXiv 2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = (
            nn.Linear(channels, 4 * channels),
            nn.Linear(4 * channels, channels),
        )
        self.scale = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(F.gelu(self.wide(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


class ChannelsNorm(nn.Module):
    """Layer norm over the channels of an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Three stages of large-kernel blocks."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 4), ChannelsNorm(64)]
    for i, channels in enumerate((64, 128, 256)):
        if i:
            layers += [ChannelsNorm(channels // 2), nn.Conv2d(channels // 2, channels, 2, 2)]
        layers += [ConvNeXtBlock(channels) for _ in range(2)]
    return nn.Sequential(*layers, Classifier(256))


def cifar_batch8() -> nn.Module:
    """Residual blocks at 32 x 32, for a batch of 8."""

    def block(inp: int, out: int, stride: int) -> nn.Module:
        body = nn.Sequential(conv_relu(inp, out, 3, stride), conv_norm(out, out, 3))
        return Residual(body, None if inp == out else conv_norm(inp, out, 1, stride))

    blocks = [block(i, o, s) for i, o, s in ((32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2))]
    return nn.Sequential(conv_relu(3, 32, 3), *blocks, Classifier(128, 10))


class SelfAttention(nn.Module):
    """Multi-head attention with one linear layer for queries, keys and values."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        packed = self.qkv(x).reshape(batch, length, 3, self.heads, channels // self.heads)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(batch, length, channels))


class PreNorm(nn.Module):
    """x + body(norm(x))"""

    def __init__(self, channels: int, body: nn.Module) -> None:
        super().__init__()
        self.norm, self.body = nn.LayerNorm(channels, eps=1e-6), body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(self.norm(x))


def mlp(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))


class ViT(nn.Module):
    """Patches of 16 x 16 and a class token: 197 tokens (arXiv 2010.11929)."""

    def __init__(self, channels: int = 192, heads: int = 3, depth: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, channels) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 197, channels) * 0.02)
        blocks: list[nn.Module] = []
        for _ in range(depth):
            blocks.append(PreNorm(channels, SelfAttention(channels, heads)))
            blocks.append(PreNorm(channels, mlp(channels, 4 * channels)))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class MBConv(nn.Module):
    """Expand, depthwise, squeeze and excite, project; SiLU (EfficientNet, arXiv 1905.11946)."""

    def __init__(self, inp: int, out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden, squeezed = inp * expand, max(1, inp // 4)
        self.expand = nn.Sequential(*conv_norm(inp, hidden, 1), nn.SiLU())
        self.depthwise = nn.Sequential(
            *conv_norm(hidden, hidden, kernel, stride, groups=hidden), nn.SiLU()
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, squeezed, 1), nn.SiLU(),
            nn.Conv2d(squeezed, hidden, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.project = conv_norm(hidden, out, 1)
        self.residual = inp == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = self.project(y * self.gate(y))
        return x + y if self.residual else y


def efficientnet() -> nn.Module:
    """Eight inverted bottlenecks with 3 x 3 and 5 x 5 depthwise kernels."""
    plan = (
        (16, 24, 3, 2, 6), (24, 24, 3, 1, 6), (24, 40, 5, 2, 6), (40, 40, 5, 1, 6),
        (40, 80, 3, 2, 6), (80, 80, 3, 1, 6), (80, 112, 5, 1, 6), (112, 192, 5, 2, 6),
    )  # fmt: skip
    stem = nn.Sequential(*conv_norm(3, 16, 3, 2), nn.SiLU())
    head = nn.Sequential(*conv_norm(192, 640, 1), nn.SiLU())
    return nn.Sequential(stem, *[MBConv(*row) for row in plan], head, Classifier(640))


class ShuffleUnit(nn.Module):
    """Half of the channels pass, the others are convolved; then they are shuffled (1807.11164)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            conv_relu(half, half, 1),
            conv_norm(half, half, 3, groups=half),
            conv_relu(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, used = x.chunk(2, 1)
        y = torch.cat([kept, self.body(used)], 1)
        batch, channels, height, width = y.shape
        y = y.reshape(batch, 2, channels // 2, height, width).transpose(1, 2)
        return y.reshape(batch, channels, height, width)


class ShuffleDown(nn.Module):
    """The unit that halves the image and makes more channels."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        half = out // 2
        self.left = nn.Sequential(conv_norm(inp, inp, 3, 2, groups=inp), conv_relu(inp, half, 1))
        self.right = nn.Sequential(
            conv_relu(inp, half, 1), conv_norm(half, half, 3, 2, groups=half),
            conv_relu(half, half, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


def shufflenet() -> nn.Module:
    """Three stages of shuffle units."""
    layers: list[nn.Module] = [conv_relu(3, 32, 3, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 32
    for out, units in ((176, 3), (352, 5), (704, 3)):
        layers += [ShuffleDown(channels, out), *[ShuffleUnit(out) for _ in range(units)]]
        channels = out
    return nn.Sequential(*layers, conv_relu(channels, 1024, 1), Classifier(1024))


class InstanceUNet(nn.Module):
    """Strided 4 x 4 convolutions down, transposed ones up, instance norms (pix2pix, 1611.07004)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 128)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        inp = 3
        for width in widths:
            conv = nn.Conv2d(inp, width, 4, 2, 1)
            self.down.append(nn.Sequential(conv, nn.InstanceNorm2d(width), nn.LeakyReLU(0.2)))
            inp = width
        for i, width in enumerate((128, 64, 32)):
            conv = nn.ConvTranspose2d(inp if not i else 2 * inp, width, 4, 2, 1)
            self.up.append(nn.Sequential(conv, nn.InstanceNorm2d(width), nn.ReLU()))
            inp = width
        self.out = nn.ConvTranspose2d(2 * inp, 3, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for down in self.down:
            x = down(x)
            kept.append(x)
        kept.pop()
        for up in self.up:
            x = torch.cat([up(x), kept.pop()], 1)
        return torch.tanh(self.out(x))


class MixerBlock(nn.Module):
    """An MLP over the tokens, then one over the channels (arXiv 2105.01601)."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.tokens = mlp(tokens, tokens * 2)
        self.channels = PreNorm(channels, mlp(channels, channels * 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.channels(x + y)


class Mixer(nn.Module):
    """Patches of 16 x 16 and six mixer blocks."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 16, 16)
        self.blocks = nn.Sequential(*[MixerBlock(196, channels) for _ in range(6)])
        self.norm, self.head = nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


IMAGE = (1, 3, 224, 224)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnext": (resnext, IMAGE),
    "odd_channels": (odd_channels, (1, 3, 107, 93)),
    "wavenet": (WaveNet, (1, 1, 16000)),
    "video3d": (video3d, (1, 3, 8, 56, 56)),
    "deeplab": (DeepLab, (1, 3, 192, 192)),
    "convnext": (convnext, IMAGE),
    "cifar_batch8": (cifar_batch8, (8, 3, 32, 32)),
    "vit_tiny": (ViT, IMAGE),
    "efficientnet": (efficientnet, IMAGE),
    "shufflenet": (shufflenet, IMAGE),
    "instance_unet": (InstanceUNet, (1, 3, 256, 256)),
    "mixer": (Mixer, IMAGE),
}
"""By name, what makes the module, and the shape of its input."""


def build(name: str) -> tuple[nn.Module, Tensor]:
    """The module, with weights that keep activations of size 1, and its input."""
    make, shape = MODELS[name]
    torch.manual_seed(SEED)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            fan_in = math.prod(module.weight.shape[1:])
            nn.init.normal_(module.weight, 0, math.sqrt(1.5 / fan_in))
    torch.manual_seed(SEED + 1)
    return model.eval(), torch.randn(shape)


def export(folder: Path, names: list[str]) -> None:
    """Writes models, inputs and outputs."""
    from torch.utils.flop_counter import FlopCounterMode

    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        model, x = build(name)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            y = model(x)
        program = torch.onnx.export(
            model, (x,), dynamo=True, opset_version=OPSET, optimize=True,
            input_names=["x"], output_names=["y"], verbose=False,
        )  # fmt: skip
        assert program is not None
        program.save(folder / f"{name}.onnx", external_data=False)
        np.savez(folder / f"{name}.npz", x=x.numpy(), y=y.numpy())
        figures = {"model": name, "gflop": counter.get_total_flops() / 1e9, "std": float(y.std())}
        print(json.dumps(figures), flush=True)


def bench(name: str, threads: int, seconds: float, *, compiled: bool) -> None:
    """Measures a module and prints one line of JSON."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    model, x = build(name)
    with torch.no_grad():
        y = model(x).numpy()
        run: Any = model
        if compiled:
            import torch._inductor.config as inductor

            inductor.freezing = True
            run = torch.compile(model)
        error = onnx_peer.relative_error({"y": run(x).numpy()}, {"y": y})
        row = {
            "framework": "torch_compile" if compiled else "torch",
            "version": torch.__version__,
            "threads": threads,
            "rel_err": error,
            **onnx_peer.times_of(lambda: run(x), seconds),
            "peak_rss_mb": onnx_peer.peak_rss_mb(),
        }
    print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export")
    exporting.add_argument("folder", type=Path)
    exporting.add_argument("names", nargs="*")
    benching = commands.add_parser("bench")
    benching.add_argument("name", choices=MODELS)
    benching.add_argument("--threads", type=int, default=1)
    benching.add_argument("--seconds", type=float, default=2.0)
    benching.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.command == "export":
        export(options.folder, options.names or list(MODELS))
        return
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    bench(options.name, options.threads, options.seconds, compiled=options.compile)


if __name__ == "__main__":
    main()
