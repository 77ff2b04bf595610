"""The artifact: one file that holds everything a machine needs to run a compiled model.

    header    64 bytes: magic, version, endianness mark, number of sections, file size, checksum
    table     48 bytes per section: kind, flags, offset, size, checksum, name
    sections  each begins at a multiple of 64; zeros between

    METADATA  JSON: inputs, outputs, targets with their features and kernel names
    PROGRAM   tables of steps, slots and dims (see `mgec.runtime.program`)
    WEIGHTS   raw bytes, used from the mapped file
    CODE      a shared object
    GRAPH     optional: the graph as MLIR text, from which the artifact can be compiled again

An artifact may hold several targets. CODE is named after its target; PROGRAM and WEIGHTS too,
unless all targets share one, which then has no name. All numbers are little-endian; checksums are
xxh64.

Every byte of the file is covered by a checksum or must be zero, and `read_artifact` checks all of
it before anything is used: a damaged file is an `ArtifactError`. Checksums guard against damage,
not against malice: an artifact contains machine code, so run only what you trust.
"""

from __future__ import annotations

import contextlib
import enum
import json
import math
import mmap
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

from mgec.errors import ArgumentError, ArtifactError, FileError, FileMissingError, MgecError
from mgec.runtime.program import Program

MAGIC = b"MGECART\0"
VERSION = 1
ALIGNMENT = 64

_ENDIAN_MARK = 0x01020304
_HEADER = struct.Struct("<8s4I2Q24x")
_ENTRY = struct.Struct("<2I3Q16s")
_CHECKSUM_OFFSET = 32
_MAX_SECTIONS = 1024
_FIX = "re-create it with mgec compile"

DTYPE_BYTES = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "complex64": 8,
    "complex128": 16,
}
"""Element types of inputs and outputs, and their sizes in bytes."""

Buffer = bytes | bytearray | memoryview


class SectionKind(enum.IntEnum):
    """What a section holds; sections lie in the file in this order."""

    METADATA = 1
    PROGRAM = 2
    WEIGHTS = 3
    CODE = 4
    GRAPH = 5


@dataclass(frozen=True, slots=True)
class IOSpec:
    """An input or an output of a model.

    Attributes:
        name: Unique among the inputs, or among the outputs.
        dtype: A key of `DTYPE_BYTES`.
        shape: Sizes in C order; empty for a scalar.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes the dense array has."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """A processor that an artifact has code for.

    Attributes:
        name: Short name, at most 16 bytes of ASCII: ``x86-64-v3``.
        triple: LLVM's triple: ``x86_64-unknown-linux-gnu``.
        cpu: The processor whose timing was assumed: ``znver4``.
        features: LLVM's names of the instruction sets that the code uses: ``avx2``.
        kernels: Symbol names in the shared object; a step's kernel is an index into them.
        steps: What each step is, for reports; empty or one per step.
    """

    name: str
    triple: str
    cpu: str = ""
    features: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What an artifact says about itself.

    Attributes:
        name: The model's name.
        mgec_version: The version that wrote it.
        inputs: In the order of the calls.
        outputs: In the order of the results.
        targets: Best first: the first that runs here is loaded.
        info: Anything for reports (memory plan, facts per op): JSON values only.
    """

    name: str
    mgec_version: str
    inputs: tuple[IOSpec, ...]
    outputs: tuple[IOSpec, ...]
    targets: tuple[TargetInfo, ...]
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class TargetBuild:
    """What the compiler made for one target, to be written.

    Attributes:
        info: The target.
        program: What a run does.
        code: A shared object with the kernels of `info`.
        weights: The constants that the program points into.
    """

    info: TargetInfo
    program: Program
    code: Buffer
    weights: Buffer = b""


@dataclass(frozen=True, slots=True)
class Section:
    """A row of the section table."""

    kind: SectionKind
    name: str
    offset: int
    nbytes: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.kind.name} '{self.name}'" if self.name else self.kind.name


# ---- Writing ------------------------------------------------------------------------------------


def write_artifact(
    path: str | os.PathLike[str],
    *,
    name: str,
    inputs: Sequence[IOSpec],
    outputs: Sequence[IOSpec],
    builds: Sequence[TargetBuild],
    graph: str | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Writes an artifact: all of it or nothing, also when the machine fails in between.

    Args:
        path: The file, usually ``*.mge``; replaced if it exists.
        name: The model's name.
        inputs: In the order of the program's io.
        outputs: In the order of the program's io, after the inputs.
        builds: One per target, best first; at least one.
        graph: The graph as MLIR text.
        info: Anything for reports: JSON values only.

    Raises:
        ArgumentError: When the parts do not fit together.
        FileError: When the file cannot be written.
    """
    from mgec.version import __version__

    metadata = Metadata(
        name, __version__, tuple(inputs), tuple(outputs), tuple(b.info for b in builds), info or {}
    )
    document = _metadata_to_json(metadata)
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        _metadata_from_json(json.loads(text))
    except (TypeError, ValueError) as error:
        reason = error.headline if isinstance(error, MgecError) else error
        raise ArgumentError(f"artifact: the metadata cannot be written: {reason}") from error

    parts: list[tuple[SectionKind, str, Buffer]] = [(SectionKind.METADATA, "", text.encode())]
    io_nbytes = [spec.nbytes for spec in (*inputs, *outputs)]
    programs: list[Buffer] = []
    for build in builds:
        _check_build(build, io_nbytes)
        programs.append(build.program.encode())
    parts += _shared_or_named(SectionKind.PROGRAM, builds, programs)
    parts += _shared_or_named(SectionKind.WEIGHTS, builds, [b.weights for b in builds])
    parts += [(SectionKind.CODE, build.info.name, build.code) for build in builds]
    if graph is not None:
        parts.append((SectionKind.GRAPH, "", graph.encode()))
    _write_atomically(path, _layout(parts))


def _check_build(build: TargetBuild, io_nbytes: Sequence[int]) -> None:
    build.program.check(io_nbytes)
    label = f"artifact: target {build.info.name}"
    if build.program.num_kernels != len(build.info.kernels):
        raise ArgumentError(
            f"{label}: the program has {build.program.num_kernels} kernels, "
            f"but {len(build.info.kernels)} names are given"
        )
    if build.info.steps and len(build.info.steps) != len(build.program.steps):
        raise ArgumentError(
            f"{label}: the program has {len(build.program.steps)} steps, "
            f"but {len(build.info.steps)} names are given"
        )
    if memoryview(build.weights).nbytes != build.program.constants_bytes:
        raise ArgumentError(
            f"{label}: the program expects {build.program.constants_bytes} bytes of weights, "
            f"but there are {memoryview(build.weights).nbytes}"
        )
    if not build.code:
        raise ArgumentError(f"{label}: the code is empty")


def _shared_or_named(
    kind: SectionKind, builds: Sequence[TargetBuild], parts: Sequence[Buffer]
) -> list[tuple[SectionKind, str, Buffer]]:
    """One section without a name if all targets have the same, else one each; none if empty."""
    if all(part is parts[0] or part == parts[0] for part in parts[1:]):
        return [(kind, "", parts[0])] if len(parts[0]) else []
    return [(kind, b.info.name, part) for b, part in zip(builds, parts, strict=True) if len(part)]


def _align(offset: int) -> int:
    return (offset + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def _checksum(*parts: Buffer) -> int:
    import xxhash

    digest = xxhash.xxh64()
    for part in parts:
        digest.update(part)
    return digest.intdigest()


def _layout(parts: Sequence[tuple[SectionKind, str, Buffer]]) -> list[Buffer]:
    """The pieces of the file in order."""
    views = [memoryview(data).cast("B") for _, _, data in parts]
    end = _HEADER.size + len(parts) * _ENTRY.size
    table = bytearray()
    pieces: list[Buffer] = []
    for (kind, name, _), view in zip(parts, views, strict=True):
        offset = _align(end)
        pieces += [bytes(offset - end), view]
        end = offset + view.nbytes
        table += _ENTRY.pack(kind, 0, offset, view.nbytes, _checksum(view), name.encode("ascii"))
    fields = (MAGIC, VERSION, _ENDIAN_MARK, len(parts), _HEADER.size, end)
    checksum = _checksum(_HEADER.pack(*fields, 0), table)
    return [_HEADER.pack(*fields, checksum), bytes(table), *pieces]


def _write_atomically(path: str | os.PathLike[str], pieces: Sequence[Buffer]) -> None:
    target = Path(path).absolute()
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise FileError(
            f"artifact: cannot write {target}: {error.strerror or error}",
            fix="choose a folder that exists and can be written, and check the free space",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)  # after a failure only: replace() moved it
    with contextlib.suppress(OSError):  # make the new name durable, where folders can be synced
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    """The process's mask without changing it, where the system tells; else the usual one."""
    try:
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o022


# ---- Metadata as JSON ---------------------------------------------------------------------------


def _metadata_to_json(metadata: Metadata) -> dict[str, Any]:
    def io(specs: Sequence[IOSpec]) -> list[dict[str, Any]]:
        return [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} for s in specs]

    return {
        "name": metadata.name,
        "mgec_version": metadata.mgec_version,
        "inputs": io(metadata.inputs),
        "outputs": io(metadata.outputs),
        "targets": [
            {
                "name": target.name,
                "triple": target.triple,
                "cpu": target.cpu,
                "features": list(target.features),
                "kernels": list(target.kernels),
                "steps": list(target.steps),
            }
            for target in metadata.targets
        ],
        "info": dict(metadata.info),
    }


def _metadata_from_json(document: object) -> Metadata:
    """Checks every key and every type; raises `ArgumentError` with the path of what is wrong."""
    keys = ("name", "mgec_version", "inputs", "outputs", "targets", "info")
    top = _object(document, "metadata", keys)
    inputs = _io_specs(top["inputs"], "inputs")
    outputs = _io_specs(top["outputs"], "outputs")
    targets = tuple(
        _target(row, f"targets[{i}]") for i, row in enumerate(_list(top["targets"], "targets"))
    )
    if not targets:
        _wrong("targets", "at least one target", [])
    _unique([target.name for target in targets], "targets")
    info = _object(top["info"], "info", None)
    return Metadata(
        _text(top["name"], "name"),
        _text(top["mgec_version"], "mgec_version"),
        inputs,
        outputs,
        targets,
        info,
    )


def _io_specs(value: object, path: str) -> tuple[IOSpec, ...]:
    specs: list[IOSpec] = []
    for number, row in enumerate(_list(value, path)):
        place = f"{path}[{number}]"
        fields = _object(row, place, ("name", "dtype", "shape"))
        dtype = _text(fields["dtype"], f"{place}.dtype")
        if dtype not in DTYPE_BYTES:
            _wrong(f"{place}.dtype", f"one of {', '.join(DTYPE_BYTES)}", dtype)
        shape = _list(fields["shape"], f"{place}.shape")
        for dim in shape:
            if type(dim) is not int or not 0 <= dim < 1 << 48:
                _wrong(f"{place}.shape", "sizes from 0 to 2**48", shape)
        spec = IOSpec(
            _text(fields["name"], f"{place}.name"), dtype, tuple(cast("list[int]", shape))
        )
        if spec.nbytes > 1 << 48:
            _wrong(f"{place}.shape", "at most 2**48 bytes", shape)
        specs.append(spec)
    _unique([spec.name for spec in specs], path)
    return tuple(specs)


def _target(value: object, path: str) -> TargetInfo:
    fields = _object(value, path, ("name", "triple", "cpu", "features", "kernels", "steps"))
    name = _text(fields["name"], f"{path}.name")
    if not 1 <= len(name) <= 16 or not name.isascii() or not name.isprintable():
        _wrong(f"{path}.name", "1 to 16 printable ASCII characters", name)
    lists = {
        key: tuple(_text(each, f"{path}.{key}") for each in _list(fields[key], f"{path}.{key}"))
        for key in ("features", "kernels", "steps")
    }
    return TargetInfo(
        name,
        _text(fields["triple"], f"{path}.triple"),
        _text(fields["cpu"], f"{path}.cpu"),
        **lists,
    )


def _wrong(path: str, expected: str, found: object) -> NoReturn:
    shown = repr(found)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise ArgumentError(f"{path}: expected {expected}, found {shown}")


def _object(value: object, path: str, keys: Sequence[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        _wrong(path, "an object", value)
    fields = cast("dict[str, Any]", value)
    if keys is not None and set(fields) != set(keys):
        _wrong(path, f"the keys {', '.join(keys)}", sorted(fields))
    return fields


def _list(value: object, path: str) -> list[Any]:
    if not isinstance(value, list):
        _wrong(path, "a list", value)
    return cast("list[Any]", value)


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        _wrong(path, "text", value)
    return value


def _unique(names: Sequence[str], path: str) -> None:
    if len(set(names)) != len(names):
        _wrong(path, "names that differ", list(names))


# ---- Reading ------------------------------------------------------------------------------------


class Artifact:
    """A checked artifact, mapped into memory; made by `read_artifact`.

    Attributes:
        path: The file.
        metadata: What it says about itself.
        sections: Its sections in the order of the file.
        nbytes: The size of the file.
    """

    def __init__(
        self,
        path: str,
        data: memoryview,
        metadata: Metadata,
        sections: tuple[Section, ...],
        programs: Mapping[str, Program],
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.sections = sections
        self.nbytes = data.nbytes
        self._data = data
        self._programs = programs

    def target(self, name: str) -> TargetInfo:
        """The target of that name.

        Raises:
            ArgumentError: When there is none.
        """
        for target in self.metadata.targets:
            if target.name == name:
                return target
        known = ", ".join(target.name for target in self.metadata.targets)
        raise ArgumentError(f"{self.path}: there is no target {name!r}", fix=f"use one of {known}")

    def program(self, target: str) -> Program:
        """What a run does on a target."""
        return self._programs[self.target(target).name]

    def code(self, target: str) -> memoryview:
        """The shared object for a target."""
        return self._part(SectionKind.CODE, self.target(target).name)

    def weights(self, target: str) -> memoryview:
        """The constants for a target, aligned to 64 bytes, as a view of the file; may be empty."""
        return self._part(SectionKind.WEIGHTS, self.target(target).name)

    @property
    def graph(self) -> str | None:
        """The graph as MLIR text; None if the artifact does not carry it."""
        section = _find(self.sections, SectionKind.GRAPH, "")
        return None if section is None else str(_view(self._data, section), "utf-8")

    def _part(self, kind: SectionKind, target: str) -> memoryview:
        section = _find(self.sections, kind, target)
        return memoryview(b"") if section is None else _view(self._data, section)


def _find(sections: Sequence[Section], kind: SectionKind, target: str) -> Section | None:
    """The section for a target, or the one that all targets share."""
    for name in (target, ""):
        for section in sections:
            if section.kind == kind and section.name == name:
                return section
    return None


def _view(data: memoryview, section: Section) -> memoryview:
    return data[section.offset : section.offset + section.nbytes]


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Maps an artifact and checks all of it.

    Args:
        path: The file.

    Returns:
        The artifact; the file stays mapped as long as it, or a view from it, lives.

    Raises:
        ArtifactError: When anything in the file is not as it must be.
        FileMissingError: When there is no such file.
        FileError: When it cannot be read.
    """
    name = os.fspath(path)
    try:
        with Path(name).open("rb") as file:
            nbytes = os.fstat(file.fileno()).st_size
            if nbytes < _HEADER.size:
                _damaged(name, "header", f"at least {_HEADER.size} bytes", f"{nbytes} bytes")
            data = memoryview(mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise FileMissingError(
            f"artifact: there is no file {name}", fix="check the path"
        ) from error
    except OSError as error:
        raise FileError(
            f"artifact: cannot read {name}: {error.strerror or error}", fix="check the path"
        ) from error

    sections = _read_sections(name, data)
    metadata = _read_metadata(name, data, sections)
    programs = _read_programs(name, data, sections, metadata)
    graph = _find(sections, SectionKind.GRAPH, "")
    if graph is not None:
        _decode_text(name, graph, _view(data, graph))
    return Artifact(name, data, metadata, sections, programs)


def _damaged(path: str, place: str, expected: str, found: object, fix: str = _FIX) -> NoReturn:
    raise ArtifactError(
        f"{path}: {place}: expected {expected}, found {found}",
        values=[("file", path), ("section", place), ("expected", expected), ("found", str(found))],
        fix=fix,
    )


def _read_sections(path: str, data: memoryview) -> tuple[Section, ...]:
    """Checks header, table, the places of all sections, the zeros between, and all checksums."""
    magic, version, mark, count, header_bytes, nbytes, checksum = _HEADER.unpack_from(data)
    if magic != MAGIC:
        _damaged(
            path, "header", f"the magic {MAGIC!r}", repr(magic), "pass a file made by mgec compile"
        )
    if mark != _ENDIAN_MARK:
        _damaged(path, "header", f"the endianness mark {_ENDIAN_MARK:#010x}", f"{mark:#010x}")
    if version != VERSION:
        _damaged(
            path,
            "header",
            f"version {VERSION}",
            f"version {version}",
            f"{_FIX} of this version, or install the mgec that wrote it",
        )
    if header_bytes != _HEADER.size or any(data[_HEADER.size - 24 : _HEADER.size]):
        _damaged(path, "header", "reserved bytes that are zero", "others")
    if nbytes != data.nbytes:
        _damaged(path, "header", f"{nbytes} bytes in the file", f"{data.nbytes} bytes")
    end = _HEADER.size + count * _ENTRY.size
    if not 1 <= count <= _MAX_SECTIONS or end > nbytes:
        _damaged(
            path, "header", f"1 to {_MAX_SECTIONS} sections inside the file", f"{count} sections"
        )
    header = bytearray(data[: _HEADER.size])
    header[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 8] = bytes(8)
    computed = _checksum(header, data[_HEADER.size : end])
    if computed != checksum:
        _damaged(path, "section table", f"checksum {checksum:016x}", f"{computed:016x}")

    sections: list[Section] = []
    for number, row in enumerate(_ENTRY.iter_unpack(data[_HEADER.size : end])):
        kind, flags, offset, size, checksum, raw_name = row
        place = f"section table row {number}"
        if kind not in {each.value for each in SectionKind}:
            _damaged(path, place, "a section kind from 1 to 5", kind)
        if flags != 0:
            _damaged(path, place, "flags 0", flags)
        text = raw_name.rstrip(b"\0")
        if not all(32 < byte < 127 for byte in text):
            _damaged(
                path, place, "a name of ASCII characters, filled up with zeros", repr(raw_name)
            )
        section = Section(SectionKind(kind), text.decode("ascii"), offset, size, checksum)
        if sections and section.kind < sections[-1].kind:
            _damaged(path, place, f"a section after {sections[-1]}", section)
        if any((each.kind, each.name) == (section.kind, section.name) for each in sections):
            _damaged(path, place, "each section once", f"{section} twice")
        if offset != _align(end):
            _damaged(path, str(section), f"its offset to be {_align(end)}", offset)
        if size > nbytes - offset:
            _damaged(path, str(section), f"at most {max(nbytes - offset, 0)} bytes", size)
        if any(data[end:offset]):
            _damaged(path, str(section), "zeros before it", "others")
        end = offset + size
        sections.append(section)
    if end != nbytes:
        _damaged(path, str(sections[-1]), f"it to end at {nbytes}, with the file", end)
    for section in sections:
        computed = _checksum(_view(data, section))
        if computed != section.checksum:
            _damaged(path, str(section), f"checksum {section.checksum:016x}", f"{computed:016x}")
    return tuple(sections)


def _decode_text(path: str, section: Section, data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        _damaged(path, str(section), "UTF-8 text", error)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _read_metadata(path: str, data: memoryview, sections: Sequence[Section]) -> Metadata:
    section = sections[0]
    if section.kind != SectionKind.METADATA or section.name:
        _damaged(path, "section table", "METADATA as the first section", section)
    text = _decode_text(path, section, _view(data, section))
    try:
        metadata = _metadata_from_json(json.loads(text, parse_constant=_refuse_constant))
    except ArgumentError as error:
        raise ArtifactError(f"{path}: {section}: {error.headline}", fix=_FIX) from error
    except (ValueError, RecursionError) as error:
        _damaged(path, str(section), "JSON", error)
    known = {target.name for target in metadata.targets}
    for each in sections:
        if each.kind in (SectionKind.METADATA, SectionKind.GRAPH):
            valid = not each.name
        else:
            valid = each.name in known or (not each.name and each.kind != SectionKind.CODE)
        if not valid:
            _damaged(
                path, str(each), f"the name of a target ({', '.join(sorted(known))})", each.name
            )
    return metadata


def _read_programs(
    path: str, data: memoryview, sections: Sequence[Section], metadata: Metadata
) -> dict[str, Program]:
    """The program of each target, checked against the inputs, outputs, weights and kernel names."""
    io_nbytes = [spec.nbytes for spec in (*metadata.inputs, *metadata.outputs)]
    decoded: dict[str, Program] = {}
    programs: dict[str, Program] = {}
    for target in metadata.targets:
        code = _find(sections, SectionKind.CODE, target.name)
        if code is None or code.nbytes == 0:
            _damaged(path, f"CODE '{target.name}'", "machine code", "none")
        section = _find(sections, SectionKind.PROGRAM, target.name)
        if section is None:
            _damaged(path, f"PROGRAM '{target.name}'", "a program", "none")
        try:
            if section.name not in decoded:
                decoded[section.name] = Program.decode(_view(data, section))
                decoded[section.name].check(io_nbytes)
        except ArgumentError as error:
            raise ArtifactError(f"{path}: {section}: {error.headline}", fix=_FIX) from error
        program = programs[target.name] = decoded[section.name]
        if program.num_kernels != len(target.kernels):
            expected = f"{len(target.kernels)} kernels, as METADATA names"
            _damaged(path, str(section), expected, program.num_kernels)
        if target.steps and len(target.steps) != len(program.steps):
            expected = f"{len(target.steps)} steps, as METADATA names"
            _damaged(path, str(section), expected, len(program.steps))
        weights = _find(sections, SectionKind.WEIGHTS, target.name)
        weights_bytes = 0 if weights is None else weights.nbytes
        if program.constants_bytes != weights_bytes:
            expected = f"{program.constants_bytes} bytes, as {section} says"
            _damaged(path, f"WEIGHTS '{target.name}'", expected, f"{weights_bytes} bytes")
    return programs
