"""Errors that say what went wrong, where in the user's program, and how to fix it.

Every error of mgec derives from `MgecError` and from the standard class a caller would expect
(`ShapeError` is a `ValueError`). An error is data: a headline, the user's frame, the values that
conflict, one fix. ``str(error)`` lays them out:

    conv2d: input has 3 channels but weight expects 4
      at net.py:17 in Net.forward:   y = F.conv2d(x, self.w)
      inp     float32[8, 3, 32, 32]  (N, C, H, W)
      weight  float32[16, 4, 3, 3]   (O, I, kH, kW), groups=1
      fix     make weight.shape[1] * groups equal inp.shape[1], or transpose an NHWC input first

This module is a leaf: it imports the standard library only, so that every layer may raise from it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import CodeType

    from typing_extensions import Self

__all__ = [
    "ArgumentError",
    "ArtifactError",
    "AxisError",
    "CompileError",
    "DTypeError",
    "DeviceError",
    "FileError",
    "FileMissingError",
    "Frame",
    "GradientError",
    "IRError",
    "MgecError",
    "ModelError",
    "OptionError",
    "RuntimeFailure",
    "SerializationError",
    "ShapeError",
    "TraceError",
    "UnsupportedModelError",
    "Value",
    "describe",
    "user_frame",
]


class Frame(NamedTuple):
    """A place in a program.

    Attributes:
        file: Path as Python knows it.
        line: Line number, counted from 1.
        function: Qualified name such as ``Net.forward``, or ``<module>``.
    """

    file: str
    line: int
    function: str

    @property
    def source(self) -> str:
        """The text of the line without its indentation; empty where it cannot be read."""
        import linecache

        try:
            return linecache.getline(self.file, self.line).strip()
        except Exception:  # an error about a missing source must not hide the error we report
            return ""

    @property
    def display_file(self) -> str:
        """The path relative to the working directory where it lies below it."""
        try:
            relative = os.path.relpath(self.file)
        except (ValueError, OSError):  # another drive, or the working directory is gone
            return self.file
        return self.file if relative.startswith("..") or self.file.startswith("<") else relative

    def __str__(self) -> str:
        """One line, as an error prints it after ``at``."""
        place = f"{self.display_file}:{self.line} in {self.function}"
        source = self.source
        return f"{place}:   {source}" if source else place


class Value(NamedTuple):
    """One operand or option that takes part in a conflict.

    Attributes:
        name: What the user calls it: ``weight``, ``axis``.
        description: What it is: ``float32[16, 4, 3, 3]``; an array or a type is described for you.
        role: What its parts mean: ``(O, I, kH, kW), groups=1``.
    """

    name: str
    description: str
    role: str = ""


def describe(value: object) -> str:
    """Says what a value is in a few words: ``float32[8, 3]`` for anything with a shape and a dtype.

    Args:
        value: A tensor, an array, a type, or any other Python value.

    Returns:
        Text that fits on one line.
    """
    if isinstance(value, str):
        return value
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple | list) and dtype is not None:
        name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
        return f"{name}[{', '.join(str(dim) for dim in shape)}]"
    if isinstance(value, type):
        return value.__name__
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a broken __repr__ must not hide the error we report
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 72 else text[:69] + "..."


ValueLike = Value | tuple[str, object] | tuple[str, object, str]


class MgecError(Exception):
    """The base of every error that mgec raises on purpose.

    Args:
        headline: The op and the two facts that conflict, on one line:
            ``"conv2d: input has 3 channels but weight expects 4"``.
        values: The values in conflict, each ``(name, description)`` or
            ``(name, description, role)``; a description that is not text goes through `describe`.
        fix: One sentence that tells the user what to change.
        location: The user's frame. Default: the frame that called into mgec just now.
    """

    def __init__(
        self,
        headline: str,
        *,
        values: Iterable[ValueLike] = (),
        fix: str = "",
        location: Frame | None = None,
    ) -> None:
        super().__init__(headline)
        self.headline = headline
        self.values = tuple(Value(row[0], describe(row[1]), *row[2:]) for row in values)
        self.fix = fix
        self.location = location if location is not None else user_frame()

    def with_location(self, frame: Frame | None) -> Self:
        """Names the user's line when it is known better than from the stack, as in a pass.

        Args:
            frame: The place; None leaves the error as it is.

        Returns:
            The same error, so that ``raise error.with_location(frame)`` reads well.
        """
        if frame is not None:
            self.location = frame
        return self

    def __str__(self) -> str:
        """The whole report; see the module's docstring."""
        lines = [self.headline]
        if self.location is not None:
            lines.append(f"  at {self.location}")
        rows = [*self.values, *([Value("fix", self.fix)] if self.fix else [])]
        names = max((len(row.name) for row in rows), default=0)
        descriptions = max((len(row.description) for row in rows if row.role), default=0)
        for row in rows:
            text = f"  {row.name:<{names}}  {row.description:<{descriptions}}  {row.role}"
            lines.append(text.rstrip())
        return "\n".join(lines)

    def render(self) -> str:
        """The report with the class in front, as a command prints it: ``mgec.ShapeError: ...``."""
        return f"mgec.{type(self).__name__}: {self}"


class ShapeError(MgecError, ValueError):
    """Shapes, ranks or sizes that do not fit together."""


class DTypeError(MgecError, TypeError):
    """An element type that an op does not take, or types that do not mix."""


class AxisError(MgecError, ValueError, IndexError):
    """An axis or an index outside the rank, or one that is named twice."""


class ArgumentError(MgecError, ValueError):
    """An argument whose value is not allowed."""


class DeviceError(MgecError, ValueError):
    """A device name that means nothing, a device that is not there, or devices that do not mix."""


class GradientError(MgecError, RuntimeError):
    """A gradient that cannot be had: nothing recorded, or an op without a rule."""


class TraceError(MgecError, RuntimeError):
    """A Python function that cannot be traced, or that no longer does what was traced."""


class ArtifactError(MgecError, ValueError):
    """An artifact file that is truncated, damaged or of a version this runtime does not know."""


class ModelError(MgecError, ValueError):
    """A model file of another framework that is damaged, or contradicts itself."""


class UnsupportedModelError(ModelError, NotImplementedError):
    """A model file with ops that cannot be imported: all of them are listed.

    Attributes:
        nodes: one entry for each of them.
    """

    nodes: tuple[Any, ...] = ()


class SerializationError(MgecError, ValueError):
    """A saved file that cannot be read back, or an object that cannot be saved."""


class IRError(MgecError, ValueError):
    """IR text that does not parse or does not verify."""


class OptionError(MgecError, ValueError):
    """An option of a command, a pass or the environment that is unknown or has a bad value."""


class RuntimeFailure(MgecError, RuntimeError):
    """The native runtime returned an error status."""


class FileError(MgecError, OSError):
    """A file that cannot be read or written."""


class FileMissingError(FileError, FileNotFoundError):
    """A file that does not exist."""


class CompileError(MgecError, RuntimeError):
    """The compiler itself failed: a defect in mgec, not in the user's program.

    Args:
        headline: The phase or pass, and what failed.
        values: As in `MgecError`.
        fix: As in `MgecError`; default: please report it.
        location: The line of the user's program that the failing op came from.
        reproducer: Path of a file that shows the failure again.
    """

    def __init__(
        self,
        headline: str,
        *,
        values: Iterable[ValueLike] = (),
        fix: str = "this is a defect in mgec: please report it with the reproducer",
        location: Frame | None = None,
        reproducer: str | os.PathLike[str] | None = None,
    ) -> None:
        path = None if reproducer is None else os.fspath(reproducer)
        if path is not None:
            values = [*values, ("reproducer", path)]
        super().__init__(headline, values=values, fix=fix, location=location)
        self.reproducer = path


def _name_as_the_user_does(error: type[MgecError]) -> None:
    """Tracebacks then say ``mgec.ShapeError``, which is also how the class can be reached."""
    error.__module__ = "mgec"
    for subclass in error.__subclasses__():
        _name_as_the_user_does(subclass)


_name_as_the_user_does(MgecError)


# Frames of these packages are never the user's line: mgec itself and what mgec calls back from.
_INTERNAL_PACKAGES = frozenset(
    {"mgec", "xdsl", "torch_mlir", "mlir", "llvmlite"}
    | {"importlib", "contextlib", "functools", "runpy", "threading", "concurrent", "dataclasses"}
)
_INTERNAL_COMMANDS = frozenset({"mgec", "mgec-opt", "mgec.exe", "mgec-opt.exe"})
_PACKAGE_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_is_internal_file: dict[str, bool] = {}


def _is_internal(code: CodeType, module_globals: dict[str, Any]) -> bool:
    """Whether a frame belongs to mgec or to its machinery; remembered per file."""
    file = code.co_filename
    known = _is_internal_file.get(file)
    if known is not None:
        return known
    package = str(module_globals.get("__name__", "")).partition(".")[0]
    internal = (
        package in _INTERNAL_PACKAGES
        or file.startswith((_PACKAGE_FOLDER, "<frozen "))
        or os.path.basename(file) in _INTERNAL_COMMANDS
    )
    if not file.startswith("<"):  # "<string>" may be anybody's
        _is_internal_file[file] = internal
    return internal


def user_frame() -> Frame | None:
    """Finds the innermost frame of the running program that is outside mgec.

    Costs about a microsecond, so tracing may call it for every op.

    Returns:
        The user's file, line and function; None when mgec was started as a command.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not _is_internal(code, frame.f_globals):
            name: str = getattr(code, "co_qualname", code.co_name)  # co_qualname: Python 3.11
            return Frame(code.co_filename, frame.f_lineno, name.rpartition("<locals>.")[2])
        frame = frame.f_back
    return None
