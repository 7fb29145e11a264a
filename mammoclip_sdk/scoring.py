"""Image embedding -> a score for each finding, on the host and in float32.

The two dot products with the prompts' embeddings, the logit scale, the softmax and the
calibration stay out of the graph, so that a float16 engine cannot round them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Calibration, Finding
from mammoclip_sdk.errors import InferenceError

_UNIT_TOLERANCE = 1e-3
"""Largest accepted distance of an embedding's length from 1; float16 rounding stays below."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """On which side of an operating point's threshold a score lies."""

    name: str
    """The operating point's."""
    threshold: float
    met: bool
    """Whether the score is at least the threshold."""


@dataclass(frozen=True, kw_only=True)
class FindingScore:
    """The answer to one finding's question."""

    name: str
    probability: float | None
    """0 to 1, of the positive prompt; None where the finding was never calibrated."""
    score: float
    """0 to 1, higher where the positive prompt fits better; what operating points are compared
    with. The probability, or of a finding without one the softmax over the two logits: it orders
    exams, and is no probability."""
    logit: float
    """Positive minus negative logit."""
    logits: tuple[float, float]
    """Logit scale times cosine, for the negative and the positive prompt."""
    calibrated: bool
    calibrated_on: str | None
    """The exams of the calibration, in the bundle's words: a probability holds for their share of
    positive ones, which in screening is another. None where there is no calibration."""
    operating_points: tuple[Decision, ...]
    """In the order of the bundle; the certificate and the model card say what they are worth."""
    operating_points_met: tuple[str, ...]
    """Names of those that are met."""


def score(
    embedding: NDArray[np.float32], findings: tuple[Finding, ...]
) -> tuple[FindingScore, ...]:
    """Compare one exam's embedding with the prompts of every finding.

    Parameters
    ----------
    embedding
        (D,), float32, length 1.

    Raises
    ------
    InferenceError
        The embedding is not a finite vector of length 1 with as many components as the prompts',
        or a score is not within 0 to 1. It is this exam's; another one's may be right.
    """
    return tuple(_score(np.asarray(embedding, dtype=np.float32), finding) for finding in findings)


def _fault(embedding: NDArray[np.float32], shape: tuple[int, ...]) -> str | None:
    if embedding.shape != shape:
        return f"an image embedding of shape {embedding.shape}"
    if not np.isfinite(embedding).all():
        return "an image embedding with NaN or infinity"
    away = abs(float(np.linalg.norm(embedding)) - 1)
    if away > _UNIT_TOLERANCE:
        return f"an image embedding whose length is {away:.3g} away from 1"
    return None


def _score(embedding: NDArray[np.float32], finding: Finding) -> FindingScore:
    prompts = np.array([finding.negative_embedding, finding.positive_embedding], dtype=np.float32)
    found = _fault(embedding, prompts.shape[1:])
    if found is not None:
        raise _unusable(finding, found, f"{prompts.shape[1:]}, all finite, of length 1")
    negative, positive = np.float32(finding.logit_scale) * (prompts @ embedding)
    margin = positive - negative
    value = _sigmoid(_calibrate(margin, finding.calibration))
    # NaN is in no range.
    if not (0 <= value <= 1 and math.isfinite(negative) and math.isfinite(positive)):
        raise _unusable(
            finding,
            f"a score of {value:g} from logits of {negative:g} and {positive:g}",
            "a score of 0 to 1 from finite logits",
        )
    calibration = finding.calibration
    decisions = tuple(
        Decision(name=p.name, threshold=p.threshold, met=bool(value >= np.float32(p.threshold)))
        for p in finding.operating_points
    )
    return FindingScore(
        name=finding.name,
        probability=None if calibration is None else float(value),
        score=float(value),
        logit=float(margin),
        logits=(float(negative), float(positive)),
        calibrated=calibration is not None,
        calibrated_on=None if calibration is None else calibration.fitted_on,
        operating_points=decisions,
        operating_points_met=tuple(one.name for one in decisions if one.met),
    )


def _unusable(finding: Finding, found: str, expected: str) -> InferenceError:
    return InferenceError(
        f"finding {finding.name!r}",
        found=found,
        expected=expected,
        remedy="Do not use this device with this bundle; mammoclip-sdk bundle verify tells more.",
        code="unusable_output",
    )


def _calibrate(margin: np.float32, calibration: Calibration | None) -> np.float32:
    if calibration is None:
        return margin
    return np.float32(calibration.slope) * margin + np.float32(calibration.intercept)


def _sigmoid(x: np.float32) -> np.float32:
    """Softmax over (0, x), written so that no exponential overflows."""
    tail = np.exp(-np.abs(x))
    return np.float32(1 / (1 + tail) if x >= 0 else tail / (1 + tail))
