"""Run lengths, JPEG and JPEG-LS that lie: small frames that ask for gigabytes, or for ever."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.uid import (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from assurance.part10 import File

HUGE = 40_000
"""Rows and columns of what no 100 x 100 header should lead to."""
RATIO = 490
"""Bytes of pixels to a byte of frame, just within the accepted limit."""
_LARGEST = 8_000
"""Rows and columns of what is just within the accepted limits."""
_END = b"\xff\xd9"
_FRAME_HEADERS = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)
_Named = Iterator[tuple[str, File]]


def jpeg_bombs(plain: File) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each."""
    for bombs in (_run_lengths, _baseline, _precisions, _lossless, _jpeg_ls, _jpeg_ls_floods):
        for name, file in bombs(plain):
            yield name, file.content()


def _run_lengths(plain: File) -> _Named:
    def rle(count: int, offsets: tuple[int, ...], data: bytes, side: int = 100) -> File:
        head = struct.pack("<16I", count, *offsets, *(0,) * (15 - len(offsets)))
        return plain.sized(side, side).in_syntax(RLELossless, head + data)

    runs = b"\x81\x00" * 100
    yield "RLE, 65535 x 65535 x 16", rle(2, (64, 66), b"\x81\x00\x81\x00", 65535)
    yield "RLE, largest image of 4 bytes", rle(2, (64, 66), b"\x81\x00\x81\x00", _LARGEST)
    plane = b"\x81\x00" * (_LARGEST**2 // 128)
    yield "RLE, largest image of runs", rle(2, (64, 64 + len(plane)), plane * 2, _LARGEST)
    yield "RLE, offsets beyond the end", rle(2, (64, 2**31), runs)
    yield "RLE, offsets of 4 GiB", rle(2, (0xFFFFFFFF, 0xFFFFFFFE), runs)
    yield "RLE, segments over the header", rle(2, (0, 4), runs)
    yield "RLE, segments that overlap", rle(2, (64, 64), runs)
    yield "RLE, segments backwards", rle(2, (128, 64), runs)
    yield "RLE, 4 billion segments", rle(0xFFFFFFFF, (64,), runs)
    yield "RLE, 15 segments", rle(15, tuple(range(64, 94, 2)), runs)
    yield "RLE, no segment", rle(0, (), runs)
    yield "RLE, runs for 2 GB", rle(2, (64, 70), b"\x81\x00" * 8_000_000)
    yield "RLE, a literal past the end", rle(2, (64, 66), b"\x00\x00\x7f\x00")
    yield "RLE, a header cut short", plain.sized(100, 100).in_syntax(RLELossless, b"\x02\0\0\0")


def _slope(bits: int) -> np.ndarray[tuple[int, int], np.dtype[np.integer]]:
    return (np.indices((100, 100)).sum(0) % 2**bits).astype(np.uint8 if bits == 8 else np.uint16)


def _jpeg(bits: int, *, lossless: bool = False) -> bytes:
    precision = None if bits == 8 else bits
    return bytes(imagecodecs.jpeg8_encode(_slope(bits), lossless=lossless, bitspersample=precision))


def _progressive(scans: int) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.fromarray(_slope(8)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * scans + _END


def _frame_header(marker: int, rows: int, columns: int, components: int = 1) -> bytes:
    body = struct.pack(">BHHB", 8, rows, columns, components)
    body += b"".join(bytes([number % 256, 0x11, 0]) for number in range(components))
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _resized(frame: bytes, rows: int, columns: int) -> bytes:
    """Return a JPEG whose frame header promises other dimensions."""
    markers = (bytes([0xFF, marker]) for marker in _FRAME_HEADERS)
    at = min(frame.index(marker) for marker in markers if marker in frame)
    return frame[: at + 5] + struct.pack(">HH", rows, columns) + frame[at + 9 :]


def _enlarged(frame: bytes) -> bytes:
    """Return a JPEG that promises the largest image, with zeros for most of its pixels."""
    filler = bytes(2 * _LARGEST**2 // RATIO)
    return _resized(frame, _LARGEST, _LARGEST)[:-2] + filler + _END


def _baseline(plain: File) -> _Named:
    frame, header = _jpeg(8), plain.sized(100, 100, 8)
    start, rest, inside = frame[:2], frame[2:], frame[:-2]
    scan = frame.index(b"\xff\xda")

    def baseline(frame: bytes) -> File:
        return header.in_syntax(JPEGBaseline8Bit, frame)

    no_lines = _resized(frame, 0, 100)
    counted = no_lines[:-2] + b"\xff\xdc\x00\x04\xff\xff" + _END
    yield "JPEG, SOF of 40000 x 40000", baseline(_resized(frame, HUGE, HUGE))
    yield "JPEG, no lines", baseline(no_lines)
    yield "JPEG, DNL of 65535 lines", baseline(counted)
    for marker in (0xC0, 0xC2, 0xC3, 0xC9, 0xF7):
        second = _frame_header(marker, _LARGEST, _LARGEST)
        name = f"JPEG, a second frame header {marker:02X}"
        yield name, baseline(frame[:scan] + second + frame[scan:])
        yield f"{name} first", baseline(start + second + rest)
    crowd = _frame_header(0xC0, 100, 100) * 5_000
    yield "JPEG, 5,000 frame headers", baseline(start + crowd + rest)
    many = _frame_header(0xC0, 100, 100, 255)
    yield "JPEG, 255 components", baseline(start + many + rest)
    yield "JPEG, 100 MB of fill bytes", baseline(start + b"\xff" * 10**8 + rest)
    yield "JPEG, 100 MB of restart markers", baseline(inside + b"\xff\xd0" * 50_000_000 + _END)
    comments = b"\xff\xfe\x00\x02" * 25_000_000
    yield "JPEG, 100 MB of comments", baseline(start + comments + rest)
    yield "JPEG, 100 MB behind the end", baseline(frame + bytes(10**8) + _END)
    large = plain.sized(_LARGEST, _LARGEST, 8)
    yield "JPEG, largest image, no data", large.in_syntax(JPEGBaseline8Bit, _enlarged(frame))
    yield "JPEG, restart interval of 1", baseline(start + b"\xff\xdd\x00\x04\x00\x01" + rest)
    yield "JPEG, progressive, 2,000 scans", baseline(_progressive(2_000))
    slow = large.in_syntax(JPEGBaseline8Bit, _enlarged(_progressive(500)))
    yield "JPEG, progressive, largest, 500 scans", slow
    again = inside + frame[scan:-2] * 2_000 + _END
    yield "JPEG, baseline, 2,000 scans", baseline(again)


def _precisions(plain: File) -> _Named:
    large = plain.sized(_LARGEST, _LARGEST)
    extended = large.in_syntax(JPEGExtended12Bit, _enlarged(_jpeg(12)))
    yield "JPEG, 12 bits, largest, no data", extended
    lossless = large.in_syntax(JPEGLosslessSV1, _enlarged(_jpeg(12, lossless=True)))
    yield "JPEG Lossless, largest, no data", lossless


def _lossless(plain: File) -> _Named:
    frame = _jpeg(12, lossless=True)
    scan = frame.index(b"\xff\xda")
    small, large = plain.sized(100, 100), plain.sized(_LARGEST, _LARGEST)
    many = frame[:-2] + frame[scan:-2] * 2_000 + _END
    yield "JPEG Lossless, 2,000 scans", small.in_syntax(JPEGLosslessSV1, many)
    slow = large.in_syntax(JPEGLosslessSV1, _enlarged(many))
    yield "JPEG Lossless, largest, 2,000 scans", slow
    for predictor in (0, 8, 255):
        other = frame[: scan + 7] + bytes([predictor]) + frame[scan + 8 :]
        yield f"JPEG Lossless, predictor {predictor}", small.in_syntax(JPEGLosslessSV1, other)


def _parameters(*words: int) -> bytes:
    return b"\xff\xf8\x00\x0d\x01" + struct.pack(">5H", *words)


def _jpeg_ls(plain: File) -> _Named:
    frame = bytes(imagecodecs.jpegls_encode(_slope(12)))
    scan = frame.index(b"\xff\xda")
    for name, segment in (
        ("of zeros", _parameters(0, 0, 0, 0, 0)),
        ("all 65535", _parameters(*(65535,) * 5)),
        ("thresholds backwards", _parameters(4095, 3000, 2000, 1000, 64)),
        ("reset after each", _parameters(4095, 18, 67, 276, 1)),
        ("never reset", _parameters(4095, 18, 67, 276, 65535)),
        ("of kind 4, huge", b"\xff\xf8\x00\x0c\x04\x04" + struct.pack(">2I", 2**31, 2**31)),
        ("a mapping table", b"\xff\xf8\x00\x07\x02\x01\x02\x00\x00"),
        ("cut short", b"\xff\xf8\x00\x02"),
    ):
        other = frame[:scan] + segment + frame[scan:]
        yield f"JPEG-LS, LSE {name}", plain.sized(100, 100).in_syntax(JPEGLSLossless, other)


def _jpeg_ls_floods(plain: File) -> _Named:
    frame = bytes(imagecodecs.jpegls_encode(_slope(12)))
    scan = frame.index(b"\xff\xda")
    small, large = plain.sized(100, 100), plain.sized(_LARGEST, _LARGEST)
    yield "JPEG-LS, largest, no data", large.in_syntax(JPEGLSLossless, _enlarged(frame))
    for filler in (b"\x00", b"\x7f", b"\xff\x7f"):
        flood = _enlarged(frame[: scan + 10] + filler * (2**23 // len(filler)) + _END)
        name = f"JPEG-LS, largest, 8 MB of {filler.hex()}"
        yield name, large.in_syntax(JPEGLSLossless, flood)
    for near, interleave in ((255, 0), (0, 1), (0, 2), (0, 255)):
        other = frame[: scan + 7] + bytes([near, interleave]) + frame[scan + 9 :]
        name = f"JPEG-LS, near {near}, interleave {interleave}"
        yield name, small.in_syntax(JPEGLSLossless, other)
