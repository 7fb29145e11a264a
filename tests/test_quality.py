"""Quality: what a good exam is spared, and what headers and sizes alone tell of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from judged_exams import (
    ACCEPTANCE,
    GOOD,
    KNOWN,
    breast,
    brief,
    everywhere,
    exam,
    images,
    judge,
    model_input,
)

from mammoclip_sdk.dicom.view_codes import IMPLANT_DISPLACED
from mammoclip_sdk.exam import PLAIN, VIEWS, Device, Reduction, View
from mammoclip_sdk.quality.appearance import appearance


def test_a_good_exam_has_no_reason() -> None:
    assert judge() == ()


# -- modifiers and implants -----------------------------------------------------------------------


def test_accepted_modifiers_warn_and_a_displaced_implant_is_none_of_them() -> None:
    found = judge(
        exam(
            {
                View.LCC: {"modifiers": ("rolled lateral", "partial view")},
                View.RCC: {"modifiers": (IMPLANT_DISPLACED,), "implant": True},
            }
        ),
        acceptance=replace(ACCEPTANCE, implants=True),
    )
    assert brief(found) == [("G07", "warn", "LCC")]
    assert "rolled lateral, partial view" in found[0].message


@pytest.mark.parametrize(("view", "severity"), [(View.LCC, "block"), (View.LMLO, "warn")])
def test_a_compact_white_area_is_an_implant_that_no_header_declares(
    view: View, severity: str
) -> None:
    """In an oblique view alone it may be the pectoral muscle, under a hard window."""
    picture = breast(VIEWS.index(view))
    picture[60:132, 5:60] = 1
    given = model_input({view: replace(GOOD, saturated=0.3)}, shown={view: picture})
    found = judge(given=given)
    assert brief(found) == [("G08", severity, view)]
    assert judge(given=given, acceptance=replace(ACCEPTANCE, implants=True)) == ()


def test_white_that_is_scattered_is_no_implant() -> None:
    picture = breast(0)
    picture[::4, ::4] = np.where(picture[::4, ::4] > 0, 1, 0)
    seen = appearance(picture)
    assert seen is not None
    assert seen.bright_body == 0


# -- devices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", ["Maker", "MAKER", "mak er"])
def test_a_device_is_known_in_any_spelling(spelled: str) -> None:
    assert judge(everywhere(device=Device(manufacturer=spelled, model="one"))) == ()


def test_a_device_that_the_model_does_not_know_warns_once_and_is_named() -> None:
    other = everywhere(device=Device(manufacturer="Another", model="Two"))
    found = judge(other)
    assert brief(found) == [("G11", "warn", None)]
    assert found[0].message == 'The model was not validated on images of "Another" "Two".'
    assert brief(judge(acceptance=PLAIN)) == [("G11", "warn", None)]


def test_a_device_named_by_a_hostile_header_does_not_write_the_message() -> None:
    hostile = Device(manufacturer='\x1b[2J\u202e\n". All is well', model="M" * 70)
    (found,) = judge(everywhere(device=hostile))
    named = "\\x1b[2J\\u202e\\n'. All is well"
    assert found.message.endswith(f' images of "{named}" "{"M" * 64}".')
    assert found.message.isprintable()


@pytest.mark.parametrize("what", [None, {"device": Device(manufacturer="", model="")}])
def test_images_of_no_named_device_warn_too(what: dict[str, Any] | None) -> None:
    (found,) = judge(exam({View.LCC: what}))
    assert found.code == "G11"
    assert "not named" in found.message


def test_a_device_without_a_name_is_none_that_a_model_can_know() -> None:
    unnamed = Device(manufacturer="", model="")
    known = replace(ACCEPTANCE, devices=(KNOWN, unnamed))
    assert brief(judge(everywhere(device=unnamed), acceptance=known)) == [("G11", "warn", None)]


# -- numbers and sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_block(view: View, value: float) -> None:
    given = model_input()
    given.tensors["views"][0, VIEWS.index(view), 0, 7, 3] = value
    assert brief(judge(given=given)) == [("G10", "block", view)]


@pytest.mark.parametrize(
    ("spacing", "blocks"),
    [
        (None, False),
        ((0.03, 0.03), False),
        ((0.2, 0.2), False),
        ((0.0299, 0.0299), True),
        ((0.07, 0.201), True),
        ((0.07, 0.0713), False),
        ((0.07, 0.072), True),
        ((0.0, 0.0), True),
        ((-0.07, 0.07), True),
        ((float("nan"), 0.07), True),
        ((float("inf"), 0.07), True),
    ],
)
def test_pixels_must_have_a_detectors_size(
    spacing: tuple[float, float] | None, blocks: bool
) -> None:
    found = judge(exam({View.LCC: {"pixel_spacing": spacing}}))
    assert brief(found) == ([("G10", "block", "LCC")] if blocks else [])


@pytest.mark.parametrize("spacing", [None, (0.07, 0.07)])
@pytest.mark.parametrize(
    ("aspect", "blocks"),
    [
        (None, False),
        ((1, 1), False),
        ((50, 51), False),
        ((51, 50), False),
        ((1, 2), True),
        ((26, 25), True),
        ((0, 1), True),
        ((float("nan"), 1), True),
    ],
)
def test_pixels_must_be_square(
    aspect: tuple[float, float] | None, blocks: bool, spacing: tuple[float, float] | None
) -> None:
    found = judge(exam({View.LCC: {"pixel_aspect": aspect, "pixel_spacing": spacing}}))
    assert brief(found) == ([("G10", "block", "LCC")] if blocks else [])


@pytest.mark.parametrize(
    ("shape", "blocks"), [((18, 20), False), ((17, 20), True), ((64, 16), False), ((65, 16), True)]
)
def test_an_image_must_have_the_shape_of_a_mammogram(shape: tuple[int, int], blocks: bool) -> None:
    stored = images()
    stored[View.RCC] = replace(stored[View.RCC], pixels=np.zeros(shape, np.uint16))
    assert brief(judge(stored=stored)) == ([("G10", "block", "RCC")] if blocks else [])


@pytest.mark.parametrize(
    ("shape", "source", "blocks"), [((17, 20), (72, 80), False), ((18, 20), (68, 80), True)]
)
def test_of_a_reduced_image_the_shape_of_its_source_counts(
    shape: tuple[int, int], source: tuple[int, int], blocks: bool
) -> None:
    stored = images()
    reduction = Reduction(levels=2, source_shape=source, reversible=True)
    stored[View.RCC] = replace(
        stored[View.RCC], pixels=np.zeros(shape, np.uint16), reduction=reduction
    )
    found = judge(stored=stored)
    assert brief(found) == ([("G10", "block", "RCC")] if blocks else [])
    assert all("68 rows and 80 columns" in reason.message for reason in found)
