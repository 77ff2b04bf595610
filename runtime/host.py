"""What the processor of this machine can do, in the words that LLVM uses for targets."""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

# LLVM's name -> Linux's name, where they differ by more than "." and "-" for "_".
_LINUX_NAMES = {
    "x86_64": {
        "64bit": "lm",
        "avx512bf16": "avx512_bf16",
        "avx512bitalg": "avx512_bitalg",
        "avx512fp16": "avx512_fp16",
        "avx512vbmi2": "avx512_vbmi2",
        "avx512vnni": "avx512_vnni",
        "avx512vp2intersect": "avx512_vp2intersect",
        "avx512vpopcntdq": "avx512_vpopcntdq",
        "avxvnni": "avx_vnni",
        "bmi": "bmi1",
        "crc32": "sse4_2",
        "evex512": "avx512f",
        "lzcnt": "abm",
        "pclmul": "pclmulqdq",
        "prfchw": "3dnowprefetch",
        "rdrnd": "rdrand",
        "sahf": "lahf_lm",
        "sha": "sha_ni",
        "sse3": "pni",
        "x87": "fpu",
    },
    "aarch64": {
        "complxnum": "fcma",
        "crc": "crc32",
        "dotprod": "asimddp",
        "fp-armv8": "fp",
        "fp16fml": "asimdfhm",
        "fullfp16": "asimdhp",
        "lse": "atomics",
        "neon": "asimd",
        "rcpc": "lrcpc",
        "rdm": "asimdrdm",
    },
}

# What each level of the x86-64 psABI adds to the one before.
_X86_LEVELS = {
    "x86-64-v2": ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}


def normalize_architecture(name: str) -> str:
    """LLVM's name of an architecture: ``AMD64`` is ``x86_64``, ``arm64`` is ``aarch64``.

    Args:
        name: As a triple, an operating system or a user writes it.
    """
    name = name.lower()
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(name, name)


def architecture() -> str:
    """The architecture of this machine, such as ``x86_64`` or ``aarch64``."""
    return normalize_architecture(platform.machine())


def operating_system() -> str:
    """The operating system as triples name it: ``linux``, ``darwin`` or ``windows``."""
    return {"win32": "windows"}.get(sys.platform, sys.platform)


def triple_matches(triple: str) -> bool:
    """Whether code for a target triple is for this architecture and operating system.

    Args:
        triple: Such as ``x86_64-unknown-linux-gnu``.
    """
    first, *rest = triple.lower().split("-")
    systems = {"linux": ("linux",), "darwin": ("darwin", "macos"), "windows": ("windows", "win32")}
    names = systems.get(operating_system(), (operating_system(),))
    right_system = any(part.startswith(names) for part in rest)
    return normalize_architecture(first) == architecture() and right_system


@functools.cache
def linux_flags() -> frozenset[str] | None:
    """The flags of the first processor in ``/proc/cpuinfo``; None where there is no such file."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return None


def missing_features(features: Iterable[str]) -> list[str]:
    """Which features of a target this processor lacks.

    Args:
        features: LLVM's names, each with an optional ``+``; those with ``-`` are ignored.

    Returns:
        Names without the sign, in the order given; empty where the system does not tell.
    """
    flags = linux_flags()
    if flags is None:
        return []
    names = _LINUX_NAMES.get(architecture(), {})
    missing: list[str] = []
    for feature in features:
        if feature.startswith("-"):
            continue
        feature = feature.removeprefix("+")
        expected = names.get(feature, feature.replace("-", "_").replace(".", "_"))
        if expected not in flags:
            missing.append(feature)
    return missing


def best_target() -> str:
    """The most capable general target that runs here, as ``--target`` takes it."""
    if architecture() != "x86_64":
        return architecture()
    best = "x86-64"
    for level, features in _X86_LEVELS.items():
        if missing_features(features):
            break
        best = level
    return best
