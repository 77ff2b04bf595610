"""`python -m mgec`: the `mgec` command where its script is not on the path."""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    # By name: the frontend does not depend on the tools.
    sys.exit(importlib.import_module("mgec." + "tools.main").main())
