"""Quality: what must not be scored is named by a stable code, and what may be is let through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.dicom.view_codes import IMPLANT_DISPLACED
from mammoclip_sdk.exam import (
    PLAIN,
    VIEWS,
    Acceptance,
    Acquisition,
    BreastRegion,
    Device,
    DisplayAttributes,
    Exam,
    ModelInput,
    Reduction,
    SourceImage,
    StoredImage,
    View,
    ViewGeometry,
    Window,
)
from mammoclip_sdk.predictor import DEMO_BUNDLE, DEMO_EXAM
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.quality import Reason, assess, limits
from mammoclip_sdk.quality.appearance import appearance, likeness, wrapped
from mammoclip_sdk.views import read_exam
from training import vendors
from training.phantom import PhantomSettings, make_exam

REAL_EXAM = Path(__file__).parents[2] / "shared" / "exams" / "real"
GOOD = BreastRegion(share=0.4, far_edge=0.0, spread=0.5, saturated=0.0)
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
TWELVE_BITS = DisplayAttributes(bits_stored=12, signed=False, photometric="MONOCHROME2")
KNOWN = Device(manufacturer="Maker", model="One")
ACCEPTANCE = Acceptance(implants=False, synthetic_2d=False, devices=(KNOWN,))
ORIENTATIONS = {
    View.LCC: ("A", "R"),
    View.RCC: ("P", "L"),
    View.LMLO: ("A", "FR"),
    View.RMLO: ("P", "FL"),
}
SIZE = (192, 96)


def acquisition(view: View, **changed: Any) -> Acquisition:
    plain = Acquisition(
        device=KNOWN,
        patient_orientation=ORIENTATIONS[view],
        pixel_spacing=(0.07, 0.07),
        modifiers=(),
        implant=False,
        synthetic_2d=False,
        burned_in_annotation=False,
        lossy_ratio=1.0,
    )
    return replace(plain, **changed)


def exam(changed: Mapping[View, Mapping[str, Any] | None] = {}) -> Exam:
    """Four plain images, but for what a view's header is said to hold; None: an array."""
    return Exam(
        images={
            view: SourceImage(
                view=view,
                name=str(view),
                acquisition=None
                if (what := changed.get(view, {})) is None
                else acquisition(view, **what),
            )
            for view in VIEWS
        }
    )


def everywhere(**what: Any) -> Exam:
    return exam(dict.fromkeys(VIEWS, what))


def images(**same_as: str) -> dict[View, StoredImage]:
    """Four stored images with pixels of their own, but for those named."""
    return {
        view: StoredImage(
            view=view,
            name=str(view),
            pixels=np.full((20, 16), sum(same_as.get(view, str(view)).encode()), np.uint16),
            display=TWELVE_BITS,
            transfer_syntax="array",
        )
        for view in VIEWS
    }


def breast(seed: int) -> NDArray[np.float32]:
    """A half ellipse of tissue, its texture its own."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[: SIZE[0], : SIZE[1]] / np.array([[[SIZE[0]]], [[SIZE[1]]]])
    inside = across**2 / 0.9**2 + (down - 0.5) ** 2 / 0.45**2 < 1
    texture = rng.normal(size=SIZE)
    for axis in (0, 1):
        texture = sum(np.roll(texture, shift, axis) for shift in range(-2, 3))
    return np.where(inside, 0.5 + 0.02 * texture, 0).astype(np.float32)


def model_input(
    changed: Mapping[View, BreastRegion] = {},
    *,
    turned: tuple[View, ...] = (),
    shown: Mapping[View, NDArray[np.float32]] = {},
) -> ModelInput:
    """An exam as the tensor stage hands it over: good, but for what is named."""
    views = [shown.get(view, breast(number)) for number, view in enumerate(VIEWS)]
    return ModelInput(
        tensors={"views": np.stack(views)[None, :, None]},
        breasts=dict.fromkeys(VIEWS, GOOD) | dict(changed),
        geometry={
            view: ViewGeometry(
                view=view,
                source_shape=SIZE,
                crop=(0, 0, *SIZE),
                mirrored=(view.laterality == "R") != (view in turned),
                placed=(0, 0, *SIZE),
            )
            for view in VIEWS
        },
    )


def judge(
    what: Exam | None = None,
    given: ModelInput | None = None,
    stored: Mapping[View, StoredImage] | None = None,
    acceptance: Acceptance = ACCEPTANCE,
) -> tuple[Reason, ...]:
    return assess(what or exam(), stored or images(), given or model_input(), acceptance)


def brief(reasons: tuple[Reason, ...]) -> list[tuple[str, str, str | None]]:
    return [(reason.code, reason.severity, reason.view) for reason in reasons]


def test_a_good_exam_has_no_reason() -> None:
    assert judge() == ()


# G04


def test_one_image_for_two_views_blocks() -> None:
    found = judge(stored=images(RCC="LCC", LMLO="LCC"))
    assert brief(found) == [("G04", "block", "RCC"), ("G04", "block", "LMLO")]


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture * np.float32(0.7),
        lambda picture: picture ** np.float32(1.3),
        lambda picture: np.roll(picture, 5, axis=0),
        lambda picture: picture[::-1].copy(),
    ],
    ids=["darker", "gamma", "shifted", "upside down"],
)
def test_a_picture_that_is_shown_twice_in_other_values_blocks(change: Any) -> None:
    given = model_input(shown={View.RMLO: change(breast(VIEWS.index(View.LCC)))})
    assert brief(judge(given=given)) == [("G04", "block", "RMLO")]
    pairs = likeness(given.tensors["views"][0, :, 0], given.geometry)
    assert pairs.pop((View.LCC, View.RMLO)) > 0.9
    assert max(pairs.values()) < 0.4


def test_likeness_follows_a_picture_to_where_the_crop_put_it() -> None:
    given = model_input()
    views = given.tensors["views"][0, :, 0]
    views[1] = 0  # the same picture, cropped with 24 rows of air less above it
    views[1, : SIZE[0] - 24] = views[0, 24:]
    geometry = dict(given.geometry)
    crop = (24, 0, SIZE[0] - 24, SIZE[1])
    placed = (0, 0, SIZE[0] - 24, SIZE[1])
    geometry[View.RCC] = replace(geometry[View.RCC], crop=crop, placed=placed)
    assert likeness(views, geometry)[View.LCC, View.RCC] > 0.99


@pytest.mark.parametrize("rows", [SIZE[0] // 2, 3 * SIZE[0]])
def test_an_image_that_was_resampled_as_a_whole_is_still_the_same_image(rows: int) -> None:
    given = model_input(shown={View.RMLO: breast(VIEWS.index(View.LCC))})
    columns = SIZE[1] * rows // SIZE[0]
    other = replace(
        given.geometry[View.RMLO], source_shape=(rows, columns), crop=(0, 0, rows, columns)
    )
    given = replace(given, geometry={**given.geometry, View.RMLO: other})
    assert brief(judge(given=given)) == [("G04", "block", "RMLO")]


# G05


@pytest.mark.parametrize("orientation", [(), ("A",), ("", ""), ("AP", "R"), ("F", "R")])
def test_without_an_orientation_pixels_and_side_decide(orientation: tuple[str, ...]) -> None:
    silent = everywhere(patient_orientation=orientation)
    assert judge(silent) == ()
    found = judge(silent, model_input(turned=(View.RCC, View.LMLO)))
    assert brief(found) == [("G05", "block", "RCC"), ("G05", "block", "LMLO")]
    assert "named a right breast, but its chest wall lies where a left breast's does" in (
        found[0].message
    )


@pytest.mark.parametrize(
    ("view", "orientation", "turned", "severity"),
    [
        (View.LCC, ("A", "R"), False, None),
        (View.LCC, ("A", "R"), True, "block"),  # the pixels were mirrored
        (View.LCC, ("P", "R"), True, "warn"),  # and the header says so
        (View.LCC, ("P", "R"), False, "block"),
        (View.LCC, ("P", "L"), True, "block"),  # a right breast under a left one's name
        (View.LCC, ("A", "L"), False, "block"),
        (View.RCC, ("A", "L"), True, "warn"),
        (View.RCC, ("A", "R"), True, "block"),
        (View.LMLO, ("A", "FR"), False, None),
        (View.LMLO, ("A", "F"), False, None),
        (View.LMLO, ("P", "F"), True, "block"),  # either mirrored, or the other breast
        (View.LMLO, ("A", "HL"), False, "block"),
        (View.LMLO, ("A", "H"), False, "block"),
        (View.RMLO, ("A", "FL"), True, "warn"),
    ],
)
def test_side_pixels_and_orientation_must_agree(
    view: View, orientation: tuple[str, str], turned: bool, severity: str | None
) -> None:
    found = judge(
        exam({view: {"patient_orientation": orientation}}),
        model_input(turned=(view,) if turned else ()),
    )
    assert brief(found) == ([] if severity is None else [("G05", severity, view)])
    assert all("(0020,0020)" in reason.message for reason in found)


def test_a_view_without_content_has_no_side_to_be_wrong() -> None:
    empty = {View.LCC: replace(GOOD, share=0.001), View.RCC: replace(GOOD, saturated=0.2)}
    found = judge(given=model_input(empty, turned=(View.LCC, View.RCC)))
    assert brief(found) == [
        ("G09", "block", "LCC"),
        ("G09", "warn", "RCC"),
        ("G05", "block", "RCC"),
    ]


# G07, G08, G11


def test_accepted_modifiers_warn_and_a_displaced_implant_is_none_of_them() -> None:
    found = judge(
        exam(
            {
                View.LCC: {"modifiers": ("rolled lateral", "partial view")},
                View.RCC: {"modifiers": (IMPLANT_DISPLACED,), "implant": True},
            }
        ),
        acceptance=replace(ACCEPTANCE, implants=True),
    )
    assert brief(found) == [("G07", "warn", "LCC")]
    assert "rolled lateral, partial view" in found[0].message


@pytest.mark.parametrize(("view", "severity"), [(View.LCC, "block"), (View.LMLO, "warn")])
def test_a_compact_white_area_is_an_implant_that_no_header_declares(
    view: View, severity: str
) -> None:
    """In an oblique view alone it may be the pectoral muscle, under a hard window."""
    picture = breast(VIEWS.index(view))
    picture[60:132, 5:60] = 1
    given = model_input({view: replace(GOOD, saturated=0.3)}, shown={view: picture})
    found = judge(given=given)
    assert brief(found) == [("G08", severity, view)]
    assert judge(given=given, acceptance=replace(ACCEPTANCE, implants=True)) == ()


def test_white_that_is_scattered_is_no_implant() -> None:
    picture = breast(0)
    picture[::4, ::4] = np.where(picture[::4, ::4] > 0, 1, 0)
    seen = appearance(picture)
    assert seen is not None
    assert seen.bright_body == 0


@pytest.mark.parametrize("spelled", ["Maker", "MAKER", "mak er"])
def test_a_device_is_known_in_any_spelling(spelled: str) -> None:
    assert judge(everywhere(device=Device(manufacturer=spelled, model="one"))) == ()


def test_a_device_that_the_model_does_not_know_warns_once_and_is_named() -> None:
    other = everywhere(device=Device(manufacturer="Another", model="Two"))
    found = judge(other)
    assert brief(found) == [("G11", "warn", None)]
    assert found[0].message == 'The model was not validated on images of "Another" "Two".'
    assert brief(judge(acceptance=PLAIN)) == [("G11", "warn", None)]


def test_a_device_named_by_a_hostile_header_does_not_write_the_message() -> None:
    hostile = Device(manufacturer='\x1b[2J\u202e\n". All is well', model="M" * 70)
    (found,) = judge(everywhere(device=hostile))
    named = "\\x1b[2J\\u202e\\n'. All is well"
    assert found.message.endswith(f' images of "{named}" "{"M" * 64}".')
    assert found.message.isprintable()


@pytest.mark.parametrize("what", [None, {"device": Device(manufacturer="", model="")}])
def test_images_of_no_named_device_warn_too(what: dict[str, Any] | None) -> None:
    (found,) = judge(exam({View.LCC: what}))
    assert found.code == "G11"
    assert "not named" in found.message


# G09


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
    found = judge(given=model_input({view: replace(GOOD, **measured)}))
    assert brief(found) == ([] if severity is None else [("G09", severity, view)])
    assert all(words in reason.message for reason in found)


def noise() -> NDArray[np.float32]:
    grey = np.random.default_rng(1).uniform(0.1, 1, SIZE)
    return np.where(breast(0) > 0, grey, 0).astype(np.float32)


def slice_of_a_body() -> NDArray[np.float32]:
    down, across = np.mgrid[: SIZE[0], : SIZE[1]] / np.array([[[SIZE[0]]], [[SIZE[1]]]])
    inside = (across - 0.5) ** 2 / 0.4**2 + (down - 0.5) ** 2 / 0.4**2 < 1
    return np.where(inside, 0.3 + 0.4 * down, 0).astype(np.float32)


def limb() -> NDArray[np.float32]:
    picture = np.zeros(SIZE, np.float32)
    picture[60:130, :80] = np.linspace(0.3, 0.8, 80)
    return picture


def pieces() -> NDArray[np.float32]:
    picture = breast(0)
    picture[:, 10:60:10] = picture[:, 11:60:10] = picture[:, 12:60:10] = 0
    return picture


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (noise(), "shows noise"),
        (slice_of_a_body(), "not show what is shaped as a breast: 4"),
        (limb(), "100% of its height is left at the far end"),
        (np.zeros(SIZE, np.float32), "shows nothing"),
    ],
    ids=["noise", "slice", "limb", "nothing"],
)
def test_what_is_no_breast_blocks(picture: NDArray[np.float32], words: str) -> None:
    (found,) = judge(given=model_input(shown={View.LMLO: picture}))
    assert brief((found,)) == [("G09", "block", "LMLO")]
    assert words in found.message


def test_a_breast_in_pieces_warns() -> None:
    (found,) = judge(given=model_input(shown={View.LMLO: pieces()}))
    assert brief((found,)) == [("G09", "warn", "LMLO")]
    assert "a breast in pieces, 5.5 in a row" in found.message


def test_tissue_of_one_brightness_is_no_noise_for_its_rim() -> None:
    """A dense breast shown bright: its texture is weak beside the step from air to its rim."""
    picture = np.where(breast(0) > 0, 0.9 + 0.05 * (breast(0) - 0.5), 0).astype(np.float32)
    rim = (picture > 0) & ((np.roll(picture, 1, 0) == 0) | (np.roll(picture, -1, 0) == 0))
    seen = appearance(np.where(rim, 0.3, picture).astype(np.float32))
    assert seen is not None
    assert seen.grain > 0.7
    assert judge(given=model_input(shown={View.LCC: np.where(rim, 0.3, picture)})) == ()


def leaping(rows: int) -> StoredImage:
    """A stored LCC whose first ``rows`` of 20 rows leap four times, and the others twice."""
    pixels = np.full((20, 16), 1000, np.uint16)
    pixels[:, 3:5] = 4000
    pixels[:rows, 8:10] = 4000
    return replace(images()[View.LCC], pixels=pixels)


@pytest.mark.parametrize(("rows", "blocks"), [(3, False), (4, True)])
def test_rows_that_leap_more_often_than_edges_explain_block(rows: int, blocks: bool) -> None:
    stored = images() | {View.LCC: leaping(rows)}
    assert wrapped(stored[View.LCC]) == rows / 20
    assert brief(judge(stored=stored)) == ([("G09", "block", "LCC")] if blocks else [])


def test_leaps_in_a_reduced_image_warn() -> None:
    reduction = Reduction(levels=1, source_shape=(192, 96), reversible=True)
    stored = images() | {View.LCC: replace(leaping(20), reduction=reduction)}
    assert brief(judge(stored=stored)) == [("G09", "warn", "LCC")]
    limb_of = model_input(shown={View.LCC: limb()})
    assert brief(judge(given=limb_of, stored=stored)) == [("G09", "block", "LCC")]


def test_a_change_of_sign_is_no_leap() -> None:
    ramp = np.tile(900 * np.sin(np.arange(60) / 4), (20, 1)).astype(np.int64)
    signed = replace(TWELVE_BITS, signed=True)
    image = replace(images()[View.LCC], pixels=(ramp & 0xFFF).astype(np.uint16))
    assert wrapped(replace(image, display=signed)) == 0
    assert wrapped(image) == 1


@pytest.mark.parametrize(
    ("what", "warns"),
    [
        ({"burned_in_annotation": True}, True),
        ({"burned_in_annotation": None}, False),
        ({"lossy_ratio": limits.MAX_LOSSY_RATIO}, False),
        ({"lossy_ratio": limits.MAX_LOSSY_RATIO + 0.1}, True),
        ({"lossy_ratio": float("nan")}, True),
        ({"lossy_ratio": None}, False),
    ],
)
def test_annotation_and_much_loss_warn(what: dict[str, Any], warns: bool) -> None:
    found = judge(exam({View.RCC: what}))
    assert brief(found) == ([("G09", "warn", "RCC")] if warns else [])


@pytest.mark.parametrize(
    ("display", "warns"),
    [
        ({"padding": (0, 658)}, False),
        ({"padding": (0, 658), "photometric": "MONOCHROME1"}, True),
        ({"padding": (4095, 4095), "photometric": "MONOCHROME1"}, False),
        ({"padding": (4095, 4095)}, True),
        ({"padding": (-2048, -2048), "signed": True}, False),
        ({"padding": (-2048, -2048), "signed": True, "photometric": "MONOCHROME1"}, True),
    ],
)
def test_padding_that_would_be_white_warns_of_a_wrong_polarity(
    display: dict[str, Any], warns: bool
) -> None:
    stored = images()
    changed = replace(TWELVE_BITS, **display)
    stored[View.RCC] = replace(stored[View.RCC], display=changed)
    assert brief(judge(stored=stored)) == ([("G09", "warn", "RCC")] if warns else [])


def test_padding_that_may_cover_tissue_warns() -> None:
    stored = images()
    padded = replace(TWELVE_BITS, padding=(0, 658))
    stored[View.RCC] = replace(stored[View.RCC], display=padded)
    for shown, warns in ((0.3, False), (0.31, True)):
        given = model_input({View.RCC: replace(GOOD, beside_padding=shown)})
        found = judge(given=given, stored=stored)
        assert brief(found) == ([("G09", "warn", "RCC")] if warns else [])


# G10


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_block(view: View, value: float) -> None:
    given = model_input()
    given.tensors["views"][0, VIEWS.index(view), 0, 7, 3] = value
    assert brief(judge(given=given)) == [("G10", "block", view)]


@pytest.mark.parametrize(
    ("spacing", "blocks"),
    [
        (None, False),
        ((0.03, 0.03), False),
        ((0.2, 0.2), False),
        ((0.0299, 0.0299), True),
        ((0.07, 0.201), True),
        ((0.07, 0.0713), False),
        ((0.07, 0.072), True),
        ((0.0, 0.0), True),
        ((-0.07, 0.07), True),
        ((float("nan"), 0.07), True),
        ((float("inf"), 0.07), True),
    ],
)
def test_pixels_must_have_a_detectors_size(
    spacing: tuple[float, float] | None, blocks: bool
) -> None:
    found = judge(exam({View.LCC: {"pixel_spacing": spacing}}))
    assert brief(found) == ([("G10", "block", "LCC")] if blocks else [])


@pytest.mark.parametrize(
    ("shape", "blocks"), [((18, 20), False), ((17, 20), True), ((64, 16), False), ((65, 16), True)]
)
def test_an_image_must_have_the_shape_of_a_mammogram(shape: tuple[int, int], blocks: bool) -> None:
    stored = images()
    stored[View.RCC] = replace(stored[View.RCC], pixels=np.zeros(shape, np.uint16))
    assert brief(judge(stored=stored)) == ([("G10", "block", "RCC")] if blocks else [])


# Whole exams


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
