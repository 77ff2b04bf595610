from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
import mgec.module as M
import mgec.optimizer as optim
from mgec.autodiff import GradManager
from mgec.jit import trace

W = np.array([1.0, -2.0, 3.0])
GRADS = [np.array([0.5, -1.0, 0.25]), np.array([-1.0, 0.5, 2.0]), np.array([0.1, 0.2, -0.3])]


def sgd(lr: float, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0) -> Any:
    w, v = W.copy(), np.zeros(3)
    for g in GRADS:
        g = g + decay * w
        v = momentum * v + g
        w = w - lr * (g + momentum * v if nesterov else v)
    return w


def adam(lr: float, decay: float = 0.0, decoupled: bool = False) -> Any:
    w, m, v = W.copy(), np.zeros(3), np.zeros(3)
    for t, g in enumerate(GRADS, start=1):
        g = g if decoupled else g + decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w = w - lr * (step + (decay * w if decoupled else 0))
    return w


def adagrad(lr: float, lr_decay: float) -> Any:
    w, s = W.copy(), np.zeros(3)
    for t, g in enumerate(GRADS):
        s = s + g * g
        w = w - lr / (1 + t * lr_decay) * g / (np.sqrt(s) + 1e-10)
    return w


def adadelta(rho: float) -> Any:
    w, v, u = W.copy(), np.zeros(3), np.zeros(3)
    for g in GRADS:
        v = rho * v + (1 - rho) * g * g
        d = np.sqrt(u + 1e-6) / np.sqrt(v + 1e-6) * g
        u = rho * u + (1 - rho) * d * d
        w = w - d
    return w


Make = Callable[[Any], optim.Optimizer]
CASES: list[tuple[Make, Any]] = [
    (lambda p: optim.SGD(p, lr=0.1), sgd(0.1)),
    (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), sgd(0.1, 0.9)),
    (lambda p: optim.SGD(p, 0.1, 0.9, nesterov=True), sgd(0.1, 0.9, nesterov=True)),
    (lambda p: optim.SGD(p, 0.1, 0.5, weight_decay=0.1), sgd(0.1, 0.5, decay=0.1)),
    (lambda p: optim.Adam(p, lr=0.1), adam(0.1)),
    (lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1), adam(0.1, 0.1)),
    (lambda p: optim.AdamW(p, lr=0.1), adam(0.1, 0.01, decoupled=True)),
    (lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.5), adagrad(0.1, 0.5)),
    (lambda p: optim.Adadelta(p, rho=0.8), adadelta(0.8)),
]
IDS = ["sgd", "momentum", "nesterov", "decay", "adam", "adam-decay", "adamw", "adagrad", "adadelta"]


@pytest.mark.parametrize(("make", "expected"), CASES, ids=IDS)
def test_steps_by_hand(make: Make, expected: Any) -> None:
    w = mge.Parameter(W)
    optimizer = make([w])
    for grad in GRADS:
        w.grad = mge.tensor(grad)
        assert optimizer.step() is optimizer
    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-5)
    assert optimizer.clear_grad() is optimizer and w.grad is None
    before = w.numpy()
    optimizer.step()
    np.testing.assert_array_equal(w.numpy(), before)


@pytest.mark.parametrize(("make", "expected"), CASES, ids=IDS)
def test_traced_steps_are_the_eager_ones(make: Make, expected: Any) -> None:
    w = mge.Parameter(W)
    gm, optimizer = GradManager().attach([w]), make([w])

    @trace(symbolic=True)
    def step(grad: mge.Tensor) -> mge.Tensor:
        with gm:
            loss = (w * grad).sum()
            gm.backward(loss)
        optimizer.step().clear_grad()
        return loss

    for grad in GRADS:
        step(mge.tensor(grad))
    np.testing.assert_allclose(w.numpy(), expected, rtol=1e-5)
    assert w.grad is None


@pytest.mark.parametrize(("make", "expected"), CASES, ids=IDS)
def test_state_goes_on_after_saving(make: Make, expected: Any) -> None:
    w = mge.Parameter(W)
    optimizer = make([w])
    for grad in GRADS[:2]:
        w.grad = mge.tensor(grad)
        optimizer.step()
    file = io.BytesIO()
    mge.save({"w": w, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = mge.load(file)
    other = make([saved["w"]])
    other.load_state_dict(saved["optimizer"])
    saved["w"].grad = mge.tensor(GRADS[2])
    other.step()
    np.testing.assert_allclose(saved["w"].numpy(), expected, rtol=1e-5)


def test_learning_rate_of_a_traced_step_can_change() -> None:
    w = mge.Parameter([1.0])
    gm, optimizer = GradManager().attach([w]), optim.SGD([w], lr=1.0)
    runs = []

    @trace(symbolic=True)
    def step() -> None:
        runs.append(1)
        with gm:
            gm.backward(w.sum())
        optimizer.step().clear_grad()

    step()
    optimizer.param_groups[0]["lr"] = 0.25
    step()
    assert w.tolist() == [-0.25] and len(runs) == 1


@pytest.mark.parametrize("traced", [False, True])
def test_dtype_of_parameters_is_kept(traced: bool) -> None:
    w = mge.Parameter([1.0, 2.0], dtype="float16")
    gm, optimizer = GradManager().attach([w]), optim.Adam([w], lr=0.5, weight_decay=0.1)

    def step() -> None:
        with gm:
            gm.backward((w * w).sum())
        optimizer.step().clear_grad()

    (trace(step, symbolic=True) if traced else step)()
    assert w.dtype is np.float16
    np.testing.assert_allclose(w.numpy(), [0.5, 1.5], atol=2e-3)


def test_groups() -> None:
    a, b = mge.Parameter([1.0]), mge.Parameter([1.0])
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    a.grad, b.grad = mge.tensor([1.0]), mge.tensor([1.0])
    optimizer.step()
    np.testing.assert_allclose([a.item(), b.item()], [0.9, 0.5])


def test_a_step_is_not_recorded() -> None:
    w = mge.Parameter([3.0])
    gm, optimizer = GradManager().attach([w]), optim.SGD([w], lr=0.1)
    with gm:
        y = w * w
        w.grad = mge.tensor([0.0])
        optimizer.step().clear_grad()
        gm.backward(y)
    assert w.grad.item() == 6


def test_minimize_and_implicit_backward() -> None:
    w = mge.Parameter([2.0])
    optimizer = optim.SGD([w], lr=0.25)
    optimizer.minimize((w * w).sum())
    assert w.item() == 1.0
    with pytest.raises(mge.GradientError, match="no computation history"):
        optimizer.backward(mge.tensor(1.0))


def test_steps_do_not_hold_what_was_computed() -> None:
    import gc
    import weakref

    w = mge.Parameter([2.0])
    gm, optimizer = GradManager().attach([w]), optim.SGD([w], lr=0.25)
    with gm:
        y = w * w
        gm.backward(y)
    optimizer.step().clear_grad()
    held = weakref.ref(y)
    del y
    gc.collect()
    assert held() is None


def test_scheduler() -> None:
    optimizer = optim.SGD([mge.Parameter([1.0])], lr=1.0)
    scheduler = optim.MultiStepLR(optimizer, [1, 3], gamma=0.1)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    np.testing.assert_allclose(rates, [1.0, 0.1, 0.1, 0.01])
    other = optim.MultiStepLR(optim.SGD([mge.Parameter([1.0])], lr=1.0), [9])
    other.load_state_dict(scheduler.state_dict())
    assert other.milestones == [1, 3] and other.current_epoch == 4
    with pytest.raises(mge.ArgumentError, match="do not ascend"):
        optim.MultiStepLR(optimizer, [3, 1])


def test_clipping() -> None:
    a, b, c = (mge.Parameter([1.0]) for _ in range(3))
    a.grad, b.grad = mge.tensor([3.0]), mge.tensor([-4.0])
    assert optim.clip_grad_norm([c], 1.0) is None
    np.testing.assert_allclose(optim.clip_grad_norm([a, b, c], 1.0).item(), 5.0)
    np.testing.assert_allclose([a.grad.item(), b.grad.item()], [0.6, -0.8], rtol=1e-5)
    assert optim.clip_grad_norm([a, b], 9.0, ord=1.0).item() == pytest.approx(1.4)
    assert optim.clip_grad_norm([a, b], 9.0, ord=np.inf).item() == pytest.approx(0.8)
    assert a.grad.item() == pytest.approx(0.6)
    optim.clip_grad_value([a, b, c], -0.5, 0.1)
    np.testing.assert_allclose([a.grad.item(), b.grad.item()], [0.1, -0.5])


P = mge.Parameter([1.0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: optim.SGD([], 0.1), "SGD: there are no parameters"),
        (lambda: optim.SGD(3, 0.1), "SGD: params is a int, not parameters"),
        (lambda: optim.SGD([mge.tensor([1.0])], 0.1), "SGD: a Tensor is not a parameter"),
        (lambda: optim.SGD([P, P], 0.1), "SGD: a parameter is given twice"),
        (lambda: optim.SGD([P], -1), "SGD: lr is -1 but must be a number, at least 0"),
        (lambda: optim.SGD([P], "a"), "SGD: lr is 'a' but must be a number, at least 0"),
        (lambda: optim.SGD([P], 0.1, nesterov=True), "SGD: nesterov is True but momentum is 0"),
        (
            lambda: optim.AdamW([P], 0.1, betas=(0.9, 1.0)),
            "AdamW: betas[1] is 1.0 but must be a number, at least 0 and below 1",
        ),
        (lambda: optim.SGD([{"lr": 1}], 0.1), "SGD: a parameter group has no 'params'"),
        (
            lambda: optim.Adam([P], 0.1).load_state_dict(optim.SGD([P], 0.1).state_dict()),
            "Adam.load_state_dict: parameter 0 has state [] but must have "
            "['exp_avg', 'exp_avg_sq', 'step']",
        ),
        (
            lambda: optim.SGD([P], 0.1).load_state_dict({"param_groups": []}),
            "SGD.load_state_dict: groups have [] parameters but must have [1]",
        ),
        (
            lambda: optim.clip_grad_norm([P], 0.0),
            "clip_grad_norm: max_norm is 0.0 but must be above 0",
        ),
    ],
)
def test_errors(call: Any, text: str) -> None:
    with pytest.raises(mge.ArgumentError) as caught:
        call()
    assert caught.value.headline == text
    assert caught.value.fix


def test_training_a_network_eagerly_and_traced() -> None:
    x = np.random.default_rng(0).standard_normal((64, 6)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int32")
    losses: list[list[float]] = []
    for traced in (False, True):
        mge.random.seed(0)
        net = M.Sequential(M.Linear(6, 16), M.BatchNorm1d(16), M.Tanh(), M.Linear(16, 2))
        gm = GradManager().attach(net.parameters())
        optimizer = optim.Adam(net.parameters(), lr=0.05)

        def step(data: mge.Tensor, label: mge.Tensor) -> mge.Tensor:
            with gm:  # noqa: B023
                loss = F.cross_entropy(net(data), label)  # noqa: B023
                gm.backward(loss)  # noqa: B023
            optimizer.step().clear_grad()  # noqa: B023
            return loss

        run = trace(step, symbolic=True) if traced else step
        losses.append([float(run(mge.tensor(x), mge.tensor(y))) for _ in range(30)])
    assert losses[0][-1] < 0.5 * losses[0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
