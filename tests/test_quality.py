"""Quality: what must not be scored is named by a stable code, and what may be is let through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.exam import (
    VIEWS,
    BreastRegion,
    DisplayAttributes,
    ModelInput,
    StoredImage,
    View,
    ViewGeometry,
    Window,
)
from mammoclip_sdk.predictor import DEMO_EXAM
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.quality import Reason, assess
from mammoclip_sdk.views import read_exam
from training import vendors
from training.phantom import PhantomSettings, make_exam

REAL_EXAM = Path(__file__).parents[2] / "shared" / "exams" / "real"
GOOD = BreastRegion(share=0.4, far_edge=0.0, spread=0.5, saturated=0.0)
PREPROCESSING = Preprocessing(
    version=1,
    height=64,
    width=32,
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.02,
    background="zero",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)
TWELVE_BITS = DisplayAttributes(bits_stored=12, signed=False, photometric="MONOCHROME2")


def images(**same_as: str) -> dict[View, StoredImage]:
    """Four stored images with hashes of their own, but for those named."""
    return {
        view: StoredImage(
            view=view,
            name=str(view),
            pixels=np.zeros((1, 1), np.uint16),
            display=TWELVE_BITS,
            transfer_syntax="array",
            sha256=same_as.get(view, str(view)),
        )
        for view in VIEWS
    }


def model_input(
    changed: Mapping[View, BreastRegion] = {}, *, turned: tuple[View, ...] = ()
) -> ModelInput:
    """An exam as the tensor stage hands it over: good, but for what is named."""
    return ModelInput(
        tensors={"views": np.zeros((1, 4, 1, 8, 8), np.float32)},
        breasts=dict.fromkeys(VIEWS, GOOD) | dict(changed),
        geometry={
            view: ViewGeometry(
                view=view,
                source_shape=(8, 8),
                crop=(0, 0, 8, 8),
                mirrored=(view.laterality == "R") != (view in turned),
                placed=(0, 0, 8, 8),
            )
            for view in VIEWS
        },
    )


def brief(reasons: tuple[Reason, ...]) -> list[tuple[str, str, str | None]]:
    return [(reason.code, reason.severity, reason.view) for reason in reasons]


def test_one_image_for_two_views_blocks() -> None:
    assert brief(assess(images(), model_input())) == []
    found = assess(images(RCC="LCC", LMLO="LCC"), model_input())
    assert brief(found) == [("G04", "block", "RCC"), ("G04", "block", "LMLO")]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_block(view: View, value: float) -> None:
    given = model_input()
    given.tensors["views"][0, VIEWS.index(view), 0, 7, 3] = value
    assert brief(assess(images(), given)) == [("G10", "block", view)]


@pytest.mark.parametrize(
    ("measured", "severity", "words"),
    [
        ({"share": 0.021}, None, ""),
        ({"share": 0.019}, "block", "no breast: what is bright fills 1.9%"),
        ({"share": 0.94}, None, ""),
        ({"share": 0.96}, "block", "no air: what is bright fills 96.0%"),
        ({"far_edge": 0.49}, None, ""),
        ({"far_edge": 0.51}, "block", "51% of the edge where air should be"),
        ({"saturated": 0.09}, None, ""),
        ({"saturated": 0.11}, "warn", "11% of the breast as white"),
        ({"saturated": 0.51}, "block", "51% of the breast as white"),
        ({"spread": 0.151}, None, ""),
        ({"spread": 0.149}, "warn", "takes 14.9% of the range"),
        ({"spread": 0.101}, "warn", "takes 10.1% of the range"),
        ({"spread": 0.099}, "block", "takes 9.9% of the range"),
        ({"spread": 0.0, "saturated": 1.0}, "block", "100% of the breast as white"),
    ],
)
def test_each_limit_of_content_has_two_sides(
    measured: dict[str, float], severity: str | None, words: str
) -> None:
    view = View.RMLO
    found = assess(images(), model_input({view: replace(GOOD, **measured)}))
    assert brief(found) == ([] if severity is None else [("G09", severity, view)])
    assert all(words in reason.message for reason in found)


def test_a_chest_wall_on_the_other_side_blocks_and_names_both_causes() -> None:
    found = assess(images(), model_input(turned=(View.RCC, View.LMLO)))
    assert brief(found) == [("G05", "block", "RCC"), ("G05", "block", "LMLO")]
    assert "named a right breast, but its chest wall lies where a left breast's does" in (
        found[0].message
    )
    assert "stored mirrored, as Patient Orientation (0020,0020)" in found[0].message


def test_a_view_without_content_has_no_side_to_be_wrong() -> None:
    empty = {View.LCC: replace(GOOD, share=0.001), View.RCC: replace(GOOD, saturated=0.2)}
    found = assess(images(), model_input(empty, turned=(View.LCC, View.RCC)))
    assert brief(found) == [
        ("G09", "block", "LCC"),
        ("G09", "warn", "RCC"),
        ("G05", "block", "RCC"),
    ]


# Whole exams


def judged(stored: Mapping[View, StoredImage]) -> list[tuple[str, str, str | None]]:
    return brief(assess(stored, tensor.build(stored, PREPROCESSING)))


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
    assert judged(swapped) == of_all_views("G05")


@pytest.mark.parametrize(("center", "width"), [(0.122, 0.0), (0.25, 0.02), (4.0, 8.0)])
def test_a_window_that_ruins_the_image_blocks(
    stored: dict[View, StoredImage], center: float, width: float
) -> None:
    """A white silhouette, hardly more than that, and grey that never leaves the dark."""
    (right,) = stored[View.LCC].display.windows
    window = Window(center=center * right.width, width=max(1.0, width * right.width))
    ruined = shown_by(stored, windows=(window,), voi_function="LINEAR")
    assert judged(ruined) == of_all_views("G09")


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
            pixel_spacing=0.4,
            rng=np.random.default_rng(number),
        )
        for view, image in exam.views.items()
    ]
    assert (
        judged({view: pixels.decode(image) for view, image in read_exam(datasets).images.items()})
        == []
    )
