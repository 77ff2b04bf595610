"""What `tune` and `explain` share: a model from any source, and what it runs on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mgec import config
from mgec.tools.commands import _model
from mgec.tools.commands.compile import check_source, load_source, split_source

if TYPE_CHECKING:
    import numpy as np

    from mgec.compiler.graph_module import GraphModule
    from mgec.compiler.targets import Target


@dataclass
class Source:
    """A model that is not compiled yet.

    Attributes:
        name: of the model.
        graph: the model.
        since: the phase that the graph is a dump of.
        target: what to compile for: this machine.
        threads: how many one run may use.
    """

    name: str
    graph: GraphModule
    since: str
    target: Target
    threads: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what model, and how it is compiled and run."""
    parser.add_argument("file", metavar="FILE[:FUNC]", help="a .py, .onnx, .mlir or .mge file")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:SHAPE",
        help="the shape of an input, as for mgec compile; repeat it",
    )
    parser.add_argument(
        "--precision", choices=("f32", "bf16"), default="f32", help="as for mgec compile"
    )
    parser.add_argument(
        "--optimize", choices=("speed", "size"), default="speed", help="as for mgec compile"
    )
    parser.set_defaults(compile_from=None, compile_to=None)
    _model.add_run_arguments(parser)


def read(arguments: argparse.Namespace) -> Source:
    """The model of the command line.

    Raises:
        MgecError: if there is none.
    """
    from mgec.compiler.targets import target_named

    path, function = split_source(arguments.file)
    check_source(path, function, arguments.input)
    target = target_named("host")
    if arguments.optimize == "size":
        target = replace(target, saves_memory=True)
    graph, since, name = load_source(arguments, path, function)
    threads = config.num_threads if arguments.threads is None else arguments.threads
    return Source(name, graph, since, target, threads)


def random_arrays(graph: GraphModule, seed: int) -> list[np.ndarray[Any, Any]]:
    """Inputs of a graph; the same for the same seed."""
    from mgec.runtime import IOSpec

    pairs = zip(graph.input_names, graph.input_specs, strict=True)
    specs = [IOSpec(name, spec.dtype.name, spec.shape) for name, spec in pairs]
    return _model.random_inputs(specs, seed)
