"""from_onnx: inputs, shapes, names, locations, functions, and what an error says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import AttributeProto, helper
from support.onnx_models import FLOAT, INT64, info, interpret, model_of, node_model

import mgec as mge
from mgec.compiler.loading import graph_text, parse_graph
from mgec.errors import ArgumentError, ModelError, UnsupportedModelError
from mgec.importers import ImportedModel, check_onnx, from_onnx

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def relu(*inputs: Any, outputs: Any = ("y",), **options: Any) -> Any:
    return model_of([helper.make_node("Relu", ["x"], ["y"])], inputs, outputs, **options)


def test_a_path_bytes_and_a_message(tmp_path: Path) -> None:
    proto = relu(info("x", X))
    path = tmp_path / "my net.onnx"
    path.write_bytes(proto.SerializeToString())
    for source, name in ((path, "my net"), (str(path), "my net"), (proto, "net")):
        assert from_onnx(source).name == name
    model = from_onnx(proto.SerializeToString())
    assert (model.input_names, model.output_names) == (["x"], ["y"])
    assert [str(spec) for spec in model.input_specs] == ["float32[2, 3]"]


def test_a_model_is_a_function_of_tensors_and_of_arrays() -> None:
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)]
    model = from_onnx(model_of(nodes, [info("x", X)], ["a", "b"], opset=18))
    first, second = model(mge.tensor(X))
    np.testing.assert_array_equal(first.numpy(), X[:, :2])
    np.testing.assert_array_equal(second.numpy(), X[:, 2:])
    np.testing.assert_array_equal(model.run(X)[0], X[:, :2])
    for wrong, text in (
        ((), "net takes 1 inputs, but 0 are given"),
        ((X.T,), r"net: input 'x' is float32\[3, 2\], expected float32\[2, 3\]"),
        ((X.astype(np.float64),), r"net: input 'x' is float64\[2, 3\], expected float32\[2, 3\]"),
    ):
        with pytest.raises(ArgumentError, match=text):
            model.run(*wrong)


def test_outputs_may_be_inputs_constants_and_each_other() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
    ]
    big = np.arange(1000, dtype=np.float32)
    constants = {"small": np.array(3, np.int64), "big": big}
    outputs = ["same", "a", "b", "small", "big"]
    model = from_onnx(model_of(nodes, [info("x", X)], outputs, constants))
    for got, want in zip(model.run(X), (X, -X, -X, 3, big), strict=True):
        np.testing.assert_array_equal(got, want)


# -- shapes --------------------------------------------------------------------------------


def shapes(model: ImportedModel) -> list[tuple[int, ...]]:
    return [spec.shape for spec in model.input_specs]


def test_symbolic_sizes() -> None:
    add = helper.make_node("Add", ["x", "z"], ["y"])
    batch = model_of(
        [add], [info("x", FLOAT, ("batch_size", 3)), info("z", FLOAT, (None, 3))], ["y"]
    )
    assert shapes(from_onnx(batch)) == [(1, 3), (1, 3)]
    assert shapes(from_onnx(batch, {"x": (5, 3)})) == [(5, 3), (1, 3)]
    shared = model_of([add], [info("x", FLOAT, ("N", "T")), info("z", FLOAT, ("N", "T"))], ["y"])
    assert shapes(from_onnx(shared, {"z": [4, 7]})) == [(4, 7), (4, 7)]


NO_SHAPE = helper.make_tensor_value_info("x", FLOAT, None)


@pytest.mark.parametrize(
    ("value", "given", "kind", "headline"),
    [
        (info("x", FLOAT, (1, "T")), {}, ModelError,
         "net: axis 1 of input 'x' has the symbolic size 'T'"),
        (NO_SHAPE, {}, ModelError, "net: input 'x' has no shape"),
        (info("x", FLOAT, (2, 3)), {"x": (4, 3)}, ArgumentError,
         "net: axis 0 of input 'x' has size 2 in the file, but 4 is given"),
        (info("x", FLOAT, (2, 3)), {"x": (2,)}, ArgumentError,
         "net: input 'x' has rank 2, but shape (2,) is given"),
        (info("x", FLOAT, (2, 3)), {"q": (2,)}, ArgumentError, "net has no input 'q'"),
        (info("x", FLOAT, ("a", "a")), {"x": (2, 3)}, ArgumentError,
         "net: the size 'a' would be 2 and 3"),
        (info("x", 8, (1,)), {}, ModelError,
         "net: input 'x' has element type STRING, which is not supported"),
        (info("x", FLOAT, (-1, 3)), {}, ModelError,
         "net: input 'x' has shape (-1, 3), with a negative size"),
        (info("x", FLOAT, (1 << 40, 3)), {}, ModelError,
         "a tensor float32[1099511627776, 3] has 13194139533312 bytes, more than the limit of "
         "68719476736"),
        (helper.make_tensor_sequence_value_info("x", FLOAT, None), {}, ModelError,
         "net: input 'x' is of sequence_type, not a tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_inputs_that_do_not_fit(value: Any, given: Any, kind: type, headline: str) -> None:
    with pytest.raises(kind) as caught:
        from_onnx(relu(value), given)
    assert caught.value.headline == headline


def test_no_shape_is_given_or_an_input_is_made_constant() -> None:
    assert shapes(from_onnx(relu(NO_SHAPE), {"x": (2, 2)})) == [(2, 2)]
    proto = node_model("Reshape", [X, np.array([3, 2])])
    model = from_onnx(proto, {"x1": np.array([-1])})
    assert model.input_names == ["x0"]
    assert model.constants == ("x1",)
    np.testing.assert_array_equal(interpret(model, X)[0], X.reshape(-1))


# -- what becomes of nodes --------------------------------------------------------------------


def names_of(model: ImportedModel) -> list[str]:
    return [op.name for op in model.graph.main.body.block.ops]


def test_shape_arithmetic_never_reaches_the_graph() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1, 1])}
    model = from_onnx(model_of(nodes, [info("x", X)], ["y"], constants))
    assert names_of(model) == ["mge.reshape", "func.return"]
    assert interpret(model, X)[0].shape == (2, 3, 1)


def test_weights_are_not_copied() -> None:
    weight = np.ones((64, 64), np.float32)
    proto = node_model("MatMul", [weight, weight], constant=[1])
    model = from_onnx(proto)
    ((key, array),) = model.graph.weights.items()
    assert key == "x1"
    assert not array.flags.owndata  # a view of the message's bytes
    assert names_of(model) == ["mge.weight", "mge.matmul", "func.return"]


def test_a_large_filled_constant_is_not_stored() -> None:
    shape = {"s": np.array([1 << 12, 1 << 12])}
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["t"]),
        helper.make_node("Add", ["t", "x"], ["y"]),
    ]
    model = from_onnx(model_of(nodes, [info("x", X)], ["y"], shape))
    assert model.graph.weights == {}


def test_ops_name_the_node_that_they_come_from() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name='layer/"1"\n')
    proto = model_of([node], [info("x", X)], ["y"], name="my net")
    model = from_onnx(proto)
    text = graph_text(model.graph)
    assert 'loc("Relu layer/_1__"("my net":1:0))' in text
    assert graph_text(parse_graph(text)) == text


def test_names_of_inputs_survive_text() -> None:
    name = 'in"p\\ut é:0'
    node = helper.make_node("Relu", [name], ["out:0"])
    model = from_onnx(model_of([node], [info(name, X)], ["out:0"]))
    again = parse_graph(graph_text(model.graph))
    assert (again.input_names, again.output_names) == ([name], ["out:0"])


def test_functions_of_the_model_with_attributes() -> None:
    body = helper.make_node("LeakyRelu", ["a"], ["b"])
    reference = body.attribute.add()
    reference.name, reference.ref_attr_name = "alpha", "slope"
    reference.type = AttributeProto.FLOAT
    function = helper.make_function(
        "my", "Leaky", ["a"], ["b"], [body], [helper.make_opsetid("", 21)], ["slope"]
    )
    node = helper.make_node("Leaky", ["x"], ["y"], domain="my", slope=0.25)
    proto = model_of([node], [info("x", X)], ["y"], functions=[function], domains=["my"])
    np.testing.assert_allclose(interpret(from_onnx(proto), -X)[0], -X * 0.25)


def test_a_function_that_calls_itself_ends() -> None:
    body = helper.make_node("Again", ["a"], ["b"], domain="my")
    function = helper.make_function(
        "my", "Again", ["a"], ["b"], [body], [helper.make_opsetid("my", 1)]
    )
    node = helper.make_node("Again", ["x"], ["y"], domain="my")
    proto = model_of([node], [info("x", X)], ["y"], functions=[function], domains=["my"])
    (found,) = check_onnx(proto)
    assert found.reason == "subgraphs and functions are nested more than 32 deep"


def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    from mgec.importers import onnx_graph, onnx_value

    nodes = [helper.make_node("Relu", ["x"], [f"y{i}"]) for i in range(5)]
    proto = model_of(nodes, [info("x", X)], ["y0"])
    monkeypatch.setattr(onnx_graph, "MAX_NODES", 4)
    with pytest.raises(ModelError, match="the model has more than 4 nodes, loops unrolled"):
        from_onnx(proto)
    monkeypatch.setattr(onnx_graph, "MAX_NODES", 5)
    monkeypatch.setattr(onnx_value, "MAX_OPS", 4)
    with pytest.raises(ModelError, match="the model becomes more than 4 ops"):
        from_onnx(proto)


# -- errors ------------------------------------------------------------------------------------


def test_every_node_that_cannot_be_imported_is_listed() -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"], name="first"),
        helper.make_node("Relu", ["r"], ["s"]),
        helper.make_node("Odd", ["s"], ["t"], name="second", domain="com.example"),
        helper.make_node("Det", ["t"], ["u"]),
    ]
    proto = model_of(nodes, [info("x", X)], ["u"], domains=["com.example"])
    found = check_onnx(proto)
    assert [(n.name, n.op, n.domain, n.opset, n.inputs) for n in found] == [
        ("first", "RandomNormalLike", "", 21, ("float32[2, 3]",)),
        ("second", "Odd", "com.example", 1, ("float32[2, 3]",)),
        ("u", "Det", "", 21, ("?",)),
    ]
    with pytest.raises(UnsupportedModelError) as caught:
        from_onnx(proto)
    error = caught.value
    assert error.headline == "net: 3 nodes cannot be imported"
    assert [(v.name, v.description) for v in error.values] == [
        ("RandomNormalLike", "first: there is no handler for this op"),
        ("com.example.Odd", "second: there is no such op in opset 1 of domain 'com.example'"),
        ("Det", "u: there is no handler for this op"),
    ]


def bad(node: Any, **options: Any) -> Any:
    return model_of([node], [info("x", X)], ["y"], **options)


Relu = helper.make_node("Relu", ["x"], ["y"])


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (bad(helper.make_node("Relu", ["q"], ["y"])), "value 'q' is used before it is defined"),
        (bad(helper.make_node("Relu", ["x", "x"], ["y"])), "Relu has 2 inputs, but takes 1"),
        (bad(helper.make_node("Add", ["x"], ["y"])), "Add has 1 inputs, but takes 2"),
        (bad(helper.make_node("Relu", ["x"], ["y"], alpha=1.0)),
         "Relu has no attribute 'alpha' in opset 21"),
        (bad(helper.make_node("Elu", ["x"], ["y"], alpha=1)),
         "attribute 'alpha' of Elu is of another type than its schema says"),
        (bad(helper.make_node("Cast", ["x"], ["y"])), "attribute 'to' of Cast is missing"),
        (bad(helper.make_node("Cast", ["x"], ["y"], to=99)), "there is no element type 99"),
        (bad(helper.make_node("Softmax", ["x"], ["y"], axis=2)),
         "Softmax: axis 2 is out of range for rank 2"),
        (bad(helper.make_node("ReduceSum", ["x", "a"], ["y"]), constants={"a": np.array([0, -2])}),
         "ReduceSum: axes [0, -2] repeat an axis"),
        (bad(helper.make_node("Reshape", ["x", "a"], ["y"]), constants={"a": np.ones(1)}),
         "shape of Reshape is float64[1], but a list of integers is expected"),
        (bad(helper.make_node("Reshape", ["x", "a"], ["y"]), constants={"a": np.array([4, -1])}),
         "shape [4, -1] does not fit float32[2, 3]"),
        (bad(helper.make_node("ConstantOfShape", ["a"], ["y"]),
             constants={"a": np.array([1 << 40])}),
         "a tensor float32[1099511627776] has 4398046511104 bytes, more than the limit of "
         "68719476736"),
        (bad(helper.make_node("Relu", ["x"], ["y", "z"])), "output 'z'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_nodes_that_are_not_valid(proto: Any, text: str) -> None:
    (node,) = check_onnx(proto)
    assert node.reason == text


def with_versions(ir: int = 10, opset: int = 21) -> Any:
    proto = relu(info("x", X))
    proto.ir_version = ir
    proto.opset_import[0].version = opset
    return proto


def without_graph() -> Any:
    proto = relu(info("x", X))
    proto.ClearField("graph")
    return proto


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (b"no model", "model: this is not an ONNX model: "),
        (b"", "model: there is no graph in the model"),
        (without_graph(), "model: there is no graph in the model"),
        (7, "from_onnx takes a path, bytes or a ModelProto, not int"),
        (with_versions(ir=2), r"net: the file has IR version 2, but 3 to \d+ are supported"),
        (with_versions(ir=99), r"net: the file has IR version 99, but 3 to \d+ are supported"),
        (with_versions(opset=5), r"net: the model has opset 5, but 6 to \d+ are supported"),
        (with_versions(opset=99), r"net: the model has opset 99, but 6 to \d+ are supported"),
        (model_of([Relu, Relu], [info("x", X)], ["y"]), "value 'y' is defined twice"),
        (model_of([Relu], [info("x", X)] * 2, ["y"]), "net: two inputs have the same name"),
        (model_of([Relu], [info("x", X)], ["y", "y"]), "net: two outputs have the same name"),
        (model_of([Relu], [info("x", X)], ["z"]), "value 'z' is used before it is defined"),
        (model_of([Relu], [info("x", X)], [info("y", INT64, (2, 3))]),
         "net: output 'y' is declared INT64, but is float32"),
        (model_of([Relu], [info("x", X)], []), "net: the model has no outputs"),
    ],
)  # fmt: skip
def test_models_that_are_not_valid(source: Any, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        from_onnx(source)


def test_without_the_package_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match="needs the package onnx, which is not installed"):
        from_onnx(b"")


def test_importing_the_importers_does_not_import_onnx() -> None:
    import subprocess
    import sys

    code = "import sys, mgec.importers; print('onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
