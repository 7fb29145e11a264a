"""Views keep their side, their place and their errors' names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_images import PREPROCESSING, TWELVE_BITS, breast, stored

from mammoclip_sdk import tensor
from mammoclip_sdk.errors import (
    BundleFormatError,
    BundleVersionError,
    MissingViewError,
    PixelError,
)
from mammoclip_sdk.exam import (
    VIEWS,
    DisplayAttributes,
    View,
    Window,
)
from mammoclip_sdk.tensor import displayed
from mammoclip_sdk.tensor.grey_values import grey_scale


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(60, 420),
    columns=st.integers(60, 420),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    bits=st.integers(5, 16),
    chest_wall=st.sampled_from(["left", "right"]),
    geometry=st.sampled_from(["letterbox", "stretch"]),
    background=st.sampled_from(["keep", "zero"]),
    margin=st.sampled_from([0.0, 0.03, 0.4]),
    height=st.integers(8, 300),
    width=st.integers(8, 300),
)
def test_views_agree_with_the_specification(
    rows, columns, dtype, bits, chest_wall, geometry, background, margin, height, width
):
    bits = min(bits, 8 * np.dtype(dtype).itemsize)
    grey = breast(rows, columns, chest_wall=chest_wall) / 2000
    pixels = np.minimum(grey * 2**bits, 2**bits - 1).astype(dtype)
    attributes = replace(TWELVE_BITS, bits_stored=bits)
    preprocessing = replace(
        PREPROCESSING,
        height=height,
        width=width,
        geometry=geometry,
        background=background,
        crop_margin=margin,
    )
    view, found, _ = tensor.build_view(stored(pixels, display=attributes), preprocessing)

    shown = pixels / (2**bits - 1)
    expected = oracle.find_breast(shown, 0.05)
    top, left, tall, wide = expected.box
    extra = round(margin * max(tall, wide))
    first = max(0, top - extra), max(0, left - extra)
    last = min(rows, top + tall + extra), min(columns, left + wide + extra)
    crop = (*first, last[0] - first[0], last[1] - first[1])
    shape = (height, width)
    placed = (0, 0, *shape) if geometry == "stretch" else oracle.letterbox(crop, shape)
    assert (found.crop, found.placed) == (crop, placed)
    assert found.mirrored == expected.chest_wall_right == (chest_wall == "right")
    assert found.source_shape == (rows, columns)
    masked = {"mask": expected.mask, "block_side": expected.block_side}
    reference = oracle.resample(
        shown,
        crop=crop,
        placed=placed,
        shape=shape,
        mirrored=found.mirrored,
        **(masked if background == "zero" else {}),
    )
    np.testing.assert_allclose(view, reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("chest_wall", ["left", "right"])
@pytest.mark.parametrize("geometry", ["letterbox", "stretch"])
@pytest.mark.parametrize("point", [(150, 40), (210, 100), (297, 133)])
def test_a_bright_dot_is_found_again_where_it_was(chest_wall, geometry, point):
    row, column = point
    if chest_wall == "right":
        column = 299 - column
    pixels = breast(chest_wall=chest_wall, level=600)
    pixels[row, column] = 4095
    preprocessing = replace(PREPROCESSING, height=1000, width=700, geometry=geometry)
    view, geometry_, _ = tensor.build_view(stored(pixels), preprocessing)
    bright = np.argwhere(view > 0.9) + 0.5
    assert len(bright) > 0
    found = geometry_.to_source(*bright.mean(0))
    assert found == pytest.approx((row + 0.5, column + 0.5), abs=0.5)
    assert geometry_.to_input(*found) == pytest.approx(tuple(bright.mean(0)), abs=1e-9)


def test_both_sides_come_out_with_the_chest_wall_at_the_left():
    left, left_geometry, _ = tensor.build_view(stored(breast()), PREPROCESSING)
    right, right_geometry, _ = tensor.build_view(stored(breast(chest_wall="right")), PREPROCESSING)
    np.testing.assert_allclose(left, right, atol=1e-6)
    assert (left_geometry.mirrored, right_geometry.mirrored) == (False, True)
    assert left[:, :10].mean() > 2 * left[:, -10:].mean()


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("padding", [None, (0, 0), (4095, 4095)])
def test_a_sigmoid_window_that_shows_air_as_grey_finds_the_same_breast(photometric, padding):
    air, flip = (5, 0) if photometric == "MONOCHROME2" else (4090, 4095)
    pixels = breast()
    pixels = np.where(pixels == 0, air, np.abs(flip - pixels.astype(np.int64))).astype(np.uint16)
    linear = replace(TWELVE_BITS, photometric=photometric, padding=padding)
    window = Window(center=abs(flip - 1500.0), width=3000.0)
    sigmoid = replace(linear, windows=(window,), voi_function="SIGMOID")
    _, expected, _ = tensor.build_view(stored(pixels, display=linear), PREPROCESSING)
    view, found, _ = tensor.build_view(stored(pixels, display=sigmoid), PREPROCESSING)
    assert found == expected
    shown_air = 1 / (1 + np.exp(4 * 1495 / 3000))
    assert view[found.placed[0], found.placed[3] - 1] == pytest.approx(shown_air, abs=1e-4)


def test_background_zero_removes_the_marker_and_keeps_the_skin_line():
    pixels = breast()
    pixels[85:95, 200:220] = 4000
    zero = replace(PREPROCESSING, background="zero", crop_margin=0.3, height=400, width=300)
    kept, _, _ = tensor.build_view(stored(pixels), replace(zero, background="keep"))
    cut, geometry, _ = tensor.build_view(stored(pixels), zero)
    marker = np.s_[tuple(slice(int(p), int(p) + 3) for p in geometry.to_input(88, 208))]
    assert kept[marker].min() > 0.9
    assert cut[marker].max() == 0.0
    clean, _, _ = tensor.build_view(stored(breast()), zero)
    np.testing.assert_array_equal(cut, clean)
    whole, _, _ = tensor.build_view(stored(breast()), replace(zero, background="keep"))
    np.testing.assert_array_equal(clean, whole)


@pytest.mark.parametrize("chest_wall", ["left", "right"])
def test_the_region_is_measured_in_the_whole_image(chest_wall):
    pixels = breast(600, 450, chest_wall=chest_wall)  # blocks of two pixels
    pixels[:300] = np.where(pixels[:300] > 0, 4095, 0)
    _, _, region = tensor.build_view(stored(pixels), PREPROCESSING)
    assert region.share == pytest.approx(np.mean(pixels > 0), abs=0.005)
    assert region.saturated == pytest.approx(0.5, abs=0.01)
    lower = pixels[300:][pixels[300:] > 0]
    expected = 1 - np.percentile(lower, 10) / 4095  # half of the tissue is the lower half
    assert region.spread == pytest.approx(expected, abs=0.01)
    assert region.far_edge == 0.0


@pytest.mark.parametrize(
    ("padding", "photometric", "signed", "expected"),
    [
        (None, "MONOCHROME2", False, 0.0),
        ((0, 90), "MONOCHROME2", False, 91 / 255),
        ((90, 0), "MONOCHROME2", False, 91 / 255),
        ((128, 128), "MONOCHROME2", False, 129 / 255),
        ((0, 0), "MONOCHROME1", False, 254 / 255),
        ((0, 255), "MONOCHROME2", False, 0.0),
        ((255, 255), "MONOCHROME1", False, 1 / 255),
        ((-128, -100), "MONOCHROME2", True, 29 / 255),
    ],
)
def test_how_bright_values_next_to_padding_are_shown(padding, photometric, signed, expected):
    attributes = DisplayAttributes(
        bits_stored=8, signed=signed, photometric=photometric, padding=padding
    )
    scale = grey_scale(attributes, PREPROCESSING, container_bits=16)
    assert displayed.beside_padding(scale, attributes) == pytest.approx(expected, abs=1e-6)


def test_a_view_says_how_bright_values_next_to_its_padding_are():
    pixels = np.where(breast() > 0, 200, 0).astype(np.uint8)
    attributes = DisplayAttributes(
        bits_stored=8, signed=False, photometric="MONOCHROME2", padding=(0, 90)
    )
    _, _, region = tensor.build_view(stored(pixels, display=attributes), PREPROCESSING)
    assert region.beside_padding == pytest.approx(91 / 255, abs=1e-6)
    _, _, region = tensor.build_view(stored(breast()), PREPROCESSING)
    assert region.beside_padding == 0.0


@pytest.mark.parametrize("chest_wall", ["left", "right"])
def test_the_far_edge_is_the_one_without_the_chest_wall(chest_wall):
    pixels = breast(200, 150, chest_wall=chest_wall)
    far = np.s_[:, 75:] if chest_wall == "left" else np.s_[:, :75]
    pixels[far][90:110] = 1500  # a bridge of 20 rows, and one block of neighbours each side
    _, geometry, region = tensor.build_view(stored(pixels), PREPROCESSING)
    assert geometry.mirrored == (chest_wall == "right")
    assert region.far_edge == pytest.approx(22 / 200)


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (259, 511), (385, 3)])
def test_images_of_any_shape_can_be_measured(shape):
    _, _, region = tensor.build_view(stored(np.full(shape, 3000, np.uint16)), PREPROCESSING)
    assert (region.share, region.far_edge, region.spread) == (1.0, 1.0, 0.0)


def test_an_exam_comes_in_the_order_of_views_whatever_the_order_of_the_mapping():
    sides = {"L": "left", "R": "right"}
    images = {
        view: stored(breast(300 + 20 * i, 250, chest_wall=sides[view.laterality]), view)
        for i, view in enumerate(VIEWS)
    }
    shuffled = {view: images[view] for view in reversed(VIEWS)}
    built = tensor.build(shuffled, PREPROCESSING)
    views = built.tensors["views"]
    assert views.shape == (1, 4, 1, 96, 64)
    assert views.dtype == np.float32
    assert views.flags.c_contiguous
    assert list(built.geometry) == list(VIEWS)
    for i, view in enumerate(VIEWS):
        alone, geometry, region = tensor.build_view(images[view], PREPROCESSING)
        np.testing.assert_array_equal(views[0, i, 0], alone)
        assert built.geometry[view] == geometry
        assert built.breasts[view] == region


def test_display_shows_the_whole_image_as_it_lies():
    pixels = breast(chest_wall="right")
    shown = tensor.display(stored(pixels), PREPROCESSING, height=100)
    assert (shown.shape, shown.dtype) == ((100, 75), np.uint8)
    expected = (pixels / 4095).reshape(100, 4, 75, 4).mean((1, 3)) * 255
    np.testing.assert_allclose(shown, expected, atol=0.51)


def test_nothing_to_crop_to_is_an_error_that_names_image_and_view():
    found = "nothing brighter"
    image = stored(np.zeros((300, 200), np.uint16), View.RMLO)
    with pytest.raises(PixelError, match=found) as caught:
        tensor.build_view(image, PREPROCESSING)
    assert caught.value.code == "no_breast"
    assert "RMLO" in caught.value.subject
    assert "IM0001.dcm" in caught.value.subject
    images = {view: stored(breast(), view) for view in VIEWS} | {View.RMLO: image}
    with pytest.raises(PixelError, match=found):
        tensor.build(images, PREPROCESSING)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("voi", "auto"),
        ("geometry", "pad"),
        ("background", "blur"),
        ("resampling", "bilinear"),
        ("height", 0),
        ("width", 10**9),
        ("segmentation_threshold", float("nan")),
        ("crop_margin", -0.1),
        ("percentiles", (1.0, 99.0)),
        ("jpeg2000_reduction", 6),
        ("jpeg2000_reduction", -1),
    ],
)
def test_unknown_preprocessing_is_refused_by_its_key(key, value):
    with pytest.raises(BundleFormatError) as caught:
        tensor.build_view(stored(breast()), replace(PREPROCESSING, **{key: value}))
    assert caught.value.found.startswith(f"preprocessing.{key}: ")
    assert ";" not in caught.value.found


@pytest.mark.parametrize("version", [0, 2])
def test_another_preprocessing_version_is_refused(version):
    with pytest.raises(BundleVersionError, match=f"found version {version}"):
        tensor.build_view(stored(breast()), replace(PREPROCESSING, version=version))


def test_a_native_core_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(displayed, "NATIVE_VERSION", 2)
    with pytest.raises(BundleVersionError, match="native core"):
        tensor.build_view(stored(breast()), PREPROCESSING)


@pytest.mark.parametrize(
    "pixels",
    [
        breast().astype(np.int16),
        breast()[None],
        breast()[:0],
        breast().T,
        breast().astype(">u2"),
    ],
)
def test_pixels_of_another_kind_are_refused(pixels):
    image = replace(stored(breast()), pixels=pixels)
    with pytest.raises(PixelError, match="C-contiguous uint8 or uint16"):
        tensor.build_view(image, PREPROCESSING)


def test_an_absent_view_is_never_filled_in():
    images = {view: stored(breast(), view) for view in VIEWS[:3]}
    with pytest.raises(MissingViewError, match="RMLO"):
        tensor.build(images, PREPROCESSING)


def test_an_image_in_the_place_of_another_view_is_refused():
    images = {view: stored(breast(), view) for view in VIEWS}
    images[View.LCC] = images[View.RCC]
    with pytest.raises(PixelError, match="found an image of RCC; expected an image of LCC"):
        tensor.build(images, PREPROCESSING)


@pytest.mark.parametrize("height", [0, 10**6])
def test_display_refuses_pictures_of_impossible_size(height):
    with pytest.raises(PixelError, match="picture size"):
        tensor.display(stored(breast()), PREPROCESSING, height=height)
