"""What convolution and pooling share: where the axes of an image are, and where its windows.

An image has one to three spatial axes and stores its channels before them, [N, C, *spatial],
or after them, [N, *spatial, C] (`channels_last`). The number of spatial axes follows from the
operands' ranks. `stride`, `dilation` and the like have one entry per spatial axis, `padding`
has two, (low0, high0, low1, high1, ...); an empty tuple stands for the default of every axis
(stride 1, dilation 1, padding 0), whatever their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from mgec.dialects.mge.spec import DYNAMIC, TensorSpec
from mgec.errors import ArgumentError, ShapeError

MAX_AXES = 3
"""Most spatial axes."""

_LETTERS = ("L", "HW", "DHW")
_NAMES = (("length",), ("height", "width"), ("depth", "height", "width"))
_SIDES = (
    "start and end",
    "top, bottom, left and right",
    "front, back, top, bottom, left and right",
)
_ELEMENTS = (("elements",), ("rows", "columns"), ("planes", "rows", "columns"))

Values: TypeAlias = "Sequence[tuple[str, str, str]]"
"""Operands as an error shows them: name, spec, roles of the axes."""

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """The axes of an image.

    Attributes:
        axes: how many of them are spatial, 1 to 3.
        channels_last: whether the channels come after the spatial axes, not before.
    """

    axes: int
    channels_last: bool = False

    @staticmethod
    def of(rank: int, attrs: Mapping[str, Any]) -> Layout:
        """The layout of an image of `rank` axes under an op's attributes."""
        return Layout(rank - 2, bool(attrs["channels_last"]))

    @property
    def channel(self) -> int:
        """Which axis has the channels."""
        return self.axes + 1 if self.channels_last else 1

    def spatial(self, shape: Sequence[T]) -> tuple[T, ...]:
        """The entries of the spatial axes."""
        return tuple(shape[1:-1] if self.channels_last else shape[2:])

    def join(self, batch: T, channels: T, spatial: Sequence[T]) -> tuple[T, ...]:
        """One entry per axis, in order."""
        return (batch, *spatial, channels) if self.channels_last else (batch, channels, *spatial)

    def role(self, channels: str = "C", prefix: str = "") -> str:
        """The names of all axes: "(N, C, H, W)"."""
        spatial = [prefix + letter for letter in _LETTERS[self.axes - 1]]
        return f"({', '.join(self.join('N', channels, spatial))})"

    @property
    def letters(self) -> tuple[str, ...]:
        """One letter per spatial axis: ("H", "W")."""
        return tuple(_LETTERS[self.axes - 1])

    @property
    def elements(self) -> tuple[str, ...]:
        """What one counts along the spatial axes: ("rows", "columns")."""
        return _ELEMENTS[self.axes - 1]

    def title(self, family: str, suffix: str = "") -> str:
        """The op as its user calls it: "conv2d", "conv2d_dgrad"."""
        return f"{family}{self.axes}d{suffix}"

    def check_per_axis(self, name: str, low: int, **values: tuple[int, ...]) -> None:
        """Raises ArgumentError unless each tuple has one entry per axis, none below `low`."""
        for key, given in values.items():
            _check_entries(name, key, given, self.axes, low, _join(_NAMES[self.axes - 1]))

    def check_padding(self, name: str, padding: tuple[int, ...]) -> None:
        """Raises ArgumentError unless there are two entries per axis, none negative."""
        _check_entries(name, "padding", padding, 2 * self.axes, 0, _SIDES[self.axes - 1])


def _join(words: Sequence[str]) -> str:
    return " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def _check_entries(
    name: str, key: str, given: tuple[int, ...], count: int, low: int, places: str
) -> None:
    if len(given) != count:
        raise ArgumentError(
            f"{name}: {key} has length {len(given)} but needs length {count}",
            values=[(key, str(list(given)), "")],
            fix=f"give {key} for {places}",
        )
    if min(given) < low:
        raise ArgumentError(
            f"{name}: {key} is {list(given)} but may not be below {low}",
            fix=f"make every entry of {key} at least {low}",
        )


@dataclass(frozen=True)
class Geometry:
    """Where the windows of an image are; one entry per spatial axis.

    Attributes:
        stride: distance between windows.
        padding: (before, after) the axis.
        dilation: distance between the taps of a window.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    @staticmethod
    def of(attrs: Mapping[str, Any], axes: int) -> Geometry:
        """The geometry in an op's attributes, defaults filled in.

        Args:
            attrs: with `stride`, `padding` and, unless it is 1 everywhere, `dilation`.
            axes: number of spatial axes.
        """
        ones = (1,) * axes
        flat = attrs["padding"] or (0,) * (2 * axes)
        pairs = tuple(zip(flat[::2], flat[1::2], strict=True))
        return Geometry(attrs["stride"] or ones, pairs, attrs.get("dilation") or ones)

    @property
    def is_padded(self) -> bool:
        """Whether there is any padding."""
        return any(low or high for low, high in self.padding)

    def start(self, axis: int, window: int) -> int:
        """Where a window begins along one axis; negative in the padding."""
        return window * self.stride[axis] - self.padding[axis][0]


def layout_of(
    family: str, suffix: str, operand: str, spec: TensorSpec, channels_last: bool
) -> Layout:
    """The layout of an op's image.

    Args:
        family: "conv"; the op is called "conv2d" where the image has two spatial axes.
        suffix: what follows, "_dgrad".
        operand: name of the image.
        spec: the image.
        channels_last: the op's attribute.

    Raises:
        ShapeError: unless the rank is 3, 4 or 5.
    """
    if not 1 <= spec.rank - 2 <= MAX_AXES:
        role = "(N, spatial axes, C)" if channels_last else "(N, C, spatial axes)"
        raise ShapeError(
            f"{family}{suffix}: {operand} has rank {spec.rank} but needs rank 3, 4 or 5 {role}",
            values=[(operand, str(spec), role)],
            fix=f"reshape {operand} to one to three spatial axes",
        )
    return Layout(spec.rank - 2, channels_last)


def check_rank(name: str, operand: str, spec: TensorSpec, role: str, values: Values) -> None:
    """Raises ShapeError unless `spec` has the axes of `role`, "(O, I, kH, kW)"."""
    rank = role.count(",") + 1
    if spec.rank != rank:
        raise ShapeError(
            f"{name}: {operand} has rank {spec.rank} but needs rank {rank} {role}",
            values=values,
            fix=f"reshape {operand} to {role}",
        )


def check_geometry(
    name: str, layout: Layout, stride: tuple[int, ...], padding: tuple[int, ...],
    dilation: tuple[int, ...] = (),
) -> Geometry:  # fmt: skip
    """The geometry given by an op's attributes, defaults filled in.

    Raises:
        ArgumentError: for a tuple of the wrong length, or an entry out of range.
    """
    given = {"stride": stride, "dilation": dilation}
    layout.check_per_axis(name, 1, **{key: value for key, value in given.items() if value})
    if padding:
        layout.check_padding(name, padding)
    return Geometry.of({**given, "padding": padding}, layout.axes)


def output_size(size: int, kernel: int, stride: int, low: int, high: int, dilation: int) -> int:
    """How many windows fit along one axis; DYNAMIC if a size is.

    Args:
        size: elements along the axis.
        kernel: taps of a window.
        stride: distance between windows.
        low: padding before the axis.
        high: padding after the axis.
        dilation: distance between taps.
    """
    if DYNAMIC in (size, kernel):
        return DYNAMIC
    return (size + low + high - (kernel - 1) * dilation - 1) // stride + 1


def output_sizes(
    name: str,
    layout: Layout,
    sizes: Sequence[int],
    kernel: Sequence[int],
    geometry: Geometry,
    values: Values,
) -> tuple[int, ...]:
    """Windows along every spatial axis of an input of `sizes`.

    Raises:
        ShapeError: if not even one window fits, or a size is 0.
    """
    result: list[int] = []
    for i, elements in enumerate(layout.elements):
        size, taps, (low, high) = sizes[i], kernel[i], geometry.padding[i]
        for what, count in (("input", size), ("kernel", taps)):
            if count == 0:
                raise ShapeError(
                    f"{name}: {what} has 0 {elements}",
                    values=values,
                    fix=f"only the batch may be empty: give {what} at least one of the {elements}",
                )
        windows = output_size(size, taps, geometry.stride[i], low, high, geometry.dilation[i])
        if windows != DYNAMIC and windows < 1:
            covered = (taps - 1) * geometry.dilation[i] + 1
            raise ShapeError(
                f"{name}: kernel covers {covered} {elements} but input has {size + low + high}, "
                f"padding included",
                values=values,
                fix="use a larger input, more padding, a smaller kernel or less dilation",
            )
        result.append(windows)
    return tuple(result)
