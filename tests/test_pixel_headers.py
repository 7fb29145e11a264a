"""What a header says of its pixels is kept, or an error names the attribute that is wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import exams
import numpy as np
import oracle
import pytest
from exams import PLAIN, Variant
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID
from source_images import ROW, changed, source

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.header import described
from mammoclip_sdk.errors import DicomReadError, PixelError
from mammoclip_sdk.exam import DisplayAttributes, SourceImage, View, Window
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.tensor.grey_values import grey_scale

AS_THE_HEADER_SAYS = Preprocessing(
    version=1,
    height=64,
    width=64,
    voi="header_lut",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.0,
    background="keep",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)


@pytest.mark.parametrize("name", ["ge-display", "ge-display-implicit"])
def test_every_window_lut_and_padding_limit_is_kept(tmp_path: Path, name: str) -> None:
    path = exams.write_exam(tmp_path, ROW[name])[0]
    display = decode(SourceImage(view=View.LCC, name="x", path=path)).display
    assert display.windows == (
        Window(center=1800.0, width=900.0, explanation="NORMAL"),
        Window(center=1750.0, width=750.0, explanation="HARDER"),
        Window(center=1600.0, width=1050.0, explanation="SOFTER"),
    )
    assert display.voi_function == "SIGMOID"
    [lut] = display.voi_luts
    assert (lut.first, lut.data.tolist(), lut.explanation) == (142, list(range(64)), "USER")
    assert display.padding == (0, 658)  # the range limit comes first here
    assert display.modality_lut is None


def test_a_modality_lut_is_read(tmp_path: Path) -> None:
    path = exams.write_exam(tmp_path, ROW["modality-lut"])[0]
    lut = decode(SourceImage(view=View.LCC, name="x", path=path)).display.modality_lut
    assert lut is not None
    assert lut.first == 0
    assert lut.data.dtype == np.uint16
    assert lut.data.tolist() == list(range(0, 8192, 2))


def test_signed_display_attributes(tmp_path: Path) -> None:
    path = exams.write_exam(tmp_path, ROW["signed"])[0]
    display = decode(SourceImage(view=View.LCC, name="x", path=path)).display
    assert (display.slope, display.intercept) == (0.5, -10.0)
    assert display.padding == (-2048, -2048)
    [lut] = display.voi_luts
    assert lut.first == -2048
    assert lut.data.size == 65536  # 0 entries in the descriptor
    assert lut.data[:300].tolist() == [*range(256), *range(44)]  # 8 bits, packed


def test_a_signed_number_with_an_unsigned_vr_is_still_signed() -> None:
    image = exams.dataset(View.LCC, ROW["signed-implicit"])
    image.add_new(0x00280120, "US", 0xF800)
    table = Dataset()
    table.add_new(0x00283002, "US", [2, 0xF800, 16])
    table.add_new(0x00283006, "US", [7, 9])
    image.VOILUTSequence = [table]
    display = decode(source(image)).display
    assert display.padding == (-2048, -2048)
    assert display.voi_luts[0].first == -2048


def test_an_unsigned_number_with_a_signed_vr_is_still_unsigned() -> None:
    image = exams.dataset(View.LCC, Variant(name="x", bits_stored=16))
    image.add_new(0x00280120, "SS", -1)
    assert decode(source(image)).display.padding == (65535, 65535)


@pytest.mark.parametrize(
    ("tag", "vr", "values"),
    [
        (0x00280004, "CS", ["MONOCHROME1", "MONOCHROME2"]),
        (0x00280010, "US", [96, 96]),
        (0x00280103, "US", [0, 1]),
        (0x00280120, "US", [0, 2500]),
        (0x00280120, "OW", b"\0\0\xc4\x09"),
        (0x00280121, "US", [0, 2500]),
        (0x00281052, "DS", ["0", "1"]),
        (0x00281053, "DS", ["1", "-1"]),
        (0x00281056, "CS", ["LINEAR", "SIGMOID"]),
    ],
)
def test_of_two_values_none_is_taken(tag: int, vr: str, values: Any) -> None:
    image = exams.dataset(View.LCC, PLAIN)
    image.PixelPaddingValue = 0
    image.add_new(tag, vr, values)
    with pytest.raises(DicomReadError) as caught:
        decode(source(image))
    assert caught.value.code == "value_multiplicity"
    assert caught.value.found == f"2 values of {described(tag)}"


@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("Rows", "Rows (0028,0010)"),
        ("SamplesPerPixel", "Samples per Pixel (0028,0002)"),
        ("PixelRepresentation", "Pixel Representation (0028,0103)"),
    ],
)
def test_nothing_stands_in_for_an_attribute_that_must_be_there(keyword: str, name: str) -> None:
    image = exams.dataset(View.LCC, PLAIN)
    delattr(image, keyword)
    with pytest.raises(DicomReadError) as caught:
        decode(source(image))
    assert caught.value.found == f"no value of {name}"


def test_a_header_without_display_attributes_has_none() -> None:
    image = exams.dataset(View.LCC, PLAIN)
    del image.WindowCenter, image.WindowWidth
    display = decode(source(image)).display
    assert (display.windows, display.voi_luts, display.padding) == ((), (), None)
    assert (display.voi_function, display.slope, display.intercept) == ("LINEAR", 1.0, 0.0)


@pytest.mark.parametrize(
    ("reason", "values"),
    [
        ("photometric", {"PhotometricInterpretation": "RGB"}),
        ("photometric", {"PhotometricInterpretation": "YBR_FULL_422"}),
        ("bits", {"BitsAllocated": 32}),
        ("bits", {"BitsStored": 0}),
        ("bits", {"BitsStored": 13}),
        ("bits", {"HighBit": 16}),
        ("pixel_header", {"PixelRepresentation": 2}),
        ("image_size", {"Rows": 63}),
        ("image_size", {"Columns": 8193}),
        ("image_size", {"Rows": 8192, "Columns": 8192}),
        ("not_one_frame", {"NumberOfFrames": "2"}),
        ("not_one_frame", {"SamplesPerPixel": 3}),
        ("pixel_length", {"Rows": 97}),
        ("pixel_length", {"Columns": 64}),
        ("no_pixel_data", {"PixelData": b""}),
        ("rescale", {"RescaleSlope": "0"}),
        ("rescale", {"RescaleIntercept": "1e400"}),
        ("window", {"WindowCenter": [1, 2]}),
        ("window", {"WindowWidth": "1e400"}),
        ("voi_function", {"VOILUTFunction": "CUBIC"}),
    ],
)
def test_a_header_that_contradicts_its_pixels_is_named(reason: str, values: dict[str, Any]) -> None:
    with pytest.raises(PixelError) as caught:
        decode(changed(PLAIN, **values))
    assert caught.value.code == reason
    assert caught.value.subject == "x.dcm"


def test_rows_must_be_us() -> None:
    image = exams.dataset(View.LCC, PLAIN)
    image["Rows"].VR = "UL"
    with pytest.raises(PixelError) as caught:
        decode(source(image))
    assert caught.value.code == "pixel_header"


@pytest.mark.parametrize(
    ("descriptor", "data"), [([3, 0, 16], [1, 2]), ([3, 0], [1, 2, 3]), ([0, 0, 16], [1] * 9)]
)
def test_a_lut_that_contradicts_its_descriptor_is_refused(
    descriptor: list[int], data: list[int]
) -> None:
    table = Dataset()
    table.add_new(0x00283002, "US", descriptor)
    table.add_new(0x00283006, "US", data)
    with pytest.raises(PixelError) as caught:
        decode(changed(PLAIN, VOILUTSequence=[table]))
    assert caught.value.code == "lut"


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00280120, "UV", 2**64 - 1),
        (0x00280120, "UL", 2**16),
        (0x00280120, "SV", -(2**15) - 1),
        (0x00283002, "UV", [3, 2**64 - 1, 16]),
    ],
)
def test_a_number_of_more_than_16_bits_is_refused_by_its_tag(tag: int, vr: str, value: Any) -> None:
    image = exams.dataset(View.LCC, PLAIN)
    table = Dataset()
    table.add_new(0x00283002, "US", [3, 0, 16])
    table.add_new(0x00283006, "US", [1, 2, 3])
    image.VOILUTSequence = [table]
    (table if tag in table else image).add_new(tag, vr, value)
    with pytest.raises(DicomReadError) as caught:
        decode(source(image))
    assert caught.value.code == "value_unreadable"
    assert described(tag) in caught.value.found


@pytest.mark.parametrize(
    ("first", "vr", "data", "expected"),
    [
        (-5, "US", [1, 2, 300], [1, 2, 300]),
        (0, "OW", b"\1\2\3\0", [1, 2, 3]),  # 8-bit entries in pairs, and one to fill the word
    ],
)
def test_a_lut_may_begin_below_zero_and_have_its_entries_in_pairs(
    first: int, vr: str, data: Any, expected: list[int]
) -> None:
    table = Dataset()
    table.add_new(0x00283002, "SS", [3, first, 16])
    table.add_new(0x00283006, vr, data)
    image = changed(PLAIN, VOILUTSequence=[table], RescaleIntercept="-5", RescaleSlope="1")
    (lut,) = decode(image).display.voi_luts
    assert lut.first == first
    assert lut.data.tolist() == expected


def table(first: int, data: list[int], vr: str = "US") -> Dataset:
    """Return an item of a LUT sequence; SS writes the same 16 bits of ``first``."""
    item = Dataset()
    written = (first + 2**15) % 2**16 - 2**15 if vr == "SS" else first % 2**16
    item.add_new(0x00283002, vr, [len(data), written, 16])
    item.add_new(0x00283006, "US", data)
    return item


def read_back(image: Dataset, syntax: str) -> DisplayAttributes:
    """Return what the gate and the decoder make of an image that was written to a file."""
    image.file_meta.TransferSyntaxUID = UID(syntax)
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    return decode(source(gate.read_dataset(file.getvalue(), name="x"))).display


WRITTEN = [(gate.IMPLICIT_LITTLE, "US"), (gate.EXPLICIT_LITTLE, "US"), (gate.EXPLICIT_LITTLE, "SS")]


@pytest.mark.parametrize(("syntax", "vr"), WRITTEN)
def test_behind_a_modality_lut_a_voi_lut_begins_at_no_negative_value(syntax: str, vr: str) -> None:
    """Of a signed image too: what a Modality LUT puts out has no sign."""
    image = exams.dataset(View.LCC, ROW["signed"])
    image.ModalityLUTSequence = [table(-2, [39999, 40001, 40002, 40003], vr)]
    image.ModalityLUTSequence[0].ModalityLUTType = "US"
    image.VOILUTSequence = [table(40000, [10, 20, 30, 40], vr)]
    display = read_back(image, syntax)
    assert display.modality_lut is not None
    assert (display.modality_lut.first, display.voi_luts[0].first) == (-2, 40000)
    values = grey_scale(display, AS_THE_HEADER_SAYS, container_bits=16).values
    # The codes of stored -3, -2, -1, 0, 1, 2; the padding is at -2048.
    shown = values[[4093, 4094, 4095, 0, 1, 2]].tolist()
    assert shown == [0.25, 0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(("syntax", "vr"), WRITTEN)
def test_after_a_negative_intercept_a_voi_lut_may_begin_at_a_negative_value(
    syntax: str, vr: str
) -> None:
    """Of an unsigned image too, and whatever the transfer syntax says of its sign."""
    image = exams.dataset(View.LCC, PLAIN)
    image.RescaleSlope, image.RescaleIntercept = "1", "-1000"
    image.VOILUTSequence = [table(-998, [10, 20, 30, 40], vr)]
    display = read_back(image, syntax)
    assert display.voi_luts[0].first == -998
    values = grey_scale(display, AS_THE_HEADER_SAYS, container_bits=16).values
    assert values[:7].tolist() == [0.25, 0.25, 0.25, 0.5, 0.75, 1.0, 1.0]


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(9, 16),
    signed=st.booleans(),
    slope=st.sampled_from(["1", "-1", "0.25", "-3.5", "17"]),
    intercept=st.sampled_from(["0", "-1024", "0.75", "-0.25", "1024", "40000", "-40000"]),
    firsts=st.tuples(*2 * [st.integers(0, 2**16 - 1) | st.sampled_from([2**15 - 1, 2**15])]),
    behind_a_lut=st.booleans(),
)
def test_the_first_value_of_a_lut_has_the_sign_of_what_is_looked_up_in_it(
    bits: int,
    signed: bool,
    slope: str,
    intercept: str,
    firsts: tuple[int, int],
    behind_a_lut: bool,
) -> None:
    for syntax, vr in WRITTEN:
        image = exams.dataset(View.LCC, Variant(name="x", bits_stored=bits, signed=signed))
        image.RescaleSlope, image.RescaleIntercept = slope, intercept
        if behind_a_lut:
            image.ModalityLUTSequence = [table(firsts[0], [1, 2, 3], vr)]
        image.VOILUTSequence = [table(firsts[1], [1, 2, 3], vr)]
        display = read_back(image, syntax)
        found = [lut.first for lut in (display.modality_lut, *display.voi_luts) if lut]
        behind = [oracle.first_input(firsts[0], display, of_voi=False)] * behind_a_lut
        assert found == [*behind, oracle.first_input(firsts[1], display, of_voi=True)]


@pytest.mark.parametrize(
    ("center", "width", "windows"),
    [
        ("\\2048", "4096\\", None),
        ("2048\\1024", "4096\\", None),
        ("2048", "", None),
        ("", "4096", None),
        ("\\2048", "\\4096", [(2048.0, 4096.0, "SOFTER")]),
        ("2048\\", "4096", [(2048.0, 4096.0, "NORMAL")]),
        ("2048\\\\1024", "4096\\\\512", [(2048.0, 4096.0, "NORMAL"), (1024.0, 512.0, "")]),
        ("\\", "", []),
    ],
)
@pytest.mark.parametrize("syntax", [gate.IMPLICIT_LITTLE, gate.EXPLICIT_LITTLE])
def test_centers_and_widths_are_paired_by_place(
    syntax: str, center: str, width: str, windows: list[tuple[float, float, str]] | None
) -> None:
    image = exams.dataset(View.LCC, PLAIN)
    image.WindowCenter, image.WindowWidth = center.split("\\"), width.split("\\")
    image.WindowCenterWidthExplanation = ["NORMAL", "SOFTER"]
    if windows is None:
        with pytest.raises(PixelError) as caught:
            read_back(image, syntax)
        assert caught.value.code == "window"
        assert "without the other" in caught.value.found
    else:
        found = read_back(image, syntax).windows
        assert found == tuple(
            Window(center=center, width=width, explanation=word) for center, width, word in windows
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_are_taken_as_display_ready(dtype: Any) -> None:
    array = np.full((70, 80), np.iinfo(dtype).max, dtype)[:, ::2]
    array = np.concatenate([array, array], axis=1).T
    stored = decode(SourceImage(view=View.RCC, name="a", array=array))
    assert np.array_equal(stored.pixels, array)
    assert stored.pixels.flags.c_contiguous
    assert stored.display.bits_stored == np.iinfo(dtype).bits
    assert stored.display.photometric == "MONOCHROME2"
    assert stored.display.windows == ()
    assert stored.transfer_syntax == "array"
    with pytest.raises(PixelError) as caught:
        decode(SourceImage(view=View.RCC, name="a", array=array[:50]))
    assert caught.value.code == "image_size"
