"""Devices by their MegEngine names: `xpux`, `cpu0`, `gpux`, ...

A name says what the user asked for, not what it resolved to: `xpux` is the best device of
the machine and is printed as `xpux:0` wherever it runs.
"""

from __future__ import annotations

import re
from functools import cache

from mgec import config
from mgec.errors import DeviceError

__all__ = [
    "Device",
    "get_cuda_device_count",
    "get_default_device",
    "get_device_count",
    "is_cuda_available",
    "set_default_device",
]

_NAME = re.compile(r"^([cxg]pu|rocm|multithread|cambricon|atlas)(x|\d+)(:\d+)?$")


class Device:
    """A logical device; one object per name.

    Attributes:
        kind: "xpu", "cpu", "gpu", ...
        index: "x" (any) or a number, as text.
        stream: the stream number.
    """

    __slots__ = ("_text", "index", "kind", "stream")

    def __init__(self, kind: str, index: str, stream: int) -> None:
        self.kind = kind
        self.index = index
        self.stream = stream
        self._text = f"{kind}{index}:{stream}"

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f'Device("{self._text}")'

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Device):
            return self._text == other._text
        if isinstance(other, str) and _NAME.match(other):
            return self._text == device(other)._text
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def require(self) -> None:
        """Raises DeviceError unless this machine (and this version) can run on the device."""
        if self.kind in ("xpu", "cpu", "multithread"):
            return
        raise DeviceError(
            f"device {self._text} is not available: mgec found no {self.kind} it can run on",
            fix='use "xpux" (the best device there is) or "cpux"',
        )


@cache
def device(name: str | Device) -> Device:
    """The device called `name`.

    Raises:
        DeviceError: "invalid device name", for a name of the wrong form.
    """
    if isinstance(name, Device):
        return name
    match = _NAME.match(name) if isinstance(name, str) else None
    if match is None:
        raise DeviceError(
            f"invalid device name {name!r}",
            fix='use a name such as "xpux", "cpu0", "gpu1" or "gpu0:1" (device:stream)',
        )
    return Device(match[1], match[2], int(match[3][1:]) if match[3] else 0)


_default: list[str] = []


def get_default_device() -> str:
    """The name of the device on which tensors are created; `MGE_DEFAULT_DEVICE` at start."""
    if not _default:
        set_default_device(config.default_device)
    return _default[0]


def set_default_device(name: str = "xpux") -> None:
    """Sets the device on which tensors are created from now on.

    Args:
        name: such as "cpux", "gpu0".

    Raises:
        DeviceError: for a name of the wrong form. (A device that is missing is reported by
            the first tensor created on it.)
    """
    device(name)
    _default[:] = [name]


def default_device() -> Device:
    """The default device as an object; raises DeviceError if it is not available."""
    found = device(get_default_device())
    found.require()
    return found


def get_device_count(device_type: str) -> int:
    """How many devices of a type ("cpu", "gpu", "xpu", ...) there are.

    Raises:
        DeviceError: for an unknown type.
    """
    if device_type not in ("cpu", "gpu", "xpu", "rocm", "multithread", "cambricon", "atlas"):
        raise DeviceError(f"unknown device type {device_type!r}", fix='use "cpu" or "gpu"')
    return config.num_threads if device_type in ("cpu", "xpu", "multithread") else 0


def is_cuda_available() -> bool:
    """Whether there is an NVIDIA GPU that mgec can run on."""
    return get_device_count("gpu") > 0


def get_cuda_device_count() -> int:
    """How many NVIDIA GPUs there are."""
    return get_device_count("gpu")
