"""Weights in files: found in the model's bytes, and outside of it only below its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from support.onnx_models import info, interpret, model_of

from mgec.errors import FileError, FileMissingError, ModelError
from mgec.importers import from_onnx
from mgec.importers.onnx_file import read_model, tensor_array
from mgec.importers.onnx_wire import LARGE_BYTES, split_weights

W = np.arange(2000, dtype=np.float32).reshape(40, 50)
X = np.ones((2, 40), np.float32)
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"])


def model() -> Any:
    return model_of([MATMUL], [info("x", X)], ["y"], {"w": W, "tiny": np.ones(3)})


def test_large_weights_are_read_from_their_place(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    proto = model()
    path.write_bytes(proto.SerializeToString())
    rest, places = split_weights(path)
    assert W.nbytes > LARGE_BYTES > len(rest)
    ((position, place),) = places.items()
    assert position == 0
    assert path.read_bytes()[place.offset :][: place.nbytes] == W.tobytes()
    assert not onnx.ModelProto.FromString(rest).graph.initializer[0].HasField("raw_data")
    np.testing.assert_allclose(interpret(from_onnx(path), X)[0], X @ W)
    path.unlink()  # nothing refers to the file any more


def test_two_graphs_in_a_file_are_merged_by_protobuf(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    first, second = model(), onnx.ModelProto()
    second.graph.doc_string = "more"
    path.write_bytes(first.SerializeToString() + second.SerializeToString())
    rest, places = split_weights(path)
    assert places == {} and rest == path.read_bytes()
    np.testing.assert_allclose(interpret(from_onnx(path), X)[0], X @ W)


@pytest.mark.parametrize(
    "data", [b"", b"\x3a", b"\x3a\xff\xff\xff\xff\xff\xff", b"\x0b", b"\x3a\x05ab"]
)
def test_what_is_not_protobuf_is_left_to_protobuf(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    assert split_weights(path) == (data, {})


@pytest.mark.parametrize("dims", [[40, 51], [40, -50], [2**40, 2**40]])
def test_a_weight_of_another_size_than_its_shape(tmp_path: Path, dims: list[int]) -> None:
    proto = model()
    proto.graph.initializer[0].dims[:] = dims
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    for source in (path, proto):
        with pytest.raises(ModelError, match=r"^(tensor 'w'|a tensor)"):
            from_onnx(source)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match="there is no file"):
        read_model(tmp_path / "no.onnx")
    with pytest.raises(FileError, match="is a folder"):
        read_model(tmp_path)


def test_large_weights_of_four_bits(tmp_path: Path) -> None:
    values = np.arange(20000) % 16 - 8
    packed = helper.make_tensor("q", TensorProto.INT4, [20000], values.tolist())
    raw = bytes((int(a) & 15) | (int(b) & 15) << 4 for a, b in values.reshape(-1, 2))
    node = helper.make_node("DequantizeLinear", ["q", "s"], ["y"])
    for tensor in (packed, TensorProto(name="q", dims=[20000], data_type=22, raw_data=raw)):
        proto = model_of([node], [], ["y"], {"s": np.array(0.5, np.float32)})
        proto.graph.initializer.append(tensor)
        path = tmp_path / "net.onnx"
        path.write_bytes(proto.SerializeToString())
        np.testing.assert_array_equal(interpret(from_onnx(path))[0], values * 0.5)


def test_large_raw_data_of_strings(tmp_path: Path) -> None:
    proto = model()
    proto.graph.initializer[0].data_type = TensorProto.STRING
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="tensor 'w': "):
        from_onnx(path)


# -- typed fields ------------------------------------------------------------------------------


def test_tensors_of_every_dtype() -> None:
    for dtype in ("float32", "float64", "float16", "int8", "uint16", "int64", "uint64", "bool"):
        array = np.array([[1, 0, 3]]).astype(dtype)
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        for tensor in (
            numpy_helper.from_array(array),
            helper.make_tensor("t", element, array.shape, array.reshape(-1).tolist()),
        ):
            got = tensor_array(tensor, None)
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array)


def test_damaged_tensors() -> None:
    missing = TensorProto(name="t", dims=[2], data_type=TensorProto.FLOAT)
    with pytest.raises(ModelError, match=r"tensor 't': float32\[2\] has no data"):
        tensor_array(missing, None)
    short = TensorProto(name="t", dims=[2], data_type=TensorProto.FLOAT, float_data=[1.0])
    with pytest.raises(ModelError, match="tensor 't': "):
        tensor_array(short, None)
    text = TensorProto(name="t", dims=[1], data_type=TensorProto.STRING, raw_data=b"12345678")
    with pytest.raises(ModelError, match="tensor 't': "):
        tensor_array(text, None)
    segment = TensorProto(name="t", segment=TensorProto.Segment(begin=0, end=1))
    with pytest.raises(ModelError, match="tensor 't' is in segments"):
        tensor_array(segment, None)


# -- external data -------------------------------------------------------------------------------


def external(location: str, offset: int = 8, nbytes: int | None = None) -> Any:
    proto = model()
    tensor = proto.graph.initializer[0]
    external_data_helper.set_external_data(
        tensor, location, offset=offset, length=W.nbytes if nbytes is None else nbytes
    )
    tensor.ClearField("raw_data")
    return proto


def folder_with(tmp_path: Path, proto: Any) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (folder / "w.bin", folder / "sub" / "w.bin", tmp_path / "secret.bin"):
        place.write_bytes(b"12345678" + W.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "inside.bin").symlink_to(folder / "w.bin")
    (folder / "up").symlink_to(tmp_path)
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin", "inside.bin", "./w.bin"])
def test_external_data_below_the_folder(tmp_path: Path, location: str) -> None:
    path = folder_with(tmp_path, external(location))
    np.testing.assert_allclose(interpret(from_onnx(path), X)[0], X @ W)


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "sub/../../secret.bin", "/etc/passwd", "link.bin", "up/secret.bin", "",
     "w\0.bin"],
)  # fmt: skip
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    path = folder_with(tmp_path, external(location))
    with pytest.raises(ModelError) as caught:
        from_onnx(path)
    assert caught.value.headline == (
        f"tensor 'w': its external data {location!r} is not below the model's folder"
    )


def test_external_data_that_is_not_there_or_too_short(tmp_path: Path) -> None:
    path = folder_with(tmp_path, external("no.bin"))
    with pytest.raises(FileMissingError, match="which tensor 'w' is in"):
        from_onnx(path)
    for proto in (external("w.bin", offset=9), external("w.bin", nbytes=7)):
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ModelError, match=r"'w': float32\[40, 50\] needs 8000 bytes, but"):
            from_onnx(path)
    with pytest.raises(ModelError, match="but the model is not from a file"):
        from_onnx(external("w.bin"))
