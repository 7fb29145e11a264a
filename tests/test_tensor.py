"""Grey values agree with pydicom; views keep their side, their place and their errors' names."""

from __future__ import annotations

import functools
import threading
from dataclasses import replace

import imagecodecs
import numpy as np
import oracle
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
from scipy import ndimage

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
    Exam,
    LookupTable,
    Reduction,
    SourceImage,
    StoredImage,
    View,
    Window,
)
from mammoclip_sdk.pixels.codestream import without_finest
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.tensor import displayed
from mammoclip_sdk.tensor.grey_values import grey_scale

PREPROCESSING = Preprocessing(
    version=1,
    height=96,
    width=64,
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.02,
    background="keep",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)
TWELVE_BITS = DisplayAttributes(bits_stored=12, signed=False, photometric="MONOCHROME2")


def stored(pixels, view=View.LCC, display=TWELVE_BITS) -> StoredImage:
    return StoredImage(
        view=view,
        name="IM0001.dcm",
        pixels=np.ascontiguousarray(pixels),
        display=display,
        transfer_syntax="array",
    )


def breast(rows=400, columns=300, *, chest_wall="left", level=1500):
    """A half ellipse against one edge, air elsewhere, texture inside."""
    row, column = np.mgrid[:rows, :columns] + 0.5
    inside = ((row - rows / 2) / (0.4 * rows)) ** 2 + (column / (0.6 * columns)) ** 2 < 1
    texture = np.random.default_rng(rows + columns).integers(-300, 300, (rows, columns))
    pixels = np.where(inside, level + texture, 0).astype(np.uint16)
    return pixels if chest_wall == "left" else np.ascontiguousarray(pixels[:, ::-1])


# Grey values, against pydicom


def header(attributes: DisplayAttributes) -> pydicom.Dataset:
    """Return the attributes as the DICOM header they came from, every window and LUT in it."""
    dataset = pydicom.Dataset()
    dataset.BitsAllocated = 16
    dataset.BitsStored = attributes.bits_stored
    dataset.PixelRepresentation = int(attributes.signed)
    dataset.PhotometricInterpretation = attributes.photometric
    dataset.SamplesPerPixel = 1
    if attributes.modality_lut is None:
        dataset.RescaleSlope = attributes.slope
        dataset.RescaleIntercept = attributes.intercept
    else:
        dataset.ModalityLUTSequence = [lut_item(attributes.modality_lut)]
    if attributes.windows:
        dataset.WindowCenter = [window.center for window in attributes.windows]
        dataset.WindowWidth = [window.width for window in attributes.windows]
        dataset.VOILUTFunction = attributes.voi_function
    if attributes.voi_luts:
        dataset.VOILUTSequence = [lut_item(lut) for lut in attributes.voi_luts]
    return dataset


def lut_item(lut: LookupTable) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS" if lut.first < 0 else "US", [lut.data.size, lut.first, 16])
    item.add_new("LUTData", "US", [int(value) for value in lut.data])
    return item


def codes_as_pydicom_reads_them(attributes: DisplayAttributes) -> np.ndarray:
    """Every stored code of ``bits_stored`` bits, sign extended, in the type pydicom decodes to."""
    codes = np.arange(2**attributes.bits_stored)
    if not attributes.signed:
        return codes.astype(np.uint16)
    half = codes.size // 2
    return np.concatenate([codes[:half], codes[:half] - half]).astype(np.int16)


WINDOWS = (Window(center=1800.5, width=900.0), Window(center=40.0, width=80.0))
NEAR_ZERO = (Window(center=-10.0, width=333.3),)
CURVE = LookupTable(first=300, data=(np.linspace(0, 1, 2500) ** 2 * 16383).astype(np.uint16))
SIGNED_CURVE = LookupTable(first=-900, data=np.arange(1, 60001, 37).astype(np.uint16))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("bits", "signed", "slope", "intercept", "windows"),
    [
        (12, False, 1.0, 0.0, WINDOWS),
        (14, False, 0.25, -100.0, WINDOWS),
        (16, False, 1.0, 0.0, (Window(center=30000, width=1.0),)),
        (12, True, 1.0, 0.0, NEAR_ZERO),
        (10, True, -1.5, 7.0, NEAR_ZERO),
    ],
)
def test_windows_agree_with_pydicom(function, photometric, bits, signed, slope, intercept, windows):
    attributes = DisplayAttributes(
        bits_stored=bits,
        signed=signed,
        photometric=photometric,
        slope=slope,
        intercept=intercept,
        windows=windows,
        voi_function=function,
    )
    dataset = header(attributes)
    modality = apply_modality_lut(codes_as_pydicom_reads_them(attributes), dataset)
    with np.errstate(over="ignore"):  # of its SIGMOID, far from a narrow window
        expected = apply_windowing(modality.astype(np.float64), dataset)
    # pydicom answers in the range of the rescaled stored values, PS3.3 leaves it to the reader.
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    low, high = ends * slope + intercept
    expected = (expected - low) / (high - low)
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    table = grey_scale(attributes, PREPROCESSING, container_bits=16).values
    np.testing.assert_allclose(table[: 2**bits], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_voi_luts_agree_with_pydicom(signed, photometric):
    attributes = DisplayAttributes(
        bits_stored=12,
        signed=signed,
        photometric=photometric,
        windows=WINDOWS,
        voi_luts=(SIGNED_CURVE if signed else CURVE, LookupTable(first=0, data=CURVE.data[::-1])),
    )
    expected = apply_voi_lut(codes_as_pydicom_reads_them(attributes), header(attributes))
    expected = expected / attributes.voi_luts[0].data.max()
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    preprocessing = replace(PREPROCESSING, voi="header_lut")
    table = grey_scale(attributes, preprocessing, container_bits=16).values
    np.testing.assert_allclose(table[:4096], expected, atol=1e-6, rtol=0)


def test_modality_luts_agree_with_pydicom():
    attributes = replace(
        TWELVE_BITS, modality_lut=CURVE, windows=(Window(center=8000.0, width=9000.0),)
    )
    modality = apply_modality_lut(codes_as_pydicom_reads_them(attributes), header(attributes))
    windowed = replace(TWELVE_BITS, bits_stored=16, windows=attributes.windows)
    expected = apply_windowing(modality.astype(np.uint16), header(windowed)) / 65535
    table = grey_scale(attributes, PREPROCESSING, container_bits=16).values
    np.testing.assert_allclose(table[:4096], expected, atol=2e-5, rtol=0)


# Grey values, by the number


def test_linear_windows_have_the_half_pixel_of_the_standard():
    attributes = DisplayAttributes(
        bits_stored=8,
        signed=False,
        photometric="MONOCHROME2",
        windows=(Window(center=128.0, width=256.0),),
    )
    table = grey_scale(attributes, PREPROCESSING, container_bits=8).values
    np.testing.assert_allclose(table, np.arange(256) / 255, atol=1e-7)
    exact = replace(attributes, voi_function="LINEAR_EXACT")
    table = grey_scale(exact, PREPROCESSING, container_bits=8).values
    np.testing.assert_allclose(table, np.arange(256) / 256, atol=1e-7)


@pytest.mark.parametrize(
    ("voi", "has_window", "has_lut", "taken"),
    [
        ("header_window", True, True, "window"),
        ("header_window", False, True, "lut"),
        ("header_window", False, False, "range"),
        ("header_lut", True, True, "lut"),
        ("header_lut", True, False, "window"),
        ("header_lut", False, False, "range"),
        ("stored", True, True, "range"),
    ],
)
def test_the_policy_chooses_between_window_lut_and_stored_range(voi, has_window, has_lut, taken):
    attributes = replace(
        TWELVE_BITS,
        windows=(Window(center=2048.0, width=2.0),) if has_window else (),
        voi_luts=(LookupTable(first=0, data=np.array([7, 7], np.uint16)),) if has_lut else (),
    )
    table = grey_scale(attributes, replace(PREPROCESSING, voi=voi), container_bits=16).values
    ramp = np.arange(4096) / 4095
    expected = {"window": ramp > 0.5, "lut": np.ones(4096), "range": ramp}[taken]
    np.testing.assert_allclose(table[:4096], expected, atol=1e-6)


def test_bits_above_bits_stored_are_ignored():
    table = grey_scale(TWELVE_BITS, PREPROCESSING, container_bits=16).values.reshape(16, 4096)
    assert (table == table[0]).all()
    assert table[0, 4095] == 1.0


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_air_whatever_the_polarity(photometric):
    attributes = replace(TWELVE_BITS, photometric=photometric, padding=(658, 0))
    table = grey_scale(attributes, PREPROCESSING, container_bits=16).values
    assert (table[:659] == 0).all()
    ramp = np.arange(659, 4096) / 4095
    expected = ramp if photometric == "MONOCHROME2" else 1 - ramp
    np.testing.assert_allclose(table[659:4096], expected, atol=1e-6)


def test_padding_of_signed_pixels_is_compared_with_their_sign():
    attributes = replace(TWELVE_BITS, signed=True, padding=(-2048, -2000))
    table = grey_scale(attributes, PREPROCESSING, container_bits=16).values
    assert (table[2048:2097] == 0).all()
    assert table[2097] == pytest.approx(49 / 4095, abs=1e-6)
    assert table[2047] == 1.0


def test_percentiles_leave_padding_out():
    pixels = np.full((100, 100), 4000, dtype=np.uint16)
    pixels[:50] = np.arange(5000).reshape(50, 100) // 5 + 1000
    attributes = replace(TWELVE_BITS, padding=(4000, 4000))
    preprocessing = replace(PREPROCESSING, voi="percentile", percentiles=(10.0, 90.0))
    table = grey_scale(attributes, preprocessing, container_bits=16, pixels=pixels).values
    low, high = np.percentile(pixels[:50], (10, 90), method="inverted_cdf")
    assert (low, high) == (1099, 1899)
    ramp = np.clip((np.arange(4096) - 1099) / 800, 0, 1)
    ramp[4000] = 0
    np.testing.assert_allclose(table[:4096], ramp, atol=1e-6)


# The whole view


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


# Reduced JPEG 2000


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


def test_four_views_are_decoded_side_by_side_and_keep_their_order():
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


# Errors


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


@pytest.mark.parametrize("percentiles", [None, (50.0, 50.0), (-1.0, 99.0), (1.0, 101.0)])
def test_percentile_needs_two_ascending_percentiles(percentiles):
    preprocessing = replace(PREPROCESSING, voi="percentile", percentiles=percentiles)
    with pytest.raises(BundleFormatError, match=r"preprocessing\.percentiles: "):
        tensor.build_view(stored(breast()), preprocessing)


def test_percentiles_need_every_pixel():
    preprocessing = replace(
        PREPROCESSING, voi="percentile", percentiles=(1.0, 99.0), jpeg2000_reduction=1
    )
    with pytest.raises(BundleFormatError, match=r"jpeg2000_reduction: 0 where voi is percentile"):
        tensor.build_view(stored(breast()), preprocessing)


@pytest.mark.parametrize("version", [0, 2])
def test_another_preprocessing_version_is_refused(version):
    with pytest.raises(BundleVersionError, match=f"found version {version}"):
        tensor.build_view(stored(breast()), replace(PREPROCESSING, version=version))


def test_a_native_core_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(displayed, "NATIVE_VERSION", 2)
    with pytest.raises(BundleVersionError, match="native core"):
        tensor.build_view(stored(breast()), PREPROCESSING)


@pytest.mark.parametrize(
    ("changed", "subject"),
    [
        ({"photometric": "RGB"}, "0028,0004"),
        ({"bits_stored": 17}, "0028,0101"),
        ({"bits_stored": 0}, "0028,0101"),
        ({"slope": 0.0}, "grey values"),
        ({"slope": float("nan")}, "Rescale"),
        ({"slope": 1e308}, "Rescale"),
        ({"windows": (Window(center=1.0, width=0.5),)}, "Window"),
        ({"windows": (Window(center=float("inf"), width=5.0),)}, "Window"),
        ({"windows": WINDOWS, "voi_function": "CUBIC"}, "VOI LUT Function"),
        ({"windows": (Window(center=1.0, width=0.0),), "voi_function": "SIGMOID"}, "Window"),
        ({"voi_luts": (LookupTable(first=0, data=np.zeros(9, np.uint16)),)}, "0028,3010"),
        ({"modality_lut": LookupTable(first=0, data=np.zeros(0, np.uint16))}, "0028,3000"),
    ],
)
def test_undefined_grey_values_are_refused_by_their_tag(changed, subject):
    image = stored(breast(), View.RCC, replace(TWELVE_BITS, **changed))
    with pytest.raises(PixelError) as caught:
        tensor.build_view(image, PREPROCESSING)
    assert caught.value.subject.startswith("RCC (IM0001.dcm): ")
    assert subject in caught.value.subject


def test_an_image_of_padding_only_has_no_percentiles():
    preprocessing = replace(PREPROCESSING, voi="percentile", percentiles=(1.0, 99.0))
    attributes = replace(TWELVE_BITS, padding=(0, 4095))
    with pytest.raises(PixelError, match="padding only"):
        tensor.build_view(stored(breast(), display=attributes), preprocessing)


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
