"""trace: one function, eager and compiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
import mgec.module as M
from mgec.autodiff import GradManager
from mgec.errors import ArgumentError, TraceError
from mgec.jit import trace


def random(*shape: int, seed: int = 0) -> mge.Tensor:
    return mge.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def mlp_step(symbolic: bool, enabled: bool) -> tuple[list[float], list[np.ndarray]]:
    """Five training steps of a small net; losses and final parameters."""
    mge.random.seed(7)
    net = M.Sequential(M.Linear(12, 16), M.ReLU(), M.Linear(16, 4))
    opt = mge.optimizer.Adam(net.parameters(), lr=0.01)
    gm = GradManager().attach(net.parameters())

    def step(x: mge.Tensor, y: mge.Tensor) -> mge.Tensor:
        with gm:
            loss = F.loss.cross_entropy(net(x), y)
            gm.backward(loss)
        opt.step().clear_grad()
        return loss

    run = trace(step, symbolic=symbolic) if enabled else step
    y = mge.tensor(np.arange(8, dtype=np.int32) % 4)
    losses = [float(run(random(8, 12, seed=i), y)) for i in range(5)]
    return losses, [p.numpy() for p in net.parameters()]


@pytest.mark.parametrize("symbolic", [False, True])
def test_traced_training_equals_eager_bit_by_bit(symbolic: bool) -> None:
    eager_losses, eager_params = mlp_step(symbolic, enabled=False)
    losses, params = mlp_step(symbolic, enabled=True)
    assert losses == eager_losses and losses[-1] != losses[0]
    for a, b in zip(params, eager_params, strict=True):
        np.testing.assert_array_equal(a, b)


def test_python_runs_once_per_shape() -> None:
    calls = []

    @trace(symbolic=True)
    def f(x: mge.Tensor) -> mge.Tensor:
        calls.append(x.shape)
        return x * 2

    for n in (3, 3, 4, 3, 4):
        np.testing.assert_array_equal(f(mge.tensor(np.ones(n))).numpy(), np.full(n, 2.0))
    assert calls == [(3,), (4,)]


def test_structures_and_keywords() -> None:
    @trace(symbolic=True)
    def f(xs: list[mge.Tensor], *, scale: float, extra: dict[str, mge.Tensor]) -> dict:
        return {"sum": xs[0] + xs[1] * scale, "pair": (extra["z"], 3, None)}

    a, b, z = random(3), random(3, seed=1), random(2, seed=2)
    for scale in (2.0, 3.0, 2.0):
        out = f([a, b], scale=scale, extra={"z": z})
        np.testing.assert_allclose(out["sum"].numpy(), a.numpy() + b.numpy() * scale, rtol=1e-6)
        np.testing.assert_array_equal(out["pair"][0].numpy(), z.numpy())
        assert out["pair"][1:] == (3, None)


def test_closure_values_are_guarded() -> None:
    scale = 2.0

    @trace(symbolic=True)
    def f(x: mge.Tensor) -> mge.Tensor:
        return x * scale

    x = mge.tensor([1.0])
    assert f(x).item() == 2.0
    scale = 5.0
    assert f(x).item() == 5.0


def test_training_flag_is_guarded_and_code_is_reused() -> None:
    net = M.Dropout(0.5)

    @trace(symbolic=True)
    def f(x: mge.Tensor) -> mge.Tensor:
        return net(x)

    x = mge.tensor(np.ones(1000, np.float32))
    net.train()
    assert 200 < (f(x).numpy() == 0).sum() < 800
    net.eval()
    np.testing.assert_array_equal(f(x).numpy(), 1.0)
    net.train()
    first, second = f(x).numpy(), f(x).numpy()
    assert 200 < (first == 0).sum() < 800
    assert (first != second).any(), "the random state must move on inside a traced function"


def test_parameters_are_read_at_every_call() -> None:
    w = mge.Parameter([2.0])

    @trace(symbolic=True)
    def f(x: mge.Tensor) -> mge.Tensor:
        return x * w

    x = mge.tensor([3.0])
    assert f(x).item() == 6.0
    w.set_value(np.array([10.0], np.float32))
    assert f(x).item() == 30.0


def test_learning_rate_is_read_at_every_call() -> None:
    w = mge.Parameter([1.0])
    opt = mge.optimizer.SGD([w], lr=1.0)
    gm = GradManager().attach(w)

    @trace(symbolic=True)
    def step() -> mge.Tensor:
        with gm:
            y = w * 1.0
            gm.backward(y)
        opt.step().clear_grad()
        return y

    step()
    assert w.item() == 0.0
    opt.param_groups[0]["lr"] = 0.25
    step()
    assert w.item() == -0.25


def test_an_old_value_survives_the_update() -> None:
    w = mge.Parameter(np.zeros(4, np.float32))
    old = w.detach()

    @trace(symbolic=True)
    def step(x: mge.Tensor) -> None:
        w._reset(w + x)

    for k in range(3):
        before = w.detach()
        step(mge.tensor(np.ones(4, np.float32)))
        np.testing.assert_array_equal(before.numpy(), k)
        np.testing.assert_array_equal(w.numpy(), k + 1)
    np.testing.assert_array_equal(old.numpy(), 0)


def test_gradients_that_are_kept_become_real() -> None:
    w = mge.Parameter([3.0])
    gm = GradManager().attach(w)

    @trace(symbolic=True)
    def backward(x: mge.Tensor) -> None:
        with gm:
            gm.backward(w * x)

    backward(mge.tensor([7.0]))
    assert w.grad.item() == 7.0


def test_a_traced_function_inside_a_recording_keeps_its_gradient() -> None:
    @trace(symbolic=True)
    def f(x: mge.Tensor) -> mge.Tensor:
        return x * x

    x = mge.tensor([3.0])
    f(x)
    gm = GradManager().attach(x)
    with gm:
        gm.backward(f(x) * 2)
    assert x.grad.item() == 12.0


def test_reading_a_value() -> None:
    @trace(symbolic=True)
    def symbolic(x: mge.Tensor) -> mge.Tensor:
        return x if x.sum().item() > 0 else -x

    with pytest.raises(TraceError, match="while tracing symbolically") as caught:
        symbolic(mge.tensor([1.0]))
    assert caught.value.location.file == __file__

    @trace
    def recorded(x: mge.Tensor) -> mge.Tensor:
        return x if x.sum().item() > 0 else -x

    for value in (1.0, -2.0, 3.0):  # what Python does depends on values: it always runs
        assert recorded(mge.tensor([value])).item() == abs(value)


def test_disabled_traces_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "enabled", False)
    calls = []

    @trace(symbolic=True)
    def f(x: mge.Tensor) -> mge.Tensor:
        calls.append(1)
        return x + 1

    f(mge.tensor([1.0]))
    f(mge.tensor([1.0]))
    assert len(calls) == 2


def test_methods_and_modules_can_be_traced() -> None:
    class Net(M.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = M.Linear(3, 2)

        @trace(symbolic=True)
        def infer(self, x: mge.Tensor) -> mge.Tensor:
            return self.fc(x)

    net, x = Net(), random(4, 3)
    np.testing.assert_array_equal(net.infer(x).numpy(), net.fc(x).numpy())
    other = Net()
    np.testing.assert_array_equal(other.infer(x).numpy(), other.fc(x).numpy())


def test_batch_norm_statistics_are_updated_by_the_graph() -> None:
    eager, traced = M.BatchNorm2d(3), M.BatchNorm2d(3)
    step = trace(lambda x: traced(x), symbolic=True)
    for seed in range(3):
        x = random(4, 3, 5, 5, seed=seed)
        np.testing.assert_array_equal(step(x).numpy(), eager(x).numpy())
    np.testing.assert_array_equal(traced.running_mean.numpy(), eager.running_mean.numpy())
    np.testing.assert_array_equal(traced.running_var.numpy(), eager.running_var.numpy())


def test_dump_and_load(tmp_path: Path) -> None:
    net = M.Sequential(M.Linear(5, 4), M.ReLU(), M.Linear(4, 3))

    @trace(symbolic=True, capture_as_const=True)
    def infer(x: mge.Tensor) -> mge.Tensor:
        return net(x)

    x = random(2, 5)
    expected = infer(x).numpy()
    infer.dump(tmp_path / "net.mge", arg_names=["data"], output_names=["logits"])
    module = mge.runtime.load(tmp_path / "net.mge")
    assert [i.name for i in module.inputs] == ["data"]
    out = module(data=x.numpy())
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-5, atol=1e-6)


def test_dump_errors(tmp_path: Path) -> None:
    @trace(symbolic=True)
    def f(x: mge.Tensor) -> mge.Tensor:
        return x + 1

    with pytest.raises(TraceError, match="has not been traced yet"):
        f.dump(tmp_path / "f.mge")
    f(mge.tensor([1.0]))
    with pytest.raises(ArgumentError, match="2 arg_names for 1 tensor arguments"):
        f.dump(tmp_path / "f.mge", arg_names=["a", "b"])


def test_tracing_inside_a_trace_inlines() -> None:
    @trace(symbolic=True)
    def inner(x: mge.Tensor) -> mge.Tensor:
        return x * 2

    @trace(symbolic=True)
    def outer(x: mge.Tensor) -> mge.Tensor:
        return inner(x) + 1

    assert outer(mge.tensor([3.0])).item() == 7.0


def test_graph_text_is_ir() -> None:
    @trace(symbolic=True)
    def f(w: mge.Tensor, x: mge.Tensor, b: mge.Tensor) -> mge.Tensor:
        return w * x + b

    f(mge.tensor([1.0]), mge.tensor([2.0]), mge.tensor([3.0]))
    text = f.graph_text()
    assert text.count("mge.mul") == 1 and text.count("mge.add") == 1


def test_outputs_may_be_inputs_constants_and_duplicates() -> None:
    @trace(symbolic=True)
    def f(x: mge.Tensor) -> tuple:
        y = x + 1
        return x, y, y, mge.tensor([5.0]), y.reshape(1, -1)

    x = mge.tensor([1.0, 2.0])
    a, b, c, d, e = f(x)
    np.testing.assert_array_equal(a.numpy(), [1.0, 2.0])
    for y in (b, c, e.reshape(-1)):
        np.testing.assert_array_equal(y.numpy(), [2.0, 3.0])
    assert d.item() == 5.0


def test_size_zero() -> None:
    @trace(symbolic=True)
    def f(x: mge.Tensor) -> mge.Tensor:
        return (x * 2).sum(axis=1)

    assert f(mge.tensor(np.zeros((0, 3), np.float32))).shape == (0,)
    np.testing.assert_array_equal(f(mge.tensor(np.zeros((3, 0), np.float32))).numpy(), np.zeros(3))


def test_signed_zeros_are_different_values() -> None:
    x = mge.tensor(np.zeros(1, np.float32))
    padded = [F.pad(x, ((1, 0),), constant_value=v).numpy() for v in (0.0, -0.0)]
    assert [bool(np.signbit(p[0])) for p in padded] == [False, True]

    @trace(symbolic=True)
    def f(x: mge.Tensor, value: float) -> mge.Tensor:
        return F.pad(x, ((1, 0),), constant_value=value)

    assert [bool(np.signbit(f(x, v).numpy()[0])) for v in (0.0, -0.0)] == [False, True]


SCALE = 2.0


def _scaled(x: mge.Tensor) -> mge.Tensor:
    return x * SCALE


class _Settings:
    rate = 3.0

    def __init__(self) -> None:
        self.gain = 2.0

    def apply(self, x: mge.Tensor) -> mge.Tensor:
        return x * self.gain * SCALE


class _Scale(M.Module):
    def forward(self, x: mge.Tensor) -> mge.Tensor:
        return x * SCALE


def test_what_the_functions_it_calls_read_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, items, table, net = _Settings(), [2.0], {"k": 2.0}, _Scale()
    array = np.array([2.0], np.float32)
    functions = {
        "global of a helper": lambda x: _scaled(x),
        "global of a forward": lambda x: net(x),
        "method": lambda x: settings.apply(x),
        "attribute": lambda x: x * settings.gain,
        "class attribute": lambda x: x * _Settings.rate,
        "list": lambda x: x * items[0],
        "dict": lambda x: x * table["k"],
        "array": lambda x: x * mge.tensor(array),
    }
    traced = {name: trace(f, symbolic=True) for name, f in functions.items()}
    x = mge.tensor([1.0])
    for f in traced.values():
        f(x)
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    monkeypatch.setattr(_Settings, "rate", 7.0)
    settings.gain, items[0], table["k"] = 11.0, 13.0, 17.0
    array[0] = 19.0
    for name, f in functions.items():
        assert traced[name](x).item() == f(x).item(), name


def test_attributes_of_arguments_are_guarded() -> None:
    @trace(symbolic=True)
    def f(x: mge.Tensor, *, settings: _Settings) -> mge.Tensor:
        return x * settings.gain

    settings, x = _Settings(), mge.tensor([1.0])
    assert f(x, settings=settings).item() == 2.0
    settings.gain = 4.0
    assert f(x, settings=settings).item() == 4.0


def test_the_reference_backend_can_be_chosen_at_any_time() -> None:
    from mgec import config
    from mgec.dialects.mge import reference

    calls = []
    evaluate = reference.evaluate
    x = mge.tensor([0.3, 1.7])
    f = trace(lambda x: F.exp(x), symbolic=True)
    compiled, eager = f(x), F.exp(x)
    np.testing.assert_array_equal(compiled.numpy(), eager.numpy())
    with pytest.MonkeyPatch.context() as patch, config.override(backend="reference"):
        patch.setattr(reference, "evaluate", lambda *a: calls.append(1) or evaluate(*a))
        f(x), F.exp(x)
    assert len(calls) == 2
