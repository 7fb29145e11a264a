"""A frame agrees with its header and stays within limits, or an error says what is wrong."""

from __future__ import annotations

import exams
import imagecodecs
import numpy as np
import pytest
from exams import PLAIN, VARIANTS, Variant
from source_images import ROW, changed, coded, frame_of, framed, refusal, source, textured

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.errors import MammoClipError, PixelError
from mammoclip_sdk.exam import View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.pixels import frame as frame_module
from mammoclip_sdk.pixels.codestream import read_jpeg, read_jpeg2000


def test_damaged_run_lengths_are_an_error() -> None:
    frame = frame_of(ROW["rle"])
    second = int.from_bytes(frame[8:12], "little")
    cut = frame[:8] + (second - 50).to_bytes(4, "little") + frame[12 : second - 50] + frame[second:]
    for damaged in (bytes(200), frame[:-100], frame + bytes(64), cut, b"\x01" + frame[1:]):
        assert refusal(framed(ROW["rle"], damaged)) == "decode_failed"


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
