"""Which state of this checkout made something."""

from __future__ import annotations

import subprocess
from pathlib import Path

from training.errors import UnusableInputError

_MAKING = ("training", "export", "mammoclip_sdk/*.py", "cpp", "requirements")
"""What a model depends on; not the bundle that it replaces."""


def git_commit() -> str:
    """Return the commit of this checkout, marked ``-dirty`` when a file of it was changed or added.

    Raises
    ------
    UnusableInputError
        This is no git checkout, so that what is made could not be traced.
    """
    try:
        changed = _git("status", "--porcelain", "--", *_MAKING)
        return _git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnusableInputError(
            "the commit this runs from",
            found="no git, or no checkout",
            expected="a clone of the repository",
            remedy="Clone it instead of copying its files.",
        ) from error


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parents[1]
    found = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()
