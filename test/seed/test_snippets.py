"""The snippets C01-C22 that mgec must run as written, `import megengine` being `import mgec`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
import mgec.module as M
from mgec import tensor
from mgec.autodiff import GradManager
from mgec.jit import trace


def same(text: str) -> str:
    """Text with blanks as the seed has them, which lost those at the starts of lines."""
    return re.sub(r"\s+", " ", text).replace("[ ", "[")


class LeNet(M.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = M.Conv2d(1, 6, 5)
        self.relu1 = M.ReLU()
        self.pool1 = M.MaxPool2d(2, 2)
        self.conv2 = M.Conv2d(6, 16, 5)
        self.relu2 = M.ReLU()
        self.pool2 = M.MaxPool2d(2, 2)
        self.fc1 = M.Linear(16 * 5 * 5, 120)
        self.relu3 = M.ReLU()
        self.fc2 = M.Linear(120, 84)
        self.relu4 = M.ReLU()
        self.classifer = M.Linear(84, 10)

    def forward(self, x: mge.Tensor) -> mge.Tensor:
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = F.flatten(x, 1)
        x = self.relu3(self.fc1(x))
        x = self.relu4(self.fc2(x))
        return self.classifer(x)


def test_c01_random_tensor_prints() -> None:
    rows = [[0.2976, 0.4078, 0.5957, 0.3945, 0.9413], [0.7519, 0.3313, 0.0913, 0.3345, 0.3256]]
    a = mge.tensor(np.array(rows).astype("float32"))
    assert same(str(a)) == (
        "Tensor([[0.2976 0.4078 0.5957 0.3945 0.9413] [0.7519 0.3313 0.0913 0.3345 0.3256]], "
        "device=xpux:0)"
    )
    a = mge.tensor(np.random.random((2, 5)).astype("float32"))
    assert re.fullmatch(r"Tensor\(\[\[.*\]\], device=xpux:0\)", same(str(a)))


def test_c02_list_of_floats() -> None:
    b = mge.tensor([1.0, 2.0, 3.0])
    assert str(b) == "Tensor([1. 2. 3.], device=xpux:0)"
    assert mge.tensor([1, 2]).dtype is np.int32


def test_c03_dtype_and_astype() -> None:
    a = mge.tensor(np.random.random((2, 5)).astype("float32"))
    assert str(a.dtype) == "<class 'numpy.float32'>"
    d = a.astype("float16")
    assert str(d.dtype) == "<class 'numpy.float16'>"
    assert a.dtype == np.float32


def test_c04_shape() -> None:
    a = mge.tensor(np.random.random((2, 5)).astype("float32"))
    assert str(a.shape) == "(2, 5)" and type(a.shape) is tuple


def test_c05_arange_to_numpy() -> None:
    a = mge.tensor(np.arange(12)).reshape(2, 6).astype("float32")
    assert same(str(a)) == ("Tensor([[0. 1. 2. 3. 4. 5.] [6. 7. 8. 9. 10. 11.]], device=xpux:0)")
    b = a.numpy()
    assert isinstance(b, np.ndarray)
    assert same(str(b)) == "[[0. 1. 2. 3. 4. 5.] [6. 7. 8. 9. 10. 11.]]"


def test_c06_device() -> None:
    assert str(mge.tensor([1.0]).device) == "xpux:0"


def test_c07_to_device() -> None:
    b = mge.tensor([1.0]).to("cpu0")
    assert str(b.device) == "cpu0:0"
    if mge.is_cuda_available():
        assert str(b.to("gpu0").device) == "gpu0:0"
    else:
        with pytest.raises(mge.DeviceError, match="gpu0"):
            b.to("gpu0")
    with pytest.raises(ValueError, match="invalid device name"):
        b.to("nonsense")


def test_c08_default_device() -> None:
    before = mge.get_default_device()
    try:
        mge.set_default_device("cpux")
        assert str(mge.tensor([1.0]).device) == "cpux:0" and mge.get_default_device() == "cpux"
        mge.set_default_device("gpux")
        if not mge.is_cuda_available():
            with pytest.raises(mge.DeviceError, match="gpux"):
                mge.tensor([1.0])
    finally:
        mge.set_default_device(before)


def test_c09_default_device_from_the_environment() -> None:
    code = "import mgec as mge; print(mge.tensor(1.).device)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MGE_DEFAULT_DEVICE": "cpux"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "cpux:0"


@pytest.fixture
def a() -> mge.Tensor:
    return tensor([[1.0, 2.0, 2.0], [5.0, 1.0, 8.0]])


def test_c10_add(a: mge.Tensor) -> None:
    b = tensor([[1.0, 9.0, 1.0], [1.0, 7.0, 9.0]])
    assert same(str(a)) == "Tensor([[1. 2. 2.] [5. 1. 8.]], device=xpux:0)"
    assert same(str(b)) == "Tensor([[1. 9. 1.] [1. 7. 9.]], device=xpux:0)"
    assert same(str(a + b)) == "Tensor([[2. 11. 3.] [6. 8. 17.]], device=xpux:0)"


def test_c11_index(a: mge.Tensor) -> None:
    assert str(a[1, :]) == "Tensor([5. 1. 8.], device=xpux:0)"


def test_c12_reshape(a: mge.Tensor) -> None:
    assert same(repr(a.reshape(3, 2))) == "Tensor([[1. 2.] [2. 5.] [1. 8.]], device=xpux:0)"
    assert a.shape == (2, 3)


def test_c13_reshape_infers_a_size(a: mge.Tensor) -> None:
    a = a.reshape(1, -1)
    assert str(a.shape) == "(1, 6)"


def test_c14_matmul() -> None:
    a = tensor(np.arange(6).reshape(2, 3)).astype("float32")
    b = tensor(np.arange(6, 12).reshape(3, 2)).astype("float32")
    c = F.matmul(a, b)
    assert same(str(a)) == "Tensor([[0. 1. 2.] [3. 4. 5.]], device=xpux:0)"
    assert same(str(b)) == "Tensor([[6. 7.] [8. 9.] [10. 11.]], device=xpux:0)"
    assert same(str(c)) == "Tensor([[28. 31.] [100. 112.]], device=xpux:0)"


@pytest.fixture
def line() -> tuple[mge.Tensor, mge.Tensor, mge.Tensor]:
    x = tensor([1.0, 3.0, 5.0]).reshape(1, 3)
    w = tensor([2.0, 4.0, 6.0]).reshape(3, 1)
    return x, w, tensor(-1.0)


def test_c15_grad_manager(line: tuple[mge.Tensor, ...]) -> None:
    x, w, b = line
    gm = GradManager().attach([w, b])
    with gm:
        p = F.matmul(x, w)
        y = p + b
        gm.backward(y)
    assert same(str(w.grad)) == "Tensor([[1.] [3.] [5.]], device=xpux:0)"
    assert float(b.grad) == 1.0


def test_c16_record_and_release(line: tuple[mge.Tensor, ...]) -> None:
    x, w, b = line
    gm = GradManager().attach([w, b])
    gm.record()
    p = F.matmul(x, w)
    y = p + b
    gm.backward(y)
    gm.release()
    assert same(str(w.grad)) == "Tensor([[1.] [3.] [5.]], device=xpux:0)"
    assert float(b.grad) == 1.0
    with pytest.raises(RuntimeError, match="no computation history"):
        gm.backward(y)


def test_c17_detach(line: tuple[mge.Tensor, ...]) -> None:
    x, w, b = line
    gm = GradManager().attach([w, b])
    with gm:
        p = F.matmul(x, w)
        y = p + b.detach()
        gm.backward(y)
    assert str(b.grad) == "None"
    assert same(str(w.grad)) == "Tensor([[1.] [3.] [5.]], device=xpux:0)"


@pytest.fixture
def trace_enabled() -> Iterator[None]:
    before = trace.enabled
    yield
    trace.enabled = before


@pytest.mark.usefixtures("trace_enabled")
def test_c18_one_code_for_eager_and_traced() -> None:
    rng = np.random.default_rng(0)
    data = mge.tensor(rng.standard_normal((8, 1, 32, 32)).astype("float32"))
    label = mge.tensor(rng.integers(0, 10, 8).astype("int32"))
    losses: dict[bool, list[float]] = {}
    ran: dict[bool, int] = {}
    for enabled in (True, False):
        trace.enabled = enabled
        mge.random.seed(7)
        le_net = LeNet()
        optimizer = mge.optimizer.SGD(le_net.parameters(), lr=0.05)
        calls = []

        @trace
        def train_func(data, label, *, opt, net):
            calls.append(1)  # noqa: B023 - counts how often Python runs
            pred = net(data)
            loss = F.cross_entropy_with_softmax(pred, label)
            opt.backward(loss)
            return pred, loss

        losses[enabled] = []
        for _ in range(5):
            optimizer.clear_grad()
            pred, loss = train_func(data, label, opt=optimizer, net=le_net)
            optimizer.step()
            assert pred.shape == (8, 10)
            losses[enabled].append(float(loss))
        ran[enabled] = len(calls)
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-6)
    assert losses[True][4] < losses[True][0]
    assert ran[True] < ran[False] == 5  # the mode really changed


def test_c19_lenet() -> None:
    net = LeNet()
    assert net(tensor(np.zeros((64, 1, 32, 32), "float32"))).shape == (64, 10)
    names = [name for name, _ in net.named_parameters()]
    assert len(names) == 10
    assert names[0] == "conv1.weight" and names[-1] == "classifer.bias"


@pytest.mark.slow
def test_c19_lenet_learns_digits() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.zeros((len(digits.images), 1, 32, 32), "float32")
    images[:, 0] = np.kron(digits.images, np.ones((4, 4))) / 16
    labels = digits.target.astype("int32")
    mge.random.seed(0)
    net = LeNet()
    gm = GradManager().attach(net.parameters())
    optimizer = mge.optimizer.Adam(net.parameters(), lr=2e-3)

    @trace(symbolic=True)
    def step(x, y):
        with gm:
            loss = F.cross_entropy(net(x), y)
            gm.backward(loss)
        optimizer.step().clear_grad()
        return loss

    order = np.random.default_rng(0).permutation(len(labels))
    train, held = order[:1408], order[1408:]
    for _ in range(6):
        for i in range(0, len(train), 64):
            part = train[i : i + 64]
            step(tensor(images[part]), tensor(labels[part]))
    net.eval()
    found = F.argmax(net(tensor(images[held])), axis=1).numpy()
    assert (found == labels[held]).mean() > 0.95


def test_c20_trace_and_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    le_net = LeNet()
    inp = tensor(np.random.default_rng(0).random((1, 1, 32, 32), "float32"))

    @trace
    def val_func(x, *, net):
        return net(x)

    val_func.trace(inp, net=le_net)
    val_func.dump("./mnist.mge", arg_names=["data"])
    assert Path("mnist.mge").stat().st_size > 0
    out = run_artifact("mnist.mge", "data", inp.numpy())
    np.testing.assert_allclose(out, le_net(inp).numpy(), atol=1e-5)


def run_artifact(path: str, name: str, array: np.ndarray) -> np.ndarray:
    """Runs an artifact in a process with the runtime alone."""
    code = (
        "import sys, numpy as np, mgec.runtime as rt\n"
        "module = rt.load(sys.argv[1])\n"
        "outs = module(**{sys.argv[2]: np.load('in.npy')})\n"
        "out = next(iter(outs.values())) if isinstance(outs, dict) else outs[0]\n"
        "np.save('out.npy', np.asarray(out))\n"
        "assert not {'xdsl', 'torch_mlir', 'mgec.functional'} & set(sys.modules)\n"
    )
    np.save("in.npy", array)
    subprocess.run([sys.executable, "-c", code, path, name], check=True)
    return np.load("out.npy")


def test_c21_optim_and_implicit_backward() -> None:
    class SimpleNN(M.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = M.Linear(784, 10)

        def forward(self, x: mge.Tensor) -> mge.Tensor:
            return self.fc(x)

    mge.random.seed(1)
    model = SimpleNN()
    optimizer = mge.optim.SGD(model.parameters(), lr=0.01)
    rng = np.random.default_rng(0)
    data = mge.tensor(rng.random((32, 784), "float32"))
    label = mge.tensor(rng.integers(0, 10, 32).astype("int32"))
    before = model.fc.weight.numpy()
    losses = []
    for _epoch in range(10):
        logits = model(data)
        loss = F.cross_entropy(logits, label)
        optimizer.backward(loss)
        optimizer.step().clear_grad()
        losses.append(float(loss))
    assert losses[9] < losses[0]
    assert not np.array_equal(model.fc.weight.numpy(), before)
    assert all(p.grad is None for p in model.parameters())


def test_c22_trace_of_a_closure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = M.Linear(4, 3)

    @mge.jit.trace(symbolic=True)
    def infer_func(data):
        return model(data)

    inp = mge.tensor(np.random.default_rng(0).random((2, 4), "float32"))
    infer_func.trace(inp)
    infer_func.dump("model.mge")
    assert Path("model.mge").stat().st_size > 0
    np.testing.assert_allclose(
        run_artifact("model.mge", "arg_0", inp.numpy()), model(inp).numpy(), atol=1e-5
    )
