"""The layout of an error is an interface: pinned here to the letter."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import mgec
from mgec import errors
from mgec.errors import Frame, MgecError, ShapeError, describe, user_frame

ALL = [getattr(errors, name) for name in errors.__all__ if name[0].isupper()]
CLASSES = [item for item in ALL if issubclass(item, MgecError)]

CONV = """\
conv2d: input has 3 channels but weight expects 4
  at {place}:   y = F.conv2d(x, self.w)
  inp     float32[8, 3, 32, 32]  (N, C, H, W)
  weight  float32[16, 4, 3, 3]   (O, I, kH, kW), groups=1
  fix     make weight.shape[1] * groups equal inp.shape[1], or transpose an NHWC input first"""


def conv_error(location: Frame) -> ShapeError:
    return ShapeError(
        "conv2d: input has 3 channels but weight expects 4",
        values=[
            ("inp", "float32[8, 3, 32, 32]", "(N, C, H, W)"),
            ("weight", np.zeros((16, 4, 3, 3), "float32"), "(O, I, kH, kW), groups=1"),
        ],
        fix="make weight.shape[1] * groups equal inp.shape[1], or transpose an NHWC input first",
        location=location,
    )


def test_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text("\n" * 16 + "        y = F.conv2d(x, self.w)\n")
    monkeypatch.chdir(tmp_path)
    error = conv_error(Frame(str(tmp_path / "net.py"), 17, "Net.forward"))
    assert str(error) == CONV.format(place="net.py:17 in Net.forward")
    assert error.render() == "mgec.ShapeError: " + str(error)


def test_missing_source_is_left_out() -> None:
    error = ShapeError("add: no", location=Frame("/nowhere/net.py", 3, "f"), fix="none")
    assert str(error) == "add: no\n  at /nowhere/net.py:3 in f\n  fix  none"


def test_with_location() -> None:
    error = ShapeError("add: no")
    assert error.with_location(None).location == error.location
    assert error.with_location(Frame("<a>", 1, "f")) is error
    assert str(error) == "add: no\n  at <a>:1 in f"


def test_location_is_the_callers_line() -> None:
    class Net:
        def forward(self) -> MgecError:
            return ShapeError("add: no")

    location = Net().forward().location
    assert location is not None
    assert Path(location.file) == Path(__file__)
    assert location.source == 'return ShapeError("add: no")'
    assert location.function == ("Net.forward" if sys.version_info >= (3, 11) else "forward")


def test_user_frame_skips_mgec_and_its_dependencies() -> None:
    code = (lambda: user_frame()).__code__.replace(co_filename="<string>")
    for module in ("mgec.functional", "xdsl.ir", "mgec.tools.main"):
        frame = types.FunctionType(code, {"__name__": module, "user_frame": user_frame})()
        assert frame.function == "test_user_frame_skips_mgec_and_its_dependencies"
    frame = types.FunctionType(code, {"__name__": "net", "user_frame": user_frame})()
    assert frame.function == "<lambda>"


def test_no_user_frame_in_a_command(tmp_path: Path) -> None:
    for name, frame in [("mgec", "None\n"), ("net.py", "net.py:1 in <module>")]:
        command = tmp_path / name
        command.write_text("import mgec.errors as e; print(e.user_frame())")
        done = subprocess.run(
            [sys.executable, command], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert done.stdout.startswith(frame)


@pytest.mark.parametrize("cls", CLASSES)
def test_class(cls: type[MgecError]) -> None:
    error = cls("op: a but b", values=[("inp", "float32[3]")], fix="change a")
    assert getattr(mgec, cls.__name__) is cls
    assert f"{cls.__module__}.{cls.__name__}" == f"mgec.{cls.__name__}"
    if cls is not MgecError:
        assert any(base.__module__ == "builtins" for base in cls.__mro__[2:-3]), "a standard class"
    for twin in (copy.copy(error), copy.deepcopy(error)):  # as on its way between processes
        assert type(twin) is cls
        assert str(twin) == str(error)
    assert re.fullmatch(
        r"op: a but b\n  at .*test_errors\.py:\d+ in .*\n  inp  float32\[3\]\n  fix  change a",
        str(error),
    )


def test_compile_error_names_the_reproducer(tmp_path: Path) -> None:
    error = errors.CompileError(
        "lower-to-llvm: boom", reproducer=tmp_path / "r.mlir", location=Frame("<a>", 1, "f")
    )
    assert str(error) == (
        "lower-to-llvm: boom\n"
        "  at <a>:1 in f\n"
        f"  reproducer  {tmp_path / 'r.mlir'}\n"
        "  fix         this is a defect in mgec: please report it with the reproducer"
    )


def test_describe() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert describe(np.zeros((2, 3), "int8")) == "int8[2, 3]"
    assert describe(np.float32(1)) == "float32[]"
    assert describe(np.float32) == "float32"
    assert describe("text") == "text"
    assert describe((1, "a")) == "(1, 'a')"
    assert len(describe([0] * 100)) == 72
    assert describe(Broken()) == "<Broken>"
