"""Models in the C interface: artifacts loaded and run without Python's loader."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgec.errors import RuntimeFailure
from mgec.runtime import TargetBuild, native

Sample = Any  # the class in conftest.py
Write = Callable[..., Path]


@contextmanager
def loaded(path: Path, pool: int = 0, threads: int = 1) -> Iterator[int]:
    library = native.library()
    model = native.created(library.model_load, os.fsencode(path), pool, threads)
    yield model
    native.check(library.model_destroy(model))


def run(model: int, sample: Sample, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, sums = np.empty(sample.N, np.float32), np.empty(sample.ROWS, np.float32)
    io = (ctypes.c_void_p * 3)(*(each.ctypes.data for each in (x, y, sums)))
    native.check(native.library().model_run(model, ctypes.addressof(io), 3))
    return y, sums


def check(model: int, sample: Sample) -> None:
    x = np.random.default_rng(3).standard_normal((sample.ROWS, sample.COLUMNS)).astype(np.float32)
    y, sums = run(model, sample, x)
    expected = sample.expected(x)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_allclose(sums, expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_runs_an_artifact(artifact_path: Path, sample: Sample, threads: int) -> None:
    with loaded(artifact_path, threads=threads) as model:
        check(model, sample)
        check(model, sample)


def test_runs_on_the_shared_pool(artifact_path: Path, sample: Sample) -> None:
    pool = native.shared_pool(2)
    with loaded(artifact_path, pool, 2) as one, loaded(artifact_path, pool, 2) as other:
        check(one, sample)
        check(other, sample)


def test_describes_inputs_and_outputs(artifact_path: Path) -> None:
    with loaded(artifact_path) as model:
        address = native.created(native.library().model_describe, model)
        desc = native.ModelDesc.from_address(address)
        assert (desc.name, desc.num_inputs, desc.program.num_io) == (b"sample", 1, 3)
        io = [desc.io[i] for i in range(3)]
        assert [each.name for each in io] == [b"x", b"y", b"sums"]
        assert {each.dtype for each in io} == {b"float32"}
        assert [each.bytes for each in io] == [384, 384, 24]
        assert [tuple(each.shape[: each.rank]) for each in io] == [(6, 16), (96,), (6,)]


def test_first_target_that_runs_is_taken(build: TargetBuild, write: Write, sample: Sample) -> None:
    other = dataclasses.replace(build.info, name="other", triple="riscv64-unknown-linux-gnu")
    path = write(dataclasses.replace(build, info=other, code=b"not for us"), build)
    with loaded(path) as model:
        check(model, sample)


def test_text_with_escapes(build: TargetBuild, write: Write, sample: Sample) -> None:
    """Reports hold any JSON."""
    info = {"text": 'tab\t quote" \\ é \x01', "number": -1.5e-7, "nothing": [None, True, {}, []]}
    with loaded(write(build, info=info)) as model:
        check(model, sample)


def failure(status: int | None) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        native.check(status)
    return caught.value


def load_failure(path: Path | None, threads: int = 1) -> RuntimeFailure:
    model = ctypes.c_void_p(1)
    encoded = None if path is None else os.fsencode(path)
    status = native.library().model_load(encoded, None, threads, ctypes.addressof(model))
    assert path is None or model.value is None
    return failure(status)


def test_failures_of_loading(build: TargetBuild, write: Write, tmp_path: Path) -> None:
    assert "NULL argument" in load_failure(None).headline
    missing = load_failure(tmp_path / "nothing.mge")
    assert missing.headline == "native runtime: model_load: the file cannot be opened"
    assert "system error" in str(missing)
    assert "it is no file of at least 64 bytes" in load_failure(tmp_path).headline
    assert "threads must lie in [1, 256]" in load_failure(write(build), 0).headline
    other = dataclasses.replace(build.info, triple="riscv64-unknown-linux-gnu")
    error = load_failure(write(dataclasses.replace(build, info=other)))
    assert error.headline.endswith("the artifact has no code for this machine")
    assert "unsupported" in str(error)
    more = dataclasses.replace(build.info, features=("a flag that no CPU has",))
    assert "no code for this machine" in str(
        load_failure(write(dataclasses.replace(build, info=more)))
    )
    error = load_failure(write(dataclasses.replace(build, code=b"not an ELF file" * 10)))
    assert error.headline.endswith("artifact: the machine code cannot be loaded")
    names = dataclasses.replace(build.info, kernels=("nothing", "reverse", "row_sum"))
    error = load_failure(write(dataclasses.replace(build, info=names)))
    assert error.headline.endswith("artifact: the machine code lacks a kernel")


def test_failures_of_running(artifact_path: Path) -> None:
    library = native.library()
    io = (ctypes.c_void_p * 3)()
    assert "the model is NULL" in failure(library.model_run(None, io, 3)).headline
    assert library.model_destroy(None) is None
    with loaded(artifact_path) as model:
        assert "not the program's" in failure(library.model_run(model, io, 2)).headline
        assert "io is NULL" in failure(library.model_run(model, None, 3)).headline


def test_descriptions_are_checked() -> None:
    library, model = native.library(), ctypes.c_void_p()
    slot = (ctypes.c_uint64 * 3)(1 | 0 << 32, 8, 1)  # input 0, offset 8, 1 byte
    tensor = native.TensorDesc(name=b"x", dtype=b"int8", bytes=8)
    program = native.ProgramDesc(slots=ctypes.addressof(slot), num_slots=1, num_io=1)

    def create(**changes: Any) -> int | None:
        fields: dict[str, Any] = {"name": b"m", "required": b"", "num_inputs": 1}
        desc = native.ModelDesc(io=ctypes.pointer(tensor), program=program, **{**fields, **changes})
        return library.model_create(
            ctypes.addressof(desc), None, 1, ctypes.addressof(model)
        )  # fmt: skip

    assert "reaches past the end of an input or output" in failure(create()).headline
    assert "more inputs than" in failure(create(num_inputs=2)).headline
    assert "the name or the required flags are NULL" in failure(create(name=None)).headline
    slot[1] = 7
    assert "with more instructions than this one has" in failure(create(required=b"x")).headline
    assert create() is None
    native.check(library.model_destroy(model.value))
