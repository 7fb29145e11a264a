"""What a view shows: no breast, no air, noise, values that wrapped round, wrong padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from judged_exams import GOOD, SIZE, TWELVE_BITS, breast, brief, exam, images, judge, model_input
from numpy.typing import NDArray

from mammoclip_sdk.exam import Reduction, StoredImage, View
from mammoclip_sdk.quality import limits
from mammoclip_sdk.quality.appearance import appearance, wrapped


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


def noise(rows: int = SIZE[0], columns: int = SIZE[1]) -> NDArray[np.float32]:
    grey = np.random.default_rng(1).uniform(0.1, 1, (rows, columns))
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
        (noise(columns=1), "shows noise"),
        (noise(rows=1), "shows noise"),
        (slice_of_a_body(), "not show what is shaped as a breast: 4"),
        (limb(), "100% of its height is left at the far end"),
        (np.zeros(SIZE, np.float32), "shows nothing"),
    ],
    ids=[
        "noise",
        "noise from row to row",
        "noise from column to column",
        "slice",
        "limb",
        "nothing",
    ],
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


def test_of_a_few_hundred_pixels_none_is_called_noise() -> None:
    seen = appearance(noise()[86:106, :20])
    assert seen is not None
    assert seen.grain == 1


def test_the_tip_is_what_is_left_of_the_rows_near_the_far_end() -> None:
    triangle = (np.add.outer(np.arange(80), np.arange(80)) < 80).astype(np.float32)
    seen = appearance(triangle)
    assert seen is not None
    assert seen.tip == 5 / 80  # at 75 of 79 columns


def test_grey_air_is_air_all_the_same() -> None:
    picture = breast(0)
    assert appearance(np.float32(0.2) + np.float32(0.8) * picture).tip == appearance(picture).tip


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
        ({"padding": (2047, 2047), "signed": True}, True),
        ({"padding": (2047, 2047), "signed": True, "photometric": "MONOCHROME1"}, False),
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
