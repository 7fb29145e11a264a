"""The golden exams of a bundle, run through a session: does this runtime compute this model?

ONNX Runtime notices almost no corruption, and a driver can be wrong on one GPU alone. A handful
of exams whose answers are known says more about a loaded session than any version number.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle, Finding
from mammoclip_sdk.bundle.manifest import GOLDEN_QUANTITIES
from mammoclip_sdk.engines import Engine, cache
from mammoclip_sdk.engines.matching import misfits, this_machine
from mammoclip_sdk.errors import BundleFormatError, InferenceError
from mammoclip_sdk.exam import VIEWS
from mammoclip_sdk.scoring import score
from mammoclip_sdk.sessions import CheckedSession, Session, trt
from mammoclip_sdk.sessions.trt import record_parity

_MAX_BYTES = 2**30
"""Of the unpacked arrays; 16 exams of 4 views of 1024 x 512 pixels take 0.13 GB."""
ANSWER_TOLERANCE = 1e-3
"""Of a stored embedding's length, and of stored logits beside those of the embeddings, relative to
the scale: what two float32 computations of the same may differ by, many times over."""
_PLURAL = {"logit": "logits", "probability": "probabilities"}


@dataclass(frozen=True, kw_only=True)
class GoldenArrays:
    """Model inputs and the reference model's answers, all float32."""

    views: NDArray[np.float32]
    """(N, 4, 1, height, width), 0 to 1."""
    embedding: NDArray[np.float32]
    """(N, D), rows of length 1."""
    logits: NDArray[np.float32]
    """(N, findings, 2): negative and positive."""


@dataclass(frozen=True, kw_only=True)
class GoldenResult:
    """How far a session's answers are from the reference model's."""

    exams: int
    quantity: str
    """What is compared: ``logit`` or ``probability``, by the session's precision."""
    worst_difference: float
    """Largest absolute difference of it."""
    tolerance: float
    """What the manifest accepts for the session's precision."""
    runtime: str
    precision: str

    @property
    def passed(self) -> bool:
        """Whether the session may be used."""
        return self.worst_difference <= self.tolerance


def read_golden(bundle: Bundle) -> GoldenArrays:
    """Unpack the golden exams; pickled objects are never loaded.

    Raises
    ------
    BundleFormatError
        The arrays are not those that the manifest describes, or the logits are not those of the
        embeddings and the manifest's prompts.
    """
    manifest = bundle.manifest
    shapes = {
        "views": (
            manifest.golden.count,
            len(VIEWS),
            1,
            manifest.preprocessing.height,
            manifest.preprocessing.width,
        ),
        "embedding": (manifest.golden.count, len(manifest.findings[0].positive_embedding)),
        "logits": (manifest.golden.count, len(manifest.findings), 2),
    }
    try:
        arrays = _load(bundle.files[manifest.golden.file])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(bundle, f"no readable arrays ({error})", shapes) from error
    found = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    if found != {name: ("float32", shape) for name, shape in shapes.items()}:
        raise _unreadable(bundle, str(found), shapes)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise _unreadable(bundle, "NaN or infinity", shapes)  # would compare as no difference
    fault = answer_fault(arrays["embedding"], arrays["logits"], manifest.findings)
    if fault:
        raise _unreadable(bundle, fault, shapes)
    return GoldenArrays(**arrays)


def answer_fault(
    embedding: NDArray[np.float32], logits: NDArray[np.float32], findings: tuple[Finding, ...]
) -> str:
    """Say why stored answers, (N, D) and (N, findings, 2), are not a model's; empty if they are.

    A prompt that was changed after the model had answered shows here, whatever runs the graph.
    """
    if np.abs(np.linalg.norm(embedding, axis=1) - 1).max() > ANSWER_TOLERANCE:
        return "embeddings whose length is not 1"
    scales = np.array([finding.logit_scale for finding in findings])[:, None]
    if (np.abs(logits_of(embedding, findings) - logits) > ANSWER_TOLERANCE * scales).any():
        return "logits that are not those of the embeddings and the manifest's prompts"
    return ""


def logits_of(embedding: NDArray[np.generic], findings: tuple[Finding, ...]) -> NDArray[np.float64]:
    """Return (N, findings, 2): every finding's scale times cosine to its two prompts."""
    prompts = np.array([(one.negative_embedding, one.positive_embedding) for one in findings])
    scales = np.array([finding.logit_scale for finding in findings])
    logits = np.einsum("nd,fpd->nfp", embedding.astype(np.float64), prompts)
    return np.asarray(scales[:, None] * logits)


def run_golden(bundle: Bundle, session: Session) -> GoldenResult:
    """Run the golden exams one by one, as exams come, and compare the answers.

    Raises
    ------
    BundleFormatError
        The golden exams are not what the manifest describes.
    InferenceError
        The runtime failed, or see `compare_golden`. A difference beyond the tolerance is a
        result, not an error.
    """
    golden = read_golden(bundle)
    return compare_golden(bundle, session, golden, answer_golden(golden, session))


def answer_golden(golden: GoldenArrays, session: Session) -> NDArray[np.float32]:
    """Run the golden exams one by one; `InferenceError` where the runtime fails."""
    return np.concatenate([session.run({"views": views[np.newaxis]}) for views in golden.views])


def compare_golden(
    bundle: Bundle, session: Session, golden: GoldenArrays, embeddings: NDArray[np.float32]
) -> GoldenResult:
    """Compare a session's answers to the golden exams with the reference model's.

    A device engine becomes active, or not, by what comes of it.

    Raises
    ------
    InferenceError
        An answer is no embedding, or the session's precision has no tolerance.
    """
    tolerances = bundle.manifest.golden.tolerance
    if session.precision not in tolerances:
        raise InferenceError(
            f"{bundle.path} on {session.runtime}",
            found=f"precision {session.precision!r}",
            expected=f"one that the golden exams have a tolerance for: {', '.join(tolerances)}",
            remedy="Run the graph in the precision the bundle gives for it.",
        )
    tolerance, worst = tolerances[session.precision], 0.0
    quantity = GOLDEN_QUANTITIES[session.precision]
    findings = bundle.manifest.findings
    try:
        for embedding, expected in zip(
            embeddings, _expected(quantity, golden, findings), strict=True
        ):
            found = _judged(quantity, embedding, findings)
            worst = max(worst, float(np.abs(found - expected).max()))
    except InferenceError:
        record_parity(session, exams=len(embeddings), worst_difference=None, tolerance=tolerance)
        raise
    record_parity(session, exams=len(embeddings), worst_difference=worst, tolerance=tolerance)
    return GoldenResult(
        exams=len(embeddings),
        quantity=quantity,
        worst_difference=worst,
        tolerance=tolerance,
        runtime=session.runtime,
        precision=session.precision,
    )


def _expected(
    quantity: str, golden: GoldenArrays, findings: tuple[Finding, ...]
) -> NDArray[np.float32]:
    """Return of every exam what `_judged` returns, as the reference model answered it."""
    if quantity == "probability":
        return np.stack([_judged(quantity, row, findings) for row in golden.embedding])
    logits = golden.logits.reshape(len(golden.logits), -1)
    return np.concatenate([_scale(findings) * golden.embedding, logits], axis=1)


def _judged(
    quantity: str, embedding: NDArray[np.float32], findings: tuple[Finding, ...]
) -> NDArray[np.float32]:
    """Return probabilities (findings,), or the logits of all prompts.

    Prompts may change, and an error at right angles to today's would show in no logit: so the
    embedding's own components, which are the logits of prompts along one axis each, come first.
    """
    scores = score(embedding, findings)
    if quantity == "probability":
        return np.array([one.score for one in scores], dtype=np.float32)
    logits = np.array([one.logits for one in scores], dtype=np.float32)
    return np.concatenate([_scale(findings) * embedding, logits.ravel()])


def _scale(findings: tuple[Finding, ...]) -> np.float32:
    return np.float32(max(finding.logit_scale for finding in findings))


def require_golden(bundle: Bundle, session: Session) -> GoldenResult:
    """Run the golden exams and refuse a session that does not reproduce them.

    Raises
    ------
    InferenceError
        An answer differs by more than the tolerance, or as `run_golden` raises it.
    """
    result = run_golden(bundle, session)
    if not result.passed:
        raise InferenceError(
            f"{bundle.path} on {result.runtime}",
            found=f"golden exams whose {_PLURAL[result.quantity]} differ by up to "
            f"{result.worst_difference:.3g}",
            expected=f"at most {result.tolerance:.3g} in {result.precision}",
            remedy="Do not use this device with this bundle; try another, such as cpu.",
            code="golden_mismatch",
        )
    return result


def prove(bundle: Bundle, engine: Engine) -> Engine:
    """Run the golden exams with an engine that was built, where it fits this machine.

    Returns
    -------
    The engine as its sidecar describes it afterwards; as it was, where there is no GPU for it.

    Raises
    ------
    DeviceError
        The engine does not load, or see `require_golden`.
    """
    if misfits(engine.sidecar, this_machine()):
        return engine
    with closing(CheckedSession(trt.open_engine(bundle, engine), bundle)) as session:
        require_golden(bundle, session)
    return cache.now(engine) or engine


def _load(data: bytes) -> dict[str, NDArray[np.float32]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MAX_BYTES:
        raise ValueError(f"{unpacked} bytes unpacked, more than {_MAX_BYTES}")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def _unreadable(
    bundle: Bundle, found: str, shapes: dict[str, tuple[int, ...]]
) -> BundleFormatError:
    return BundleFormatError(
        f"{bundle.path}: {bundle.manifest.golden.file}",
        found=found,
        expected=f"float32 arrays {shapes}",
        remedy="Make the bundle again with the exporter of this version.",
    )
