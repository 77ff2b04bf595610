"""`save` and `load`: trees of tensors and plain values in one file, without pickle.

The file is a safetensors file: any reader of that format finds the arrays in it. Its metadata
hold the tree as JSON, in which an array is a reference, and checksums of both. Nothing that
is read can run code.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
import safetensors.numpy
import xxhash

from mgec.core.tensor import Parameter, Tensor
from mgec.errors import DeviceError, FileError, FileMissingError, SerializationError

__all__ = ["load", "save"]

_FORMAT = "mgec.save"
_VERSION = "1"
_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}
_SAVED = tuple(_DTYPES.values())

MapLocation = str | Mapping[str, str] | Callable[[str], str] | None
File = str | os.PathLike[str] | IO[bytes]


def save(obj: Any, f: File) -> None:
    """Writes a tree of dicts, lists, tuples, numbers, strings, arrays and tensors to a file.

    A file that exists is replaced in one step: readers see the old one or the new one.

    Args:
        obj: what to write, such as ``net.state_dict()``. A tensor that appears twice is one
            tensor again after `load`.
        f: path, or a binary file object.

    Raises:
        SerializationError: for an object of another type; names the place in the tree.
        FileError: if the file cannot be written.

    Example:
        >>> import io
        >>> import mgec as mge
        >>> file = io.BytesIO()
        >>> mge.save({"epoch": 3, "w": mge.tensor([1.0, 2.0])}, file)
        >>> file.seek(0)
        0
        >>> mge.load(file)
        {'epoch': 3, 'w': Tensor([1. 2.], device=xpux:0)}
    """
    data = _encode(obj)
    if hasattr(f, "write"):
        f.write(data)  # type: ignore[union-attr]
        return
    path = Path(os.fspath(f))  # type: ignore[arg-type]
    try:
        _write(path, data)
    except OSError as error:
        raise FileError(
            f"save: cannot write {path}: {error.strerror or error}", fix="check folder and rights"
        ) from None


def _write(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # what open() would have given it
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def load(f: File, map_location: MapLocation = None) -> Any:
    """Reads what `save` wrote.

    Args:
        f: path, or a binary file object.
        map_location: where tensors go: a device name, a dict from saved to new device names, or
            a function of the saved name. By default, to the device they were saved from.

    Returns:
        The tree. Arrays are NumPy arrays, tensors are tensors.

    Raises:
        FileMissingError: if there is no such file.
        SerializationError: if the file is damaged or was not written by `save`.
        DeviceError: if a tensor's device does not exist here.
    """
    if hasattr(f, "read"):
        name, data = getattr(f, "name", "the file object"), f.read()  # type: ignore[union-attr]
    else:
        path = Path(os.fspath(f))  # type: ignore[arg-type]
        name = str(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise FileMissingError(f"load: there is no file {path}", fix="check the path") from None
        except OSError as error:
            raise FileError(
                f"load: cannot read {path}: {error.strerror or error}", fix="check the path"
            ) from None
    return _Reader(str(name), data, map_location).read()


# -- writing -----------------------------------------------------------------------------


def _encode(obj: Any) -> bytes:
    writer = _Writer()
    try:
        tree = json.dumps(writer.node(obj, "the object"), separators=(",", ":"))
    except RecursionError:
        raise SerializationError(
            "save: the object is nested too deeply, or contains itself", fix="flatten it"
        ) from None
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "tree": tree,
        "tree_hash": xxhash.xxh64_hexdigest(tree.encode()),
    }
    return safetensors.numpy.save(writer.arrays, metadata)


class _Writer:
    """Turns a tree into JSON, putting arrays aside."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._known: dict[int, tuple[Any, dict[str, Any]]] = {}

    def node(self, obj: Any, place: str) -> Any:
        if obj is None or isinstance(obj, bool | str):
            return obj
        if isinstance(obj, Tensor | np.ndarray):
            return self._array(obj, place)
        if isinstance(obj, np.generic):
            return {"scalar": self._store(np.asarray(obj), place)}
        if isinstance(obj, int):
            return obj if -(2**53) < obj < 2**53 else {"int": str(obj)}
        if isinstance(obj, float):
            return obj if isfinite(obj) else {"float": repr(obj)}
        if isinstance(obj, dict):
            kind = "ordered" if isinstance(obj, OrderedDict) else "dict"
            return {kind: [self._item(key, value, place) for key, value in obj.items()]}
        if isinstance(obj, list | tuple) and type(obj) in (list, tuple):
            kind = "tuple" if isinstance(obj, tuple) else "list"
            return {kind: [self.node(item, f"{place}[{i}]") for i, item in enumerate(obj)]}
        raise SerializationError(
            f"save: {place} is a {type(obj).__name__}, which cannot be saved",
            fix="save dicts, lists, tuples, numbers, strings, arrays and tensors; "
            "of a module, its state_dict()",
        )

    def _item(self, key: Any, value: Any, place: str) -> list[Any]:
        if not isinstance(key, str | int | float | bool | tuple | None):
            raise SerializationError(
                f"save: a key of {place} is a {type(key).__name__}, which cannot be saved",
                fix="use strings or numbers as keys",
            )
        return [self.node(key, f"a key of {place}"), self.node(value, f"{place}[{key!r}]")]

    def _array(self, obj: Any, place: str) -> dict[str, Any]:
        known = self._known.get(id(obj))
        if known is None:
            if isinstance(obj, Tensor):
                made = {
                    "parameter" if isinstance(obj, Parameter) else "tensor": self._store(
                        obj.numpy(), place
                    ),
                    "device": str(obj.device),
                }
                if obj.name is not None:
                    made["name"] = obj.name
            else:
                made = {"array": self._store(obj, place)}
            known = self._known[id(obj)] = (obj, made)
        return known[1]

    def _store(self, array: np.ndarray[Any, Any], place: str) -> list[str]:
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype not in _SAVED:
            raise SerializationError(
                f"save: {place} is an array of {array.dtype}, which cannot be saved",
                fix=f"convert it to one of {', '.join(d.name for d in _SAVED)}",
            )
        key = str(len(self.arrays))
        array = np.ascontiguousarray(array).reshape(array.shape)
        self.arrays[key] = array
        return [key, xxhash.xxh64_hexdigest(array.tobytes())]


# -- reading -----------------------------------------------------------------------------


class _Reader:
    """Checks a file and rebuilds its tree."""

    def __init__(self, name: str, data: bytes, map_location: MapLocation) -> None:
        self._name = name
        self._data = data
        self._map = map_location
        self._arrays: dict[str, Any] = {}
        self._made: dict[tuple[str, str], Any] = {}

    def _bad(self, why: str) -> SerializationError:
        return SerializationError(
            f"load: {self._name} {why}", fix="save it again with mgec.save; check the download"
        )

    def read(self) -> Any:
        tree = self._tree()
        try:
            self._arrays = dict(safetensors.deserialize(self._data))
        except Exception as error:  # the library's own class, and others on odd input
            raise self._bad(f"is damaged: {error}") from None
        try:
            return self._value(tree)
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            RecursionError,
        ) as error:
            if isinstance(error, SerializationError | DeviceError):
                raise
            raise self._bad(f"is damaged: {error}") from None

    def _tree(self) -> Any:
        data = self._data
        size = int.from_bytes(data[:8], "little")
        if len(data) < 8 or size > len(data) - 8:
            raise self._bad(f"is truncated or not a saved file ({len(data)} bytes)")
        try:
            header = json.loads(data[8 : 8 + size])
            metadata = header.get("__metadata__") or {}
            kind, version = metadata.get("format"), metadata.get("version")
        except (ValueError, AttributeError, RecursionError):
            raise self._bad("is damaged, or not a saved file") from None
        if kind != _FORMAT:
            raise self._bad("was not written by mgec.save")
        if version != _VERSION:
            raise self._bad(f"has version {version}, but this mgec reads version {_VERSION}")
        text = metadata.get("tree", "")
        if not isinstance(text, str) or metadata.get("tree_hash") != xxhash.xxh64_hexdigest(
            text.encode()
        ):
            raise self._bad("is damaged: the checksum of its structure does not match")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self._bad("is damaged: its structure cannot be read") from None

    def _value(self, node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        ((kind, content), *rest) = node.items()
        if kind in ("dict", "ordered"):
            pairs = [(self._value(key), self._value(value)) for key, value in content]
            return OrderedDict(pairs) if kind == "ordered" else dict(pairs)
        if kind in ("list", "tuple"):
            items = [self._value(item) for item in content]
            return items if kind == "list" else tuple(items)
        if kind == "int":
            return int(content)
        if kind == "float":
            return float(content)
        if kind == "scalar":
            return self._array(content)[()]
        if kind in ("array", "tensor", "parameter"):
            return self._shared(kind, content, dict(rest))
        raise self._bad(f"is damaged: it holds an unknown kind {kind!r}")

    def _shared(self, kind: str, content: list[str], more: dict[str, Any]) -> Any:
        key = (kind, content[0])
        if key not in self._made:
            array = self._array(content)
            if kind == "array":
                self._made[key] = array
            else:
                make = Parameter if kind == "parameter" else Tensor
                device = self._device(more["device"])
                self._made[key] = make(array, device=device, name=more.get("name"))
        return self._made[key]

    def _array(self, content: list[str]) -> np.ndarray[Any, Any]:
        key, checksum = content
        entry = self._arrays[key]
        if xxhash.xxh64_hexdigest(bytes(entry["data"])) != checksum:
            raise self._bad(f"is damaged: the checksum of array {key} does not match")
        dtype = _DTYPES[entry["dtype"]]
        return np.frombuffer(bytearray(entry["data"]), dtype).reshape(entry["shape"])

    def _device(self, saved: str) -> str:
        target: Any = saved
        if isinstance(self._map, str):
            target = self._map
        elif callable(self._map):
            target = self._map(saved)
        elif self._map is not None:
            short = saved.removesuffix(":0")
            target = self._map.get(saved, self._map.get(short, saved))
        try:
            from mgec.device import device

            device(target).require()
        except DeviceError as error:
            raise DeviceError(
                f"load: a tensor belongs on {saved}: {error.headline}",
                fix='give map_location, e.g. load(f, map_location="xpux")',
            ) from None
        return target
