"""The page that says what the software was put through: docs/assurance.md, from the records.

``python -m assurance.document`` writes it; nobody edits it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from assurance.trial import RESULTS, Rate, Table, Trial, read_trial
from training.evaluation import wilson_interval

PAGE = Path(__file__).resolve().parents[1] / "docs" / "assurance.md"
_ORDER = ("bombs", "mutation", "gate_fuzz", "native_fuzz", "corruption")
"""Records by name, as the page has them; others follow."""


def read_trials(folder: Path = RESULTS) -> dict[str, Trial]:
    """Read every record of a folder, in the order of the page."""
    trials = {path.stem: read_trial(path) for path in sorted(folder.glob("*.json"))}
    known = {name: trials[name] for name in _ORDER if name in trials}
    return known | trials


def page(trials: Mapping[str, Trial]) -> str:
    """Return the page as Markdown."""
    lines = [
        "# Assurance",
        "",
        "What the reading of mammograms was put through, and what came of it. Written by "
        "`python -m assurance.document` from the records in `assurance/results`, which "
        "`make assurance` renews; not to be edited.",
        "",
        *_table(
            ("trial", "executions", "CPU time", "corpus", "peak memory", "slowest", "open"),
            [_summary(trial) for trial in trials.values()],
        ),
        "",
        "*Open* counts failures that no change has settled yet. *Slowest* is the processor time "
        "of the costliest execution, *peak memory* the largest resident size of a process under "
        "test, its interpreter included; a dash stands for what was not measured.",
    ]
    for trial in trials.values():
        lines += ["", *_section(trial)]
    return "\n".join(lines) + "\n"


def _summary(trial: Trial) -> tuple[str, ...]:
    return (
        trial.title,
        f"{trial.executions:,}",
        _duration(trial.cpu_seconds),
        f"{trial.corpus_files:,} files, {_size(trial.corpus_bytes)}"
        if trial.corpus_bytes
        else f"{trial.corpus_files:,} exams in memory",
        "–" if trial.peak_mib is None else f"{trial.peak_mib:.0f} MiB",
        "–" if trial.slowest_cpu_seconds is None else f"{trial.slowest_cpu_seconds:.2f} s",
        str(sum(trial.open.values())),
    )


def _section(trial: Trial) -> Iterator[str]:
    yield f"## {trial.title}"
    yield ""
    yield trial.account
    yield ""
    opened = ", ".join(f"{kind} {count}" for kind, count in trial.open.items())
    yield f"- open: {opened}"
    yield (
        f"- {trial.executions:,} executions, {_duration(trial.cpu_seconds)} of processor time, "
        f"{_duration(trial.wall_seconds)} by the clock"
    )
    yield f"- `{trial.command}`, {trial.date}, commit `{trial.commit[:12]}{_dirty(trial)}`"
    yield f"- {trial.machine.line()}"
    for note in trial.notes:
        yield f"- {note}"
    if trial.rates:
        yield ""
        yield from _rates(trial.rates)
    for table in trial.tables:
        yield ""
        yield from _captioned(table)


def _dirty(trial: Trial) -> str:
    return "-dirty" if trial.commit.endswith("-dirty") else ""


def _rates(rates: Sequence[Rate]) -> Iterator[str]:
    rows = []
    for rate in rates:
        interval = wilson_interval(rate.hits, rate.of)
        rows.append(
            (
                rate.name,
                f"{rate.hits:,} of {rate.of:,}",
                f"{100 * interval.estimate:.2f} %",
                f"{100 * interval.lower:.2f} to {100 * interval.upper:.2f} %",
                rate.target or "–",
            )
        )
    yield from _table(("rate", "cases", "share", "95 % interval (Wilson)", "target"), rows)


def _captioned(table: Table) -> Iterator[str]:
    yield f"{table.caption}:"
    yield ""
    yield from _table(table.columns, table.rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _line(columns)
    yield _line(["---"] * len(columns))
    for row in rows:
        yield _line([cell.replace("|", "\\|") for cell in row])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(read_trials()), encoding="utf-8")


if __name__ == "__main__":
    main()
