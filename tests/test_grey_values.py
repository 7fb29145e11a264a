"""Grey values agree with PS3.3's formulas, one stored value at a time, and are refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mammoclip_sdk import _native
from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.exam import DisplayAttributes, LookupTable, Window
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.tensor.grey_values import grey_scale

TWELVE_BITS = DisplayAttributes(bits_stored=12, signed=False, photometric="MONOCHROME2")
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def policy(voi: str, percentiles: tuple[float, float] | None = None) -> Preprocessing:
    return Preprocessing(
        version=1,
        height=96,
        width=64,
        voi=voi,
        percentiles=percentiles,
        segmentation_threshold=0.05,
        crop_margin=0.0,
        background="keep",
        geometry="letterbox",
        resampling="area",
        jpeg2000_reduction=0,
    )


WINDOW_FIRST = policy("header_window")


@st.composite
def tables(draw: st.DrawFn) -> LookupTable:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    highest = draw(st.sampled_from([1, 255, 4095, 65535]))
    data = rng.integers(0, highest + 1, draw(st.integers(1, 300))).astype(np.uint16)
    data[rng.integers(data.size)] = highest
    return LookupTable(first=draw(st.integers(-300, 3000)), data=data)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    center = draw(st.floats(-5000, 70000) | st.integers(-100, 5000).map(float))
    return Window(center=center, width=draw(st.floats(1.0, 70000.0) | st.sampled_from([1.0, 2.0])))


@st.composite
def displays(draw: st.DrawFn) -> DisplayAttributes:
    padding = st.integers(-40000, 70000)
    return DisplayAttributes(
        bits_stored=draw(st.integers(1, 16)),
        signed=draw(st.booleans()),
        photometric=draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),
        slope=draw(st.sampled_from([1.0, -1.0, 0.25, -3.5, 17.0])),
        intercept=draw(st.sampled_from([0.0, -1024.0, 0.75])),
        modality_lut=draw(st.none() | tables()),
        windows=tuple(draw(st.lists(windows(), max_size=2))),
        voi_function=draw(st.sampled_from(FUNCTIONS)),
        voi_luts=tuple(draw(st.lists(tables(), max_size=2))),
        padding=draw(st.none() | st.tuples(padding, padding)),
    )


def codes_of(values: list[int], bits: int) -> np.ndarray:
    return np.array([value % 2**bits for value in values])


@settings(deadline=None, max_examples=400)
@given(
    displays(),
    st.sampled_from(["header_window", "header_lut", "stored", "percentile"]),
    st.tuples(st.integers(0, 199), st.integers(201, 400)),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_grey_values_agree_with_the_specification(display, voi, quarters, seed, eight_bits):
    rng = np.random.default_rng(seed)
    eight_bits = eight_bits and display.bits_stored <= 8
    values = list(oracle.stored_range(display))
    some = [values[i] for i in rng.integers(len(values), size=60)] + [values[0], values[-1]]
    levels = [values[i] for i in rng.integers(len(values), size=rng.integers(1, 9))]
    image = [levels[i] for i in rng.integers(len(levels), size=77)]
    container_bits = 8 if eight_bits else 16
    above = rng.integers(2 ** (container_bits - display.bits_stored), size=len(image))
    codes = codes_of(image, display.bits_stored) + (above << display.bits_stored)
    pixels = codes.astype(np.uint8 if eight_bits else np.uint16)
    share = tuple(quarter / 4 for quarter in quarters) if voi == "percentile" else None
    try:
        found = grey_scale(
            display,
            policy(voi, share),
            container_bits=container_bits,
            pixels=pixels.reshape(7, 11),
        ).values
    except PixelError as exc:
        undefined = {"grey values": ZeroDivisionError, "pixels": IndexError}[exc.subject]
        tissue = [value for value in values if not oracle.is_padding(display, value)]
        assume(tissue)
        with pytest.raises(undefined):
            oracle.displayed(display, tissue[:1], voi, image, share)
        return
    expected = oracle.displayed(display, some, voi, image, share)
    assert (found.size, found.dtype) == (2**container_bits, np.float32)
    shown = found[codes_of(some, display.bits_stored)]
    np.testing.assert_allclose(shown, expected, atol=1e-6, rtol=0)
    copies = found.reshape(-1, 2**display.bits_stored)
    np.testing.assert_array_equal(copies, copies[:1].repeat(len(copies), 0))


# Numbers worked out by hand from the standard's formulas


@pytest.mark.parametrize(
    ("function", "center", "width", "expected"),
    [
        # C.11.2.1.2.1: black to c - 0.5 - (w - 1) / 2, white from c - 0.5 + (w - 1) / 2
        ("LINEAR", 2048.0, 4096.0, {0: 0.0, 1365: 1 / 3, 2730: 2 / 3, 4095: 1.0}),
        ("LINEAR", 100.0, 101.0, {49: 0.0, 50: 0.005, 99: 0.495, 149: 0.995, 150: 1.0}),
        ("LINEAR", 2048.0, 1.0, {2047: 0.0, 2048: 1.0}),
        ("LINEAR", 2048.5, 1.0, {2047: 0.0, 2048: 0.0, 2049: 1.0}),
        ("LINEAR", 10.0, 2.0, {8: 0.0, 9: 0.0, 10: 1.0, 11: 1.0}),
        # C.11.2.1.3.2: black to c - w / 2, white above c + w / 2
        ("LINEAR_EXACT", 100.0, 101.0, {49: 0.0, 50: 1 / 202, 100: 0.5, 150: 201 / 202, 151: 1.0}),
        ("LINEAR_EXACT", 2048.0, 0.5, {2047: 0.0, 2048: 0.5, 2049: 1.0}),
        # C.11.2.1.3.1: 1 / (1 + e^2) at half a width below the centre
        ("SIGMOID", 100.0, 50.0, {75: 0.11920292, 100: 0.5, 125: 0.88079708, 4095: 1.0}),
    ],
)
def test_windows_give_the_numbers_of_the_standard(function, center, width, expected):
    display = replace(
        TWELVE_BITS, windows=(Window(center=center, width=width),), voi_function=function
    )
    values = grey_scale(display, WINDOW_FIRST, container_bits=16).values
    assert values[list(expected)] == pytest.approx(list(expected.values()), abs=1e-7)


def test_a_window_is_in_rescaled_units_and_the_sign_comes_first():
    display = replace(
        TWELVE_BITS,
        signed=True,
        slope=-2.0,
        intercept=10.0,
        windows=(Window(center=0.5, width=41.0),),
    )
    values = grey_scale(display, WINDOW_FIRST, container_bits=16).values
    # Stored -5 is code 4091 and 20 in rescaled units; stored 5 is 0; stored 15 is -20.
    assert values[[4091, 0, 5, 10, 15]].tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_lut_is_divided_by_its_largest_value_and_held_at_its_ends():
    lut = LookupTable(first=100, data=np.array([50, 0, 200, 100], np.uint16))
    display = replace(TWELVE_BITS, voi_luts=(lut,))
    values = grey_scale(display, policy("header_lut"), container_bits=16).values
    assert values[[0, 99, 100, 101, 102, 103, 104, 4095]].tolist() == [
        *(0.25, 0.25, 0.25, 0.0, 1.0, 0.5, 0.5, 0.5)
    ]


def test_rescaled_values_are_rounded_to_the_nearest_entry_of_a_lut():
    lut = LookupTable(first=-1, data=np.array([0, 10, 20, 30, 40], np.uint16))
    display = replace(TWELVE_BITS, slope=0.25, intercept=-1.0, voi_luts=(lut,))
    values = grey_scale(display, policy("header_lut"), container_bits=16).values
    # Modality values -1, -0.75, -0.5 ... 1: entries 0, 0.25, 0.5 ... 2, halves to even.
    entries = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(values[:9], (entries / 4).astype(np.float32))


@pytest.mark.parametrize(
    ("photometric", "padding", "darkest"),
    [
        ("MONOCHROME2", None, 1 / (1 + np.exp(4))),
        ("MONOCHROME2", (0, 49), 1 / (1 + np.exp(2))),
        ("MONOCHROME1", None, 0.0),
        ("MONOCHROME2", (0, 4095), 1.0),
    ],
)
def test_the_darkest_value_is_of_the_codes_that_are_image(photometric, padding, darkest):
    display = replace(
        TWELVE_BITS,
        photometric=photometric,
        padding=padding,
        windows=(Window(center=100.0, width=100.0),),
        voi_function="SIGMOID",
    )
    scale = grey_scale(display, WINDOW_FIRST, container_bits=16)
    assert scale.darkest == pytest.approx(darkest, abs=1e-12)


def test_every_pixel_is_counted_whatever_the_number_of_them():
    # 3 air, 1 of 10, 1 of 20: the 60th percentile is air, the 80th is 10, the 100th is 20.
    pixels = np.array([[0, 10, 0, 20, 0]], dtype=np.uint8)
    display = replace(TWELVE_BITS, bits_stored=8)

    def white(low: float, high: float) -> int:
        scale = grey_scale(
            display, policy("percentile", (low, high)), container_bits=8, pixels=pixels
        )
        return int(np.argmax(scale.values == 1.0))

    assert (white(0, 80), white(0, 80.5), white(60, 80), white(61, 81)) == (10, 20, 10, 20)


# Refused


@pytest.mark.parametrize(
    ("changed", "subject", "found"),
    [
        ({"photometric": "RGB"}, "Photometric Interpretation (0028,0004)", "'RGB'"),
        ({"bits_stored": 17}, "Bits Stored (0028,0101)", "17 bits in pixels of 16"),
        ({"bits_stored": 0}, "Bits Stored (0028,0101)", "0 bits in pixels of 16"),
        ({"bits_stored": -(2**63)}, "Bits Stored (0028,0101)", f"{-(2**63)} bits in pixels of 16"),
        ({"slope": 0.0}, "grey values", "one value (0) from the darkest to the brightest"),
        ({"slope": float("nan")}, "Rescale Slope", "slope nan, intercept 0"),
        ({"slope": 1e308}, "Rescale Slope", "slope 1e+308, intercept 0"),
        ({"intercept": float("-inf")}, "Rescale Slope", "slope 1, intercept -inf"),
        ({"windows": (Window(center=1.5, width=0.5),)}, "Window Center", "center 1.5, width 0.5"),
        ({"windows": (Window(center=1, width=-3),)}, "Window Center", "center 1, width -3"),
        (
            {"windows": (Window(center=float("inf"), width=5.0),)},
            "Window Center and Width (0028,1050), (0028,1051)",
            "center inf, width 5",
        ),
        (
            {"windows": (Window(center=0, width=float("nan")),), "voi_function": "SIGMOID"},
            "Window Center",
            "center 0, width nan",
        ),
        (
            {"windows": (Window(center=0, width=5),), "voi_function": "CUBIC"},
            "VOI LUT Function (0028,1056)",
            "'CUBIC'",
        ),
        (
            {"voi_luts": (LookupTable(first=0, data=np.zeros(9, np.uint16)),)},
            "VOI LUT Sequence (0028,3010)",
            "nothing but zeros in LUT Data (0028,3006)",
        ),
        (
            {"voi_luts": (LookupTable(first=0, data=np.zeros(0, np.uint16)),)},
            "VOI LUT Sequence (0028,3010)",
            "no entries in LUT Data (0028,3006)",
        ),
        (
            {"modality_lut": LookupTable(first=0, data=np.zeros(0, np.uint16))},
            "Modality LUT Sequence (0028,3000)",
            "no entries in LUT Data (0028,3006)",
        ),
        (
            {"modality_lut": LookupTable(first=0, data=np.full(5, 7, np.uint16))},
            "grey values",
            "one value (7) from the darkest to the brightest",
        ),
    ],
)
def test_undefined_attributes_are_refused_with_their_value(changed, subject, found):
    with pytest.raises(PixelError) as caught:
        grey_scale(replace(TWELVE_BITS, **changed), WINDOW_FIRST, container_bits=16)
    assert caught.value.subject.startswith(subject)
    assert caught.value.found == found
    assert caught.value.expected
    assert caught.value.remedy


@pytest.mark.parametrize("container_bits", [0, 7, 12, 32, 2**62])
def test_containers_of_other_sizes_are_refused(container_bits):
    with pytest.raises(PixelError, match="Bits Stored"):
        grey_scale(TWELVE_BITS, WINDOW_FIRST, container_bits=container_bits)


@pytest.mark.parametrize(
    ("percentiles", "dtype", "found"),
    [
        ((1.0, 99.0), None, "no pixels"),
        ((1.0, 99.0), np.uint8, "pixels of another type"),
        ((99.0, 1.0), np.uint16, "99 and 1"),
        ((float("nan"), 99.0), np.uint16, "nan and 99"),
        ((1.0, 100.5), np.uint16, "1 and 100.5"),
    ],
)
def test_percentiles_need_pixels_and_a_rising_pair(percentiles, dtype, found):
    pixels = None if dtype is None else np.arange(100, dtype=dtype).reshape(10, 10)
    with pytest.raises(PixelError) as caught:
        grey_scale(TWELVE_BITS, policy("percentile", percentiles), container_bits=16, pixels=pixels)
    assert caught.value.subject == "percentiles"
    assert found in caught.value.found


def test_an_unknown_policy_is_refused():
    with pytest.raises(PixelError, match="'auto'"):
        grey_scale(TWELVE_BITS, policy("auto"), container_bits=16)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"voi_lut": (0, np.zeros(4, np.int16))}, TypeError, "voi_lut must be uint16"),
        ({"voi_lut": (0, np.zeros(4, ">u2"))}, TypeError, "byte order"),
        ({"modality_lut": (0, np.zeros(8, np.uint16)[::2])}, ValueError, "C-contiguous"),
        ({"pixels": np.zeros((4, 4), np.int16)}, TypeError, "pixels must be uint8 or uint16"),
        ({"pixels": np.zeros((4, 4), np.uint16).T[:, 1:]}, ValueError, "C-contiguous"),
        ({"pixels": np.zeros(16, np.uint16)}, ValueError, "2 dimensions, not 1"),
        ({"pixels": np.zeros((0, 4), np.uint16)}, ValueError, "rows and columns"),
    ],
)
def test_the_core_refuses_arrays_of_the_wrong_kind(changed, error, message):
    arguments = {
        "container_bits": 16,
        "bits_stored": 12,
        "signed": False,
        "photometric": "MONOCHROME2",
        "slope": 1.0,
        "intercept": 0.0,
        "modality_lut": None,
        "window": None,
        "voi_function": "LINEAR",
        "voi_lut": None,
        "padding": None,
        "voi": "stored",
        "percentiles": (0.0, 0.0),
        "pixels": None,
    }
    with pytest.raises(error, match=message):
        _native.grey_scale(**(arguments | changed))
