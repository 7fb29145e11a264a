"""Refuse text that names a package registry's host: where packages come from is the user's choice.

A hospital installs from its own mirror. A host in a lock file or in a script would go round it.

Usage: python -m checks.hosts [FOLDER]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from checks import checkout

HOST = re.compile(
    r"\b(?:[\w-]+\.)*(?:"
    r"pypi\.(?:org|python\.org|nvidia\.com|ngc\.nvidia\.com)|ngc\.nvidia\.com|nvcr\.io"
    r"|pythonhosted\.org|download\.pytorch\.org|anaconda\.(?:org|com)"
    r"|registry\.npmjs\.org|registry\.yarnpkg\.com|crates\.io|proxy\.golang\.org"
    r"|docker\.io|ghcr\.io|quay\.io"
    r")\b"
    r"|--(?:extra-)?index-url[= ]\S+://\S+|--find-links[= ]\S+",
    re.IGNORECASE,
)


def hits(folder: Path) -> list[str]:
    """Return `file:line: host` for each hit in the text that git tracks or would add."""
    found = []
    for name in checkout.files(folder):
        content = (folder / name).read_bytes()
        if b"\0" in content:
            continue
        lines = content.decode("utf-8", errors="replace").splitlines()
        found += [
            f"{name}:{number}: names {match[0]}"
            for number, line in enumerate(lines, start=1)
            for match in HOST.finditer(line)
        ]
    return found


if __name__ == "__main__":
    sys.exit("\n".join(hits(Path(sys.argv[1] if len(sys.argv) > 1 else "."))) or None)
