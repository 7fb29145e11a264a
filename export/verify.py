"""The gate before a bundle: the training model in PyTorch against every graph on every runtime."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from export.one_dnn import one_dnn
from mammoclip_sdk.bundle import Bundle, Finding
from mammoclip_sdk.errors import DeviceError
from mammoclip_sdk.golden import ANSWER_TOLERANCE, logits_of
from mammoclip_sdk.parity import Progress, certify
from mammoclip_sdk.parity.certificate import Certificate
from mammoclip_sdk.parity.exams import ParityExams
from training.model import MammoClip


class ParityError(Exception):
    """A graph does not compute what the training model computes; nothing may be written."""

    def __init__(self, message: str, certificate: Certificate | None = None) -> None:
        super().__init__(message)
        self.certificate = certificate
        """What was measured, where something was."""


@torch.no_grad()
def answered(
    model: MammoClip,
    findings: tuple[Finding, ...],
    views: NDArray[np.uint8],
    labels: NDArray[np.int8],
) -> ParityExams:
    """Answer exams with the training model itself, in float32 and not folded, one by one.

    Parameters
    ----------
    views
        (N, 4, 1, height, width); the model's input is this divided by 255.
    labels
        (N,): 1 malignant, 0 not, -1 unknown.

    Raises
    ------
    ParityError
        The model answers with NaN or infinity, or with no direction at all: nothing can be compared
        with that.
    """
    scale = np.float32(255)
    with one_dnn():
        rows = [
            model.encode_exam(torch.from_numpy(exam[np.newaxis].astype(np.float32) / scale)).numpy()
            for exam in views
        ]
    embedding = np.concatenate(rows).astype(np.float32)
    _require_embeddings(embedding)
    return ParityExams(
        views=views,
        labels=labels,
        embedding=embedding,
        logits=logits_of(embedding, findings).astype(np.float32),
        reference=f"PyTorch {torch.__version__}, float32, not folded",
    )


def _require_embeddings(answers: NDArray[np.float32]) -> None:
    faults = {exam: fault for exam, row in enumerate(answers) if (fault := _fault(row))}
    if faults:
        exam, fault = next(iter(faults.items()))
        raise ParityError(
            f"the training model itself: found {fault} in its answer to exam {exam} "
            f"({len(faults)} of {len(answers)} exams); expected finite embeddings of length 1. "
            "Train it again, or look for weights that are not finite, all zero, or huge."
        )


def _fault(row: NDArray[np.float32]) -> str:
    if not np.isfinite(row).all():
        return "NaN or infinity"
    length = float(np.linalg.norm(row.astype(np.float64)))
    return f"the length {length:.3g}" if abs(length - 1) > ANSWER_TOLERANCE else ""


def verify(bundle: Bundle, progress: Progress | None = None) -> Certificate:
    """Compare every graph of a bundle, not yet written, on every runtime that is here.

    Parameters
    ----------
    bundle
        With the parity exams among its attachments.

    Raises
    ------
    ParityError
        A gate failed, a runtime that is here cannot run a graph, or none is here. It says the
        worst case of everything that failed.
    """
    try:
        certificate = certify(bundle, progress=progress)
    except DeviceError as error:
        raise ParityError(str(error)) from error
    if not certificate.passed:
        failures = "; ".join(certificate.failures)
        raise ParityError(
            f"the graphs: found {failures}; expected every runtime to agree with "
            f"{certificate.reference}. Export again without the precision that failed, or mend it.",
            certificate,
        )
    return certificate
