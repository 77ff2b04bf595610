"""mgec as a backend of ONNX, compiled; the whole suite is `mgec check --backend-tests`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.backend.test.loader import load_model_tests
from support.onnx_models import FLOAT, node_cases, node_model

from mgec.errors import ArgumentError, MgecError, ModelError
from mgec.importers.onnx_backend import MgecBackend
from mgec.tools.commands._onnx_conformance import run_case

SAMPLE = {
    "add": "test_add_bcast",
    "clip": "test_clip",
    "conv": "test_basic_conv_with_padding",
    "convtranspose": "test_convtranspose_pads",
    "gemm": "test_gemm_all_attributes",
    "gather": "test_gather_1",
    "layernormalization": "test_layer_normalization_4d_axis1",
    "lstm": "test_lstm_defaults",
    "maxpool": "test_maxpool_2d_ceil",
    "reshape": "test_reshape_reordered_all_dims",
    "resize": "test_resize_upsample_scales_linear",
    "softmax": "test_softmax_axis_1",
    "softmax_cross_entropy_loss": "test_sce_mean_weight",
    "where": "test_where_example",
}
"""Module of `onnx.backend.test.case.node`, and one of its cases."""


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    """Loading every case takes seconds."""
    pairs = [*node_cases(*SAMPLE, "bernoulli")]
    for kind in ("simple", "pytorch-operator"):
        pairs += [(kind, case) for case in load_model_tests(kind=kind)]
    return {case.name: (kind, case) for kind, case in pairs}


@pytest.mark.parametrize("name", [*SAMPLE.values(), "test_sequence_model1", "test_operator_addmm"])
def test_sample(name: str, cases: dict[str, Any]) -> None:
    outcome = run_case(*cases[name])
    assert outcome.outcome == "passed", outcome.detail


@pytest.mark.parametrize("name", ["test_bernoulli", "test_strnorm_model_nostopwords_nochangecase"])
def test_refused(name: str, cases: dict[str, Any]) -> None:
    assert run_case(*cases[name]).outcome == "refused"


def test_a_wrong_number_is_told_from_a_refusal(cases: dict[str, Any]) -> None:
    kind, case = cases["test_add_bcast"]
    inputs, (output,) = case.data_sets[0]
    changed = type(case)(**{**vars(case), "data_sets": [(inputs, [output + 1])]})
    assert run_case(kind, changed).outcome == "wrong"
    fewer = type(case)(**{**vars(case), "data_sets": [(inputs, [])]})
    assert run_case(kind, fewer).outcome == "wrong"


@pytest.mark.slow
def test_the_whole_suite() -> None:
    from mgec.tools.commands._onnx_conformance import run_cases

    outcomes = list(run_cases())
    assert [o for o in outcomes if o.outcome in ("wrong", "crashed")] == []
    assert sum(o.outcome == "passed" for o in outcomes) >= 1700
    assert all(o.outcome == "passed" for o in outcomes if o.kind == "real")


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_values_that_decide_shapes_may_change_from_call_to_call() -> None:
    prepared = MgecBackend.prepare(node_model("Reshape", [X, np.array([3, 2])], element=FLOAT))
    for shape in ([3, 2], [6, 1], [3, 2]):
        assert prepared.run([X, np.array(shape)])[0].shape == tuple(shape)
    assert prepared.last is not None
    assert prepared.last.constants == ("x1",)
    assert prepared.last.input_names == ["x0"]


def test_the_forms_of_a_call() -> None:
    assert MgecBackend.supports_device("CPU")
    assert not MgecBackend.supports_device("CUDA")
    model = node_model("Neg", [X], element=FLOAT)
    for inputs in ([X], X, {"x0": X}):
        (out,) = MgecBackend.run_model(model, inputs)
        np.testing.assert_array_equal(out, -X)
    named = MgecBackend.prepare(model).run([X])
    np.testing.assert_array_equal(named.y0, -X)
    node = helper.make_node("Add", ["a", "b"], ["c"])
    result = MgecBackend.run_node(node, [X, X])
    assert result is not None
    np.testing.assert_array_equal(result[0], X + X)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda m: MgecBackend.prepare(m, "CUDA"), ArgumentError, "device 'CUDA' is not supported"),
        (lambda m: MgecBackend.prepare(m).run([]), ArgumentError,
         "there is no value for input 'x0'"),
        (lambda m: MgecBackend.prepare(m).run([X, X]), ArgumentError,
         "the model has 1 inputs, but 2 are given"),
        (lambda m: MgecBackend.prepare(m).run([[X]]), ModelError,
         "input 'x0' is a list, not a tensor"),
        (lambda m: MgecBackend.prepare(onnx.ModelProto()), ModelError, "the model is not valid"),
    ],
)  # fmt: skip
def test_bad_calls(call: Any, kind: type[MgecError], text: str) -> None:
    with pytest.raises(kind, match=text):
        call(node_model("Neg", [X], element=FLOAT))
