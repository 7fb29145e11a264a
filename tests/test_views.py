"""Which image is taken for which view, what is refused and why, and what the caller is told."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exams
import numpy as np
import pytest
from exams import PLAIN, VARIANTS, Variant, code
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from mammoclip_sdk import gate
from mammoclip_sdk.errors import (
    AmbiguousViewError,
    DicomReadError,
    ExamError,
    InputError,
    MissingViewError,
    MixedExamError,
    NotDicomError,
    PixelError,
    UnsupportedImageError,
)
from mammoclip_sdk.exam import VIEWS, Acceptance, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.view_codes import projection_of_code, read_label
from mammoclip_sdk.views import read_exam

Change = Callable[[Dataset, View], None]


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


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_way_of_writing_an_exam_gives_its_four_views(
    tmp_path: Path, variant: Variant
) -> None:
    exams.write_exam(tmp_path, variant)
    exam = read_exam(tmp_path)
    assert {view: image.name for view, image in exam.images.items()} == {
        View.LCC: "IM1", View.RCC: "IM2", View.LMLO: "IM3", View.RMLO: "IM4"
    }  # fmt: skip
    assert [image.view for image in exam.images.values()] == list(VIEWS)
    assert exam.notes == tuple(
        f"IM{number}: lossy compressed" for number in range(1, 5) if variant.tolerance
    )
    assert exam.alternatives == ()


REFUSED: list[tuple[str, Change]] = [
    ("unsupported_intent", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2.1")),
    ("unsupported_intent", setting(PresentationIntentType="FOR PROCESSING")),
    ("tomosynthesis", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.3")),
    ("tomosynthesis_projections", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.4")),
    ("tomosynthesis_projections", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.5")),
    ("tomosynthesis_slice", setting(VolumetricProperties="VOLUME")),
    ("tomosynthesis_slice", setting(ConcatenationUID="1.2.3")),
    ("tomosynthesis_slice", setting(ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS"])),
    ("secondary_capture", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")),
    ("secondary_capture", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2")),
    ("unsupported_sop_class", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.1")),
    ("unsupported_sop_class", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.2")),
    ("unsupported_sop_class", setting(SOPClassUID="1.2.3")),
    ("unsupported_modality", setting(Modality="CR")),
    ("multi_frame", setting(NumberOfFrames=2)),
    ("not_greyscale", setting(SamplesPerPixel=3)),
    ("quality_control", setting(QualityControlImage="YES")),
    ("quality_control", setting(QualityControlImage="BOTH")),
    ("quality_control", setting(SeriesDescription="Flat Field L CC")),
    ("quality_control", setting(SeriesDescription="weekly QC")),
    ("quality_control", setting(AcquisitionDeviceProcessingDescription="ACR PHANTOM")),
    ("specimen", setting(SpecimenDescriptionSequence=[Dataset()])),
    ("specimen", setting(SeriesDescription="Specimen L")),
    ("specimen", coded("127457009")),
    ("specimen", coded("G-8310", "SRT")),
    ("biopsy", setting(ImageType=["ORIGINAL", "PRIMARY", "STEREO"])),
    ("biopsy", setting(SeriesDescription="Stereotactic scout L CC")),
    ("biopsy", setting(PaddleDescription="BIOPSY 5X5")),
    ("contrast_enhanced", setting(ContrastBolusAgent="IOHEXOL")),
    ("contrast_enhanced", setting(SeriesDescription="L CC CESM low energy")),
    ("contrast_enhanced", setting(ImageType=["DERIVED", "PRIMARY", "", "RECOMBINED"])),
    ("contrast_enhanced", setting(AcquisitionDeviceProcessingDescription="CEM subtraction")),
    ("synthetic_2d", setting(SeriesDescription="L CC C-View")),
    ("synthetic_2d", setting(SeriesDescription="Insight 2D L CC")),
    ("synthetic_2d", setting(SeriesDescription="L CC SYN2D")),
    ("synthetic_2d", setting(DerivationDescription="Synthesized from tomosynthesis")),
    ("synthetic_2d", setting(AcquisitionDeviceProcessingDescription="S-View")),
    ("synthetic_2d", setting(SeriesDescription="L CC S-View")),
    ("synthetic_2d", setting(ImageType=["DERIVED", "PRIMARY", "TOMO_2D"])),
    ("synthetic_2d", setting(ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"])),
    ("synthetic_2d", setting(
        ManufacturerModelName="FDR-3000AWS", ImageType=["DERIVED", "PRIMARY"])),
    ("magnification", setting(EstimatedRadiographicMagnificationFactor="1.8")),
    ("magnification", setting(EstimatedRadiographicMagnificationFactor="1.21")),
    ("magnification", setting(EstimatedRadiographicMagnificationFactor="0")),
    ("both_breasts", setting(ImageLaterality="B")),
    ("both_breasts", setting(ImageLaterality="BILATERAL")),
    ("laterality_contradiction", lambda header, view: setattr(
        header, "Laterality", {"L": "R", "R": "L"}[view.laterality])),
    ("laterality_contradiction", only(
        setting(ViewPosition="L CC", SeriesDescription="R CC"))),
    ("view_contradiction", setting(ViewPosition="ML")),
    ("unsupported_view", coded("399260004")),
    ("unsupported_view", coded("R-10224", "SNM3")),
    ("unsupported_view", coded("399352003")),
    ("unsupported_view", coded("399099002")),
    ("unsupported_view", coded("399196006")),
    ("unsupported_view", coded("399192008")),
    ("unsupported_view", coded("Y-X1770", "99SDM")),
    ("unsupported_view", only(setting(ViewPosition="L ML"))),
    ("unsupported_view", only(setting(ViewPosition="LMO"))),
    ("spot_compression", modified("399055006")),
    ("magnification", modified("R-102D6", "SRT")),
    ("implant", modified("399209000")),
    ("implant", setting(BreastImplantPresent="YES")),
    ("tangential", modified("399110001")),
    ("tangential", setting(SeriesDescription="Tangential")),
    ("spot_compression", setting(PaddleDescription="10CM SPOT CONTACT")),
    ("spot_compression", setting(PaddleDescription="15 SPT")),
    ("spot_compression", setting(SeriesDescription="Spot Compression")),
    ("magnification", setting(PaddleDescription="1.8MAG STAND")),
    ("implant", only(setting(ViewPosition="LCCID"))),
    ("magnification", only(setting(ViewPosition="L CC M"))),
    ("unknown_view", only()),
    ("unknown_view", only(setting(ImageLaterality="L"))),
    ("unknown_view", only(setting(SeriesDescription="CC and MLO of L and R"))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "change"), REFUSED)
def test_what_is_no_screening_view_is_refused_by_name(reason: str, change: Change) -> None:
    with pytest.raises(UnsupportedImageError) as caught:
        read_exam(exam_of(change))
    assert caught.value.code == reason
    assert caught.value.subject == "views[0]"


def test_what_is_refused_in_a_folder_is_named_with_the_missing_view(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, PLAIN)
    spot = exams.dataset(View.RMLO, Variant(name="spot", header=modified("399055006")))
    spot.save_as(tmp_path / "IM4", enforce_file_format=True)
    with pytest.raises(MissingViewError) as caught:
        read_exam(tmp_path)
    assert caught.value.subject == "RMLO"
    assert caught.value.found == (
        "LCC, RCC, LMLO; skipped IM4 (spot_compression: a spot compression view)"
    )


def test_a_folder_may_hold_other_files(tmp_path: Path) -> None:
    exams.write_exam(tmp_path / "study" / "series", PLAIN)
    (tmp_path / "README.txt").write_text("not an image")
    exam = read_exam(str(tmp_path))
    assert exam.images[View.RCC].name == "study/series/IM2"
    assert exam.notes == ("skipped README.txt (not_dicom: no 'DICM' at byte 128)",)
    with pytest.raises(NotDicomError):
        read_exam([image.path for image in exam.images.values()] + [tmp_path / "README.txt"])


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\xe0\x7f\x10\x00")])


def test_a_damaged_image_may_be_the_one_that_is_meant(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, PLAIN)
    repeat(AcquisitionTime="235959").save_as(tmp_path / "IM9", enforce_file_format=True)
    damage(tmp_path / "IM9")
    exam = read_exam(tmp_path)
    assert exam.images[View.LCC].name == "IM1"
    assert exam.notes == (
        "skipped IM9 (truncated: no Pixel Data (7FE0,0010) before the end of the file)",
    )
    with pytest.raises(DicomReadError, match="IM9"):
        read_exam(tmp_path, strict=True)


def test_a_report_beside_the_images_is_no_damage(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, PLAIN)
    report = repeat(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID
    report.save_as(tmp_path / "SR", enforce_file_format=True)
    damage(tmp_path / "SR")
    (tmp_path / "README.txt").write_text("not an image")
    assert [note.split()[1:3] for note in read_exam(tmp_path, strict=True).notes] == [
        ["README.txt", "(not_dicom:"], ["SR", "(no_pixel_data:"]
    ]  # fmt: skip


def test_folders_that_are_not_searched_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exams.write_exam(tmp_path / "a", PLAIN)
    (tmp_path / "locked").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    scandir = os.scandir

    def deny(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "no", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    assert read_exam(tmp_path).notes == (
        "skipped link (folder_unreadable: a link to a folder, which is not followed)",
        "skipped locked (folder_unreadable: a folder that cannot be read (PermissionError))",
    )
    with pytest.raises(DicomReadError) as caught:
        read_exam(tmp_path, strict=True)
    assert caught.value.code == "folder_unreadable"


IMPOSSIBLE = ["a\0b", "x" * 300, "\ud800", "\udcff", ""]


@pytest.mark.parametrize("path", IMPOSSIBLE)
def test_a_path_that_cannot_be_is_an_error_that_can_be_printed(path: str) -> None:
    for views, kind in (
        (path, ExamError),
        ([path], InputError),
        (dict.fromkeys(VIEWS, path), InputError),
    ):
        with pytest.raises(kind) as caught:
            read_exam(views)
        assert str(caught.value).encode().isascii()
        assert str(caught.value).isprintable()


def test_an_empty_path_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exams.write_exam(tmp_path, PLAIN)
    monkeypatch.chdir(tmp_path)
    assert read_exam(".").images[View.LCC].name == "IM1"
    with pytest.raises(ExamError, match="an empty path"):
        read_exam("")


def test_file_names_of_any_bytes_can_be_encoded(tmp_path: Path) -> None:
    paths = exams.write_exam(tmp_path, PLAIN)
    paths[0].rename(tmp_path / os.fsdecode(b"IM\xff\x1b[1m"))
    (tmp_path / os.fsdecode(b"no\xfe")).write_text("not an image")
    exam = read_exam(tmp_path)
    assert exam.images[View.LCC].name == r"IM\udcff\x1b[1m"
    assert decode(exam.images[View.LCC]).pixels.any()
    assert exam.notes == (r"skipped no\udcfe (not_dicom: no 'DICM' at byte 128)",)


def test_missing_views_are_all_listed() -> None:
    with pytest.raises(MissingViewError) as caught:
        read_exam(exam_of()[:1])
    assert caught.value.subject == "RCC, LMLO, RMLO"
    assert caught.value.found == "LCC"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "1.2.3.4"),
        ("PatientID", ""),
        ("StudyInstanceUID", "1.2.3.4"),
        ("PatientBirthDate", "19601112"),
        ("AcquisitionDate", "20260104"),
        ("AcquisitionDateTime", "20251231235959.1"),
    ],
)
def test_two_patients_studies_or_visits_are_never_one_exam(keyword: str, value: str) -> None:
    images = exam_of(setting(PatientBirthDate="19601111"))
    setattr(images[2], keyword, value)
    for views in (images, dict(zip(VIEWS, images, strict=True))):
        with pytest.raises(MixedExamError) as caught:
            read_exam(views)
        assert "CANARY" not in str(caught.value)
        assert value == "" or value not in str(caught.value)
        told = keyword.removesuffix("DateTime").removesuffix("Date")
        assert caught.value.subject.replace("'s", "").replace(" ", "").startswith(told)


@pytest.mark.parametrize(
    "change",
    [
        setting(AcquisitionDate="20260103"),
        setting(AcquisitionDate="", ContentDate="20270101"),
        setting(PatientBirthDate=""),
        setting(PatientBirthDate="1960.11.11"),
    ],
)
def test_what_is_not_said_or_a_day_apart_is_no_contradiction(change: Change) -> None:
    images = exam_of(setting(PatientBirthDate="19601111"))
    change(images[2], View.LMLO)
    assert read_exam(images).images[View.LMLO].name == "views[2]"


def repeat(**changes: Any) -> Dataset:
    image = exams.dataset(View.LCC, PLAIN)
    image.SOPInstanceUID = f"{exams.ROOT}.9"
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    return image


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        ({}, {"ImageLaterality": "", "ViewPosition": "CC", "SeriesDescription": "L CC"},
         "a text alone says which view it is"),
        ({}, {"ViewPosition": "CC CV"}, "it is not a plain view (cleavage)"),
        ({"PartialView": "NO"}, {"PartialView": "YES"}, "it shows a part of the breast"),
        ({}, {"Rows": 95}, "it has fewer pixels"),
        ({}, {"LossyImageCompression": "01"}, "it is lossy compressed"),
        ({}, {"AcquisitionDate": "", "AcquisitionTime": "235959"},
         "it does not say when it was acquired"),
        ({"AcquisitionTime": "110000"}, {}, "it was acquired earlier"),
        ({"AcquisitionDateTime": "20260102101001.5"}, {}, "it was acquired earlier"),
        ({"InstanceNumber": 7}, {}, "its Instance Number (0020,0013) is lower"),
        ({}, {"SOPInstanceUID": f"{exams.ROOT}.0"},
         "it comes first by SOP Instance UID (0008,0018)"),
        ({}, {"ViewPosition": "CC CV", "LossyImageCompression": "00", "AcquisitionTime": "235959"},
         "it is not a plain view (cleavage)"),
        ({"LossyImageCompression": "01"}, {"ViewPosition": "CC CV"},
         "it is not a plain view (cleavage)"),
        ({"PartialView": "YES"}, {"LossyImageCompression": "01"}, "it is lossy compressed"),
        ({"Rows": 90}, {"PartialView": "YES"}, "it shows a part of the breast"),
        ({}, {"Rows": 90, "AcquisitionTime": "235959"}, "it has fewer pixels"),
        ({}, {"PartialView": "YES", "AcquisitionTime": "235959"}, "it shows a part of the breast"),
        ({}, {"LossyImageCompression": "01", "AcquisitionTime": "235959"},
         "it is lossy compressed"),
    ],
)  # fmt: skip
def test_repeats_are_ranked_and_the_others_listed(
    better: dict[str, Any], worse: dict[str, Any], reason: str
) -> None:
    chosen, other = repeat(**better), repeat(**{"SOPInstanceUID": f"{exams.ROOT}.1", **worse})
    for candidates in ([chosen, other], [other, chosen]):
        exam = read_exam([*candidates, *exam_of()[1:]])
        assert exam.images[View.LCC].dataset is chosen
        [alternative] = exam.alternatives
        assert alternative.view == View.LCC
        assert alternative.name == f"views[{candidates.index(other)}]"
        assert alternative.reason == reason
        with pytest.raises(AmbiguousViewError, match=r"LCC: found 2 images"):
            read_exam([*candidates, *exam_of()[1:]], strict=True)


EVERYTHING = Acceptance(implants=True, synthetic_2d=True, devices=())


@pytest.mark.parametrize(
    ("better", "worse", "reason"),
    [
        ({"ViewPosition": "CC ID", "LossyImageCompression": "01"}, {"BreastImplantPresent": "YES"},
         "the implant is not displaced in it"),
        ({}, {"SeriesDescription": "C-View", "Rows": 200}, "it is synthesised from tomosynthesis"),
        ({"SeriesDescription": "C-View"}, {"LossyImageCompression": "01"},
         "it is lossy compressed"),
    ],
)  # fmt: skip
def test_what_a_bundle_accepts_is_ranked_too(
    better: dict[str, Any], worse: dict[str, Any], reason: str
) -> None:
    chosen, other = repeat(**better), repeat(SOPInstanceUID=f"{exams.ROOT}.91", **worse)
    exam = read_exam([other, chosen, *exam_of()[1:]], acceptance=EVERYTHING)
    assert exam.images[View.LCC].dataset is chosen
    assert [one.reason for one in exam.alternatives] == [reason]


def test_four_views_of_one_device_are_preferred_to_a_later_image_of_another() -> None:
    first = exam_of(setting(Manufacturer="A", ManufacturerModelName="One"))
    other = {"Manufacturer": "B", "ManufacturerModelName": "Two", "AcquisitionTime": "235959"}
    later = repeat(**other)
    exam = read_exam([later, *first])
    assert exam.images[View.LCC].dataset is first[0]
    assert [one.reason for one in exam.alternatives] == [
        "the four views are there from one device, and it comes from another"
    ]
    # Case and spacing do not make another device, and a lossy image is no equal.
    same = repeat(Manufacturer="a", ManufacturerModelName="ONE ", AcquisitionTime="235959")
    assert read_exam([same, *first]).images[View.LCC].dataset is same
    first[0].LossyImageCompression = "01"
    assert read_exam([later, *first]).images[View.LCC].dataset is later
    # Where no device has all four, the exposure decides.
    first[0].LossyImageCompression = "00"
    first[3].Manufacturer = "C"
    assert read_exam([later, *first]).images[View.LCC].dataset is later


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_choice_does_not_depend_on_the_order_and_strict_asks_for_none(
    data: st.DataObject,
) -> None:
    candidates = exam_of()
    for number in range(data.draw(st.integers(0, 6))):
        view = data.draw(st.sampled_from(list(VIEWS)))
        image = exams.dataset(view, PLAIN)
        image.SOPInstanceUID = f"{exams.ROOT}.9{number}"
        image.PartialView = data.draw(st.sampled_from(["YES", "NO"]))
        image.LossyImageCompression = data.draw(st.sampled_from(["00", "01"]))
        image.Manufacturer = data.draw(st.sampled_from(["", "B", "C"]))
        image.Rows = data.draw(st.sampled_from([90, 96]))
        image.AcquisitionTime = data.draw(st.sampled_from(["101010", "121212"]))
        image.InstanceNumber = data.draw(st.integers(1, 2))
        candidates.append(image)
    shuffled = data.draw(st.permutations(candidates))

    def chosen(images: list[Dataset]) -> tuple[dict[View, str], set[tuple[str, str]]]:
        exam = read_exam(images)
        return {view: image.sop_instance_uid for view, image in exam.images.items()}, {
            (images[int(one.name[6:-1])].SOPInstanceUID, one.reason) for one in exam.alternatives
        }

    assert chosen(shuffled) == chosen(candidates)
    assert len(chosen(candidates)[1]) == len(candidates) - 4
    if len(candidates) > 4:
        with pytest.raises(AmbiguousViewError):
            read_exam(shuffled, strict=True)
    else:
        assert read_exam(shuffled, strict=True).alternatives == ()


def test_a_modified_view_is_taken_only_where_no_plain_one_is() -> None:
    rolled = repeat(AcquisitionTime="235959")
    modified("399197002")(rolled, View.LCC)
    exam = read_exam([rolled, *exam_of()])
    assert exam.images[View.LCC].name == "views[1]"
    assert exam.alternatives[0].reason == "it is not a plain view (rolled lateral)"
    assert read_exam([rolled, *exam_of()[1:]]).images[View.LCC].name == "views[0]"


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"PartialView": "YES"}, "views[0]: not a plain view (partial view)"),
        ({"LossyImageCompression": "01"}, "views[0]: lossy compressed"),
    ],
)
def test_a_weakness_of_what_was_taken_is_told(changes: dict[str, Any], note: str) -> None:
    weak, plain = repeat(**changes), exam_of()[1:]
    assert read_exam([weak, *plain]).notes == (note,)
    assert read_exam([weak, exams.dataset(View.LCC, PLAIN), *plain]).notes == ()
    named = read_exam(dict(zip(VIEWS, [weak, *plain], strict=True)))
    assert named.notes == (note.replace("[0]", "[LCC]"),)


def test_a_copy_of_an_instance_is_no_choice(tmp_path: Path) -> None:
    paths = exams.write_exam(tmp_path, PLAIN)
    copy = exams.dataset(View.LCC, PLAIN)
    copy.file_meta.ImplementationVersionName = "ANOTHER"
    for again in (paths[0], copy):
        exam = read_exam([*paths, again], strict=True)
        assert exam.images[View.LCC].name == "IM1"
        assert exam.notes == ()
        [alternative] = exam.alternatives
        assert alternative.view == View.LCC
        assert alternative.reason == "it is a copy of IM1"


@pytest.mark.parametrize("change", [
    setting(WindowWidth=77),
    setting(ImageLaterality="R"),
    lambda header, view: setattr(header, "ViewPosition", "CC CV"),
], ids=["tag", "side", "view"])  # fmt: skip
def test_one_instance_uid_with_two_contents_is_refused(change: Change) -> None:
    other = exams.dataset(View.LCC, Variant(name="changed", header=change))
    with pytest.raises(AmbiguousViewError) as caught:
        read_exam([*exam_of(), other])
    assert caught.value.subject == "SOP Instance UID (0008,0018)"
    assert caught.value.found == "one value in views[0] and views[4], which differ"


def test_one_instance_uid_with_two_pixels_or_encodings_is_refused() -> None:
    brighter = exams.dataset(View.LCC, PLAIN)
    brighter.PixelData = bytes(len(brighter.PixelData))
    recoded = exams.dataset(View.LCC, PLAIN)
    recoded.file_meta.TransferSyntaxUID = gate.IMPLICIT_LITTLE
    for other in (brighter, recoded):
        with pytest.raises(AmbiguousViewError):
            read_exam([*exam_of(), other])


def rejection_note(*uids: str, title: str = "113001") -> Dataset:
    """A Key Object Selection document about the instances."""
    note = exams.dataset(View.LCC, PLAIN)
    note.SOPClassUID = note.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.59"
    note.SOPInstanceUID, note.Modality = f"{exams.ROOT}.700", "KO"
    note.ConceptNameCodeSequence = [code(title, "DCM")]
    study, series = Dataset(), Dataset()
    study.ReferencedSeriesSequence = [series]
    series.ReferencedSOPSequence = []
    for uid in uids:
        instance = Dataset()
        instance.ReferencedSOPClassUID = exams.FOR_PRESENTATION
        instance.ReferencedSOPInstanceUID = uid
        series.ReferencedSOPSequence.append(instance)
    note.CurrentRequestedProcedureEvidenceSequence = [study]
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(note, keyword)
    return note


@pytest.mark.parametrize("title", ["113001", "113037", "113038", "113039"])
def test_an_image_that_a_rejection_note_names_is_left_out(tmp_path: Path, title: str) -> None:
    exams.write_exam(tmp_path, PLAIN)
    later = repeat(AcquisitionTime="235959")
    later.save_as(tmp_path / "IM9", enforce_file_format=True)
    assert read_exam(tmp_path).images[View.LCC].name == "IM9"
    note = rejection_note(later.SOPInstanceUID, title=title)
    note.save_as(tmp_path / "KO", enforce_file_format=True)
    exam = read_exam(tmp_path, strict=True)
    assert exam.images[View.LCC].name == "IM1"
    assert exam.alternatives == ()
    assert exam.notes[0] == (
        "skipped IM9 (rejected: an image that a rejection note (Key Object Selection) takes out "
        "of use)"
    )


def test_a_note_with_another_title_rejects_nothing(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, PLAIN)
    note = rejection_note(f"{exams.ROOT}.1", title="113000")
    note.save_as(tmp_path / "KO", enforce_file_format=True)
    exam = read_exam(tmp_path)
    assert exam.images[View.LCC].name == "IM1"
    assert exam.notes[0].startswith("skipped KO (no_pixel_data: ")


def test_an_exam_that_was_read_is_taken_as_it_is_where_it_is_accepted() -> None:
    exam = read_exam(exam_of())
    assert read_exam(exam, strict=True) is exam
    implants = read_exam(exam_of(setting(BreastImplantPresent="YES")), acceptance=EVERYTHING)
    assert read_exam(implants, acceptance=EVERYTHING) is implants
    with pytest.raises(UnsupportedImageError) as caught:
        read_exam(implants)
    assert (caught.value.code, caught.value.subject) == ("implant", "views[0]")
    arrays = read_exam(dict.fromkeys(VIEWS, np.full((99, 99), 2**14, np.uint16)))
    assert read_exam(arrays) is arrays


def test_every_image_of_an_exam_says_how_it_was_acquired(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, Variant(name="made", header=setting(Manufacturer="ACME")))
    for views in (tmp_path, sorted(tmp_path.iterdir()), dict(zip(VIEWS, exam_of(
        setting(Manufacturer="ACME")), strict=True))):  # fmt: skip
        for image in read_exam(views).images.values():
            assert image.acquisition is not None
            assert image.acquisition.device.manufacturer == "ACME"


def test_a_folder_among_files_is_told_to_come_alone(tmp_path: Path) -> None:
    paths = exams.write_exam(tmp_path, PLAIN)
    for views in ([*paths[:3], tmp_path], [tmp_path], dict.fromkeys(VIEWS, tmp_path)):
        with pytest.raises(ExamError) as caught:
            read_exam(views)
        assert caught.value.code == "folder_for_a_file"
        assert caught.value.subject == tmp_path.name
        assert "alone" in caught.value.remedy
        assert "mammoclip-sdk scan (mammoclip_sdk.archive.scan)" in caught.value.remedy


def test_a_list_of_exams_is_sent_to_predict_many() -> None:
    exam = read_exam(exam_of())
    with pytest.raises(ExamError, match="an Exam where an image is expected") as caught:
        read_exam([exam, exam])  # type: ignore[list-item]
    assert "Predictor.predict_many" in caught.value.remedy


def test_images_of_several_studies_are_sent_to_scan() -> None:
    images = exam_of()
    images[0].StudyInstanceUID += ".1"
    with pytest.raises(MixedExamError) as caught:
        read_exam(images)
    assert "mammoclip-sdk scan (mammoclip_sdk.archive.scan)" in caught.value.remedy


def test_a_missing_view_is_sought_among_those_that_are_claimed_twice() -> None:
    images = exam_of()
    images[0].ImageLaterality = "R"
    with pytest.raises(MissingViewError) as caught:
        read_exam(images)
    assert caught.value.subject == "LCC"
    assert caught.value.found == (
        "RCC, LMLO, RMLO; RCC is claimed by views[0] and views[1], one of which may be the "
        "missing view"
    )


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


def test_a_mapping_must_agree_with_the_headers(tmp_path: Path) -> None:
    paths = dict(zip(VIEWS, exams.write_exam(tmp_path, PLAIN), strict=True))
    named = read_exam({view.value: path for view, path in paths.items()})
    assert {view: image.path for view, image in named.images.items()} == paths
    paths[View.LCC], paths[View.RCC] = paths[View.RCC], paths[View.LCC]
    with pytest.raises(ExamError) as caught:
        read_exam(paths)
    assert caught.value.code == "view_mismatch"
    assert caught.value.found == "IM2, whose header says RCC"


def test_a_mapping_speaks_for_headers_that_say_nothing() -> None:
    images = exam_of(only())
    exam = read_exam(dict(zip(VIEWS, images, strict=True)))
    assert exam.images[View.RMLO].dataset is images[3]
    assert exam.notes[3] == "views[RMLO]: taken as RMLO on the caller's word"


def test_a_mapping_may_not_contradict_half_a_header() -> None:
    images = exam_of(only(setting(ImageLaterality="L")))
    with pytest.raises(ExamError) as caught:
        read_exam(dict(zip(VIEWS, images, strict=True)))
    assert caught.value.code == "view_mismatch"


def test_one_image_under_two_views_is_refused() -> None:
    images = dict(zip(VIEWS, exam_of(only()), strict=True))
    images[View.RCC] = images[View.LCC]
    with pytest.raises(ExamError) as caught:
        read_exam(images)
    assert caught.value.code == "same_image_twice"


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((99, 99)), "array_dtype"),
        (np.zeros((99, 99), np.int16), "array_dtype"),
        (np.zeros((99, 99, 3), np.uint8), "array_shape"),
        (np.full((99, 99), 2**14 - 1, np.uint16), "array_range"),
    ],
)
def test_arrays_with_more_than_one_meaning_are_refused(array: Any, reason: str) -> None:
    good = np.full((99, 99), 2**14, np.uint16)
    assert read_exam(dict.fromkeys(VIEWS, good)).images[View.RCC].array is good
    with pytest.raises(PixelError) as caught:
        read_exam({**dict.fromkeys(VIEWS, good), View.RCC: array})
    assert caught.value.code == reason
    assert caught.value.subject == "views[RCC]"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("views", "reason"),
    [
        (7, "exam"),
        (b"folder", "exam"),
        (np.zeros((4, 9, 9)), "exam"),
        ([np.zeros((9, 9))], "exam"),
        ("no/such/folder", "not_a_folder"),
        (__file__, "not_a_folder"),
        ({"LLC": "x"}, "unknown_view_key"),
        ({}, "missing_view"),
        ([], "missing_view"),
    ],
)
def test_anything_else_is_refused_with_a_reason(views: Any, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_exam(views)
    assert caught.value.code == reason


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
     "Comparison CC"],
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


class _BadPath(os.PathLike[str]):
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __fspath__(self) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize("answer", [7, RuntimeError("CANARY")], ids=["int", "raises"])
@pytest.mark.parametrize("as_list", [True, False])
def test_a_path_that_is_none_is_an_error_of_ours(answer, as_list):
    path = _BadPath(answer)
    with pytest.raises(ExamError) as caught:
        read_exam([path] if as_list else path)
    assert "CANARY" not in str(caught.value)


def test_a_path_in_bytes_is_a_path(tmp_path):
    exams.write_exam(tmp_path, PLAIN)
    with os.scandir(os.fsencode(tmp_path)) as entries:
        exam = read_exam(list(entries))
    assert list(exam.images) == list(VIEWS)


def test_an_array_whose_mask_would_be_ignored_is_refused():
    array = np.ma.masked_array(np.full((80, 70), 40000, np.uint16), mask=True)
    with pytest.raises(PixelError, match="masked array of uint16"):
        read_exam(dict.fromkeys(VIEWS, array))


def test_an_array_beyond_all_sizes_is_refused_before_it_is_looked_at():
    endless = np.broadcast_to(np.uint16(40000), (10**6, 10**6))
    with pytest.raises(PixelError) as caught:
        read_exam(dict.fromkeys(VIEWS, endless))
    assert caught.value.code == "image_size"
