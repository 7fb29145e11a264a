"""Refuse a CHANGELOG whose newest release is not the version that pyproject.toml states.

Usage: python -m checks.version [FOLDER]
"""

from __future__ import annotations

import re
import sys
import tomllib
from datetime import date
from pathlib import Path

RELEASE = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\S+))?\s*$", re.MULTILINE)


def problems(folder: Path) -> list[str]:
    """Return what disagrees in `folder`, a sentence each; nothing when all is well."""
    version = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    sections = [
        (match["name"], match["date"])
        for match in RELEASE.finditer((folder / "CHANGELOG.md").read_text("utf-8"))
    ]
    if not sections or sections[0] != ("Unreleased", None):
        return ["CHANGELOG.md does not begin with a section '## [Unreleased]'"]
    if len(sections) == 1:
        return [f"CHANGELOG.md has no release, pyproject.toml states version {version}"]
    found = []
    newest = sections[1][0]
    if newest != version:
        found.append(f"CHANGELOG.md ends at {newest}, pyproject.toml states version {version}")
    dates = [day for _, stated in sections[1:] if (day := _day(stated))]
    if len(dates) < len(sections) - 1:
        found.append("CHANGELOG.md has a release without its date, as in '## [1.2.3] - 2026-01-31'")
    elif dates != sorted(dates, reverse=True):
        found.append("CHANGELOG.md does not list its releases newest first")
    return found


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit("\n".join(problems(Path(sys.argv[1] if len(sys.argv) > 1 else "."))) or None)
