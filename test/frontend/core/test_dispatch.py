"""The one dispatch point: eager, recorded or traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
from mgec.core import dispatch
from mgec.errors import ArgumentError
from mgec.jit import trace


class Notes:
    """A tape that notes the names of ops."""

    implicit = True

    def __init__(self) -> None:
        self.names: list[str] = []

    def record(self, op: Any, inputs: Any, outputs: Any, attrs: Any) -> None:
        assert isinstance(inputs, tuple)
        assert all(isinstance(out, mge.Tensor) for out in outputs)
        self.names.append(op.name)

    def rebind(self, name: Any, value: Any) -> None:
        raise AssertionError


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    made = Notes()
    monkeypatch.setattr(dispatch.state, "tapes", [made])
    return made


def test_every_op_comes_through(notes: Notes) -> None:
    x = mge.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = F.relu(x @ x + 1)[0].sum()
    assert y.item() == 8 + 11
    assert notes.names[:3] == ["mge.matmul", "mge.add", "mge.relu"]
    assert notes.names[-1] == "mge.reduce_sum"


def test_the_inside_of_a_composite_is_not_recorded(notes: Notes) -> None:
    F.gelu(mge.tensor([1.0, 2.0]))
    assert notes.names == ["mge.gelu"]


def test_results_come_bare_if_there_is_one() -> None:
    assert isinstance(dispatch.call("neg", mge.tensor([1.0])), mge.Tensor)
    parts = dispatch.apply(dispatch.op_named("neg"), (mge.tensor([1.0]),), {})
    assert isinstance(parts, tuple)


def test_an_op_that_does_not_exist() -> None:
    with pytest.raises(ArgumentError, match=r"there is no op mge\.moon"):
        dispatch.call("moon", mge.tensor([1.0]))


def test_the_state_is_restored_after_an_error() -> None:
    @trace(symbolic=True)
    def fails(x: mge.Tensor) -> mge.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails(mge.tensor([1.0]))
    assert dispatch.state.tracer is None
    assert (mge.tensor([1.0]) + 1).item() == 2


def test_a_trace_appends_instead_of_running() -> None:
    seen: list[Any] = []

    @trace(symbolic=True)
    def f(x: mge.Tensor) -> mge.Tensor:
        y = F.exp(x)
        seen.append((dispatch.state.tracer is not None, y._storage, y.shape))
        return y

    x = mge.tensor(np.zeros((2, 3), "float32"))
    assert f(x).tolist() == [[1, 1, 1]] * 2
    f(x)
    assert seen == [(True, None, (2, 3))]
    assert f.graph_text().count("mge.exp") == 1
