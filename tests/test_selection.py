"""Of many images, which is taken for a view, and which never make up one exam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exams
import pytest
from exams import PLAIN, Variant
from headers import EVERYTHING, Change, exam_of, modified, repeat, setting
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.errors import (
    AmbiguousViewError,
    MissingViewError,
    MixedExamError,
)
from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.views import read_exam


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
        ({"AcquisitionTime": "", "ContentDate": "20260102", "ContentTime": "120000"},
         {"InstanceNumber": 9}, "it was acquired earlier"),
        ({"AcquisitionDateTime": "20260102100000+0000"},
         {"AcquisitionDateTime": "20260102103000+0100"}, "it was acquired earlier"),
        ({"AcquisitionDateTime": "20260102103000+0100"},
         {"AcquisitionDateTime": "20260102100000"}, "it was acquired earlier"),
        ({"AcquisitionTime": "070000", "TimezoneOffsetFromUTC": "-0500"},
         {"AcquisitionDateTime": "20260102125959+0100"}, "it was acquired earlier"),
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
    assert exam.alternatives[0].sop_instance_uid == rolled.SOPInstanceUID
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
