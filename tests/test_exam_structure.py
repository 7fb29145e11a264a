"""An Exam that was changed between reading and scoring is refused by name, never by accident."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import exams
import numpy as np
import pytest

from mammoclip_sdk import Predictor
from mammoclip_sdk.errors import ExamError, MissingViewError, PixelError
from mammoclip_sdk.exam import VIEWS, Alternative, Exam, SourceImage, View
from mammoclip_sdk.views import read_exam


@pytest.fixture
def exam(tmp_path: Path) -> Exam:
    exams.write_exam(tmp_path, exams.PLAIN)
    exam = read_exam(tmp_path)
    other = Alternative(view=View.LCC, name="IM9", reason="it was acquired earlier")
    return dataclasses.replace(exam, alternatives=(other,), notes=("a note",))


def changed(exam: Exam, **fields: Any) -> Exam:
    """Return an exam whose first image has other fields."""
    image = dataclasses.replace(exam.images[View.LCC], **fields)
    return dataclasses.replace(exam, images={**exam.images, View.LCC: image})


def acquired(exam: Exam, **fields: Any) -> Exam:
    acquisition = exam.images[View.LCC].acquisition
    assert acquisition is not None
    return changed(exam, acquisition=dataclasses.replace(acquisition, **fields))


def with_every_part_exchanged(value: Any, stranger: object) -> Iterator[Any]:
    """Yield copies of a value, in each of which one part, at any depth, is the stranger."""
    yield stranger
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            for part in with_every_part_exchanged(getattr(value, field.name), stranger):
                yield dataclasses.replace(value, **{field.name: part})
    elif isinstance(value, Mapping):
        for key in value:
            for part in with_every_part_exchanged(value[key], stranger):
                yield {**value, key: part}
            yield {**{one: value[one] for one in value if one is not key}, stranger: value[key]}
    elif isinstance(value, tuple):
        for number, one in enumerate(value):
            for part in with_every_part_exchanged(one, stranger):
                yield (*value[:number], part, *value[number + 1 :])


def test_whatever_part_of_an_exam_is_exchanged_it_is_refused(exam: Exam) -> None:
    copies = [one for one in with_every_part_exchanged(exam, 1j) if isinstance(one, Exam)]
    assert len(copies) > 80
    for copy in copies:
        with pytest.raises(ExamError, match=r"of type complex; expected an Exam") as caught:
            read_exam(copy)
        assert caught.value.code == "exam"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda e: dataclasses.replace(e, images=None), "exam.images of type NoneType"),
        (
            lambda e: dataclasses.replace(e, images=dict.fromkeys(VIEWS)),
            "exam.images[LCC] of type NoneType",
        ),
        (
            lambda e: dataclasses.replace(e, images={1: e.images[View.LCC]}),
            "key 0 of exam.images of type int",
        ),
        (lambda e: dataclasses.replace(e, notes=["n"]), "exam.notes of type list"),
        (lambda e: changed(e, path="IM1"), "exam.images[LCC].path of type str"),
        (lambda e: changed(e, view="LCC"), "exam.images[LCC].view of type str"),
        (lambda e: changed(e, array=[[0]]), "exam.images[LCC].array of type list"),
        (
            lambda e: acquired(e, pixel_spacing=(0.1,)),
            "exam.images[LCC].acquisition.pixel_spacing of 1 values",
        ),
        (
            lambda e: acquired(e, implant=0),
            "exam.images[LCC].acquisition.implant of type int",
        ),
        (
            lambda e: acquired(e, pixel_spacing=(True, 0.1)),
            "exam.images[LCC].acquisition.pixel_spacing[0] of type bool",
        ),
        (
            lambda e: acquired(e, device=None),
            "exam.images[LCC].acquisition.device of type NoneType",
        ),
    ],
)
def test_the_part_that_is_wrong_is_named(exam: Exam, change: Any, found: str) -> None:
    with pytest.raises(ExamError) as caught:
        read_exam(change(exam))
    assert caught.value.found == found


def test_what_its_class_allows_is_taken_as_it_is(exam: Exam) -> None:
    for same in (
        exam,
        acquired(exam, pixel_spacing=None, lossy_ratio=20, burned_in_annotation=None),
        acquired(exam, pixel_spacing=(np.float32(0.1), 1)),
        changed(exam, acquisition=None),
    ):
        assert read_exam(same) is same


def test_a_mapping_that_raises_is_no_exam(exam: Exam) -> None:
    class Broken(dict[View, SourceImage]):
        def items(self) -> Any:
            raise KeyError("Canary^Name")

    with pytest.raises(ExamError, match=r"cannot be read \(KeyError\)") as caught:
        read_exam(dataclasses.replace(exam, images=Broken(exam.images)))
    assert "Canary" not in str(caught.value)


def test_an_array_put_into_an_exam_is_judged_as_any_other(exam: Exam) -> None:
    for array, code in (
        (np.zeros((99, 80), np.float32), "array_dtype"),
        (np.zeros((99, 80, 3), np.uint8), "array_shape"),
        (np.zeros((9, 8), np.uint8), "image_size"),
    ):
        with pytest.raises(PixelError) as caught:
            read_exam(changed(exam, path=None, array=array))
        assert caught.value.code == code


def test_no_changed_exam_reaches_the_model(exam: Exam, tiny_bundle: Path) -> None:
    predictor = Predictor(tiny_bundle, "cpu")
    assert predictor.predict(exam).status == "scored"
    with pytest.raises(ExamError, match="of type NoneType"):
        predictor.predict(dataclasses.replace(exam, images=dict.fromkeys(VIEWS)))  # type: ignore[arg-type]
    with pytest.raises(MissingViewError):
        predictor.predict(dataclasses.replace(exam, images={}))
