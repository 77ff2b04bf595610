"""Checks an installed wheel: nothing may come from the checkout, and nothing may be missing."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import mgec

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = ("py.typed", "runtime/include/mgec.h")


def main() -> int:
    """Returns the exit status."""
    package = Path(mgec.__path__[0]).resolve()
    problems = [
        f"{source} is missing from the wheel"
        for source in checkout_files()
        if not (package / source).exists()
    ]
    if package.parent in (CHECKOUT, CHECKOUT / "build" / "links"):
        problems.append(f"mgec was imported from {package}")
    for module in pkgutil.walk_packages(mgec.__path__, "mgec."):
        if not module.name.endswith((".__main__", "._native")):
            importlib.import_module(module.name)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(f"mgec {mgec.__version__} works from {package}\n" if not problems else "")
    return len(problems) > 0


def checkout_files() -> list[Path]:
    """Every file the package should hold, relative to it."""
    found = [Path(name) for name in FILES]
    for folder in ("frontend", "compiler", "dialects", "runtime", "tools"):
        prefix = Path() if folder == "frontend" else Path(folder)
        for source in (CHECKOUT / folder).rglob("*.py"):
            if source.with_name("__init__.py").exists():
                found.append(prefix / source.relative_to(CHECKOUT / folder))
    found += [p.relative_to(CHECKOUT) for p in CHECKOUT.glob("runtime/native/**/*.[ch]")]
    return found


if __name__ == "__main__":
    sys.exit(main())
