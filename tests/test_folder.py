"""A folder as an exam: what is skipped and told, what is damage, what is no part of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import exams
import pytest
from exams import PLAIN, Variant
from headers import modified, repeat

from mammoclip_sdk.dicom.file import MAX_FILE_BYTES
from mammoclip_sdk.errors import DicomReadError, MissingViewError, NotDicomError
from mammoclip_sdk.exam import View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.views import read_exam


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
def test_what_can_be_no_image_is_no_damage(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, PLAIN)
    os.mkfifo(tmp_path / "pipe")
    large = tmp_path / "volume"
    large.write_bytes(bytes(128) + b"DICM")
    os.truncate(large, MAX_FILE_BYTES + 1)
    assert [note.split(":")[0] for note in read_exam(tmp_path, strict=True).notes] == [
        "skipped pipe (not_a_file", "skipped volume (file_too_large"
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


def test_file_names_of_any_bytes_can_be_encoded(tmp_path: Path) -> None:
    paths = exams.write_exam(tmp_path, PLAIN)
    paths[0].rename(tmp_path / os.fsdecode(b"IM\xff\x1b[1m"))
    (tmp_path / os.fsdecode(b"no\xfe")).write_text("not an image")
    exam = read_exam(tmp_path)
    assert exam.images[View.LCC].name == r"IM\udcff\x1b[1m"
    assert decode(exam.images[View.LCC]).pixels.any()
    assert exam.notes == (r"skipped no\udcfe (not_dicom: no 'DICM' at byte 128)",)


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
