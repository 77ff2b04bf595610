"""Runs an artifact.

Inputs come from an .npz file by name, or are random: normal floats, bytes from 0 to 255, other
integers from 0 to 9. Element types that .npz does not know (bfloat16) are read and written as
float32. Needs the runtime and NumPy only: no compiler.

  mgec run net.mge
  mgec run net.mge --input image.npz -o result.npz
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgec.errors import FileError
from mgec.tools.commands import _model

if TYPE_CHECKING:
    from mgec.runtime import IOSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    _model.add_arguments(parser)
    parser.add_argument("-o", "--output", metavar="OUT.npz", help="write the outputs by name here")


def run(arguments: argparse.Namespace) -> int:
    """Runs the model once and says what came out."""
    model = _model.load_model(arguments)
    arrays = _model.inputs_of(model, arguments)
    start = time.perf_counter()
    results = model(*arrays)
    seconds = time.perf_counter() - start
    plain = [_plain(array) for array in results]
    if arguments.output is not None:
        _write(arguments.output, dict(zip((s.name for s in model.outputs), plain, strict=True)))
    rows = [summary(spec, array) for spec, array in zip(model.outputs, plain, strict=True)]
    if arguments.json:
        line = {
            "model": model.name,
            "target": model.target.name,
            "threads": model.threads,
            "inputs": arguments.input or f"random, seed {arguments.seed}",
            "outputs": rows,
            "ms": round(seconds * 1e3, 4),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        return 0
    sys.stdout.write(
        f"{model.name} on {model.target.name}, {_model.counted(model.threads, 'thread')}\n"
    )
    for spec, array in zip(model.inputs, arrays, strict=True):
        origin = "random" if arguments.input is None else arguments.input
        sys.stdout.write(f"  in   {spec.name}: {spec}  {_range(summary(spec, _plain(array)))}")
        sys.stdout.write(f"  ({origin})\n")
    for spec, row in zip(model.outputs, rows, strict=True):
        sys.stdout.write(f"  out  {spec.name}: {spec}  {_range(row)}\n")
    if arguments.output is not None:
        sys.stdout.write(f"  written to {arguments.output}\n")
    return 0


def summary(spec: IOSpec, array: Any) -> dict[str, Any]:
    """What to say about an array: least, greatest and mean of its finite values, and the rest."""
    import numpy as np

    row: dict[str, Any] = {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}
    values = array.astype(np.float64) if array.dtype.kind != "c" else np.abs(array)
    finite = values[np.isfinite(values)]
    if finite.size:
        for key, value in (("min", finite.min()), ("max", finite.max()), ("mean", finite.mean())):
            row[key] = float(value)
    row["nan"] = int(np.isnan(values).sum())
    row["inf"] = int(np.isinf(values).sum())
    return row


def _range(row: dict[str, Any]) -> str:
    text = "empty"
    if "min" in row:
        text = f"{row['min']:.6g} to {row['max']:.6g}, mean {row['mean']:.6g}"
    elif row["nan"] or row["inf"]:
        text = "nothing finite"
    for key, name in (("nan", "NaN"), ("inf", "infinite")):
        if row[key]:
            text += f", {row[key]} {name}"
    return text


def _plain(array: Any) -> Any:
    """The array in a type of NumPy's own: others become float32, which holds all their values."""
    import numpy as np

    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _write(file: str, arrays: dict[str, Any]) -> None:
    import numpy as np

    try:
        with Path(file).open("wb") as stream:
            np.savez(stream, **arrays)
    except OSError as error:
        raise FileError(
            f"cannot write {file}: {error.strerror or error}",
            fix="choose a folder that exists and can be written",
        ) from error
