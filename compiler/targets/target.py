"""Targets: triple, CPU, and the numbers that templates are built from.

Templates ask a `Target` for vector lengths and register counts and never the host, so that
the same template, regenerated, serves every x86 level and NEON. How to add one:
docs/adding-a-target.md.
"""

# archspec has no types.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from mgec.errors import OptionError
from mgec.runtime import host


@dataclass(frozen=True)
class Target:
    """A machine to compile for.

    Attributes:
        name: what users call it ("x86-64-v4"); at most 16 characters, for the artifact's table.
        triple: LLVM target triple.
        cpu: LLVM CPU name.
        features: LLVM feature string ("+avx512f,...") on top of the CPU's.
        vector_bytes: bytes of one vector register.
        vector_registers: how many vector registers there are.
        has_fma: whether multiply-add is one instruction.
        converts_half: whether float16 to float32 and back are instructions.
        has_bfloat16_dot: whether sums of two products of bfloat16 are one instruction.
        saves_memory: whether kernels keep constants as small as they are, where a larger form
            would be faster.
        l1_bytes: first-level data cache per core.
        l2_bytes: second-level cache per core.
        required: CPU flags an artifact for this target needs at run time, as Linux names them.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    vector_registers: int
    has_fma: bool
    converts_half: bool = True
    has_bfloat16_dot: bool = False
    saves_memory: bool = False
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 1024 * 1024
    required: tuple[str, ...] = ()

    def lanes(self, element_bytes: int) -> int:
        """How many elements of that size one vector register holds."""
        return self.vector_bytes // element_bytes

    @property
    def architecture(self) -> str:
        """The first part of the triple: "x86_64" or "aarch64"."""
        return self.triple.partition("-")[0]

    @property
    def key(self) -> str:
        """What distinguishes code for this target, for caches."""
        caches = f"{self.l1_bytes}/{self.l2_bytes}"  # they decide tile sizes
        goal = "/small" if self.saves_memory else ""
        return f"{self.triple}/{self.cpu}/{self.features}/{self.vector_bytes}/{caches}{goal}"


_X86 = "x86_64-unknown-linux-gnu"
_V3 = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_V4_DOT = (*_V4, "avx512_vnni", "avx512_bf16")

_ARM = "aarch64-unknown-linux-gnu"
_DOT = ("asimd", "asimddp")
_I8MM = (*_DOT, "i8mm", "bf16")

TARGETS = {
    target.name: target
    for target in (
        Target("x86-64", _X86, "x86-64", "", 16, 16, has_fma=False, converts_half=False),
        Target("x86-64-v2", _X86, "x86-64-v2", "", 16, 16, has_fma=False, converts_half=False,
               required=("sse4_2", "popcnt")),
        Target("x86-64-v3", _X86, "x86-64-v3", "", 32, 16, has_fma=True, required=_V3),
        Target("x86-64-v4", _X86, "x86-64-v4", "", 64, 32, has_fma=True, required=_V4),
        Target("x86-64-v4-bf16", _X86, "x86-64-v4", "+avx512vnni,+avx512bf16", 64, 32,
               has_fma=True, has_bfloat16_dot=True, required=_V4_DOT),
        Target("aarch64", _ARM, "generic", "+neon", 16, 32, has_fma=True, required=("asimd",)),
        Target("aarch64-dotprod", _ARM, "generic", "+neon,+dotprod", 16, 32, has_fma=True,
               required=_DOT),
        Target("aarch64-i8mm", _ARM, "generic", "+neon,+dotprod,+i8mm,+bf16", 16, 32,
               has_fma=True, required=_I8MM),
    )
}  # fmt: skip
"""The targets by name, of each architecture the most capable last."""

_SYSTEM = "-linux-gnu"  # all targets are of this system, so that their names leave it out


def target_named(name: str) -> Target:
    """The target called `name`.

    Args:
        name: a key of `TARGETS`, also with the system in it ("aarch64-linux-gnu",
            "aarch64-linux-gnu-dotprod"), or "host" for this machine's.

    Raises:
        OptionError: if there is none.
    """
    if name == "host":
        return host_target()
    target = TARGETS.get(name.replace("x86_64", "x86-64").replace(_SYSTEM, "", 1))
    if target is None:
        raise OptionError(
            f"there is no target {name!r}", fix=f"use host or one of {', '.join(TARGETS)}"
        )
    return target


@cache
def host_target() -> Target:
    """The best target this machine runs, with its own cache sizes."""
    import archspec.cpu

    known = [each for each in TARGETS.values() if each.architecture == host.architecture()]
    if not known:
        raise OptionError(
            f"this machine is {host.architecture()}, and mgec compiles only for x86-64 and aarch64",
            fix="cross-compile with --target, or run on one of these",
        )
    flags = set(archspec.cpu.detect.detected_info().features)  # pyright: ignore
    best = known[0]
    for target in known:
        if all(flag in flags for flag in target.required):
            best = target
    l1, l2 = _cache_bytes(1), _cache_bytes(2)
    return replace(best, l1_bytes=l1 or best.l1_bytes, l2_bytes=l2 or best.l2_bytes)


def _cache_bytes(level: int) -> int | None:
    from pathlib import Path

    for index in range(5):
        folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}")
        try:
            kind = (folder / "type").read_text().strip()
            if kind != "Instruction" and int((folder / "level").read_text()) == level:
                return int((folder / "size").read_text().strip().rstrip("K")) * 1024
        except (OSError, ValueError):
            continue
    return None
