"""One header: which view it shows, what speaks against it, and what nobody may overrule."""

from __future__ import annotations

import warnings
from typing import Any

import exams
import pytest
from exams import PLAIN, code
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.view_codes import modifier_of_code
from mammoclip_sdk.errors import DicomReadError, UnsupportedImageError
from mammoclip_sdk.exam import PLAIN as PLAIN_ONLY
from mammoclip_sdk.exam import Acceptance, Acquisition, Device, View
from mammoclip_sdk.views.mammogram import Mammogram, read_mammogram

EVERYTHING = Acceptance(implants=True, synthetic_2d=True, devices=())


def read(
    syntax: str = gate.EXPLICIT_LITTLE, acceptance: Acceptance = PLAIN_ONLY, **values: Any
) -> Mammogram:
    """Read the header of an LCC with other values; None takes an attribute away."""
    image = exams.dataset(View.LCC, PLAIN)
    image.file_meta.TransferSyntaxUID = syntax
    with warnings.catch_warnings(action="ignore"):  # values pydicom would rather not write
        for keyword, value in values.items():
            setattr(image, keyword, value)
            if value is None:
                delattr(image, keyword)
    return read_mammogram(image, name="x", acceptance=acceptance)


def framed(side: str) -> list[Dataset]:
    """A functional group sequence that names a side, behind one that does not."""
    silent, anatomy, group = Dataset(), Dataset(), Dataset()
    anatomy.FrameLaterality = side
    group.FrameAnatomySequence = [anatomy]
    return [silent, group]


@pytest.mark.parametrize(
    ("keyword", "value", "name"),
    [
        ("ImageLaterality", ["L", "R"], "Image Laterality (0020,0062)"),
        ("ImageLaterality", ["L", "L"], "Image Laterality (0020,0062)"),
        ("Laterality", ["L", "R"], "Laterality (0020,0060)"),
        ("ViewPosition", ["CC", "ML"], "View Position (0018,5101)"),
        ("PartialView", ["NO", "YES"], "Partial View (0028,1350)"),
        ("BreastImplantPresent", ["NO", "YES"], "Breast Implant Present (0028,1300)"),
        ("LossyImageCompression", ["00", "01"], "Lossy Image Compression (0028,2110)"),
        ("PhotometricInterpretation", ["MONOCHROME2", "MONOCHROME1"],
         "Photometric Interpretation (0028,0004)"),
        ("StudyInstanceUID", ["1.2", "1.3"], "Study Instance UID (0020,000D)"),
        ("InstanceNumber", [1, 2], "Instance Number (0020,0013)"),
    ],
)  # fmt: skip
def test_of_two_values_none_is_taken(keyword: str, value: list[Any], name: str) -> None:
    with pytest.raises(DicomReadError) as caught:
        read(**{keyword: value})
    assert caught.value.code == "value_multiplicity"
    assert caught.value.found == f"2 values of {name}"


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize("value", [None, ""])
def test_an_image_without_identity_is_refused(keyword: str, value: str | None) -> None:
    with pytest.raises(DicomReadError) as caught:
        read(**{keyword: value})
    assert caught.value.code == "missing_tag"


def test_the_image_type_and_descriptions_may_have_several_values() -> None:
    assert read(ImageType=["DERIVED", "PRIMARY"], SeriesDescription="a\\b").view == View.LCC


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ImageLaterality": "U"}, "unsupported_laterality"),
        ({"ImageLaterality": "L?"}, "unsupported_laterality"),
        ({"Laterality": "X"}, "unsupported_laterality"),
        ({"SharedFunctionalGroupsSequence": framed("U")}, "unsupported_laterality"),
        ({"ImageLaterality": "B"}, "both_breasts"),
        ({"Laterality": "B", "ImageLaterality": None}, "both_breasts"),
        ({"SharedFunctionalGroupsSequence": framed("B")}, "both_breasts"),
        ({"PerFrameFunctionalGroupsSequence": framed("B")}, "both_breasts"),
        ({"SharedFunctionalGroupsSequence": framed("R")}, "laterality_contradiction"),
        ({"SharedFunctionalGroupsSequence": framed("L") + framed("R")}, "laterality_contradiction"),
        ({"Laterality": "RIGHT"}, "laterality_contradiction"),
        ({"ViewPosition": "RCC"}, "laterality_contradiction"),
        ({"ViewPosition": "L R CC"}, "laterality_contradiction"),
        ({"ImageLaterality": None, "ViewPosition": "CC", "SeriesDescription": "L",
          "AcquisitionDeviceProcessingDescription": "R"}, "laterality_contradiction"),
        ({"ViewPosition": "CC MLO"}, "view_contradiction"),
        ({"ViewPosition": None, "ViewCodeSequence": None, "SeriesDescription": "CC",
          "AcquisitionDeviceProcessingDescription": "MLO"}, "view_contradiction"),
        ({"BreastImplantPresent": "YES"}, "implant"),
        ({"ViewModifierCodeSequence": [code("399055006")]}, "spot_compression"),
    ],
)  # fmt: skip
def test_a_header_that_disagrees_with_itself_is_refused(
    values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsupportedImageError) as caught:
        read(**values)
    assert caught.value.code == reason


@pytest.mark.parametrize("both", ["B", "Bilateral"])
@pytest.mark.parametrize(
    "values", [{}, {"ImageLaterality": None, "SharedFunctionalGroupsSequence": framed("L")}]
)
def test_a_series_of_both_breasts_may_hold_an_image_of_one(
    values: dict[str, Any], both: str
) -> None:
    mammogram = read(Laterality=both, **values)
    assert mammogram.view == View.LCC
    assert mammogram.notes == ("x: Laterality (0020,0060) names both breasts",)


@pytest.mark.parametrize("side", ["LEFT", "left", " l"])
def test_a_tag_that_spells_its_side_out_is_not_overruled_by_text(side: str) -> None:
    mammogram = read(ImageLaterality=side, SeriesDescription="R CC")
    assert mammogram.view == View.LCC
    assert mammogram.notes == ("x: Series Description (0008,103E) names the other side",)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"ViewPosition": "LATERAL", "ViewCodeSequence": None},
         "x: View Position (0018,5101) names no known view"),
        ({"ViewPosition": None, "ViewCodeSequence": [code("LOCAL1", "99LOCAL")]},
         "x: View Code Sequence (0054,0220) holds an unknown code"),
    ],
)  # fmt: skip
def test_text_does_not_speak_for_a_tag_that_names_an_unknown_view(
    values: dict[str, Any], note: str
) -> None:
    mammogram = read(SeriesDescription="L CC", **values)
    assert mammogram.projection is None
    assert note in mammogram.notes


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"PartialView": "YES"}, "not a plain view (partial view)"),
        ({"ViewModifierCodeSequence": [code("399197002")]}, "not a plain view (rolled lateral)"),
        ({"ViewModifierCodeSequence": [code("1", "99LOCAL")]},
         "not a plain view (unknown view modifier)"),
        ({"ViewPosition": "CC CV"}, "not a plain view (cleavage)"),
        ({"LossyImageCompression": "01"}, "lossy compressed"),
        ({"PresentationLUTShape": "INVERSE"},
         "Presentation LUT Shape (2050,0020) contradicts Photometric Interpretation (0028,0004), "
         "which is followed"),
        ({"PresentationLUTShape": "IDENTITY", "PhotometricInterpretation": "MONOCHROME1"},
         "Presentation LUT Shape (2050,0020) contradicts Photometric Interpretation (0028,0004), "
         "which is followed"),
    ],
)  # fmt: skip
def test_what_weakens_an_image_is_noted(values: dict[str, Any], note: str) -> None:
    assert read(**values).notes == (f"x: {note}",)


def test_a_header_that_says_what_it_should_has_no_notes() -> None:
    plain = {"PartialView": "NO", "BreastImplantPresent": "NO", "ViewPosition": "L CC"}
    assert read(**plain, PresentationLUTShape="IDENTITY").notes == ()
    inverse = read(PresentationLUTShape="INVERSE", PhotometricInterpretation="MONOCHROME1")
    assert inverse.notes == ()


@pytest.mark.parametrize(
    ("syntax", "flag", "lossy"),
    [
        (gate.EXPLICIT_LITTLE, "01", True),
        (gate.EXPLICIT_LITTLE, None, False),
        (gate.JPEG_BASELINE, "00", True),
        (gate.JPEG_EXTENDED, None, True),
        (gate.JPEG_LOSSLESS_SV1, None, False),
        (gate.JPEG_LS_NEAR, None, True),
        (gate.JPEG_LS_NEAR, "00", False),
        (gate.JPEG_2000, None, True),
        (gate.JPEG_2000, "00", False),
        (gate.JPEG_2000_LOSSLESS, "01", True),
    ],
)
def test_lossy_is_what_the_flag_or_else_the_transfer_syntax_says(
    syntax: str, flag: str | None, lossy: bool
) -> None:
    mammogram = read(syntax, LossyImageCompression=flag)
    assert mammogram.lossy == lossy
    assert mammogram.notes == (("x: lossy compressed",) if lossy else ())


@pytest.mark.parametrize(
    ("values", "acquired"),
    [
        ({}, "20260102101001"),
        ({"AcquisitionDateTime": "20260203040506.7"}, "20260203040506.7"),
        ({"AcquisitionTime": None}, "20260102"),
        ({"AcquisitionDate": None, "AcquisitionTime": "235959"}, ""),
        ({"AcquisitionDate": None, "ContentDate": "20250101", "ContentTime": "0102"},
         "202501010102"),
        ({"AcquisitionDate": "", "ContentTime": "235959"}, ""),
        ({"AcquisitionTime": None, "ContentDate": "20260102", "ContentTime": "120000"},
         "20260102120000"),  # a day alone is less than a day and its time
        ({"AcquisitionDateTime": "20260102", "AcquisitionTime": "0910"}, "202601020910"),
        ({"AcquisitionDateTime": "202601"}, "20260102101001"),
        ({"AcquisitionDateTime": "00000000000000"}, "20260102101001"),
        ({"AcquisitionDate": "20260230", "ContentDate": "20260301"}, "20260301"),
        ({"AcquisitionDate": "2026.01.02", "AcquisitionTime": "09:10:11"}, "20260102091011"),
        ({"AcquisitionTime": "noon"}, "20260102"),
        ({"AcquisitionTime": "2510"}, "20260102"),
        ({"AcquisitionDateTime": "20260102103000.25+0100"}, "20260102103000.25"),
    ],
)  # fmt: skip
def test_a_moment_has_a_day_and_its_time_if_there_is_one(
    values: dict[str, Any], acquired: str
) -> None:
    assert read(**values).acquired.text == acquired


@pytest.mark.parametrize(
    ("values", "utc"),
    [
        ({}, ""),
        ({"AcquisitionDateTime": "20260102103000.25+0100"}, "20260102093000.25"),
        ({"AcquisitionDateTime": "20260102003059-0545"}, "20260102061559"),
        ({"AcquisitionDateTime": "2026010100+1400"}, "202512311000"),
        ({"AcquisitionDateTime": "202601010029+0030"}, "202512312359"),
        ({"TimezoneOffsetFromUTC": "-0500"}, "20260102151001"),
        ({"AcquisitionDateTime": "20260102103000+0100", "TimezoneOffsetFromUTC": "-0500"},
         "20260102093000"),
        ({"AcquisitionTime": None, "TimezoneOffsetFromUTC": "-0500"}, ""),
        ({"TimezoneOffsetFromUTC": "CET"}, ""),
        ({"AcquisitionDateTime": "20260102103000+1", "TimezoneOffsetFromUTC": "-0500"}, ""),
    ],
)  # fmt: skip
def test_a_moment_is_known_in_utc_where_its_time_and_offset_are(
    values: dict[str, Any], utc: str
) -> None:
    assert read(**values).acquired.utc == utc


def test_an_acquisition_holds_what_the_header_says() -> None:
    header = {
        "Manufacturer": "HOLOGIC, Inc.",
        "ManufacturerModelName": "Selenia Dimensions",
        "PatientOrientation": ["A", "R"],
        "ImagerPixelSpacing": ["0.077", "0.0704"],
        "EstimatedRadiographicMagnificationFactor": "1.1",
        "PixelSpacing": ["9", "9"],
        "PixelAspectRatio": ["1", "2"],
        "ViewModifierCodeSequence": [code("399197002"), code("R-102D5", "SRT")],
        "PartialView": "YES",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": ["2.5", "4"],
        "SeriesDescription": "L CC S-View",
    }
    assert read(acceptance=EVERYTHING, **header).acquisition == Acquisition(
        device=Device(manufacturer="HOLOGIC, Inc.", model="Selenia Dimensions"),
        patient_orientation=("A", "R"),
        pixel_spacing=(pytest.approx(0.07), pytest.approx(0.064)),
        modifiers=("implant displaced", "rolled lateral", "partial view"),
        implant=True,
        synthetic_2d=True,
        burned_in_annotation=False,
        lossy_ratio=10,
        pixel_aspect=(1, 2),
    )


def test_an_acquisition_says_nothing_where_the_header_says_nothing() -> None:
    assert read(LossyImageCompression=None).acquisition == Acquisition(
        device=Device(manufacturer="", model=""),
        patient_orientation=(),
        pixel_spacing=None,
        modifiers=(),
        implant=False,
        synthetic_2d=False,
        burned_in_annotation=None,
        lossy_ratio=1,
    )
    lossy = read(LossyImageCompression="01").acquisition
    assert lossy.lossy_ratio is None


@pytest.mark.parametrize(
    ("values", "spacing"),
    [
        ({"ImagerPixelSpacing": ["0.1", "0.2"]}, (0.1, 0.2)),
        ({"PixelSpacing": ["0.05", "0.06"]}, (0.05, 0.06)),
        ({"PixelSpacing": ["0.05", "0.06"],
          "EstimatedRadiographicMagnificationFactor": "1.1"}, (0.05, 0.06)),
        ({"EstimatedRadiographicMagnificationFactor": "1.1"}, None),
    ],
)  # fmt: skip
def test_spacing_is_that_at_the_detector_or_calibrated(
    values: dict[str, Any], spacing: tuple[float, float] | None
) -> None:
    assert read(**values).acquisition.pixel_spacing == spacing


@pytest.mark.parametrize("value", [["0.1"], ["0.1", "0.1", "0.1"]])
def test_spacing_has_two_values(value: list[str]) -> None:
    with pytest.raises(DicomReadError) as caught:
        read(ImagerPixelSpacing=value)
    assert caught.value.code == "value_multiplicity"
    assert "Imager Pixel Spacing (0018,1164)" in caught.value.found


@pytest.mark.parametrize(
    ("values", "accepted", "note"),
    [
        ({"BreastImplantPresent": "YES"}, {"implants": True}, ()),
        ({"ViewPosition": "LCCID"}, {"implants": True},
         ("x: not a plain view (implant displaced)",)),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"]}, {"synthetic_2d": True},
         ("x: synthesised from tomosynthesis",)),
        *(({"SeriesDescription": name}, {"synthetic_2d": True},
           ("x: synthesised from tomosynthesis",))
          for name in ("C-View", "L CC C-View", "LCCC-View", "L CC S-View", "L CC G-View",
                       "2D SYNTH", "SYNC2D", "L CC Syn2D")),
    ],
)  # fmt: skip
def test_what_a_bundle_accepts_is_read_and_nothing_more(
    values: dict[str, Any], accepted: dict[str, bool], note: tuple[str, ...]
) -> None:
    others = {"implants": False, "synthetic_2d": False}
    mammogram = read(acceptance=Acceptance(devices=(), **(others | accepted)), **values)
    assert mammogram.view == View.LCC
    assert mammogram.notes == note
    for refuse in (PLAIN_ONLY, Acceptance(devices=(), **({key: True for key in others} | {
        key: False for key in accepted}))):  # fmt: skip
        with pytest.raises(UnsupportedImageError) as caught:
            read(acceptance=refuse, **values)
        assert caught.value.code == {"implants": "implant"}.get(*accepted, "synthetic_2d")
        assert "acceptance" in caught.value.remedy


@pytest.mark.parametrize(
    "values",
    [
        {"SeriesDescription": "L CC post biopsy"},
        {"SeriesDescription": "LCC S/P BIOPSY"},
        {"SeriesDescription": "L CC after biopsy"},
        {"SeriesDescription": "L CC, no biopsy"},
        {"SeriesDescription": "L_CC_NO_BIOPSY"},
        {"SeriesDescription": "LCC_POST_BIOPSY"},
        {"SeriesDescription": "CEMENT"},
        {"SeriesDescription": "MLI-VIEWER"},
        {"ContrastBolusAgentSequence": []},
        {"SeriesDescription": "L CC-View"},
        {"SeriesDescription": "LCCVIEW"},
        {"SeriesDescription": "L CC MagView"},
        {"ContrastBolusAgent": "none"},
        {"AcquisitionDeviceProcessingDescription": "HIGH CONTRAST"},
        {"PaddleDescription": "18X24 M"},
        {"PaddleDescription": "24X29 R"},
        {"SeriesDescription": "Screening Image L CC"},
        {"ManufacturerModelName": "FDR-3000AWS", "ImageType": ["ORIGINAL", "PRIMARY", ""]},
        {"ImageType": ["DERIVED", "PRIMARY", ""]},
        {"EstimatedRadiographicMagnificationFactor": "1.2"},
        {"PixelIntensityRelationship": "LOG"},
    ],
)
def test_words_that_only_look_like_a_reason_are_none(values: dict[str, Any]) -> None:
    mammogram = read(**values)
    assert mammogram.view == View.LCC
    assert mammogram.notes == ()


def test_a_medio_lateral_view_is_not_taken_for_an_oblique_one() -> None:
    for values in (
        {"ViewCodeSequence": [code("399260004")], "ViewPosition": "ML"},
        {"ViewCodeSequence": None, "ViewPosition": "ML", "SeriesDescription": "L MLO"},
    ):
        with pytest.raises(UnsupportedImageError) as caught:
            read(**values)
        assert caught.value.code == "unsupported_view"
        assert caught.value.found == "a view of another kind (ML)"


@pytest.mark.parametrize(
    ("values", "by_text"),
    [
        ({}, False),
        ({"ImageLaterality": None, "ViewPosition": "L CC"}, False),
        ({"ImageLaterality": None, "SeriesDescription": "L"}, True),
        ({"ViewPosition": None, "ViewCodeSequence": None, "PaddleDescription": "CC 18"}, True),
        ({"ViewPosition": None, "ViewCodeSequence": None,
          "AcquisitionDeviceProcessingDescription": "TOMO L MAMMOGRAPHY,CC"}, True),
    ],
)  # fmt: skip
def test_text_speaks_where_tags_are_silent(values: dict[str, Any], by_text: bool) -> None:
    mammogram = read(**values)
    assert (mammogram.view, mammogram.by_text) == (View.LCC, by_text)


def test_every_modifier_of_cid_4015_is_known() -> None:
    for word in codes.cid4015.dir():
        assert modifier_of_code(getattr(codes.cid4015, word).value, "SCT"), word
