"""One exam through every stage before the graph: read, decode, tensor, quality.

What comes out is all that an answer needs, but for the embedding.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk import pixels, quality, tensor
from mammoclip_sdk.bundle import Preprocessing
from mammoclip_sdk.exam import (
    PLAIN,
    VIEWS,
    Acceptance,
    Alternative,
    Exam,
    ModelInput,
    SourceImage,
    StoredImage,
    View,
    ViewGeometry,
)
from mammoclip_sdk.prediction import ViewRecord
from mammoclip_sdk.processor import side_by_side
from mammoclip_sdk.quality import Reason
from mammoclip_sdk.tensor import Decode
from mammoclip_sdk.views import ViewSource, read_exam

PICTURE_HEIGHT = 720
"""Rows of the pictures for a report: a view fills half of a screen or printed page."""


@dataclass(frozen=True, kw_only=True)
class PreparedExam:
    """An exam that has passed every stage before the graph."""

    tensors: Mapping[str, NDArray[np.float32]]
    study_instance_uid: str | None
    records: tuple[ViewRecord, ...]
    notes: tuple[str, ...]
    reasons: tuple[Reason, ...]
    pictures: Mapping[View, NDArray[np.uint8]]
    """Each whole view as a report shows it; empty unless asked for."""
    timing: Mapping[str, float]
    """Milliseconds of each stage."""

    @property
    def blocked(self) -> bool:
        """Whether a reason forbids an answer."""
        return any(reason.severity == "block" for reason in self.reasons)


def prepare(
    views: ViewSource,
    preprocessing: Preprocessing,
    *,
    strict: bool,
    acceptance: Acceptance = PLAIN,
    pictures: bool = False,
    decode: Decode = pixels.decode,
) -> PreparedExam:
    """Take an exam through the stages.

    The four views are decoded and turned into tensors side by side: ``decode`` in ``timing``
    lasts until the last of them is decoded, and ``tensor`` from then on.

    Parameters
    ----------
    views, strict
        As for `Predictor.predict`.
    acceptance
        Which exams the model was validated on.
    pictures
        Draw the views for a report too; not part of ``timing``.
    decode
        What decodes, such as that of an ``isolation`` that does so in child processes.

    Raises
    ------
    InputError
        The views cannot be read, or do not make up one exam.
    """
    timing: dict[str, float] = {}
    with timed(timing, "read"):
        exam = read_exam(views, strict=strict, acceptance=acceptance)
    images, model_input = _build(exam, preprocessing, decode, timing)
    with timed(timing, "quality"):
        _hash(images)
        reasons = quality.assess(exam, images, model_input, acceptance)
    return PreparedExam(
        tensors=model_input.tensors,
        study_instance_uid=exam.study_instance_uid,
        records=_records(exam, images, model_input),
        notes=exam.notes,
        reasons=reasons,
        pictures={
            view: tensor.display(image, preprocessing, height=PICTURE_HEIGHT)
            for view, image in images.items()
            if pictures
        },
        timing=timing,
    )


@contextmanager
def timed(timing: dict[str, float], stage: str) -> Iterator[None]:
    """Note the milliseconds that the body takes."""
    start = time.perf_counter()
    yield
    timing[stage] = (time.perf_counter() - start) * 1e3


def _build(
    exam: Exam, preprocessing: Preprocessing, decode: Decode, timing: dict[str, float]
) -> tuple[dict[View, StoredImage], ModelInput]:
    decoded = [start := time.perf_counter()]

    def noted(image: SourceImage, *, levels: int) -> StoredImage:
        stored = decode(image, levels=levels)
        decoded.append(time.perf_counter())
        return stored

    images, model_input = tensor.decode_and_build(exam, preprocessing, noted)
    timing["decode"] = (max(decoded) - start) * 1e3
    timing["tensor"] = (time.perf_counter() - max(decoded)) * 1e3
    return images, model_input


def _hash(images: Mapping[View, StoredImage]) -> None:
    """Compute the views' hashes side by side; they are kept, for the reasons and the records."""
    side_by_side(lambda image: image.sha256, images.values())


def _records(
    exam: Exam, images: Mapping[View, StoredImage], model_input: ModelInput
) -> tuple[ViewRecord, ...]:
    return tuple(
        _record(exam.images[view], images[view], model_input.geometry[view], exam.alternatives)
        for view in VIEWS
    )


def _record(
    source: SourceImage,
    image: StoredImage,
    geometry: ViewGeometry,
    alternatives: tuple[Alternative, ...],
) -> ViewRecord:
    return ViewRecord(
        view=image.view,
        name=image.name,
        sop_instance_uid=source.sop_instance_uid,
        device=None if source.acquisition is None else source.acquisition.device,
        transfer_syntax=image.transfer_syntax,
        reduction_levels=0 if image.reduction is None else image.reduction.levels,
        pixel_sha256=image.sha256,
        geometry=geometry,
        alternatives=tuple(other for other in alternatives if other.view is image.view),
    )
