"""Measures whole networks in mgec and in other frameworks, by turns in one run.

    python benchmarks/nets.py --peers-root DIR
    python benchmarks/nets.py --peers-root DIR --models lenet resnet18 --peers ort ncnn --threads 1
    python benchmarks/nets.py --peers-root DIR --models my.onnx      # any file, my.npz beside it

DIR has `peers/bench_peers.py`, the models as `models/NAME.onnx` with inputs and outputs in
`models/NAME.npz`, and a `venv-FRAMEWORK` for each framework. Of a model elsewhere, ONNX Runtime and
OpenVINO are measured. Without DIR there is mgec alone.

mgec first compiles each model to an artifact; then every contender is called from Python in a
process of its own, pinned with taskset. The tables have the least time of all rounds, and the
ratio of the best other framework to ours: above 1 we are faster. Outputs are compared with those
of the .npz file; the exit status is 1 if one of ours is wrong. Quiet the machine first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from comparison import (
    OURS,
    TOLERANCES,
    Contender,
    Model,
    Result,
    measure,
    report,
    run_json,
)
from tqdm import tqdm

from mgec import config

MODELS = (
    "lenet", "mlp", "mobilenetv2", "resnet18", "resnet50", "unet_small", "minilm", "bert_base",
    "mm512", "mm1024", "mm2048",
)  # fmt: skip
PEERS = ("ort", "openvino", "ncnn", "torch_compile", "jax", "iree")
BF16_PEERS = ("openvino",)
"""Those that have bf16; the others would run in f32."""

BY_FILE = ("ort", "openvino")
"""Those that onnx_peer.py measures, from any file."""

HERE = Path(__file__).parent


def add_arguments(parser: argparse.ArgumentParser, threads: Sequence[int] = (1, 2)) -> None:
    """The arguments that every comparison takes."""
    parser.add_argument("--threads", nargs="+", type=int, default=list(threads), metavar="N")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often each takes its turn")
    parser.add_argument("--core", type=int, default=1, help="the processor for one thread")
    parser.add_argument("--precision", choices=sorted(TOLERANCES), default="f32")
    parser.add_argument("--cold", action="store_true", help="compile without the kernel cache")
    parser.add_argument("--json", metavar="FILE", help="write everything here")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables here")
    parser.add_argument("--chart", metavar="FILE.png", help="draw the times relative to ours")
    parser.add_argument(
        "--peers-root",
        type=Path,
        default=config.peers_root,
        metavar="DIR",
        help="models and other frameworks (default: MGEC_PEERS_ROOT)",
    )


def mgec_contender(
    models: Sequence[Model], folder: Path, options: argparse.Namespace
) -> tuple[Contender, dict[str, dict[str, object]]]:
    """Compiles the models to artifacts.

    Returns:
        What measures them, and by model what compiling took; with `error` where it failed.
    """
    made: dict[str, dict[str, object]] = {}
    bench = [sys.executable, "-m", "mgec", "bench"]
    for model in tqdm(models, desc="compile", disable=None, leave=False):
        command = [*bench, str(model.onnx), "--keep", str(folder / f"{model.name}.mge")]
        if options.precision != "f32":
            command += ["--precision", options.precision]
        with tempfile.TemporaryDirectory(prefix="mgec-cold-") as cache:
            environment = {"MGEC_CACHE_DIR": cache} if options.cold else {}
            made[model.name] = run_json([*command, "--json", "--seconds", "0.01"], environment)

    def command_of(model: Model, threads: int) -> list[str]:
        if "error" in made[model.name]:
            return failing(str(made[model.name]["error"]))
        data = ["--input-data", str(model.data)] if model.data else []
        return [
            *bench, str(folder / f"{model.name}.mge"), "--json", "--from-python", *data,
            "--threads", str(threads), "--seconds", str(options.seconds),
        ]  # fmt: skip

    return Contender(OURS, command_of), made


def failing(why: str) -> list[str]:
    """A command that fails: in the tables it is a measurement that failed."""
    return [sys.executable, "-c", f"raise SystemExit({why!r})"]


def add_compile_figures(results: Sequence[Result], made: dict[str, dict[str, object]]) -> None:
    """Puts what compiling took beside our results: the artifact does not know."""
    for result in results:
        if result.contender == OURS:
            figures = made[result.model]
            for key in ("import_s", "compile_s", "kernels", "compiled_kernels"):
                result.details[key] = figures.get(key)
            result.details["compile_peak_rss_mb"] = figures.get("peak_rss_mb")


def peer_contenders(names: Sequence[str], options: argparse.Namespace) -> list[Contender]:
    """The other frameworks: models of their folder by name, others by file.

    Models by name go through the folder's own script, which knows more frameworks.
    """
    root = options.peers_root.absolute()
    script = root / "peers" / "bench_peers.py"

    def contender(name: str) -> Contender:
        def command(model: Model, threads: int) -> list[str]:
            run = ["--threads", str(threads), "--seconds", str(options.seconds)]
            if model.onnx.parent != root / "models":
                return [*peer_of_file(root, name, model, options.precision), *run]
            line = [sys.executable, str(script), "--framework", name, "--model", model.name]
            line += ["--core", str(options.core), *run]
            return line if options.precision == "f32" else [*line, "--opt", options.precision]

        return Contender(name, command, {"PEER_ROOT": str(root)})

    return [contender(name) for name in names]


def peer_of_file(root: Path, name: str, model: Model, precision: str) -> list[str]:
    """The command that measures a model of any file in one of `BY_FILE`."""
    if name not in BY_FILE:
        return failing("it takes models by name only")
    python = str(root / f"venv-{name}" / "bin" / "python")
    return [python, str(HERE / "onnx_peer.py"), name, str(model.onnx), "--precision", precision]


def models_of(texts: Sequence[str], root: Path | None) -> list[Model]:
    """The models that are meant: files, or names in the folder.

    Raises:
        SystemExit: if one of them is not there.
    """
    models: list[Model] = []
    for text in texts:
        path = Path(text)
        if path.suffix != ".onnx":
            if root is None:
                raise SystemExit(
                    f"nets: model {text!r} is a name, but there is no folder of peers\n"
                    "  fix  pass --peers-root DIR, or set MGEC_PEERS_ROOT; or pass files: "
                    "--models net.onnx measures mgec alone"
                )
            path = root / "models" / f"{text}.onnx"
        if not path.is_file():
            raise SystemExit(f"nets: there is no file {path}\n  fix  check the path")
        models.append(Model.at(path.absolute()))
    return models


def compare(
    models: Sequence[Model],
    peers: Sequence[Contender],
    options: argparse.Namespace,
    goal: float = 1.0,
) -> int:
    """Measures mgec and the peers, and shows what came out.

    Args:
        models: what to run.
        peers: where, besides mgec.
        options: of `add_arguments`.
        goal: the ratio that none should be below.

    Returns:
        The exit status: 1 if one of our results is wrong or missing.
    """
    with tempfile.TemporaryDirectory(prefix="mgec-nets-") as folder:
        ours, made = mgec_contender(models, Path(folder), options)
        results = measure(
            models, [ours, *peers], options.threads, rounds=options.rounds, core=options.core
        )
    add_compile_figures(results, made)
    return report(
        results,
        options.threads,
        TOLERANCES[options.precision],
        goal=goal,
        json_file=options.json,
        markdown_file=options.markdown,
        chart_file=options.chart,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", metavar="NAME|FILE.onnx", default=list(MODELS))
    parser.add_argument("--peers", nargs="*", metavar="FRAMEWORK", help="default: all there are")
    add_arguments(parser)
    options = parser.parse_args()
    root: Path | None = options.peers_root and options.peers_root.absolute()
    models = models_of(options.models, root)
    return compare(models, peers_of(models, options) if root else [], options)


def peers_of(models: Sequence[Model], options: argparse.Namespace) -> list[Contender]:
    """The peers that were asked for, else all that are installed and know the models.

    Raises:
        SystemExit: if one was asked for that is not installed.
    """
    root: Path = options.peers_root.absolute()
    names = list(PEERS if options.peers is None else options.peers)
    if options.precision == "bf16":
        names = [name for name in names if name in BF16_PEERS]
    if options.peers is None and all(model.onnx.parent != root / "models" for model in models):
        names = [name for name in names if name in BY_FILE]
    there = {name: (root / f"venv-{name.removesuffix('_compile')}").is_dir() for name in names}
    missing = [name for name in names if not there[name]]
    if missing and options.peers is not None:
        raise SystemExit(
            f"nets: there is no {', '.join(missing)} in {root}\n"
            f"  fix  install it in {root}/venv-{missing[0]}, or leave it out of --peers"
        )
    if missing:
        sys.stderr.write(f"nets: left out, not in {root}: {', '.join(missing)}\n")
    return peer_contenders([name for name in names if there[name]], options)


if __name__ == "__main__":
    sys.exit(main())
