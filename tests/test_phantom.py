"""Phantom exams: the truth in the manifest is in the pixels, and the traps are what they claim."""

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.views import read_exam
from training.breast import (
    DENSITIES,
    Detector,
    draw_breasts,
    draw_parenchyma,
    power_law_field,
    render,
)
from training.lead_marker import draw_lead_marker
from training.lesions import SUSPICIOUS, Body, Kind, Lesion, add_shadow, make_lesion
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


def test_a_lesion_lies_at_the_same_depth_behind_the_nipple_in_both_views(exams):
    for exam in (exam for exam in exams if exam.malignant):
        columns = [
            box.left + box.width / 2
            for image in exam.views.values()
            for box in image.boxes
            if box.malignant
        ]
        assert columns[0] == pytest.approx(columns[1], abs=1.5)


def test_a_box_holds_the_brightness_its_lesion_adds():
    rng = np.random.default_rng(0)
    lesion = make_lesion(Kind.SPICULATED_MASS, center=(0, 0, 0), contrast=0.3, rng=rng)
    image = np.zeros((200, 200), np.float32)
    offsets = np.array([(0, 0, 0), *(body.offset for body in lesion.bodies)])
    top, left, height, width = add_shadow(
        image, lesion, points=100 + offsets[:, :2] / 0.4, spacing=0.4
    )
    inside = image[top : top + height, left : left + width].sum()
    assert inside / image.sum() > 0.97
    assert 0.3 < image.max() <= 0.3 * 2.5


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


def test_density_classes_are_ordered_by_brightness():
    from dataclasses import replace

    rng = np.random.default_rng(3)
    detector = Detector(rows=256, columns=208)
    breast = draw_breasts(rng)["L"]
    parenchyma = draw_parenchyma(detector, rng)[View.LCC]
    means = [
        render(replace(breast, density=density), View.LCC, parenchyma, detector)[0].mean()
        for density in DENSITIES
    ]
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.03


def test_only_the_mlo_view_shows_the_pectoral_muscle():
    detector = Detector(rows=256, columns=208)
    breasts = draw_breasts(np.random.default_rng(4))
    parenchyma = draw_parenchyma(detector, np.random.default_rng(4))
    corner = (slice(20, 60), slice(0, 10))
    cc, mlo = (
        render(breasts["L"], view, parenchyma[View.LCC], detector)[0][corner].mean()
        for view in (View.LCC, View.LMLO)
    )
    assert mlo - cc > 0.15


@pytest.mark.parametrize("view", VIEWS)
def test_the_lead_marker_is_away_from_the_chest_wall(view):
    displayed = np.zeros((512, 416), np.float32)
    draw_lead_marker(displayed, view, spacing=0.45)
    columns = np.flatnonzero(displayed.any(axis=0))
    assert (columns.min() > 300) if view.laterality == "L" else (columns.max() < 116)
    assert set(np.unique(displayed)) == {0.0, 1.0}


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
