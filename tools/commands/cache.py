"""Shows or clears the cache of compiled kernels and models.

The cache is always safe to clear: what is missing is compiled again when it is needed.
MGEC_CACHE_DIR moves it, MGEC_CACHE=off does without it.
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
    parser.add_argument("--clear", action="store_true", help="remove everything that was compiled")


def run(arguments: argparse.Namespace) -> int:
    """Prints where the cache is and how large; empties it if asked to."""
    (kernels, kernel_bytes), (models, model_bytes) = cache_size()
    size = (
        f"{counted(kernels, 'kernel')}, {kernel_bytes / 1e6:.2f} MB; "
        f"{counted(models, 'model')}, {model_bytes / 1e6:.2f} MB"
    )
    if not arguments.clear:
        state = "" if config.cache else " (off: MGEC_CACHE)"
        sys.stdout.write(f"{config.cache_dir}: {size}{state}\n")
        return 0
    for folder in _FOLDERS:
        path = config.cache_dir / folder
        try:
            if path.exists():
                shutil.rmtree(path)
        except OSError as error:
            raise FileError(
                f"cannot clear {path}: {error.strerror or error}", fix="check who owns the folder"
            ) from error
    sys.stdout.write(f"{config.cache_dir}: cleared {size}\n")
    return 0


def cache_size() -> list[tuple[int, int]]:
    """How many compiled kernels there are, and their bytes; likewise for models."""
    return [_count(config.cache_dir / folder, ending) for folder, ending in _FOLDERS.items()]


def _count(folder: Path, ending: str) -> tuple[int, int]:
    sizes: list[int] = []
    for path in folder.rglob(f"*{ending}"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # another process replaced it just now
            continue
    return len(sizes), sum(sizes)


# As in `mgec.compiler.cache` and `model_cache`. Only these folders are ever cleared: the user may
# have put the cache where other files are.
_FOLDERS = {"kernels": ".kernel", "models": ".mge"}
