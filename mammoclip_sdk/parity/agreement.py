"""How far a runtime is from the reference model, at its worst, and how far it may be.

One table, `LIMITS`, holds what passes in each precision. The worst case is judged, never a mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mammoclip_sdk.bundle.contradictions import LOGIT_SCALE
from mammoclip_sdk.bundle.manifest import Interval

QUANTITIES = {
    "unusable": "exams whose output is no embedding",
    "logit": f"difference of a logit, at scale {LOGIT_SCALE:g}",
    "cosine": "1 - cosine of the embeddings",
    "length": "distance of an embedding's length from 1",
    "probability": "difference of a probability",
    "flips": "decisions that differ at an operating point",
    "auc": "difference of the area under the ROC curve",
    "batch_logit": f"difference of a logit between batch sizes, at scale {LOGIT_SCALE:g}",
    "batch_probability": "difference of a probability between batch sizes",
    "batch_cosine": "1 - cosine of the embeddings between batch sizes",
    "golden_logit": "difference of a golden exam's logit",
    "golden_probability": "difference of a golden exam's probability",
}
"""What gates judge, in absolute values."""
_ROUNDED = {
    "unusable": 0.0,
    "cosine": 0.01,
    "probability": 0.02,
    "auc": 0.005,
    "batch_probability": 0.02,
    "batch_cosine": 0.01,
}
LIMITS: Mapping[str, Mapping[str, float]] = {
    "fp32": {
        "unusable": 0.0,
        "logit": 1e-3,
        "cosine": 1e-6,
        "length": 1e-5,
        "flips": 0.0,
        "batch_logit": 1e-3,
        "batch_cosine": 1e-6,
    },
    "fp16": {
        "unusable": 0.0,
        "logit": 0.05,
        "cosine": 1e-4,
        "length": 1e-5,
        "probability": 0.02,
        "flips": 0.0,
        "batch_logit": 0.05,
        "batch_probability": 0.02,
        "batch_cosine": 1e-4,
    },
    "bf16": _ROUNDED,
    "int8": _ROUNDED,
}
"""Largest value that passes, by precision and quantity.

Between batch sizes as much is accepted as between a runtime and the reference. Where a model's
probabilities all lie close together they show nothing, and only the cosine tells one exam's answer
from another's. 0.01 is four times the worst that rounding was found to do to it (eight bits in a
ViT-L/14), and a third or less of what a graph is off by at worst that answers every exam alike.
"""
VERDICTS = ("passed", "failed", "not judged")


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The largest value of something over all exams, and where it was found."""

    value: float
    where: str


@dataclass(frozen=True, kw_only=True)
class Flips:
    """How many exams a runtime puts on the other side of an operating point's threshold."""

    operating_point: str
    threshold: float
    count: int
    where: str
    """The exams, or an empty text."""


@dataclass(frozen=True, kw_only=True)
class AucAgreement:
    """The area under the ROC curve, of the reference and of a runtime, on the labelled exams."""

    exams: int
    positives: int
    reference: Interval
    runtime: Interval
    difference: Interval
    """Runtime minus reference, as a paired difference."""


@dataclass(frozen=True, kw_only=True)
class FindingAgreement:
    """How far a runtime's answers to one finding's question are from the reference model's."""

    finding: str
    probability: Worst | None
    operating_points: tuple[Flips, ...]
    auc: AucAgreement | None
    """None without two labelled exams of either kind."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What was measured; None where no exam's output was usable."""

    exams: int
    unusable: int
    unusable_where: str
    logit: Worst | None
    cosine: Worst | None
    length: Worst | None
    findings: tuple[FindingAgreement, ...]
    batch_sizes: tuple[int, ...]
    """Of the batches that the first exams were run in once more."""
    batch_logit: Worst | None
    batch_probability: Worst | None
    batch_cosine: Worst | None


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A limit, what was found, and the verdict."""

    quantity: str
    """One of `QUANTITIES`."""
    limit: float
    value: float | None
    """None where it was not judged, or was so wrong that there is no number for it."""
    where: str
    """The worst case; without a value, why there is none."""
    verdict: str
    """One of `VERDICTS`."""


def gate_text(gate: Gate) -> str:
    """Say what a gate found, and what it accepts."""
    if gate.value is None:
        return f"{QUANTITIES[gate.quantity]}: {gate.verdict}, {gate.where}"
    where = f" ({gate.where})" if gate.where else ""
    found = f"{QUANTITIES[gate.quantity]}: {number_text(gate.value)}"
    return f"{found}, at most {number_text(gate.limit)}{where}"


def number_text(value: float) -> str:
    """Write a value with as many digits as tell it from its limit: 3, 0.00213, 4.1e-07."""
    return f"{value:.3g}"


def gate(quantity: str, limit: float, worst: Worst | str) -> Gate:
    """Judge a worst case, which fails if it is no number; a text says why there is none."""
    if isinstance(worst, str):
        return Gate(quantity=quantity, limit=limit, value=None, where=worst, verdict="not judged")
    value = worst.value if math.isfinite(worst.value) else None
    verdict = "passed" if worst.value <= limit else "failed"
    return Gate(quantity=quantity, limit=limit, value=value, where=worst.where, verdict=verdict)


def judge(precision: str, agreement: Agreement) -> tuple[Gate, ...]:
    """Judge what was measured in a precision by `LIMITS`."""
    nothing = "no exam's output was usable"
    probabilities = [one.probability for one in agreement.findings]
    found: dict[str, Worst | str] = {
        "unusable": Worst(value=float(agreement.unusable), where=agreement.unusable_where),
        "logit": agreement.logit or nothing,
        "cosine": agreement.cosine or nothing,
        "length": agreement.length or nothing,
        "probability": largest(probabilities) or nothing,
        "flips": _flips(agreement),
        "auc": _auc(agreement),
        "batch_logit": agreement.batch_logit or nothing,
        "batch_probability": agreement.batch_probability or nothing,
        "batch_cosine": agreement.batch_cosine or nothing,
    }
    return tuple(gate(name, limit, found[name]) for name, limit in LIMITS[precision].items())


def largest(found: Sequence[Worst | None]) -> Worst | None:
    """Return the worst of what was found; None where nothing was."""
    known = [worst for worst in found if worst is not None]
    return max(known, key=lambda worst: worst.value, default=None)


def _flips(agreement: Agreement) -> Worst | str:
    points = [point for one in agreement.findings for point in one.operating_points]
    if not points:
        return "no operating points"
    where = "; ".join(f"{point.operating_point}: {point.where}" for point in points if point.count)
    return Worst(value=float(sum(point.count for point in points)), where=where)


def _auc(agreement: Agreement) -> Worst | str:
    """Judge by the findings whose reference answers tell the labelled exams apart at all.

    Where they do not, the labels are not those of the finding's question: a ranking by chance
    moves with every rounding, and its area says nothing. A reference that ranks them backwards
    tells them apart.
    """
    judged, reasons = [], []
    for one in agreement.findings:
        if one.auc is None:
            reasons.append(f"{one.finding}: too few labelled exams")
            continue
        reference, found = one.auc.reference, one.auc.difference
        if not reference.lower <= 0.5 <= reference.upper:
            value = abs(found.estimate)
            limits = f"{found.level:.0%} interval {found.lower:+.4f} to {found.upper:+.4f}"
            backwards = ", ranked backwards" if reference.upper < 0.5 else ""
            judged.append(Worst(value=value, where=f"{one.finding}{backwards}: {limits}"))
        else:
            reasons.append(
                f"{one.finding}: the reference does not tell the labelled exams apart (AUC "
                f"{reference.estimate:.3f}, {reference.lower:.3f} to {reference.upper:.3f})"
            )
    return largest(judged) or "; ".join(reasons)
