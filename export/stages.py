"""What an export is doing, how long each stage took and how much memory there has been in use."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of an export, as it ended."""

    name: str
    seconds: float
    """Wall time; no stage contains another."""
    peak_mib: float | None
    """Most memory the process has had in use until then; None where the system does not say."""


class Stages:
    """Says on a console when a stage begins and ends, and remembers it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.ended: list[Stage] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time the body; a stage that fails is not among those that ended.

        The body is given what it may tell how much is done, and how much there is in all.
        """
        began = time.monotonic()
        with self.console.status(name) as status:
            yield lambda done, total: status.update(f"{name}: {done} of {total}")
        stage = Stage(name=name, seconds=time.monotonic() - began, peak_mib=peak_mib())
        self.ended.append(stage)
        peak = "" if stage.peak_mib is None else f", peak memory so far {stage.peak_mib:.0f} MiB"
        self.say(f"{name}: {stage.seconds:.1f} s{peak}")

    def say(self, text: str) -> None:
        """Print plain text, whatever brackets are in it."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def peak_mib() -> float | None:
    """Return the most memory this process has had in use so far.

    None on Windows, which Python's standard library cannot ask.
    """
    if sys.platform == "win32":
        return None
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB
