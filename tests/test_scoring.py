"""Scoring: logits, probabilities and operating points, checked against hand-computed numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import LOGIT_SCALE, SIZE, tiny_files, tiny_manifest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from mammoclip_sdk.bundle import Calibration, Interval, OperatingPoint
from mammoclip_sdk.errors import InferenceError
from mammoclip_sdk.scoring import score

FINDING = tiny_manifest(tiny_files()).findings[0]


def embedding(negative: float, positive: float) -> np.ndarray:
    """A unit vector with these cosines to the two prompts."""
    rest = math.sqrt(1 - negative**2 - positive**2)
    return np.array([negative, positive, rest, 0, 0, 0], np.float32)


CALIBRATED = replace(
    FINDING,
    calibration=Calibration(slope=0.5, intercept=-1.5, fitted_on="600 exams, half positive"),
)


def test_logits_are_scaled_cosines_and_the_score_their_softmax() -> None:
    (found,) = score(embedding(0.1, 0.3), (FINDING,))
    assert found.name == "malignancy"
    assert found.logits == pytest.approx((1.0, 3.0), abs=1e-6)
    assert found.logit == pytest.approx(2.0, abs=1e-6)
    assert found.score == pytest.approx(0.880797, abs=1e-6)  # 1 / (1 + e^-2)


def test_what_was_never_calibrated_has_no_probability() -> None:
    (found,) = score(embedding(0.1, 0.3), (FINDING,))
    assert (found.calibrated, found.calibrated_on, found.probability) == (False, None, None)


@given(st.floats(-0.7, 0.7), st.floats(-0.7, 0.7))
def test_the_score_is_scipys_softmax(negative: float, positive: float) -> None:
    (found,) = score(embedding(negative, positive), (FINDING,))
    reference = softmax([LOGIT_SCALE * negative, LOGIT_SCALE * positive])[1]
    assert found.score == pytest.approx(reference, abs=1e-5)


def test_a_calibration_replaces_the_softmax() -> None:
    (found,) = score(embedding(0.1, 0.3), (CALIBRATED,))
    assert (found.calibrated, found.calibrated_on) == (True, "600 exams, half positive")
    assert found.probability == pytest.approx(0.377541, abs=1e-6)  # 1 / (1 + e^0.5)
    assert found.score == found.probability
    assert found.logit == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(("scale", "expected"), [(1e4, 1.0), (-1e4, 0.0)])
def test_extreme_logits_neither_overflow_nor_warn(scale: float, expected: float) -> None:
    (found,) = score(embedding(0, 0.9), (replace(CALIBRATED, logit_scale=scale),))
    assert found.score == found.probability == expected


@pytest.mark.parametrize(
    ("threshold", "met"), [(0.0, ("p",)), (0.5, ("p",)), (0.500001, ()), (1.0, ())]
)
def test_a_point_is_met_from_its_threshold_on(threshold: float, met: tuple[str, ...]) -> None:
    interval = Interval(estimate=0.5, lower=0.4, upper=0.6, level=0.95, method="wilson")
    point = OperatingPoint(
        name="p", threshold=threshold, sensitivity=interval, specificity=interval
    )
    (found,) = score(embedding(0.2, 0.2), (replace(FINDING, operating_points=(point,)),))
    assert found.score == 0.5
    assert found.operating_points_met == met


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones(SIZE - 1, np.float32),
        np.ones((1, SIZE), np.float32),
        np.full(SIZE, np.nan, np.float32),
        np.full(SIZE, np.inf, np.float32),
        np.zeros(SIZE, np.float32),
        np.float32(1.002) * embedding(0.1, 0.3),
    ],
    ids=["short", "batch", "nan", "infinity", "zero", "long"],
)
def test_what_is_no_embedding_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InferenceError, match="finding 'malignancy'") as caught:
        score(wrong, (FINDING,))
    assert (caught.value.code, caught.value.reason) == ("unusable_output", "G14")


def test_rounding_to_half_precision_leaves_an_embedding_usable() -> None:
    rounded = embedding(0.1, 0.3).astype(np.float16).astype(np.float32)
    (found,) = score(rounded, (FINDING,))
    assert found.logit == pytest.approx(2.0, abs=1e-2)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_logits_that_overflow_are_no_score() -> None:
    with pytest.raises(InferenceError, match="a score of nan from logits"):
        score(embedding(0, 1), (replace(FINDING, logit_scale=1e39),))
