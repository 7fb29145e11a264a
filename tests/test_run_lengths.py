"""The native decoder of run lengths reads what pydicom packs, and nothing that pydicom does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.pixels.decoders.rle import _rle_decode_frame
from pydicom.pixels.encoders.native import _encode_segment

from mammoclip_sdk._native import decode_run_lengths

HEADER = 64


def framed(segments: list[bytes], *, count: int | None = None) -> bytes:
    offsets = HEADER + np.cumsum([0, *map(len, segments)])[:-1]
    header = np.zeros(16, "<u4")
    header[0] = len(segments) if count is None else count
    header[1 : 1 + len(segments)] = offsets
    return header.tobytes() + b"".join(segments)


def packed(pixels: NDArray[np.generic]) -> bytes:
    """One segment for each byte of a pixel, row by row, by pydicom's own encoder."""
    size = pixels.dtype.itemsize
    planes = np.moveaxis(pixels.view(np.uint8).reshape(*pixels.shape, size), -1, 0)
    columns = pixels.shape[1]
    return framed([bytes(_encode_segment(plane.tobytes(), columns)) for plane in planes[::-1]])


@st.composite
def images(draw: st.DrawFn) -> NDArray[np.generic]:
    """Few values make long runs, many make literals; more than a block of 2048 pixels, and less."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = np.dtype(draw(st.sampled_from((np.uint8, np.uint16))))
    shape = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    values = rng.integers(0, 2 ** (8 * dtype.itemsize), draw(st.sampled_from((1, 2, 300))))
    return np.repeat(rng.choice(values, shape), draw(st.integers(1, 4)), axis=1).astype(dtype)


def decoded(frame: bytes, shape: tuple[int, ...], dtype: np.dtype) -> NDArray[np.generic] | None:
    pixels = np.zeros(shape, dtype)
    return pixels if decode_run_lengths(frame, pixels) else None


@given(images())
def test_what_pydicom_packs_is_read(pixels):
    found = decoded(packed(pixels), pixels.shape, pixels.dtype)
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(
        decoded(memoryview(packed(pixels)), pixels.shape, pixels.dtype), pixels
    )


@given(images(), st.data())
def test_a_damaged_frame_is_refused_or_read_as_pydicom_reads_it(pixels, data):
    frame = bytearray(packed(pixels))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(frame) - 1))
        frame[place] = data.draw(st.integers(0, 255))
    frame = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    found = decoded(frame, pixels.shape, pixels.dtype)
    if found is None:
        return
    theirs = _rle_decode_frame(frame, *pixels.shape, 1, 8 * pixels.dtype.itemsize)
    np.testing.assert_array_equal(np.frombuffer(theirs, pixels.dtype), found.ravel())


@pytest.mark.parametrize(
    ("segment", "whole"),
    [
        (b"\x03abcd", True),
        (b"\xfda", True),  # a run of four
        (b"\x01ab\xff\x63", True),
        (b"\x80\x01ab\x80\x80\x01cd\x80", True),  # no-operations
        (b"\x03abcd\x00", True),  # padded to an even length
        (b"\x03abcd\x80\x00", True),
        (b"\x03abcd\x00\x00", False),
        (b"\x03abcd\x01", False),
        (b"\x03abcd\x00e", False),
        (b"\x04abcde", False),  # a literal that goes on
        (b"\xfca", False),  # a run that goes on
        (b"\x02abc", False),
        (b"\x03abc", False),  # a literal past the end
        (b"\x02abc\xff", False),  # a run of nothing
        (b"\x80" * 8, False),
        (b"", False),
    ],
)
def test_a_segment_holds_each_pixel_once(segment, whole):
    assert (decoded(framed([segment]), (2, 2), np.dtype(np.uint8)) is not None) == whole


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(63),
        bytes(64),
        framed([b"\x03abcd", b"\x03efgh"])[:-1],
        framed([b"\x03abcd", b"\x03efgh"], count=1),
        framed([b"\x03abcd", b"\x03efgh"], count=3),
        framed([b"\x03abcd", b"\x03efgh"], count=0xFFFFFFFF),
        framed([b"\x03abcd"]),
        framed([b"\x03abcd", b"\x03efgh", b"\x03ijkl"]),
        np.array([2, 64, 2**31, *[0] * 13], "<u4").tobytes() + b"\x03abcd\x03efgh",
        np.array([2, 64, 63, *[0] * 13], "<u4").tobytes() + b"\x03abcd\x03efgh",
        np.array([2, 0, 69, *[0] * 13], "<u4").tobytes() + b"\x03abcd\x03efgh",
        np.array([2, 66, 69, *[0] * 13], "<u4").tobytes() + b"\x03abcd\x03efgh",
        np.array([2, 2**32 - 1, 2**32 - 2, *[0] * 13], "<u4").tobytes() + b"\x03abcd\x03efgh",
    ],
)
def test_a_header_that_does_not_fit_is_refused(frame):
    assert decoded(frame, (2, 2), np.dtype(np.uint16)) is None


def test_the_most_significant_byte_comes_first():
    frame = framed([b"\x03\x01\x02\x03\x04", b"\xfd\xff"])
    found = decoded(frame, (1, 4), np.dtype(np.uint16))
    assert found is not None
    assert found.tolist() == [[0x01FF, 0x02FF, 0x03FF, 0x04FF]]


def read_only(pixels):
    pixels.flags.writeable = False
    return pixels


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (np.zeros(4, np.uint8), ValueError),
        (np.zeros((2, 4), np.uint8)[:, ::2], ValueError),
        (read_only(np.zeros((2, 2), np.uint8)), ValueError),
        (np.zeros((2, 2), np.int16), TypeError),
        (np.zeros((2, 2), ">u2"), TypeError),
    ],
)
def test_only_an_array_that_can_hold_pixels_is_written_to(pixels, error):
    with pytest.raises(error):
        decode_run_lengths(framed([b"\x03abcd"]), pixels)
    assert not pixels.any()


@pytest.mark.parametrize("frame", [np.zeros(70, np.uint16), memoryview(bytes(140))[::2]])
def test_a_frame_is_contiguous_bytes(frame):
    with pytest.raises(TypeError):
        decode_run_lengths(frame, np.zeros((2, 2), np.uint8))
