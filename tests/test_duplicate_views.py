"""One picture given for two views is found, however it was stored, windowed or turned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from judged_exams import SIZE, breast, brief, images, judge, model_input

from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.quality.appearance import likeness


def test_one_image_for_two_views_blocks() -> None:
    given = model_input(shown={View.RCC: breast(VIEWS.index(View.LCC))})
    found = judge(given=given, stored=images(RCC="LCC", LMLO="LCC"))
    assert brief(found) == [("G04", "block", "RCC"), ("G04", "block", "LMLO")]
    assert found[0].message == "RCC has the same pixels as LCC: one image was given twice."


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture * np.float32(0.7),
        lambda picture: picture ** np.float32(1.3),
        lambda picture: np.roll(picture, 5, axis=0),
        lambda picture: np.roll(picture, -5, axis=0),
        lambda picture: picture[::-1].copy(),
    ],
    ids=["darker", "gamma", "shifted down", "shifted up", "upside down"],
)
def test_a_picture_that_is_shown_twice_in_other_values_blocks(change: Any) -> None:
    given = model_input(shown={View.RMLO: change(breast(VIEWS.index(View.LCC)))})
    assert brief(judge(given=given)) == [("G04", "block", "RMLO")]
    pairs = likeness(given.tensors["views"][0, :, 0], given.geometry)
    assert pairs.pop((View.LCC, View.RMLO)) > 0.9
    assert max(pairs.values()) < 0.4


@pytest.mark.parametrize("stretch", [1, 2])
@pytest.mark.parametrize(("above", "before", "beyond"), [(24, 0, 0), (0, 12, 0), (0, 0, 12)])
def test_likeness_follows_a_picture_to_where_the_crop_put_it(
    above: int, before: int, beyond: int, stretch: int
) -> None:
    """The same picture, with less above it, at its chest wall, or beyond the nipple."""
    given = model_input()
    views = given.tensors["views"][0, :, 0]
    rows, columns = SIZE[0] - above, SIZE[1] - before - beyond
    views[1] = 0
    views[1, :rows, :columns] = views[0, above:, before : before + columns]
    whole = SIZE[0], stretch * SIZE[1]
    geometry = {
        view: replace(one, source_shape=whole, crop=(0, 0, *whole))
        for view, one in given.geometry.items()
    }
    assert geometry[View.RCC].mirrored  # so that its chest wall is at the right of its source
    geometry[View.RCC] = replace(
        geometry[View.RCC],
        crop=(above, stretch * beyond, rows, stretch * columns),
        placed=(0, 0, rows, columns),
    )
    assert likeness(views, geometry)[View.LCC, View.RCC] > 0.99


def test_views_of_too_few_pixels_are_not_compared() -> None:
    """Two views of a model input of 64 x 32 may agree by chance."""
    given = model_input()
    small = given.tensors["views"][0, [0, 0, 0, 0], 0, ::3, ::3]
    geometry = {
        view: replace(one, placed=(0, 0, *small.shape[1:])) for view, one in given.geometry.items()
    }
    assert set(likeness(small, geometry).values()) == {0}


@pytest.mark.parametrize("rows", [SIZE[0] // 2, 3 * SIZE[0]])
def test_an_image_that_was_resampled_as_a_whole_is_still_the_same_image(rows: int) -> None:
    given = model_input(shown={View.RMLO: breast(VIEWS.index(View.LCC))})
    columns = SIZE[1] * rows // SIZE[0]
    other = replace(
        given.geometry[View.RMLO], source_shape=(rows, columns), crop=(0, 0, rows, columns)
    )
    given = replace(given, geometry={**given.geometry, View.RMLO: other})
    assert brief(judge(given=given)) == [("G04", "block", "RMLO")]
