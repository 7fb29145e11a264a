"""The headers of many files, read in several processes.

A child process runs this package alone, started as ``python -c`` with a pipe at either end. The
ways of ``multiprocessing`` do not fit a library: ``spawn`` and ``forkserver`` run the caller's
script again in every child, which loops in one without ``if __name__ == "__main__"``; ``fork``
copies locks that other threads hold. Threads do not help, as header reading is Python throughout.
This process reads along, so that little work starts no child, and a child that cannot start, or
dies, costs time alone: what it was given is read here.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from mammoclip_sdk.exam import Acceptance
from mammoclip_sdk.interpreter import child_command
from mammoclip_sdk.processor import cores
from mammoclip_sdk.views.folder import FoundFile, examine

_CHUNK = 32
"""Files handed to a process at a time: some 30 ms of work, 50 times what handing over costs."""
_WORTH_A_CHILD = 400
"""Files for each process, below which starting one takes longer than reading them here."""

_Job = tuple[str, Path]
Progress = Callable[[int, int], None]


def read_headers(
    jobs: list[tuple[str, Path]],
    acceptance: Acceptance,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[FoundFile]:
    """Return what every file is, in the order of the jobs.

    Parameters
    ----------
    jobs
        Name and path of each file.
    acceptance
        Which images may be scored.
    workers
        Most processes to read with, this one included; None takes one for each core.
    progress
        Called from this thread with the number of files read and of all files.
    """
    processes = min(workers or cores(), max(1, len(jobs) // _WORTH_A_CHILD))
    return _Reading(jobs, acceptance).run(processes, progress or (lambda _done, _total: None))


class _Reading:
    """Files that are being read by this process and its children."""

    def __init__(self, jobs: list[_Job], acceptance: Acceptance) -> None:
        self._jobs = jobs
        self._acceptance = acceptance
        self._starts = deque(range(0, len(jobs), _CHUNK))
        self._found: dict[int, list[FoundFile]] = {}

    def run(self, processes: int, progress: Progress) -> list[FoundFile]:
        """Return what every file is, in the order of the jobs."""
        total = len(self._jobs)

        def report() -> None:
            progress(min(len(self._found) * _CHUNK, total), total)

        with _children(processes - 1) as children, ThreadPoolExecutor(processes) as pool:
            fed = {pool.submit(self._feed, child) for child in children}
            try:
                while self._starts or fed:
                    if self._starts:
                        self._read_some()
                    else:
                        _, fed = wait(fed, timeout=0.1, return_when=FIRST_COMPLETED)
                    report()
            finally:  # the caller's progress may raise
                self._starts.clear()
        return [file for start in sorted(self._found) for file in self._found[start]]

    def _read_some(self) -> None:
        try:
            start = self._starts.popleft()
        except IndexError:  # a child took it
            return
        self._found[start] = _examined(self._chunk(start), self._acceptance)

    def _feed(self, child: subprocess.Popen[bytes]) -> None:
        """Let a child read until nothing is left, or it is gone."""
        while True:
            try:
                start = self._starts.popleft()
            except IndexError:
                return
            try:
                self._found[start] = _ask(child, (self._chunk(start), self._acceptance))
            except Exception:  # however a child may end, its files are read here
                self._starts.append(start)
                return

    def _chunk(self, start: int) -> list[_Job]:
        return self._jobs[start : start + _CHUNK]


def _examined(jobs: list[_Job], acceptance: Acceptance) -> list[FoundFile]:
    return [examine(name, path, acceptance) for name, path in jobs]


@contextmanager
def _children(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start processes that `serve`; none where no interpreter is known."""
    known = child_command("views.header_reading")
    commands = [known] * count if known else []
    children: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with suppress(OSError):
                children.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                    )
                )
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _ask(child: subprocess.Popen[bytes], question: object) -> list[FoundFile]:
    questions, answers = cast("IO[bytes]", child.stdin), cast("IO[bytes]", child.stdout)
    pickle.dump(question, questions)
    questions.flush()
    answer: list[FoundFile] = pickle.load(answers)  # noqa: S301  (of a child of our own)
    return answer


def serve() -> None:
    """Be a child of `scan`: answer lists of files with what they are, until the pipe ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between the answers
    while True:
        try:
            jobs, acceptance = pickle.load(sys.stdin.buffer)  # noqa: S301  (of the parent)
        except EOFError:
            return
        pickle.dump(_examined(jobs, acceptance), answers)
        answers.flush()
