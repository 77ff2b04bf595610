"""What templates offer for regions around a contraction: convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from mgec.compiler.kernels.candidate import Offer
from mgec.compiler.kernels.contracted import Contracted
from mgec.compiler.kernels.contraction import ContractionTiles, contraction_kernel
from mgec.compiler.kernels.conv_tiles import SHALLOW, DirectConvTiles
from mgec.compiler.kernels.cost import direct_cost
from mgec.compiler.kernels.depthwise import DepthwiseTiles, depthwise_kernel
from mgec.compiler.kernels.direct_conv import direct_conv_kernel
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.region import Region, Size
from mgec.compiler.kernels.source import KernelSource, Tiles
from mgec.compiler.kernels.transposed_conv import transposed_conv_kernel
from mgec.compiler.kernels.winograd import winograd_kernel
from mgec.compiler.kernels.winograd_tiles import (
    ROUNDING_PRICE,
    WinogradProblem,
    WinogradTiles,
    winograd_cost,
    winograd_tile,
)
from mgec.compiler.kernels.winograd_transform import TAPS, TILES
from mgec.compiler.targets import Target
from mgec.dialects.mge.spatial import Geometry
from mgec.dialects.mge.spec import FLOAT32


def convolution_offers(region: Region, name: str, target: Target) -> list[Offer]:
    """A convolution of channels-last images with constant weights."""
    c = Contracted.of(region)
    _check_convolution(c)
    if _is_deep_product(c):
        raise NotApplicable("a matrix product")
    direct = _direct(c, name, target)
    attrs, (inp, weight, out) = c.root.attrs, _shapes(c)
    if attrs["groups"] != 1:
        return [_depthwise(c, name, target), direct]
    filters = weight[2:] == (TAPS, TAPS) and c.dtype == FLOAT32
    if not _is_dense(c) or not filters or target.saves_memory:
        return [direct]
    problem = WinogradProblem.of(inp, weight, out, attrs, c.channels)
    base = WinogradTiles.for_target(target)

    def make(tile: int, tiles: Tiles | None) -> KernelSource:
        chosen = tiles or base.fit(target, problem, tile)
        assert isinstance(chosen, WinogradTiles)
        return c.in_order(
            winograd_kernel(
                name, target, c.maps, inp, weight, out, attrs,
                epilogue=c.epilogue, channels=c.channels, tiles=chosen,
            )
        )  # fmt: skip

    best = winograd_tile(target, inp, weight, out)
    tiles = [best, *(tile for tile in TILES if tile != best)]
    offers = [
        Offer(
            f"winograd F({tile}x{tile})",
            partial(make, tile),
            winograd_cost(target, inp, weight, out, tile),
            ROUNDING_PRICE[tile],
        )
        for tile in tiles
    ]
    faster = winograd_cost(target, inp, weight, out, best) < direct_cost(target, weight, out)
    return [offers[0], direct, *offers[1:]] if faster else [direct, *offers]


def transposed_offers(region: Region, name: str, target: Target) -> list[Offer]:
    """A transposed convolution of channels-last images with constant weights."""
    c = Contracted.of(region)
    _check_convolution(c, "mge.conv_dgrad")
    d_out, weight, out = _shapes(c)

    def make(tiles: Tiles | None) -> KernelSource:
        assert tiles is None or isinstance(tiles, DirectConvTiles)
        return c.in_order(
            transposed_conv_kernel(
                name, target, c.maps, d_out, weight, out, c.root.attrs, dtype=c.dtype,
                epilogue=c.epilogue, tiles=tiles,
            )
        )  # fmt: skip

    return [Offer("transposed conv", make)]


def _check_convolution(c: Contracted, name: str = "mge.conv") -> None:
    channels_last = c.root.name == name and c.root.attrs["channels_last"]
    if not channels_last or not c.has_constant_weight:
        raise NotApplicable(
            f"no {name.removeprefix('mge.')} of channels-last images with constant weights"
        )


def _shapes(c: Contracted) -> tuple[tuple[int, ...], ...]:
    return tuple(_static(dims) for dims in (c.lhs, c.rhs, c.out))


def _is_dense(c: Contracted) -> bool:
    """Whether the windows of a convolution are neighbours, and see all channels."""
    geometry = Geometry.of(c.root.attrs, len(c.rhs) - 2)
    return c.root.attrs["groups"] == 1 and {*geometry.stride, *geometry.dilation} == {1}


def _is_deep_product(c: Contracted) -> bool:
    """Whether a convolution is a product of matrices that lie in memory, of long sums."""
    geometry = Geometry.of(c.root.attrs, len(c.rhs) - 2)
    pointwise = set(c.rhs[2:]) == {1} and not any(map(any, geometry.padding))
    _, (_, depth, *_), _ = _shapes(c)
    return _is_dense(c) and pointwise and not c.channels and depth > SHALLOW


def _direct(c: Contracted, name: str, target: Target) -> Offer:
    inp, weight, out = _shapes(c)

    def make(tiles: Tiles | None) -> KernelSource:
        assert tiles is None or isinstance(tiles, DirectConvTiles)
        return c.in_order(
            direct_conv_kernel(
                name, target, c.maps, inp, weight, out, c.root.attrs, dtype=c.dtype,
                epilogue=c.epilogue, channels=c.channels, tiles=tiles,
            )
        )  # fmt: skip

    return Offer("direct conv", make, direct_cost(target, weight, out))


def _depthwise(c: Contracted, name: str, target: Target) -> Offer:
    inp, weight, out = _shapes(c)

    def make(tiles: Tiles | None) -> KernelSource:
        assert tiles is None or isinstance(tiles, DepthwiseTiles)
        return c.in_order(
            depthwise_kernel(
                name, target, c.maps, inp, weight, out, c.root.attrs, dtype=c.dtype,
                epilogue=c.epilogue, tiles=tiles,
            )
        )  # fmt: skip

    return Offer("depthwise conv", make)


def product_offers(region: Region, name: str, target: Target) -> list[Offer]:
    """A product of matrices by the template of convolutions, which a measurement may prefer."""
    c = Contracted.of(region)
    _check_convolution(c)
    if not _is_deep_product(c):
        raise NotApplicable("no deep matrix product")
    return [_direct(c, name, target)]


def _static(dims: Sequence[Size]) -> tuple[int, ...]:
    assert all(isinstance(d, int) for d in dims), "run-time sizes have no constant weights"
    return tuple(cast("Sequence[int]", dims))


def contraction_offers(region: Region, name: str, target: Target) -> list[Offer]:
    """A matmul or convolution, with what follows applied to the sums in registers."""
    c = Contracted.of(region)
    if c.channels is not None:
        raise NotApplicable("an operand is a concatenation")
    sides = zip(("lhs", "rhs"), c.inputs, strict=False)
    packable = [s for s, i in sides if i in region.constants and region.is_static]

    def make(tiles: Tiles | None) -> KernelSource:
        assert tiles is None or isinstance(tiles, ContractionTiles)
        return c.in_order(
            contraction_kernel(
                name, target, c.maps, c.lhs, c.rhs, c.out, c.dtype, num_dims=region.num_dims,
                epilogue=c.epilogue, packable=packable, tiles=tiles,
            )
        )  # fmt: skip

    return [Offer("contraction", make)]
