"""`processor`: work that is done side by side, by as many threads as there are cores."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from contextlib import suppress

import pytest

from mammoclip_sdk import processor
from mammoclip_sdk.processor import side_by_side


@pytest.fixture(params=[1, 2, 3, 8])
def allowed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count: int = request.param
    monkeypatch.setattr(processor, "cores", lambda: count)
    return count


@pytest.mark.parametrize("number", range(6))
def test_results_come_in_the_order_of_the_items(allowed: int, number: int) -> None:
    del allowed
    assert side_by_side(lambda item: item * item, range(number)) == [n * n for n in range(number)]


def test_each_core_has_one_thread_and_the_caller_is_one_of_them(allowed: int) -> None:
    together = min(allowed, 4)
    meeting = threading.Barrier(together, timeout=20)  # passed only by so many at once

    def meet(_: int) -> threading.Thread:
        if together > 1:
            meeting.wait()
        return threading.current_thread()

    threads = side_by_side(meet, range(4 - 4 % together))
    assert threading.current_thread() in threads
    assert len(set(threads)) == together


def test_the_first_items_error_is_raised_when_all_work_is_done(allowed: int) -> None:
    del allowed
    done = []

    def work(item: int) -> None:
        done.append(item)
        if item in (1, 2):
            raise ValueError(f"of {item}")

    with pytest.raises(ValueError, match="of 1"):
        side_by_side(work, range(5))
    assert sorted(done) == list(range(5))


def test_an_error_keeps_nothing_alive_once_it_is_dealt_with(allowed: int) -> None:
    del allowed

    class Image:
        """Stands for megabytes."""

    held: list[weakref.ref[Image]] = []

    def work(item: int) -> None:
        image = Image()
        held.append(weakref.ref(image))
        if item > 1:
            raise ValueError("damaged")

    gc.disable()
    try:
        with suppress(ValueError):
            side_by_side(work, range(5))
        assert len(held) == 5
        assert [image() for image in held] == [None] * 5
    finally:
        gc.enable()


def test_an_interrupt_ends_the_work_and_is_not_lost_behind_an_error(allowed: int) -> None:
    caller, interrupted = threading.current_thread(), threading.Event()
    started = []

    def work(item: int) -> None:
        started.append(item)
        if threading.current_thread() is not caller:
            assert interrupted.wait(20)
        elif item == 0:
            raise ValueError("of 0")
        else:
            interrupted.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, range(1000))
    assert started == [0, 1] if allowed == 1 else len(started) < 1000


def test_without_another_thread_the_caller_does_all_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(processor, "cores", lambda: 4)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert side_by_side(lambda item: item + 1, range(4)) == [1, 2, 3, 4]


def test_no_more_cores_are_used_than_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert processor.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processor.cores() == 1
