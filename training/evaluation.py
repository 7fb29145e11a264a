"""How good a score is, with its uncertainty: AUC by DeLong, Wilson intervals, Platt calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression

from mammoclip_sdk.bundle import Calibration, Interval, Measurement, OperatingPoint
from training.checkpoint import TrainedFinding
from training.errors import TrainingError
from training.train import TrainSettings

LEVEL = 0.95
_Z = float(norm.ppf(0.5 + LEVEL / 2))
CHANCE = 0.5
"""AUC of a score that knows nothing."""
SHARE = 0.9
"""Sensitivity or specificity that the operating points are set for."""
FEW = 50
"""Exams of a class; an operating point that was set on fewer is a limit on the model card. With 50,
Wilson's 95 % interval of a share of 90 % goes from 79 % to 96 %: 8.5 points on average to either
side."""


def auc_interval(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Interval:
    """Return the area under the ROC curve with DeLong's confidence interval.

    Parameters
    ----------
    positive : bool (N,)
    scores : float (N,)
        Higher means more likely positive; ties count one half.

    Notes
    -----
    Variance by placement values (DeLong, DeLong and Clarke-Pearson, Biometrics 44:837, 1988),
    computed from mid-ranks (Sun and Xu, IEEE Signal Processing Letters 21:1389, 2014).
    """
    positives, negatives = scores[positive], scores[~positive]
    count, others = len(positives), len(negatives)
    if min(count, others) < 2:
        raise ValueError(f"found {count} positives and {others} negatives; expected 2 of each")
    ranks = rankdata(np.concatenate([positives, negatives]))
    beats = (ranks[:count] - rankdata(positives)) / others
    beaten = 1 - (ranks[count:] - rankdata(negatives)) / count
    auc = float(beats.mean())
    error = float(np.sqrt(beats.var(ddof=1) / count + beaten.var(ddof=1) / others))
    return Interval(
        estimate=auc,
        lower=max(0.0, auc - _Z * error),
        upper=min(1.0, auc + _Z * error),
        level=LEVEL,
        method="delong",
    )


def wilson_interval(successes: float, trials: int) -> Interval:
    """Return a proportion with Wilson's score interval."""
    if trials < 1:
        raise ValueError("found no trials; expected at least one")
    share = successes / trials
    spread = _Z * np.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    scale = 1 + _Z**2 / trials
    middle = share + _Z**2 / (2 * trials)
    return Interval(
        estimate=share,
        # At 0 and 1 a limit equals the share, which rounding would put it past.
        lower=min(share, max(0.0, float((middle - spread) / scale))),
        upper=max(share, min(1.0, float((middle + spread) / scale))),
        level=LEVEL,
        method="wilson",
    )


def fit_calibration(
    positive: NDArray[np.bool_], logits: NDArray[np.float64], *, data: str
) -> Calibration:
    """Fit Platt scaling to logits (N,), positive minus negative prompt, of exams not trained on.

    With Platt's targets, which are a little less than 1 and more than 0 (Advances in Large Margin
    Classifiers, 1999), there is a best slope even where a threshold parts the classes.

    Raises
    ------
    TrainingError
        The logits do not rise with the label, so that no probability can be made of them.
    """
    count, others = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (count + 1) / (count + 2), 1 / (others + 2))
    mean, spread = float(logits.mean()), float(logits.std()) or 1.0
    scaled = np.tile((logits - mean) / spread, 2)[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        scaled,
        np.repeat([True, False], len(logits)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    slope = float(model.coef_[0, 0]) / spread
    if slope <= 0:
        raise TrainingError(
            data,
            found=f"a calibration slope of {slope:.3g}: malignant exams do not score higher",
            expected="a positive one, of a model that has learned something",
            remedy="Train for more epochs, on more exams, or from other base weights.",
        )
    return Calibration(
        slope=slope, intercept=float(model.intercept_[0]) - slope * mean, fitted_on=data
    )


def calibrated(calibration: Calibration, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the calibrated probabilities of logits (N,)."""
    return 1 / (1 + np.exp(-(calibration.slope * logits + calibration.intercept)))


def choose_threshold(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], *, name: str, share: float
) -> float:
    """Return the threshold that reaches a ``sensitivity`` or a ``specificity`` of ``share``.

    The highest threshold with that sensitivity, or the lowest with that specificity, on these
    exams; scores at or above it are called positive.
    """
    if name == "sensitivity":
        return float(np.quantile(scores[positive], 1 - share, method="lower"))
    if name == "specificity":
        return float(np.nextafter(np.quantile(scores[~positive], share, method="higher"), 1.0))
    raise ValueError(f"found {name!r}; expected sensitivity or specificity")


def measure_operating_point(
    name: str, threshold: float, positive: NDArray[np.bool_], scores: NDArray[np.float64]
) -> OperatingPoint:
    """Measure a threshold on exams it was not chosen on."""
    called = scores >= threshold
    return OperatingPoint(
        name=name,
        threshold=threshold,
        sensitivity=wilson_interval(int(called[positive].sum()), int(positive.sum())),
        specificity=wilson_interval(int((~called[~positive]).sum()), int((~positive).sum())),
    )


@dataclass(frozen=True, kw_only=True)
class ScoredSet:
    """A model's answers for exams it was not trained on."""

    positive: NDArray[np.bool_]
    """(N,)"""
    logits: NDArray[np.float64]
    """(N,), positive minus negative prompt."""
    data: str
    """What the exams are."""


def measured_auc(name: str, finding: str, scored: ScoredSet) -> Measurement:
    """Measure the area under the ROC curve.

    Where DeLong's interval has no width, as for a ranking without a mistake, it is Wilson's, for
    as many trials as the rarer class has exams: no AUC varies more (Birnbaum and Klose, Annals of
    Mathematical Statistics 28:933, 1957).
    """
    value = auc_interval(scored.positive, scored.logits)
    if value.lower == value.upper:
        rarer = min(int(scored.positive.sum()), int((~scored.positive).sum()))
        value = wilson_interval(value.estimate * rarer, rarer)
    return Measurement(
        name=name,
        finding=finding,
        value=value,
        exams=len(scored.logits),
        data=scored.data,
    )


def in_words(measurement: Measurement) -> str:
    """Say what was measured, with its interval."""
    value = measurement.value
    return (
        f"{measurement.name} {value.estimate:.3f}, {value.level:.0%} interval {value.lower:.3f} to "
        f"{value.upper:.3f}, on {measurement.exams} exams"
    )


def limits(auc: Measurement, calibration: ScoredSet) -> tuple[str, ...]:
    """Say for the model card what the exams were too few, or the model too poor, to show.

    Parameters
    ----------
    auc
        Of the test part, from `measured_auc`.
    calibration
        What the operating points of `trained_finding` were set on.
    """
    said = []
    if auc.value.upper < CHANCE:
        said.append(
            f"The interval of the AUC on the test part is below 0.5 ({in_words(auc)}): worse than "
            "chance."
        )
    elif auc.value.lower <= CHANCE:
        said.append(
            f"The interval of the AUC on the test part includes 0.5 ({in_words(auc)}): not shown "
            "to be better than chance."
        )
    malignant = int(calibration.positive.sum())
    counts = {"sensitivity": malignant, "specificity": len(calibration.positive) - malignant}
    said += [
        f'The threshold of "{_point(kind)}" was set on {exams} exams '
        f"{'with' if kind == 'sensitivity' else 'without'} {auc.finding}, fewer than {FEW}: on "
        "other exams it may reach far less."
        for kind, exams in counts.items()
        if exams < FEW
    ]
    return tuple(said)


def trained_finding(
    name: str, training: TrainSettings, calibration: ScoredSet, test: ScoredSet
) -> TrainedFinding:
    """Fit calibration and thresholds on one set of exams and measure them on another."""
    platt = fit_calibration(calibration.positive, calibration.logits, data=calibration.data)
    fitted, tested = calibrated(platt, calibration.logits), calibrated(platt, test.logits)
    points = [
        measure_operating_point(
            _point(kind),
            choose_threshold(calibration.positive, fitted, name=kind, share=SHARE),
            test.positive,
            tested,
        )
        for kind in ("sensitivity", "specificity")
    ]
    return TrainedFinding(
        name=name,
        negative_prompt=training.negative_prompt,
        positive_prompt=training.positive_prompt,
        calibration=platt,
        operating_points=tuple(points),
    )


def _point(kind: str) -> str:
    return f"{kind} {100 * SHARE:.0f} %"
