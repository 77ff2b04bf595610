"""A model in a Python file: finding it, and tracing it into a graph."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, cast

from mgec.errors import ArgumentError, Frame, MgecError, OptionError, TraceError

if TYPE_CHECKING:
    from mgec.compiler.graph_module import GraphModule

MODULE_NAME = "__mgec_model__"
"""What the file is called while it is imported: its `if __name__ == "__main__"` does not run."""


@dataclass(frozen=True)
class InputSpec:
    """An example input of the command line: `--input x:8,3,32,32:float32`."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def parse_input(text: str) -> InputSpec:
    """Reads NAME:SHAPE[:DTYPE].

    Args:
        text: as given; sizes are separated by commas or `x`; `scalar` is a shape, too.

    Raises:
        OptionError: if it is not of this form; says what is wrong.
    """
    name, *rest = text.split(":")
    if len(rest) not in (1, 2):
        _bad_input(text, f"has {len(rest) + 1} parts")
    if not name.isidentifier():
        _bad_input(text, f"names {name!r}, which is not a name")
    shape: list[int] = []
    if rest[0] not in ("", "scalar"):
        for size in rest[0].strip("[]()").replace("x", ",").split(","):
            if not size.strip().isdecimal():
                _bad_input(text, f"has the size {size.strip()!r}, which is not a number from 0 on")
            shape.append(int(size))
    dtype = rest[1] if len(rest) == 2 else "float32"
    from mgec.dialects.mge.spec import DTYPES

    known = [each.name for each in DTYPES]
    if dtype not in known:
        _bad_input(text, f"has the unknown dtype {dtype!r}", f"use one of {', '.join(known)}")
    return InputSpec(name, tuple(shape), dtype)


def _bad_input(text: str, what: str, fix: str = "") -> None:
    raise OptionError(
        f"--input {text!r} {what}",
        fix=fix or "write NAME:SHAPE or NAME:SHAPE:DTYPE, such as x:8,3,32,32:float32",
    )


def trace_file(path: Path, function: str, inputs: Sequence[InputSpec]) -> tuple[GraphModule, str]:
    """Traces a model of a Python file.

    Args:
        path: the file.
        function: what to trace: a name in the file; empty if there is only one choice.
        inputs: example inputs; where there are none, the file's `example_inputs()`, or what the
            traced function was last called with.

    Returns:
        The graph, whose parameters are constants, and the model's name.

    Raises:
        ArgumentError: if there is no such function, or no inputs for it.
        TraceError: if the file raises.
    """
    # What the file prints must not mix with the text that we print.
    with contextlib.redirect_stdout(sys.stderr), _importable(path):
        module = _import(path)
        name, model = _find(module, path, function)
        with _users_errors(path, f"tracing {name}"):
            return _trace(module, name, model, inputs, path), name


# -- importing ---------------------------------------------------------------------------


@contextlib.contextmanager
def _importable(path: Path) -> Generator[None, None, None]:
    """The file sees its neighbours and its own name as if Python ran it."""
    argv, folder = sys.argv, str(path.absolute().parent)
    sys.argv = [str(path)]
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.argv = argv
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    with _users_errors(path, "importing it"):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _users_errors(path: Path, doing: str) -> Generator[None, None, None]:
    """Turns what the user's code raises into an error with the user's part of the traceback."""
    try:
        yield
    except MgecError:
        raise
    except SyntaxError as error:
        frame = None
        if error.filename is not None:
            frame = Frame(error.filename, error.lineno or 1, "<module>")
        raise TraceError(
            f"{path}: the file is not valid Python: {error.msg}",
            location=frame,
            fix="mend the file; python FILE shows the same",
        ) from error
    except SystemExit as error:
        frames = _user_frames(error.__traceback__, path)
        raise TraceError(
            f"{path}: {doing} called sys.exit({error.code!r})",
            location=frames[-1] if frames else None,
            fix='put what a script does under if __name__ == "__main__":',
        ) from error
    except Exception as error:
        frames = _user_frames(error.__traceback__, path)
        if not frames:  # no line of the user's: a defect of ours, or a file that is not text
            if isinstance(error, OSError | ValueError):
                raise TraceError(
                    f"{path}: {doing} failed: {error}", fix="pass a file of Python code"
                ) from error
            raise
        what = traceback.format_exception_only(type(error), error)[-1].strip()
        raise TraceError(
            f"{path}: {doing} raised {what}",
            location=frames[-1],
            values=[("from", str(frame)) for frame in reversed(frames[:-1])],
            fix="mend the line above, or see MGEC_DEBUG=1 for the whole traceback",
        ) from error


def _user_frames(trace: TracebackType | None, path: Path) -> list[Frame]:
    """The frames of the user's own files, outermost first."""
    folder = path.absolute().parent
    frames: list[Frame] = []
    for frame, line in traceback.walk_tb(trace):
        code = frame.f_code
        file = Path(code.co_filename)
        inside = file.is_absolute() and file.is_relative_to(folder)
        installed = "site-packages" in file.parts or frame.f_globals.get("__name__", "").startswith(
            "mgec."
        )
        if inside and not installed:
            name = cast("str", getattr(code, "co_qualname", code.co_name))
            frames.append(Frame(code.co_filename, line, name.rpartition("<locals>.")[2]))
    return frames


# -- finding -----------------------------------------------------------------------------


def _candidates(module: ModuleType) -> list[dict[str, Any]]:
    """What can be traced, by name: traced functions, modules, plain functions."""
    from mgec.jit.trace import trace

    base = _module_class()
    traced: dict[str, Any] = {}
    modules: dict[str, Any] = {}
    functions: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name == "example_inputs":
            continue
        if isinstance(value, trace):
            traced[name] = value
        elif base is not None and (
            isinstance(value, base)
            or (isinstance(value, type) and issubclass(value, base) and _is_own(value, module))
        ):
            modules[name] = value
        elif inspect.isfunction(value) and _is_own(value, module):
            functions[name] = value
    return [traced, modules, functions]


def _is_own(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _module_class() -> type | None:
    """`mgec.module.Module`, if the file imported it."""
    return getattr(sys.modules.get("mgec.module"), "Module", None)


def _find(module: ModuleType, path: Path, name: str) -> tuple[str, Any]:
    kinds = _candidates(module)
    known = [each for kind in kinds for each in kind]
    listed = [("candidates", ", ".join(known) or "none")]
    if not name:
        for kind in kinds:
            if len(kind) == 1:
                return next(iter(kind.items()))
            if kind:
                raise ArgumentError(
                    f"{path}: it has {len(known)} models, and none is named",
                    values=listed,
                    fix=f"say which: {path}:{next(iter(kind))}",
                )
        raise ArgumentError(
            f"{path}: there is no function to compile in it",
            fix="define a function of tensors, a traced one or a Module",
        )
    value = getattr(module, name, None)
    if value is None:
        raise ArgumentError(
            f"{path}: there is no {name!r} in it",
            values=listed,
            fix="name one of the candidates" if known else "define a function of tensors",
        )
    if not callable(value):
        raise ArgumentError(
            f"{path}: {name!r} is {type(value).__name__}, not a function or a Module",
            values=listed,
            fix="name one of the candidates",
        )
    return name, value


# -- tracing -----------------------------------------------------------------------------


def _trace(
    module: ModuleType, name: str, model: Any, inputs: Sequence[InputSpec], path: Path
) -> GraphModule:
    from mgec.jit.trace import trace

    example = getattr(module, "example_inputs", None)
    if isinstance(model, trace):
        function = cast("Callable[..., Any]", cast("Any", model).__wrapped__)
        signature = inspect.signature(function)
        if not inputs and example is None and model.is_traced:
            return _named(model.inference_graph(), signature)
    else:
        function, signature = _as_function(model, name, path)
    args, kwargs = _arguments(signature, inputs, example, name, path)
    recorder = trace(function, symbolic=True, record_only=True)
    recorder.__name__ = name
    recorder.trace(*args, **kwargs)
    names = _names(signature, args, kwargs)
    graph = cast("GraphModule", recorder.inference_graph(names))
    if not graph.output_specs:
        raise TraceError(f"{path}: {name} returns no tensor", fix="return what it computes")
    return graph


def _as_function(model: Any, name: str, path: Path) -> tuple[Callable[..., Any], inspect.Signature]:
    """What to call. A Module is put into inference mode; a class of one is made first."""
    base = _module_class()
    if isinstance(model, type):
        if base is None or not issubclass(model, base):
            raise ArgumentError(
                f"{path}: the class {name!r} is not a Module", fix="name a function or a Module"
            )
        required = [
            each.name
            for each in inspect.signature(model).parameters.values()
            if each.default is each.empty and each.kind in (0, 1, 3)
        ]
        if required:
            raise ArgumentError(
                f"{path}: the Module {name!r} cannot be made without {', '.join(required)}",
                fix=f"make one in the file (net = {name}(...)) and name that",
            )
        model = model()
    if base is not None and isinstance(model, base):
        instance: Any = model
        instance.eval()

        def call(*args: Any, **kwargs: Any) -> Any:
            return instance(*args, **kwargs)

        return call, inspect.signature(instance.forward)
    return model, inspect.signature(model)


def _arguments(
    signature: inspect.Signature,
    inputs: Sequence[InputSpec],
    example: Any,
    name: str,
    path: Path,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example arguments, as the function takes them."""
    from mgec.core.tensor import Tensor

    parameters = signature.parameters.values()
    values = [("signature", f"{name}{signature}")]
    given: Any
    if inputs:
        given = {spec.name: _zeros(spec) for spec in inputs}
        if len(given) != len(inputs):
            raise OptionError("--input: a name is given twice", values=values, fix="give it once")
        if any(each.kind is each.VAR_POSITIONAL for each in parameters):
            return tuple(given.values()), {}
    elif example is not None:
        given = example()
    elif all(each.default is not each.empty or each.kind in (2, 4) for each in parameters):
        given = ()
    else:
        names = [each.name for each in parameters if each.default is each.empty]
        shown = " ".join(f"--input {each}:SHAPE:DTYPE" for each in names)
        raise ArgumentError(
            f"{path}: nothing says what {name} is called with",
            values=values,
            fix=f"add {shown}, or define example_inputs() in the file",
        )
    if isinstance(given, Tensor) or hasattr(given, "__array__"):
        given = (given,)
    try:
        if isinstance(given, dict):
            bound = signature.bind(**cast("dict[str, Any]", given))
        else:
            bound = signature.bind(*cast("Sequence[Any]", given))
    except TypeError as error:
        raise ArgumentError(
            f"{path}: {name} cannot be called with the example inputs: {error}",
            values=values,
            fix="give one example input for each parameter, by its name",
        ) from error
    return bound.args, bound.kwargs


def _zeros(spec: InputSpec) -> Any:
    import numpy as np

    from mgec.core.tensor import Tensor
    from mgec.dialects.mge.spec import DTYPES

    dtype = next(each for each in DTYPES if each.name == spec.dtype)
    return Tensor(np.zeros(spec.shape, dtype))


def _names(signature: inspect.Signature, args: Sequence[Any], kwargs: dict[str, Any]) -> list[str]:
    """Names of the tensors among the arguments, in the order in which the trace takes them."""
    names: list[str] = []
    rest = "args"
    positional: list[str] = []
    for each in signature.parameters.values():
        if each.kind is each.VAR_POSITIONAL:
            rest = each.name
        elif each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            positional.append(each.name)
    for i, value in enumerate(args):
        known = i < len(positional)
        names += _flat_names(value, positional[i] if known else f"{rest}_{i - len(positional)}")
    for name, value in sorted(kwargs.items()):
        names += _flat_names(value, name)
    return names


def _flat_names(value: Any, name: str) -> list[str]:
    import numpy as np

    from mgec.core.tensor import Tensor

    if isinstance(value, Tensor | np.ndarray):
        return [name]
    if isinstance(value, list | tuple):
        items = enumerate(cast("Sequence[Any]", value))
        return [each for i, item in items for each in _flat_names(item, f"{name}_{i}")]
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return [each for key, item in pairs for each in _flat_names(item, f"{name}_{key}")]
    return []


def _named(graph: Any, signature: inspect.Signature) -> GraphModule:
    """The graph of a trace made in the file; inputs get the parameters' names if they fit."""
    positional = [
        each.name
        for each in signature.parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    if len(graph.input_names) == len(positional):
        graph.set_names(positional, graph.output_names)
    return graph
