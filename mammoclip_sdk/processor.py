"""The processor, as this process may use it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def cores() -> int:
    """Return on how many cores this process may run; containers and schedulers often allow few."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Do the work of every item, a thread for each core; return what comes of it, in their order.

    Not by more: of three threads on two cores, the kernel often leaves two to share one of them for
    longer than the work takes.

    Raises
    ------
    Exception
        What the work of the first item raised for which it raised anything.
    """
    items = list(items)
    threads = min(len(items), cores())
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        try:
            results = pool.map(work, items)
        except RuntimeError:  # no thread to be had, as while the interpreter ends
            return [work(item) for item in items]
        return list(results)
