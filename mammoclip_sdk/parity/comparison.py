"""A runtime's embeddings beside the reference model's: what differs at worst, and where.

Probabilities and decisions are those that `scoring` would report, in float32; differences of
embeddings and logits are taken in float64, so that taking them adds no rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle.contradictions import LOGIT_SCALE
from mammoclip_sdk.bundle.manifest import Finding, Interval
from mammoclip_sdk.errors import InferenceError
from mammoclip_sdk.parity.agreement import (
    Agreement,
    AucAgreement,
    FindingAgreement,
    Flips,
    Worst,
    largest,
)
from mammoclip_sdk.scoring import FindingScore, score

_LEVEL, _Z = 0.95, 1.959963984540054
_LISTED = 8  # exams that are named before they are only counted


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a session answered to the parity exams."""

    embedding: NDArray[np.float32]
    """(N, D), of each exam alone."""
    batches: tuple[NDArray[np.float32], ...]
    """Each (M, D), of the first M exams in one batch; one or more."""


def compare(
    findings: tuple[Finding, ...],
    reference: NDArray[np.float32],
    answers: Answers,
    labels: NDArray[np.int8],
) -> Agreement:
    """Measure how far a session's answers are from the reference embeddings.

    Parameters
    ----------
    reference
        (N, D), rows of length 1.
    labels
        (N,): 1 malignant, 0 not, -1 unknown.

    Raises
    ------
    InferenceError
        A reference embedding is none.
    """
    expected = [score(row, findings) for row in reference]
    found, faults = _scored(answers.embedding, findings)
    usable = [exam for exam, scores in enumerate(found) if scores is not None]
    wide, right = answers.embedding.astype(np.float64), reference.astype(np.float64)
    batches = [_batch(findings, batch, wide, found) for batch in answers.batches]
    for batch in batches:
        faults = batch.faults | faults
    return Agreement(
        exams=len(reference),
        unusable=len(faults),
        unusable_where=_listed(
            [f"exam {exam} ({fault})" for exam, fault in sorted(faults.items())]
        ),
        logit=_worst_logit(findings, wide, right, usable, "reference"),
        cosine=_worst_cosine(wide, right, usable),
        length=_worst_length(wide, usable),
        findings=tuple(
            _finding(
                finding,
                {exam: expected[exam][place] for exam in usable},
                {exam: _of(found, exam)[place] for exam in usable},
                labels,
            )
            for place, finding in enumerate(findings)
        ),
        batch_sizes=tuple(len(batch) for batch in answers.batches),
        batch_logit=largest([batch.logit for batch in batches]),
        batch_probability=largest([batch.probability for batch in batches]),
        batch_cosine=largest([batch.cosine for batch in batches]),
    )


_Scores = tuple[FindingScore, ...]


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """How far the answers in one batch are from those of the same exams alone."""

    faults: dict[int, str]
    logit: Worst | None
    cosine: Worst | None
    probability: Worst | None


def _batch(
    findings: tuple[Finding, ...],
    batch: NDArray[np.float32],
    alone: NDArray[np.float64],
    scored_alone: list[_Scores | None],
) -> _Batch:
    size, (scored, faults) = len(batch), _scored(batch, findings)
    both = [i for i in range(size) if scored[i] is not None and scored_alone[i] is not None]
    where = f"in a batch of {size}"
    beside, wide = f"{where}; alone", batch.astype(np.float64)
    pairs = [
        (exam, one.name, one, other)
        for exam in both
        for one, other in zip(_of(scored, exam), _of(scored_alone, exam), strict=True)
    ]
    return _Batch(
        faults={exam: f"{where}, {fault}" for exam, fault in faults.items()},
        logit=_worst_logit(findings, wide, alone[:size], both, beside),
        cosine=_worst_cosine(wide, alone[:size], both, where),
        probability=_worst_probability(pairs, beside),
    )


def _scored(
    embeddings: NDArray[np.float32], findings: tuple[Finding, ...]
) -> tuple[list[_Scores | None], dict[int, str]]:
    """Score every row; where that is refused, None and the reason."""
    scores: list[_Scores | None] = []
    faults = {}
    for exam, row in enumerate(embeddings):
        try:
            scores.append(score(row, findings))
        except InferenceError as error:
            scores.append(None)
            faults[exam] = error.found
    return scores, faults


def _of(scores: list[_Scores | None], exam: int) -> _Scores:
    usable = scores[exam]
    if usable is None:
        raise LookupError(f"exam {exam} has no score")
    return usable


def _worst_logit(
    findings: tuple[Finding, ...],
    found: NDArray[np.float64],
    expected: NDArray[np.float64],
    usable: list[int],
    beside: str,
) -> Worst | None:
    if not usable:
        return None
    names = [f"{one.name}, {kind} prompt" for one in findings for kind in ("negative", "positive")]
    prompts = np.array(
        [row for one in findings for row in (one.negative_embedding, one.positive_embedding)]
    )
    scale = max(LOGIT_SCALE, *(finding.logit_scale for finding in findings))
    differences = scale * np.abs((found[usable] - expected[usable]) @ prompts.T)
    row, prompt = np.unravel_index(int(differences.argmax()), differences.shape)
    exam = usable[int(row)]
    values = [scale * float(side[exam] @ prompts[prompt]) for side in (found, expected)]
    where = f"exam {exam}, {names[int(prompt)]}: {values[0]:.6f}, {beside} {values[1]:.6f}"
    return _worst(float(differences.max()), where)


def _worst_cosine(
    found: NDArray[np.float64], expected: NDArray[np.float64], usable: list[int], where: str = ""
) -> Worst | None:
    if not usable:
        return None
    rows = [side[usable] / _lengths(side[usable])[:, None] for side in (found, expected)]
    distances = np.square(rows[0] - rows[1]).sum(axis=1) / 2  # 1 - cosine, without cancellation
    return _at(distances, usable, where)


def _worst_length(found: NDArray[np.float64], usable: list[int]) -> Worst | None:
    return _at(np.abs(_lengths(found[usable]) - 1), usable) if usable else None


def _lengths(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.square(rows).sum(axis=1)))


def _at(values: NDArray[np.float64], usable: list[int], where: str = "") -> Worst:
    return _worst(float(values.max()), f"exam {usable[int(values.argmax())]} {where}".rstrip())


def _worst(value: float, where: str) -> Worst:
    """Where nothing differs at all, no exam is the worst."""
    return Worst(value=value, where=where if value else "")


def _worst_probability(
    pairs: list[tuple[int, str, FindingScore, FindingScore]], beside: str
) -> Worst | None:
    """Take (exam, finding, found, expected)."""
    if not pairs:
        return None
    exam, name, found, expected = max(pairs, key=lambda pair: abs(pair[2].score - pair[3].score))
    where = f"exam {exam}, {name}: {found.score:.6f}, {beside} {expected.score:.6f}"
    return _worst(abs(found.score - expected.score), where)


def _finding(
    finding: Finding,
    expected: dict[int, FindingScore],
    found: dict[int, FindingScore],
    labels: NDArray[np.int8],
) -> FindingAgreement:
    pairs = [(exam, finding.name, found[exam], expected[exam]) for exam in found]
    points = []
    for point in finding.operating_points:
        flipped = [
            f"exam {exam} ({found[exam].score:.6f}, reference {expected[exam].score:.6f})"
            for exam in found
            if (point.name in found[exam].operating_points_met)
            != (point.name in expected[exam].operating_points_met)
        ]
        points.append(
            Flips(
                operating_point=point.name,
                threshold=point.threshold,
                count=len(flipped),
                where=_listed(flipped),
            )
        )
    labelled = [exam for exam in found if labels[exam] >= 0]
    return FindingAgreement(
        finding=finding.name,
        probability=_worst_probability(pairs, "reference"),
        operating_points=tuple(points),
        auc=paired_auc(
            labels[labelled] == 1,
            np.array([expected[exam].logit for exam in labelled]),
            np.array([found[exam].logit for exam in labelled]),
        ),
    )


def paired_auc(
    positive: NDArray[np.bool_], reference: NDArray[np.float64], runtime: NDArray[np.float64]
) -> AucAgreement | None:
    """Return both areas under the ROC curve and their difference, each with its interval.

    Parameters
    ----------
    positive
        (N,). With fewer than two of either kind there is no interval, and None is returned.
    reference, runtime
        (N,), scores of the same exams; higher means more likely positive, ties count one half.

    Notes
    -----
    DeLong, DeLong and Clarke-Pearson, Biometrics 44:837, 1988: the covariance of the placement
    values, which is that of paired scores.
    """
    count, others = int(positive.sum()), int((~positive).sum())
    if min(count, others) < 2:
        return None
    beats, beaten = [], []
    for scores in (reference, runtime):
        above = scores[positive][:, None] - scores[~positive][None, :]
        kernel = (above > 0) + 0.5 * (above == 0)
        beats.append(kernel.mean(axis=1))
        beaten.append(kernel.mean(axis=0))
    areas = [float(one.mean()) for one in beats]
    covariance = np.cov(beats) / count + np.cov(beaten) / others
    contrast = np.array([-1.0, 1.0])
    return AucAgreement(
        exams=len(positive),
        positives=count,
        reference=_interval(areas[0], covariance[0, 0], (0.0, 1.0)),
        runtime=_interval(areas[1], covariance[1, 1], (0.0, 1.0)),
        difference=_interval(
            areas[1] - areas[0], float(contrast @ covariance @ contrast), (-1.0, 1.0)
        ),
    )


def _interval(estimate: float, variance: float, bounds: tuple[float, float]) -> Interval:
    spread = _Z * float(np.sqrt(max(variance, 0.0)))  # rounding may leave a little below zero
    return Interval(
        estimate=estimate,
        lower=max(bounds[0], estimate - spread),
        upper=min(bounds[1], estimate + spread),
        level=_LEVEL,
        method="delong",
    )


def _listed(cases: list[str]) -> str:
    more = f" and {len(cases) - _LISTED} more" if len(cases) > _LISTED else ""
    return ", ".join(cases[:_LISTED]) + more
