"""lit configuration: every ``.mlir`` file below ``test/`` is a test by its own ``RUN`` lines.

Run all with ``lit test``, one with ``lit -v test/compiler/passes/dce.mlir``. ``mgec``, ``mgec-opt``
and ``filecheck`` are the commands installed beside the Python that runs lit.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import Any

import lit.formats

config: Any = globals()["config"]  # lit runs this file with its configuration in scope

config.name = "mgec"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.excludes = ["Inputs"]
config.test_source_root = str(Path(__file__).parent)
config.test_exec_root = str(Path(__file__).parents[1] / "build" / "lit")

config.environment["PATH"] = os.pathsep.join(
    [sysconfig.get_path("scripts"), config.environment["PATH"]]
)
# lit passes on a few variables only; these are ours.
config.environment.update(
    {name: value for name, value in os.environ.items() if name.startswith(("MGEC_", "MGE_"))}
)
