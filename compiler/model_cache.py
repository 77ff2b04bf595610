"""Compiled models on disk, so that the same file compiled again is a copy.

A model is found by the content of its file and by everything else that determines the
artifact: the target, the options and the compiler itself. Entries are artifacts, written
atomically; when all of them together exceed a limit, those used longest ago go first. Losing
an entry, or the whole folder, costs time and nothing else.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import xxhash

from mgec import config
from mgec.compiler.cache import fingerprint, source_digest
from mgec.compiler.tune import database

LIMIT_BYTES = 4 << 30
"""How much the folder may hold."""


def model_key(path: Path, options: str, importer: Path) -> str:
    """What identifies the artifact that a model file compiles to.

    Args:
        path: the model; all of its content counts.
        options: target, input shapes and so on, as text.
        importer: folder of the Python files that read the model.

    Raises:
        OSError: if the file cannot be read.
    """
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                digest.update(content)
    importers = source_digest(importer)
    compiler = f"{fingerprint()}\n{importers}\n{database.digest()}"
    digest.update(f"\n{path.suffix}\n{options}\n{compiler}".encode())
    return digest.hexdigest()


def find(key: str) -> Path | None:
    """The artifact of a model, or None; it counts as used now."""
    if not config.cache:
        return None
    path = _path(key)
    try:
        os.utime(path)
    except OSError:
        return None
    return path


def store(key: str, write: Callable[[Path], None]) -> Path | None:
    """Writes the artifact of a model into the cache.

    Args:
        key: from `model_key`.
        write: writes the artifact to the path that it is given.

    Returns:
        Where it is now, or None if the cache is off or cannot be written.
    """
    if not config.cache:
        return None
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="new-") as folder:
            temporary = Path(folder) / path.name
            write(temporary)
            temporary.replace(path)
        _evict(keep=path)
    except OSError as error:
        config.get_logger().debug("model cache not written: %s", error)
        return None
    return path


def folder() -> Path:
    """Where the artifacts are."""
    return config.cache_dir / "models"


def _evict(keep: Path) -> None:
    """Removes what was used longest ago until the rest fits."""
    entries = [(path, path.stat()) for path in folder().glob("*.mge")]
    total = sum(status.st_size for _, status in entries)
    for path, status in sorted(entries, key=lambda entry: entry[1].st_mtime_ns):
        if total <= LIMIT_BYTES:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= status.st_size


def _path(key: str) -> Path:
    return folder() / f"{key}.mge"
