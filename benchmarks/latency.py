"""Four views through the PyTorch reference and through every session there is, side by side.

``python benchmarks/latency.py`` runs the contenders in turn, one exam each, round after round, so
that whatever else the machine does hits all of them. It writes ``latency.json`` and
``latency.md`` into ``benchmarks/results`` and the table into the README.

Excluded from the times: loading, text embeddings, and everything before the tensor; what reading
and preprocessing cost is measured separately, stage by stage, on the example exam. The reference
runs on the processor.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from benchmarks.machine import Machine, describe_machine
from benchmarks.readme import write_region
from mammoclip_sdk.bundle import Bundle, read_bundle
from mammoclip_sdk.errors import DeviceError
from mammoclip_sdk.exam import PLAIN
from mammoclip_sdk.golden import read_golden, run_golden
from mammoclip_sdk.predictor import DEMO_BUNDLE, DEMO_EXAM, Predictor
from mammoclip_sdk.sessions import DEVICES, Session, open_session
from training.adapters import AdapterConfig
from training.checkpoint import Provenance, TrainedFinding
from training.demo_model import DEMO
from training.model import MammoClip, ModelConfig, save_checkpoint

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_ADAPTER = AdapterConfig(
    rank=None, activation="gelu", placement="mlp", connection="serial", scale=1.0
)
VIT_B_16 = ModelConfig(
    open_clip_model="ViT-B-16",
    pretrained=None,
    image_size=(224, 224),
    n_local=2,
    image_adapter=_ADAPTER,
    text_adapter=_ADAPTER,
)


_REST_S = 0.05
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
    worst_logit_difference: float | None
    """Over the bundle's golden exams, against the answers of PyTorch in float32 that the bundle
    holds, whatever weights the reference is timed with; None for PyTorch itself."""


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


def compare(
    model: MammoClip, bundle: Bundle, *, name: str, weights: str, rounds: int, threads: int | None
) -> Case:
    """Time the reference and every session that opens, in turn, on the first golden exam.

    Parameters
    ----------
    model : MammoClip
        The reference: as trained, not folded, float32, in evaluation mode.
    """
    exam = read_golden(bundle).views[:1]
    sessions, skipped = _open_sessions(bundle, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    contenders: dict[str, Callable[[], object]] = {
        f"PyTorch {torch.__version__}, CPU, float32": _reference(model, exam)
    }
    for session in sessions:
        contenders[f"{session.runtime}, {session.precision}"] = _runner(session, exam)
    differences = [None, *(run_golden(bundle, session).worst_difference for session in sessions)]
    times = time_in_turn(list(contenders.values()), rounds=rounds, what=name)
    reference = float(np.median(times[0]))
    for session in sessions:
        session.close()
    return Case(
        model=name,
        bundle_sha256=bundle.sha256,
        weights=weights,
        rounds=rounds,
        threads=threads,
        skipped=skipped,
        timings=tuple(
            Timing(
                contender=contender,
                median_ms=float(np.median(mine)),
                p95_ms=float(np.percentile(mine, 95)),
                speedup=reference / float(np.median(mine)),
                worst_logit_difference=difference,
            )
            for contender, mine, difference in zip(contenders, times, differences, strict=True)
        ),
    )


def time_in_turn(
    contenders: list[Callable[[], object]], *, rounds: int, what: str
) -> NDArray[np.float64]:
    """Call every contender once a round, after three rounds of warm-up; (contenders, rounds) ms.

    Between two calls the machine rests: the threads of one runtime spin for a while after a run,
    and would take the processor from the next.
    """
    times = np.zeros((len(contenders), rounds))
    for number in track(range(-3, rounds), description=what):
        for row, contender in enumerate(contenders):
            time.sleep(_REST_S)
            start = time.perf_counter()
            contender()
            if number >= 0:
                times[row, number] = (time.perf_counter() - start) * 1e3
    return times


def _open_sessions(bundle: Bundle, threads: int | None) -> tuple[list[Session], dict[str, str]]:
    sessions, skipped = [], {}
    for device in DEVICES:
        if device == "auto":
            continue
        try:
            sessions.append(open_session(bundle, device, threads=threads))
        except DeviceError as error:
            skipped[device] = error.found
    return sessions, skipped


def _reference(model: MammoClip, exam: NDArray[np.float32]) -> Callable[[], object]:
    views = torch.from_numpy(exam)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model.encode_exam(views)

    return run


def _runner(session: Session, exam: NDArray[np.float32]) -> Callable[[], object]:
    return lambda: session.run({"views": exam})


def _demo_case(rounds: int, threads: int | None) -> Case:
    """Compare on the shipped bundle; time does not depend on the reference's weights."""
    torch.manual_seed(DEMO.seed)
    return compare(
        MammoClip(DEMO.model).eval(),
        read_bundle(DEMO_BUNDLE),
        name="demo model",
        weights="the shipped bundle's; PyTorch is timed with random ones of the same shape",
        rounds=rounds,
        threads=threads,
    )


def _vit_case(rounds: int, threads: int | None) -> Case:
    torch.manual_seed(DEMO.seed)
    model = MammoClip(VIT_B_16).eval()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, bundle = Path(folder) / "checkpoint", Path(folder) / "bundle"
        save_checkpoint(
            checkpoint,
            model,
            settings={},
            report={},
            provenance=Provenance(git_commit="", seed=DEMO.seed, command="random weights"),
            preprocessing=replace(DEMO.preprocessing, height=224, width=224),
            acceptance=PLAIN,
            findings=[
                TrainedFinding(
                    name="malignancy", negative_prompt="no cancer", positive_prompt="cancer"
                )
            ],
            intended_use="Measuring latency. Not for clinical use.",
        )
        subprocess.run(
            [
                sys.executable,
                str(ROOT / "export" / "build_engine.py"),
                "--checkpoint",
                str(checkpoint),
                "--out",
                str(bundle),
            ],
            check=True,
        )
        return compare(
            model,
            read_bundle(bundle),
            name="ViT-B/16, 224 x 224, 2 local and 10 global blocks",
            weights=f"random, seed {DEMO.seed}",
            rounds=rounds,
            threads=threads,
        )


def _stages(rounds: int) -> dict[str, float]:
    with Predictor() as predictor:
        timings = [asdict(predictor.predict(DEMO_EXAM).timing) for _ in range(rounds + 1)][1:]
    return {stage: float(np.median([t[stage] for t in timings])) for stage in timings[0]}


def _threads_text(threads: int | None) -> str:
    if threads is None:
        return "each contender takes as many threads as it does by itself"
    return f"{threads} threads for each contender"


def to_markdown(report: Report) -> str:
    """Lay the report out as tables, with everything one needs to judge the numbers."""
    lines = [f"`{report.command}`, {report.machine.line()}", ""]
    for case in report.cases:
        lines += [
            f"**{case.model}** (weights: {case.weights}; bundle `{case.bundle_sha256[:12]}`; "
            f"{case.rounds} rounds; {_threads_text(case.threads)})",
            "",
            "| contender | median ms | p95 ms | times as fast | worst logit difference |",
            "|---|---|---|---|---|",
        ]
        for timing in case.timings:
            difference = timing.worst_logit_difference
            lines.append(
                f"| {timing.contender} | {timing.median_ms:.1f} | {timing.p95_ms:.1f} | "
                f"{timing.speedup:.2f} | {'' if difference is None else f'{difference:.1e}'} |"
            )
        if case.skipped:
            skipped = "; ".join(f"{device}: {why}" for device, why in case.skipped.items())
            lines += ["", f"Not measured: {skipped}."]
        lines.append("")
    lines += [
        "The difference of a logit is the worst over the bundle's golden exams, against the "
        "answers of PyTorch in float32 that the exporter stored in the bundle. Before each timed "
        f"call the machine rests {_REST_S * 1e3:.0f} ms, as a workstation does between exams: a "
        "small model then pays for waking up.",
        "",
    ]
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in report.stages_ms.items())
    lines += [
        "One exam from files to probability with the demo model, one after the other without a "
        f"rest, median ms: {stages}."
    ]
    return "\n".join(lines) + "\n"


def main(
    rounds: Annotated[
        int, typer.Option(min=1, help="Exams for each contender, demo model.")
    ] = LatencySettings.rounds,
    vit_rounds: Annotated[
        int, typer.Option(min=1, help="Exams for each contender, ViT-B/16.")
    ] = LatencySettings.vit_rounds,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads of each; else its own default.")
    ] = LatencySettings.threads,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    readme: Annotated[bool, typer.Option(help="Write the table into the README.")] = True,
) -> None:
    """Measure, print and write the latency report."""
    report = Report(
        command=shlex.join(["python", "benchmarks/latency.py", *sys.argv[1:]]),
        settings=LatencySettings(rounds=rounds, vit_rounds=vit_rounds, threads=threads),
        machine=describe_machine(),
        cases=(_demo_case(rounds, threads), _vit_case(vit_rounds, threads)),
        stages_ms=_stages(rounds),
    )
    text = to_markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    (out / "latency.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    (out / "latency.md").write_text("# Latency\n\n" + text)
    if readme:
        write_region(ROOT / "README.md", "latency", text)
    Console().print(text, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
