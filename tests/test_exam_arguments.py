"""What a caller may hand over as an exam, and what is refused with a reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import exams
import numpy as np
import pytest
from exams import PLAIN
from headers import EVERYTHING, exam_of, only, setting

from mammoclip_sdk.errors import ExamError, InputError, PixelError, UnsupportedImageError
from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.views import read_exam

# -- exams, lists and mappings --------------------------------------------------------------------


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


@pytest.mark.parametrize("other", [View.RCC, View.LMLO, View.RMLO])
def test_a_mapping_must_agree_with_the_headers(tmp_path: Path, other: View) -> None:
    paths = dict(zip(VIEWS, exams.write_exam(tmp_path, PLAIN), strict=True))
    named = read_exam({view.value: path for view, path in paths.items()})
    assert {view: image.path for view, image in named.images.items()} == paths
    paths[View.LCC], paths[other] = paths[other], paths[View.LCC]
    with pytest.raises(ExamError) as caught:
        read_exam(paths)
    assert caught.value.code == "view_mismatch"
    assert caught.value.found == f"{paths[View.LCC].name}, whose header says {other}"


def test_a_mapping_speaks_for_headers_that_say_nothing() -> None:
    images = exam_of(only())
    exam = read_exam(dict(zip(VIEWS, images, strict=True)))
    assert exam.images[View.RMLO].dataset is images[3]
    assert exam.notes[3] == "views[RMLO]: taken as RMLO on the caller's word"


def test_an_exam_says_of_which_study_it_is_where_all_of_it_says_so(tmp_path: Path) -> None:
    paths = dict(zip(VIEWS, exams.write_exam(tmp_path, PLAIN), strict=True))
    array = np.full((99, 99), 2**14, np.uint16)
    for views, study in (
        (tmp_path, f"{exams.ROOT}.100"),
        (list(paths.values()), f"{exams.ROOT}.100"),
        (paths, f"{exams.ROOT}.100"),
        ({**paths, View.LCC: array}, None),
        (dict.fromkeys(VIEWS, array), None),
    ):
        assert read_exam(views).study_instance_uid == study


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


# -- paths ----------------------------------------------------------------------------------------


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


# -- arrays ---------------------------------------------------------------------------------------


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


def test_an_array_whose_mask_would_be_ignored_is_refused():
    array = np.ma.masked_array(np.full((80, 70), 40000, np.uint16), mask=True)
    with pytest.raises(PixelError, match="masked array of uint16"):
        read_exam(dict.fromkeys(VIEWS, array))


def test_an_array_beyond_all_sizes_is_refused_before_it_is_looked_at():
    endless = np.broadcast_to(np.uint16(40000), (10**6, 10**6))
    with pytest.raises(PixelError) as caught:
        read_exam(dict.fromkeys(VIEWS, endless))
    assert caught.value.code == "image_size"
