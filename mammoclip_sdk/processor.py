"""The processor, as this process may use it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def cores() -> int:
    """Return on how many cores this process may run; containers and schedulers often allow few."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Do the work of every item on all cores; return what comes of it, in their order.

    The calling thread works too, beside one more thread for each further core. Were it to wait for
    as many as there are items, the kernel would often put two of them on one core, and leave them
    there for longer than the work takes.

    Raises
    ------
    Exception
        What the work of the first item raised for which it raised anything; that of the others is
        done none the less.
    """
    outcomes: list[Future[_Result]] = []
    waiting: deque[tuple[Future[_Result], _Item]] = deque()
    for item in items:
        outcomes.append(Future())
        waiting.append((outcomes[-1], item))

    def take_turns() -> None:
        while True:
            try:
                outcome, item = waiting.popleft()
            except IndexError:
                return
            try:
                outcome.set_result(work(item))
            except BaseException as exc:  # raised below, in the caller's thread
                outcome.set_exception(exc)

    others = min(len(outcomes), cores()) - 1
    if others < 1:
        take_turns()
    else:
        with ThreadPoolExecutor(others) as pool:
            for _ in range(others):
                pool.submit(take_turns)
            take_turns()
    return [outcome.result() for outcome in outcomes]
