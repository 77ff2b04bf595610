"""Kernels compiled with the system's C compiler, and an artifact made of them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mgec.runtime import IOSpec, Program, Slot, Step, TargetBuild, TargetInfo, host, write_artifact

SOURCE = Path(__file__).with_name("kernels.c")
ROWS, COLUMNS = 6, 16
N = ROWS * COLUMNS
SYMBOLS = ("scale_add", "reverse", "row_sum")


@pytest.fixture(scope="session")
def kernel_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`kernels.c` as a shared object."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) on PATH")
    path = tmp_path_factory.mktemp("kernels") / "kernels.so"
    command = [
        compiler,
        "-O2",
        "-std=c11",
        "-shared",
        "-fPIC",
        "-pthread",
        str(SOURCE),
        "-o",
        str(path),
    ]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def kernel(kernel_library: Path) -> Callable[[str], int]:
    """Kernel name -> address."""
    library = ctypes.CDLL(str(kernel_library))
    return lambda name: ctypes.addressof(ctypes.c_char.in_dll(library, name))


class Sample:
    """A model of three steps that uses every kind of slot."""

    ROWS, COLUMNS, N = ROWS, COLUMNS, N

    @staticmethod
    def program() -> Program:
        """(x[6, 16]) -> (y[96], sums[6]): y = reverse(2 x + w), sums = row sums of 2 x + w."""
        nbytes = N * 4
        return Program(
            steps=(
                Step(0, N, (Slot.io(0, nbytes), Slot.constant(64, nbytes), Slot.arena(0, nbytes))),
                Step(1, N, (Slot.arena(0, nbytes), Slot.io(1, nbytes)), dims=(N,)),
                Step(
                    2,
                    ROWS,
                    (Slot.arena(0, nbytes), Slot.scratch(0, COLUMNS * 4), Slot.io(2, ROWS * 4)),
                    dims=(COLUMNS,),
                ),
            ),
            num_kernels=3,
            num_io=3,
            arena_bytes=nbytes,
            scratch_bytes=COLUMNS * 4,
            constants_bytes=64 + nbytes,
        )

    @staticmethod
    def weights() -> np.ndarray:
        """64 unused bytes, then w."""
        w = np.random.default_rng(1).standard_normal(N).astype(np.float32)
        return np.concatenate([np.zeros(16, np.float32), w])

    @staticmethod
    def expected(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `program` computes; the row sums in float64."""
        affine = 2 * x.reshape(-1) + Sample.weights()[16:]
        return affine[::-1], affine.reshape(ROWS, COLUMNS).sum(axis=1, dtype=np.float64)


@pytest.fixture(scope="session")
def sample() -> type[Sample]:
    return Sample


def host_triple() -> str:
    return f"{host.architecture()}-unknown-{host.operating_system()}-gnu"


@pytest.fixture
def build(kernel_library: Path) -> TargetBuild:
    return TargetBuild(
        TargetInfo("host", host_triple(), kernels=SYMBOLS, steps=("affine", "flip", "sums")),
        Sample.program(),
        kernel_library.read_bytes(),
        Sample.weights().tobytes(),
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes an artifact of the given builds, with the inputs and outputs of `Sample`."""

    def write_builds(*builds: TargetBuild, name: str = "model.mge", **options: object) -> Path:
        path = tmp_path / name
        write_artifact(
            path,
            name="sample",
            inputs=[IOSpec("x", "float32", (ROWS, COLUMNS))],
            outputs=[IOSpec("y", "float32", (N,)), IOSpec("sums", "float32", (ROWS,))],
            builds=builds,
            **options,  # type: ignore[arg-type]
        )
        return path

    return write_builds


@pytest.fixture
def artifact_path(build: TargetBuild, write: Callable[..., Path]) -> Path:
    return write(build, graph='"mge.graph"() : () -> ()', info={"arena": {"peak_bytes": 384}})
