"""Coverage-guided fuzzing of everything that parses a header, with atheris (libFuzzer for Python).

``python -m assurance.gate_fuzz --seconds 600`` starts the fuzzer as a process of its own and writes
the record. Atheris is no dependency: ``pip install atheris`` on Linux, where it has wheels.
"""

from __future__ import annotations

import importlib.util
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from assurance.corpus import make_corpus
from assurance.trial import RESULTS, Trial, measured_on, write_trial
from training.encodings import TRANSFER_SYNTAXES

_WHOLE = bytes([255])
"""Before an input that is a whole file; another byte is the place of a dataset's syntax."""
_STATISTIC = re.compile(r"stat::(\w+):\s+(\d+)")
_FINDINGS = {"crash": "crashes", "timeout": "hangs", "oom": "memory", "leak": "leaks"}
"""What libFuzzer calls the inputs that it keeps, and what that means."""
_UNBURDENED = ("sh", "-c", '"$@"; exit $?', "sh")
"""A process is born with the peak memory of its parent, which libFuzzer would take for its own."""
_TIMEOUT_S = 30  # of the wall; a busy machine must not look like a hang


def available() -> bool:
    """Return whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def run(seconds: int, *, keep: Path) -> Trial:
    """Fuzz for some time and return the record.

    Parameters
    ----------
    keep
        Folder for inputs that lead to a failure.
    """
    if not available():
        raise RuntimeError("found no atheris; expected it installed. pip install atheris.")
    keep.mkdir(parents=True, exist_ok=True)
    known = {path.name for path in keep.iterdir()}
    started, before = time.perf_counter(), _children_seconds()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        _plant(corpus)
        fuzzer = subprocess.run(
            [
                *_UNBURDENED,
                *(sys.executable, "-m", "assurance.gate_target", str(corpus)),
                *(f"-max_total_time={seconds}", f"-timeout={_TIMEOUT_S}", "-rss_limit_mb=1024"),
                *("-print_final_stats=1", "-max_len=65536", f"-artifact_prefix={keep}/"),
            ],
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
        grown = [path.stat().st_size for path in corpus.iterdir()]
    statistics = {name: int(value) for name, value in _STATISTIC.findall(fuzzer.stderr)}
    if "number_of_executed_units" not in statistics:
        raise RuntimeError(f"found no statistics of libFuzzer's: {fuzzer.stderr[-2000:]}")
    findings = {path.name for path in keep.iterdir()} - known
    coverage = re.findall(r"cov: (\d+) ft: (\d+)", fuzzer.stderr)
    return Trial(
        title="Headers under a fuzzer",
        account=(
            "Atheris drives libFuzzer by the coverage of this package's and pydicom's Python: "
            "scan, parse, views, the Image Pixel and display attributes and the codestreams' "
            "headers. A failure is any exception that is not one of this package's errors, an "
            f"input that takes {_TIMEOUT_S} s, or more than 1 GiB of memory."
        ),
        **measured_on(f"python -m assurance.gate_fuzz --seconds {seconds}"),
        executions=statistics["number_of_executed_units"],
        cpu_seconds=round(_children_seconds() - before, 1),
        wall_seconds=round(time.perf_counter() - started, 1),
        peak_mib=float(statistics["peak_rss_mb"]),
        slowest_cpu_seconds=None,
        corpus_files=len(grown),
        corpus_bytes=sum(grown),
        open={
            meaning: sum(name.startswith(f"{kind}-") for name in findings)
            for kind, meaning in _FINDINGS.items()
        },
        rates=(),
        tables=(),
        notes=tuple(
            f"Coverage at the end: {edges} edges, {features} features."
            for edges, features in coverage[-1:]
        ),
    )


def _plant(corpus: Path) -> None:
    """Begin with the headers of good files."""
    for number, seed in enumerate(make_corpus()):
        place = TRANSFER_SYNTAXES.index(seed.syntax)
        dataset_at = seed.content.index(b"\x08\x00\x05\x00")  # Specific Character Set is the first
        (corpus / f"{number}").write_bytes(bytes([place]) + seed.content[dataset_at:])
        (corpus / f"{number}-whole").write_bytes(_WHOLE + seed.content)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def command(
    seconds: Annotated[int, typer.Option(min=1, help="How long.")] = 600,
    out: Annotated[Path, typer.Option(help="Record to write.")] = RESULTS / "gate_fuzz.json",
    keep: Annotated[Path, typer.Option(help="Folder for inputs that lead to a failure.")] = Path(
        "build/assurance/gate_fuzz"
    ),
) -> None:
    """Fuzz the parsing of headers."""
    if not available():
        typer.echo("skipped: atheris is not installed; pip install atheris", err=True)
        return
    trial = run(seconds, keep=keep)
    write_trial(trial, out)
    if any(trial.open.values()):
        typer.echo(f"{dict(trial.open)}; the inputs are kept in {keep}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(command)
