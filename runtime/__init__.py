"""Runs compiled models: loading, memory and threads.

Needs no compiler, and no NumPy until a model is loaded.
"""

from __future__ import annotations

if __name__ != "mgec.runtime":
    raise ImportError(
        f"this folder is the package 'mgec.runtime', but it was imported as {__name__!r}: that "
        "would make a second copy of every class. Install the project (pip install -e .) and "
        "import 'mgec.runtime'."
    )

from mgec.runtime.artifact import (
    Artifact,
    IOSpec,
    Metadata,
    Section,
    SectionKind,
    TargetBuild,
    TargetInfo,
    read_artifact,
    write_artifact,
)
from mgec.runtime.memory import Storage
from mgec.runtime.module import Module, Timing, load
from mgec.runtime.program import BoundProgram, Program, Slot, SlotKind, Step

__all__ = [
    "Artifact",
    "BoundProgram",
    "IOSpec",
    "Metadata",
    "Module",
    "Program",
    "Section",
    "SectionKind",
    "Slot",
    "SlotKind",
    "Step",
    "Storage",
    "TargetBuild",
    "TargetInfo",
    "Timing",
    "load",
    "read_artifact",
    "write_artifact",
]
