"""AUC, intervals and calibration against slow definitions and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mammoclip_sdk.bundle import Interval, Measurement
from training.evaluation import (
    FEW,
    ScoredSet,
    auc_interval,
    calibrated,
    choose_threshold,
    fit_calibration,
    limits,
    measure_operating_point,
    wilson_interval,
)


def placements(positive, scores):
    """DeLong's placement values by comparing every pair."""
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    wins = (pairs > 0) + 0.5 * (pairs == 0)
    return wins.mean(axis=1), wins.mean(axis=0)


@given(
    labels=st.lists(st.booleans(), min_size=8, max_size=60),
    seed=st.integers(0, 2**31),
    levels=st.integers(2, 30),
)
@settings(max_examples=60, deadline=None)
def test_auc_and_its_variance_equal_the_pairwise_definition(labels, seed, levels):
    positive = np.array(labels)
    positive[:4] = [True, True, False, False]
    scores = np.random.default_rng(seed).integers(0, levels, len(positive)).astype(float)
    interval = auc_interval(positive, scores)
    ours, theirs = placements(positive, scores)
    error = np.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs))
    assert interval.estimate == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert interval.lower == pytest.approx(max(0, interval.estimate - 1.959964 * error), abs=1e-6)
    assert interval.upper == pytest.approx(min(1, interval.estimate + 1.959964 * error), abs=1e-6)


def test_delong_interval_covers_the_truth_as_often_as_it_claims():
    rng = np.random.default_rng(0)
    positive = np.arange(300) < 120
    truth = 0.8413447  # P(N(sqrt 2, 1) > N(0, 1))
    hits = 0
    for _ in range(400):
        interval = auc_interval(positive, rng.standard_normal(300) + np.sqrt(2) * positive)
        hits += interval.lower <= truth <= interval.upper
    assert 0.92 <= hits / 400 <= 0.98


def test_auc_of_one_class_is_refused():
    with pytest.raises(ValueError, match="expected 2 of each"):
        auc_interval(np.ones(5, bool), np.arange(5.0))


def test_wilson_interval_of_a_textbook_case():
    # 81 of 263: Newcombe, Statistics in Medicine 17:857, 1998, table I, method 3.
    interval = wilson_interval(81, 263)
    assert interval.lower == pytest.approx(0.2553, abs=5e-5)
    assert interval.upper == pytest.approx(0.3662, abs=5e-5)


@pytest.mark.parametrize("trials", [1, 6, 12, 97, 3000])
def test_wilson_interval_at_either_end_holds_its_estimate(trials):
    none, every = wilson_interval(0, trials), wilson_interval(trials, trials)
    assert none.lower == none.estimate == 0.0 < none.upper
    assert every.lower < every.estimate == every.upper == 1.0


def test_wilson_interval_without_a_failure_is_not_empty():
    interval = wilson_interval(3000, 3000)
    assert interval.estimate == 1.0
    assert 0.998 < interval.lower < 0.999


def test_calibration_recovers_the_curve_the_labels_were_drawn_from():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 20000)
    positive = rng.random(20000) < 1 / (1 + np.exp(-(0.7 * logits - 0.4)))
    calibration = fit_calibration(positive, logits, data="drawn")
    assert calibration.slope == pytest.approx(0.7, abs=0.03)
    assert calibration.intercept == pytest.approx(-0.4, abs=0.05)
    probabilities = calibrated(calibration, logits)
    for low in np.arange(0.05, 0.95, 0.1):
        chosen = (probabilities >= low) & (probabilities < low + 0.1)
        assert positive[chosen].mean() == pytest.approx(probabilities[chosen].mean(), abs=0.04)


@given(seed=st.integers(0, 2**31), share=st.floats(0.5, 0.99))
@settings(max_examples=40, deadline=None)
def test_thresholds_reach_what_they_are_named_after_and_no_stricter_one_does(seed, share):
    rng = np.random.default_rng(seed)
    positive = rng.random(200) < 0.4
    positive[:2] = [True, False]
    scores = rng.random(200) + 0.3 * positive
    for name in ("sensitivity", "specificity"):
        threshold = choose_threshold(positive, scores, name=name, share=share)
        point = measure_operating_point(name, threshold, positive, scores)
        assert getattr(point, name).estimate >= share - 1e-9
    sensitive = choose_threshold(positive, scores, name="sensitivity", share=share)
    stricter = scores[positive & (scores > sensitive)]
    if stricter.size:
        assert (scores[positive] >= stricter.min()).mean() < share + 1 / positive.sum()


def said_of(lower, upper, *, malignant=FEW, others=FEW):
    """What the model card says of an AUC of 0.5 between these limits, and of these counts."""
    value = Interval(estimate=0.5, lower=lower, upper=upper, level=0.95, method="delong")
    auc = Measurement(name="AUC", finding="malignancy", value=value, exams=80, data="test part")
    positive = np.arange(malignant + others) < malignant
    return limits(auc, ScoredSet(positive=positive, logits=np.zeros(len(positive)), data=""))


@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [
        (
            0.5,
            0.9,
            "The interval of the AUC on the test part includes 0.5 (AUC 0.500, 95% interval 0.500 "
            "to 0.900, on 80 exams): not shown to be better than chance.",
        ),
        (
            0.1,
            0.5,
            "The interval of the AUC on the test part includes 0.5 (AUC 0.500, 95% interval 0.100 "
            "to 0.500, on 80 exams): not shown to be better than chance.",
        ),
        (
            0.1,
            0.49,
            "The interval of the AUC on the test part is below 0.5 (AUC 0.500, 95% interval 0.100 "
            "to 0.490, on 80 exams): worse than chance.",
        ),
    ],
)
def test_an_auc_that_may_be_chance_is_a_limit_of_the_model(lower, upper, said):
    assert said_of(lower, upper) == (said,)


def test_an_auc_above_chance_and_thresholds_set_on_enough_exams_are_none():
    assert said_of(0.501, 0.9) == ()


def test_a_threshold_set_on_few_exams_of_its_class_is_a_limit_with_their_number():
    assert said_of(0.6, 0.9, malignant=FEW - 1) == (
        'The threshold of "sensitivity 90 %" was set on 49 exams with malignancy, fewer than 50: '
        "on other exams it may reach far less.",
    )
    assert said_of(0.6, 0.9, others=2) == (
        'The threshold of "specificity 90 %" was set on 2 exams without malignancy, fewer than 50: '
        "on other exams it may reach far less.",
    )


def test_fifty_exams_tell_a_share_of_90_percent_to_8_and_a_half_points():
    interval = wilson_interval(0.9 * FEW, FEW)
    assert (interval.lower, interval.upper) == pytest.approx((0.7864, 0.9565), abs=5e-5)
