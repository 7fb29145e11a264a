"""What is taken for an exam, what is refused and why, and what the caller is told."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import exams
import numpy as np
import pytest
from exams import PLAIN, VARIANTS, Variant, code
from headers import EVERYTHING, Change, coded, exam_of, modified, only, repeat, setting
from pydicom.dataset import Dataset

from mammoclip_sdk.dicom.shield import shielded
from mammoclip_sdk.errors import (
    DicomReadError,
    ExamError,
    InputError,
    MissingViewError,
    NotDicomError,
    PixelError,
    UnsupportedImageError,
)
from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.views import read_exam


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
    ("tomosynthesis_slice", setting(ImageType=["ORIGINAL", "PRIMARY", "TOMO_PROJ", "RIGHT"])),
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


def test_the_text_of_an_exam_names_no_patient_and_no_folder(tmp_path: Path) -> None:
    change = setting(PatientName="Canary^Jane", PatientID="CANARY-4711")
    exam = read_exam(exam_of(change))
    assert "canary" not in repr(exam).lower()
    (tmp_path / "Canary^Jane").mkdir()
    for number, dataset in enumerate(exam_of(change)):
        dataset.save_as(tmp_path / "Canary^Jane" / f"{number}.dcm", enforce_file_format=True)
    assert "canary" not in repr(read_exam(tmp_path / "Canary^Jane")).lower()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_while_a_thread_reads_a_header_reads_as_well() -> None:
    headers = exam_of()
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with shielded("x"):
            held.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writes, ",".join(read_exam(headers).images).encode())
        finally:
            os._exit(0)
    os.close(writes)
    leave.set()
    thread.join()
    deadline = threading.Timer(30, os.kill, (child, 9))
    deadline.start()
    with os.fdopen(reads, "rb") as answer:
        said = answer.read().decode()
    deadline.cancel()
    os.waitpid(child, 0)
    assert said == ",".join(VIEWS)


@pytest.mark.skipif(os.name == "nt", reason="no folder is opened beside another there")
def test_folders_beyond_the_longest_path_are_told_and_the_exam_is_read(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, PLAIN)
    opened = [os.open(tmp_path, os.O_RDONLY)]
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=opened[-1])
        opened.append(os.open("d" * 200, os.O_RDONLY, dir_fd=opened[-1]))
    for folder in opened:
        os.close(folder)
    (note,) = read_exam(tmp_path).notes
    assert "a folder that cannot be read (OSError)" in note
