"""Imports point one way: tools -> frontend -> compiler -> dialects, and frontend -> runtime.

Also what keeps the code safe and the options in one place. The rules are a function of a source
text, so that each is shown to catch a violation.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Folder -> the folders it may import, besides itself and the leaves.
LAYERS: dict[str, set[str]] = {
    "dialects": set(),
    "runtime": set(),
    "compiler": {"dialects", "runtime"},  # the artifact's data classes live in the runtime
    "frontend": {"compiler", "dialects", "runtime"},
    "tools": {"frontend", "compiler", "dialects", "runtime"},
}
LEAVES = {"mgec.errors", "mgec.config", "mgec.version"}
LEAF_FILES = {"frontend/errors.py", "frontend/config.py", "frontend/version.py"}

# Package -> the files that may import it ("folder/" means all below).
GUARDED = {
    "torch_mlir": ["compiler/mlir.py"],
    "mlir": ["compiler/mlir.py"],
    "llvmlite": ["compiler/codegen/"],
    "xdsl": ["compiler/", "dialects/", "tools/", "frontend/"],
    "pickle": [],
    "marshal": [],
    "shelve": [],
}
ENVIRONMENT = "frontend/config.py"
LAZY_INIT = "frontend/__init__.py"  # names every layer as text; its imports are for type checkers


def sources() -> list[str]:
    return sorted(
        str(path.relative_to(ROOT)) for folder in LAYERS for path in (ROOT / folder).rglob("*.py")
    )


def package_of(file: str) -> list[str]:
    """The parts of the package a file lies in: frontend/jit/trace.py -> mgec, jit."""
    folder, *rest = Path(file).parent.parts
    return ["mgec", *([] if folder == "frontend" else [folder]), *rest]


def imported(file: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every imported module with its line, wherever in the file the import stands.

    ``from a import b`` yields ``a.b``: b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = package_of(file)
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def called(node: ast.Call) -> str:
    function = node.func
    return getattr(function, "id", "") or getattr(function, "attr", "")


def layer_of(module: str) -> str | None:
    """mgec.compiler.pipeline -> compiler; None for a module that is not ours, or a leaf."""
    parts = module.split(".")
    if parts[0] != "mgec" or ".".join(parts[:2]) in LEAVES:
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "frontend"


def violations(file: str, text: str) -> list[str]:
    """What the source of a file does that it should not."""
    tree = ast.parse(text)
    folder = file.partition("/")[0]
    found: list[str] = []
    for line, module in imported(file, tree):
        layer = layer_of(module)
        if layer is not None and file != LAZY_INIT and layer not in LAYERS[folder] | {folder}:
            found.append(f"{file}:{line}: {folder} imports {module}")
        if file in LEAF_FILES and layer is not None:
            found.append(f"{file}:{line}: a leaf imports {module}")
        top = module.partition(".")[0]
        if top in GUARDED and not file.startswith(tuple(GUARDED[top]) or ("-",)):
            found.append(f"{file}:{line}: {top} is imported outside {GUARDED[top] or 'nowhere'}")
        if top in LAYERS:
            found.append(f"{file}:{line}: {module} is imported without 'mgec.'")
    for node in ast.walk(tree):
        place = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute | ast.ImportFrom) and file != ENVIRONMENT:
            names = [node.attr] if isinstance(node, ast.Attribute) else [a.name for a in node.names]
            if {"environ", "getenv", "putenv"} & set(names):
                found.append(f"{place}: the environment is read outside {ENVIRONMENT}")
        if isinstance(node, ast.Call):
            forbidden = {"eval", "exec"} if folder == "tools" else {"eval", "exec", "print"}
            if isinstance(node.func, ast.Name) and node.func.id in forbidden:
                found.append(f"{place}: calls {node.func.id}")
            if called(node) in {"system", "popen"}:
                found.append(f"{place}: calls a shell")
            for keyword in node.keywords:
                if keyword.arg == "shell" and not is_false(keyword.value):
                    found.append(f"{place}: calls a shell")
                if keyword.arg == "allow_pickle" and not is_false(keyword.value):
                    found.append(f"{place}: reads pickles")
    return found


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize("file", sources())
def test_source(file: str) -> None:
    assert violations(file, (ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("dialects/mge/conv.py", "from mgec.compiler import pipeline", "dialects imports"),
        ("dialects/mge/conv.py", "def f():\n  import mgec.tensor", "dialects imports"),
        ("dialects/mge/conv.py", "from ...compiler.passes import dce", "dialects imports"),
        ("dialects/mge/conv.py", "from mgec import Tensor", "dialects imports"),
        ("compiler/pipeline.py", "from mgec.jit import trace", "compiler imports"),
        ("compiler/pipeline.py", "import mgec.tools.main", "compiler imports"),
        ("frontend/jit/trace.py", "from mgec.tools import main", "frontend imports"),
        ("frontend/jit/trace.py", "from ..tools import main", "frontend imports"),
        ("runtime/loader.py", "import mgec.dialects.mge", "runtime imports"),
        ("runtime/loader.py", "import importlib\nimportlib.import_module('xdsl.ir')", "xdsl"),
        ("runtime/loader.py", "from llvmlite import binding", "llvmlite"),
        ("runtime/loader.py", "if 1:\n  from torch_mlir import ir", "torch_mlir"),
        ("compiler/handoff.py", "from torch_mlir.ir import Module", "torch_mlir"),
        ("compiler/kernels/matmul.py", "import llvmlite", "llvmlite"),
        ("frontend/errors.py", "from mgec.core import tensor", "a leaf imports"),
        ("compiler/cache.py", "import pickle", "pickle"),
        ("compiler/cache.py", "import compiler.passes", "without 'mgec.'"),
        ("compiler/cache.py", "import os\nos.environ['A']", "environment"),
        ("compiler/cache.py", "from os import getenv", "environment"),
        ("compiler/cache.py", "eval('1')", "calls eval"),
        ("compiler/cache.py", "print(1)", "calls print"),
        ("compiler/link.py", "subprocess.run('ld', shell=True)", "shell"),
        ("compiler/link.py", "os.system('ld')", "shell"),
        ("frontend/serialization.py", "np.load(f, allow_pickle=True)", "pickles"),
    ],
)
def test_a_violation_is_caught(file: str, text: str, what: str) -> None:
    found = violations(file, text)
    assert len(found) == 1, found
    assert what in found[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dialects/mge/conv.py", "from mgec.errors import ShapeError\nfrom mgec import config"),
        ("dialects/mge/conv.py", "from mgec.dialects.mge import op\nfrom . import op\nimport xdsl"),
        ("compiler/pipeline.py", "from mgec.dialects import mge\nfrom mgec.runtime import program"),
        ("compiler/mlir.py", "from torch_mlir import ir"),
        ("compiler/codegen/llvm.py", "from llvmlite import binding"),
        ("frontend/jit/trace.py", "from mgec import compiler\nfrom ..runtime import loader"),
        ("tools/main.py", "import mgec\nprint(mgec)"),
        ("frontend/config.py", "import os\nos.environ['A']"),
        ("compiler/link.py", "subprocess.run(['ld'], shell=False)"),
    ],
)
def test_what_is_allowed(file: str, text: str) -> None:
    assert violations(file, text) == []


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_mgec_loads_nothing_big() -> None:
    assert not modules_after("import mgec") & {"numpy", "xdsl", "torch_mlir", "llvmlite"}


def test_import_runtime_loads_no_compiler() -> None:
    assert not modules_after("import mgec.runtime") & {"xdsl", "torch_mlir", "mlir", "llvmlite"}


@pytest.mark.parametrize("folder", ["frontend", "compiler", "dialects", "runtime", "tools"])
def test_a_source_folder_is_not_a_package_of_its_own(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "would make a second copy of every class" in done.stderr
