"""What a run of ``benchmarks/reading.py`` measured, and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.machine import Machine
from mammoclip_sdk.exam import VIEWS


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """Settings of one run."""

    rounds: int = 7
    rows: int = 4096
    columns: int = 3328


@dataclass(frozen=True, kw_only=True)
class Row:
    """One piece of work, by the reference and by this software."""

    work: str
    reference_ms: float | None
    """Median; None where the reference cannot do it."""
    ours_ms: float
    ratio: float | None
    goal: float | None
    note: str = ""
    """Why the reference was not measured."""


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Four views on one and on two processor cores, from their files to the tensor."""

    syntax: str
    one_ms: float
    two_ms: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peak of a process above what it had before, in decoded views."""

    syntax: str
    one_view: float
    four_views: float
    """Divided by four."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything one run measured."""

    command: str
    settings: ReadingSettings
    machine: Machine
    plugins: Mapping[str, str]
    """Decoders of pydicom's that are installed, with their versions."""
    rows: tuple[Row, ...]
    cores: tuple[Cores, ...]
    memory: tuple[Memory, ...]
    headers: int
    headers_per_second: float


def to_markdown(report: Report) -> str:
    """Lay the report out as tables."""
    plugins = ", ".join(f"{name} {version}" for name, version in report.plugins.items())
    settings = report.settings
    lines = [
        f"`{report.command}`, {report.machine.line()}, {plugins or 'no plugin of pydicom'}",
        "",
        f"One view of {settings.rows} x {settings.columns} pixels, 12 bits, on one core; median of "
        f"{settings.rounds} rounds. The reference is pydicom's pixel_array and apply_voi_lut, a "
        "mask by NumPy and Pillow's box resize. Of JPEG 2000 the view is one that is decoded but "
        "once; benchmarks/results/reduction.md says how many are, and how exact they come out.",
        "",
        "| work | reference ms | mammoclip-sdk ms | times as fast | goal |",
        "|---|---|---|---|---|",
    ]
    for row in report.rows:
        reference = row.note if row.reference_ms is None else f"{row.reference_ms:.1f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        goal = "" if row.goal is None else f"{row.goal:g}"
        lines.append(f"| {row.work} | {reference} | {row.ours_ms:.1f} | {ratio} | {goal} |")
    lines += [
        "",
        "Four views, from their files to the tensor, a thread for each core.",
        "",
        "| syntax | one core ms | two cores ms | times as fast |",
        "|---|---|---|---|",
    ]
    for cores in report.cores:
        lines.append(
            f"| {cores.syntax} | {cores.one_ms:.1f} | {cores.two_ms:.1f} | {cores.ratio:.2f} |"
        )
    lines += [
        "",
        "Peak memory above what the process had, in decoded views for each view that is read at "
        "once.",
        "",
        "| syntax | one view | four views, each |",
        "|---|---|---|",
    ]
    for memory in report.memory:
        lines.append(f"| {memory.syntax} | {memory.one_view:.2f} | {memory.four_views:.2f} |")
    lines += [
        "",
        f"A folder of {report.headers} files of {report.headers // len(VIEWS)} studies is scanned "
        f"on two cores, from a warm cache, at {report.headers_per_second:.0f} headers a second.",
    ]
    return "\n".join(lines) + "\n"
