"""What every test needs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgec import config as mgec_config

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Gives the run its own kernel cache: cold at the start, shared by the xdist workers."""
    if hasattr(config, "workerinput") or "MGEC_CACHE_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="mgec-test-cache-")
    os.environ["MGEC_CACHE_DIR"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture
def fresh_config(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Options that follow ``monkeypatch.setenv`` in this test, and are as before after it."""
    values = vars(mgec_config)
    before = {name: values[name] for name in mgec_config.OPTIONS if name in values}
    mgec_config.reset()
    yield monkeypatch
    mgec_config.reset()
    values.update(before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT
