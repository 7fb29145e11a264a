"""One exam through every stage before the graph: read, decode, tensor, quality.

What comes out is all that an answer needs, but for the embedding.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk import pixels, quality, tensor
from mammoclip_sdk.bundle import Preprocessing
from mammoclip_sdk.exam import VIEWS, Exam, ModelInput, StoredImage, View
from mammoclip_sdk.prediction import ViewRecord
from mammoclip_sdk.quality import Reason
from mammoclip_sdk.views import ViewSource, read_exam

PICTURE_HEIGHT = 720
"""Rows of the pictures for a report: a view fills half of a screen or printed page."""


@dataclass(frozen=True, kw_only=True)
class PreparedExam:
    """An exam that has passed every stage before the graph."""

    tensors: Mapping[str, NDArray[np.float32]]
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
    views: ViewSource, preprocessing: Preprocessing, *, strict: bool, pictures: bool = False
) -> PreparedExam:
    """Take an exam through the stages.

    Parameters
    ----------
    views, strict
        As for `Predictor.predict`.
    pictures
        Draw the views for a report too; not part of ``timing``.

    Raises
    ------
    InputError
        The views cannot be read, or do not make up one exam.
    """
    timing: dict[str, float] = {}
    with timed(timing, "read"):
        exam = read_exam(views, strict=strict)
    with timed(timing, "decode"):
        images = _decode(exam)
    with timed(timing, "tensor"):
        model_input = tensor.build(images, preprocessing)
    with timed(timing, "quality"):
        reasons = quality.assess(images, model_input)
    return PreparedExam(
        tensors=model_input.tensors,
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


def _decode(exam: Exam) -> dict[View, StoredImage]:
    with ThreadPoolExecutor(len(VIEWS)) as pool:
        decoded = list(pool.map(pixels.decode, (exam.images[view] for view in VIEWS)))
    return dict(zip(VIEWS, decoded, strict=True))


def _records(
    exam: Exam, images: Mapping[View, StoredImage], model_input: ModelInput
) -> tuple[ViewRecord, ...]:
    return tuple(
        ViewRecord(
            view=view,
            name=images[view].name,
            sop_instance_uid=exam.images[view].sop_instance_uid,
            transfer_syntax=images[view].transfer_syntax,
            pixel_sha256=images[view].sha256,
            geometry=model_input.geometry[view],
            alternatives=tuple(other for other in exam.alternatives if other.view is view),
        )
        for view in VIEWS
    )
