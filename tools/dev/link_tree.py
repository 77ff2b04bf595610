"""Shows the source folders as one package, ``build/links/mgec``, for pyright.

pyright follows neither setuptools' map of folders to packages nor its import hooks, and does not
look into linked folders: so this makes real folders with a symbolic link for every file.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "frontend": "mgec",
    "compiler": "mgec/compiler",
    "dialects": "mgec/dialects",
    "runtime": "mgec/runtime",
    "tools": "mgec/tools",
}


def link_tree(root: Path) -> Path:
    """Makes the tree anew.

    Args:
        root: The checkout.

    Returns:
        The folder to put on a search path.
    """
    links = root / "build" / "links"
    shutil.rmtree(links, ignore_errors=True)
    for folder, package in FOLDERS.items():
        for source in (root / folder).rglob("*.py"):
            link = links / package / source.relative_to(root / folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)
    return links


if __name__ == "__main__":
    sys.stdout.write(f"{link_tree(ROOT)}\n")
