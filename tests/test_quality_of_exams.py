"""Whole exams, decoded and windowed: right ones have no reason, ruined ones have theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from judged_exams import brief, everywhere, exam, images, judge

from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.exam import VIEWS, StoredImage, View, Window
from mammoclip_sdk.predictor import DEMO_BUNDLE, DEMO_EXAM
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.views import read_exam
from training import vendors
from training.phantom import PhantomSettings, make_exam

REAL_EXAM = Path(__file__).parents[2] / "shared" / "exams" / "real"
PREPROCESSING = Preprocessing(
    version=1,
    height=192,
    width=96,
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.02,
    background="zero",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)


def judged(stored: Mapping[View, StoredImage]) -> list[tuple[str, str, str | None]]:
    """Judge by pixels alone: with headers as good ones have them."""
    return brief(judge(exam(), tensor.build(stored, PREPROCESSING), stored))


def of_all_views(code: str) -> list[tuple[str, str, str | None]]:
    return [(code, "block", str(view)) for view in VIEWS]


def shown_by(stored: Mapping[View, StoredImage], **display: object) -> dict[View, StoredImage]:
    return {
        view: replace(image, display=replace(image.display, **display))
        for view, image in stored.items()
    }


@pytest.fixture(scope="module", params=[DEMO_EXAM, REAL_EXAM], ids=["demo", "real"])
def stored(request: pytest.FixtureRequest) -> dict[View, StoredImage]:
    if not request.param.is_dir():
        pytest.skip("no such exam beside the repository")
    return {view: pixels.decode(image) for view, image in read_exam(request.param).images.items()}


def test_right_exams_have_no_reason(stored: dict[View, StoredImage]) -> None:
    assert judged(stored) == []


def test_inverted_polarity_blocks_though_a_marker_lies_in_the_air(
    stored: dict[View, StoredImage],
) -> None:
    assert judged(shown_by(stored, photometric="MONOCHROME1")) == of_all_views("G09")


def test_sides_that_were_swapped_block(stored: dict[View, StoredImage]) -> None:
    other = {"L": "R", "R": "L"}
    swapped = {
        view: replace(stored[View(other[view.laterality] + view.projection)], view=view)
        for view in VIEWS
    }
    found = judge(everywhere(patient_orientation=()), tensor.build(swapped, PREPROCESSING), swapped)
    assert brief(found) == of_all_views("G05")


@pytest.mark.parametrize(("center", "width"), [(0.122, 0.0), (0.25, 0.02), (4.0, 8.0)])
def test_a_window_that_ruins_the_image_blocks(
    stored: dict[View, StoredImage], center: float, width: float
) -> None:
    """A white silhouette, hardly more than that, and grey that never leaves the dark."""
    (right,) = stored[View.LCC].display.windows
    window = Window(center=center * right.width, width=max(1.0, width * right.width))
    ruined = shown_by(stored, windows=(window,), voi_function="LINEAR")
    assert judged(ruined) == of_all_views("G09")


@pytest.mark.parametrize(("center", "width"), [(0.3, 0.35), (1.2, 2.4)])
def test_a_window_that_hides_fat_does_not_block(
    stored: dict[View, StoredImage], center: float, width: float
) -> None:
    """Devices differ that much in what they show fat as; all of it may be black."""
    (right,) = stored[View.LCC].display.windows
    window = Window(center=center * right.width, width=width * right.width)
    found = judged(shown_by(stored, windows=(window,), voi_function="LINEAR"))
    assert {(code, severity) for code, severity, _ in found} <= {("G09", "warn")}


def test_images_whose_upper_bits_were_cut_off_block(stored: dict[View, StoredImage]) -> None:
    cut = {
        view: replace(image, pixels=image.pixels & (2 ** (image.display.bits_stored - 2) - 1))
        for view, image in stored.items()
    }
    assert judged(cut) == of_all_views("G09")


def test_air_with_nothing_but_a_lead_marker_blocks() -> None:
    markers = images()
    for number, view in enumerate(VIEWS):
        air = np.zeros((2600, 2000), np.uint16)
        air[100 + number : 160 + number, 1700:1840] = 3000
        markers[view] = replace(markers[view], pixels=air)
    assert judged(markers) == of_all_views("G09")


@pytest.mark.parametrize("profile", vendors.PROFILES, ids=lambda profile: profile.name)
def test_phantoms_in_the_style_of_every_vendor_have_no_reason(
    profile: vendors.VendorProfile,
) -> None:
    number = vendors.PROFILES.index(profile)
    exam = make_exam(PhantomSettings(seed=4242), number)
    datasets = [
        vendors.to_dataset(
            image.displayed,
            view=view,
            profile=profile,
            identity=vendors.ExamIdentity.derive(1, number),
            pixel_spacing=0.1,
            rng=np.random.default_rng(number),
        )
        for view, image in exam.views.items()
    ]
    read = read_exam(datasets)
    stored = {view: pixels.decode(image) for view, image in read.images.items()}
    acceptance = read_bundle(DEMO_BUNDLE).manifest.acceptance
    assert judge(read, tensor.build(stored, PREPROCESSING), stored, acceptance) == ()
