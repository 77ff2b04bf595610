"""Compiled kernels on disk: one file per kernel, safe with any number of processes.

A file is written under a temporary name and renamed, so a reader sees all of it or none;
its checksum is verified, so a damaged file is compiled again instead of believed. Two
processes that compile the same kernel at once write the same bytes.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import xxhash

import mgec.compiler
import mgec.dialects
from mgec import config
from mgec.compiler.kernels.packing import Packing
from mgec.compiler.kernels.source import CompiledKernel, Units

_MAGIC = b"MGECKRN4"


@cache
def fingerprint() -> str:
    """Changes whenever the code that makes kernels does."""
    digest = xxhash.xxh3_64()
    for package in (mgec.compiler, mgec.dialects):
        assert package.__file__ is not None
        digest.update(source_digest(Path(package.__file__).parent).encode())
    for name in ("xdsl", "llvmlite", "torch-mlir"):
        digest.update(f"{name}={version(name)};".encode())
    return digest.hexdigest()


def source_digest(root: Path) -> str:
    """A digest of every Python file below a folder."""
    digest = xxhash.xxh3_64()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kernel_key(description: str, target_key: str) -> str:
    """The cache key of a kernel, from everything that determines its code."""
    text = f"{fingerprint()}\n{target_key}\n{description}"
    return xxhash.xxh3_128(text.encode()).hexdigest()


def load(key: str) -> CompiledKernel | None:
    """The kernel stored under `key`, or None."""
    if not config.cache:
        return None
    try:
        return decode(_path(key).read_bytes())
    except OSError:
        return None


def decode(data: bytes) -> CompiledKernel | None:
    """A kernel from the bytes of `encode`; None if they are damaged."""
    if len(data) < 24 or data[:8] != _MAGIC:
        return None
    checksum, header_bytes = struct.unpack_from("<QQ", data, 8)
    if xxhash.xxh3_64(data[16:]).intdigest() != checksum:
        return None
    end = len(data)
    kernel: CompiledKernel | None = None
    for stage in reversed(json.loads(data[24 : 24 + header_bytes])):
        start = end - stage["code_bytes"]
        kernel = CompiledKernel(
            name=stage["name"],
            object_code=data[start:end],
            num_buffers=stage["num_buffers"],
            num_dims=stage["num_dims"],
            units=Units.from_json(stage["units"]),
            scratch_bytes=stage["scratch_bytes"],
            template=stage["template"],
            flops=stage["flops"],
            workspace_bytes=stage["workspace_bytes"],
            packing=tuple((i, Packing.from_json(p)) for i, p in stage["packing"]),
            then=kernel,
            label=stage["label"],
            performed_flops=stage["performed_flops"],
            touched=None if stage["touched"] is None else tuple(stage["touched"]),
            notes=tuple(stage["notes"]),
        )
        end = start
    return kernel


def encode(kernel: CompiledKernel) -> bytes:
    """A kernel as bytes, with a checksum."""
    header = json.dumps(
        [
            {
                "name": stage.name,
                "code_bytes": len(stage.object_code),
                "num_buffers": stage.num_buffers,
                "num_dims": stage.num_dims,
                "units": stage.units.to_json(),
                "scratch_bytes": stage.scratch_bytes,
                "template": stage.template,
                "flops": stage.flops,
                "workspace_bytes": stage.workspace_bytes,
                "packing": [(i, p.to_json()) for i, p in stage.packing],
                "label": stage.label,
                "performed_flops": stage.performed_flops,
                "touched": stage.touched,
                "notes": stage.notes,
            }
            for stage in kernel.stages
        ]
    ).encode()
    code = b"".join(stage.object_code for stage in kernel.stages)
    checked = struct.pack("<Q", len(header)) + header + code
    return _MAGIC + struct.pack("<Q", xxhash.xxh3_64(checked).intdigest()) + checked


def store(key: str, kernel: CompiledKernel) -> None:
    """Stores a kernel; failing to (a full disk, no permission) is not an error."""
    if not config.cache:
        return
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(encode(kernel))
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink()
    except OSError as error:
        config.get_logger().debug("kernel cache not written: %s", error)


def _path(key: str) -> Path:
    return config.cache_dir / "kernels" / key[:2] / f"{key[2:]}.kernel"
