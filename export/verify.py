"""The gate before a bundle: the training model in PyTorch against the graph in ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.errors import InferenceError
from mammoclip_sdk.sessions import Session, open_session
from training.model import MammoClip

LOGIT_SCALE = 100.0
"""CLIP's upper limit; the gate uses it whatever the model's own is."""
TOLERANCE = 1e-3
"""Largest accepted difference of a logit at that scale, in float32."""


class ParityError(Exception):
    """The exported graph does not compute what the training model computes."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the graph is from the training model, at its worst."""

    worst: float
    """Absolute difference of a logit at `LOGIT_SCALE`, over exams, prompts and batch sizes."""
    where: str
    exams: int
    runtime: str


def verify(model: MammoClip, bundle: Bundle, exams: NDArray[np.float32]) -> Parity:
    """Compare the un-folded model with the bundle's graph, on one exam and on four at a time.

    Parameters
    ----------
    exams
        (N, 4, 1, H, W) float32, 0 to 1.

    Raises
    ------
    ParityError
        A logit differs by more than `TOLERANCE`, is not a number, or depends on the batch.
    """
    prompts = np.array(
        [
            embedding
            for finding in bundle.manifest.findings
            for embedding in (finding.negative_embedding, finding.positive_embedding)
        ],
        dtype=np.float32,
    )
    expected = LOGIT_SCALE * _reference(model, exams) @ prompts.T
    if not np.isfinite(expected).all():
        raise ParityError("the training model itself answers with NaN or infinity")
    session = open_session(bundle, "cpu")
    try:
        found = {size: LOGIT_SCALE * _run(session, exams, size) @ prompts.T for size in (1, 4)}
    except InferenceError as error:
        raise ParityError(str(error)) from error
    finally:
        session.close()
    runtime = session.runtime
    if not all(np.isfinite(logits).all() for logits in found.values()):  # no maximum finds a NaN
        raise ParityError(f"{runtime} answers with NaN or infinity")
    compared = {
        f"{runtime}, batch {size}, and PyTorch": (logits, expected)
        for size, logits in found.items()
    }
    compared[f"{runtime}, batch 1 and batch 4"] = (found[1], found[4])
    worst, where = max(_worst(name, *pair) for name, pair in compared.items())
    if not worst <= TOLERANCE:
        raise ParityError(
            f"a logit differs by {worst:.3g}, more than {TOLERANCE:g} at logit scale "
            f"{LOGIT_SCALE:g}; the worst case is {where}"
        )
    return Parity(worst=worst, where=where, exams=len(exams), runtime=runtime)


@torch.no_grad()
def _reference(model: MammoClip, exams: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate(
        [model.encode_exam(torch.from_numpy(exam[np.newaxis])).numpy() for exam in exams]
    )


def _run(session: Session, exams: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    starts = range(0, len(exams), size)
    return np.concatenate([session.run({"views": exams[i : i + size]}) for i in starts])


def _worst(
    name: str, logits: NDArray[np.float32], expected: NDArray[np.float32]
) -> tuple[float, str]:
    differences = np.abs(logits - expected)
    exam, prompt = np.unravel_index(differences.argmax(), differences.shape)
    values = f"{logits[exam, prompt]:.6f} and {expected[exam, prompt]:.6f}"
    return float(differences.max()), f"exam {exam}, prompt {prompt}: {name}: {values}"
