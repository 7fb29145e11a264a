"""Stored values come back exactly, or an error says what in the header or the frame is wrong."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exams
import imagecodecs
import numpy as np
import pytest
from exams import PLAIN, VARIANTS, Variant
from PIL import Image, Jpeg2KImagePlugin
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.header import described
from mammoclip_sdk.errors import DicomReadError, InputError, MammoClipError, PixelError
from mammoclip_sdk.exam import SourceImage, View, Window
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.pixels import frame as frame_module
from mammoclip_sdk.pixels.codestream import read_jpeg, read_jpeg2000
from mammoclip_sdk.views import read_exam
from training.encodings import write

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


def frame_of(variant: Variant) -> bytes:
    return next(generate_frames(exams.dataset(View.LCC, variant).PixelData, number_of_frames=1))


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


def test_damaged_run_lengths_are_an_error() -> None:
    frame = frame_of(ROW["rle"])
    second = int.from_bytes(frame[8:12], "little")
    cut = frame[:8] + (second - 50).to_bytes(4, "little") + frame[12 : second - 50] + frame[second:]
    for damaged in (bytes(200), frame[:-100], frame + bytes(64), cut, b"\x01" + frame[1:]):
        assert refusal(framed(ROW["rle"], damaged)) == "decode_failed"


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
        (-5, "US", [1, 2, 300], [1, 2, 300]),  # after a negative intercept
        (0, "OW", b"\1\2\3\0", [1, 2, 3]),  # 8-bit entries in pairs, and one to fill the word
    ],
)
def test_a_lut_may_begin_below_zero_and_have_its_entries_in_pairs(
    first: int, vr: str, data: Any, expected: list[int]
) -> None:
    table = Dataset()
    table.add_new(0x00283002, "SS", [3, first, 16])
    table.add_new(0x00283006, vr, data)
    (lut,) = decode(changed(PLAIN, VOILUTSequence=[table])).display.voi_luts
    assert lut.first == first
    assert lut.data.tolist() == expected


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


@pytest.mark.parametrize(
    "variant",
    [row for row in COMPRESSED if row.tolerance == 0],
    ids=lambda variant: variant.name,
)
def test_zeros_behind_the_end_of_a_frame_are_no_damage(variant: Variant) -> None:
    pixels = exams.codes(View.LCC, variant)
    frame = exams.compress(pixels, variant)
    assert np.array_equal(decode(framed(variant, frame + bytes(4000))).pixels, pixels)
    assert refusal(framed(variant, frame + b"\xff\xff")) == "truncated"


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
    assert {read_jpeg2000(stream[:length]) for length in range(400)} == {None, size}


def coded(pixels: np.ndarray, bits: int, frame: bytes, syntax: str) -> SourceImage:
    rows, columns = pixels.shape
    variant = Variant(name="x", rows=rows, columns=columns, bits_stored=bits)
    image = exams.dataset(View.LCC, variant)
    image.file_meta.TransferSyntaxUID = syntax
    image.PixelData = encapsulate([frame])
    return source(image)


def textured(rows: int, columns: int, bits: int) -> np.ndarray:
    """A smooth image with noise, so that no resolution level is empty."""
    y, x = np.mgrid[:rows, :columns].astype(float)
    noise = np.random.default_rng(rows).normal(0, 0.02, x.shape)
    shown = 0.5 + 0.3 * np.sin(x / 20) * np.cos(y / 13) + noise
    return np.rint(shown.clip(0, 1) * (2**bits - 1)).astype(np.uint16)


def by_pillow(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000", no_jp2=True, **options)
    return file.getvalue()


def reduced_by_pillow(frame: bytes, levels: int, shape: tuple[int, int], bits: int) -> np.ndarray:
    image = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(frame))
    image.reduce = levels
    # Pillow rounds sides to the nearest number, where the standard rounds up.
    image._size = (shape[1] << levels, shape[0] << levels)
    return np.asarray(image) >> (16 - bits)


REDUCIBLE: dict[str, Callable[[np.ndarray], tuple[int, bytes]]] = {
    "5-3, 12 bits": lambda pixels: (12, by_imagecodecs(pixels, 12, reversible=True, level=0)),
    "9-7, 12 bits": lambda pixels: (12, by_imagecodecs(pixels, 12, reversible=False, level=60)),
    "LRCP": lambda pixels: (16, by_pillow(pixels, progression="LRCP")),
    "RLCP": lambda pixels: (16, by_pillow(pixels, progression="RLCP")),
    "RPCL, layers": lambda pixels: (16, by_pillow(pixels, progression="RPCL",
                                                  quality_layers=[80, 20, 5, 0])),
    "RPCL, precincts": lambda pixels: (16, by_pillow(pixels, progression="RPCL",
                                                     precinct_size=(128, 128))),
    "PCRL": lambda pixels: (16, by_pillow(pixels, progression="PCRL")),
    "CPRL": lambda pixels: (16, by_pillow(pixels, progression="CPRL")),
    "HTJ2K": lambda pixels: (16, imagecodecs.htj2k_encode(pixels, reversible=True, resolutions=5)),
    "HTJ2K 9-7": lambda pixels: (16, imagecodecs.htj2k_encode(pixels, reversible=False,
                                                              level=2**-12, resolutions=5)),
}  # fmt: skip


def by_imagecodecs(pixels: np.ndarray, bits: int, **options: Any) -> bytes:
    return imagecodecs.jpeg2k_encode(
        pixels, codecformat="J2K", bitspersample=bits, resolutions=6, **options
    )


@pytest.mark.parametrize("kind", REDUCIBLE)
@pytest.mark.parametrize("shape", [(512, 400), (333, 251)])
def test_a_reduced_image_is_the_one_another_decoder_gives(
    kind: str, shape: tuple[int, int]
) -> None:
    bits = 12 if "12" in kind else 16
    pixels = textured(*shape, bits)
    _, frame = REDUCIBLE[kind](pixels)
    syntax = gate.HTJ2K if "HTJ2K" in kind else gate.JPEG_2000
    header = read_jpeg2000(bytes(frame))
    assert header is not None
    assert header.skippable >= 4
    for levels in (1, 2, 3, 4, 9):
        stored = decode(coded(pixels, bits, bytes(frame), syntax), levels=levels)
        assert stored.reduction is not None
        done = stored.reduction.levels
        assert done == min(levels, header.skippable)
        assert stored.reduction.source_shape == shape
        assert stored.reduction.reversible == ("9-7" not in kind)
        reduced = (-(-shape[0] // 2**done), -(-shape[1] // 2**done))
        assert stored.pixels.shape == reduced
        expected = reduced_by_pillow(bytes(frame), done, reduced, bits)
        assert np.array_equal(stored.pixels, expected)
        assert stored.sha256 == hashlib.sha256(expected.tobytes()).hexdigest()


def test_a_reduced_signed_image_keeps_its_sign() -> None:
    variant = ROW["jpeg-2000-signed"]
    full = exams.codes(View.LCC, variant).astype(int)
    stored = decode(source(exams.dataset(View.LCC, variant)), levels=1)
    unsigned = decode(source(exams.dataset(View.LCC, ROW["jpeg-2000-lossless"])), levels=1)
    assert stored.reduction == unsigned.reduction
    assert stored.pixels.max() < 2**12
    assert np.array_equal(stored.pixels ^ 2**11, unsigned.pixels)
    assert (full >= 2**11).any()


@pytest.mark.parametrize(
    ("bits", "options"),
    [
        (16, {"progression": "LRCP", "quality_layers": [80, 20, 0]}),
        (16, {"progression": "PCRL", "precinct_size": (64, 64)}),
        (16, {"progression": "CPRL", "precinct_size": (64, 64)}),
        (16, {"tile_size": (128, 128)}),
        (16, {"num_resolutions": 1}),
        (12, {}),  # 16 bits in the frame: a reduced image overshoots where the full one does not
    ],
)
def test_what_cannot_be_reduced_is_decoded_in_full(bits: int, options: dict[str, Any]) -> None:
    pixels = textured(300, 280, bits)
    frame = by_pillow(pixels, **options)
    stored = decode(coded(pixels, bits, frame, gate.JPEG_2000_LOSSLESS), levels=2)
    assert stored.reduction is None
    whole = np.asarray(Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(frame)))
    assert np.array_equal(stored.pixels, whole)


def test_large_tiles_are_reduced_as_far_as_they_divide() -> None:
    pixels = textured(1100, 2100, 16)
    for side, most in ((1024, 5), (1028, 2), (1025, 0), (512, 0)):
        blank = np.zeros_like(pixels)
        header = read_jpeg2000(by_pillow(blank, tile_size=(side, side), num_resolutions=6))
        assert header is not None
        assert header.skippable == most
    frame = by_pillow(pixels, tile_size=(1028, 1028), num_resolutions=6)
    stored = decode(coded(pixels, 16, frame, gate.JPEG_2000), levels=3)
    assert stored.reduction is not None
    assert stored.reduction.levels == 2
    assert np.array_equal(stored.pixels, reduced_by_pillow(frame, 2, (275, 525), 16))


@pytest.mark.parametrize("name", ["explicit-le", "rle", "jpeg-lossless-sv1", "jpeg-ls"])
def test_other_encodings_are_decoded_in_full(name: str) -> None:
    stored = decode(source(exams.dataset(View.LCC, ROW[name])), levels=2)
    assert stored.reduction is None
    assert np.array_equal(stored.pixels, exams.codes(View.LCC, ROW[name]))


@pytest.mark.parametrize("syntax", sorted(gate.HTJ2K_SYNTAXES))
@pytest.mark.parametrize("bits", [12, 16])
def test_high_throughput_jpeg_2000_gives_the_stored_values(syntax: str, bits: int) -> None:
    pixels = textured(200, 168, bits)
    options = {"tlm": True, "tilepart": imagecodecs.HTJ2K.TILEPART.RESOLUTIONS}
    frame = bytes(imagecodecs.htj2k_encode(pixels, reversible=True, resolutions=4, **options))
    assert np.array_equal(decode(coded(pixels, bits, frame, syntax)).pixels, pixels)
    assert refusal(coded(pixels, bits, frame, gate.JPEG_2000)) == "codestream_process"


def patched(stream: bytes, marker: int, place: int, value: bytes) -> bytes:
    at = stream.index(bytes([0xFF, marker])) + 4 + place
    return stream[:at] + value + stream[at + len(value) :]


@pytest.mark.parametrize(
    ("marker", "place", "value"),
    [
        (0x51, 18, b"\0\0\0\1\0\0\0\1"),  # XTsiz and YTsiz: a tile for every pixel
        (0x52, 2, b"\xff\xff"),  # as many layers as there can be
    ],
)
def test_a_codestream_of_too_many_parts_reaches_no_decoder(
    marker: int, place: int, value: bytes
) -> None:
    frame = patched(frame_of(ROW["jpeg-2000-lossless"]), marker, place, value)
    assert refusal(framed(ROW["jpeg-2000-lossless"], frame)) == "codestream_limits"


@pytest.mark.parametrize(
    ("marker", "place", "value"),
    [
        (0x52, 5, b"\x21"),  # 33 levels
        (0x52, 6, b"\x09"),  # code-blocks of 2048
        (0x52, 2, b"\0\0"),  # no layer
        (0x51, 18, bytes(8)),  # tiles of nothing
        (0x51, 26, b"\0\0\1\0"),  # a first tile that begins within the image
        (0x90, 2, b"\0\0\0\x0d"),  # a tile-part that ends before its data
    ],
)
def test_a_codestream_that_the_standard_does_not_know_reaches_no_decoder(
    marker: int, place: int, value: bytes
) -> None:
    frame = patched(frame_of(ROW["jpeg-2000-lossless"]), marker, place, value)
    assert refusal(framed(ROW["jpeg-2000-lossless"], frame)) == "codestream_process"


def test_jpeg_2000_has_limits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = ROW["jpeg-2000-lossless"]
    assert refusal(changed(variant, Rows=6000, Columns=5334)) == "image_size"
    largest_detector = 5928 * 4728
    assert largest_detector < frame_module.MOST_JPEG_2000_PIXELS
    assert largest_detector * 9 / 8 < frame_module.MOST_JPEG_2000_BYTES
    size = len(frame_of(variant))
    monkeypatch.setattr(frame_module, "MOST_JPEG_2000_BYTES", size)
    decode(changed(variant))
    monkeypatch.setattr(frame_module, "MOST_JPEG_2000_BYTES", size - 1)
    assert refusal(changed(variant)) == "codestream_limits"


def test_a_frame_too_small_for_its_pixels_is_refused() -> None:
    blank = np.zeros((1024, 1024), np.uint16)
    frame = bytes(imagecodecs.jpegls_encode(blank))
    assert refusal(coded(blank, 16, frame, gate.JPEG_LS)) == "compression_ratio"


def test_a_frame_far_longer_than_its_pixels_is_not_searched() -> None:
    for name in ("jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000-lossless", "rle"):
        frame = frame_of(ROW[name])
        longer = frame[:2] + b"\xff" * 100_000 + frame[2:]
        assert refusal(framed(ROW[name], longer)) == "frame_length"
    jpeg = frame_of(ROW["jpeg-lossless-sv1"])
    comment = b"\xff\xfe\0\2"
    assert read_jpeg(jpeg[:2] + comment * 900 + jpeg[2:]) == read_jpeg(jpeg)
    assert read_jpeg(jpeg[:2] + comment * 1001 + jpeg[2:]) is None
    assert read_jpeg(jpeg[:2] + b"\xff" * 1001 + jpeg[2:]) is None
    stream = frame_of(ROW["jpeg-2000-lossless"])
    tile = stream.index(b"\xff\x90")
    comment = b"\xff\x64\0\2"
    assert read_jpeg2000(stream[:tile] + comment * 90 + stream[tile:]) == read_jpeg2000(stream)
    assert read_jpeg2000(stream[:tile] + comment * 100 + stream[tile:]) is None


def test_fragments_must_add_up() -> None:
    frame = frame_of(ROW["jpeg-ls"])
    image = exams.dataset(View.LCC, ROW["jpeg-ls"])
    item = b"\xfe\xff\x00\xe0"
    table = item + bytes(4)
    whole = table + item + len(frame).to_bytes(4, "little") + frame
    image.PixelData = whole + b"\xfe\xff\xdd\xe0" + bytes(4)
    assert np.array_equal(decode(source(image)).pixels, exams.codes(View.LCC, PLAIN))
    for data in (whole[:-1], whole + b"\0", whole + item, table * 5000, b"\0" * 400):
        image.PixelData = data
        assert refusal(source(image)) == "fragments"
    image.PixelData = table
    assert refusal(source(image)) == "truncated"


@pytest.mark.parametrize(
    ("syntax", "most"),
    [(gate.EXPLICIT_LITTLE, 1.1), (gate.JPEG_LOSSLESS_SV1, 1.3), (gate.RLE, 1.4)],
)
def test_no_view_is_held_twice(tmp_path: Path, syntax: str, most: float) -> None:
    """Of what Python, NumPy and the decoders' Python sides allocate, the file's bytes included."""
    variant = Variant(name="x", syntax=gate.EXPLICIT_LITTLE, rows=2048, columns=1664)
    path = tmp_path / "view"
    write(exams.dataset(View.LCC, variant), path, UID(syntax))
    image = SourceImage(view=View.LCC, name="x", path=path)
    decode(image)
    tracemalloc.start()
    try:
        stored = decode(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(stored.pixels, exams.codes(View.LCC, variant))
    assert peak < most * stored.pixels.nbytes


def test_out_of_memory_is_an_error_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(frame: Any) -> Any:
        raise MemoryError

    monkeypatch.setitem(frame_module._DECODERS, gate.JPEG_LS, without_memory)
    assert refusal(source(exams.dataset(View.LCC, ROW["jpeg-ls"]))) == "decoder_memory"
