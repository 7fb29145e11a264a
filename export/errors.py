"""What an export refuses before it has made anything."""

from __future__ import annotations

from training.errors import UnusableInputError


class ExportError(UnusableInputError):
    """What was asked for cannot be exported; nothing was written."""
