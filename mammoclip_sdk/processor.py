"""The processor, as this process may use it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
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
        done none the less. `KeyboardInterrupt` and the like end it when no thread is at work.
    """
    turns: list[tuple[Future[_Result], _Item]] = [(Future(), item) for item in items]
    waiting = deque(turns)
    others = min(len(turns), cores()) - 1
    if others < 1:
        _take(waiting, work)
    else:
        with ThreadPoolExecutor(others) as pool:
            with suppress(RuntimeError):  # no thread to be had: none is needed
                for _ in range(others):
                    pool.submit(_take, waiting, work)
            _take(waiting, work)
    # An error holds the frames it passed; were one of them to hold the error, what their variables
    # hold, whole images, would stay until the next collection of garbage.
    results = []
    turns.reverse()
    try:
        while turns:
            results.append(turns.pop()[0].result())
    finally:
        turns.clear()
    return results


def _take(waiting: deque[tuple[Future[_Result], _Item]], work: Callable[[_Item], _Result]) -> None:
    """Do the work of one item after the other, until none waits."""
    while True:
        try:
            outcome, item = waiting.popleft()
        except IndexError:
            return
        try:
            result = work(item)
        except BaseException as exc:
            outcome.set_exception(exc)
            del outcome  # see above
            if not isinstance(exc, Exception):  # an interrupt, which ends all of it
                with suppress(IndexError):
                    while True:
                        waiting.popleft()[0].cancel()
                raise
        else:
            outcome.set_result(result)
