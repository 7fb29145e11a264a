"""A batch of prepared exams, through the graph once and through scoring one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Finding
from mammoclip_sdk.errors import InferenceError
from mammoclip_sdk.prediction import Prediction, Provenance, Timing
from mammoclip_sdk.predictor.preparation import PreparedExam, timed
from mammoclip_sdk.quality import Reason
from mammoclip_sdk.reasons import OUTPUT
from mammoclip_sdk.scoring import FindingScore, score
from mammoclip_sdk.sessions import Session


def answer(
    batch: list[PreparedExam],
    session: Session,
    findings: tuple[Finding, ...],
    provenance: Provenance,
) -> list[Prediction]:
    """Run the graph once for all exams that nothing blocks, and score them.

    Raises
    ------
    InferenceError
        The runtime failed. An embedding that is none is its own exam's abstention.
    """
    timing: dict[str, float] = {}
    scorable = [prepared for prepared in batch if not prepared.blocked]
    embeddings: Iterator[NDArray[np.float32]] = iter(())
    if scorable:
        with timed(timing, "inference"):
            embeddings = iter(session.run(_stacked(scorable)))
    return [
        _prediction(prepared, prepared.reasons, (), provenance, prepared.timing)
        if prepared.blocked
        else _scored(prepared, next(embeddings), findings, provenance, timing)
        for prepared in batch
    ]


def _stacked(batch: list[PreparedExam]) -> dict[str, NDArray[np.float32]]:
    return {
        name: np.concatenate([prepared.tensors[name] for prepared in batch])
        for name in batch[0].tensors
    }


def _scored(
    prepared: PreparedExam,
    embedding: NDArray[np.float32],
    questions: tuple[Finding, ...],
    provenance: Provenance,
    timing: Mapping[str, float],
) -> Prediction:
    own = {**prepared.timing, **timing}
    reasons = prepared.reasons
    findings: tuple[FindingScore, ...] = ()
    with timed(own, "scoring"):
        try:
            findings = score(embedding, questions)
        except InferenceError as error:  # of this exam; its neighbours' may be right
            message = f"The model's output is unusable: {error.found}. {error.remedy}"
            unusable = Reason(code=OUTPUT, severity="block", view=None, message=message)
            reasons = (*reasons, unusable)
    return _prediction(prepared, reasons, findings, provenance, own)


def _prediction(
    prepared: PreparedExam,
    reasons: tuple[Reason, ...],
    findings: tuple[FindingScore, ...],
    provenance: Provenance,
    timing: Mapping[str, float],
) -> Prediction:
    return Prediction(
        answered_at=datetime.now(UTC).isoformat(timespec="seconds"),
        status="scored" if findings else "abstained",
        study_instance_uid=prepared.study_instance_uid,
        findings=findings,
        reasons=reasons,
        views=prepared.records,
        notes=prepared.notes,
        provenance=provenance,
        timing=Timing.of(timing),
    )
