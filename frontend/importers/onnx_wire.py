"""Finding the bytes of large initializers in a file, so that they are read once and not copied.

Protobuf copies every field that it parses. A model is mostly weights, so the file is walked first:
large `raw_data` of the graph's initializers is left out of what protobuf gets to see, and its place
noted. Only three messages matter, and only by the numbers of their fields in onnx.proto.

Source: the protocol buffers encoding, https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9
LARGE_BYTES = 4096
"""Smaller tensors are parsed with the rest."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


class Place(NamedTuple):
    """Where bytes lie in the file."""

    offset: int
    nbytes: int


class _Field(NamedTuple):
    number: int
    wire: int
    start: int  # of the key
    body: int
    end: int


class _MalformedError(Exception):
    """The bytes are not what this file expects; protobuf is to say what is wrong."""


def split_weights(path: Path) -> tuple[bytes, dict[int, Place]]:
    """Reads a file without the raw data of its large initializers.

    Args:
        path: an ONNX model.

    Returns:
        The bytes of the model without them, and the place of the raw data of each, by the
        initializer's position. Where the file is not as expected, all of its bytes, and none.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return b"", {}
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _split_model(data)
            except _MalformedError:
                return data[:], {}


def _split_model(data: mmap.mmap) -> tuple[bytes, dict[int, Place]]:
    places: dict[int, Place] = {}
    pieces: list[bytes] = []
    graphs = 0
    for field in _fields(data, 0, len(data)):
        if field.number != MODEL_GRAPH or field.wire != _BYTES:
            pieces.append(data[field.start : field.end])
            continue
        graphs += 1
        if graphs > 1:  # protobuf would merge them, and positions would shift
            raise _MalformedError
        body = _split_graph(data, field, places)
        pieces += [_key(field.number), _varint(len(body)), body]
    return b"".join(pieces), places


def _split_graph(data: mmap.mmap, graph: _Field, places: dict[int, Place]) -> bytes:
    pieces: list[bytes] = []
    position = 0
    for field in _fields(data, graph.body, graph.end):
        if field.number != GRAPH_INITIALIZER or field.wire != _BYTES:
            pieces.append(data[field.start : field.end])
            continue
        body, place = _split_tensor(data, field)
        if place is not None:
            places[position] = place
        pieces += [_key(field.number), _varint(len(body)), body]
        position += 1
    return b"".join(pieces)


def _split_tensor(data: mmap.mmap, tensor: _Field) -> tuple[bytes, Place | None]:
    if tensor.end - tensor.body < LARGE_BYTES:
        return data[tensor.body : tensor.end], None
    pieces: list[bytes] = []
    place: Place | None = None
    for field in _fields(data, tensor.body, tensor.end):
        if field.number == TENSOR_RAW_DATA and field.wire == _BYTES:
            place = Place(field.body, field.end - field.body)  # the last one counts
        else:
            pieces.append(data[field.start : field.end])
    return b"".join(pieces), place


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    at = start
    while at < end:
        key, body = _read_varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, stop = _read_varint(data, body, end)
        elif wire == _FIXED64:
            stop = body + 8
        elif wire == _FIXED32:
            stop = body + 4
        elif wire == _BYTES:
            size, body = _read_varint(data, body, end)
            stop = body + size
        else:
            raise _MalformedError
        if stop > end or number == 0:
            raise _MalformedError
        yield _Field(number, wire, at, body, stop)
        at = stop


def _read_varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for i in range(_LONGEST_VARINT):
        if at >= end:
            raise _MalformedError
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at
    raise _MalformedError


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _key(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)
