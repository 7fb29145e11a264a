"""Image embedding -> a probability for each finding, on the host and in float32.

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
class FindingScore:
    """The answer to one finding's question."""

    name: str
    probability: float
    """0 to 1, of the positive prompt; calibrated where ``calibrated`` says so."""
    logit: float
    """Positive minus negative logit."""
    logits: tuple[float, float]
    """Logit scale times cosine, for the negative and the positive prompt."""
    calibrated: bool
    operating_points_met: tuple[str, ...]
    """Names of the operating points whose threshold the probability reaches."""


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
        or a score is not finite or no probability. It is this exam's; another one's may be right.
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
    probability = _sigmoid(_calibrate(margin, finding.calibration))
    # NaN is in no range.
    if not (0 <= probability <= 1 and math.isfinite(negative) and math.isfinite(positive)):
        raise _unusable(
            finding,
            f"a probability of {probability:g} from logits of {negative:g} and {positive:g}",
            "a probability of 0 to 1 from finite logits",
        )
    return FindingScore(
        name=finding.name,
        probability=float(probability),
        logit=float(margin),
        logits=(float(negative), float(positive)),
        calibrated=finding.calibration is not None,
        operating_points_met=tuple(
            point.name
            for point in finding.operating_points
            if probability >= np.float32(point.threshold)
        ),
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
