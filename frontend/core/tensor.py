"""`Tensor`: an immutable-looking array with a device, a gradient and MegEngine's printing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from mgec.core import dispatch
from mgec.device import Device, default_device
from mgec.device import device as find_device
from mgec.errors import ArgumentError, DeviceError, DTypeError, ShapeError, TraceError
from mgec.runtime.memory import Storage

if TYPE_CHECKING:
    from mgec.dialects.mge.spec import TensorSpec

__all__ = ["Parameter", "Tensor", "tensor"]

_FLOAT32 = np.dtype(np.float32)
_STORED: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float64): _FLOAT32,
    np.dtype(np.int64): np.dtype(np.int32),
}
"""Dtypes that are accepted and stored as a narrower one, as in MegEngine."""

DTYPES: frozenset[np.dtype[Any]] = frozenset(
    np.dtype(t)
    for t in (
        np.float32, np.float16, ml_dtypes.bfloat16, np.int32, np.int16, np.int8, np.uint8,
        np.uint16, np.bool_,
    )
)  # fmt: skip
"""Dtypes a tensor may have."""

_SPECS: dict[tuple[Any, ...], Any] = {}


def intern_spec(shape: tuple[int, ...], dtype: np.dtype[Any]) -> TensorSpec:
    """The one `TensorSpec` object of this shape and dtype; keys of caches use its identity."""
    key = (shape, dtype)
    spec = _SPECS.get(key)
    if spec is None:
        from mgec.dialects.mge.spec import TensorSpec

        spec = _SPECS[key] = TensorSpec(shape, dtype)
    return spec


def check_dtype(dtype: Any, *, cast: bool = False) -> np.dtype[Any]:
    """The NumPy dtype a user means.

    Args:
        dtype: a NumPy dtype, scalar type or name; "bfloat16" is known too.
        cast: whether the user asks for this very dtype (then float64 is an error).

    Raises:
        DTypeError: if tensors cannot have it.
    """
    try:
        found = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    except TypeError:
        raise DTypeError(
            f"{dtype!r} is not a dtype", fix="use a NumPy dtype, such as np.float32 or 'int32'"
        ) from None
    found = found.newbyteorder("=")
    if found not in DTYPES and not cast:
        found = _STORED.get(found, found)
    if found not in DTYPES:
        names = ", ".join(sorted(d.name for d in DTYPES))
        raise DTypeError(f"tensor: dtype {found.name} is not supported", fix=f"use one of {names}")
    return found


class Tensor:
    """An n-dimensional array of one dtype on one device.

    Args:
        data: a number, (nested) sequence, NumPy array or tensor. float64 becomes float32 and
            int64 becomes int32.
        dtype: dtype of the tensor; that of `data` by default.
        device: device name or object; the default device by default.
        name: a name for people and for dumped graphs.

    Attributes:
        grad: the gradient accumulated by a `GradManager`, or None.
    """

    __slots__ = (
        "__weakref__",
        "_device",
        "_grad",
        "_history",
        "_spec",
        "_storage",
        "_value",
        "name",
    )

    _spec: TensorSpec
    _storage: Any
    _value: Any
    _device: Device | None
    _grad: Tensor | None
    _history: Any
    name: str | None

    def __init__(
        self, data: Any, dtype: Any = None, device: Any = None, name: str | None = None
    ) -> None:
        self._grad = None
        self._history = None
        self._value = None
        self.name = name
        self._device = default_device() if device is None else _device(device)
        if isinstance(data, Tensor):
            source = data if dtype is None else data.astype(dtype)
            self._spec, self._storage, self._value = source._spec, source._storage, source._value
            if device is None:
                self._device = data._device
            return
        array = _to_array(data, dtype)
        storage = Storage(array.nbytes)
        if array.nbytes:
            storage.as_array(array.dtype, array.shape)[...] = array
        self._spec = intern_spec(array.shape, array.dtype)
        self._storage = storage
        if dispatch.state.tracer is not None:
            dispatch.state.tracer.note_literal(self)

    @staticmethod
    def _make(storage: Any, spec: TensorSpec, device: Device | None) -> Tensor:
        """A tensor over existing storage (hot path: no checks)."""
        made = Tensor.__new__(Tensor)
        made._storage = storage
        made._spec = spec
        made._device = device
        made._value = None
        made._grad = None
        made._history = None
        made.name = None
        return made

    @staticmethod
    def _from_array(array: np.ndarray[Any, Any], device: Device | None = None) -> Tensor:
        """A tensor of any dtype the dialect has, such as uint32, which users cannot make."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        storage = Storage(array.nbytes)
        if array.nbytes:
            storage.as_array(array.dtype, array.shape)[...] = array
        made = Tensor._make(storage, intern_spec(array.shape, array.dtype), device)
        if dispatch.state.tracer is not None:
            dispatch.state.tracer.note_literal(made)
        return made

    @staticmethod
    def _symbolic(value: Any, spec: TensorSpec, device: Device | None) -> Tensor:
        """A tensor that stands for a value of the graph being traced."""
        made = Tensor._make(None, spec, device)
        made._value = value
        return made

    # -- what it is ---------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions, as a tuple of ints."""
        return self._spec.shape

    @property
    def dtype(self) -> type:
        """Element type, as NumPy's scalar type (`np.float32`)."""
        return self._spec.dtype.type

    @property
    def device(self) -> Device:
        """The logical device, printed as `xpux:0`."""
        return self._device or default_device()

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._spec.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._spec.size

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated by a `GradManager`, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self._grad = value
        if dispatch.state.tracer is not None:
            dispatch.state.tracer.note_grad(self)

    @property
    def T(self) -> Tensor:
        """The tensor with its dimensions reversed."""
        return self.transpose()

    # -- leaving the tensor world ----------------------------------------------------------

    def numpy(self) -> np.ndarray[Any, Any]:
        """A NumPy copy of the values.

        Raises:
            TraceError: inside a symbolic trace, where there are no values yet.
        """
        if self._storage is None:
            raise TraceError(
                "the value of a tensor is asked for while tracing symbolically",
                values=[("tensor", str(self._spec), "")],
                fix="move this out of the traced function, or trace with symbolic=False",
            )
        if self._value is not None and dispatch.state.tracer is not None:
            dispatch.state.tracer.note_read(self)
        return self._storage.as_array(self._spec.dtype, self._spec.shape).copy()

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python number."""
        if self._spec.size != 1:
            raise ShapeError(
                f"item: the tensor has {self._spec.size} elements, not one",
                values=[("tensor", str(self._spec), "")],
                fix="index one element first",
            )
        value = self.numpy().reshape(()).item()
        return value

    def tolist(self) -> Any:
        """The values as (nested) lists of Python numbers."""
        return self.numpy().tolist()

    __array_priority__ = 1000.0
    """NumPy's operators leave `array + tensor` to the tensor, so that it is an op of ours."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        if self._spec.dtype.kind not in "iub":
            raise DTypeError(
                f"a {self._spec.dtype.name} tensor cannot be an index", fix="use an integer tensor"
            )
        return int(self.item())

    def __len__(self) -> int:
        if not self._spec.shape:
            raise ShapeError("len: the tensor has no dimensions", fix="use a tensor of rank >= 1")
        return self._spec.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for i in range(len(self)):
            yield self[i]

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        if self._storage is None:
            text = f"<{self._spec}, being traced>"
        else:
            values = self._storage.as_array(self._spec.dtype, self._spec.shape)
            with np.printoptions(precision=4, suppress=False):
                text = str(values)
        dtype = "" if self._spec.dtype == _FLOAT32 else f", dtype={self._spec.dtype.name}"
        return f"{type(self).__name__}({text}{dtype}, device={self.device})"

    # -- moving and converting ---------------------------------------------------------------

    def to(self, device: Any) -> Tensor:
        """The tensor on another device.

        Raises:
            DeviceError: if the device does not exist here.
        """
        found = _device(device)
        if found == self._device:
            return self
        made = Tensor._make(self._storage, self._spec, found)
        made._value = self._value
        if dispatch.state.tracer is not None and self._value is None:
            made = dispatch.state.tracer.moved(self, found)
        for tape in dispatch.state.tapes:
            tape.rebind(made, self)
        return made

    def detach(self) -> Tensor:
        """The same values, cut off from the tape: no gradient flows through."""
        made = Tensor._make(self._storage, self._spec, self._device)
        made._value = self._value
        if self._value is None and dispatch.state.tracer is not None:
            made = dispatch.state.tracer.detached(self)
        return made

    def astype(self, dtype: Any) -> Tensor:
        """Converts to another dtype; itself if it has it.

        Raises:
            DTypeError: for a dtype tensors cannot have (float64 among them).
        """
        wanted = check_dtype(dtype, cast=True)
        if wanted == self._spec.dtype:
            return self
        return dispatch.call("cast", self, dtype=wanted)

    # -- mutation: a new value under the same name -----------------------------------------

    def _reset(self, other: Tensor) -> None:
        """Gives this tensor the value of `other` (no copy; buffers are immutable)."""
        if dispatch.state.tracer is not None:
            dispatch.state.tracer.note_update(self, other)
        for tape in dispatch.state.tapes:
            tape.rebind(self, other)
        if dispatch.state.tracer is not None:
            return
        self._storage = other._storage
        self._spec = other._spec

    def set_value(self, value: Any) -> None:
        """Replaces the value; shape and dtype may change."""
        self._reset(value if isinstance(value, Tensor) else Tensor(value, device=self._device))

    def reset_zero(self) -> None:
        """Replaces every element by 0."""
        self.set_value(np.zeros(self.shape, self._spec.dtype))

    def __setitem__(self, index: Any, value: Any) -> None:
        from mgec.core.indexing import setitem

        self._reset(setitem(self, index, value))

    def __getitem__(self, index: Any) -> Tensor:
        from mgec.core.indexing import getitem

        return getitem(self, index)

    # -- methods that are functions (deliberately few; see mgec.functional) ------------------

    def reshape(self, *shape: Any) -> Tensor:
        """See `mgec.functional.reshape`."""
        return _f().reshape(self, _unpack(shape))

    def transpose(self, *pattern: Any) -> Tensor:
        """See `mgec.functional.transpose`; without a pattern, reverses the dimensions."""
        return _f().transpose(self, _unpack(pattern) or tuple(reversed(range(self.ndim))))

    def flatten(self) -> Tensor:
        """One-dimensional."""
        return _f().flatten(self)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """See `mgec.functional.sum`."""
        return _f().sum(self, axis, keepdims)

    def prod(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """See `mgec.functional.prod`."""
        return _f().prod(self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """See `mgec.functional.min`."""
        return _f().min(self, axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """See `mgec.functional.max`."""
        return _f().max(self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """See `mgec.functional.mean`."""
        return _f().mean(self, axis, keepdims)

    # Operators are attached by mgec.core.operators; type checkers see them here.
    if TYPE_CHECKING:

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...
        def __lshift__(self, other: Any) -> Tensor: ...
        def __rlshift__(self, other: Any) -> Tensor: ...
        def __rshift__(self, other: Any) -> Tensor: ...
        def __rrshift__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]


class Parameter(Tensor):
    """A tensor that a module trains."""

    __slots__ = ()


def tensor(data: Any, dtype: Any = None, device: Any = None, name: str | None = None) -> Tensor:
    """Makes a tensor; see `Tensor`."""
    return Tensor(data, dtype=dtype, device=device, name=name)


def _f() -> Any:
    import mgec.functional

    return mgec.functional


def _unpack(args: tuple[Any, ...]) -> Any:
    """`f(2, 3)` and `f((2, 3))` mean the same."""
    return args[0] if len(args) == 1 and not isinstance(args[0], int | np.integer) else args


def _device(device: Any) -> Device:
    if not isinstance(device, str | Device):
        raise DeviceError(f"{device!r} is not a device", fix='use a name such as "xpux" or "cpu0"')
    found = find_device(device)
    found.require()
    return found


def _to_array(data: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """User data as a contiguous array of a dtype tensors can have."""
    if isinstance(data, list | tuple) and any(isinstance(x, Tensor) for x in data):
        data = [x.numpy() if isinstance(x, Tensor) else x for x in data]
    try:
        array = np.asarray(data)
    except ValueError:
        raise ShapeError(
            "tensor: the nested sequence is ragged",
            values=[("data", data)],
            fix="make all rows equally long",
        ) from None
    if array.dtype == object or array.dtype.kind in "USMm":
        raise ArgumentError(
            f"tensor: {type(data).__name__} holds {array.dtype} elements, not numbers",
            fix="pass numbers or a numeric NumPy array",
        )
    wanted = check_dtype(array.dtype) if dtype is None else check_dtype(dtype, cast=True)
    return np.ascontiguousarray(array.astype(wanted, copy=False)).reshape(array.shape)


from mgec.core import operators as _operators  # noqa: E402, F401 - attaches + - * / ...
