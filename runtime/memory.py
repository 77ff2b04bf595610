"""Host memory for tensors: aligned, counted by Python's references, and reused.

    storage = Storage(1024)
    storage.address, storage.nbytes
    del storage  # the block is kept for the next storage of about this size

Blocks come in size classes (64, 128, 192, 256, 320, 384, 448, 512, 640, ... bytes: four per power
of two), so little of a block is unused. Taking a kept block costs less than a microsecond. Kept
blocks below a mebibyte are bounded per class (one mebibyte each); larger ones are bounded together
by `set_cache_limit`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mgec.errors import ArgumentError, RuntimeFailure
from mgec.runtime import native

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

ALIGNMENT = native.ALIGNMENT
"""Bytes to which every storage is aligned."""

_LARGE = 1 << 20


class _SizeClass:
    """The kept blocks of one size. List operations are atomic, so small classes need no lock."""

    __slots__ = ("blocks", "limit", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.blocks: list[int] = []
        self.limit = max(_LARGE // nbytes, 4) if nbytes < _LARGE else -1  # -1: see _keep_large


_classes: dict[int, _SizeClass] = {}
_large_limit = 1 << 30
_large_lock = threading.RLock()  # re-entrant: the garbage collector may free a storage inside


def _new_class(nbytes: int) -> _SizeClass:
    with _large_lock:
        return _classes.setdefault(nbytes, _SizeClass(nbytes))


def _new_block(nbytes: int) -> int:
    try:
        return native.created(native.library().alloc, nbytes)
    except RuntimeFailure:
        empty_cache()  # what is kept may be what is missing
        return native.created(native.library().alloc, nbytes)


def _keep_large(size_class: _SizeClass, address: int) -> None:
    with _large_lock:
        kept = sum(
            len(each.blocks) * each.nbytes for each in list(_classes.values()) if each.limit < 0
        )
        if kept + size_class.nbytes <= _large_limit:
            size_class.blocks.append(address)
            return
    native.library().free(address)


class Storage:
    """A block of host memory, uninitialized and aligned to `ALIGNMENT` bytes.

    Args:
        nbytes: How many bytes are needed; 0 is allowed.

    Attributes:
        address: Where the block begins.
        nbytes: As asked for; the block may be larger.

    Raises:
        ArgumentError: When `nbytes` is negative.
        RuntimeFailure: When memory runs out.
    """

    __slots__ = ("__weakref__", "_class", "_owner", "address", "nbytes")

    address: int
    nbytes: int
    _class: _SizeClass
    _owner: object

    def __init__(self, nbytes: int) -> None:
        if nbytes > 256:
            step = 1 << ((nbytes - 1).bit_length() - 3)
            size = (nbytes + step - 1) & -step
        elif nbytes >= 0:
            size = (nbytes + 63) & -64 or 64
        else:
            raise ArgumentError(
                f"storage: {nbytes} bytes were asked for", fix="use 0 or more bytes"
            )
        size_class = _classes.get(size) or _new_class(size)
        try:
            self.address = size_class.blocks.pop()
        except IndexError:
            self.address = _new_block(size)
        self.nbytes = nbytes
        self._class = size_class

    def __del__(self) -> None:
        try:
            size_class = self._class
        except AttributeError:  # __init__ failed, or the memory is somebody else's
            return
        if len(size_class.blocks) < size_class.limit:
            size_class.blocks.append(self.address)
        elif size_class.limit < 0:
            _keep_large(size_class, self.address)
        else:
            native.library().free(self.address)

    @classmethod
    def wrap(cls, owner: object, address: int, nbytes: int) -> Storage:
        """A storage over memory that somebody else owns, such as a NumPy array or a mapped file.

        Args:
            owner: Kept alive as long as the storage.
            address: Where the memory begins; any alignment.
            nbytes: How long it is.

        Returns:
            A storage that frees nothing.
        """
        storage = cls.__new__(cls)
        storage._owner = owner
        storage.address = address
        storage.nbytes = nbytes
        return storage

    @classmethod
    def from_array(cls, array: NDArray[np.generic]) -> Storage:
        """A storage over the memory of a NumPy array, without a copy.

        Args:
            array: C-contiguous; kept alive as long as the storage.

        Raises:
            ArgumentError: When the array is not contiguous.
        """
        if not array.flags.c_contiguous:
            raise ArgumentError(
                "storage: the array is not contiguous",
                values=[("array", array)],
                fix="pass numpy.ascontiguousarray(array)",
            )
        return cls.wrap(array, array.ctypes.data, array.nbytes)

    def as_array(self, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[np.generic]:
        """A NumPy view of the beginning of the storage; it keeps the storage alive.

        Args:
            dtype: The element type.
            shape: The shape, in C order.

        Returns:
            A writable array that shares the memory.

        Raises:
            ArgumentError: When the array would be larger than the storage.
        """
        import math

        import numpy as np

        element = np.dtype(dtype)
        nbytes = math.prod(shape) * element.itemsize
        if nbytes > self.nbytes:
            raise ArgumentError(
                f"storage: an array of {nbytes} bytes does not fit into {self.nbytes} bytes",
                fix="ask for a smaller shape",
            )
        return np.asarray(_Exporter(self, nbytes)).view(element).reshape(shape)

    def __repr__(self) -> str:
        return f"Storage(nbytes={self.nbytes}, address={self.address:#x})"


class _Exporter:
    """Shows a storage to NumPy as bytes; the array's base keeps it, and so the storage, alive."""

    def __init__(self, storage: Storage, nbytes: int) -> None:
        self.storage = storage
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (nbytes,),
            "data": (storage.address, False),
        }


def cached_bytes() -> int:
    """How many bytes of freed blocks are kept for reuse."""
    return sum(len(each.blocks) * each.nbytes for each in list(_classes.values()))


def empty_cache() -> None:
    """Gives every kept block back to the system."""
    free = native.library().free
    for size_class in list(_classes.values()):
        while True:
            try:
                free(size_class.blocks.pop())
            except IndexError:
                break


def set_cache_limit(nbytes: int) -> int:
    """Bounds how many bytes of freed blocks of a mebibyte or more are kept.

    Args:
        nbytes: The limit for all of them together. Default at start: 1 GiB.

    Returns:
        The limit before.
    """
    global _large_limit
    before, _large_limit = _large_limit, nbytes
    if nbytes < before:
        empty_cache()
    return before
