"""`mgec compile`: Python, .mlir and .mge in; artifacts and the text of phases out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.emulator import cross_compiler

from mgec.compiler import pipeline
from mgec.compiler.codegen import emit
from mgec.compiler.targets import target_named
from mgec.runtime import host, load
from mgec.tools.commands import compile as command

W = np.arange(1000, dtype=np.float32).reshape(20, 50)
X = np.linspace(-1, 1, 1000, dtype=np.float32).reshape(20, 50)
B = np.linspace(0, 1, 50, dtype=np.float32)
Y = X * 2 + B


def check(artifact: Path) -> None:
    """The artifact computes what net.py says."""
    model = load(artifact)
    assert [spec.name for spec in model.inputs] == ["x", "w"]
    y, z = model(X, B)
    np.testing.assert_allclose(y, Y, rtol=1e-6)
    np.testing.assert_allclose(z, Y - 1 + W, rtol=1e-6, atol=1e-4)


def test_phases_are_the_pipelines() -> None:
    assert command.GRAPH_PHASES + command.KERNEL_PHASES == pipeline.PHASES
    assert command.KERNEL_PHASES == pipeline.KERNEL_PHASES


def test_python_file(mgec: Callable, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.mge"
    result = mgec("compile", f"{net}:net", "-o", out)
    assert result.status == 0, result.err
    assert "net for x86-64" in result.out
    assert "hello from the file" not in result.out
    check(out)


def test_traced_function_is_preferred(mgec: Callable, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.mge"
    assert mgec("compile", net, "-o", out).status == 0
    check(out)


def test_plain_function_with_inputs(mgec: Callable, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain.mge"
    result = mgec("compile", f"{net}:plain", "--input", "a:2x3:int32", "-o", out)
    assert result.status == 0, result.err
    model = load(out)
    assert [str(spec) for spec in model.inputs] == ["int32[2, 3]"]
    assert model.name == "plain"
    (got,) = model(np.arange(6, dtype=np.int32).reshape(2, 3))
    np.testing.assert_array_equal(got, np.arange(0, 18, 3).reshape(2, 3))


def test_inputs_in_any_order(mgec: Callable, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.mge"
    inputs = ["--input", "w:50", "--input", "x:20,50:float32"]
    assert mgec("compile", f"{net}:net", *inputs, "-o", out).status == 0
    check(out)


def test_a_trace_that_the_file_called(mgec: Callable, tmp_path: Path) -> None:
    (tmp_path / "called.py").write_text(
        "import numpy as np\nimport mgec as mge\nfrom mgec.jit import trace\n"
        "@trace\ndef double(x):\n    return x + x\n"
        "double(mge.tensor(np.ones(4, 'float32')))\n"
    )
    out = tmp_path / "called.mge"
    result = mgec("compile", tmp_path / "called.py", "-o", out)
    assert result.status == 0, result.err
    model = load(out)
    assert [spec.name for spec in model.inputs] == ["x"]
    np.testing.assert_array_equal(model(np.full(4, 3, np.float32))[0], np.full(4, 6))


MODULES = """\
import numpy as np
import mgec.functional as F
import mgec.module as M

class Net(M.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = M.Linear(5, width)
        self.drop = M.Dropout(0.5)

    def forward(self, image):
        return F.relu(self.drop(self.fc(image)))

class Sized(Net):
    def __init__(self, width):
        super().__init__(width)

small = Sized(3)
"""


@pytest.mark.parametrize(("name", "width"), [("Net", 4), ("small", 3)])
def test_modules_in_inference_mode(mgec: Callable, tmp_path: Path, name: str, width: int) -> None:
    (tmp_path / "modules.py").write_text(MODULES)
    out = tmp_path / "m.mge"
    result = mgec("compile", f"{tmp_path / 'modules.py'}:{name}", "--input", "image:2,5", "-o", out)
    assert result.status == 0, result.err
    model = load(out)
    assert [spec.name for spec in model.inputs] == ["image"]
    image = np.ones((2, 5), np.float32)
    assert model(image)[0].shape == (2, width)
    np.testing.assert_array_equal(model(image)[0][0], model(image)[0][1])  # nothing is dropped


def test_a_module_that_needs_arguments(mgec: Callable, tmp_path: Path) -> None:
    (tmp_path / "modules.py").write_text(MODULES)
    result = mgec("compile", f"{tmp_path / 'modules.py'}:Sized", "--input", "image:2,5", "-o", "o")
    assert result.status == 1
    assert "the Module 'Sized' cannot be made without width" in result.err
    assert "candidates" not in result.err


def test_scalar_and_empty_inputs(mgec: Callable, net: Path, tmp_path: Path) -> None:
    for shape, expected in (("scalar", ()), ("", ()), ("0x3", (0, 3))):
        out = tmp_path / "s.mge"
        assert mgec("compile", f"{net}:plain", "--input", f"a:{shape}", "-o", out).status == 0
        assert load(out).inputs[0].shape == expected


@pytest.mark.parametrize("phase", ["trace", "graph", "kernels"])
def test_each_dump_is_input_of_the_next_phase(
    mgec: Callable, net: Path, tmp_path: Path, phase: str
) -> None:
    text, out = tmp_path / "net.mlir", tmp_path / "net.mge"
    assert mgec("compile", net, "--compile-to", phase, "-o", text).status == 0
    assert text.with_suffix(".safetensors").exists()
    assert f'loc("{net}":10:0)' in text.read_text()
    result = mgec("compile", text, "--compile-from", phase, "-o", out)
    assert result.status == 0, result.err
    check(out)


def test_text_on_stdout(mgec: Callable, net: Path) -> None:
    result = mgec("compile", net, "--compile-to", "graph")
    assert result.status == 0
    assert result.out.startswith("builtin.module {")
    assert "mge.weight" in result.out
    assert "the weights are left out" in result.err
    assert "mge.kernel" in mgec("compile", net, "--compile-to", "kernels").out


@pytest.mark.parametrize(
    ("phase", "mark"),
    [("linalg", "linalg.generic"), ("vector", "func.func"), ("llvm", "define weak_odr void @")],
)
def test_kernel_phases_on_stdout(mgec: Callable, net: Path, phase: str, mark: str) -> None:
    result = mgec("compile", net, "--compile-to", phase)
    assert result.status == 0, result.err
    assert mark in result.out


def test_objects_in_a_folder(mgec: Callable, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "objects"
    assert mgec("compile", net, "--compile-to", "object", "-o", out).status == 0
    (code,) = out.glob("000-*.o")
    assert code.read_bytes()[:4] == b"\x7fELF"
    (assembly,) = out.glob("000-*.s")
    assert ".text" in assembly.read_text()


def test_opt_level_0_fuses_nothing(mgec: Callable, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.mge"
    result = mgec("compile", net, "--opt-level", 0, "-o", out)
    assert "4 steps" in result.out
    check(out)


def test_artifact_for_another_target(mgec: Callable, artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "baseline.mge"
    result = mgec("compile", artifact, "--target", "x86-64", "-o", out)
    assert result.status == 0, result.err
    assert load(out).target.name == "x86-64"
    assert load(out).name == "net"
    check(out)
    again = tmp_path / "again.mge"  # a copy of a copy
    assert mgec("compile", out, "-o", again).status == 0
    check(again)


@pytest.mark.parametrize(
    ("output", "options"),
    [
        ("net.so", []),
        ("net.o", []),
        ("net.h", []),
        ("any", ["--emit", "so"]),
        ("any", ["--emit", "exe"]),
    ],
)
def test_files_for_c(
    mgec: Callable, artifact: Path, tmp_path: Path, output: str, options: list[str]
) -> None:
    out = tmp_path / output
    result = mgec("compile", artifact, "--name", "two words", *options, "-o", out)
    assert result.status == 0, result.err
    kind = options[1] if options else command.emitted_by_ending(out)
    headers = {"so": [out.with_suffix(".h")], "obj": [out.with_suffix(".h")]}.get(kind, [])
    assert sorted(tmp_path.iterdir()) == sorted([out, *headers])
    assert f"{out}" in result.out and "two words for x86-64" in result.out
    for header in [out] if kind == "header" else headers:
        assert "mgec_status two_words_run(struct mgec_model *model, " in header.read_text()
    if kind != "header":
        assert out.read_bytes()[:4] == b"\x7fELF"


def test_kinds_of_emit_are_the_compilers() -> None:
    assert {"mge": ".mge", **emit.KINDS} == command.EMITTED


@pytest.mark.parametrize(
    ("options", "message", "fix"),
    [
        (["--emit", "so"], "there is no place for the output", "add -o net.so"),
        (["--emit", "exe"], "there is no place for the output", "add -o net"),
        (["--emit", "mge"], "there is no place for the artifact", "add -o net.mge"),
        (
            ["--emit", "obj", "--compile-to", "graph"],
            "--emit obj: --compile-to graph stops before there is code to emit",
            "leave one of them out",
        ),
    ],
)
def test_emit_that_means_nothing(
    mgec: Callable, net: Path, options: list[str], message: str, fix: str
) -> None:
    result = mgec("compile", net, *options)
    assert result.status == 2
    assert message in result.err and f"fix  {fix}" in result.err


def test_artifact_for_another_architecture(mgec: Callable, artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "arm.mge"
    target = target_named("aarch64-linux-gnu")
    if target.architecture == host.architecture():
        pytest.skip("this machine is not another architecture than aarch64")
    cross_compiler(target)
    result = mgec("compile", artifact, "--target", "aarch64-linux-gnu", "-o", out)
    assert result.status == 0, result.err
    result = mgec("run", out)
    assert "artifact was compiled for aarch64-unknown-linux-gnu, this machine is" in result.err
    back = tmp_path / "back.mge"
    assert mgec("compile", out, "--target", "host", "-o", back).status == 0
    check(back)


def test_artifact_in_place(mgec: Callable, artifact: Path, tmp_path: Path) -> None:
    out = Path(shutil.copy(artifact, tmp_path / "net.mge"))
    assert mgec("compile", out, "--target", "x86-64-v2", "-o", out).status == 0
    check(out)


def test_dump_phases(mgec: Callable, net: Path, tmp_path: Path) -> None:
    out, dump = tmp_path / "net.mge", tmp_path / "dump"
    assert mgec("compile", net, "-o", out, "--dump-phases-to", dump).status == 0
    assert sorted(path.name for path in dump.iterdir()) == [
        "00-trace", "01-graph", "02-kernels", "03-linalg", "04-vector", "05-llvm", "06-object",
        "commands.txt",
    ]  # fmt: skip
    for line in (dump / "commands.txt").read_text().splitlines():
        words = line.split()
        assert words[0] == "mgec"
        words[-1] = str(out)
        assert mgec(*words[1:]).status == 0
        check(out)


def test_dump_option_of_the_environment(
    mgec: Callable, net: Path, tmp_path: Path, fresh_config: pytest.MonkeyPatch
) -> None:
    fresh_config.setenv("MGEC_DUMP", str(tmp_path / "dump"))
    assert mgec("compile", net, "-o", tmp_path / "net.mge").status == 0
    assert (tmp_path / "dump" / "00-trace" / "main.mlir").exists()


def test_time_passes(mgec: Callable, net: Path, tmp_path: Path) -> None:
    result = mgec("compile", net, "-o", tmp_path / "net.mge", "--time-passes")
    for word in ("mge-canonicalize", "mge-form-kernels", "link and write", "total", "100.0"):
        assert word in result.err


# -- what is refused: each with its status and what the message must say --------------------

FILES = {
    "raise.py": "def inner():\n    return {}['x']\ninner()\n",
    "syntax.py": "def f(:\n",
    "exits.py": "import sys\nsys.exit(3)\n",
    "imports.py": "import no_such_module_xyz\n",
    "empty.py": "x = 1\n",
    "several.py": "def f(x, y):\n    return x + y\ndef nothing(x):\n    return 3\n"
    "def bad(x):\n    return helper(x)\ndef helper(x):\n    return x.nope\nnumber = 3\n",
    "text.txt": "hi\n",
    "text.mge": "hi\n",
    "text.mlir": "hi\n",
    "empty.mlir": "",
    "string.mlir": 'builtin.module { func.func @main() { "abc\n',
    "two.mlir": "func.func @a() { func.return }\nfunc.func @b() { func.return }\n",
    "declared.mlir": "func.func private @a()\n",
    "dynamic.mlir": "func.func @a(%0: tensor<?xf32>) -> tensor<?xf32> {\n"
    "  func.return %0 : tensor<?xf32>\n}\n",
    "foreign.mlir": "func.func @a() {\n  func.call @a() : () -> ()\n  func.return\n}\n",
    "weights.mlir": "func.func @a() -> tensor<20x50xf32> {\n"
    '  %0 = mge.weight {key = "w", shape = [20, 50], dtype = f32} : () -> tensor<20x50xf32>\n'
    "  func.return %0 : tensor<20x50xf32>\n}\n",
}

REFUSED = [
    # (arguments, status, what the message says)
    ("missing.py -o o.mge", 1, "FileMissingError: there is no file missing.py"),
    ("missing.py:f -o o.mge", 1, "FileMissingError: there is no file missing.py"),
    ("folder -o o.mge", 1, "FileError: folder is a folder"),
    ("text.txt -o o.mge", 1, "files that end in '.txt' cannot be compiled"),
    ("raise.py -o o.mge", 1, "raise.py: importing it raised KeyError: 'x'"),
    ("raise.py -o o.mge", 1, "at raise.py:2 in inner:   return {}['x']"),
    ("raise.py -o o.mge", 1, "from  raise.py:3 in <module>:   inner()"),
    ("syntax.py -o o.mge", 1, "syntax.py: the file is not valid Python: invalid syntax"),
    ("exits.py -o o.mge", 1, "exits.py: importing it called sys.exit(3)"),
    ("imports.py -o o.mge", 1, "ModuleNotFoundError: No module named 'no_such_module_xyz'"),
    ("binary.py -o o.mge", 1, "binary.py"),
    ("empty.py -o o.mge", 1, "there is no function to compile in it"),
    ("several.py -o o.mge", 1, "candidates  f, nothing, bad, helper"),
    ("several.py:nope -o o.mge", 1, "there is no 'nope' in it"),
    ("several.py:nope -o o.mge", 1, "candidates  f, nothing, bad, helper"),
    ("several.py:number -o o.mge", 1, "'number' is int, not a function or a Module"),
    ("several.py:f -o o.mge", 1, "add --input x:SHAPE:DTYPE --input y:SHAPE:DTYPE"),
    ("several.py:f --input x:3 -o o.mge", 1, "missing a required argument: 'y'"),
    ("several.py:f --input z:3 -o o.mge", 1, "signature  f(x, y)"),
    ("several.py:f --input x:3 --input y:4 -o o.mge", 1, "ShapeError: add: shapes (3,) and (4,)"),
    ("several.py:f --input x:3 --input y:4 -o o.mge", 1, "at several.py:2 in f:   return x + y"),
    ("several.py:f --input x:3 --input x:3 -o o.mge", 2, "--input: a name is given twice"),
    ("several.py:nothing --input x:3 -o o.mge", 1, "nothing returns no tensor"),
    ("several.py:bad --input x:3 -o o.mge", 1, "at several.py:8 in helper:   return x.nope"),
    ("several.py:f --input x -o o.mge", 2, "--input 'x' has 1 parts"),
    ("several.py:f --input x:3:float32:4 -o o.mge", 2, "has 4 parts"),
    ("several.py:f --input 3:3 -o o.mge", 2, "names '3', which is not a name"),
    ("several.py:f --input x:-3 -o o.mge", 2, "has the size '-3'"),
    ("several.py:f --input x:3,nan -o o.mge", 2, "has the size 'nan'"),
    ("several.py:f --input x:3:float99 -o o.mge", 2, "unknown dtype 'float99'"),
    ("several.py:f --target arm9 -o o.mge", 2, "use host or one of x86-64"),
    ("several.py:f --compile-to fast", 2, "invalid choice: 'fast'"),
    ("several.py:f --opt-level 7 -o o.mge", 2, "invalid choice: 7"),
    ("several.py:f --no-such-option", 2, "unrecognized arguments: --no-such-option"),
    ("several.py:f", 2, "there is no place for the artifact"),
    ("several.py:f --compile-to object", 2, "--compile-to object is not text"),
    ("several.py:f --compile-to linalg -o text.txt", 2, "one file per kernel"),
    ("several.py:f --compile-from graph -o o.mge", 2, "only an .mlir file can be a dump"),
    ("several.py:f -o several.py", 2, "is the source itself"),
    ("several.py:f -o folder", 2, "-o folder is a folder"),
    ("several.py:f -o o.mlir", 2, "an artifact is not a .mlir file"),
    ("several.py:f --input x:3 --input y:3 -o no/such/o.mge", 1, "cannot write"),
    ("text.mlir:f -o o.mge", 2, "only a Python file has functions"),
    ("text.mlir --input x:3 -o o.mge", 2, "the inputs of text.mlir are in the file"),
    ("text.mlir --compile-from kernels --compile-to graph", 2, "before --compile-from kernels"),
    ("text.mlir -o o.mge", 1, "IRError: text.mlir: the text does not parse"),
    ("empty.mlir -o o.mge", 1, "IRError: empty.mlir: the text is empty"),
    ("binary.mlir -o o.mge", 1, "binary.mlir: not MLIR text"),
    ("string.mlir -o o.mge", 1, "a string does not end"),
    ("two.mlir -o o.mge", 1, "holds one func.func, this one 2"),
    ("declared.mlir -o o.mge", 1, "the function has no body"),
    ("dynamic.mlir -o o.mge", 1, "has a size that is not known"),
    ("foreign.mlir -o o.mge", 1, "func.call is not an mge op"),
    ("weights.mlir -o o.mge", 1, "there is no file weights.safetensors"),
    ("text.mge -o o.mge", 1, "ArtifactError: text.mge: header"),
    ("cut.mge -o o.mge", 1, "ArtifactError: cut.mge: header"),
    ("net.mge --compile-to trace", 2, "carries its graph after graph"),
]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")


@pytest.fixture(scope="module")
def bad_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "folder").mkdir()
    for name in ("binary.py", "binary.mlir"):
        (folder / name).write_bytes(b"\xff\xfe\0\1")
    data = (model_folder / "net.mge").read_bytes()
    (folder / "net.mge").write_bytes(data)
    (folder / "cut.mge").write_bytes(data[: len(data) // 2])
    return folder


@pytest.mark.parametrize(("arguments", "status", "says"), REFUSED)
def test_refused(
    mgec: Callable, bad_folder: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: str, status: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(bad_folder)
    before = files_in(bad_folder)
    result = mgec("compile", *arguments.split())
    assert says in result.err
    assert result.status == status
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    assert result.out == ""
    assert files_in(bad_folder) == before


def test_weights_that_do_not_fit(mgec: Callable, net: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "net.mlir", tmp_path / "net.mge"
    assert mgec("compile", net, "--compile-to", "trace", "-o", text).status == 0
    beside = text.with_suffix(".safetensors")
    good = text.read_text()
    text.write_text(good.replace("20x50xf32", "10x100xf32").replace("[20, 50]", "[10, 100]"))
    result = mgec("compile", text, "-o", out)
    assert result.status == 1
    text.write_text(good.replace('key = "', 'key = "other_'))
    result = mgec("compile", text, "-o", out)
    assert result.status == 1
    assert "there is no weight 'other_" in result.err
    text.write_text(good)
    beside.write_bytes(beside.read_bytes()[:100])
    result = mgec("compile", text, "-o", out)
    assert result.status == 1
    assert "net.safetensors is damaged" in result.err
