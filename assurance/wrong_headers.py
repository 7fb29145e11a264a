"""Exams that are wrong by their tags alone, or by tags that do not fit the pixels."""

from __future__ import annotations

import copy

import numpy as np
from pydicom import Dataset

from assurance.good_exams import Four, GoodExam, Make, one_view, two_views
from mammoclip_sdk.exam import VIEWS, View

_OTHER = {"L": "R", "R": "L"}
_OTHER_PROJECTION = {"CC": "MLO", "MLO": "CC"}
_NAMES_OF_THE_VIEW = (
    "ViewPosition",
    "ViewCodeSequence",
    "AcquisitionDeviceProcessingDescription",
)


def tagged(everywhere: bool = False, **tags: object) -> Make:
    """Return what sets tags in one view, or in all."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four, only = exam.written(), one_view(rng)
        for view, dataset in four.items():
            if everywhere or view is only:
                for keyword, value in tags.items():
                    setattr(dataset, keyword, copy.deepcopy(value))
        return four

    return make


def of_class(uid: str) -> Make:
    """Return what gives one view another SOP Class."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        dataset = four[one_view(rng)]
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
        return four

    return make


def _code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "meaning"
    return item


def _take_name(dataset: Dataset) -> None:
    for keyword in _NAMES_OF_THE_VIEW:
        if keyword in dataset:
            del dataset[keyword]


def with_view(position: str, code: str) -> Make:
    """Replace one MLO or CC view by another projection, in every tag that this profile writes."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        dataset = four[one_view(rng)]
        _take_name(dataset)
        dataset.ViewPosition = position
        dataset.ViewCodeSequence = [_code(code)]
        return four

    return make


def modified(*codes: str) -> Make:
    """Return what gives one view modifiers."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        four[one_view(rng)].ViewModifierCodeSequence = [_code(code) for code in codes]
        return four

    return make


def dropped(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Leave one to three views out."""
    four = exam.written()
    for view in rng.permutation(np.array(VIEWS, object))[: rng.integers(1, 4)]:
        del four[view]
    return four


def unnamed(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Take from one view every tag that says which projection it is."""
    four = exam.written()
    _take_name(four[one_view(rng)])
    return four


def two_ways_named(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Let two tags of one view contradict each other."""
    four = exam.written()
    view = one_view(rng)
    four[view].ViewPosition = _OTHER_PROJECTION[view.projection]
    four[view].ViewCodeSequence = [_code({"CC": "399162004", "MLO": "399368009"}[view.projection])]
    return four


def days_apart(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Date one view years before the others."""
    four = exam.written()
    day = f"{rng.integers(2010, 2019)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    four[one_view(rng)].AcquisitionDate = day
    return four


_VIEW_TAGS = (
    "ImageLaterality",
    "Laterality",
    "ViewPosition",
    "ViewCodeSequence",
    "PatientOrientation",
    "AcquisitionDeviceProcessingDescription",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "AcquisitionTime",
    "ContentTime",
)


def retagged(dataset: Dataset, tags: Dataset) -> Dataset:
    """Return an image under the identity and the view tags of another."""
    moved = copy.deepcopy(dataset)
    for keyword in _VIEW_TAGS:
        if keyword in moved:
            del moved[keyword]
        if keyword in tags:
            moved[keyword] = copy.deepcopy(tags[keyword])
    moved.file_meta.MediaStorageSOPInstanceUID = moved.SOPInstanceUID
    return moved


def same_file(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Give one image a second time, under the tags of another view."""
    four = exam.written()
    view, other = two_views(rng)
    four[other] = retagged(four[view], four[other])
    return four


def swapped(*projections: str, orientation: bool) -> Make:
    """Exchange left and right in the tags of both breasts' views of some projections."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        exchanged = dict(four)
        for view, dataset in four.items():
            if view.projection in projections:
                other = View(_OTHER[view.laterality] + view.projection)
                moved = retagged(dataset, four[other])
                if not orientation:
                    moved.PatientOrientation = dataset.PatientOrientation
                exchanged[other] = moved
        return exchanged

    return make


def projections_exchanged(*, orientation: bool) -> Make:
    """Exchange CC and MLO in the tags of all four views."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        exchanged = {}
        for view, dataset in four.items():
            other = View(view.laterality + _OTHER_PROJECTION[view.projection])
            exchanged[other] = retagged(dataset, four[other])
            if not orientation:
                exchanged[other].PatientOrientation = dataset.PatientOrientation
        return {view: exchanged[view] for view in VIEWS}

    return make


def one_side_wrong(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Name one view after the other breast."""
    four = exam.written()
    view = one_view(rng)
    dataset = four[view]
    if "ImageLaterality" in dataset:
        dataset.ImageLaterality = _OTHER[view.laterality]
    else:
        dataset.Laterality = _OTHER[view.laterality]
    return four


_ACROSS = str.maketrans("AP", "PA")
_OPPOSITE = str.maketrans("APLRFH", "PARLHF")


def rows_turned(letters: list[str]) -> list[str]:
    """Say that rows lead the other way, as they do in an image that is stored mirrored."""
    return [letters[0].translate(_ACROSS), letters[1]]


def other_breast(letters: list[str]) -> list[str]:
    """Say what an image of the other breast says."""
    return [letters[0].translate(_ACROSS), letters[1].translate(str.maketrans("LR", "RL"))]


def quarter_turned(letters: list[str], quarters: int) -> list[str]:
    """Say what an image says after one or three quarters of a turn, against the clock."""
    along, down = letters
    if quarters == 1:
        return [down, along.translate(_OPPOSITE)]
    return [down.translate(_OPPOSITE), along]


def orientation_wrong(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Let Patient Orientation of one view contradict its pixels or its side."""
    four = exam.written()
    dataset = four[one_view(rng)]
    change = rows_turned if rng.random() < 0.5 else other_breast
    dataset.PatientOrientation = change(list(dataset.PatientOrientation))
    return four
