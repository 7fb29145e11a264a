"""Comparison: a session that is wrong by a little is found, with the exam and by how much."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import LOGIT_SCALE, SIZE, prompt, tiny_embedding, tiny_files, tiny_manifest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from tiny_graphs import exams

from mammoclip_sdk.bundle import Finding
from mammoclip_sdk.errors import InferenceError
from mammoclip_sdk.parity.agreement import judge
from mammoclip_sdk.parity.comparison import Answers, compare, paired_auc
from training.evaluation import auc_interval

(FINDING,) = tiny_manifest(tiny_files()).findings
EXAMS = exams()
RIGHT = EXAMS.embedding


def answers(embedding: np.ndarray = RIGHT, batched: np.ndarray | None = None) -> Answers:
    batched = embedding[:8] if batched is None else batched
    return Answers(embedding=embedding, batches=(batched,))


def compared(embedding: np.ndarray = RIGHT, batched: np.ndarray | None = None, **changes: object):
    finding = replace(FINDING, **changes)
    return compare((finding,), RIGHT, answers(embedding, batched), EXAMS.labels)


def turned(exam: int, angle: float) -> np.ndarray:
    """The right answers, but for one exam, turned in the plane of the two prompts."""
    found = RIGHT.copy()
    x, y = RIGHT[exam, :2].astype(np.float64)
    found[exam, 0] = x * np.cos(angle) - y * np.sin(angle)
    found[exam, 1] = x * np.sin(angle) + y * np.cos(angle)
    return found


def test_the_right_answers_differ_in_nothing() -> None:
    found = compared()
    for worst in (found.logit, found.cosine, found.batch_logit, found.batch_probability):
        assert worst is not None
        assert (worst.value, worst.where) == (0, "")
    assert (found.exams, found.unusable, found.batch_sizes) == (20, 0, (8,))
    assert found.findings[0].auc is not None
    assert found.findings[0].auc.difference.estimate == 0


def test_one_exam_that_is_wrong_by_a_little_is_the_worst_case() -> None:
    found = compared(turned(13, 1e-3))
    x, y = RIGHT[13, :2].astype(np.float64)
    expected = 100 * max(abs(y), abs(x)) * 1e-3
    assert found.logit is not None
    assert found.logit.value == pytest.approx(expected, rel=2e-3)
    side = "negative" if abs(y) > abs(x) else "positive"
    assert found.logit.where.startswith(f"exam 13, malignancy, {side} prompt: ")
    assert found.cosine is not None
    assert found.cosine.where == "exam 13"
    distance = 1 - np.dot(*(side[13].astype(np.float64) for side in (turned(13, 1e-3), RIGHT)))
    assert found.cosine.value == pytest.approx(distance, abs=2e-8)
    probability = found.findings[0].probability
    assert probability is not None
    margin = LOGIT_SCALE * float(RIGHT[13, 1] - RIGHT[13, 0])
    moved = LOGIT_SCALE * float(turned(13, 1e-3)[13, 1] - turned(13, 1e-3)[13, 0])
    expected = abs(1 / (1 + np.exp(-moved)) - 1 / (1 + np.exp(-margin)))
    assert probability.value == pytest.approx(expected, rel=1e-2)
    assert probability.where.startswith("exam 13, malignancy: ")
    failed = {gate.quantity for gate in judge("fp32", found) if gate.verdict == "failed"}
    assert failed == {"logit"}


@pytest.mark.parametrize("scale", [1 + 5e-5, 1 - 5e-5])
def test_a_length_that_is_not_one_is_measured(scale: float) -> None:
    found = RIGHT.copy()
    found[7] *= np.float32(scale)
    worst = compared(found).length
    assert worst is not None
    assert worst.where == "exam 7"
    assert worst.value == pytest.approx(5e-5, rel=0.01)


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0, "length")]
)
def test_an_exam_without_an_embedding_is_counted_and_hides_nothing(value: float, said: str) -> None:
    broken = turned(13, 1e-3)
    broken[4] = value
    found = compared(broken)
    assert found.unusable == 1
    assert found.unusable_where.startswith("exam 4 (an image embedding ")
    assert said in found.unusable_where
    assert found.logit is not None
    assert found.logit.where.startswith("exam 13, ")  # no maximum finds a NaN, and none hides it
    assert "failed" in {gate.verdict for gate in judge("int8", found) if gate.value}


def test_an_exam_that_is_broken_in_a_batch_alone_is_counted() -> None:
    batched = RIGHT[:8].copy()
    batched[6, 2] = np.nan
    found = compared(batched=batched)
    assert found.unusable == 1
    assert found.unusable_where.startswith("exam 6 (in a batch of 8, ")
    assert found.batch_logit is not None
    assert found.batch_logit.value == 0


def test_nothing_usable_leaves_nothing_to_measure() -> None:
    found = compared(np.full_like(RIGHT, np.nan))
    assert found.unusable == 20
    assert found.unusable_where.endswith(" and 12 more")
    assert found.logit is found.cosine is found.length is found.batch_logit is None
    assert found.findings[0].probability is found.findings[0].auc is None


def test_an_answer_that_depends_on_its_batch_is_found() -> None:
    found = compared(batched=turned(5, 1e-3)[:8])
    assert found.logit is not None
    assert found.logit.value == 0
    for worst in (found.batch_logit, found.batch_probability):
        assert worst is not None
        assert worst.where.startswith("exam 5, malignancy")
        assert ", in a batch of 8; alone " in worst.where
    failed = {gate.quantity for gate in judge("fp32", found) if gate.verdict == "failed"}
    assert failed == {"batch_logit"}


def probability(embedding: np.ndarray) -> float:
    margin = LOGIT_SCALE * (embedding[1] - embedding[0])
    return float(1 / (1 + np.exp(-margin)))


@pytest.mark.parametrize("angle", [1e-4, -1e-4])
def test_a_decision_that_flips_at_an_operating_point_is_counted(angle: float) -> None:
    before, after = probability(RIGHT[9]), probability(turned(9, angle)[9])
    between = replace(FINDING.operating_points[0], name="recall", threshold=(before + after) / 2)
    beyond = replace(between, name="other", threshold=max(before, after) + 1e-3)
    found = compared(turned(9, angle), operating_points=(between, beyond))
    flips, none = found.findings[0].operating_points
    assert (flips.count, flips.operating_point, none.count) == (1, "recall", 0)
    said = re.fullmatch(r"exam 9 \((0\.\d{6}), reference (0\.\d{6})\)", flips.where)
    assert said is not None
    assert [float(value) for value in said.groups()] == pytest.approx([after, before], abs=2e-6)
    assert {gate.quantity for gate in judge("fp16", found) if gate.verdict == "failed"} == {"flips"}


def test_every_finding_is_compared_with_its_own_prompts() -> None:
    other = Finding(
        **{
            **{name: getattr(FINDING, name) for name in FINDING.__dataclass_fields__},
            "name": "density",
            "negative_embedding": prompt(2),
            "positive_embedding": prompt(3),
            "operating_points": (),
        }
    )
    found = RIGHT.copy()
    found[3, 2:4] = found[3, 3:1:-1]  # what only the second finding's prompts see
    agreement = compare((FINDING, other), RIGHT, answers(found), EXAMS.labels)
    first, second = agreement.findings
    assert first.probability is not None
    assert second.probability is not None
    assert first.probability.value == 0
    assert second.probability.where.startswith("exam 3, density: ")
    assert agreement.logit is not None
    assert agreement.logit.where.startswith("exam 3, density, ")


def test_unlabelled_exams_are_in_no_area_but_in_every_worst_case() -> None:
    labels = EXAMS.labels.copy()
    labelled = int(np.flatnonzero(labels >= 0)[-1])
    labels[labelled] = -1
    found = compare((FINDING,), RIGHT, answers(turned(labelled, 1e-3)), labels)
    assert found.findings[0].auc is not None
    assert found.findings[0].auc.exams == (EXAMS.labels >= 0).sum() - 1
    assert found.logit is not None
    assert found.logit.where.startswith(f"exam {labelled}, ")
    nobody = np.full(20, -1, np.int8)
    assert compare((FINDING,), RIGHT, answers(), nobody).findings[0].auc is None


def test_a_reference_that_is_no_embedding_is_an_error() -> None:
    with pytest.raises(InferenceError, match="NaN or infinity"):
        compare((FINDING,), np.full((1, SIZE), np.nan, np.float32), answers(), EXAMS.labels)


def scores(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = random.random(count) < 0.4
    first = random.normal(size=count) + 1.2 * positive
    return positive, first, first + 0.4 * random.normal(size=count)


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=25, deadline=None)
def test_both_areas_are_scikit_learns_and_each_interval_delongs(seed: int, ties: bool) -> None:
    positive, first, second = scores(seed)
    if ties:
        first, second = np.round(first), np.round(second)
    found = paired_auc(positive, first, second)
    assert found is not None
    for interval, values in ((found.reference, first), (found.runtime, second)):
        assert interval.estimate == pytest.approx(roc_auc_score(positive, values), abs=1e-12)
        expected = auc_interval(positive, values)
        assert interval.lower == pytest.approx(expected.lower, abs=1e-12)
        assert interval.upper == pytest.approx(expected.upper, abs=1e-12)
    difference = roc_auc_score(positive, second) - roc_auc_score(positive, first)
    assert found.difference.estimate == pytest.approx(difference, abs=1e-12)
    assert found.difference.lower <= found.difference.estimate <= found.difference.upper


def test_the_interval_of_the_difference_is_that_of_a_paired_bootstrap() -> None:
    positive, first, second = scores(11, count=400)
    found = paired_auc(positive, first, second)
    assert found is not None
    random = np.random.default_rng(0)
    kinds = [values[kind] for kind in (positive, ~positive) for values in (first, second)]
    differences = []
    for _ in range(600):
        drawn = [random.integers(len(kind), size=len(kind)) for kind in kinds[::2]]
        areas = [
            (kinds[side][drawn[0]][:, None] > kinds[2 + side][drawn[1]]).mean() for side in (0, 1)
        ]
        differences.append(areas[1] - areas[0])
    half = (found.difference.upper - found.difference.lower) / 2
    assert half / 1.959964 == pytest.approx(np.std(differences), rel=0.08)
    unpaired = np.hypot(*(one.upper - one.estimate for one in (found.reference, found.runtime)))
    assert half < 0.6 * unpaired  # the same exams: most of the spread is common


def test_scores_that_rank_alike_differ_by_nothing_and_reversed_ones_by_all() -> None:
    positive, first, _ = scores(3)
    same = paired_auc(positive, first, np.exp(first))
    assert same is not None
    assert (same.difference.lower, same.difference.upper) == pytest.approx((0, 0), abs=1e-9)
    reverse = paired_auc(positive, first, -first)
    assert reverse is not None
    assert reverse.runtime.estimate == pytest.approx(1 - reverse.reference.estimate)
    spread = reverse.reference.upper - reverse.reference.lower
    assert reverse.difference.upper - reverse.difference.lower == pytest.approx(2 * spread)


@pytest.mark.parametrize("positives", [0, 1, 19, 20])
def test_fewer_than_two_of_a_kind_have_no_interval(positives: int) -> None:
    positive = np.arange(20) < positives
    assert paired_auc(positive, np.arange(20.0), np.arange(20.0)) is None


def test_the_reference_of_these_tests_is_the_tiny_graphs() -> None:
    views = EXAMS.views.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(RIGHT, tiny_embedding(views))
