"""The C interface of `include/mgec.h` in Python: one attribute of `Library` per function.

    from mgec.runtime import native

    library = native.library()
    native.check(library.run(context, io, num_io))

Every function returns None on success, or the address of a constant failure record which `check`
turns into an error. Addresses and handles are plain integers.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from ctypes import c_double, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from mgec.errors import RuntimeFailure

ABI_VERSION = 1
"""The version of `mgec.h` that this module binds."""

ALIGNMENT = 64
"""Bytes to which every buffer of the runtime is aligned."""

MAX_THREADS = 256
"""The most threads that a pool has."""

POOL_PIN = 1
"""Flag of `pool_create`: pin the workers to distinct CPUs if there are enough."""

STEP_SERIAL = 1
"""Flag of a step: run it on the calling thread."""

Status = int | None


class _Failure(ctypes.Structure):
    """`mgec_failure`."""

    _fields_ = [
        ("code", c_int32),
        ("line", c_int32),
        ("message", ctypes.c_char_p),
        ("file", ctypes.c_char_p),
    ]


class ProgramDesc(ctypes.Structure):
    """`mgec_program_desc`; the tables are addresses that live until `program_create` returns."""

    _fields_ = [
        ("kernels", c_void_p),
        ("steps", c_void_p),
        ("slots", c_void_p),
        ("dims", c_void_p),
        ("constants", c_void_p),
        ("constants_bytes", c_uint64),
        ("arena_bytes", c_uint64),
        ("scratch_bytes", c_uint64),
        ("num_kernels", c_uint32),
        ("num_steps", c_uint32),
        ("num_slots", c_uint32),
        ("num_dims", c_uint32),
        ("num_io", c_uint32),
        ("reserved", c_uint32),
    ]


class TensorDesc(ctypes.Structure):
    """`mgec_tensor`."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("shape", ctypes.POINTER(c_int64)),
        ("bytes", c_uint64),
        ("rank", c_uint32),
        ("reserved", c_uint32),
    ]


class ModelDesc(ctypes.Structure):
    """`mgec_model_desc`."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("required", ctypes.c_char_p),
        ("io", ctypes.POINTER(TensorDesc)),
        ("num_inputs", c_uint32),
        ("reserved", c_uint32),
        ("program", ProgramDesc),
    ]


_CODES = {
    1: "invalid argument",
    2: "out of memory",
    3: "system error",
    4: "busy",
    5: "unsupported",
    6: "damaged",
}
_FIXES = {
    2: "free memory, use a smaller batch, or set MGEC_NUM_THREADS lower",
    3: "raise the limit on threads (ulimit -u), or set MGEC_NUM_THREADS lower",
}


class Library:
    """The functions of the native runtime, typed for ctypes.

    Args:
        path: The shared library.

    Raises:
        RuntimeFailure: When the library cannot be loaded or has another ABI version.
    """

    def __init__(self, path: Path) -> None:
        try:
            handle = ctypes.CDLL(str(path))
        except OSError as error:
            raise RuntimeFailure(
                f"native runtime: {path} cannot be loaded: {error}",
                fix="rebuild it: pip install -e .",
            ) from error
        self._handle = handle
        handle.mgec_abi_version.restype = c_uint32
        version = int(handle.mgec_abi_version())
        if version != ABI_VERSION:
            raise RuntimeFailure(
                f"native runtime: {path} has ABI version {version}, expected {ABI_VERSION}",
                fix="rebuild it: pip install -e .",
            )
        p, i32, u32, i64, u64 = c_void_p, c_int32, c_uint32, c_int64, c_uint64
        self.pool_create = self._function("mgec_pool_create", i32, i64, u32, p)
        self.pool_destroy = self._function("mgec_pool_destroy", p)
        self.pool_shared = self._function("mgec_pool_shared", i32, p)
        self.pool_threads = self._function("mgec_pool_threads", p, p)
        self.parallel_kernel = self._function("mgec_parallel_kernel", p, i32, p, p, p, i64)
        self.program_create = self._function("mgec_program_create", p, p)
        self.program_destroy = self._function("mgec_program_destroy", p)
        self.context_create = self._function("mgec_context_create", p, p, i32, p)
        self.context_destroy = self._function("mgec_context_destroy", p)
        self.run = self._function("mgec_run", p, p, u32)
        self.run_timed = self._function("mgec_run_timed", p, p, u32, p)
        self.bench = self._function("mgec_bench", p, p, u32, c_double, p, i64, p)
        self.model_create = self._function("mgec_model_create", p, p, i32, p)
        self.model_load = self._function("mgec_model_load", p, p, i32, p)
        self.model_destroy = self._function("mgec_model_destroy", p)
        self.model_describe = self._function("mgec_model_describe", p, p)
        self.model_run = self._function("mgec_model_run", p, p, u32)
        # An allocation is too short to hand the interpreter lock to another thread.
        brief = ctypes.PyDLL(str(path))
        self.alloc = self._function("mgec_alloc", u64, p, handle=brief)
        self.free = self._function("mgec_free", p, handle=brief)

    def _function(
        self, name: str, *argument_types: Any, handle: ctypes.CDLL | None = None
    ) -> Callable[..., Status]:
        function = getattr(handle or self._handle, name)
        function.argtypes = argument_types
        function.restype = c_void_p
        return function


@functools.cache
def library() -> Library:
    """The native runtime beside this file, loaded on the first call.

    Raises:
        RuntimeFailure: When it was not built, cannot be loaded or has another ABI version.
    """
    folder = Path(__file__).parent
    found = sorted(
        path for path in folder.glob("_native*") if path.suffix in (".so", ".dll", ".dylib")
    )
    if not found:
        raise RuntimeFailure(
            f"native runtime: there is no _native library in {folder}",
            fix="build it: pip install -e . in the source tree, or reinstall mgec",
        )
    return Library(found[0])


def check(status: Status) -> None:
    """Turns a status of the native runtime into an error.

    Args:
        status: What a function of `Library` returned.

    Raises:
        RuntimeFailure: When the status is not None; its headline holds the native message.
    """
    if status is None:
        return
    failure = _Failure.from_address(status)
    code = int(failure.code)
    file = failure.file.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    raise RuntimeFailure(
        f"native runtime: {failure.message.decode('utf-8', 'replace')}",
        values=[
            ("code", f"{code} ({_CODES.get(code, 'unknown')})"),
            ("from", f"{file}:{failure.line}"),
        ],
        fix=_FIXES.get(code, ""),
    )


def created(create: Callable[..., Status], *arguments: Any) -> int:
    """Calls a function whose last parameter receives a handle.

    Args:
        create: Such as `Library.pool_create`.
        *arguments: All arguments but the last.

    Returns:
        The handle or address.

    Raises:
        RuntimeFailure: When the function fails.
    """
    handle = c_void_p()
    check(create(*arguments, ctypes.addressof(handle)))
    assert handle.value is not None
    return handle.value


def shared_pool(threads: int) -> int:
    """The one thread pool of this process, with at least `threads` threads.

    Args:
        threads: From 1 to `MAX_THREADS`; the pool keeps the largest number ever asked for.

    Returns:
        The handle of the pool; 0 for one thread, which needs no pool.

    Raises:
        RuntimeFailure: When the number is out of range or the system refuses a thread.
    """
    return 0 if threads == 1 else created(library().pool_shared, threads)


def call_kernel(
    kernel: int, buffers: Sequence[int], dims: Sequence[int], units: int, threads: int = 1
) -> None:
    """Runs one kernel over all its units.

    Args:
        kernel: Address of a function of the kernel ABI.
        buffers: Addresses for its pointer table.
        dims: Its run-time sizes; an empty sequence passes NULL.
        units: How many units there are.
        threads: How many threads of the shared pool may be used.

    Raises:
        RuntimeFailure: When the arguments are out of range.
    """
    pointers = (c_void_p * len(buffers))(*buffers)
    sizes = (c_int64 * len(dims))(*dims) if dims else None
    check(library().parallel_kernel(shared_pool(threads), threads, kernel, pointers, sizes, units))
