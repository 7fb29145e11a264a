"""Parity exams: model inputs of many kinds, with the reference model's answers to them.

The golden exams, a handful, are run whenever a session opens. These are many, they hold what noise
does not, and they are run when a bundle is made, or a workstation is taken into service.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Attachment, Bundle
from mammoclip_sdk.errors import BundleFormatError
from mammoclip_sdk.exam import VIEWS
from mammoclip_sdk.golden import answer_fault

KIND = "parity_exams"
"""Of the attachment."""
MAX_BYTES = 2**29
"""Of the unpacked arrays; 256 exams of 4 views of 512 x 256 pixels take 0.13 GB."""


@dataclass(frozen=True, kw_only=True)
class ParityExams:
    """Model inputs and the reference model's answers."""

    views: NDArray[np.uint8]
    """(N, 4, 1, height, width); the model's input is this divided by 255."""
    labels: NDArray[np.int8]
    """(N,): 1 malignant, 0 not, -1 unknown."""
    embedding: NDArray[np.float32]
    """(N, D), rows of length 1."""
    logits: NDArray[np.float32]
    """(N, findings, 2): negative and positive, at the findings' own scales."""
    reference: str
    """What computed them, such as ``PyTorch 2.14.1, float32, not folded``."""

    @property
    def labelled(self) -> int:
        """How many exams have a label."""
        return int((self.labels >= 0).sum())

    @property
    def positives(self) -> int:
        """How many of them are malignant."""
        return int((self.labels == 1).sum())


def write_exams(exams: ParityExams) -> bytes:
    """Pack the exams as ``.npz``, without pickle; equal exams give equal bytes."""
    stream = io.BytesIO()
    arrays = {field.name: np.asarray(getattr(exams, field.name)) for field in fields(exams)}
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def read_exams(bundle: Bundle) -> ParityExams:
    """Unpack the parity exams that travel in a bundle.

    Raises
    ------
    BundleFormatError
        The bundle has none, they are not what its manifest describes, or the logits are not those
        of the embeddings and the manifest's prompts.
    """
    try:
        arrays = _load(bundle.files[attached(bundle).file])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(bundle, f"no readable arrays ({error})") from error
    problem = _problem(bundle, arrays)
    if problem:
        raise _unreadable(bundle, problem)
    return ParityExams(**{**arrays, "reference": str(arrays["reference"])})


def attached(bundle: Bundle) -> Attachment:
    """Return the attachment that holds a bundle's parity exams; `BundleFormatError` without."""
    attachment = bundle.manifest.attachment(KIND)
    if attachment is None:
        raise BundleFormatError(
            bundle.path,
            found="no parity exams",
            expected=f"an attachment of the kind {KIND}",
            remedy="Make the bundle again with the exporter of this version; until then, "
            "mammoclip-sdk bundle verify without --parity runs its golden exams.",
        )
    return attachment


def _load(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MAX_BYTES:
        raise ValueError(f"{unpacked} bytes unpacked, more than {MAX_BYTES}")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def _problem(bundle: Bundle, arrays: dict[str, Any]) -> str:
    manifest = bundle.manifest
    size = (manifest.preprocessing.height, manifest.preprocessing.width)
    labels = arrays.get("labels")
    count = len(labels) if isinstance(labels, np.ndarray) and labels.ndim == 1 else 0
    described = {
        "views": ("uint8", (count, len(VIEWS), 1, *size)),
        "labels": ("int8", (count,)),
        "embedding": ("float32", (count, len(manifest.findings[0].positive_embedding))),
        "logits": ("float32", (count, len(manifest.findings), 2)),
        "reference": ("str", ()),
    }
    found = {name: (_dtype(array), array.shape) for name, array in arrays.items()}
    if found != described or count == 0:
        return f"{found} instead of {described}, of one exam or more"
    if not set(np.unique(arrays["labels"]).tolist()) <= {-1, 0, 1}:
        return "labels other than -1, 0 and 1"
    embedding, logits = arrays["embedding"], arrays["logits"]
    if not (np.isfinite(embedding).all() and np.isfinite(logits).all()):
        return "NaN or infinity"  # would compare as no difference
    return answer_fault(embedding, logits, manifest.findings)


def _dtype(array: NDArray[np.generic]) -> str:
    return "str" if array.dtype.kind == "U" else str(array.dtype)


def _unreadable(bundle: Bundle, found: str) -> BundleFormatError:
    return BundleFormatError(
        f"{bundle.path}: parity exams",
        found=found,
        expected="views, labels, embedding, logits and reference as the exporter writes them",
        remedy="Make the bundle again with the exporter of this version.",
    )
