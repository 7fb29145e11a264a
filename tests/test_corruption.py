"""The gate against wrong exams made from good ones, each kind once; the trial runs thousands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from assurance import corruption, wrong_contents
from assurance.corruption import NO_MISS, judge, main, record, run
from assurance.good_exams import GoodExam, good_exam
from assurance.trial import read_trial
from assurance.wrong_exams import GOOD, WRONG, Corruption
from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.reasons import CODES


@pytest.fixture(scope="module")
def exams() -> list[GoodExam]:
    return [good_exam(3, number, rows=256, columns=208) for number in range(3)]


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: f"{kind.code} {kind.name}")
def test_every_kind_of_wrong_exam_is_detected(kind: Corruption, exams: list[GoodExam]) -> None:
    verdict = judge(kind.make(exams[WRONG.index(kind) % len(exams)], np.random.default_rng(1)))
    if kind.code is None:  # no rule can tell; the record says so
        assert not verdict.blocked
    elif kind.name != "bits shifted up by two":  # which wraps round only what is bright
        assert kind.code in verdict.codes
        assert verdict.blocked == (kind.action == "block")


@pytest.mark.parametrize("variant", GOOD)
def test_no_variant_of_a_good_exam_is_refused(variant: str, exams: list[GoodExam]) -> None:
    for exam in exams:
        assert not judge(GOOD[variant](exam, np.random.default_rng(1))).blocked


def test_every_code_of_the_gate_is_put_to_the_test() -> None:
    tested = {kind.code for kind in WRONG} - {None}
    assert tested == CODES.keys() - {"G14"}  # of the model's output, which is made in its own tests


def test_a_record_counts_what_was_missed_and_what_was_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A gate that stops nothing, and one that stops everything, are seen through."""
    monkeypatch.setattr(corruption, "WRONG", WRONG[:1] + WRONG[-1:])
    for stops, misses, false in ((False, 2, 0), (True, 0, 8)):
        verdict = corruption.Verdict(blocked=stops, codes=frozenset({"G01"} if stops else ()))
        monkeypatch.setattr(corruption, "judge", lambda views, verdict=verdict: verdict)
        outcome = run(2, 1, rows=80, columns=64)
        assert outcome.misses() == misses
        assert outcome.false_blocks() == (false, 8)
        trial = record(outcome, "command", (1.0, 1.0))
        assert trial.open == {"misses of G01 to G05": misses}
        assert [(rate.hits, rate.of) for rate in trial.rates] == [
            (2 - misses, 2),
            (2 - misses, 2),  # of G01 alone
            (false, 8),
        ]
        assert main(["--cases", "2", "--out", str(tmp_path / "record.json")]) == 1
        assert read_trial(tmp_path / "record.json").open == trial.open
    assert "Blocked, good" in json.loads((tmp_path / "record.json").read_text())["notes"][-1]
    assert NO_MISS == ("G01", "G02", "G03", "G04", "G05")


def test_a_corruption_changes_what_it_says_and_no_more(exams: list[GoodExam]) -> None:
    exam = exams[0]
    plain, again = exam.written(), exam.written()
    assert all(plain[view] == again[view] for view in VIEWS)
    blank = wrong_contents.CONTENTS["blank"](exam.displayed[View.LCC], np.random.default_rng(0))
    changed = exam.written({View.LCC: blank})
    assert [view for view in VIEWS if changed[view] != plain[view]] == [View.LCC]
    assert changed[View.LCC].PixelData != plain[View.LCC].PixelData
