"""Runs the artifacts of train.py on the held-out digits: without the compiler, without MLIR."""

import sys
import time
from pathlib import Path

import numpy as np

import mgec.runtime


def predict(model: mgec.runtime.Module, images: np.ndarray) -> np.ndarray:
    """The digit in each image. The last batch is filled up with zeros."""
    batch = model.inputs[0].shape[0]
    digits = []
    for i in range(0, len(images), batch):
        data = np.zeros(model.inputs[0].shape, "float32")
        part = images[i : i + batch]
        data[: len(part)] = part
        [scores] = model(data)
        digits.append(scores[: len(part)].argmax(axis=1))
    return np.concatenate(digits)


def latency(model: mgec.runtime.Module, images: np.ndarray) -> float:
    """Median seconds of a call from Python."""
    data = images[: model.inputs[0].shape[0]]
    seconds = []
    for _ in range(300):
        start = time.perf_counter()
        model(data)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[20:]))


def main(folder: Path) -> None:
    """Runs every artifact in the folder and compares with what training saw."""
    held_out = np.load(folder / "held_out.npz")
    images, labels = held_out["data"], held_out["label"]
    print(f"Fresh process, {'with' if 'xdsl' in sys.modules else 'without'} the compiler")
    for name in ("digits-1.mge", "digits.mge"):
        model = mgec.runtime.load(folder / name)
        accuracy = np.mean(predict(model, images) == labels)
        batch, seconds = model.inputs[0].shape[0], latency(model, images)
        print(f"  {name:12} {accuracy:.2%} of {len(images)} digits;", end=" ")
        print(f"batch {batch}: {seconds / batch * 1e6:.1f} us an image, {model.threads} threads")
        if accuracy != held_out["accuracy"]:
            sys.exit(f"but {held_out['accuracy']:.2%} after training")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
