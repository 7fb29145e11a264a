"""The native core agrees with its NumPy specification and with Pillow, and refuses bad arrays."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mammoclip_sdk import _native
from mammoclip_sdk.bundle import PREPROCESSING_VERSION

TOLERANCE = 1e-5
"""Of the displayed range."""

DTYPES = (np.uint8, np.uint16)


def random_table(rng: np.random.Generator, dtype: type, bits: int) -> NDArray[np.float32]:
    table = np.zeros(2 ** (8 * np.dtype(dtype).itemsize), dtype=np.float32)
    table[: 2**bits] = rng.random(2**bits)
    return table


@st.composite
def images(draw: st.DrawFn, largest: int = 70):
    """Pixels, table, displayed values and the generator that made them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(DTYPES))
    bits = draw(st.integers(1, 8 if dtype is np.uint8 else 16))
    shape = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    pixels = rng.integers(0, 2**bits, shape).astype(dtype)
    table = random_table(rng, dtype, bits)
    return pixels, table, table[pixels].astype(np.float64), rng


def inner(rng: np.random.Generator, rows: int, columns: int) -> oracle.Box:
    height, width = int(rng.integers(1, rows + 1)), int(rng.integers(1, columns + 1))
    top, left = int(rng.integers(0, rows - height + 1)), int(rng.integers(0, columns - width + 1))
    return top, left, height, width


def assert_same_breast(found: _native.Breast, expected: oracle.Breast) -> None:
    assert found.blocks == expected.blocks
    assert found.box == expected.box
    assert found.chest_wall_right == expected.chest_wall_right
    assert found.block_side == expected.block_side
    np.testing.assert_array_equal(found.mask, expected.mask)


def test_the_core_and_the_package_are_of_one_preprocessing_version():
    assert _native.PREPROCESSING_VERSION == PREPROCESSING_VERSION


@settings(deadline=None)
@given(images(), st.booleans(), st.booleans(), st.data())
def test_resampling_agrees_with_the_specification(image, mirrored, masked, data):
    pixels, table, shown, rng = image
    rows, columns = pixels.shape
    shape = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    side = data.draw(st.integers(1, 20))
    arguments = {
        "crop": inner(rng, rows, columns),
        "placed": inner(rng, *shape),
        "shape": shape,
        "mirrored": mirrored,
    }
    if masked:
        arguments["mask"] = rng.random((-(-rows // side), -(-columns // side))) > 0.4
        arguments["block_side"] = side
    found = _native.resample(pixels, table, **arguments)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, oracle.resample(shown, **arguments), atol=TOLERANCE, rtol=0)


@settings(deadline=None)
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    levels=st.integers(1, 5),
    reversible=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_reduced_images_agree_with_the_specification(
    rows, columns, levels, reversible, masked, seed
):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 4096, (-(-rows >> levels), -(-columns >> levels))).astype(np.uint16)
    table = random_table(rng, np.uint16, 12)
    reduction = (levels, reversible, rows, columns)
    samples = table[pixels].astype(np.float64)
    shown = oracle.restored(samples, reduction)
    assert shown.shape == (rows, columns)
    assert_same_breast(
        _native.find_breast(pixels, table, 0.55, reduction=reduction),
        oracle.find_breast(shown, 0.55),
    )
    shape = int(rng.integers(1, 90)), int(rng.integers(1, 90))
    arguments = {"crop": inner(rng, rows, columns), "placed": inner(rng, *shape), "shape": shape}
    masking = {}
    if masked:
        side = int(rng.integers(1, 40))
        mask = rng.random((-(-rows // side), -(-columns // side))) > 0.4
        masking = {"mask": mask, "block_side": side}
        kept = np.kron(mask, np.ones((side, side)))[:rows, :columns]
        shown = oracle.restored(samples * kept[:: 2**levels, :: 2**levels], reduction)
    found = _native.resample(pixels, table, **arguments, **masking, reduction=reduction)
    np.testing.assert_allclose(found, oracle.resample(shown, **arguments), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("reversible", [True, False])
def test_what_a_decoder_reduces_is_put_back_where_it_was(levels, reversible):
    """A parabola has next to no detail, so that a reduced decoder loses nothing of it."""
    rows, columns = np.mgrid[:320, :512]
    smooth = (3 * rows + 5 * columns + rows**2 / 8 + columns**2 / 32).astype(np.uint16)
    encoded = io.BytesIO()
    Image.fromarray(smooth).save(encoded, "JPEG2000", irreversible=not reversible)
    with Image.open(encoded) as image:
        image.reduce = levels
        reduced = np.ascontiguousarray(image).astype(np.uint16)
    assert reduced.shape == (320 >> levels, 512 >> levels)
    table = np.arange(65536, dtype=np.float32)
    where = {"crop": (37, 50, 250, 400), "placed": (0, 0, 25, 40), "shape": (25, 40)}
    full = _native.resample(smooth, table, **where)
    found = _native.resample(reduced, table, **where, reduction=(levels, reversible, 320, 512))
    np.testing.assert_allclose(found, full, atol=1.5, rtol=0)  # of rounding at every level


@settings(deadline=None)
@given(images(), st.floats(0.0, 1.0), st.integers(1, 12), st.integers(1, 12))
def test_segmentation_agrees_with_the_specification(image, threshold, tall, wide):
    pixels, table, _, _ = image
    # Repeated pixels make regions larger than one block, and images larger than 256 blocks.
    pixels = np.ascontiguousarray(np.kron(pixels, np.ones((tall, wide), dtype=pixels.dtype)))
    shown = table[pixels].astype(np.float64)
    assert_same_breast(
        _native.find_breast(pixels, table, threshold), oracle.find_breast(shown, threshold)
    )


@pytest.mark.parametrize("shape", [(384, 383), (385, 300), (1000, 1001), (640, 128)])
def test_blocks_cut_off_at_the_edges_count_by_the_pixels_they_have(shape):
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (shape[0] // 9 + 1, shape[1] // 7 + 1))
    pixels = np.kron(coarse, np.ones((9, 7)))[: shape[0], : shape[1]].astype(np.uint8)
    table = np.linspace(0, 1, 256, dtype=np.float32)
    expected = oracle.find_breast(table[pixels].astype(np.float64), 0.45)
    assert expected.blocks > 100
    assert_same_breast(_native.find_breast(pixels, table, 0.45), expected)


def test_a_brighter_lead_marker_neither_wins_nor_widens_the_box():
    pixels = np.zeros((1024, 768), dtype=np.uint8)
    pixels[200:800, 468:768] = 80
    pixels[16:60, 40:120] = 255
    table = np.linspace(0, 1, 256, dtype=np.float32)
    breast = _native.find_breast(pixels, table, 0.05)
    assert breast.block_side == 4
    assert breast.box == (200, 468, 600, 300)
    assert breast.chest_wall_right
    assert breast.blocks == 150 * 75
    mirrored = _native.find_breast(np.ascontiguousarray(pixels[:, ::-1]), table, 0.05)
    assert mirrored.box == (200, 0, 600, 300)
    assert not mirrored.chest_wall_right


def test_the_mask_keeps_one_block_round_the_breast():
    pixels = np.zeros((512, 512), dtype=np.uint16)
    pixels[100:200, 0:50] = 1000
    table = np.linspace(0, 1, 65536, dtype=np.float32)
    breast = _native.find_breast(pixels, table, 0.01)
    assert breast.box == (100, 0, 100, 50)
    rows, columns = np.nonzero(breast.mask)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (49, 101, 0, 26)


def test_nothing_above_the_threshold_is_no_breast():
    breast = _native.find_breast(np.zeros((40, 30), np.uint8), np.zeros(256, np.float32), 0.0)
    assert breast.blocks == 0
    assert breast.box == (0, 0, 0, 0)
    assert not breast.mask.any()


@pytest.mark.parametrize("factor", [1, 2, 3, 8, (5, 2)])
def test_integer_factors_agree_with_pillow_reduce(factor):
    rng = np.random.default_rng(1)
    shown = rng.random((120, 240), dtype=np.float32)
    # One code for each pixel, so that the table can hold any float32 image.
    pixels = np.arange(shown.size, dtype=np.uint16).reshape(shown.shape)
    table = np.zeros(65536, dtype=np.float32)
    table[: shown.size] = shown.reshape(-1)
    expected = np.asarray(Image.fromarray(shown).reduce(factor))
    found = _native.resample(
        pixels,
        table,
        crop=(0, 0, 120, 240),
        placed=(0, 0, *expected.shape),
        shape=expected.shape,
    )
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_a_crop_at_an_integer_factor_agrees_with_pillow_box_resize():
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (300, 200)).astype(np.uint8)
    table = np.linspace(0, 1, 256, dtype=np.float32)
    expected = Image.fromarray(table[pixels]).resize(
        (30, 40), Image.Resampling.BOX, box=(11, 7, 191, 287)
    )
    found = _native.resample(
        pixels, table, crop=(7, 11, 280, 180), placed=(2, 3, 40, 30), shape=(50, 40)
    )
    np.testing.assert_allclose(found[2:42, 3:33], expected, atol=TOLERANCE, rtol=0)
    found[2:42, 3:33] = 0
    assert not found.any()


def test_eight_threads_get_what_one_gets():
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 4096, (800, 600)).astype(np.uint16)
    pixels[:, 400:] = 0
    table = random_table(rng, np.uint16, 12)
    table[0] = 0

    def work(_: int) -> bytes:
        breast = _native.find_breast(pixels, table, 0.1)
        view = _native.resample(
            pixels,
            table,
            crop=breast.box,
            placed=(0, 0, 97, 61),
            shape=(97, 61),
            mask=breast.mask,
            block_side=breast.block_side,
        )
        return view.tobytes()

    alone = work(0)
    with ThreadPoolExecutor(max_workers=8) as pool:
        assert set(pool.map(work, range(64))) == {alone}


PIXELS = np.zeros((30, 20), dtype=np.uint16)
TABLE = np.zeros(65536, dtype=np.float32)
WHOLE = {"crop": (0, 0, 30, 20), "placed": (0, 0, 8, 8), "shape": (8, 8)}


@pytest.mark.parametrize(
    ("pixels", "table", "error", "message"),
    [
        (PIXELS.astype(np.int16), TABLE, TypeError, "uint8 or uint16"),
        (PIXELS.astype(">u2"), TABLE, TypeError, "byte order"),
        (PIXELS.astype(np.float32), TABLE, TypeError, "uint8 or uint16"),
        (PIXELS[None], TABLE, ValueError, "2 dimensions, not 3"),
        (PIXELS.T, TABLE, ValueError, "C-contiguous"),
        (PIXELS[:, ::2], TABLE, ValueError, "C-contiguous"),
        (PIXELS, TABLE.astype(np.float64), TypeError, "float32"),
        (PIXELS, TABLE[:4096], ValueError, "65536 entries, not 4096"),
        (PIXELS, TABLE.reshape(256, 256), ValueError, "1 dimensions, not 2"),
        (PIXELS.astype(np.uint8), TABLE, ValueError, "256 entries, not 65536"),
        (PIXELS[:0], TABLE, ValueError, "rows and columns"),
    ],
)
def test_arrays_of_the_wrong_kind_are_refused(pixels, table, error, message):
    with pytest.raises(error, match=message):
        _native.find_breast(pixels, table, 0.5)
    with pytest.raises(error, match=message):
        _native.resample(pixels, table, **WHOLE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"crop": (1, 0, 30, 20)}, "crop"),
        ({"crop": (0, -1, 30, 20)}, "crop"),
        ({"crop": (0, 0, 0, 20)}, "crop"),
        ({"crop": (2**63 - 1, 0, 1, 20)}, "crop"),
        ({"placed": (0, 0, 8, 9)}, "placed"),
        ({"placed": (0, 8, 8, 1)}, "placed"),
        ({"shape": (2**62, 2**62)}, "output height and width"),
        ({"shape": (0, 8)}, "output height and width"),
        ({"reduction": (1, True, 58, 40)}, "one sample for"),
        ({"reduction": (1, False, 60, 41)}, "one sample for"),
        ({"reduction": (0, True, 60, 40)}, "at least one level"),
        ({"reduction": (-1, True, 15, 10)}, "levels"),
        ({"reduction": (6, True, 1920, 1280)}, "levels"),
        ({"reduction": (5, True, 2**62, 640)}, "rows and columns"),
        ({"reduction": (1, True, -60, -40)}, "rows and columns"),
        ({"mask": np.ones((3, 2), dtype=bool), "block_side": 0}, "mask"),
        ({"mask": np.ones((3, 3), dtype=bool), "block_side": 10}, "mask"),
        ({"mask": np.ones((1, 1), dtype=bool), "block_side": 2**63 - 1}, "mask"),
    ],
)
def test_rectangles_outside_their_image_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        _native.resample(PIXELS, TABLE, **(WHOLE | changed))


@settings(deadline=None)
@given(images(), st.floats(0, 1), st.integers(0, 900), st.integers(0, 3))
def test_tissue_is_measured_in_the_middle_of_each_block(image, threshold, tall, levels):
    pixels, table, _, _ = image
    samples = np.pad(pixels, ((0, tall), (0, 0)), mode="edge")
    rows, columns = (side * 2**levels - min(levels, 1) for side in samples.shape)
    reduction = (levels, True, rows, columns) if levels else None
    breast = _native.find_breast(samples, table, threshold / 2, reduction=reduction)
    side = breast.block_side
    down, across = (np.arange(side // 2, length, side) for length in (rows, columns))
    shown = table[samples[np.ix_(down >> levels, across >> levels)]]
    inside = breast.mask[: len(down), : len(across)] & (shown > np.float32(threshold))
    tissue = shown[inside]
    low, high = np.percentile(tissue, (5, 95)) if tissue.size else (0, 0)
    spread, saturated = _native.measure_tissue(
        samples, table, breast, threshold, reduction=reduction
    )
    assert spread == pytest.approx(high - low, abs=1e-6)
    assert saturated == pytest.approx(np.mean(tissue >= 254 / 255) if tissue.size else 0)


def test_tissue_of_another_image_is_refused():
    table = np.linspace(0, 1, 256, dtype=np.float32)
    breast = _native.find_breast(np.full((512, 512), 200, np.uint8), table, 0.1)
    with pytest.raises(ValueError, match="one entry for each block"):
        _native.measure_tissue(np.full((300, 512), 200, np.uint8), table, breast, 0.1)
    with pytest.raises(ValueError, match="threshold must be finite"):
        _native.measure_tissue(np.full((512, 512), 200, np.uint8), table, breast, float("nan"))


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="threshold"):
        _native.find_breast(PIXELS, TABLE, float("nan"))


def test_a_crop_has_its_margin_as_far_as_the_image_goes():
    pixels = np.zeros((100, 80), dtype=np.uint8)
    pixels[10:60, 55:80] = 200
    breast = _native.find_breast(pixels, np.linspace(0, 1, 256, dtype=np.float32), 0.5)
    layout = {"shape": (100, 80), "height": 64, "width": 64, "crop_margin": 0.25}
    # A quarter of 50 is 12.5, rounded to even; above there are 10 rows, to the right none.
    crop, placed = _native.place(breast, **layout, letterbox=False)
    assert (crop, placed) == ((0, 43, 72, 37), (0, 0, 64, 64))
    # 64 / 72 of 37 columns is 32.9.
    crop, placed = _native.place(breast, **layout, letterbox=True)
    assert (crop, placed) == ((0, 43, 72, 37), (0, 0, 64, 33))
    crop, placed = _native.place(breast, **(layout | {"width": 8}), letterbox=True)
    assert placed == (24, 0, 16, 8)  # 8 / 37 of 72 rows is 15.6


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shape": (29, 20)}, "breast"),
        ({"shape": (2**62, 2**62)}, "rows and columns"),
        ({"height": 0}, "output height and width"),
        ({"width": 8193}, "output height and width"),
        ({"crop_margin": float("nan")}, "crop margin"),
        ({"crop_margin": 1e300}, "crop margin"),
    ],
)
def test_layouts_that_cannot_be_are_refused(changed, message):
    layout = {"shape": (30, 20), "height": 8, "width": 8, "crop_margin": 0.1, "letterbox": True}
    breast = _native.find_breast(PIXELS, np.ones(65536, dtype=np.float32), 0.5)
    assert breast.box == (0, 0, 30, 20)
    with pytest.raises(ValueError, match=message):
        _native.place(breast, **(layout | changed))
    nothing = _native.find_breast(PIXELS, TABLE, 0.5)
    with pytest.raises(ValueError, match="breast"):
        _native.place(nothing, **layout)
