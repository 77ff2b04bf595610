"""What `mgec tune` found: for each kernel and target, the label of the fastest candidate.

One file per kernel, written under a temporary name and renamed: any number of processes may
tune at once, and what they find adds up; of two results for the same kernel the later one
stays. A file that is damaged, or that another version wrote in another form, counts as absent.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import xxhash

from mgec import config
from mgec.compiler.targets import Target
from mgec.errors import FileError


@dataclass(frozen=True)
class TunedKernel:
    """The result for one kernel.

    Attributes:
        label: of the fastest candidate; see `mgec.compiler.kernels.candidate.Candidate`.
        seconds: its time in the network it was measured in.
        default_label: of what is chosen without a measurement.
        default_seconds: its time.
        threads: how many shared the work.
    """

    label: str
    seconds: float
    default_label: str
    default_seconds: float
    threads: int


def tuning_key(text: str, target: Target) -> str:
    """What a result is found by.

    Args:
        text: the kernel; see `mgec.compiler.assemble.canonical_text`.
        target: what it was measured for.
    """
    return xxhash.xxh3_128(f"{target.key}\n{text}".encode()).hexdigest()


def find(text: str, target: Target) -> TunedKernel | None:
    """The result for a kernel, if there is one and `MGEC_TUNE` allows to use it."""
    if not config.tune:
        return None
    key = tuning_key(text, target)
    try:
        return _decode(key, (folder() / f"{key}.json").read_bytes())
    except OSError:
        return None


def record(text: str, target: Target, result: TunedKernel) -> None:
    """Keeps a result, in place of an earlier one.

    Raises:
        FileError: if it cannot be written.
    """
    key = tuning_key(text, target)
    data = {"kernel": key, **asdict(result)}
    try:
        folder().mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder(), prefix=f"{key}.")
        with os.fdopen(handle, "w") as file:
            json.dump(data, file)
        Path(temporary).replace(folder() / f"{key}.json")
    except OSError as error:
        raise FileError(
            f"cannot write what was measured into {folder()}: {error.strerror or error}",
            fix="set MGEC_CACHE_DIR to a folder that can be written",
        ) from error


def forget(text: str, target: Target) -> None:
    """Drops the result for a kernel, so that it is chosen without a measurement again."""
    (folder() / f"{tuning_key(text, target)}.json").unlink(missing_ok=True)


def digest() -> str:
    """Changes when any result does; for the keys of caches of whole models."""
    total = xxhash.xxh3_64()
    if config.tune:
        for path in sorted(folder().glob("*.json")):
            total.update(path.name.encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def folder() -> Path:
    """Where the results are. `mgec cache --clear` leaves them."""
    return config.cache_dir / "tuning"


_TYPES: dict[str, type | tuple[type, ...]] = {"str": str, "float": (int, float), "int": int}


def _decode(key: str, data: bytes) -> TunedKernel | None:
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    values = cast("dict[str, Any]", found)
    if values.pop("kernel", None) != key:
        return None
    expected = {field.name: _TYPES[str(field.type)] for field in fields(TunedKernel)}
    if values.keys() != expected.keys():
        return None
    if not all(isinstance(values[name], kind) for name, kind in expected.items()):
        return None
    return TunedKernel(**values)
