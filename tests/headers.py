"""Exams whose headers say something else, for the tests of what headers say."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import exams
from exams import PLAIN, Variant, code
from pydicom.dataset import Dataset

from mammoclip_sdk.exam import VIEWS, Acceptance, View

Change = Callable[[Dataset, View], None]
EVERYTHING = Acceptance(implants=True, synthetic_2d=True, devices=())


def exam_of(change: Change | None = None) -> list[Dataset]:
    variant = PLAIN if change is None else Variant(name="changed", header=change)
    return [exams.dataset(view, variant) for view in VIEWS]


def setting(**values: Any) -> Change:
    def change(header: Dataset, view: View) -> None:
        with warnings.catch_warnings(action="ignore"):  # values pydicom would rather not write
            for keyword, value in values.items():
                setattr(header, keyword, value)

    return change


def coded(value: str, scheme: str = "SCT", *modifiers: Dataset) -> Change:
    def change(header: Dataset, view: View) -> None:
        header.ViewCodeSequence = [code(value, scheme, *modifiers)]
        del header.ViewPosition

    return change


def modified(value: str, scheme: str = "SCT") -> Change:
    def change(header: Dataset, view: View) -> None:
        header.ViewCodeSequence[0].ViewModifierCodeSequence = [code(value, scheme)]

    return change


def only(*changes: Change) -> Change:
    """Take away every tag about side and view, then apply the changes."""

    def change(header: Dataset, view: View) -> None:
        del header.ImageLaterality, header.ViewPosition, header.ViewCodeSequence
        for one in changes:
            one(header, view)

    return change


def repeat(**changes: Any) -> Dataset:
    image = exams.dataset(View.LCC, PLAIN)
    image.SOPInstanceUID = f"{exams.ROOT}.9"
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    return image
