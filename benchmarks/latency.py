"""Four views through the PyTorch reference and through every session there is, side by side.

``python benchmarks/latency.py`` runs the contenders in turn, one exam each, round after round, so
that whatever else the machine does hits all of them. It writes ``latency.json`` and
``latency.md`` into ``benchmarks/results`` and the tables into ``docs/figures.md``.

Excluded from the times: loading, text embeddings, and everything before the tensor; what reading
and preprocessing cost is measured separately, stage by stage, on the example exam. The reference
runs on the processor.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from benchmarks.figures import publish
from benchmarks.latency_report import REST_S, Case, LatencySettings, Report, Timing, to_markdown
from benchmarks.machine import command_line, describe_machine
from mammoclip_sdk.bundle import Bundle, read_bundle
from mammoclip_sdk.bundle.graphs import has_graph
from mammoclip_sdk.errors import DeviceError
from mammoclip_sdk.golden import read_golden, run_golden
from mammoclip_sdk.predictor import DEMO_BUNDLE, DEMO_EXAM, Predictor
from mammoclip_sdk.sessions import RUNS, Session, open_session
from training.demo_model import DEMO
from training.model import MammoClip
from training.saved_model import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


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
    golden = [None, *(run_golden(bundle, session) for session in sessions)]
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
                worst_difference=result.worst_difference if result else None,
                quantity=result.quantity if result else None,
            )
            for contender, mine, result in zip(contenders, times, golden, strict=True)
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
            time.sleep(REST_S)
            start = time.perf_counter()
            contender()
            if number >= 0:
                times[row, number] = (time.perf_counter() - start) * 1e3
    return times


def _open_sessions(bundle: Bundle, threads: int | None) -> tuple[list[Session], dict[str, str]]:
    sessions, skipped = [], {}
    pairs = ((device, precision) for device, runs in RUNS.items() for precision in runs)
    for device, precision in pairs:
        if not has_graph(bundle, precision):
            continue
        try:
            session = open_session(bundle, device, precision=precision, threads=threads)
        except DeviceError as error:
            skipped[f"{device} in {precision}"] = error.found
        else:
            sessions.append(session)
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


def _vit_case(rounds: int, threads: int | None, bundle: Path | None) -> Case:
    """Compare on ViT-B/16 with random weights: on a bundle that is made now, or was before."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        settings = ("--model", "ViT-B-16", "--seed", str(DEMO.seed))
        _run("-m", "export.random_checkpoint", *settings, "--out", str(checkpoint))
        if bundle is None:
            bundle = Path(folder) / "bundle"
            script = str(ROOT / "export" / "build_engine.py")
            _run(script, "--checkpoint", str(checkpoint), "--out", str(bundle))
        return compare(
            load_checkpoint(checkpoint).model,
            read_bundle(bundle),
            name="ViT-B/16, 224 x 224, 2 local and 10 global blocks",
            weights=f"random, seed {DEMO.seed}",
            rounds=rounds,
            threads=threads,
        )


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


def _stages(rounds: int) -> dict[str, float]:
    with Predictor() as predictor:
        timings = [asdict(predictor.predict(DEMO_EXAM).timing) for _ in range(rounds + 1)][1:]
    return {stage: float(np.median([t[stage] for t in timings])) for stage in timings[0]}


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
    vit_bundle: Annotated[
        Path | None,
        typer.Option(help="Bundle of the ViT-B/16 that is measured, if it was made before."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    documents: Annotated[bool, typer.Option(help="Write the tables into the documents.")] = True,
) -> None:
    """Measure, print and write the latency report."""
    report = Report(
        command=command_line("benchmarks/latency.py", sys.argv[1:]),
        settings=LatencySettings(rounds=rounds, vit_rounds=vit_rounds, threads=threads),
        machine=describe_machine(),
        cases=(_demo_case(rounds, threads), _vit_case(vit_rounds, threads, vit_bundle)),
        stages_ms=_stages(rounds),
    )
    text = to_markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    (out / "latency.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    (out / "latency.md").write_text("# Latency\n\n" + text)
    if documents:
        publish("latency", text)
    Console().print(text, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
