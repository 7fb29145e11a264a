"""What comes out: the answer for one exam, with its evidence and its provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk import strict_json
from mammoclip_sdk.bundle import Manifest
from mammoclip_sdk.exam import Alternative, Device, View, ViewGeometry
from mammoclip_sdk.golden import GoldenResult
from mammoclip_sdk.quality import Reason
from mammoclip_sdk.scoring import FindingScore

SCHEMA = 2
"""Number of the form of `Prediction.to_dict`: raised where a key goes or changes its meaning, and
not where one is added."""


@dataclass(frozen=True, kw_only=True)
class ViewRecord:
    """Which image was taken for a view, and what was done to it."""

    view: View
    name: str
    """What messages call the image: its file's name, or its place in the caller's argument."""
    sop_instance_uid: str | None
    transfer_syntax: str
    """UID the pixels were encoded in; ``array`` for pixels handed over as an array."""
    pixel_sha256: str
    """Of the stored values as they were decoded: the same for every lossless encoding of one image
    that was decoded in full. Where ``reduction_levels`` is not 0 it is of the reduced pixels, and
    does not compare with that of another encoding."""
    geometry: ViewGeometry
    alternatives: tuple[Alternative, ...]
    """Other images that could have filled the view, and why they were not taken."""
    device: Device | None
    """What took the image; None for pixels handed over as an array."""
    reduction_levels: int
    """Finest resolution levels of a JPEG 2000 image that were not decoded."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What computed the answer."""

    bundle: str
    bundle_version: str
    bundle_sha256: str
    signed_by: str | None
    """SHA-256 of the trusted key that signed the bundle; None where no signature was asked for."""
    intended_use: str
    not_for_clinical_use: bool
    device_asked: str
    device: str
    """What ran; differs from what was asked for when that was ``auto``, and only then."""
    runtime: str
    precision: str
    preprocessing_version: int
    sdk_version: str
    pydicom_version: str
    imagecodecs_version: str
    numpy_version: str
    strict: bool
    """Whether several images that claim one view were to be refused."""
    isolated: bool
    """Whether pixels were decoded in child processes."""
    golden: GoldenResult
    """How closely this session reproduced the bundle's golden exams when it was opened."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds of each stage; None for a stage that an abstained exam did not reach."""

    read: float
    decode: float
    tensor: float
    quality: float
    inference: float | None = None
    """From `Predictor.predict_many`, of the whole batch that the exam was part of."""
    scoring: float | None = None
    total: float

    @classmethod
    def of(cls, stages: Mapping[str, float]) -> Timing:
        """Return the stages with their total."""
        return cls(**stages, total=sum(stages.values()))

    def stages(self) -> dict[str, float]:
        """Return the milliseconds of each stage that ran, by its name and in its order."""
        return {name: ms for name, ms in asdict(self).items() if name != "total" and ms is not None}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer for one exam."""

    schema: int = SCHEMA
    answered_at: str
    """UTC, as ISO 8601 writes it, to the second."""
    status: Literal["scored", "abstained"]
    """``abstained``: a reason blocks the exam and there are no findings. It is not a negative."""
    study_instance_uid: str | None
    """As in `exam.Exam`."""
    findings: tuple[FindingScore, ...]
    reasons: tuple[Reason, ...]
    views: tuple[ViewRecord, ...]
    """In the order of `exam.VIEWS`."""
    notes: tuple[str, ...]
    """Disagreements between tags that did not matter for the choice of views."""
    provenance: Provenance
    timing: Timing

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain dicts, lists, strings, numbers and None."""
        plain: dict[str, Any] = strict_json.to_plain(self)
        return plain

    def to_json(self) -> str:
        """Return the prediction as indented JSON in ASCII, without NaN or infinity.

        A file's name may hold bytes that are no text; as JSON's escapes they pass any encoding.
        """
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A prediction, with what a report shows beside it."""

    prediction: Prediction
    pictures: Mapping[View, NDArray[np.uint8]]
    """Each whole view as its header wants it shown, neither cropped nor mirrored: (rows,
    columns), 0 to 255."""
    manifest: Manifest
