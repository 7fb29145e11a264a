"""Phantom exams: the truth in the manifest is in the pixels, and the traps are what they claim."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from phantoms import SMALL, sixty_exams, without_lesions

from mammoclip_sdk.exam import VIEWS, View
from training.breast import DENSITIES
from training.lesions import INNOCENT, SUSPICIOUS, Kind
from training.phantom import Category, make_exam, make_exams


@pytest.fixture(scope="module")
def exams():
    return sixty_exams()


def suspicious_views(exam):
    return {
        view
        for view, image in exam.views.items()
        if any(box.kind in SUSPICIOUS for box in image.boxes)
    }


def test_same_seed_and_index_give_the_same_bytes_and_others_do_not():
    first, again, other = make_exam(SMALL, 3), make_exam(SMALL, 3), make_exam(SMALL, 4)
    for view in VIEWS:
        assert first.datasets[view].PixelData == again.datasets[view].PixelData
        assert first.datasets[view].to_json() == again.datasets[view].to_json()
        assert first.datasets[view].PixelData != other.datasets[view].PixelData


def test_malignant_lesions_are_in_both_views_of_one_breast_and_nowhere_else(exams):
    malignant = [exam for exam in exams if exam.malignant]
    assert len(malignant) > 15
    sides = set()
    for exam in malignant:
        marked = {
            view for view, image in exam.views.items() if any(b.malignant for b in image.boxes)
        }
        assert marked in ({View.LCC, View.LMLO}, {View.RCC, View.RMLO})
        assert suspicious_views(exam) == marked
        sides |= {view.laterality for view in marked}
    assert sides == {"L", "R"}


@pytest.mark.parametrize(
    ("category", "views"),
    [
        (Category.NORMAL, [set()]),
        (Category.INNOCENT, [set()]),
        (Category.SINGLE, [{view} for view in VIEWS]),
        (Category.CROSSED, [{View.LCC, View.RMLO}, {View.RCC, View.LMLO}]),
        (Category.SYMMETRIC, [set(VIEWS)]),
    ],
)
def test_traps_show_the_suspicious_appearance_where_it_does_not_mean_cancer(exams, category, views):
    found = [exam for exam in exams if exam.category is category]
    assert found, f"no {category} exam among {len(exams)}"
    for exam in found:
        assert not exam.malignant
        assert not any(box.malignant for image in exam.views.values() for box in image.boxes)
        assert suspicious_views(exam) in views


def test_every_trap_uses_every_suspicious_kind_so_that_the_kind_alone_decides_nothing(exams):
    kinds = {
        malignant: Counter(
            box.kind
            for exam in exams
            if exam.malignant is malignant
            for image in exam.views.values()
            for box in image.boxes
            if box.kind in SUSPICIOUS
        )
        for malignant in (True, False)
    }
    for counts in kinds.values():
        assert set(counts) == set(SUSPICIOUS)
        assert max(counts.values()) < 0.7 * sum(counts.values())


def innocent_views(exam):
    """For each lesion that is not suspicious, its views."""
    return [
        view for view, image in exam.views.items() for box in image.boxes if box.kind in INNOCENT
    ]


def test_incidental_lesions_lie_in_both_views_of_a_breast_of_malignant_and_other_exams_alike():
    always, never = (
        list(make_exams(replace(SMALL, incidental_share=share), 30)) for share in (1.0, 0.0)
    )
    for exam in always:
        found = innocent_views(exam)
        assert len(found) == (4 if exam.category is Category.INNOCENT else 2)
        assert {view.laterality + "CC" for view in found} <= set(found)
        assert {view.laterality + "MLO" for view in found} <= set(found)
    assert {exam.malignant for exam in always} == {True, False}
    for exam in never:
        assert bool(innocent_views(exam)) == (exam.category is Category.INNOCENT)


def test_shares_and_contrast_are_those_of_the_settings():
    for share in (0.0, 1.0):
        drawn = make_exams(replace(SMALL, malignant_share=share), 12)
        assert {exam.malignant for exam in drawn} == {share == 1.0}
    faint, strong = (
        make_exam(replace(SMALL, malignant_share=1.0, contrast=(value, value)), 5)
        for value in (0.1, 0.2)
    )
    for view in VIEWS:
        bare = make_exam(replace(SMALL, malignant_share=1.0, contrast=(0.0, 0.0)), 5)
        added = [
            exam.views[view].displayed - bare.views[view].displayed for exam in (faint, strong)
        ]
        clear = strong.views[view].displayed < 1
        assert added[1][clear] == pytest.approx(2 * added[0][clear], abs=1e-5)


def test_a_lesion_lies_at_the_same_depth_behind_the_nipple_in_both_views(exams):
    for exam in (exam for exam in exams if exam.malignant):
        columns = [
            box.left + box.width / 2
            for image in exam.views.values()
            for box in image.boxes
            if box.malignant
        ]
        assert columns[0] == pytest.approx(columns[1], abs=1.5)


def test_the_oblique_view_is_another_projection_of_the_same_lesion(exams):
    rows = np.array(
        [
            [box.top + box.height / 2 for image in exam.views.values() for box in image.boxes]
            for exam in exams
            if exam.malignant and sum(len(image.boxes) for image in exam.views.values()) == 2
        ]
    )
    assert len(rows) > 10
    assert np.abs(rows[:, 0] - rows[:, 1]).max() > 8, "pixels of 1.8 mm"
    assert len(np.unique(rows[:, 0].round())) > 5


def test_the_boxes_hold_what_the_lesions_add_on_both_sides(exams):
    sides = set()
    for exam in exams[:24]:
        bare = without_lesions(exam)
        for view, image in exam.views.items():
            added = image.displayed - bare.views[view].displayed
            if not image.boxes:
                assert not added.any()
                continue
            sides.add(view.laterality)
            inside = np.zeros(added.shape, bool)
            for box in image.boxes:
                inside[box.top : box.top + box.height, box.left : box.left + box.width] = True
            assert added.max() > 0.03
            assert added[inside].sum() > 0.9 * added.sum()
    assert sides == {"L", "R"}


def test_every_kind_and_every_density_occurs_and_is_named_in_the_captions(exams):
    for exam in exams:
        for view, image in exam.views.items():
            name = {"CC": "craniocaudal", "MLO": "mediolateral oblique"}[view.projection]
            assert image.caption.startswith(f"{name} mammogram, density ")
            for kind in Kind:
                assert (kind.value in image.caption) == any(b.kind is kind for b in image.boxes)
            assert ("no abnormality" in image.caption) == (not image.boxes)
            suspicious = any(box.kind in SUSPICIOUS for box in image.boxes)
            assert ("suspicious appearance," in image.caption) == suspicious
            assert ("benign appearance, " in image.caption) == (
                bool(image.boxes) and not suspicious
            )
    captions = [image.caption for exam in exams for image in exam.views.values()]
    for word in [*(kind.value for kind in Kind), *(f"density {d}" for d in DENSITIES)]:
        assert any(word in caption for caption in captions), word


def test_the_exam_caption_names_the_malignant_lesion_and_its_side(exams):
    for exam in exams:
        if not exam.malignant:
            assert exam.caption == "mammogram exam, benign or normal"
            continue
        ((kind, side),) = {
            (box.kind.value, "left" if view.laterality == "L" else "right")
            for view, image in exam.views.items()
            for box in image.boxes
            if box.malignant
        }
        assert exam.caption == f"mammogram exam, malignant {kind} in the {side} breast"
