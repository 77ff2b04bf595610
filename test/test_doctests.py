"""Runs the examples in docstrings, in the installed package."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import mgec

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(mgec.__path__, "mgec.")
    if not module.name.endswith((".__main__", "._native"))  # a program; a C library
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0
