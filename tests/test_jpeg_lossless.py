"""JPEG frames are decoded as libjpeg-turbo, GDCM and PIL's encoders mean them, and whole or not."""

from __future__ import annotations

import io
from collections.abc import Callable

import exams
import gdcm
import imagecodecs
import numpy as np
import pytest
from exams import PLAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from source_images import ROW, frame_of, framed, refusal

from mammoclip_sdk._native import decode_jpeg_lossless, jpeg_blocks_fault
from mammoclip_sdk.errors import InputError
from mammoclip_sdk.exam import View
from mammoclip_sdk.pixels import decode

END = b"\xff\xd9"
SCAN = b"\xff\xda"
EARLY, LATE = "entropy-coded data that end early", "entropy-coded data that go on"


def codes_of(counts: list[int], values: list[int]) -> dict[int, str]:
    """Annex C: the code of every symbol, from how many there are of each length."""
    codes, code, following = {}, 0, iter(values)
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            codes[next(following)] = f"{code:0{length}b}"
            code += 1
        code <<= 1
    return codes


EVEN = [0, 0, 0, 0, 17, *[0] * 11]
GROWING = [*[1] * 11, 0, 0, 0, 0, 6]
"""Codes of 1 to 16 bits, for 17 categories."""


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def stuffed(bits: str, padding: str = "1") -> bytes:
    bits += padding * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:].replace(b"\xff", b"\xff\0")


def differences(samples: NDArray[np.int64], start: int, predictor: int) -> NDArray[np.int64]:
    """Of the rows of one restart interval, table H.1 and H.1.2.1."""
    left = np.roll(samples, 1, axis=1)
    above, corner = np.roll(samples, 1, axis=0), np.roll(left, 1, axis=0)
    predicted = {
        1: left,
        2: above,
        3: corner,
        4: left + above - corner,
        5: left + (above - corner >> 1),
        6: above + (left - corner >> 1),
        7: left + above >> 1,
    }[predictor].copy()
    predicted[:, 0] = above[:, 0]
    predicted[0] = left[0]
    predicted[0, 0] = start
    return (samples - predicted + 2**15) % 2**16 - 2**15


def coded(difference: int, codes: dict[int, str]) -> str:
    category = abs(difference).bit_length()
    if category in (0, 16):
        return codes[category]
    value = difference if difference > 0 else difference + 2**category - 1
    return codes[category] + f"{value:0{category}b}"


def encoded(
    pixels: NDArray[np.generic],
    bits: int,
    *,
    predictor: int = 1,
    transform: int = 0,
    interval: int = 0,
    counts: list[int] = EVEN,
    values: list[int] | None = None,
    padding: str = "1",
    data: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """Annexes B and H; ``interval`` in rows, and ``data`` changes each one's entropy-coded data."""
    rows, columns = pixels.shape
    values = list(range(17)) if values is None else values
    codes = codes_of(counts, values)
    samples = pixels.astype(np.int64) >> transform
    frame = b"\xff\xd8" + segment(
        0xC3, bytes([bits]) + np.array([rows, columns], ">u2").tobytes() + b"\x01\x01\x11\x00"
    )
    frame += segment(0xC4, b"\x00" + bytes(counts) + bytes(values))
    frame += segment(0xDD, (interval * columns).to_bytes(2, "big")) if interval else b""
    frame += segment(0xDA, bytes([1, 1, 0, predictor, 0, transform]))
    start = 2 ** (bits - transform - 1)
    for number, row in enumerate(range(0, rows, interval or rows)):
        frame += bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b""
        part = differences(samples[row : row + (interval or rows)], start, predictor)
        written = stuffed("".join(coded(int(each), codes) for each in part.ravel()), padding)
        frame += data(written)
    return frame + END


def pixel_type(bits: int) -> type[np.generic]:
    return np.uint8 if bits <= 8 else np.uint16


def decoded(
    frame: bytes | memoryview, shape: tuple[int, ...], dtype: type[np.generic]
) -> NDArray[np.generic] | str:
    pixels = np.zeros(shape, dtype)
    fault = decode_jpeg_lossless(frame, pixels)
    return pixels if fault is None else fault


def fault_of(frame: bytes, shape: tuple[int, int], dtype: type[np.generic] = np.uint16) -> str:
    found = decoded(frame, shape, dtype)
    assert isinstance(found, str), "a whole frame"
    return found


def by_gdcm(frame: bytes, shape: tuple[int, int], bits: int) -> NDArray[np.generic]:
    """Decode as GDCM does, whose libjpeg is the IJG's of 1998 with Bradley's lossless patch."""
    fragment, sequence = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(frame + b"\0" * (len(frame) % 2))
    sequence.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(sequence.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((shape[1], shape[0], 1))
    allocated = 8 if bits <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, bits, bits - 1, 0))
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14))
    image.SetDataElement(element)
    buffer = image.GetBuffer().encode("utf-8", errors="surrogateescape")
    return np.frombuffer(buffer, pixel_type(bits)).reshape(shape)


@st.composite
def images(draw: st.DrawFn, depths: tuple[int, int] = (2, 16)) -> tuple[NDArray[np.generic], int]:
    """Flat, smooth and noisy ones, whose differences need few bits and up to 16."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bits = draw(st.integers(*depths))
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    spread = 2 ** draw(st.integers(0, bits))
    pixels = (rng.integers(0, spread, shape) + draw(st.integers(0, 2**bits - 1))) % 2**bits
    return pixels.astype(pixel_type(bits)), bits


@settings(max_examples=200)
@given(images(), st.integers(1, 7))
def test_what_libjpeg_turbo_encodes_is_read(image, predictor):
    pixels, bits = image
    frame = imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=bits)
    for buffer in (bytes(frame), memoryview(bytes(frame)), bytes(frame) + b"\0"):
        np.testing.assert_array_equal(decoded(buffer, pixels.shape, pixels.dtype), pixels)
    wide = decoded(bytes(frame), pixels.shape, np.uint16)  # 8 bits in 16
    np.testing.assert_array_equal(wide, pixels)


@given(images((8, 16)))
def test_what_liblj92_encodes_is_read(image):
    pixels, bits = image
    if bits > 8 and min(pixels.shape) > 1:
        frame = bytes(imagecodecs.ljpeg_encode(pixels, bitspersample=bits))
        np.testing.assert_array_equal(decoded(frame, pixels.shape, pixels.dtype), pixels)


@settings(max_examples=300)
@given(images(), st.data())
def test_every_process_of_the_standard_is_read_as_libjpeg_turbo_reads_it(image, data):
    pixels, bits = image
    transform = data.draw(st.integers(0, bits - 1))
    frame = encoded(
        pixels,
        bits,
        predictor=data.draw(st.integers(1, 7)),
        transform=transform,
        interval=data.draw(st.integers(0, pixels.shape[0])),
        counts=data.draw(st.sampled_from((EVEN, GROWING))),
        values=data.draw(st.permutations(range(17))),
        padding=data.draw(st.sampled_from("01")),
    )
    found = decoded(frame, pixels.shape, pixels.dtype)
    np.testing.assert_array_equal(found, pixels >> transform << transform)
    np.testing.assert_array_equal(found, imagecodecs.jpeg8_decode(frame))


@given(images((8, 16)), st.integers(1, 7), st.integers(0, 3))
def test_what_is_read_is_what_gdcm_reads(image, predictor, interval):
    pixels, bits = image
    frame = encoded(pixels, bits, predictor=predictor, interval=min(interval, pixels.shape[0]))
    found = decoded(frame, pixels.shape, pixels.dtype)
    np.testing.assert_array_equal(found, by_gdcm(frame, pixels.shape, bits))


def test_differences_wrap_round_at_16_bits():
    pixels = np.array([[0, 0x8000, 0, 0xFFFF, 0, 0x7FFF, 0xFFFF]], np.uint16)
    for counts in (EVEN, GROWING):
        frame = encoded(pixels, 16, counts=counts)
        np.testing.assert_array_equal(decoded(frame, pixels.shape, np.uint16), pixels)
    # Table H.2: 0x8000 is the one difference of category 16, and has no bits behind its code.
    one = segment(0xC3, bytes([16, 0, 1, 0, 2, 1, 1, 0x11, 0]))
    one += segment(0xC4, bytes([0, 0, 2, *[0] * 14, 0, 16])) + segment(
        0xDA, bytes([1, 1, 0, 1, 0, 0])
    )
    found = decoded(b"\xff\xd8" + one + stuffed("0001") + END, (1, 2), np.uint16)
    np.testing.assert_array_equal(found, [[0x8000, 0]])


@given(images(), st.data())
def test_data_that_lost_or_gained_a_byte_are_refused_in_any_restart_interval(image, data):
    pixels, bits = image
    interval = data.draw(st.integers(0, pixels.shape[0]))
    part = data.draw(st.integers(0, -(-pixels.shape[0] // (interval or pixels.shape[0])) - 1))
    parts = iter(range(10**6))
    cut = data.draw(st.integers(1, 2000))
    harms = {
        EARLY: lambda written: written[: -min(cut, len(written))],
        LATE: lambda written: written + bytes([cut % 255]),
    }
    harm = data.draw(st.sampled_from(sorted(harms)))
    frame = encoded(
        pixels,
        bits,
        interval=interval,
        data=lambda written: harms[harm](written) if next(parts) == part else written,
    )
    assert fault_of(frame, pixels.shape, pixels.dtype).startswith(harm)


@given(images(), st.data())
def test_a_damaged_frame_is_refused_or_read_as_libjpeg_turbo_reads_it(image, data):
    pixels, bits = image
    frame = bytearray(encoded(pixels, bits, predictor=data.draw(st.integers(1, 7))))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    frame = bytes(frame[: data.draw(st.integers(len(frame) // 2, len(frame)))])
    found = decoded(frame, pixels.shape, pixels.dtype)
    if not isinstance(found, str):
        np.testing.assert_array_equal(found, imagecodecs.jpeg8_decode(frame))


IMAGE = np.random.default_rng(0).integers(0, 4096, (9, 11)).astype(np.uint16)
FRAME = encoded(IMAGE, 12, interval=3)
AT = FRAME.index(SCAN)


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (b"", "no start of an image"),
        (FRAME[1:], "no start of an image"),
        (FRAME[:AT], "a header that ends early"),
        (FRAME[: AT + 6], "a header that ends early"),
        (FRAME[:2] + b"\0" + FRAME[2:], "a marker out of place"),
        (FRAME[:2] + FRAME, "a header that ends early"),  # SOI has no length
        (FRAME[:2] + segment(0xDC, b"\0\x09") + FRAME[2:], "a marker out of place"),  # DNL
        (FRAME[:2] + segment(0xCC, b"\0\0") + FRAME[2:], "a marker out of place"),  # arithmetic
        (FRAME.replace(b"\xff\xc3", b"\xff\xc2"), "a marker out of place"),
        (FRAME.replace(b"\xff\xc3", b"\xff\xcb"), "a marker out of place"),
        (FRAME.replace(b"\xff\xc3", b"\xff\xc1"), "another process than JPEG Lossless"),
        (FRAME[:2] + FRAME[2:15] * 2 + FRAME[15:], "no frame header of one component"),
        (FRAME[:2] + FRAME[15:], "no frame header of one component"),
        (encoded(IMAGE[:8], 12), "another size than its image"),
        (FRAME.replace(b"\xff\xdd\0\x04\0\x21", b"\xff\xdd\0\x04\0\x20"), "restarts within rows"),
        (FRAME.replace(b"\xff\xdd\0\x04\0\x21", b"\xff\xdd\0\x04\0\x16"), LATE),
        (FRAME.replace(b"\xff\xd0", b"\xff\xd1"), "a marker out of place"),
        (FRAME.replace(b"\xff\xd1", b"\xff\xd9"), "a marker out of place"),
        (FRAME.replace(b"\xff\xd0", b""), "a marker out of place|samples beyond|" + LATE),
        (FRAME[:-2], "a marker out of place"),
        (FRAME[:-2] + b"\xff\xd2" + END, "a marker out of place"),
        (FRAME[:-2] + FRAME[AT:], "a marker out of place"),  # a second scan
        (FRAME + b"\x01", "bytes behind its end"),
        (FRAME + FRAME, "bytes behind its end"),
        (FRAME[: AT + 6] + b"\x10" + FRAME[AT + 7 :], "no Huffman codes of its differences"),
        (FRAME[: AT + 6] + b"\x40" + FRAME[AT + 7 :], "no scan header of its component"),
        (FRAME[: AT + 5] + b"\x02" + FRAME[AT + 6 :], "no scan header of its component"),
        (FRAME[: AT + 7] + b"\0" + FRAME[AT + 8 :], "a predictor that JPEG Lossless does not"),
        (FRAME[: AT + 7] + b"\x08" + FRAME[AT + 8 :], "a predictor that JPEG Lossless does not"),
        (FRAME[: AT + 8] + b"\x01" + FRAME[AT + 9 :], "a scan header that is not JPEG Lossless"),
        (FRAME[: AT + 9] + b"\x0c" + FRAME[AT + 10 :], "a scan header that is not JPEG Lossless"),
        (FRAME[: AT + 9] + b"\x10" + FRAME[AT + 10 :], "a scan header that is not JPEG Lossless"),
        (encoded(IMAGE, 16)[:6] + b"\x11" + encoded(IMAGE, 16)[7:], "another precision"),
        (encoded(IMAGE % 2, 2)[:6] + b"\x01" + encoded(IMAGE % 2, 2)[7:], "another precision"),
        (encoded(IMAGE, 12)[:6] + b"\x0a" + encoded(IMAGE, 12)[7:], "samples beyond its precision"),
    ],
)
def test_what_is_not_one_whole_frame_is_refused_with_its_reason(frame, fault):
    found = fault_of(frame, IMAGE.shape)
    assert any(found.startswith(each) for each in fault.split("|"))


def with_table(counts: list[int], values: bytes, kind: int = 0) -> bytes:
    table = segment(0xC4, bytes([kind, *counts]) + values)
    return FRAME[:AT] + table + FRAME[AT:]


@pytest.mark.parametrize(
    "table",
    [
        with_table([2, *[0] * 15], b"\0\1"),  # all ones is no code
        with_table([1, 2, *[0] * 14], b"\0\1\2"),
        with_table([3, *[0] * 15], b"\0\1\2"),
        with_table([255] * 16, bytes(4080)),
        with_table([0] * 15 + [200], bytes(100)),
        with_table(EVEN, bytes(17), kind=4),
        with_table(EVEN, bytes(17), kind=0x20),
        with_table(EVEN, bytes(17) + b"\1"),
        with_table(EVEN, bytes([*range(16), 17])),  # no such category
        with_table([0] * 16, b""),
    ],
)
def test_a_table_of_no_codes_is_refused(table):
    assert fault_of(table, IMAGE.shape) in (
        "a table of Huffman codes that is none",
        "no Huffman codes of its differences",
    )


def test_fill_bytes_comments_and_unused_tables_are_passed_over():
    frame = with_table(EVEN, bytes(17), kind=0x13).replace(b"\xff\xd1", b"\xff\xff\xff\xd1")
    frame = frame[:2] + segment(0xFE, b"\xff\xd9") + segment(0xE0, b"") + b"\xff\xff" + frame[2:]
    found = decoded(frame[:-2] + b"\xff\xff\xd9\0\0", IMAGE.shape, np.uint16)
    np.testing.assert_array_equal(found, IMAGE)


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (np.zeros(4, np.uint8), ValueError),
        (np.zeros((2, 4), np.uint8)[:, ::2], ValueError),
        (np.zeros((2, 2), np.int16), TypeError),
        (np.zeros((2, 2), ">u2"), TypeError),
        (np.frombuffer(bytes(4), np.uint8).reshape(2, 2), ValueError),  # read only
    ],
)
def test_an_array_that_cannot_take_the_pixels_is_refused(pixels, error):
    with pytest.raises(error):
        decode_jpeg_lossless(FRAME, pixels)


def by_pillow(pixels: NDArray[np.uint8], **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


@st.composite
def dct_frames(draw: st.DrawFn) -> tuple[bytes, tuple[int, int]]:
    """Of Pillow and imagecodecs: quality, restarts, tables and size as they come."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    spread = draw(st.sampled_from((1, 20, 256)))
    pixels = rng.integers(256 - spread, 256, shape).astype(np.uint8)
    quality = draw(st.integers(1, 100))
    optimize = draw(st.booleans())
    if draw(st.booleans()):
        restart = draw(st.sampled_from(("restart_marker_rows", "restart_marker_blocks", "quality")))
        options = {"quality": quality, "optimize": optimize} | {
            restart: draw(st.integers(1, 20)) if restart != "quality" else quality
        }
        return by_pillow(pixels, **options), shape
    bits = draw(st.sampled_from((8, 12)))
    if bits == 12:
        pixels = pixels.astype(np.uint16) * 16
    return bytes(imagecodecs.jpeg8_encode(pixels, level=quality, bitspersample=bits)), shape


@settings(max_examples=200)
@given(dct_frames(), st.integers(0, 1))
def test_a_frame_of_every_encoder_is_whole(coded_frame, zeros):
    frame, shape = coded_frame
    assert jpeg_blocks_fault(frame + bytes(zeros), *shape) is None


@given(dct_frames(), st.data())
def test_blocks_that_lost_or_gained_a_byte_are_refused(coded_frame, data):
    frame, shape = coded_frame
    begin = frame.rindex(SCAN) + 10
    cut = data.draw(st.integers(1, len(frame) - 2 - begin))
    assert jpeg_blocks_fault(frame[: -2 - cut] + END, *shape) is not None
    assert str(jpeg_blocks_fault(frame[:-2] + b"\x55" + END, *shape)).startswith(LATE)


NOISE = np.random.default_rng(1).integers(0, 256, (24, 40)).astype(np.uint8)
BLOCKS = by_pillow(NOISE, restart_marker_rows=1)


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (b"", "no start of an image"),
        (by_pillow(NOISE[:23]), "another size than its image"),
        (by_pillow(NOISE, progressive=True), "a marker out of place"),
        (BLOCKS.replace(b"\xff\xc0", b"\xff\xc3"), "another process than sequential DCT"),
        (BLOCKS.replace(b"\xff\xd0", b"\xff\xd1"), "a marker out of place"),
        (BLOCKS.replace(b"\xff\xdd\0\x04\0\x05", b"\xff\xdd\0\x04\0\x04"), LATE),
        (BLOCKS.replace(b"\xff\xdd\0\x04\0\x05", b"\xff\xdd\0\x04\0\x06"), EARLY),
        (BLOCKS.replace(b"\x3f\0", b"\x3e\0"), "a scan header that is not sequential DCT"),
        (BLOCKS.replace(b"\xff\xc4", b"\xff\xfe"), "no Huffman codes of its coefficients"),
        (BLOCKS + b"\x01", "bytes behind its end"),
        (by_pillow(np.stack([NOISE] * 3, 2)), "no frame header of one component"),
    ],
)
def test_what_is_not_one_whole_frame_of_blocks_is_refused_with_its_reason(frame, fault):
    assert str(jpeg_blocks_fault(frame, *NOISE.shape)).startswith(fault)
    assert jpeg_blocks_fault(BLOCKS, *NOISE.shape) is None


def test_a_run_beyond_its_block_and_a_code_that_is_none_are_refused():
    header = b"\xff\xd8" + segment(0xC0, bytes([8, 0, 8, 0, 8, 1, 1, 0x11, 0]))
    header += segment(0xC4, bytes([0, 1, *[0] * 15, 0]))
    header += segment(0xC4, bytes([0x10, 0, 3, *[0] * 14, 0x00, 0xF0, 0x20]))
    header += segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
    whole, beyond, unknown, none = "000", "0" + "01" * 4, "010", "011"
    assert jpeg_blocks_fault(header + stuffed(whole) + END, 8, 8) is None
    assert jpeg_blocks_fault(header + stuffed("0" + "01" * 3 + "00") + END, 8, 8) is None
    for data in (beyond, unknown):
        fault = jpeg_blocks_fault(header + stuffed(data) + END, 8, 8)
        assert fault == "a block of more than 64 coefficients"
    assert str(jpeg_blocks_fault(header + stuffed(none) + END, 8, 8)).startswith(EARLY)


def lost_end(frame: bytes, begin: int) -> bytes:
    return frame[: begin + (len(frame) - begin) * 6 // 10] + END


def lost_middle(frame: bytes, begin: int) -> bytes:
    size = len(frame) - begin
    return frame[: begin + size * 4 // 10] + frame[begin + size * 6 // 10 :]


def zeroed(frame: bytes, begin: int, end: int) -> bytes:
    return frame[:begin] + bytes(end - begin) + frame[end:]


def zeroed_middle(frame: bytes, begin: int) -> bytes:
    size = len(frame) - begin
    return zeroed(frame, begin + size * 4 // 10, begin + size * 6 // 10)


def zeroed_end(frame: bytes, begin: int) -> bytes:
    return zeroed(frame, begin + (len(frame) - begin) * 6 // 10, len(frame) - 2)


@pytest.mark.parametrize("harm", [lost_end, lost_middle, zeroed_middle, zeroed_end])
@pytest.mark.parametrize(
    "name",
    [
        "jpeg-lossless",
        "jpeg-lossless-sv1",
        "jpeg-lossless-8-in-16",
        "jpeg-baseline",
        "jpeg-extended",
    ],
)
def test_a_view_whose_frame_lost_a_part_is_refused(name, harm):
    """Each ends with EOI, as it should, and libjpeg-turbo decodes it, with pixels of its own."""
    frame = frame_of(ROW[name]).rstrip(b"\0")
    harmed = harm(frame, frame.rindex(SCAN) + 10)
    assert imagecodecs.jpeg8_decode(harmed).shape == exams.codes(View.LCC, ROW[name]).shape
    assert refusal(framed(ROW[name], harmed)) == "decode_failed"


def test_the_refusal_says_what_the_frame_lacks():
    frame = frame_of(ROW["jpeg-lossless-sv1"]).rstrip(b"\0")
    with pytest.raises(InputError, match=f"a frame with {EARLY}"):
        decode(framed(ROW["jpeg-lossless-sv1"], lost_end(frame, frame.rindex(SCAN) + 10)))
    assert np.array_equal(
        decode(framed(ROW["jpeg-lossless-sv1"], frame)).pixels, exams.codes(View.LCC, PLAIN)
    )
