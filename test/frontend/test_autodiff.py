"""GradManager, custom gradients, higher orders."""

from __future__ import annotations

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
from mgec.autodiff import Function, GradManager
from mgec.errors import ArgumentError, DTypeError, GradientError, ShapeError


def test_with_block_and_accumulation() -> None:
    x = mge.tensor([1.0, 2.0])
    gm = GradManager().attach(x)
    for k in (1, 2):
        with gm:
            gm.backward((x * x).sum())
        np.testing.assert_array_equal(x.grad.numpy(), [2.0 * k, 4.0 * k])


def test_record_release_and_no_history() -> None:
    x = mge.tensor([3.0])
    gm = GradManager().attach([x])
    gm.record()
    gm.backward(x * 5)
    np.testing.assert_array_equal(x.grad.numpy(), [5.0])
    with pytest.raises(GradientError, match="no computation history") as caught:
        gm.backward(x * 5)
    assert isinstance(caught.value, RuntimeError)
    gm.record()
    with pytest.raises(GradientError, match="recording already"):
        gm.record()
    gm.release()


def test_non_scalar_y_and_dy() -> None:
    x = mge.tensor(np.ones((2, 3), np.float32))
    gm = GradManager().attach(x)
    with gm:
        gm.backward(x * 2, mge.tensor(np.arange(6, dtype=np.float32).reshape(2, 3)))
    np.testing.assert_array_equal(x.grad.numpy(), 2 * np.arange(6).reshape(2, 3))
    with gm, pytest.raises(ShapeError, match=r"dy has shape \(3,\) but y has shape \(2, 3\)"):
        gm.backward(x * 2, mge.tensor(np.ones(3)))


def test_several_ys() -> None:
    x = mge.tensor([1.0, 2.0])
    gm = GradManager().attach(x)
    with gm:
        gm.backward([x * 2, x * x])
    np.testing.assert_array_equal(x.grad.numpy(), [4.0, 6.0])


def test_detach_stops_the_gradient() -> None:
    x = mge.tensor([2.0])
    gm = GradManager().attach(x)
    with gm:
        gm.backward(x.detach() * x)
    np.testing.assert_array_equal(x.grad.numpy(), [2.0])


def test_unused_tensor_has_no_gradient() -> None:
    x, y = mge.tensor([2.0]), mge.tensor([2.0])
    gm = GradManager().attach([x, y])
    with gm:
        gm.backward(x * 3)
    assert y.grad is None


def test_callbacks_see_and_change_gradients() -> None:
    x = mge.tensor([2.0])
    seen = []

    def callback(tensor: mge.Tensor, grad: mge.Tensor) -> mge.Tensor:
        seen.append(tensor is x)
        return grad * 10

    gm = GradManager().attach(x, callbacks=callback)
    with gm:
        gm.backward(x * 3)
    assert seen == [True]
    np.testing.assert_array_equal(x.grad.numpy(), [30.0])


def test_in_place_updates_are_followed() -> None:
    x = mge.tensor([1.0, 2.0])
    gm = GradManager().attach(x)
    with gm:
        y = x * x
        y += x
        y *= 2
        gm.backward(y)
    np.testing.assert_array_equal(x.grad.numpy(), [6.0, 10.0])


def test_second_order() -> None:
    x = mge.tensor([0.3, 1.2])
    outer, inner = GradManager().attach(x), GradManager().attach(x)
    with outer:
        with inner:
            inner.backward(F.cos(x))
        first, x.grad = x.grad, None
        np.testing.assert_allclose(first.numpy(), -np.sin([0.3, 1.2]), rtol=1e-6)
        outer.backward(first)
    np.testing.assert_allclose(x.grad.numpy(), -np.cos([0.3, 1.2]), rtol=1e-6)


def test_two_managers_give_the_sum_of_first_orders() -> None:
    x = mge.tensor([2.0])
    both = GradManager().attach(x) | GradManager().attach(x)
    with both:
        both.backward(x * x)
    np.testing.assert_array_equal(x.grad.numpy(), [8.0])


def test_attach_refuses_what_has_no_gradient() -> None:
    with pytest.raises(DTypeError, match="a int32 tensor has no gradient"):
        GradManager().attach(mge.tensor([1, 2]))
    with pytest.raises(ArgumentError, match="attach: int is not a tensor"):
        GradManager().attach([3])


class _Double(Function):
    def forward(self, x: mge.Tensor) -> mge.Tensor:
        return x * 2

    def backward(self, dy: mge.Tensor) -> mge.Tensor:
        return dy * 100


def test_function_uses_its_own_gradient() -> None:
    x = mge.tensor([1.0, 2.0])
    gm = GradManager().attach(x)
    with gm:
        gm.backward(_Double()(x) + x)
    np.testing.assert_array_equal(x.grad.numpy(), [101.0, 101.0])


def test_function_in_a_trace() -> None:
    x = mge.tensor([1.0, 2.0])

    @mge.jit.trace(symbolic=True)
    def step(x: mge.Tensor) -> mge.Tensor:
        gm = GradManager().attach(x)
        with gm:
            gm.backward(_Double()(x))
        return x.grad

    np.testing.assert_array_equal(step(x).numpy(), [100.0, 100.0])


def test_function_with_the_wrong_number_of_gradients() -> None:
    class Bad(_Double):
        def backward(self, dy: mge.Tensor) -> tuple[mge.Tensor, mge.Tensor]:
            return dy, dy

    x = mge.tensor([1.0])
    gm = GradManager().attach(x)
    with gm:
        y = Bad()(x)
        with pytest.raises(ArgumentError, match="returned 2 gradients for 1 inputs"):
            gm.backward(y)


def test_memory_is_freed_when_tensors_are_dropped() -> None:
    import weakref

    x = mge.tensor(np.ones(10, np.float32))
    gm = GradManager().attach(x)
    with gm:
        y = x * 2
        z = y * 3
        seen = weakref.ref(y)
        gm.backward(z)
    del y, z
    assert seen() is None


def test_optimizer_backward_needs_no_with_block_and_holds_nothing() -> None:
    import weakref

    w = mge.Parameter([2.0])
    opt = mge.optimizer.SGD([w], lr=0.5)
    for _ in range(3):  # results that are dropped take their history along
        y = w * 3
        seen = weakref.ref(y)
        z = y * 2
        del y, z
        assert seen() is None
    loss = (w * 3).sum()
    opt.backward(loss)
    np.testing.assert_array_equal(w.grad.numpy(), [3.0])
    opt.step().clear_grad()
    assert w.item() == 0.5 and w.grad is None
    opt.backward(w * w)
    np.testing.assert_array_equal(w.grad.numpy(), [1.0])
    with pytest.raises(GradientError, match="no computation history"):
        opt.backward(mge.tensor([1.0]))
    with pytest.raises(ArgumentError, match="loss is a NoneType, not a tensor"):
        opt.backward(None)


def test_to_another_device_keeps_the_gradient() -> None:
    x = mge.tensor([2.0])
    assert x.to("xpux") is x
    gm = GradManager().attach(x)
    with gm:
        gm.backward(x.to("cpu0") * 4)
    np.testing.assert_array_equal(x.grad.numpy(), [4.0])
