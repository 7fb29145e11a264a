"""The golden exams of a bundle, run through a session: does this runtime compute this model?

ONNX Runtime notices almost no corruption, and a driver can be wrong on one GPU alone. A handful
of exams whose answers are known says more about a loaded session than any version number.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.errors import BundleFormatError, InferenceError
from mammoclip_sdk.exam import VIEWS
from mammoclip_sdk.scoring import score
from mammoclip_sdk.sessions import Session

_MAX_BYTES = 2**30
"""Of the unpacked arrays; 16 exams of 4 views of 1024 x 512 pixels take 0.13 GB."""


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
    """How far a session's logits are from the reference model's."""

    exams: int
    worst_difference: float
    """Largest absolute difference of a logit."""
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
        The arrays are not those that the manifest describes.
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
    return GoldenArrays(**arrays)


def run_golden(bundle: Bundle, session: Session) -> GoldenResult:
    """Run the golden exams one by one, as exams come, and compare the logits.

    Raises
    ------
    BundleFormatError
        The golden exams are not what the manifest describes.
    InferenceError
        The runtime failed, or its precision has no tolerance. A difference beyond the tolerance
        is a result, not an error.
    """
    tolerances = bundle.manifest.golden.tolerance
    if session.precision not in tolerances:
        raise InferenceError(
            f"{bundle.path} on {session.runtime}",
            found=f"precision {session.precision!r}",
            expected=f"one that the golden exams have a tolerance for: {', '.join(tolerances)}",
            remedy="Run the graph in the precision the bundle gives for it.",
        )
    golden = read_golden(bundle)
    worst = 0.0
    for views, expected in zip(golden.views, golden.logits, strict=True):
        (embedding,) = session.run({"views": views[np.newaxis]})
        logits = [finding.logits for finding in score(embedding, bundle.manifest.findings)]
        worst = max(worst, float(np.abs(np.array(logits) - expected).max()))
    return GoldenResult(
        exams=len(golden.views),
        worst_difference=worst,
        tolerance=tolerances[session.precision],
        runtime=session.runtime,
        precision=session.precision,
    )


def require_golden(bundle: Bundle, session: Session) -> GoldenResult:
    """Run the golden exams and refuse a session that does not reproduce them.

    Raises
    ------
    InferenceError
        A logit differs by more than the tolerance.
    """
    result = run_golden(bundle, session)
    if not result.passed:
        raise InferenceError(
            f"{bundle.path} on {result.runtime}",
            found=f"golden exams whose logits differ by up to {result.worst_difference:.3g}",
            expected=f"at most {result.tolerance:.3g} in {result.precision}",
            remedy="Do not use this device with this bundle; try another, such as cpu.",
            code="golden_mismatch",
        )
    return result


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
