"""Rejection notes (Key Object Selection): what they name is left out, and nothing else."""

from __future__ import annotations

from pathlib import Path

import exams
import pytest
from exams import PLAIN, code
from headers import repeat
from pydicom.dataset import Dataset

from mammoclip_sdk.errors import DicomReadError
from mammoclip_sdk.exam import View
from mammoclip_sdk.views import read_exam


def rejection_note(*uids: str, title: str = "113001", scheme: str = "DCM") -> Dataset:
    """A Key Object Selection document about the instances."""
    note = exams.dataset(View.LCC, PLAIN)
    note.SOPClassUID = note.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.59"
    note.SOPInstanceUID, note.Modality = f"{exams.ROOT}.700", "KO"
    note.ConceptNameCodeSequence = [code(title, scheme)]
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


def report(*uids: str) -> Dataset:
    """A structured report that says the same of the instances."""
    note = rejection_note(*uids)
    note.SOPClassUID = note.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
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


@pytest.mark.parametrize(
    "note",
    [
        rejection_note(f"{exams.ROOT}.1", title="113000"),
        rejection_note(f"{exams.ROOT}.1", scheme="99VENDOR"),
        report(f"{exams.ROOT}.1"),
        rejection_note(f"{exams.ROOT}.77"),
    ],
    ids=["another title", "a vendor's title", "no Key Object Selection", "another image"],
)
def test_what_is_no_rejection_note_of_these_images_rejects_nothing(
    tmp_path: Path, note: Dataset
) -> None:
    exams.write_exam(tmp_path, PLAIN)
    note.save_as(tmp_path / "KO", enforce_file_format=True)
    exam = read_exam(tmp_path, strict=True)
    assert exam.images[View.LCC].name == "IM1"
    assert exam.notes[0].startswith("skipped KO (no_pixel_data: ")


def test_a_rejection_note_that_was_cut_short_may_reject_what_is_meant(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, PLAIN)
    note = tmp_path / "KO"
    rejection_note(f"{exams.ROOT}.1").save_as(note, enforce_file_format=True)
    note.write_bytes(note.read_bytes()[:-1])
    assert read_exam(tmp_path).notes[0].startswith("skipped KO (truncated: the end of the file")
    with pytest.raises(DicomReadError, match="KO: found the end of the file") as caught:
        read_exam(tmp_path, strict=True)
    assert caught.value.code == "truncated"
