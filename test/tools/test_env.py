"""`mgec env` and `mgec cache`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mgec import config


def test_json(mgec: Callable) -> None:
    result = mgec("env", "--json")
    assert result.status == 0
    facts = json.loads(result.out)
    assert {"mgec", "Python", "xdsl", "llvmlite", "numpy"} <= set(facts["versions"])
    assert "not installed" not in facts["versions"].values()
    assert facts["host"]["target"].startswith("x86-64")
    assert [row["variable"] for row in facts["options"]] == [
        option.variable for option in config.OPTIONS.values()
    ]


def test_text_has_every_option(mgec: Callable) -> None:
    out = mgec("env").out
    for option in config.OPTIONS.values():
        assert option.variable in out
    assert str(config.cache_dir)[:20] in out


def test_a_wrong_option_is_refused(mgec: Callable, fresh_config: pytest.MonkeyPatch) -> None:
    fresh_config.setenv("MGEC_DEBUG", "nine")
    result = mgec("env")
    assert result.status == 2
    assert result.out == ""
    assert "MGEC_DEBUG: 'nine' is not a level from 0 to 5" in result.err


def test_cache(mgec: Callable, net: Path, tmp_path: Path, fresh_config: pytest.MonkeyPatch) -> None:
    fresh_config.setenv("MGEC_CACHE_DIR", str(tmp_path / "cache"))
    assert mgec("cache").out.startswith(f"{tmp_path / 'cache'}: 0 kernels")
    assert mgec("cache", "--clear").status == 0
    assert mgec("compile", net, "-o", tmp_path / "net.mge").status == 0
    keep = tmp_path / "cache" / "notes.txt"
    keep.write_text("not ours")
    assert ": 0 kernels" not in mgec("cache").out
    assert "cleared" in mgec("cache", "--clear").out
    assert ": 0 kernels" in mgec("cache").out
    assert keep.exists()
