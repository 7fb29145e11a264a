"""A folder of many studies -> the exams in it, read by header in several processes.

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
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from mammoclip_sdk.errors import InputError
from mammoclip_sdk.exam import PLAIN, Acceptance, Exam
from mammoclip_sdk.folder import FoundFile, examine, list_files, without_rejected
from mammoclip_sdk.interpreter import child_command
from mammoclip_sdk.views import exam_of

_CHUNK = 32
"""Files handed to a process at a time: some 30 ms of work, 50 times what handing over costs."""
_WORTH_A_CHILD = 400
"""Files for each process, below which starting one takes longer than reading them here."""

_Job = tuple[str, Path]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Incomplete:
    """A study that did not become an exam."""

    name: str
    """Its folder, or its first file where that folder holds other studies too."""
    files: tuple[str, ...]
    error: InputError


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that is no candidate for a view, or a folder that was not searched."""

    name: str
    error: InputError


@dataclass(frozen=True, kw_only=True)
class Archive:
    """What a folder holds; names are paths below it, and everything is in their order."""

    exams: tuple[Exam, ...]
    incomplete: tuple[Incomplete, ...]
    skipped: tuple[Skipped, ...]


def scan(
    folder: str | os.PathLike[str],
    *,
    strict: bool = False,
    acceptance: Acceptance = PLAIN,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Archive:
    """Find the exams in a folder with any number of studies; no pixel is decoded.

    Parameters
    ----------
    folder
        Searched with its subfolders. Studies are told apart by Study Instance UID and Patient ID,
        wherever their files lie.
    strict, acceptance
        As for `views.read_exam`; a study that does not meet them is incomplete. A damaged file
        that does not say its study is told in the notes of every exam with images in its folder;
        with ``strict`` those studies are incomplete.
    workers
        Most processes to read with, this one included; None takes one for each core.
    progress
        Called from this thread with the number of files read and of all files.

    Raises
    ------
    ExamError
        It is no folder.
    ValueError
        ``workers`` is less than 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; expected 1 or more")
    jobs, unsearched = list_files(folder, holding="the DICOM files of any number of studies")
    processes = min(workers or _cores(), max(1, len(jobs) // _WORTH_A_CHILD))
    read = _Reading(jobs, acceptance).run(processes, progress or (lambda _done, _total: None))
    files = unsearched + without_rejected(read)
    studies = _studies(files)
    damaged = _damaged(files)
    exams: list[Exam] = []
    incomplete: list[Incomplete] = []
    for name, study in zip(_names(studies), studies, strict=True):
        beside = [file for place in {_place(file) for file in study} for file in damaged[place]]
        try:
            exams.append(exam_of([*study, *beside], strict=strict))
        except InputError as error:
            members = tuple(file.name for file in study)
            incomplete.append(Incomplete(name=name, files=members, error=error))
    return Archive(
        exams=tuple(exams),
        incomplete=tuple(incomplete),
        skipped=tuple(Skipped(name=file.name, error=file.error) for file in files if file.error),
    )


def _studies(files: list[FoundFile]) -> list[list[FoundFile]]:
    """Group by Study Instance UID what has at least one candidate for a view."""
    studies: dict[str, list[FoundFile]] = {}
    for file in files:
        if file.study is not None:
            studies.setdefault(file.study, []).append(file)
    return [study for study in studies.values() if any(file.mammogram for file in study)]


def _names(studies: list[list[FoundFile]]) -> list[str]:
    """Name each study by its folder, or by its first file where that says too little."""
    places = [os.path.commonpath([_place(file) for file in study]) or "." for study in studies]
    counts = Counter(places)
    return [
        place if counts[place] == 1 else study[0].name
        for place, study in zip(places, studies, strict=True)
    ]


def _damaged(files: list[FoundFile]) -> defaultdict[str, list[FoundFile]]:
    """Return what might be a missing image of any study beside it, by folder."""
    damaged: defaultdict[str, list[FoundFile]] = defaultdict(list)
    for file in files:
        if file.maybe_meant and file.study is None:
            damaged[_place(file)].append(file)
    return damaged


def _place(file: FoundFile) -> str:
    return str(PurePosixPath(file.name).parent).removeprefix(".")


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


def _cores() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _children(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start processes that `serve`; none where no interpreter is known."""
    known = child_command("archive")
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
