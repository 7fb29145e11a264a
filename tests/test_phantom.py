"""Phantom exams: the truth in the manifest is in the pixels, and the traps are what they claim."""

import csv
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.views import read_exam
from training.breast import (
    DENSITIES,
    Detector,
    Parenchyma,
    draw_breasts,
    draw_parenchyma,
    power_law_field,
    render,
)
from training.lead_marker import draw_lead_marker
from training.lesions import SUSPICIOUS, Body, Kind, Lesion, add_shadow
from training.phantom import (
    MANIFEST_COLUMNS,
    Category,
    PhantomSettings,
    make_exam,
    make_exams,
    write_exams,
)

SMALL = PhantomSettings(seed=7, rows=128, columns=104)


@pytest.fixture(scope="module")
def exams():
    return list(make_exams(SMALL, 60))


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
    for exam in malignant:
        marked = {
            view for view, image in exam.views.items() if any(b.malignant for b in image.boxes)
        }
        assert marked in ({View.LCC, View.LMLO}, {View.RCC, View.RMLO})
        assert suspicious_views(exam) == marked


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


def without_lesions(exam):
    """The same exam with every lesion's contrast at zero, and nothing else changed."""
    index = int(exam.name.rsplit("-", 1)[1])
    return make_exam(replace(SMALL, contrast=(0.0, 0.0)), index)


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


@given(spacing=st.floats(0.05, 1.0), row=st.floats(40, 60), column=st.floats(40, 60))
@settings(max_examples=30, deadline=None)
def test_a_calcification_keeps_its_total_brightness_at_every_pixel_size(spacing, row, column):
    body = Body(offset=(0, 0, 0), radius=0.4, amount=1.0, sharp=False)
    lesion = Lesion(
        kind=Kind.MICROCALCIFICATIONS, center=(0, 0, 0), radius=1, contrast=1.0, bodies=(body,)
    )
    image = np.zeros((100, 100), np.float32)
    add_shadow(image, lesion, points=np.array([[row, column]] * 2), spacing=spacing)
    assert image.sum() * spacing**2 == pytest.approx(np.pi * 0.4**2, rel=0.03)


def test_parenchyma_has_a_power_spectrum_of_exponent_three():
    detector = Detector(rows=512, columns=512)
    field = power_law_field(detector, np.random.default_rng(1))
    power = np.abs(np.fft.fft2(field)) ** 2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(512, detector.spacing)] * 2))
    bands = np.geomspace(0.03, 0.8, 12)
    means = [
        power[(frequency >= low) & (frequency < high)].mean()
        for low, high in itertools.pairwise(bands)
    ]
    slope = np.polyfit(np.log(np.sqrt(bands[1:] * bands[:-1])), np.log(means), 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.15)


def test_the_two_breasts_are_alike_but_not_identical():
    fields = draw_parenchyma(Detector(rows=256, columns=208), np.random.default_rng(2))
    for projection in ("CC", "MLO"):
        left, right = (fields[View(side + projection)].glandular.ravel() for side in "LR")
        assert 0.4 < np.corrcoef(left, right)[0, 1] < 0.95
    unrelated = np.corrcoef(
        fields[View.LCC].glandular.ravel(), fields[View.LMLO].glandular.ravel()
    )[0, 1]
    assert abs(unrelated) < 0.4


@pytest.fixture(scope="module")
def smooth():
    """The two views of a left breast without texture, and the breast."""
    detector = Detector(rows=512, columns=416)
    breast = replace(draw_breasts(np.random.default_rng(4))["L"], texture=0.0)
    flat = np.zeros((detector.rows, detector.columns), np.float32)
    parenchyma = Parenchyma(glandular=flat, texture=flat)
    pictures = {
        view: render(breast, view, parenchyma, detector).displayed()
        for view in (View.LCC, View.LMLO)
    }
    return breast, detector, pictures


def test_density_classes_are_ordered_by_brightness():
    rng = np.random.default_rng(3)
    detector = Detector(rows=256, columns=208)
    breast = draw_breasts(rng)["L"]
    parenchyma = draw_parenchyma(detector, rng)[View.LCC]
    means = [
        render(replace(breast, density=density), View.LCC, parenchyma, detector).displayed().mean()
        for density in DENSITIES
    ]
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.01


def test_only_the_mlo_view_shows_the_pectoral_muscle(smooth):
    breast, detector, pictures = smooth
    above = round((breast.middle - 0.8 * breast.half_width) / detector.spacing)
    wall = slice(2, 12)
    assert pictures[View.LMLO][above, wall].mean() - pictures[View.LCC][above, wall].mean() > 0.15
    below = round((breast.middle + 0.5 * breast.half_width) / detector.spacing)
    assert pictures[View.LMLO][below, wall].mean() < pictures[View.LMLO][above, wall].mean() - 0.15


def test_a_skin_line_runs_inside_the_outline(smooth):
    breast, detector, pictures = smooth
    row = round((breast.middle - 0.5 * breast.half_width) / detector.spacing)
    profile = pictures[View.LCC][row]
    outline = int(np.flatnonzero(profile).max())
    rim = profile[outline - 8 : outline + 1]
    peak = int(rim.argmax())
    assert 2 <= peak <= 7, "a line, not the edge itself and not the tissue behind it"
    assert rim[peak] > 1.2 * profile[outline - 12 : outline - 7].min()


def test_the_nipple_stands_out_of_the_outline(smooth):
    breast, detector, pictures = smooth
    tip = int((breast.depth + 3.0) / detector.spacing)
    row = int(breast.middle / detector.spacing)
    for picture in pictures.values():
        assert picture[row, tip] > 0.05
        assert picture[row - 40, tip] == 0


@pytest.mark.parametrize("view", VIEWS)
def test_the_lead_marker_is_away_from_the_chest_wall(view):
    displayed = np.zeros((512, 416), np.float32)
    draw_lead_marker(displayed, view, spacing=0.45)
    columns = np.flatnonzero(displayed.any(axis=0))
    assert (columns.min() > 300) if view.laterality == "L" else (columns.max() < 116)
    assert set(np.unique(displayed)) == {0.0, 1.0}


def test_every_exam_bears_its_own_markers(exams):
    spacing = Detector(rows=SMALL.rows, columns=SMALL.columns).spacing
    for view, image in exams[0].views.items():
        marker = np.zeros_like(image.displayed)
        draw_lead_marker(marker, view, spacing=spacing)
        corner = slice(0, SMALL.columns // 3) if view.laterality == "R" else slice(70, None)
        assert np.array_equal(image.displayed[:14, corner] == 1, marker[:14, corner] == 1)
        assert marker.sum() > 20


def test_written_exams_are_read_back_as_what_the_manifest_says(tmp_path):
    manifest = write_exams(SMALL, 12, tmp_path / "exams")
    with manifest.open(newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames) == MANIFEST_COLUMNS
        rows = list(reader)
    assert len(rows) == 48
    profiles = {row["profile"] for row in rows}
    assert len(profiles) > 4, "a set of exams mixes vendors"
    for name in sorted({row["exam"] for row in rows}):
        mine = {row["view"]: row for row in rows if row["exam"] == name}
        exam = read_exam(tmp_path / "exams" / name)
        assert list(exam.images) == list(VIEWS)
        for view, image in exam.images.items():
            assert image.path == tmp_path / "exams" / mine[view]["file"]
        for row in mine.values():
            for box in json.loads(row["boxes"]):
                assert 0 <= box["top"] < 128
                assert 0 <= box["left"] < 104


def test_writing_over_an_earlier_set_is_refused(tmp_path):
    write_exams(SMALL, 1, tmp_path)
    with pytest.raises(FileExistsError):
        write_exams(SMALL, 1, tmp_path)
