"""Results of measurements on disk: found again, never believed when damaged, safe to share."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mgec import config
from mgec.compiler.targets.target import TARGETS
from mgec.compiler.tune import database
from mgec.compiler.tune.database import TunedKernel
from mgec.errors import FileError

V3, V4 = TARGETS["x86-64-v3"], TARGETS["x86-64-v4"]
RESULT = TunedKernel("winograd F(6x6)", 1e-3, "direct conv", 2e-3, 2)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Any:
    with config.override(cache_dir=str(tmp_path)):
        yield tmp_path / "tuning"


def test_a_result_is_found_by_kernel_and_target() -> None:
    database.record("a", V4, RESULT)
    assert database.find("a", V4) == RESULT
    assert database.find("a", V3) is None
    assert database.find("b", V4) is None


def test_the_later_result_stays_until_it_is_forgotten() -> None:
    later = replace(RESULT, label="winograd F(2x2)")
    database.record("a", V4, RESULT)
    database.record("a", V4, later)
    assert database.find("a", V4) == later
    database.forget("a", V4)
    assert database.find("a", V4) is None
    database.forget("a", V4)


def test_the_option_turns_it_off() -> None:
    database.record("a", V4, RESULT)
    with config.override(tune=False):
        assert database.find("a", V4) is None


def test_the_digest_tells_results_apart() -> None:
    empty = database.digest()
    database.record("a", V4, RESULT)
    one = database.digest()
    database.record("a", V4, replace(RESULT, label="x"))
    assert len({empty, one, database.digest()}) == 3
    with config.override(tune=False):
        assert database.digest() == empty


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-3],
    "no text": lambda data: b"\xff\xfe" + data,
    "a list": lambda data: b"[1, 2]",
    "of another kernel": lambda data: data.replace(b'"kernel": "', b'"kernel": "0'),
    "a field is missing": lambda data: data.replace(b'"label"', b'"name"'),
    "a field is of another type": lambda data: data.replace(b'"threads": 2', b'"threads": "2"'),
    "too deep": lambda data: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_results_are_ignored(folder: Path, damage: str) -> None:
    database.record("a", V4, RESULT)
    (path,) = folder.iterdir()
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert database.find("a", V4) is None
    database.record("a", V4, RESULT)
    assert database.find("a", V4) == RESULT


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        config.override(cache_dir=str(tmp_path / "file")),
        pytest.raises(FileError, match=r"cannot write what was measured into .*: Not a directory"),
    ):
        database.record("a", V4, RESULT)


def _write(number: int, folder: str) -> None:
    with config.override(cache_dir=folder):
        for i in range(40):
            database.record("shared", V4, replace(RESULT, threads=number))
            database.record(f"{number} {i}", V4, replace(RESULT, threads=number))
            found = database.find("shared", V4)
            assert found is not None, "a reader saw half a file"
            assert found.threads in range(4)


def test_processes_write_at_once(tmp_path: Path, folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_write, args=(i, str(tmp_path))) for i in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    for number in range(4):
        for i in range(40):
            found = database.find(f"{number} {i}", V4)
            assert found == replace(RESULT, threads=number)
    files = sorted(folder.iterdir())
    assert len(files) == 161  # and nothing temporary
    assert all(json.loads(path.read_text()) for path in files)
