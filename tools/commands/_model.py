"""What `run` and `bench` share: loading an artifact and finding its inputs.

Runtime only, but for an ONNX model, which is compiled first.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgec.errors import ArgumentError, DTypeError, FileError, FileMissingError, OptionError

if TYPE_CHECKING:
    import numpy as np

    from mgec.runtime import IOSpec, Module

    Array = np.ndarray[Any, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that runs an artifact."""
    parser.add_argument(
        "file", metavar="FILE.mge", help="an artifact made by mgec compile, or an .onnx model"
    )
    parser.add_argument(
        "--input", metavar="F.npz", help="inputs by name; default: random, see --seed"
    )
    add_run_arguments(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say how to run a model, whatever it comes from."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of random inputs (default 0)"
    )
    parser.add_argument(
        "--threads",
        type=thread_count,
        metavar="N",
        help="threads of one run; 0 for all processors (default: MGEC_NUM_THREADS)",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead")


def input_shapes(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """The shapes that `--input NAME:SHAPE` gives, as in `x:1x3x224x224`.

    Raises:
        OptionError: if one of them is not such a text.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, colon, sizes = text.rpartition(":")
        parts = [] if sizes == "scalar" else sizes.replace(",", "x").split("x")
        if not colon or not name or not all(part.isdecimal() for part in parts):
            raise OptionError(
                f"--input {text}: this is not NAME:SHAPE",
                fix="write it as in x:1x3x224x224, or t:scalar",
            )
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def thread_count(text: str) -> int:
    """The number of threads that `--threads` means.

    Raises:
        argparse.ArgumentTypeError: if it is not a number from 0 on.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    from mgec import config

    with config.override(num_threads=text):
        return config.num_threads


def seconds(text: str) -> float:
    """The time that `--seconds` means.

    Raises:
        argparse.ArgumentTypeError: if it is not a number above 0, or more than a day.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def load_model(arguments: argparse.Namespace) -> Module:
    """The artifact of the command line, ready to run; an ONNX model is compiled first."""
    from mgec.runtime import load

    check_file(arguments.file)
    if not arguments.file.endswith(".onnx"):
        return load(arguments.file, threads=arguments.threads)
    with tempfile.TemporaryDirectory(prefix="mgec-") as folder:
        path = Path(folder, "model.mge")
        compile_onnx(arguments.file, path, arguments.input)
        return load(path, threads=arguments.threads)  # mapped, so that the file may go


def compile_onnx(file: str, path: Path, inputs: str | None) -> None:
    """Compiles an ONNX model to an artifact, for the shapes of the inputs that are given."""
    from mgec.compiler.api import compile_graph
    from mgec.importers import from_onnx

    shapes = {} if inputs is None else {k: v.shape for k, v in read_npz(inputs).items()}
    model = from_onnx(file, shapes)
    compile_graph(model.graph).write(path, name=model.name)


def check_file(file: str) -> None:
    """Refuses what is not an artifact before anything is read from it.

    Raises:
        FileMissingError: if there is no such file.
        FileError: if it is a folder.
        ArgumentError: if it is a source, not an artifact.
    """
    path = Path(file)
    if path.is_dir():
        raise FileError(f"{file} is a folder", fix="pass an artifact, a file ending in .mge")
    if not path.exists():
        raise FileMissingError(f"there is no file {file}", fix="check the path")
    if path.suffix in (".py", ".mlir"):
        raise ArgumentError(
            f"{file} is a source, not an artifact",
            fix=f"compile it first: mgec compile {file} -o {path.with_suffix('.mge')}",
        )


def inputs_of(model: Module, arguments: argparse.Namespace) -> list[Array]:
    """The arrays to run on, in the order of the model's inputs."""
    if arguments.input is None:
        return random_inputs(model.inputs, arguments.seed)
    return named_inputs(model.inputs, read_npz(arguments.input), arguments.input)


def named_inputs(specs: list[IOSpec], arrays: dict[str, Array], file: str) -> list[Array]:
    """The arrays of a file in the order of the inputs.

    Raises:
        ArgumentError: if one is missing, or is not an input.
        DTypeError: if one has another element type.
    """
    names = [spec.name for spec in specs]
    example = ", ".join(f"{name}=..." for name in names)
    expected = [(spec.name, str(spec)) for spec in specs]
    for what, wrong in (
        ("has no input", [name for name in names if name not in arrays]),
        ("has an array that is not an input:", [name for name in arrays if name not in names]),
    ):
        if wrong:
            raise ArgumentError(
                f"{file}: it {what} {', '.join(map(repr, wrong))}",
                values=expected,
                fix=f"write the file with numpy.savez(file, {example})",
            )
    return [as_input(arrays[spec.name], spec) for spec in specs]


def random_inputs(specs: list[IOSpec], seed: int) -> list[Array]:
    """Normal floats, bytes from 0 to 255, and small indices; the same for the same seed."""
    import numpy as np

    generator = np.random.default_rng(seed)
    arrays: list[Array] = []
    for spec in specs:
        dtype = numpy_dtype(spec.dtype)
        if spec.dtype == "bool":
            made = generator.integers(0, 2, spec.shape)
        elif spec.dtype == "uint8":
            made = generator.integers(0, 256, spec.shape)
        elif "int" in spec.dtype:  # most likely labels or indices: kept small
            made = generator.integers(0, 10, spec.shape)
        else:
            made = generator.standard_normal(spec.shape, np.float32)
        arrays.append(np.asarray(made).astype(dtype))
    return arrays


def counted(count: int, what: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's type object; the narrow floats come from `ml_dtypes`."""
    import numpy as np

    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def as_input(array: Array, spec: IOSpec) -> Array:
    """An array of a file as the model takes it: .npz knows no bfloat16, float32 stands for it.

    Raises:
        DTypeError: if the element types differ otherwise. (The model checks the rest.)
    """
    dtype = numpy_dtype(spec.dtype)
    if array.dtype == dtype:
        return array
    if dtype.kind == "V" or not hasattr(dtype, "isbuiltin") or dtype.isbuiltin != 1:
        if array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
            return array.view(dtype)
        if array.dtype.name == "float32":
            return array.astype(dtype)
    raise DTypeError(
        f"input {spec.name!r} is {array.dtype}, expected {spec.dtype}",
        values=[(spec.name, str(spec))],
        fix=f"save it as {spec.name}.astype({spec.dtype!r})",
    )


def read_npz(file: str) -> dict[str, Array]:
    """The arrays of an .npz file by name.

    Raises:
        FileMissingError: if there is no such file.
        FileError: if it cannot be read, or is not an .npz file of plain arrays.
    """
    import zipfile

    import numpy as np

    fix = "write it with numpy.savez(file, name=array, ...)"
    try:
        found = np.load(file)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise FileError(f"{file} holds one array without a name, not an .npz file", fix=fix)
        with found:
            return {name: found[name] for name in found.files}
    except FileNotFoundError as error:
        raise FileMissingError(f"there is no file {file}", fix="check the path") from error
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"cannot read {file}: {error.strerror or error}", fix="check the path"
        ) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(f"{file} is not an .npz file of plain arrays: {error}", fix=fix) from error
