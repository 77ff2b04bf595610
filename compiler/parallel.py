"""Compiling many kernels at once, in processes of their own.

MLIR and LLVM do not scale over threads, and they may abort the process on input they do not
expect. So the kernels of a graph that are not in the cache are shared out among forked
children. A child that dies takes nothing with it but its kernel, which is then named.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from mgec import config
from mgec.compiler.cache import decode, encode
from mgec.compiler.kernels.source import CompiledKernel
from mgec.errors import CompileError

Job = Callable[[], CompiledKernel]
_FEW = 3
"""So few kernels are compiled here: forking would not pay."""


def compile_all(jobs: Mapping[str, Job], names: Mapping[str, str]) -> dict[str, CompiledKernel]:
    """Runs the jobs, several at a time.

    Args:
        jobs: by cache key, what compiles a kernel.
        names: by cache key, what to call the kernel in an error.

    Raises:
        CompileError: if a compiler process dies; it names the kernel.
        MgecError: whatever a job raises.
    """
    workers = min(config.num_threads, len(jobs) // 2)
    # A lock that another Python thread holds would stay locked in a child for ever.
    alone = threading.active_count() == 1
    if len(jobs) <= _FEW or workers <= 1 or not alone or not hasattr(os, "fork"):
        return {key: job() for key, job in jobs.items()}
    with tempfile.TemporaryDirectory(prefix="mgec-compile-") as name:
        folder = Path(name)
        keys = list(jobs)
        shares = [keys[i::workers] for i in range(workers)]
        children = [_fork(folder, share, jobs) for share in shares[1:]]
        done: dict[str, CompiledKernel] = {}
        try:
            done = {key: jobs[key]() for key in shares[0]}
        finally:
            codes = [os.waitpid(child, 0)[1] for child in children]
        for share, code in zip(shares[1:], codes, strict=True):
            for key in share:
                path = folder / key
                if path.exists():
                    kernel = decode(path.read_bytes())
                    assert kernel is not None
                    done[key] = kernel
                elif os.WIFSIGNALED(code):
                    raise CompileError(
                        f"the compiler died (signal {os.WTERMSIG(code)}) in kernel {names[key]}",
                        fix="run again with MGEC_DEBUG=3 and report the kernel",
                    )
                else:
                    done[key] = jobs[key]()  # it raised there: raise it here, with its words
        return done


def _fork(folder: Path, share: list[str], jobs: Mapping[str, Job]) -> int:
    """Starts a child that compiles `share` into files of `folder`; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # The runtime's pool threads are native, hold no lock of Python's and are not used by
        # the child.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        for key in share:
            temporary = folder / f"{key}.part"
            temporary.write_bytes(encode(jobs[key]()))
            temporary.rename(folder / key)
        code = 0
    finally:
        os._exit(code)
