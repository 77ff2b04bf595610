"""Maps the source folders to packages; everything that can be said as data is in pyproject.toml.

A new sub-folder with an ``__init__.py`` becomes a package without an edit here, and a new ``.c``
file in ``runtime/native`` becomes part of the native runtime.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDERS = {
    "mgec": "frontend",
    "mgec.compiler": "compiler",
    "mgec.dialects": "dialects",
    "mgec.runtime": "runtime",
    "mgec.tools": "tools",
}
ROOT = Path(__file__).parent


class BuildNativeRuntime(build_ext):
    """Builds ``runtime/_native.so``: a plain shared library for ctypes, not a Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        """The library does not depend on the Python version, so neither does its name."""
        suffix = ".dll" if sys.platform == "win32" else ".so"
        return str(Path(*fullname.split("."))) + suffix

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """No ``PyInit__native`` to export."""
        return []


class TagForAnyPython(bdist_wheel):
    """Tags the wheel ``py3-none-<platform>``: native code, but none that knows Python's ABI."""

    def get_tag(self) -> tuple[str, str, str]:
        """Keeps the platform of the default tag."""
        return ("py3", "none", super().get_tag()[2])


def packages() -> list[str]:
    """The five roots and every folder with an ``__init__.py`` under them."""
    found: list[str] = []
    for package, folder in FOLDERS.items():
        found += [package, *(f"{package}.{name}" for name in find_packages(str(ROOT / folder)))]
    return found


def native_runtime() -> list[Extension]:
    """The C runtime; nothing while ``runtime/native`` holds no source."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("runtime/native/*.c"))
    headers = [str(path.relative_to(ROOT)) for path in ROOT.glob("runtime/**/*.h")]
    if not sources:
        return []
    return [
        Extension(
            "mgec.runtime._native",
            sources=sources,
            depends=headers,
            include_dirs=["runtime/include"],
            extra_compile_args=["-O2", "-std=c11", "-pthread", "-fvisibility=hidden"],
            extra_link_args=["-pthread", *(["-ldl"] if sys.platform == "linux" else [])],
        )
    ]


def build_requirements() -> list[str]:
    """A C compiler from the package index, for machines that have none."""
    if os.environ.get("CC") or any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return []
    os.environ["CC"] = f"{sys.executable} -m ziglang cc"
    return ["ziglang>=0.13"]


setup(
    package_dir=FOLDERS,
    packages=packages(),
    ext_modules=native_runtime(),
    setup_requires=build_requirements(),
    cmdclass={"build_ext": BuildNativeRuntime, "bdist_wheel": TagForAnyPython},
)
