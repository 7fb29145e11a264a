"""Damaged files in every transfer syntax, through every stage, in a process that may die of them.

``python -m assurance.mutation --files 20000`` writes the record of a run. The same seed gives the
same files; a file that leads to a failure is kept.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pydicom.uid import UID
from rich.progress import track

from assurance.corpus import Seed, make_corpus, write_good_views
from assurance.damage import damage
from assurance.reading import MOST_CPU_SECONDS, MOST_MIB, SETTLED, Judgement
from assurance.trial import RESULTS, Table, Trial, measured_on, write_trial
from assurance.watch import Watched
from training.encodings import TRANSFER_SYNTAXES

FAILURES = ("crash", "hang", "memory", "slow", "defect", "leak")
_PART = 500
"""Files to a process, about."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One damaged file and what came of it."""

    index: int
    syntax: str
    judgement: Judgement


def make_file(corpus: Sequence[Seed], seed: int, index: int) -> tuple[Seed, bytes]:
    """Return the good file that case ``index`` was made from, and the damaged one.

    Transfer syntaxes take turns.
    """
    rng = np.random.default_rng([seed, index])
    syntax = TRANSFER_SYNTAXES[index % len(TRANSFER_SYNTAXES)]
    of_syntax = [good for good in corpus if good.syntax == syntax]
    good = of_syntax[rng.integers(len(of_syntax))]
    return good, damage(good, corpus, rng)


def run_cases(
    corpus: Sequence[Seed], indices: Sequence[int], *, seed: int, keep: Path | None = None
) -> Iterator[Case]:
    """Make and read the damaged files of some indices, in one process after another.

    Parameters
    ----------
    keep
        Folder for files that lead to a failure; None keeps none.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        path = place / "damaged.dcm"
        with Watched(write_good_views(place)) as watched:
            for index in indices:
                good, content = make_file(corpus, seed, index)
                path.write_bytes(content)
                # Every syntax meets every preprocessing: both take turns, not in step.
                judgement = watched.judge(path, index // len(TRANSFER_SYNTAXES))
                if judgement.failed and keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, keep / f"{seed}-{index}.dcm")
                    (keep / f"{seed}-{index}.txt").write_text(f"{judgement}\n{judgement.detail}")
                yield Case(index=index, syntax=good.syntax, judgement=judgement)


def run(files: int, *, seed: int, processes: int, keep: Path | None = None) -> Trial:
    """Read ``files`` damaged files and return the record."""
    corpus = make_corpus()
    parts = max(processes, files // _PART)
    started = time.perf_counter()
    with ThreadPoolExecutor(processes) as pool:
        runs = [
            pool.submit(lambda part: list(run_cases(corpus, part, seed=seed, keep=keep)), part)
            for part in (range(files)[place::parts] for place in range(parts))
        ]
        cases = [case for run in track(runs, "Damaged files") for case in run.result()]
    judgements = [case.judgement for case in cases]
    kinds = Counter(judgement.kind for judgement in judgements)
    command = f"python -m assurance.mutation --files {files} --seed {seed}"
    return Trial(
        title="Damaged files",
        account=(
            "Good files of several vendors in every transfer syntax, damaged at random (bits, "
            "runs, cuts, splices, lengths, tags, VRs, values, codestream markers) and read as one "
            "view of an exam: views, pixels, tensor and quality. A failure is anything but a "
            "result or an error of this package, a patient's value in any message, more than "
            f"{MOST_MIB:.0f} MiB of resident memory, or more than {MOST_CPU_SECONDS:.0f} s of "
            "processor time for a file."
        ),
        **measured_on(command),
        executions=len(cases),
        cpu_seconds=round(sum(judgement.cpu_seconds for judgement in judgements), 1),
        wall_seconds=round(time.perf_counter() - started, 1),
        peak_mib=round(max(judgement.peak_mib for judgement in judgements), 1),
        slowest_cpu_seconds=round(max(judgement.cpu_seconds for judgement in judgements), 3),
        corpus_files=len(corpus),
        corpus_bytes=sum(len(good.content) for good in corpus),
        open={kind: kinds[kind] for kind in FAILURES},
        rates=(),
        tables=(_by_syntax(cases), _by_code(judgements)),
        notes=(
            "Files that are scored hold damage that nothing in them contradicts: no transfer "
            "syntax has a checksum, and many damaged attributes decide nothing.",
        ),
    )


def _by_syntax(cases: Sequence[Case]) -> Table:
    counted: Mapping[str, Counter[str]] = {case.syntax: Counter() for case in cases}
    for case in cases:
        counted[case.syntax][case.judgement.kind] += 1
    kinds = (*SETTLED, *FAILURES)
    rows = [
        (UID(syntax).name, f"{counts.total():,}", *(f"{counts[kind]:,}" for kind in kinds))
        for syntax, counts in sorted(counted.items())
    ]
    return Table(
        caption="By transfer syntax",
        columns=("transfer syntax", "files", *kinds),
        rows=tuple(rows),
    )


def _by_code(judgements: Sequence[Judgement]) -> Table:
    counts = Counter(judgement.code for judgement in judgements if not judgement.failed)
    rows = tuple((code, f"{count:,}") for code, count in sorted(counts.items()) if code)
    return Table(
        caption="Errors, and reasons that block, by code", columns=("code", "files"), rows=rows
    )


def command(
    files: Annotated[int, typer.Option(min=1, help="How many.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="At the same time.")] = 1,
    out: Annotated[Path, typer.Option(help="Record to write.")] = RESULTS / "mutation.json",
    keep: Annotated[Path, typer.Option(help="Folder for files that lead to a failure.")] = Path(
        "build/assurance/mutation"
    ),
) -> None:
    """Damage files in every transfer syntax and read them."""
    trial = run(files, seed=seed, processes=processes, keep=keep)
    write_trial(trial, out)
    failures = {kind: count for kind, count in trial.open.items() if count}
    if failures:
        typer.echo(f"{failures} in {files} files; they are kept in {keep}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(command)
