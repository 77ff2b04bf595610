"""The cache of compiled models: found by content, evicted by age, never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mgec import config
from mgec.compiler import model_cache


@pytest.fixture
def cache(tmp_path: Path):
    with config.override(cache_dir=tmp_path / "cache", cache=True):
        yield tmp_path


def put(key: str, data: bytes) -> Path:
    path = model_cache.store(key, lambda path: path.write_bytes(data) and None)
    assert path is not None
    return path


def test_key_is_content_options_and_importer(tmp_path: Path) -> None:
    importer = tmp_path / "importer"
    importer.mkdir()
    (importer / "read.py").write_text("VERSION = 1")

    def key(path: Path, options: str) -> str:
        return model_cache.model_key(path, options, importer)

    a, b, c = (tmp_path / name for name in ("a.onnx", "b.onnx", "c.onnx"))
    a.write_bytes(b"model")
    b.write_bytes(b"model")
    c.write_bytes(b"modem")
    assert key(a, "host") == key(b, "host")
    assert key(a, "host") != key(c, "host")
    assert key(a, "host") != key(a, "x86-64-v3")
    before = key(a, "host")
    (importer / "read.py").write_text("VERSION = 2")
    assert key(a, "host") != before
    (tmp_path / "empty.onnx").touch()
    assert len(key(tmp_path / "empty.onnx", "")) == 32


def test_what_is_stored_is_found(cache: Path) -> None:
    assert model_cache.find("0" * 32) is None
    path = put("0" * 32, b"artifact")
    assert model_cache.find("0" * 32) == path
    assert path.read_bytes() == b"artifact"
    assert list(path.parent.iterdir()) == [path]  # nothing temporary is left


def test_least_recently_used_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "LIMIT_BYTES", 25)
    first, second = put("1", b"x" * 10), put("2", b"x" * 10)
    os.utime(first, ns=(1, 1))
    os.utime(second, ns=(2, 2))
    assert model_cache.find("1") == first  # used again
    put("3", b"x" * 10)
    assert model_cache.find("1") and model_cache.find("3") and not model_cache.find("2")
    put("4", b"x" * 100)  # larger than the limit: it stays until the next one
    assert [path.stem for path in model_cache.folder().glob("*.mge")] == ["4"]


def test_a_failed_write_leaves_nothing(cache: Path) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    assert model_cache.store("5", write) is None
    assert model_cache.find("5") is None
    assert list(model_cache.folder().iterdir()) == []


def test_off(tmp_path: Path) -> None:
    with config.override(cache_dir=tmp_path, cache=False):
        assert model_cache.store("6", lambda path: path.touch()) is None
        assert model_cache.find("6") is None
