"""A small model in a file, its artifact, and running the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mgec.tools.main import main

NET = """\
import numpy as np
import mgec as mge
from mgec.jit import trace

W = mge.tensor(np.arange(1000, dtype="float32").reshape(20, 50))
print("hello from the file")

@trace(symbolic=True)
def net(x, w):
    y = x * 2 + w
    return y, y - 1 + W

def plain(a, b=3):
    return a * b

def example_inputs():
    return {"w": np.ones(50, "float32"), "x": np.ones((20, 50), "float32")}
"""


class Result(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


@pytest.fixture
def mgec(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs `mgec` in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        status = main([str(each) for each in arguments])
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.py and net.mge; not to be changed."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "net.py").write_text(NET)
    status = main(["compile", f"{folder / 'net.py'}:net", "-o", str(folder / "net.mge")])
    assert status == 0
    return folder


@pytest.fixture
def net(model_folder: Path) -> Path:
    return model_folder / "net.py"


@pytest.fixture
def artifact(model_folder: Path) -> Path:
    return model_folder / "net.mge"
