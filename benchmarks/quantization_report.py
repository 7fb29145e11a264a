"""What one comparison of quantization tools measured, and the tables that say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One tool's graph in one runtime, against the float32 graph in ONNX Runtime."""

    tool: str
    runtime: str
    megabytes: float
    worst_probability: float
    """Largest absolute difference over the exams; `worst_logit` alike, of any prompt."""
    worst_logit: float
    worst_cosine: float
    """Largest 1 - cosine of two embeddings of an exam."""
    auc: float
    """Absolute difference."""
    median_ms: float
    speedup: float
    """Median of the float32 graph in ONNX Runtime divided by this one's."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bundle's graph through every tool."""

    model: str
    bundle_sha256: str
    exams: int
    calibration_exams: int
    rounds: int
    threads: int
    absent: tuple[str, ...]
    """What could not be compared, and why."""
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything one run measured."""

    command: str
    machine: Machine
    cases: tuple[Case, ...]


def to_markdown(report: Report) -> str:
    """Lay the report out as tables, with everything one needs to judge the numbers."""
    lines = [f"`{report.command}`, {report.machine.line()}", ""]
    for case in report.cases:
        lines += _case_lines(case)
    lines += [
        "Differences are the worst over the exams, of the bundle's first finding, against the "
        "float32 graph in ONNX Runtime. Without further words OpenVINO computes in float32 what is "
        "not in eight bits. Times are of one exam of four views, all contenders in turn."
    ]
    return "\n".join(lines) + "\n"


def _case_lines(case: Case) -> Iterator[str]:
    yield (
        f"**{case.model}** (bundle `{case.bundle_sha256[:12]}`; {case.exams} phantoms, calibrated "
        f"on {case.calibration_exams} others; {case.rounds} rounds, {case.threads} threads)"
    )
    yield ""
    yield (
        "| tool | runtime | MB | worst probability | worst logit | worst 1 - cosine | AUC | "
        "median ms | times as fast |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in case.judgements:
        yield (
            f"| {one.tool} | {one.runtime} | {one.megabytes:.1f} | {one.worst_probability:.4f} | "
            f"{one.worst_logit:.3f} | {one.worst_cosine:.1e} | {one.auc:.4f} | "
            f"{one.median_ms:.1f} | {one.speedup:.2f} |"
        )
    yield ""
    if case.absent:
        yield f"Not compared: {'; '.join(case.absent)}."
        yield ""
