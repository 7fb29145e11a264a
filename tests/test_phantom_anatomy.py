"""Phantom pictures: parenchyma, density, muscle, skin, nipple and markers are where they belong."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from phantoms import SMALL, sixty_exams, without_lesions

from mammoclip_sdk.exam import VIEWS, View
from training import phantom
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
from training.phantom import make_exam


@pytest.fixture(scope="module")
def exams():
    return sixty_exams()


def test_the_detector_adds_noise_to_tissue_and_none_to_air(monkeypatch):
    flat = np.zeros((SMALL.rows, SMALL.columns), np.float32)
    smooth = dict.fromkeys(VIEWS, Parenchyma(glandular=flat, texture=flat))
    monkeypatch.setattr(phantom, "draw_parenchyma", lambda detector, rng: smooth)
    displayed = make_exam(replace(SMALL, contrast=(0.0, 0.0)), 2).views[View.LCC].displayed
    tissue = displayed[55:85, 8:32]
    rough = tissue[:, 2:] - 2 * tissue[:, 1:-1] + tissue[:, :-2]
    assert rough.std() == pytest.approx(6**0.5 * 0.012, rel=0.15)
    assert not displayed[-6:].any()


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


def test_parenchyma_is_in_every_exam_in_the_strength_its_breast_has(exams):
    for exam in exams[:12]:  # well inside the breast; the detector's noise alone is 0.012
        for view, image in without_lesions(exam).views.items():
            inside = slice(12, 32) if view.laterality == "L" else slice(-32, -12)
            assert image.displayed[60:84, inside].std() > 0.04
    rng, detector = np.random.default_rng(6), Detector(rows=128, columns=104)
    parenchyma = draw_parenchyma(detector, rng)[View.LCC]
    strengths = []
    for _ in range(20):
        breast = draw_breasts(rng)["L"]
        smooth = replace(breast, density="D", texture=0.0)
        rough = replace(smooth, texture=breast.texture)
        pictures = [render(b, View.LCC, parenchyma, detector).tissue for b in (rough, smooth)]
        added = (pictures[0] - pictures[1])[60:84, 12:32]
        expected = breast.texture * parenchyma.texture[60:84, 12:32]
        unclipped = pictures[0][60:84, 12:32] > 0.121
        assert added[unclipped] == pytest.approx(expected[unclipped], abs=1e-5)
        strengths.append(breast.texture)
    assert 0.06 <= min(strengths) < 0.08 < 0.1 < max(strengths) <= 0.12


def test_the_two_breasts_are_alike_but_not_identical():
    fields = draw_parenchyma(Detector(rows=256, columns=208), np.random.default_rng(2))
    for projection in ("CC", "MLO"):
        left, right = (fields[View(side + projection)].glandular.ravel() for side in "LR")
        assert 0.4 < np.corrcoef(left, right)[0, 1] < 0.95
    unrelated = np.corrcoef(
        fields[View.LCC].glandular.ravel(), fields[View.LMLO].glandular.ravel()
    )[0, 1]
    assert abs(unrelated) < 0.4
    breasts = draw_breasts(np.random.default_rng(2))
    for length in ("depth", "half_width", "middle"):
        left, right = (getattr(breasts[side], length) for side in "LR")
        assert 0.001 < abs(left / right - 1) < 0.09
    assert breasts["L"].density == breasts["R"].density


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
