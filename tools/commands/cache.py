"""Shows or clears the cache of compiled kernels.

The cache is always safe to clear: kernels are compiled again when they are needed. MGEC_CACHE_DIR
moves it, MGEC_CACHE=off does without it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from mgec import config
from mgec.errors import FileError
from mgec.tools.commands._model import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--clear", action="store_true", help="remove every compiled kernel")


def run(arguments: argparse.Namespace) -> int:
    """Prints where the cache is and how large; empties it if asked to."""
    files, nbytes = cache_size()
    size = f"{counted(files, 'kernel')}, {nbytes / 1e6:.2f} MB"
    if not arguments.clear:
        state = "" if config.cache else " (off: MGEC_CACHE)"
        sys.stdout.write(f"{config.cache_dir}: {size}{state}\n")
        return 0
    try:
        if _kernels().exists():
            shutil.rmtree(_kernels())
    except OSError as error:
        raise FileError(
            f"cannot clear {_kernels()}: {error.strerror or error}",
            fix="check who owns the folder",
        ) from error
    sys.stdout.write(f"{config.cache_dir}: cleared {size}\n")
    return 0


def cache_size() -> tuple[int, int]:
    """How many compiled kernels there are, and their bytes."""
    sizes: list[int] = []
    for path in _kernels().rglob("*.kernel"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # another process replaced it just now
            continue
    return len(sizes), sum(sizes)


def _kernels() -> Path:
    # As in `mgec.compiler.cache`. Only this folder is ever cleared: the user may have put the
    # cache where other files are.
    return config.cache_dir / "kernels"
