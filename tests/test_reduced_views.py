"""Reduced images give nearly the views of the full ones, or are decoded again."""

from __future__ import annotations

import functools
import threading
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from scipy import ndimage
from stored_images import PREPROCESSING, TWELVE_BITS, breast, stored

from mammoclip_sdk import processor, tensor
from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.exam import (
    VIEWS,
    Exam,
    Reduction,
    SourceImage,
    StoredImage,
    View,
)
from mammoclip_sdk.pixels.codestream import without_finest


@functools.cache
def soft_breast(rows=2048, columns=1536, *, chest_wall="left", bits=12, seed=4):
    """A breast that fades into air as a real one does, with noise and coarse texture."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:rows, :columns] + 0.5
    radius = np.hypot((row - rows / 2) / (0.4 * rows), column / (0.6 * columns))
    depth = np.clip((1 - radius) / 0.5, 0, 1) ** 1.5
    coarse = ndimage.gaussian_filter(rng.normal(0, 1, (rows, columns)), 20)
    texture = 0.1 * coarse / coarse.std() + rng.normal(0, 0.02, coarse.shape)
    shown = np.clip(depth * (0.55 + texture), 0, 1)
    pixels = np.rint(shown * (2**bits - 1)).astype(np.uint16)
    return np.ascontiguousarray(pixels if chest_wall == "left" else pixels[:, ::-1])


def decoded(pixels, levels, *, reversible=True, display=TWELVE_BITS) -> StoredImage:
    """Encode as JPEG 2000 and decode without the finest levels."""
    if levels == 0:
        return stored(pixels, display=display)
    frame = imagecodecs.jpeg2k_encode(
        pixels, level=None if reversible else 90, reversible=reversible, codecformat="J2K"
    )
    samples = imagecodecs.jpeg2k_decode(without_finest(frame, levels))
    reduction = Reduction(levels=levels, source_shape=pixels.shape, reversible=reversible)
    return replace(stored(samples, display=display), reduction=reduction)


def relative_difference(view, full) -> float:
    inside = full > PREPROCESSING.segmentation_threshold
    return float(np.sqrt(np.mean((view - full)[inside] ** 2)) / full[inside].std())


@pytest.mark.parametrize("chest_wall", ["left", "right"])
@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize(("levels", "height"), [(1, 230), (2, 115), (3, 55)])
def test_a_reduced_image_gives_the_crop_the_side_and_nearly_the_view_of_the_full_one(
    chest_wall, reversible, levels, height
):
    pixels = soft_breast(chest_wall=chest_wall)
    keys = replace(PREPROCESSING, height=height, width=height, background="zero")
    full, geometry, region = tensor.build_view(stored(pixels), keys)
    image = decoded(pixels, levels, reversible=reversible)
    view, found, measured = tensor.build_view(image, keys)
    assert found == geometry
    assert found.source_shape == pixels.shape
    assert relative_difference(view, full) < 0.01
    assert measured.share == pytest.approx(region.share, abs=0.01)
    assert measured.far_edge == region.far_edge
    assert measured.spread == pytest.approx(region.spread, abs=0.05)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1201, 903), (1198, 897)])
def test_a_blurred_dot_in_a_reduced_image_is_found_where_it_was(levels, shape):
    row, column = np.mgrid[: shape[0], : shape[1]]
    dot = np.exp(-((row - 700) ** 2 + (column - 201) ** 2) / 2 / 12**2)
    pixels = np.rint(600 + 2500 * dot).astype(np.uint16)
    keys = replace(PREPROCESSING, height=500, width=400, geometry="stretch")
    view, geometry, _ = tensor.build_view(decoded(pixels, levels), keys)
    weights = np.clip(view - 0.4, 0, None)
    grid = np.mgrid[:500, :400] + 0.5
    center = [float((weights * places).sum() / weights.sum()) for places in grid]
    assert geometry.to_source(*center) == pytest.approx((700.5, 201.5), abs=0.1)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("signed", [False, True])
def test_what_rounding_adds_to_few_bits_is_taken_away_again(levels, signed):
    noise = np.random.default_rng(5).integers(60, 180, (512, 512)).astype(np.uint16)
    display = replace(TWELVE_BITS, bits_stored=8, signed=signed)
    full = decoded(noise, levels)
    if signed:  # the same numbers, 128 lower, as their two's complement
        full = replace(full, pixels=np.ascontiguousarray((full.pixels ^ 128) & 255))
    view, _, _ = tensor.build_view(replace(full, display=display), PREPROCESSING)
    assert view[view > 0].mean() * 255 == pytest.approx(noise.mean(), abs=0.15)


class Decoder:
    """Stands for `pixels.decode`, and remembers what it was asked for."""

    def __init__(self, pixels, display=TWELVE_BITS) -> None:
        self.pixels, self.display, self.asked = pixels, display, []

    def __call__(self, image, *, levels):
        self.asked.append(levels)
        return decoded(self.pixels, levels, display=self.display)


@pytest.mark.parametrize(
    ("height", "most", "asked"),
    [
        (100, 0, [0]),
        (100, 2, [2]),
        (100, 5, [5, 2]),
        (210, 2, [2, 1]),
        (700, 3, [3, 0]),
    ],
)
def test_an_image_is_decoded_with_as_many_levels_as_its_breast_needs(height, most, asked):
    decoder = Decoder(soft_breast())
    keys = replace(PREPROCESSING, height=height, width=height, jpeg2000_reduction=most)
    source = SourceImage(view=View.LCC, name="IM0001.dcm")
    image, (view, geometry, _) = tensor.decode_and_build_view(source, keys, decoder)
    assert decoder.asked == asked
    assert (image.reduction.levels if image.reduction else 0) == asked[-1]
    assert geometry.crop[2] / geometry.placed[2] / 2 ** asked[-1] >= 3.5 or asked[-1] == 0
    np.testing.assert_array_equal(view, tensor.build_view(image, keys)[0])


def test_an_edge_too_sharp_to_tell_the_crop_is_looked_at_in_full():
    row, column = np.mgrid[:1200, :900]
    level = np.where((row > 296) & (row < 902) & (column < 502), 330, 0)  # inside a block
    decoder = Decoder(level.astype(np.uint16))
    keys = replace(PREPROCESSING, height=40, width=40, jpeg2000_reduction=2)
    tensor.decode_and_build_view(SourceImage(view=View.LCC, name=""), keys, decoder)
    assert decoder.asked == [2, 1, 0]


@pytest.mark.parametrize(("bridge", "asked"), [(150, [2]), (245, [2, 1]), (350, [2])])
def test_tissue_that_may_or_may_not_touch_the_breast_is_looked_at_in_full(bridge, asked):
    row, column = np.mgrid[:2048, :1536] + 0.5
    gap = np.abs(np.hypot(row - 1024, column - 300) - 130)  # a dark ring round tissue in the box
    pixels = soft_breast() * np.clip((gap - 20) / 40, 0, 1)
    pixels[1024:1032, 300:500] = np.maximum(pixels[1024:1032, 300:500], bridge)
    decoder = Decoder(pixels.astype(np.uint16))
    keys = replace(PREPROCESSING, height=100, width=100, jpeg2000_reduction=2)
    tensor.decode_and_build_view(SourceImage(view=View.LCC, name=""), keys, decoder)
    assert decoder.asked == asked  # a block of 205 is as bright as the threshold


@pytest.mark.parametrize(
    ("padding", "photometric", "asked"),
    [
        ((0, 0), "MONOCHROME2", [2]),
        ((4095, 4095), "MONOCHROME2", [2, 0]),
        ((4095, 4095), "MONOCHROME1", [2]),
        ((0, 0), "MONOCHROME1", [2, 0]),
        ((2000, 2100), "MONOCHROME2", [2, 0]),
    ],
)
def test_padding_beside_bright_values_is_not_mixed_with_them(padding, photometric, asked):
    pixels = soft_breast()
    if photometric == "MONOCHROME1":
        pixels = 4095 - pixels
    decoder = Decoder(pixels, replace(TWELVE_BITS, padding=padding, photometric=photometric))
    keys = replace(PREPROCESSING, height=100, width=100, jpeg2000_reduction=2)
    tensor.decode_and_build_view(SourceImage(view=View.LCC, name=""), keys, decoder)
    assert decoder.asked == asked


def test_four_views_are_decoded_side_by_side_and_keep_their_order(monkeypatch):
    monkeypatch.setattr(processor, "cores", lambda: 4)
    started = threading.Barrier(len(VIEWS), timeout=20)
    images = {view: stored(breast(300 + 10 * i), view) for i, view in enumerate(VIEWS)}

    def decode(image, *, levels):
        started.wait()  # for all four
        return images[image.view]

    exam = Exam(images={view: SourceImage(view=view, name="") for view in VIEWS})
    found, built = tensor.decode_and_build(exam, PREPROCESSING, decode)
    assert found == images
    expected = tensor.build(images, PREPROCESSING)
    np.testing.assert_array_equal(built.tensors["views"], expected.tensors["views"])
    assert built.geometry == expected.geometry


@pytest.mark.parametrize(("levels", "shape"), [(1, (400, 299)), (0, (800, 598)), (6, (51200, 5))])
def test_a_reduction_that_does_not_fit_its_pixels_is_refused(levels, shape):
    reduction = Reduction(levels=levels, source_shape=shape, reversible=True)
    image = replace(stored(breast()), reduction=reduction)
    with pytest.raises(PixelError, match="resolution levels"):
        tensor.build_view(image, PREPROCESSING)


def test_a_picture_of_a_reduced_image_has_the_shape_of_the_source():
    pixels = soft_breast()
    shown = tensor.display(decoded(pixels, 1), PREPROCESSING, height=200)
    full = tensor.display(stored(pixels), PREPROCESSING, height=200)
    assert shown.shape == full.shape == (200, 150)
    assert np.abs(shown.astype(int) - full).max() < 8
