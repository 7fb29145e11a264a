"""Wrong exams, generated from good ones, against the gate: how many it stops, and of the good too.

``python -m assurance.corruption`` writes the record. A case goes the whole way from DICOM objects
to the reasons of its exam; it is detected where the exam is not scored, or is warned of where a
warning is what the gate has for it. G01 to G05 may miss nothing.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from pydicom import Dataset

from assurance.good_exams import Four, GoodExam, good_exam
from assurance.trial import RESULTS, Rate, Table, Trial, measured_on, write_trial
from assurance.wrong_exams import GOOD, WRONG, Corruption
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.bundle.manifest import Manifest
from mammoclip_sdk.errors import InputError
from mammoclip_sdk.predictor import DEMO_BUNDLE
from mammoclip_sdk.predictor.preparation import prepare
from training.evaluation import wilson_interval

NO_MISS = ("G01", "G02", "G03", "G04", "G05")
MAX_FALSE_BLOCKS = 0.01
_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one exam."""

    blocked: bool
    codes: frozenset[str]
    """Of the error, or of every reason."""


@dataclass
class Tally:
    """What came of the cases of one kind."""

    cases: int = 0
    hits: int = 0
    """Wrong exams that were detected, or good ones that were blocked."""
    named: int = 0
    """Wrong exams that were detected with the code that was expected."""
    listed: list[str] = field(default_factory=list)
    """A few misses, or false blocks with their codes."""

    def add(self, name: str, *, hit: bool, named: bool = False, worth_listing: bool) -> None:
        """Count one case."""
        self.cases += 1
        self.hits += hit
        self.named += named
        if worth_listing and len(self.listed) < _LISTED:
            self.listed.append(name)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of all cases."""

    wrong: dict[Corruption, Tally]
    good: dict[str, Tally]
    exams: int

    def misses(self) -> int:
        """Count the exams of G01 to G05 that would have been scored."""
        return sum(
            tally.cases - tally.hits for kind, tally in self.wrong.items() if kind.code in NO_MISS
        )

    def false_blocks(self) -> tuple[int, int]:
        """Count the good exams that were blocked, and all."""
        tallies = self.good.values()
        return sum(tally.hits for tally in tallies), sum(tally.cases for tally in tallies)


def judge(views: Four | list[Dataset]) -> Verdict:
    """Take one exam through the stages before the graph, with the demo bundle's settings."""
    manifest = _manifest()
    images = list(views.values()) if isinstance(views, dict) else views
    try:
        prepared = prepare(
            images, manifest.preprocessing, strict=False, acceptance=manifest.acceptance
        )
    except InputError as error:
        return Verdict(blocked=True, codes=frozenset({error.reason or error.code}))
    return Verdict(
        blocked=prepared.blocked, codes=frozenset(reason.code for reason in prepared.reasons)
    )


@cache
def _manifest() -> Manifest:
    return read_bundle(DEMO_BUNDLE).manifest


def run(cases: int, seed: int, *, rows: int = 256, columns: int = 208) -> Outcome:
    """Judge at least ``cases`` wrong exams of G01 to G05, a third of that of each other kind, and
    as many good exams.

    The exams they are made from are drawn once and used again, each in another header style than
    its neighbours.
    """
    demanded = [kind for kind in WRONG if kind.code in NO_MISS]
    each = -(-cases // len(demanded))
    good_each = -(-cases // len(GOOD))
    exams = [
        good_exam(seed, number, rows=rows, columns=columns)
        for number in range(max(13, min(156, each)))
    ]
    rng = np.random.default_rng(seed)
    outcome = Outcome(
        wrong={kind: Tally() for kind in WRONG},
        good={name: Tally() for name in GOOD},
        exams=len(exams),
    )
    for number in range(each):
        for place, kind in enumerate(WRONG):
            if kind.code not in NO_MISS and number % 3:
                continue
            exam = exams[(number + 5 * place) % len(exams)]
            _try_wrong(kind, exam, rng, outcome.wrong[kind])
    for number in range(good_each):
        for name, make in GOOD.items():
            exam = exams[number % len(exams)]
            verdict = judge(make(exam, rng))
            case = f"exam {exam.number} ({exam.profile.name}): {', '.join(sorted(verdict.codes))}"
            outcome.good[name].add(case, hit=verdict.blocked, worth_listing=verdict.blocked)
    return outcome


def _try_wrong(kind: Corruption, exam: GoodExam, rng: np.random.Generator, tally: Tally) -> None:
    verdict = judge(kind.make(exam, rng))
    expected = kind.code in verdict.codes
    hit = verdict.blocked if kind.action == "block" else expected
    name = f"exam {exam.number} ({exam.profile.name})"
    tally.add(name, hit=hit, named=hit and expected, worth_listing=not hit)


def record(outcome: Outcome, command: str, seconds: tuple[float, float]) -> Trial:
    """Return the trial's record; ``seconds`` are of the wall and of the processor."""
    _, good = outcome.false_blocks()
    wall, processor = seconds
    total = good + sum(tally.cases for tally in outcome.wrong.values())
    return Trial(
        title="Wrong exams",
        account=(
            "Phantom exams in the header styles of 13 vendors, made wrong in every way of the "
            "table below, each from DICOM objects to the reasons of its exam. An exam that would "
            "have been scored is a miss; where the gate only warns, one without that warning. As "
            "many good exams, varied as archives vary them, were judged for false blocks."
        ),
        executions=total,
        cpu_seconds=processor,
        wall_seconds=wall,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        slowest_cpu_seconds=None,
        corpus_files=outcome.exams,
        corpus_bytes=0,
        open={"misses of G01 to G05": outcome.misses()},
        rates=tuple(_rates(outcome)),
        tables=(
            Table(
                caption="Wrong exams, by how they were made",
                columns=("code", "what is wrong", "cases", "detected", "95 % interval", "by code"),
                rows=tuple(_wrong_rows(outcome)),
            ),
            Table(
                caption="Good exams, by how they were varied",
                columns=("variant", "cases", "blocked", "95 % interval"),
                rows=tuple(_good_rows(outcome)),
            ),
        ),
        notes=(
            "Detected means that the exam is not scored, or warned of where 'warns' stands beside "
            "the code; by code counts those with the code that was expected.",
            "Rows without a code have no rule: each view looks like one of a whole breast.",
            "Phantoms are made by this project's generator: rates hold for them. The one real exam "
            "that is at hand passes; it alone says nothing about a rate.",
            *_listed(outcome),
        ),
        **measured_on(command),
    )


def _rates(outcome: Outcome) -> Iterator[Rate]:
    by_code: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for kind, tally in outcome.wrong.items():
        if kind.code:
            by_code[kind.code].update(hits=tally.hits, cases=tally.cases)
    demanded = sum((by_code[code] for code in NO_MISS if code in by_code), Counter[str]())
    name = "G01 to G05 together, detected"
    yield Rate(name=name, hits=demanded["hits"], of=demanded["cases"], target="no miss")
    for code, counts in sorted(by_code.items()):
        target = "no miss" if code in NO_MISS else ""
        yield Rate(name=f"{code} detected", hits=counts["hits"], of=counts["cases"], target=target)
    blocked, good = outcome.false_blocks()
    target = f"at most {MAX_FALSE_BLOCKS:.0%}"
    yield Rate(name="good exams blocked", hits=blocked, of=good, target=target)


def _wrong_rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    for kind, tally in outcome.wrong.items():
        code = (kind.code or "none") + (", warns" if kind.action == "warn" else "")
        named = f"{tally.named:,}" if kind.code else ""
        interval = _interval(tally.hits, tally.cases)
        yield code, kind.name, f"{tally.cases:,}", f"{tally.hits:,}", interval, named


def _good_rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    for name, tally in outcome.good.items():
        interval = _interval(tally.hits, tally.cases)
        yield name, f"{tally.cases:,}", f"{tally.hits:,}", interval


def _listed(outcome: Outcome) -> Iterator[str]:
    for kind, tally in outcome.wrong.items():
        if tally.listed and kind.code:
            yield f"Missed, {kind.code}, {kind.name}: {'; '.join(tally.listed)}."
    for name, tally in outcome.good.items():
        if tally.listed:
            yield f"Blocked, good, {name}: {'; '.join(tally.listed)}."


def _interval(hits: int, cases: int) -> str:
    interval = wilson_interval(hits, cases)
    return f"{interval.lower:.2%} to {interval.upper:.2%}"


def main(arguments: list[str] | None = None) -> int:
    """Run the trial, write its record, and return 1 where a demand was not met."""
    parser = argparse.ArgumentParser(prog="python -m assurance.corruption")
    parser.add_argument("--cases", type=int, default=3000, help="wrong exams of G01 to G05")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "corruption.json")
    settings = parser.parse_args(arguments)
    wall, processor = time.perf_counter(), time.process_time()
    outcome = run(settings.cases, settings.seed)
    seconds = time.perf_counter() - wall, time.process_time() - processor
    command = f"python -m assurance.corruption --cases {settings.cases} --seed {settings.seed}"
    trial = record(outcome, command, seconds)
    write_trial(trial, settings.out)
    for rate in trial.rates:
        print(f"{rate.name}: {rate.hits} of {rate.of} ({_interval(rate.hits, rate.of)})")
    blocked, good = outcome.false_blocks()
    return int(outcome.misses() > 0 or blocked > MAX_FALSE_BLOCKS * good)


if __name__ == "__main__":
    sys.exit(main())
