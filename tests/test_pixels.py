"""Stored values come back exactly, or an error says what in the header or the frame is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exams
import imagecodecs
import numpy as np
import pytest
from exams import PLAIN, VARIANTS, Variant
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from mammoclip_sdk import gate
from mammoclip_sdk.codestream import read_jpeg, read_jpeg2000
from mammoclip_sdk.errors import DicomReadError, InputError, MammoClipError, PixelError
from mammoclip_sdk.exam import SourceImage, View, Window
from mammoclip_sdk.header import described
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.views import read_exam

Change = Callable[[Dataset], None]
ROW = {variant.name: variant for variant in VARIANTS}


def source(image: Dataset) -> SourceImage:
    return SourceImage(view=View.LCC, name="x.dcm", dataset=image)


def changed(variant: Variant, **values: Any) -> SourceImage:
    image = exams.dataset(View.LCC, variant)
    for keyword, value in values.items():
        setattr(image, keyword, value)
    return source(image)


def framed(variant: Variant, frame: bytes) -> SourceImage:
    image = exams.dataset(View.LCC, variant)
    image.PixelData = encapsulate([frame])
    return source(image)


def refusal(image: SourceImage) -> str:
    with pytest.raises(InputError) as caught:
        decode(image)
    return caught.value.code


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_encoding_gives_the_stored_values(tmp_path: Path, variant: Variant) -> None:
    exams.write_exam(tmp_path, variant)
    for view, image in read_exam(tmp_path).images.items():
        stored = decode(image)
        expected = exams.codes(view, variant)
        assert stored.pixels.dtype == expected.dtype
        assert stored.pixels.shape == expected.shape
        assert np.abs(stored.pixels.astype(int) - expected).max() <= variant.tolerance
        assert stored.pixels.flags.c_contiguous
        assert stored.transfer_syntax == variant.syntax
        assert stored.view == view
        assert stored.display.bits_stored == variant.bits_stored
        assert stored.display.signed == variant.signed
        assert stored.display.photometric == variant.photometric


def test_the_same_pixels_have_one_hash_in_every_lossless_encoding(tmp_path: Path) -> None:
    rows = ("explicit-le", "implicit-le", "high-bit-15", "rle", "jpeg-lossless-sv1",
            "jpeg-ls", "jpeg-2000-lossless")  # fmt: skip
    hashes = set()
    for name in rows:
        exams.write_exam(tmp_path / name, ROW[name])
        hashes.add(decode(read_exam(tmp_path / name).images[View.RMLO]).sha256)
    expected = exams.codes(View.RMLO, PLAIN).tobytes()
    assert hashes == {hashlib.sha256(expected).hexdigest()}


def test_native_pixels_are_not_copied() -> None:
    image = exams.dataset(View.LCC, PLAIN)
    pixels = decode(source(image)).pixels
    assert np.shares_memory(pixels, np.frombuffer(image.PixelData, np.uint8))


def test_only_an_overlay_the_header_declares_is_cleared() -> None:
    image = exams.dataset(View.LCC, PLAIN)
    expected = exams.codes(View.LCC, PLAIN)
    overlay = np.where(np.arange(expected.size).reshape(expected.shape) % 3, 0, 0x9000)
    image.PixelData = (expected | overlay.astype(np.uint16)).tobytes()
    assert refusal(source(image)) == "value_range"
    image.add_new(0x60000102, "US", 12)
    assert refusal(source(image)) == "value_range"
    image.add_new(0x60020102, "US", 15)
    assert np.array_equal(decode(source(image)).pixels, expected)
    image.add_new(0x60023000, "OW", b"\0\0")  # an overlay with data of its own takes no bit
    assert refusal(source(image)) == "value_range"


@pytest.mark.parametrize("name", ["explicit-le", "rle", "jpeg-lossless-sv1", "jpeg-extended",
                                  "jpeg-2000-lossless", "jpeg-2000-signed"])  # fmt: skip
def test_bright_tissue_is_not_wrapped_to_black(name: str) -> None:
    assert refusal(changed(ROW[name], BitsStored=10, HighBit=9)) == "value_range"


def test_padding_outside_the_stored_range_is_not_wrapped_to_white() -> None:
    image = exams.dataset(View.LCC, PLAIN)
    pixels = exams.codes(View.LCC, PLAIN)
    image.add_new(0x00280120, "US", 65535)
    image.PixelData = np.where(pixels == 0, 65535, pixels).astype(np.uint16).tobytes()
    assert refusal(source(image)) == "value_range"


def test_bits_below_the_stored_ones_are_not_dropped() -> None:
    image = exams.dataset(View.LCC, ROW["high-bit-15"])
    pixels = np.frombuffer(image.PixelData, np.uint16)
    image.PixelData = (pixels | 1).tobytes()
    assert refusal(source(image)) == "value_range"


def test_sign_extension_is_cleared_to_twos_complement() -> None:
    variant = ROW["signed"]
    image = exams.dataset(View.LCC, variant)
    expected = exams.codes(View.LCC, variant)
    extended = ((expected.astype(np.int16) << 4) >> 4).astype(np.uint16)
    image.PixelData = extended.tobytes()
    assert np.array_equal(decode(source(image)).pixels, expected)
    extended[40, 40] ^= 0x8000
    image.PixelData = extended.tobytes()
    assert refusal(source(image)) == "value_range"


def test_eight_signed_bits_keep_their_sign_in_sixteen() -> None:
    variant = Variant(
        name="x", syntax=gate.JPEG_2000_LOSSLESS, bits_stored=8, signed=True, bits_allocated=16
    )
    stored = decode(source(exams.dataset(View.LCC, variant)))
    assert stored.pixels.dtype == np.uint16
    assert np.array_equal(stored.pixels, exams.codes(View.LCC, variant))


def test_several_fragments_are_one_frame() -> None:
    image = exams.dataset(View.LCC, ROW["jpeg-ls"])
    frame = exams.compress(exams.codes(View.LCC, PLAIN), ROW["jpeg-ls"])
    for has_table in (True, False):
        image.PixelData = encapsulate([frame], fragments_per_frame=3, has_bot=has_table)
        assert np.array_equal(decode(source(image)).pixels, exams.codes(View.LCC, PLAIN))


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


def test_damaged_run_lengths_are_no_header() -> None:
    image = exams.dataset(View.LCC, ROW["rle"])
    image.PixelData = encapsulate([bytes(200)])
    with pytest.raises(DicomReadError) as caught:
        decode(source(image))
    assert caught.value.found.startswith("pixel data that does not parse")


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


COMPRESSED = [row for row in VARIANTS if row.syntax in gate.ACCEPTED_SYNTAXES
              - gate.NATIVE_SYNTAXES - {gate.RLE} and not row.signed]  # fmt: skip


@pytest.mark.parametrize("variant", COMPRESSED, ids=lambda variant: variant.name)
def test_a_frame_must_agree_with_the_header(variant: Variant) -> None:
    pixels = exams.codes(View.LCC, variant)
    wider = np.ascontiguousarray(np.pad(pixels, ((0, 0), (0, 8))))
    frame = exams.compress(pixels, variant)
    cases = {
        "codestream_size": framed(variant, exams.compress(wider, variant)),
        "truncated": framed(variant, frame[:-40]),
        "codestream_process": framed(variant, b"\xff\xd8\xff\xd9"),
    }
    if variant.syntax in gate.JPEG_LS_SYNTAXES:  # the encoder writes 16 bits; make it say 8
        head = b"\xff\xf7\x00\x0b"
        frame = frame.replace(head + b"\x10", head + b"\x08")
        cases["codestream_precision"] = framed(variant, frame)
    elif variant.bits_stored == 12:
        cases["codestream_precision"] = changed(variant, BitsStored=13, HighBit=12)
    for reason, image in cases.items():
        with pytest.raises(PixelError) as caught:
            decode(image)
        assert caught.value.code == reason


def test_a_frame_in_another_process_than_the_transfer_syntax_is_refused() -> None:
    lossy = exams.compress(exams.codes(View.LCC, PLAIN), ROW["jpeg-extended"])
    for name in ("jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000-lossless"):
        with pytest.raises(PixelError) as caught:
            decode(framed(ROW[name], lossy))
        assert caught.value.code == "codestream_process"


def test_a_jp2_file_is_no_codestream() -> None:
    boxed = imagecodecs.jpeg2k_encode(exams.codes(View.LCC, PLAIN), codecformat="JP2")
    with pytest.raises(PixelError) as caught:
        decode(framed(ROW["jpeg-2000-lossless"], boxed))
    assert caught.value.code == "codestream_process"


def test_a_frame_of_another_sign_is_refused() -> None:
    with pytest.raises(PixelError) as caught:
        decode(changed(ROW["jpeg-2000-signed"], PixelRepresentation=0))
    assert caught.value.code == "codestream_sign"


@pytest.mark.parametrize(
    ("place", "value", "found"),
    [
        (6, 0x40, "HTJ2K in the frame"),  # bit 14 of Rsiz: Part 15 block coding
        (43, 2, "no frame header in the frame"),  # XRsiz: every second column
        (44, 2, "no frame header in the frame"),
    ],
)
def test_jpeg_2000_of_another_kind_is_refused(place: int, value: int, found: str) -> None:
    variant = ROW["jpeg-2000-lossless"]
    stream = bytearray(exams.compress(exams.codes(View.LCC, variant), variant))
    stream[place] = value
    with pytest.raises(PixelError) as caught:
        decode(framed(variant, bytes(stream)))
    assert caught.value.code == "codestream_process"
    assert caught.value.found == found


def test_a_file_exchanged_after_the_exam_was_read_is_noticed(tmp_path: Path) -> None:
    first, second, *_ = exams.write_exam(tmp_path, PLAIN)
    exam = read_exam(tmp_path)
    first.write_bytes(second.read_bytes())
    with pytest.raises(DicomReadError) as caught:
        decode(exam.images[View.LCC])
    assert caught.value.code == "changed"
    assert decode(exam.images[View.RCC]).view == View.RCC


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


@pytest.mark.parametrize("variant", COMPRESSED, ids=lambda variant: variant.name)
def test_damaged_frames_lead_to_pixels_or_to_a_named_error(variant: Variant) -> None:
    frame = exams.compress(exams.codes(View.LCC, variant), variant)
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(frame)
        for place in random.integers(2, len(frame) - 2, 3):
            damaged[place] = random.integers(256)
        try:
            stored = decode(framed(variant, bytes(damaged)))
        except MammoClipError:
            continue
        assert stored.pixels.shape == (variant.rows, variant.columns)


def test_frame_headers_end_where_their_bytes_end() -> None:
    jpeg = exams.compress(exams.codes(View.LCC, PLAIN), ROW["jpeg-lossless-sv1"])
    header = read_jpeg(jpeg)
    assert header is not None
    assert (header.rows, header.columns, header.precision) == (96, 80, 12)
    assert header.process == "SOF3"
    stream = exams.compress(exams.codes(View.LCC, PLAIN), ROW["jpeg-2000-lossless"])
    size = read_jpeg2000(stream)
    assert size is not None
    assert (size.rows, size.columns, size.components, size.precision) == (96, 80, 1, 12)
    assert not size.signed
    assert {read_jpeg(jpeg[:length]) for length in range(600)} == {None, header}
    assert {read_jpeg2000(stream[:length]) for length in range(100)} == {None, size}
