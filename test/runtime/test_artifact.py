"""The artifact format: round trip, and every kind of damage."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from mgec.errors import ArgumentError, ArtifactError, FileError, FileMissingError, RuntimeFailure
from mgec.runtime import (
    IOSpec,
    SectionKind,
    TargetBuild,
    artifact,
    load,
    native,
    read_artifact,
    write_artifact,
)

Sample = Any  # the class in conftest.py
HEADER, ENTRY = 64, 48


def test_round_trip(sample: Sample, build: TargetBuild, artifact_path: Path) -> None:
    read = read_artifact(artifact_path)
    assert read.metadata.name == "sample"
    assert read.metadata.inputs == (IOSpec("x", "float32", (6, 16)),)
    assert read.metadata.targets == (build.info,)
    assert read.metadata.info == {"arena": {"peak_bytes": 384}}
    assert read.program("host") == sample.program()
    assert read.code("host") == build.code
    assert read.weights("host") == build.weights
    assert read.graph == '"mge.graph"() : () -> ()'
    assert [section.kind for section in read.sections] == list(SectionKind)
    assert all(section.offset % 64 == 0 for section in read.sections)
    assert read.nbytes == artifact_path.stat().st_size
    address = np.frombuffer(read.weights("host"), np.uint8).ctypes.data
    assert address % 64 == 0
    with pytest.raises(ArgumentError, match="there is no target 'other'"):
        read.code("other")


def test_same_parts_give_the_same_bytes(build: TargetBuild, write: Callable[..., Path]) -> None:
    assert write(build, name="a").read_bytes() == write(build, name="b").read_bytes()


def test_targets_share_what_is_equal(build: TargetBuild, write: Callable[..., Path]) -> None:
    def named(name: str, **changes: Any) -> TargetBuild:
        return dataclasses.replace(
            build, info=dataclasses.replace(build.info, name=name), **changes
        )

    read = read_artifact(write(named("one"), named("two")))
    assert [str(s) for s in read.sections] == [
        "METADATA", "PROGRAM", "WEIGHTS", "CODE 'one'", "CODE 'two'"
    ]  # fmt: skip
    packed = bytes(len(build.weights))
    read = read_artifact(write(named("one"), named("two", weights=packed)))
    assert [str(s) for s in read.sections if s.kind == SectionKind.WEIGHTS] == [
        "WEIGHTS 'one'", "WEIGHTS 'two'"
    ]  # fmt: skip
    assert read.weights("two") == packed


def test_no_graph_and_no_weights(sample: Sample, build: TargetBuild, tmp_path: Path) -> None:
    program = dataclasses.replace(sample.program(), steps=(), constants_bytes=0, num_io=0)
    path = tmp_path / "small.mge"
    info = dataclasses.replace(build.info, steps=())
    write_artifact(
        path, name="", inputs=[], outputs=[], builds=[TargetBuild(info, program, build.code)]
    )
    read = read_artifact(path)
    assert read.graph is None
    assert len(read.weights("host")) == 0
    assert load(path)() == []


def test_writing_is_all_or_nothing(
    build: TargetBuild, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(build)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match="cannot write .*model.mge: No space left on device"):
        write(build, info={"more": 1})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_parts_that_do_not_fit_are_not_written(
    build: TargetBuild, write: Callable[..., Path]
) -> None:
    replace = dataclasses.replace
    cases = [
        (replace(build, weights=b"1"), "expects 448 bytes of weights, but there are 1"),
        (replace(build, code=b""), "the code is empty"),
        (replace(build, info=replace(build.info, kernels=("a",))), "has 3 kernels, but 1 names"),
        (replace(build, info=replace(build.info, steps=("a",))), "has 3 steps, but 1 names"),
        (replace(build, info=replace(build.info, name="a" * 17)), r"targets\[0\].name: expected 1"),
        (
            replace(build, program=replace(build.program, num_io=4)),
            "it has 4 inputs and outputs, expected 3",
        ),
    ]
    for bad, message in cases:
        with pytest.raises(ArgumentError, match=message):
            write(bad)
    with pytest.raises(ArgumentError, match="the metadata cannot be written"):
        write(build, info={"x": float("nan")})
    with pytest.raises(ArgumentError, match="names that differ"):
        write(build, build)
    with pytest.raises(ArgumentError, match="at least one target"):
        write()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match="there is no file"):
        read_artifact(tmp_path / "nothing.mge")
    with pytest.raises(FileError, match="cannot read"):
        read_artifact(tmp_path)


# ---- Damage -----------------------------------------------------------------------------------


def mutate(data: bytes, random: random.Random) -> tuple[str, bytes]:
    """One mutation; half of them near the beginning, where the header and the tables are."""
    n = len(data)
    end = random.choice([n, min(n, 1024)])
    at = random.randrange(end)
    kind = random.choice(["flip", "set", "truncate", "extend", "swap", "zero", "insert", "delete"])
    changed = bytearray(data)
    if kind == "flip":
        changed[at] ^= 1 << random.randrange(8)
    elif kind == "set":
        changed[at] = random.randrange(256)
    elif kind == "truncate":
        del changed[at:]
    elif kind == "extend":
        changed += random.choice([bytes, random.randbytes])(random.randint(1, 200))
    elif kind == "swap":
        size = random.choice([1, 8, 16, 48, 64, 512])
        other = random.randrange(n)
        size = min(size, n - max(at, other))
        one, two = bytes(changed[at : at + size]), bytes(changed[other : other + size])
        changed[at : at + size], changed[other : other + size] = two, one
    elif kind == "zero":
        size = min(random.choice([1, 8, 64, 4096]), n - at)
        changed[at : at + size] = bytes(size)
    elif kind == "insert":
        changed[at:at] = random.randbytes(random.choice([1, 8, 64]))
    else:
        del changed[at : at + random.choice([1, 8, 64])]
    return f"{kind} at {at}", bytes(changed)


def refusal(path: Path) -> ArtifactError | None:
    """The error that reading a file gives; any other kind of exception passes through."""
    try:
        read_artifact(path)
    except ArtifactError as error:
        return error
    return None


def native_refusal(path: Path) -> str | None:
    """What kind of failure loading a file with the native runtime gives."""
    library, model = native.library(), ctypes.c_void_p()
    status = library.model_load(os.fsencode(path), None, 1, ctypes.addressof(model))
    if status is None:
        native.check(library.model_destroy(model.value))
        return None
    with pytest.raises(RuntimeFailure) as caught:
        native.check(status)
    code = next(value[1] for value in caught.value.values if value[0] == "code")
    return code.partition("(")[2].rstrip(")")


def test_2000_of_2000_mutations_are_refused(artifact_path: Path, tmp_path: Path) -> None:
    data = artifact_path.read_bytes()
    generator = random.Random(20261122)
    path = tmp_path / "damaged.mge"
    refused = 0
    while refused < 2000:
        what, damaged = mutate(data, generator)
        if damaged == data:
            continue
        path.write_bytes(damaged)
        error = refusal(path)
        assert error is not None, f"accepted: {what}"
        assert str(path) in error.headline, what
        assert error.fix, what
        assert native_refusal(path) == "damaged", what
        path.unlink()
        refused += 1


def test_every_bit_of_a_small_artifact_matters(
    build: TargetBuild, write: Callable[..., Path], tmp_path: Path
) -> None:
    """Exhaustive: each byte of header, tables, metadata, program and padding."""
    path = write(dataclasses.replace(build, code=b"code"))
    data = path.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(ArtifactError):
            read_artifact(path)
        assert native_refusal(path) == "damaged"


def reseal(data: bytearray) -> bytes:
    """Makes all checksums right again, as somebody would who writes a wrong file on purpose."""
    count = struct.unpack_from("<I", data, 16)[0]
    for row in range(HEADER, HEADER + count * ENTRY, ENTRY):
        offset, size = struct.unpack_from("<2Q", data, row + 8)
        section = data[offset : offset + size]
        struct.pack_into("<Q", data, row + 24, xxhash.xxh64_intdigest(bytes(section)))
    data[32:40] = bytes(8)
    digest = xxhash.xxh64_intdigest(bytes(data[: HEADER + count * ENTRY]))
    struct.pack_into("<Q", data, 32, digest)
    return bytes(data)


def row(kind: SectionKind) -> int:
    """Where the table row of a section begins in the sample artifact."""
    return HEADER + (kind - 1) * ENTRY


def u32(at: int, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into("<I", data, at, value)


def u64(at: int, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into("<Q", data, at, value)


def in_program(at: int, form: str, value: int) -> Callable[[bytearray], None]:
    """Changes the program: 64 bytes of header, steps of 32, slots of 24."""

    def change(data: bytearray) -> None:
        offset = struct.unpack_from("<Q", data, row(SectionKind.PROGRAM) + 8)[0]
        struct.pack_into(form, data, offset + at, value)

    return change


def in_metadata(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        assert len(old) == len(new)
        at = data.index(old)
        data[at : at + len(old)] = new

    return change


STEP_1, SLOT_0 = 64 + 32, 64 + 3 * 32
SEALED = {
    "magic": (lambda d: d.__setitem__(0, 0), "header: expected the magic"),
    "version": (u32(8, 2), "header: expected version 1, found version 2"),
    "mark": (u32(12, 0x04030201), "expected the endianness mark 0x01020304, found 0x04030201"),
    "no sections": (u32(16, 0), "expected 1 to 1024 sections"),
    "many sections": (u32(16, 1 << 30), "expected 1 to 1024 sections"),
    "file size": (u64(24, 1), "expected 1 bytes in the file"),
    "reserved": (lambda d: d.__setitem__(63, 1), "expected reserved bytes that are zero"),
    "kind": (u32(row(SectionKind.CODE), 9), "expected a section kind from 1 to 5, found 9"),
    "order": (u32(row(SectionKind.CODE), 1), "expected a section after WEIGHTS"),
    "twice": (u32(row(SectionKind.WEIGHTS), 2), "expected each section once, found PROGRAM twice"),
    "flags": (u32(row(SectionKind.CODE) + 4, 1), "expected flags 0, found 1"),
    "offset": (u64(row(SectionKind.CODE) + 8, 128), "CODE 'host': expected its offset to be"),
    "size": (u64(row(SectionKind.CODE) + 16, 1 << 63), "CODE 'host': expected at most"),
    "shorter": (u64(row(SectionKind.GRAPH) + 16, 3), "GRAPH: expected it to end at"),
    "name": (lambda d: d.__setitem__(row(SectionKind.CODE) + 40, 200), "name of ASCII"),
    "other name": (
        lambda d: d.__setitem__(row(SectionKind.CODE) + 32, ord("m")),
        r"CODE 'most': expected the name of a target \(host\)",
    ),
    "graph name": (
        lambda d: d.__setitem__(row(SectionKind.GRAPH) + 32, ord("h")), "GRAPH 'h': expected"
    ),
    "utf-8": (in_metadata(b"sample", b"s\xffmple"), "METADATA: expected UTF-8 text"),
    "json": (in_metadata(b'{"name"', b'{]name"'), "METADATA: expected JSON"),
    "nan": (in_metadata(b'"arena"', b'"b":NaN'), "METADATA: expected JSON"),
    "key": (in_metadata(b'"outputs"', b'"outbuts"'), "METADATA: metadata: expected the keys name"),
    "dtype": (in_metadata(b"float32", b"float31"), r"inputs\[0\].dtype: expected one of bool"),
    "shape": (in_metadata(b"[6,16]", b"[6,-1]"), r"inputs\[0\].shape: expected sizes from 0"),
    "shape type": (in_metadata(b"[6,16]", b"[6,.5]"), "METADATA: expected JSON"),
    "io size": (in_metadata(b"[6,16]", b"[6,15]"), "step 0 slot 0 covers bytes 0 to 384 of io"),
    "kernel names": (in_metadata(b'","reverse"', b'""":reverse'), "METADATA: expected JSON"),
    "num kernels": (in_program(0, "<I", 2), "step 2 calls kernel 2, expected 0 to 1"),
    "more kernels": (in_program(0, "<I", 4), "expected 3 kernels, as METADATA names, found 4"),
    "num steps": (in_program(4, "<I", 1 << 31), "expected .* for its tables"),
    "program reserved": (in_program(20, "<I", 1), "a reserved field is not zero"),
    "arena": (in_program(24, "<Q", 1 << 63), "arena has .* bytes, expected 0 to"),
    "small arena": (in_program(24, "<Q", 100), "of arena, expected at most 100"),
    "constants": (in_program(40, "<Q", 1000), "WEIGHTS 'host': expected 1000 bytes"),
    "step kernel": (in_program(STEP_1, "<I", 77), "step 1 calls kernel 77, expected 0 to 2"),
    "step flags": (in_program(STEP_1 + 4, "<I", 2), "step 1 has flags 2, expected 0 or 1"),
    "first slot": (in_program(STEP_1 + 8, "<I", 9), "step 1 begins at slot 9 and dim 0"),
    "num slots": (in_program(STEP_1 + 12, "<I", 99), "step 1 uses slots or dims past the end"),
    "units": (in_program(STEP_1 + 24, "<q", -1), "step 1 has -1 units"),
    "slot kind": (in_program(SLOT_0, "<I", 4), "slot 0 of the table has kind 4, expected 0 to 3"),
    "slot index": (in_program(SLOT_0 + 4, "<I", 3), "step 0 slot 0 names input or output 3"),
    "slot offset": (in_program(SLOT_0 + 8, "<Q", 1), "step 0 slot 0 covers bytes 1 to 385 of io"),
    "slot wrap": (in_program(SLOT_0 + 8, "<Q", 2**64 - 8), "step 0 slot 0 covers bytes"),
    "slot bytes": (in_program(SLOT_0 + 24 + 16, "<Q", 449), "step 0 slot 1 covers bytes 64 to 513"),
}  # fmt: skip


@pytest.mark.parametrize("case", SEALED)
def test_wrong_files_with_right_checksums_are_refused(artifact_path: Path, case: str) -> None:
    change, message = SEALED[case]
    data = bytearray(artifact_path.read_bytes())
    change(data)
    sizes_changed = case in {"no sections", "many sections", "size", "magic", "offset"}
    if case == "many sections":
        artifact_path.write_bytes(data)
    else:
        artifact_path.write_bytes(reseal(data))
    assert sizes_changed or len(data) == artifact_path.stat().st_size
    with pytest.raises(ArtifactError, match=message) as caught:
        read_artifact(artifact_path)
    assert "re-create it with mgec compile" in caught.value.fix or case == "magic"
    assert native_refusal(artifact_path) in ("damaged", "invalid argument")


def test_target_that_the_sections_do_not_name(artifact_path: Path) -> None:
    """The native loader looks at the target that it loads only."""
    data = bytearray(artifact_path.read_bytes())
    in_metadata(b'"host"', b'"most"')(data)
    artifact_path.write_bytes(reseal(data))
    assert refusal(artifact_path) is not None
    assert native_refusal(artifact_path) == "damaged"


def test_deeply_nested_metadata_is_refused(build: TargetBuild, tmp_path: Path) -> None:
    text = b"[" * 200_000
    pieces = artifact._layout([(SectionKind.METADATA, "", text)])  # type: ignore[attr-defined]
    path = tmp_path / "deep.mge"
    path.write_bytes(b"".join(bytes(piece) for piece in pieces))
    with pytest.raises(ArtifactError, match="METADATA: expected JSON"):
        read_artifact(path)


@pytest.mark.parametrize("nbytes", [0, 1, 63])
def test_files_shorter_than_a_header(tmp_path: Path, nbytes: int) -> None:
    path = tmp_path / "short.mge"
    path.write_bytes(b"MGECART\0".ljust(64)[:nbytes])
    with pytest.raises(ArtifactError, match=f"expected at least 64 bytes, found {nbytes} bytes"):
        read_artifact(path)
