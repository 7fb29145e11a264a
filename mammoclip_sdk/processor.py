"""The processor, as this process may use it."""

from __future__ import annotations

import os


def cores() -> int:
    """Return on how many cores this process may run; containers and schedulers often allow few."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
