"""How texts and codes name a view, and how much a free text may say."""

from __future__ import annotations

import pytest
from exams import code
from headers import exam_of, setting
from pydicom.sr.codedict import codes

from mammoclip_sdk.dicom.view_codes import projection_of_code, read_label
from mammoclip_sdk.errors import (
    UnsupportedImageError,
)
from mammoclip_sdk.exam import View
from mammoclip_sdk.views import read_exam


def test_text_that_names_the_other_side_is_noted_and_does_not_win() -> None:
    images = exam_of()
    images[0].SeriesDescription = "R CC"
    exam = read_exam(images)
    assert exam.images[View.LCC].name == "views[0]"
    assert exam.notes == ("views[0]: Series Description (0008,103E) names the other side",)


def test_an_unknown_view_code_is_noted_and_the_view_position_taken() -> None:
    images = exam_of()
    images[1].ViewCodeSequence = [code("LOCAL1", "99LOCAL")]
    assert read_exam(images).notes == (
        "views[1]: View Code Sequence (0054,0220) holds an unknown code",
    )


@pytest.mark.parametrize(
    ("text", "side", "projection"),
    [
        ("R CC", "R", "CC"),
        ("LMLO", "L", "MLO"),
        ("lmo", None, "LMO"),
        ("LM", None, "LM"),
        ("LML", "L", "ML"),
        ("RIGHT", "R", None),
        ("TOMO R MAMMOGRAPHY,CC", "R", "CC"),
        ("RXCCL", "R", "XCCL"),
        ("SUCCESS", None, None),
        ("R L CC", None, "CC"),
        ("CC MLO", None, None),
        ("", None, None),
    ],
)
def test_labels(text: str, side: str | None, projection: str | None) -> None:
    label = read_label(text)
    assert (label.side, label.projection) == (side, projection)


@pytest.mark.parametrize("text", ["L CC's, screening", "MLO's", "CC\u2019s"])
def test_the_s_of_a_plural_is_no_spot_compression(text: str) -> None:
    assert read_label(text).modifiers == frozenset()
    assert read_label("L CC S").modifiers == {"spot compression"}


@pytest.mark.parametrize(
    "text",
    ["M. Smith CC", "S CC", "Magdeburg L CC", "Tanguy RMLO", "MagView CC", "Spotlight 2D LMLO",
     "Comparison CC", "Routine LCC ID 4711", "LCC ID: 12", "L MLO at 28 kV"],
)  # fmt: skip
def test_free_text_is_not_read_for_more_than_it_says(text: str) -> None:
    assert read_label(text, free=True).modifiers == frozenset()


@pytest.mark.parametrize(
    ("text", "modifiers"),
    [
        ("L CC MAG", {"magnification"}),
        ("1.8MAG", {"magnification"}),
        ("Magnification views", {"magnification"}),
        ("Magnifikation", {"magnification"}),
        ("MAGSPOT", {"magnification", "spot compression"}),
        ("Spot Compression", {"spot compression"}),
        ("SPOTCOMP L", {"spot compression"}),
        ("15 SPT", {"spot compression"}),
        ("RCC TAN", {"tangential"}),
        ("Tangentialaufnahme", {"tangential"}),
        ("LCCM", {"magnification"}),
        ("L CC ID", {"implant displaced"}),
        ("L CC ID view", {"implant displaced"}),
    ],
)
def test_whole_words_count_in_any_text(text: str, modifiers: set[str]) -> None:
    assert read_label(text, free=True).modifiers == modifiers
    assert read_label(text).modifiers <= modifiers


def test_only_a_series_description_is_free_text() -> None:
    text = setting(SeriesDescription="M. Smith CC, Magdeburg")
    assert read_exam(exam_of(text)).notes == tuple(
        f"views[{place}]: Series Description (0008,103E) names another view" for place in (2, 3)
    )
    for keyword in ("PaddleDescription", "AcquisitionDeviceProcessingDescription"):
        with pytest.raises(UnsupportedImageError, match="a magnification view"):
            read_exam(exam_of(setting(**{keyword: "1.8MAGSTAND"})))
    with pytest.raises(UnsupportedImageError, match="a magnification view"):
        read_exam(exam_of(setting(ViewPosition="CC M")))


def test_view_codes_agree_with_pydicoms_copy_of_cid_4014() -> None:
    recognised = [
        projection_of_code(getattr(codes.cid4014, word).value, "SCT")
        for word in codes.cid4014.dir()
    ]
    assert None not in recognised
    assert recognised.count("CC") == recognised.count("MLO") == 1
