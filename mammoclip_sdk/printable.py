"""Names that come from outside, as text that any terminal and page can show."""

from __future__ import annotations


def printable(name: str) -> str:
    """Write what a terminal, a page or UTF-8 cannot hold as escapes: file names are any bytes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )
