from __future__ import annotations

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
import mgec.module as M


class Net(M.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = mge.Parameter([2.0])
        self.fc = M.Linear(3, 2)
        self.blocks = [M.Linear(2, 2), {"deep": M.Linear(2, 1, bias=False)}]
        self.count = mge.tensor(0.0)
        self.norm = M.BatchNorm1d(2)
        self.again = self.fc

    def forward(self, x: mge.Tensor) -> mge.Tensor:
        return self.blocks[1]["deep"](self.blocks[0](self.norm(self.fc(x * self.scale))))


NAMES = [
    "scale",
    "fc.weight",
    "fc.bias",
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.1.deep.weight",
]


def test_members_in_the_order_of_attributes_each_once() -> None:
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [*NAMES, "norm.weight", "norm.bias"]
    assert [n for n, _ in net.named_buffers()] == ["count", "norm.running_mean", "norm.running_var"]
    assert next(n for n, _ in net.named_parameters("net")) == "net.scale"
    assert [n for n, _ in net.named_parameters(recursive=False)] == ["scale"]
    assert [n for n, _ in net.named_children()] == ["fc", "blocks.0", "blocks.1.deep", "norm"]
    assert [n for n, _ in net.named_modules()] == ["", "fc", "blocks.0", "blocks.1.deep", "norm"]
    assert len(list(net.modules())) == 5 and len(list(net.children())) == 4
    assert len(list(net.parameters())) == 8 and len(list(net.buffers())) == 3
    assert len(list(net.tensors())) == 11


def test_modes() -> None:
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    net.train(False, recursive=False)
    assert not net.training and net.fc.training
    seen: list[M.Module] = []
    net.apply(seen.append)
    assert len(seen) == 5


def test_zero_grad() -> None:
    net = Net()
    net.scale.grad = mge.tensor([1.0])
    net.zero_grad()
    assert net.scale.grad is None


def test_hooks() -> None:
    net = M.Linear(2, 2)
    calls = []
    before = net.register_forward_pre_hook(lambda module, inputs: calls.append("before"))
    after = net.register_forward_hook(lambda module, inputs, outputs: outputs * 0)
    assert net(F.ones((1, 2))).tolist() == [[0, 0]] and calls == ["before"]
    before.remove()
    after.remove()
    after.remove()
    net(F.ones((1, 2)))
    assert calls == ["before"]


def test_epoch_counts_changes_of_attributes_that_are_not_tensors() -> None:
    net = Net()
    epoch = M.state_epoch()
    net(F.ones((4, 3)))
    net.train()  # they train already
    net.scale = mge.Parameter([3.0])
    assert M.state_epoch() == epoch
    net.eval()
    assert M.state_epoch() > epoch
    epoch = M.state_epoch()
    net.other = 1
    assert M.state_epoch() > epoch
    epoch = M.state_epoch()
    del net.other
    assert M.state_epoch() > epoch


def test_state_dict_round_trip() -> None:
    first, second = Net(), Net()
    first(F.ones((4, 3)) * F.arange(12).reshape(4, 3))
    state = first.state_dict()
    assert next(iter(state)) == "scale" and all(isinstance(v, np.ndarray) for v in state.values())
    assert first.state_dict(keep_var=True)["scale"] is first.scale
    second.load_state_dict(state)
    for name, value in second.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    parameter = second.scale
    second.load_state_dict(lambda name, tensor: tensor.numpy() * 0 if name == "scale" else None)
    assert second.scale is parameter and second.scale.tolist() == [0]
    second.load_state_dict({"scale": np.ones(1)}, strict=False)
    assert second.scale.tolist() == [1]


def test_a_bad_state_changes_nothing() -> None:
    net = Net()
    state = net.state_dict()
    with pytest.raises(mge.ArgumentError) as caught:
        net.load_state_dict({"scale": np.zeros(1), "what": 1})
    assert caught.value.headline == "load_state_dict: 10 names are missing and 1 unknown"
    state["scale"], state["fc.bias"] = np.zeros(1), np.zeros(3)
    with pytest.raises(mge.ShapeError) as shape:
        net.load_state_dict(state)
    text = "load_state_dict: fc.bias has shape (3,) but the network's has (2,)"
    assert shape.value.headline == text
    assert net.scale.tolist() == [2]


def test_repr() -> None:
    text = repr(M.Sequential(M.Conv2d(1, 2, 3, bias=False), M.ReLU()))
    assert text == (
        "Sequential(\n  (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(0, 0), "
        "dilation=(1, 1), bias=False)\n  (1): ReLU()\n)"
    )


def test_a_module_without_forward() -> None:
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        M.Module()(1)
