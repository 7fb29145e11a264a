"""One trial's record: what was run, on what, and what came of it, as JSON and back."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from benchmarks.machine import Machine, describe_machine
from mammoclip_sdk import strict_json
from training.provenance import git_commit

RESULTS = Path(__file__).resolve().parent / "results"
"""``NAME.json`` of every trial that `docs/assurance.md` tells of."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often something happened; the page adds Wilson's 95 % interval."""

    name: str
    hits: int
    of: int
    """Cases in which it could have happened."""
    target: str
    """What it was held against, in words; empty where nothing was demanded."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Counts by kind, laid out already."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one program put the software through."""

    title: str
    account: str
    """What was done, and what counts as a failure: one paragraph."""
    command: str
    date: str
    """ISO 8601, UTC."""
    commit: str
    machine: Machine
    executions: int
    cpu_seconds: float
    wall_seconds: float
    peak_mib: float | None
    """Largest resident memory of a process under test; None where it was not measured."""
    slowest_cpu_seconds: float | None
    """Of one execution; None where it was not measured."""
    corpus_files: int
    """Inputs the executions were made from, or that a fuzzer kept."""
    corpus_bytes: int
    open: Mapping[str, int]
    """Failures by kind, such as ``crashes`` and ``hangs``: all 0 in software that is released."""
    rates: tuple[Rate, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    """What a reader must know to read the figures rightly."""


class Circumstances(TypedDict):
    """Where, when and of which state of the software a trial was made."""

    command: str
    date: str
    commit: str
    machine: Machine


def measured_on(command: str) -> Circumstances:
    """Return what `Trial` wants to know beside the figures themselves."""
    return {
        "command": command,
        "date": today(),
        "commit": git_commit(),
        "machine": describe_machine(),
    }


def today() -> str:
    """Return the day, as `Trial.date` has it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def write_trial(trial: Trial, path: Path) -> None:
    """Write a record; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(strict_json.dumps(trial) + "\n", encoding="utf-8")


def read_trial(path: Path) -> Trial:
    """Read a record.

    Raises
    ------
    ValueError
        It is not one that `write_trial` wrote; the message lists every problem.
    """
    value, problems = strict_json.parse(path.read_text(encoding="utf-8"))
    trial = from_plain(value, problems)
    if trial is None or problems:
        raise ValueError(f"{path.name}: found {'; '.join(problems)}; expected a trial's record")
    return trial


def from_plain(value: object, problems: list[str]) -> Trial | None:
    """Return the record that plain JSON values stand for, or None and the problems."""
    return strict_json.from_plain(Trial, value, problems)
