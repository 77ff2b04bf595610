"""LeNet on scanned digits: train, dump, and run the artifact in a process without the compiler.

Needs scikit-learn, for the digits: pip install '.[demo]'

python examples/digits/train.py          # or: make demo
python examples/digits/train.py --eager  # the same again, op by op: the losses agree
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from net import OUTPUT_DIR, LeNet
from sklearn.datasets import load_digits
from tqdm import tqdm

import mgec as mge
import mgec.functional as F
from mgec.autodiff import GradManager
from mgec.jit import trace
from mgec.optimizer import AdamW

LEARNING_RATE = 2e-3


def read_digits(seed: int) -> list[np.ndarray]:
    """1,797 scanned digits: images and labels to train on, images and labels held out."""
    digits = load_digits()  # comes with scikit-learn; 8 x 8 pixels from 0 to 16
    images = digits.images.astype("float32") / 16
    images = images.repeat(3, axis=1).repeat(3, axis=2)  # 24 x 24
    images = np.pad(images, ((0, 0), (4, 4), (4, 4)))[:, None]  # (1797, 1, 32, 32)
    labels = digits.target.astype("int32")
    order = np.random.default_rng(seed).permutation(len(images))
    train, held_out = order[:1437], order[1437:]
    return [images[train], labels[train], images[held_out], labels[held_out]]


def batches(images, labels, epochs: int, batch: int, seed: int):
    """Every image once an epoch, in random order, moved by up to 3 pixels; whole batches only."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for i in range(0, len(images) - batch + 1, batch):
            chosen = order[i : i + batch]
            moved = np.roll(images[chosen], rng.integers(-3, 4, size=2), axis=(2, 3))
            yield mge.tensor(moved), mge.tensor(labels[chosen])


def training_step(net: LeNet, optimizer: AdamW):
    """Forward, loss, backward and update as one function, which becomes one graph: one call."""
    gm = GradManager().attach(net.parameters())

    @trace(symbolic=True)
    def step(data, label):
        with gm:
            loss = F.loss.cross_entropy(net(data), label)
            gm.backward(loss)
        optimizer.step().clear_grad()
        return loss

    return step


def train(images, labels, options) -> tuple[LeNet, list[float], list[float]]:
    """Trains a LeNet; returns it with the loss and the seconds of every step."""
    mge.random.seed(options.seed)
    net = LeNet()
    optimizer = AdamW(net.parameters(), lr=LEARNING_RATE)
    step = training_step(net, optimizer)

    steps = options.epochs * (len(images) // options.batch)
    losses, seconds = [], []
    feed = batches(images, labels, options.epochs, options.batch, options.seed)
    with tqdm(feed, "train", steps, unit="step", disable=None) as bar:  # on a terminal only
        for i, (data, label) in enumerate(bar):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - i / steps)  # no new trace
            start = time.perf_counter()
            losses.append(float(step(data, label)))
            seconds.append(time.perf_counter() - start)
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return net, losses, seconds


def dump(net: LeNet, images: np.ndarray, folder: Path) -> float:
    """Writes artifacts for one image and for 64 images; returns the seconds that took."""

    @trace(symbolic=True, capture_as_const=True)
    def infer(data):
        return net(data)

    start = time.perf_counter()
    for name, batch in (("digits-1.mge", 1), ("digits.mge", 64)):
        infer.trace(mge.tensor(images[:batch]))
        infer.dump(folder / name, arg_names=["data"], output_names=["scores"])
    return time.perf_counter() - start


def main() -> None:
    """Trains, dumps, and runs the artifacts elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, default=OUTPUT_DIR)
    parser.add_argument("--eager", action="store_true", help="train again without trace, compare")
    options = parser.parse_args()

    start = time.perf_counter()
    images, labels, held_out_images, held_out_labels = read_digits(options.seed)
    if options.epochs < 1 or not 1 <= options.batch <= len(images):
        parser.error(f"--epochs must be at least 1, --batch from 1 to {len(images)}")
    net, losses, seconds = train(images, labels, options)
    step_seconds = float(np.median(seconds))
    predicted = net(mge.tensor(held_out_images)).numpy().argmax(axis=1)
    accuracy = float(np.mean(predicted == held_out_labels))
    print(f"LeNet on {len(images)} digits, {options.epochs} epochs")
    print(f"  first step  {seconds[0]:.2f} s, of which compiling {seconds[0] - step_seconds:.2f} s")
    print(f"  step        {step_seconds * 1e3:.2f} ms for {options.batch} images (median)")
    print(f"  loss        {losses[0]:.3f} to {np.mean(losses[-20:]):.3f}")
    print(f"  accuracy    {accuracy:.2%} of {len(held_out_labels)} held-out digits")

    if options.eager:
        with_trace, trace.enabled = losses, False
        _, losses, seconds = train(images, labels, options)
        trace.enabled = True
        difference = float(np.max(np.abs(np.subtract(losses, with_trace))))
        print(f"  eager       {np.median(seconds) * 1e3:.2f} ms a step;", end=" ")
        print(f"the losses differ by {difference:.1g} at most")

    folder = options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    mge.save(net.state_dict(), folder / "weights.safetensors")
    np.savez(
        folder / "held_out.npz", data=held_out_images, label=held_out_labels, accuracy=accuracy
    )
    print(f"Artifacts in {folder}: {dump(net, held_out_images, folder):.2f} s to compile")
    sys.stdout.flush()
    run = Path(__file__).with_name("run.py")
    code = subprocess.run([sys.executable, run, folder], check=False).returncode
    print(f"Total {time.perf_counter() - start:.1f} s")
    sys.exit(code)


if __name__ == "__main__":
    main()
