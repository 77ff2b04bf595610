"""Reading ONNX files: the model, its tensors and its external data, with every limit.

A file is foreign data. What is read here is checked here: sizes against the bytes that are there,
and paths of external data against the folder of the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgec.dialects.mge.spec import UINT8, TensorSpec
from mgec.errors import FileError, FileMissingError, ModelError
from mgec.importers.onnx_value import Array, check_size
from mgec.importers.onnx_wire import Place, split_weights

if TYPE_CHECKING:
    import onnx

FIRST_OPSET = 6
"""Older models have other rules for nearly every op."""
FIRST_IR_VERSION = 3


def import_onnx() -> Any:
    """The package `onnx`.

    Raises:
        ModelError: if it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ModelError(
            "reading .onnx files needs the package onnx, which is not installed",
            fix="pip install 'mgec[onnx]'",
        ) from error
    return onnx


@dataclass(frozen=True)
class ModelFile:
    """A model, and where what it refers to lies.

    Attributes:
        proto: the model; large initializers may have no data in it.
        name: what to call it.
        path: its file; None if it is not from one.
        places: in the file, the data of those initializers, by position.
    """

    proto: onnx.ModelProto
    name: str
    path: Path | None = None
    places: Mapping[int, Place] = field(default_factory=dict[int, Place])

    @property
    def folder(self) -> Path | None:
        """Where external data may lie."""
        return None if self.path is None else self.path.resolve().parent

    def initializers(self) -> Iterator[tuple[str, Array]]:
        """Name and value of each initializer of the graph; see `tensor_array`."""
        folder = self.folder
        for i, tensor in enumerate(self.proto.graph.initializer):
            place = self.places.get(i)
            if place is None or self.path is None:
                yield tensor.name, tensor_array(tensor, folder)
                continue
            spec = _tensor_spec(tensor)
            if not _is_plain(spec.dtype):  # several elements to a byte, or none at all
                data = TensorSpec((place.nbytes,), UINT8)
                tensor.raw_data = _read_part(self.path, place.offset, data).tobytes()
                yield tensor.name, tensor_array(tensor, folder)
                continue
            if place.nbytes != spec.nbytes:
                raise _size_error(tensor, spec, place.nbytes)
            yield tensor.name, _read_part(self.path, place.offset, spec)


def read_model(source: Any) -> ModelFile:
    """Reads a model and checks what holds for all of it.

    Args:
        source: a path, the bytes of a file, or a ModelProto.

    Raises:
        FileError, FileMissingError: if the file cannot be read.
        ModelError: if it is not an ONNX model, or of a version that is not supported.
    """
    onnx = import_onnx()
    if isinstance(source, onnx.ModelProto):
        name = source.graph.name or "model"
        _check_versions(source, name)
        return ModelFile(source, name)
    name, path, data = "model", None, source
    places: dict[int, Place] = {}
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        name = path.name
        data, places = _read_file(path)
    elif not isinstance(source, bytes):
        raise ModelError(
            f"from_onnx takes a path, bytes or a ModelProto, not {type(source).__name__}",
            fix="pass the path of the .onnx file",
        )
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(
            f"{name}: this is not an ONNX model: {' '.join(str(error).split())}",
            fix="the file may be truncated or damaged: export it again",
        ) from error
    _check_versions(model, name)
    return ModelFile(model, name, path, places)


def _read_file(path: Path) -> tuple[bytes, dict[int, Place]]:
    if path.is_dir():
        raise FileError(f"{path} is a folder", fix="pass the .onnx file in it")
    try:
        return split_weights(path)
    except FileNotFoundError as error:
        raise FileMissingError(f"there is no file {path}", fix="check the path") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {path}: {error}", fix="check the path") from error


def check_text(*names: str | bytes) -> None:
    """Refuses names that are not UTF-8, which protobuf hands out as bytes.

    Raises:
        ModelError: naming the first.
    """
    for name in names:
        if not isinstance(name, str):
            raise ModelError(
                f"the name {name!r} is not UTF-8 text",
                fix="the file may be damaged: export it again",
            )


def _check_versions(model: onnx.ModelProto, name: str) -> None:
    onnx = import_onnx()
    if not model.HasField("graph"):
        raise ModelError(f"{name}: there is no graph in the model", fix="export the model again")
    graph = model.graph
    for values in (graph.input, graph.output, graph.initializer):
        check_text(*(value.name for value in values))
    check_text(graph.name, *(o.domain for o in model.opset_import))
    if not FIRST_IR_VERSION <= model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"{name}: the file has IR version {model.ir_version}, but {FIRST_IR_VERSION} to "
            f"{onnx.IR_VERSION} are supported",
            fix="install a newer onnx package"
            if model.ir_version > onnx.IR_VERSION
            else "convert the model with onnx.version_converter",
        )
    opset = opsets(model).get("")
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not FIRST_OPSET <= opset <= newest:
        raise ModelError(
            f"{name}: the model has opset {opset}, but {FIRST_OPSET} to {newest} are supported",
            fix="install a newer onnx package"
            if opset > newest
            else "convert the model with onnx.version_converter",
        )


def opsets(owner: Any) -> dict[str, int]:
    """The opset of each domain that a model or a function imports; "ai.onnx" is ""."""
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in owner.opset_import}


# -- tensors -----------------------------------------------------------------------------


def dtype_of(element: int) -> np.dtype[Any]:
    """The NumPy dtype of an ONNX element type.

    Raises:
        ModelError: if there is no such type.
    """
    onnx = import_onnx()
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"there is no element type {element}", fix="the file may be damaged: export it again"
        ) from error
    return np.dtype(dtype)


def type_name(element: int) -> str:
    """What ONNX calls an element type: FLOAT, INT64, ..."""
    onnx = import_onnx()
    try:
        return str(onnx.TensorProto.DataType.Name(element))
    except ValueError:
        return f"type {element}"


def tensor_array(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    """The values of a tensor: a view of its bytes where that is possible.

    Args:
        tensor: an initializer, or the value of a constant.
        folder: where external data lies; None where there can be none.

    Raises:
        ModelError: if sizes and bytes do not fit, or external data lies outside the folder.
        FileError: if external data cannot be read.
    """
    onnx = import_onnx()
    if tensor.HasField("segment"):
        raise ModelError(f"tensor {tensor.name!r} is in segments", fix="export it in one piece")
    spec = _tensor_spec(tensor)
    shape, dtype = spec
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _external(tensor, spec, folder)
    plain = _is_plain(dtype)
    if tensor.HasField("raw_data") and plain:
        data = tensor.raw_data
        if len(data) != spec.nbytes:
            raise _size_error(tensor, spec, len(data))
        return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    if not tensor.HasField("raw_data"):
        stored = max(
            len(field)
            for field in (tensor.float_data, tensor.int32_data, tensor.int64_data,
                          tensor.double_data, tensor.uint64_data, tensor.string_data)
        )  # fmt: skip
        if prod(shape) > 0 and stored == 0:
            raise _damaged(tensor, f"{spec} has no data")
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:
        raise _damaged(tensor, " ".join(str(error).split())) from error


def _tensor_spec(tensor: onnx.TensorProto) -> TensorSpec:
    """Shape and dtype, checked."""
    shape = tuple(tensor.dims)
    if any(size < 0 for size in shape):
        raise ModelError(
            f"tensor {tensor.name!r} has shape {shape}, with a negative size",
            fix="the file may be damaged: export it again",
        )
    spec = TensorSpec(shape, dtype_of(tensor.data_type))
    check_size(spec)
    return spec


def _is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether elements are whole bytes that can be used as they are: no strings, no 4 bits."""
    return dtype.name == "bfloat16" or (dtype.isbuiltin == 1 and not dtype.hasobject)


def _size_error(tensor: onnx.TensorProto, spec: TensorSpec, nbytes: int) -> ModelError:
    return _damaged(tensor, f"{spec} needs {spec.nbytes} bytes but there are {nbytes}")


def _read_part(path: Path, offset: int, spec: TensorSpec) -> Array:
    """Reads a tensor's bytes out of a file.

    They are read, not mapped: a file that is written again while the model is in use must
    not end the process.
    """
    try:
        array = np.fromfile(path, np.uint8, spec.nbytes, offset=offset)
    except OSError as error:
        raise FileError(
            f"cannot read {path}: {error.strerror or error}", fix="check the file"
        ) from error
    if array.size != spec.nbytes:
        raise FileError(f"cannot read {path}: it became shorter", fix="export it again")
    little = array.view(spec.dtype.newbyteorder("<"))
    return little.astype(spec.dtype, copy=False).reshape(spec.shape)


def _damaged(tensor: onnx.TensorProto, what: str) -> ModelError:
    return ModelError(
        f"tensor {tensor.name!r}: {what}", fix="the file may be damaged: export it again"
    )


def _external(tensor: onnx.TensorProto, spec: TensorSpec, folder: Path | None) -> Array:
    """Maps the part of a file that a tensor refers to."""
    if not _is_plain(spec.dtype):
        raise ModelError(
            f"tensor {tensor.name!r}: external data of type {spec.dtype.name} is not supported",
            fix="store the tensor in the model",
        )
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = external_path(location, folder, tensor.name)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or spec.nbytes)
    except ValueError as error:
        raise _damaged(tensor, f"external data at {entries}") from error
    try:
        size = path.stat().st_size
        if length != spec.nbytes or offset < 0 or offset + length > size:
            raise _damaged(
                tensor,
                f"{spec} needs {spec.nbytes} bytes, but {length} from {offset} are named "
                f"in {location}, which has {size}",
            )
    except OSError as error:
        raise FileError(
            f"cannot read {path}: {error.strerror or error}",
            fix="put the file of the weights beside the model",
        ) from error
    return _read_part(path, offset, spec)


def external_path(location: str, folder: Path | None, name: str) -> Path:
    """The file of external data, which must lie below the model's folder.

    Raises:
        ModelError: if it does not: an absolute path, `..`, or a link that leads elsewhere.
    """
    if folder is None:
        raise ModelError(
            f"tensor {name!r} is in another file, {location!r}, but the model is not from a file",
            fix="pass the path of the model",
        )
    path = Path(location)
    wrong = not location or "\0" in location or path.is_absolute() or ".." in path.parts
    inside = False
    if not wrong:
        try:
            inside = (folder / path).resolve().is_relative_to(folder.resolve())
        except (OSError, RuntimeError):  # a loop of links
            inside = False
    if wrong or not inside:
        raise ModelError(
            f"tensor {name!r}: its external data {location!r} is not below the model's folder",
            fix="put the file beside the model, and name it by a relative path",
        )
    resolved = (folder / path).resolve()
    if not resolved.is_file():
        raise FileMissingError(
            f"there is no file {resolved}, which tensor {name!r} is in",
            fix="put the file of the weights beside the model",
        )
    return resolved
