"""Options: from the environment, by override, and the way of saying no."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from mgec import config
from mgec.errors import OptionError

GOOD = [
    ("MGEC_DEBUG", "3", "debug", 3),
    ("MGEC_DUMP", "/tmp/x", "dump", Path("/tmp/x")),
    ("MGEC_BACKEND", "Reference", "backend", "reference"),
    ("MGEC_TARGET", "x86-64-v3", "target", "x86-64-v3"),
    ("MGEC_NUM_THREADS", "7", "num_threads", 7),
    ("MGEC_CACHE", "off", "cache", False),
    ("MGEC_CACHE", "1", "cache", True),
    ("MGEC_CACHE_DIR", "/tmp/x", "cache_dir", Path("/tmp/x")),
    ("MGEC_TUNE", "off", "tune", False),
    ("MGEC_LOG", "DEBUG", "log", "debug"),
    ("MGE_DEFAULT_DEVICE", "cpux", "default_device", "cpux"),
    ("MGE_DISABLE_TRACE", "yes", "disable_trace", True),
    ("MGEC_PEERS_ROOT", "/tmp/x", "peers_root", Path("/tmp/x")),
]
BAD = [
    ("MGEC_DEBUG", "6"),
    ("MGEC_DEBUG", "-1"),
    ("MGEC_DEBUG", "loud"),
    ("MGEC_BACKEND", "numpy"),
    ("MGEC_NUM_THREADS", "-2"),
    ("MGEC_NUM_THREADS", "two"),
    ("MGEC_CACHE", "maybe"),
    ("MGEC_LOG", "trace"),
    ("MGE_DISABLE_TRACE", "2"),
]


def option(variable: str) -> config.Option:
    return next(item for item in config.OPTIONS.values() if item.variable == variable)


@pytest.mark.parametrize(("variable", "text", "name", "value"), GOOD)
def test_environment(
    fresh_config: pytest.MonkeyPatch, variable: str, text: str, name: str, value: object
) -> None:
    fresh_config.setenv(variable, text)
    assert getattr(config, name) == value
    assert type(getattr(config, name)) is type(value)


def test_every_option_is_tested() -> None:
    assert {row[2] for row in GOOD} == set(config.OPTIONS)


@pytest.mark.parametrize(("variable", "text"), BAD)
def test_bad_environment(fresh_config: pytest.MonkeyPatch, variable: str, text: str) -> None:
    fresh_config.setenv(variable, text)
    bad = option(variable)
    with pytest.raises(OptionError) as caught:
        getattr(config, bad.name)
    assert caught.value.headline == f"{variable}: {text!r} is not {bad.expects}"
    assert caught.value.fix == f"set {variable} to {bad.expects}, or leave it unset"


@pytest.mark.parametrize("name", config.OPTIONS)
def test_unset_and_empty_mean_the_default(fresh_config: pytest.MonkeyPatch, name: str) -> None:
    variable = config.OPTIONS[name].variable
    fresh_config.delenv(variable, raising=False)
    default = getattr(config, name)
    assert default == config.OPTIONS[name].default()
    config.reset(name)
    fresh_config.setenv(variable, "")
    assert getattr(config, name) == default


def test_the_first_read_is_kept(fresh_config: pytest.MonkeyPatch) -> None:
    fresh_config.setenv("MGEC_DEBUG", "1")
    assert config.debug == 1
    fresh_config.setenv("MGEC_DEBUG", "2")
    assert config.debug == 1
    config.reset("debug")
    assert config.debug == 2


def test_override_nests_and_ends() -> None:
    before = config.debug
    with config.override(debug=2, backend="reference"):
        with config.override(debug="4", dump=None):
            assert (config.debug, config.backend, config.dump) == (4, "reference", None)
        assert config.debug == 2
        with pytest.raises(KeyError), config.override(debug=5):
            raise KeyError
        assert config.debug == 2
    assert config.debug == before


@pytest.mark.parametrize(
    "values", [{"debug": 9}, {"debug": True}, {"debug": 1.5}, {"cache": None}, {"target": " "}]
)
def test_bad_override_changes_nothing(values: dict[str, object]) -> None:
    before = config.table()
    with pytest.raises(OptionError, match=r"^config\."), config.override(log="error", **values):
        pytest.fail("entered")
    assert config.table() == before


def test_unknown_option() -> None:
    with pytest.raises(OptionError, match="there is no option 'colour'"), config.override(colour=1):
        pytest.fail("entered")
    with pytest.raises(AttributeError, match=r"'mgec\.config' has no attribute 'colour'"):
        _ = config.colour  # type: ignore[attr-defined]


def test_number_of_threads(fresh_config: pytest.MonkeyPatch) -> None:
    fresh_config.delenv("MGEC_NUM_THREADS", raising=False)
    assert config.num_threads >= 1
    with config.override(num_threads=0):
        assert config.num_threads == config.OPTIONS["num_threads"].default()


def test_child_environment() -> None:
    code = "from mgec import config; print(config.debug, config.cache, config.dump)"
    with config.override(cache=False):
        environ = config.environment(debug=3)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
        )
    assert done.stdout == "3 False None\n"


def test_table_lists_every_variable() -> None:
    with config.override(debug=3):
        rows = {row.variable: row for row in config.table()}
    assert list(rows) == [item.variable for item in config.OPTIONS.values()]
    assert (rows["MGEC_DEBUG"].value, rows["MGEC_DEBUG"].default) == ("3", "0")
    assert all(row.sentence.endswith((".", "?")) for row in rows.values())


def test_logger() -> None:
    assert config.get_logger() is logging.getLogger("mgec")
    assert config.get_logger("compiler").name == "mgec.compiler"


def test_log_goes_to_standard_error() -> None:
    code = "import mgec; mgec.get_logger('x').debug('hello')"
    for level, text in [("debug", "mgec.x: hello\n"), ("info", "")]:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=config.environment(log=level),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("", text)
