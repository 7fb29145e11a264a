"""What one latency run measured, and the tables that say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.machine import Machine

REST_S = 0.05
"""Pause before each timed call, seconds: longer than a runtime's idle threads spin."""


@dataclass(frozen=True, kw_only=True)
class LatencySettings:
    """Settings of one run."""

    rounds: int = 100
    """Exams for each contender, demo model."""
    vit_rounds: int = 20
    """Exams for each contender, ViT-B/16."""
    threads: int | None = None
    """Processor threads of each contender; None is what each runtime takes by itself."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One contender's times for one exam of four views."""

    contender: str
    median_ms: float
    p95_ms: float
    speedup: float
    """The reference's median divided by this one's."""
    worst_difference: float | None
    """Over the bundle's golden exams, against the answers of PyTorch in float32 that the bundle
    holds, whatever weights the reference is timed with; None for PyTorch itself."""
    quantity: str | None
    """What it is a difference of: ``logit`` or ``probability``."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model on every contender."""

    model: str
    bundle_sha256: str
    weights: str
    rounds: int
    threads: int | None
    timings: tuple[Timing, ...]
    skipped: Mapping[str, str]
    """Devices without a session here, and why."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything one run measured."""

    command: str
    settings: LatencySettings
    machine: Machine
    cases: tuple[Case, ...]
    stages_ms: Mapping[str, float]
    """Median of each stage of `Predictor.predict` on the example exam, files on disk, warm."""


def absences(reasons: Mapping[str, str]) -> str:
    """Say why each device in each precision has no figure, a reason once for all that share it."""
    sharing: dict[str, list[str]] = {}
    for one, reason in reasons.items():
        sharing.setdefault(reason.rstrip("."), []).append(one)
    return "; ".join(f"{', '.join(ones)}: {reason}" for reason, ones in sharing.items())


def to_markdown(report: Report) -> str:
    """Lay the report out as tables, with everything one needs to judge the numbers."""
    lines = [f"`{report.command}`, {report.machine.line()}", ""]
    for case in report.cases:
        lines += [
            f"**{case.model}** (weights: {case.weights}; bundle `{case.bundle_sha256[:12]}`; "
            f"{case.rounds} rounds; {_threads_text(case.threads)})",
            "",
            "| contender | median ms | p95 ms | times as fast | worst difference |",
            "|---|---|---|---|---|",
        ]
        for timing in case.timings:
            difference = timing.worst_difference
            apart = "" if difference is None else f"{difference:.1e} of a {timing.quantity}"
            lines.append(
                f"| {timing.contender} | {timing.median_ms:.1f} | {timing.p95_ms:.1f} | "
                f"{timing.speedup:.2f} | {apart} |"
            )
        if case.skipped:
            lines += ["", f"Not measured: {absences(case.skipped)}."]
        lines.append("")
    lines += [
        "The difference is the worst over the bundle's golden exams, against the "
        "answers of PyTorch in float32 that the exporter stored in the bundle. Before each timed "
        f"call the machine rests {REST_S * 1e3:.0f} ms, as a workstation does between exams: a "
        "small model then pays for waking up.",
        "",
    ]
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in report.stages_ms.items())
    lines += [
        "One exam from files to probability with the demo model, one after the other without a "
        f"rest, median ms: {stages}."
    ]
    return "\n".join(lines) + "\n"


def _threads_text(threads: int | None) -> str:
    if threads is None:
        return "each contender takes as many threads as it does by itself"
    return f"{threads} threads for each contender"
