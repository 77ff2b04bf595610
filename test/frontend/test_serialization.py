from __future__ import annotations

import io
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import mgec as mge
import mgec.module as M
from mgec.serialization import _DTYPES


def round_trip(obj: Any, **options: Any) -> Any:
    file = io.BytesIO()
    mge.save(obj, file)
    file.seek(0)
    return mge.load(file, **options)


@pytest.mark.parametrize(
    "obj",
    [
        None, True, 3, -(2**80), 2.5, float("inf"), "text", "", [], (), {}, [1, [2, (3, None)]],
        {"a": {"b": [1.5]}, 3: "int", (1, "t"): "tuple", None: 0, True: 1, 2.5: "float"},
        OrderedDict(b=1, a=2), {"dict": 1, "array": ["0", "x"]},
    ],
    ids=str,
)  # fmt: skip
def test_plain_values(obj: Any) -> None:
    back = round_trip(obj)
    assert back == obj and type(back) is type(obj)


@pytest.mark.parametrize("dtype", [d.name for d in _DTYPES.values() if d.name != "bfloat16"])
def test_arrays(dtype: str) -> None:
    for array in (np.arange(6).reshape(2, 3), np.array(1), np.zeros((0, 3)), np.arange(9)[::2]):
        back = round_trip([array.astype(dtype)])[0]
        assert back.dtype == dtype and back.flags.writeable
        np.testing.assert_array_equal(back, array.astype(dtype))
    assert type(round_trip(np.float32(2.5))) is np.float32


def test_big_endian_arrays_keep_their_values() -> None:
    array = np.array([1.5, 2.5], ">f4")
    np.testing.assert_array_equal(round_trip(array), array)


def test_tensors() -> None:
    x = mge.tensor([1.5, 2.5], dtype="bfloat16", device="cpu0", name="x")
    p = mge.Parameter([[1.0]])
    back = round_trip({"x": x, "same": x, "p": p})
    assert back["x"] is back["same"] and back["x"].name == "x"
    assert str(back["x"].device) == "cpu0:0" and back["x"].tolist() == [1.5, 2.5]
    assert type(back["p"]) is mge.Parameter and type(back["x"]) is mge.Tensor


def test_map_location() -> None:
    x = mge.tensor([1.0]).to("cpu0")
    assert str(round_trip(x, map_location="cpu1").device) == "cpu1:0"
    assert str(round_trip(x, map_location={"cpu0": "cpux"}).device) == "cpux:0"
    assert str(round_trip(x, map_location={"gpu0": "cpux"}).device) == "cpu0:0"
    assert str(round_trip(x, map_location=lambda name: "cpu2").device) == "cpu2:0"
    with pytest.raises(mge.DeviceError, match="a tensor belongs on cpu0:0: device gpu7:0 is not"):
        round_trip(x, map_location="gpu7")
    with pytest.raises(mge.DeviceError, match="invalid device name"):
        round_trip(x, map_location="nonsense")


def test_a_network_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "net.mge"
    net, other = M.Linear(3, 2), M.Linear(3, 2)
    mge.save(net.state_dict(), path)
    mge.save(net.state_dict(), str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["net.mge"]
    other.load_state_dict(mge.load(path))
    np.testing.assert_array_equal(other.weight.numpy(), net.weight.numpy())
    assert len(safetensors.numpy.load(path.read_bytes())) == 2


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "file"
    mge.save(1, path)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(mge.FileError, match="save: cannot write .*: No space left on device"):
        mge.save(2, path)
    assert mge.load(path) == 1 and len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_saved() -> None:
    for obj, text in [
        (
            {"net": [M.Linear(1, 1)]},
            "save: the object['net'][0] is a Linear, which cannot be saved",
        ),
        ({"f": print}, "save: the object['f'] is a builtin_function_or_method"),
        (np.array(["a"]), "save: the object is an array of <U1, which cannot be saved"),
        ({b"k": 1}, "save: a key of the object is a bytes, which cannot be saved"),
        (np.array([None]), "save: the object is an array of object, which cannot be saved"),
    ]:
        with pytest.raises(mge.SerializationError) as caught:
            mge.save(obj, io.BytesIO())
        assert caught.value.headline.startswith(text)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(mge.SerializationError, match="nested too deeply, or contains itself"):
        mge.save(loop, io.BytesIO())


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(mge.FileMissingError, match="load: there is no file"):
        mge.load(tmp_path / "none")
    with pytest.raises(mge.FileError, match="load: cannot read"):
        mge.load(tmp_path)
    with pytest.raises(mge.FileError, match="save: cannot write"):
        mge.save(1, tmp_path / "no" / "folder")
    foreign = tmp_path / "foreign"
    for data, text in [
        (b"", "is truncated or not a saved file (0 bytes)"),
        (b"\x80\x04K\x01.", "is truncated or not a saved file (5 bytes)"),
        (b"\x02" + b"\0" * 7 + b"{}", "was not written by mgec.save"),
        (b"\x02" + b"\0" * 7 + b"[]", "is damaged, or not a saved file"),
        (safetensors.numpy.save({"x": np.zeros(3)}), "was not written by mgec.save"),
    ]:
        foreign.write_bytes(data)
        with pytest.raises(mge.SerializationError) as caught:
            mge.load(foreign)
        assert caught.value.headline == f"load: {foreign} {text}"


def test_damaged_files_are_refused() -> None:
    file = io.BytesIO()
    tree = {"w": mge.tensor(np.arange(20.0)), "list": [1, 2.5, "text"], "n": np.arange(3)}
    mge.save(tree, file)
    data = file.getvalue()
    rng = np.random.default_rng(0)
    for _ in range(500):
        bad = bytearray(data)
        at = int(rng.integers(len(data)))
        bad[at] ^= 1 << int(rng.integers(8))
        try:
            back = mge.load(io.BytesIO(bytes(bad)))
        except mge.SerializationError:
            continue
        # A blank of the padding, or the key of another reader's metadata.
        assert back["list"] == tree["list"] and back["w"].tolist() == list(range(20))
    for size in rng.integers(0, len(data), 100):
        with pytest.raises(mge.SerializationError):
            mge.load(io.BytesIO(data[:size]))
