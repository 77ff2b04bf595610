"""Measures twelve architectures that no kernel template was tuned on, beside other frameworks.

    python benchmarks/twelve.py --peers-root DIR
    python benchmarks/twelve.py --peers-root DIR --models wavenet vit_tiny --peers ort --threads 1

The models are those of twelve_models.py; PyTorch in DIR/venv-torch exports what is missing to
DIR/models12. They are measured as nets.py does it, in ONNX Runtime, OpenVINO and PyTorch. The exit
status is 1 if one of ours is wrong; those below the goal are listed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from comparison import Contender, Model
from nets import BY_FILE, HERE, add_arguments, compare, peer_of_file

MODELS = (
    "resnext", "odd_channels", "wavenet", "video3d", "deeplab", "convnext", "cifar_batch8",
    "vit_tiny", "efficientnet", "shufflenet", "instance_unet", "mixer",
)  # fmt: skip
PEERS = (*BY_FILE, "torch", "torch_compile")

GOAL = 0.8
"""No ratio should be below: the time of the best other framework over ours."""


def contender(name: str, root: Path, options: argparse.Namespace) -> Contender:
    """One of `PEERS`."""

    def command(model: Model, threads: int) -> list[str]:
        run = ["--threads", str(threads), "--seconds", str(options.seconds)]
        if name in BY_FILE:
            return [*peer_of_file(root, name, model, options.precision), *run]
        compiled = ["--compile"] if name == "torch_compile" else []
        return [*_torch(root), "bench", model.name, *run, *compiled]

    return Contender(name, command)


def _torch(root: Path) -> list[str]:
    python = root / "venv-torch" / "bin" / "python"
    return [str(python), str(HERE / "twelve_models.py")]


def exported(names: list[str], root: Path) -> list[Model]:
    """The models, exported first where they are missing.

    Raises:
        SystemExit: if they cannot be exported.
    """
    folder = root / "models12"
    missing = [name for name in names if not (folder / f"{name}.npz").exists()]
    if missing:
        sys.stderr.write(f"exporting {', '.join(missing)} to {folder}\n")
        done = subprocess.run(
            [*_torch(root), "export", str(folder), *missing],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"twelve: the export failed: {done.stderr[-2000:]}")
    return [Model.at(folder / f"{name}.onnx") for name in names]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    add_arguments(parser)
    options = parser.parse_args()
    if options.peers_root is None:
        parser.error("there is no folder of peers: pass --peers-root DIR, or set MGEC_PEERS_ROOT")
    root = options.peers_root.absolute()
    if not Path(_torch(root)[0]).exists():
        parser.error(f"there is no PyTorch in {root}/venv-torch, which exports the models")
    models = exported(options.models, root)
    peers = [contender(name, root, options) for name in options.peers]
    return compare(models, peers, options, goal=GOAL)


if __name__ == "__main__":
    sys.exit(main())
