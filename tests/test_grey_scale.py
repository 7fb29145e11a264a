"""Grey values agree with pydicom, and what a header leaves undefined is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
from stored_images import PREPROCESSING, TWELVE_BITS, breast, stored

from mammoclip_sdk import tensor
from mammoclip_sdk.errors import (
    BundleFormatError,
    PixelError,
)
from mammoclip_sdk.exam import (
    DisplayAttributes,
    LookupTable,
    View,
    Window,
)
from mammoclip_sdk.tensor.grey_values import grey_scale


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
