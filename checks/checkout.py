"""Which files make up the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path


def files(folder: Path) -> list[str]:
    """Return the files that git tracks in `folder` or would add, relative to it and sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted(name for name in set(listed.split("\0")) if name and (folder / name).is_file())
