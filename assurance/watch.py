"""Whoever watches the process under test: gives it files, ends it when it hangs, replaces it.

The process is started afresh, never forked: who forks a process with threads tests the fork.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from assurance.reading import READY, Judgement

MOST_WALL_SECONDS = 120.0
"""Before a file counts as a hang; the process itself may use far less of the processor."""
_REPLACED_AFTER = 2_000  # files, so that what one leaves behind cannot hide for ever
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
_GRACE_SECONDS = 5.0
_SPENT = (signal.SIGXCPU, signal.SIGKILL)


PROGRAM = (sys.executable, "-m", "assurance.reading")


class Watched:
    """One process under test and its successors."""

    def __init__(self, good: Path, *, program: Sequence[str] = PROGRAM) -> None:
        self._command = [*program, str(good)]
        self._child: _Child | None = None
        self._served = 0

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._end()

    def judge(self, path: Path, number: int = 0) -> Judgement:
        """Have a file read; a process that dies of it is replaced for the next one."""
        if self._child is not None and self._served >= _REPLACED_AFTER:
            self._end()
        if self._child is None:
            self._child, self._served = _start(self._command), 0
        self._served += 1
        answer = self._child.ask(json.dumps({"path": str(path), "number": number}))
        if answer is None:
            self._end()
            return Judgement(kind="hang", code="wall clock", detail=f"{MOST_WALL_SECONDS:.0f} s")
        if answer:
            return Judgement(**json.loads(answer))
        status, last = self._end()
        if status >= 0:
            return Judgement(kind="crash", code=f"exit {status}", detail=last)
        kind = "hang" if -status in _SPENT else "crash"
        return Judgement(kind=kind, code=signal.Signals(-status).name, detail=last)

    def _end(self) -> tuple[int, str]:
        """Return how the process ended, and the last that it wrote to its standard error."""
        child, self._child = self._child, None
        return child.end() if child else (0, "")


@dataclass(frozen=True, kw_only=True)
class _Child:
    process: subprocess.Popen[str]
    jobs: IO[str]
    answers: IO[str]
    errors: IO[bytes]

    def ask(self, job: str) -> str | None:
        """Return the answer, nothing if the process died of the job, None if it takes too long."""
        try:
            self.jobs.write(job + "\n")
            self.jobs.flush()
        except BrokenPipeError:
            return ""
        if not select.select([self.answers], [], [], MOST_WALL_SECONDS)[0]:
            return None
        return self.answers.readline()

    def end(self) -> tuple[int, str]:
        with suppress(BrokenPipeError):
            self.jobs.close()  # it ends by itself, unless it hangs
        try:
            status = self.process.wait(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.answers.close()
        with self.errors:
            self.errors.seek(0)
            return status, self.errors.read()[-2000:].decode("utf-8", "replace")


def _start(command: Sequence[str]) -> _Child:
    errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the child
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | _ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("found no pipes to the process under test; expected both")
    child = _Child(process=process, jobs=process.stdin, answers=process.stdout, errors=errors)
    if child.answers.readline().strip() != READY:
        status, last = child.end()
        raise RuntimeError(f"found no process under test, but exit {status}; expected one. {last}")
    return child
