"""Codestreams that lie: small frames that ask a decoder for gigabytes, or for ever."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from assurance.part10 import File

HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
_HUGE = 40_000
"""Rows and columns of what no 100 x 100 header should lead to."""
_LARGEST, _LARGEST_2000 = 8_000, 5_600
"""Rows and columns of what is just within the accepted limits, JPEG 2000 having its own."""
_RATIO = 490
"""Bytes of pixels to a byte of frame, just within the accepted limit."""


def frame_bombs(plain: File) -> Iterator[tuple[str, File]]:
    """Yield the name and the file of each."""
    yield from _run_length_bombs(plain)
    yield from _jpeg_bombs(plain)
    yield from _jpeg_ls_bombs(plain)
    yield from _jpeg2000_bombs(plain)


def _run_length_bombs(plain: File) -> Iterator[tuple[str, File]]:
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


def _jpeg(bits: int, side: int = 100, *, lossless: bool = False) -> bytes:
    depth = np.uint8 if bits == 8 else np.uint16
    pixels = (np.indices((side, side)).sum(0) % 2**bits).astype(depth)
    return bytes(
        imagecodecs.jpeg8_encode(
            pixels, lossless=lossless, bitspersample=None if bits == 8 else bits
        )
    )


def _frame_header(marker: int, rows: int, columns: int, bits: int, components: int = 1) -> bytes:
    body = struct.pack(">BHHB", bits, rows, columns, components)
    body += b"".join(bytes([number % 256, 0x11, 0]) for number in range(components))
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _resized(frame: bytes, rows: int, columns: int) -> bytes:
    """Return a JPEG whose frame header promises other dimensions."""
    at = next(
        at
        for at in range(len(frame))
        if frame[at] == 0xFF and frame[at + 1] in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)
    )
    return frame[: at + 5] + struct.pack(">HH", rows, columns) + frame[at + 9 :]


def _enlarged(frame: bytes) -> bytes:
    """Return a JPEG that promises the largest image, with zeros for most of its pixels."""
    filler = bytes(2 * _LARGEST**2 // _RATIO)
    return _resized(frame, _LARGEST, _LARGEST)[:-2] + filler + b"\xff\xd9"


def _jpeg_bombs(plain: File) -> Iterator[tuple[str, File]]:
    eight, twelve = _jpeg(8), _jpeg(12)
    lossless = _jpeg(12, lossless=True)
    small, byte = plain.sized(100, 100), plain.sized(100, 100, 8)
    large, byte_large = plain.sized(_LARGEST, _LARGEST), plain.sized(_LARGEST, _LARGEST, 8)

    def baseline(frame: bytes, header: File = byte) -> File:
        return header.in_syntax(JPEGBaseline8Bit, frame)

    yield "JPEG, SOF of 40000 x 40000", baseline(_resized(eight, _HUGE, _HUGE))
    yield "JPEG, no lines", baseline(_resized(eight, 0, 100))
    no_lines = _resized(eight, 0, 100)[:-2] + b"\xff\xdc\x00\x04\xff\xff\xff\xd9"
    yield "JPEG, DNL of 65535 lines", baseline(no_lines)
    for marker in (0xC0, 0xC2, 0xC3, 0xC9, 0xF7):
        second = _frame_header(marker, _LARGEST, _LARGEST, 8)
        scan = eight.index(b"\xff\xda")
        name = f"JPEG, a second frame header {marker:02X}"
        yield name, baseline(eight[:scan] + second + eight[scan:])
        yield f"{name} first", baseline(eight[:2] + second + eight[2:])
    yield (
        "JPEG, 5,000 frame headers",
        baseline(eight[:2] + _frame_header(0xC0, 100, 100, 8) * 5_000 + eight[2:]),
    )
    yield (
        "JPEG, 255 components",
        baseline(eight[:2] + _frame_header(0xC0, 100, 100, 8, 255) + eight[2:]),
    )
    yield "JPEG, 100 MB of fill bytes", baseline(eight[:2] + b"\xff" * 10**8 + eight[2:])
    yield (
        "JPEG, 100 MB of restart markers",
        baseline(eight[:-2] + b"\xff\xd0" * 50_000_000 + b"\xff\xd9"),
    )
    yield (
        "JPEG, 100 MB of comments",
        baseline(eight[:2] + b"\xff\xfe\x00\x02" * 25_000_000 + eight[2:]),
    )
    yield "JPEG, 100 MB behind the end", baseline(eight + bytes(10**8) + b"\xff\xd9")
    yield "JPEG, largest image, no data", baseline(_enlarged(eight), byte_large)
    yield (
        "JPEG, restart interval of 1",
        baseline(eight[:2] + b"\xff\xdd\x00\x04\x00\x01" + eight[2:]),
    )
    yield "JPEG, progressive, 2,000 scans", baseline(_progressive(100, 2_000))
    yield (
        "JPEG, progressive, largest, 500 scans",
        baseline(_enlarged(_progressive(100, 500)), byte_large),
    )
    scan = eight[eight.index(b"\xff\xda") : -2]
    yield "JPEG, baseline, 2,000 scans", baseline(eight[:-2] + scan * 2_000 + b"\xff\xd9")
    yield (
        "JPEG, 12 bits, largest, no data",
        large.in_syntax(JPEGExtended12Bit, _enlarged(twelve)),
    )
    yield (
        "JPEG Lossless, largest, no data",
        large.in_syntax(JPEGLosslessSV1, _enlarged(lossless)),
    )
    scan = lossless[lossless.index(b"\xff\xda") : -2]
    many = lossless[:-2] + scan * 2_000 + b"\xff\xd9"
    yield "JPEG Lossless, 2,000 scans", small.in_syntax(JPEGLosslessSV1, many)
    yield (
        "JPEG Lossless, largest, 2,000 scans",
        large.in_syntax(JPEGLosslessSV1, _enlarged(many)),
    )
    at = lossless.index(b"\xff\xda")
    for predictor in (0, 8, 255):
        frame = bytearray(lossless)
        frame[at + 7] = predictor
        yield (
            f"JPEG Lossless, predictor {predictor}",
            small.in_syntax(JPEGLosslessSV1, bytes(frame)),
        )


def _progressive(side: int, scans: int) -> bytes:
    buffer = io.BytesIO()
    pixels = (np.indices((side, side)).sum(0) % 256).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * scans + b"\xff\xd9"


def _jpeg_ls_bombs(plain: File) -> Iterator[tuple[str, File]]:
    pixels = (np.indices((100, 100)).sum(0) % 4096).astype(np.uint16)
    frame = bytes(imagecodecs.jpegls_encode(pixels))
    small, large = plain.sized(100, 100), plain.sized(_LARGEST, _LARGEST)
    at = frame.index(b"\xff\xda")

    def parameters(*words: int) -> bytes:
        return b"\xff\xf8\x00\x0d\x01" + struct.pack(">5H", *words)

    for name, segment in (
        ("of zeros", parameters(0, 0, 0, 0, 0)),
        ("all 65535", parameters(*(65535,) * 5)),
        ("thresholds backwards", parameters(4095, 3000, 2000, 1000, 64)),
        ("reset after each", parameters(4095, 18, 67, 276, 1)),
        ("never reset", parameters(4095, 18, 67, 276, 65535)),
        ("of kind 4, huge", b"\xff\xf8\x00\x0c\x04\x04" + struct.pack(">2I", 2**31, 2**31)),
        ("a mapping table", b"\xff\xf8\x00\x07\x02\x01\x02\x00\x00"),
        ("cut short", b"\xff\xf8\x00\x02"),
    ):
        yield (
            f"JPEG-LS, LSE {name}",
            small.in_syntax(JPEGLSLossless, frame[:at] + segment + frame[at:]),
        )
    yield (
        "JPEG-LS, largest, no data",
        large.in_syntax(JPEGLSLossless, _enlarged(frame)),
    )
    for filler in (b"\x00", b"\x7f", b"\xff\x7f"):
        flood = frame[: at + 10] + filler * (2**23 // len(filler)) + b"\xff\xd9"
        yield (
            f"JPEG-LS, largest, 8 MB of {filler.hex()}",
            large.in_syntax(JPEGLSLossless, _enlarged(flood)),
        )
    for near, interleave in ((255, 0), (0, 1), (0, 2), (0, 255)):
        scan = bytearray(frame)
        scan[at + 7], scan[at + 8] = near, interleave
        yield (
            f"JPEG-LS, near {near}, interleave {interleave}",
            small.in_syntax(JPEGLSLossless, bytes(scan)),
        )


def _size_segment(
    rows: int,
    columns: int,
    *,
    tile: tuple[int, int] | None = None,
    components: int = 1,
    precision: int = 12,
    step: int = 1,
    offset: int = 0,
    capabilities: int = 0,
) -> bytes:
    tile_rows, tile_columns = tile or (rows, columns)
    sides = (columns + offset, rows + offset, offset, offset, tile_columns, tile_rows, 0, 0)
    body = struct.pack(">H8IH", capabilities, *sides, components)
    body += bytes([precision - 1, step, step]) * components
    return b"\xff\x51" + struct.pack(">H", len(body) + 2) + body


def _codestream(
    size: bytes,
    *,
    decompositions: int = 5,
    layers: int = 1,
    block: tuple[int, int] = (4, 4),
    precincts: bytes = b"",
    data: bytes = bytes(64),
) -> bytes:
    """Return a JPEG 2000 codestream of one tile whose packets are empty (one zero bit each)."""
    style = bytes([1 if precincts else 0])
    coding = struct.pack(">BHBBBBBB", 0, layers, 0, decompositions, *block, 0, 1) + precincts
    exponents = bytes([8 << 3]) * (3 * decompositions + 1)
    return (
        b"\xff\x4f"
        + size
        + b"\xff\x52"
        + struct.pack(">H", len(coding) + 3)
        + style
        + coding
        + b"\xff\x5c"
        + struct.pack(">H", len(exponents) + 3)
        + bytes([0x40])
        + exponents
        + b"\xff\x90\x00\x0a\x00\x00"
        + struct.pack(">IBB", 14 + len(data), 0, 1)
        + b"\xff\x93"
        + data
        + b"\xff\xd9"
    )


def _enlarged_2000(size: bytes, **options: Any) -> bytes:
    """Return a codestream of the largest image, with zeros for its packets."""
    return _codestream(size, **{"data": bytes(2 * _LARGEST_2000**2 // _RATIO), **options})


def _jpeg2000_bombs(plain: File) -> Iterator[tuple[str, File]]:
    small, large = plain.sized(100, 100), plain.sized(_LARGEST_2000, _LARGEST_2000)
    siz = _size_segment
    side = _LARGEST_2000

    def jpeg2000(frame: bytes, header: File = small, syntax: str = JPEG2000Lossless) -> File:
        return header.in_syntax(syntax, frame)

    yield "J2K, nothing in it", jpeg2000(_codestream(siz(100, 100)))
    yield "J2K, 40000 x 40000 under 100 x 100", jpeg2000(_codestream(siz(_HUGE, _HUGE)))
    yield "J2K, 100 x 100 under 5600 x 5600", jpeg2000(_codestream(siz(100, 100)), large)
    yield (
        "J2K, largest, nothing in it",
        jpeg2000(_enlarged_2000(siz(side, side)), large),
    )
    yield "J2K, tiles of 1 x 1", jpeg2000(_codestream(siz(100, 100, tile=(1, 1))))
    yield (
        "J2K, largest, tiles of 1 x 1",
        jpeg2000(_enlarged_2000(siz(side, side, tile=(1, 1))), large),
    )
    yield (
        "J2K, largest, 64,000 tiles",
        jpeg2000(_enlarged_2000(siz(side, side, tile=(32, 32))), large),
    )
    yield "J2K, tiles of 0 x 0", jpeg2000(_codestream(siz(100, 100, tile=(0, 0))))
    yield "J2K, 16,384 components", jpeg2000(_codestream(siz(100, 100, components=16_384)))
    yield "J2K, 32 bits", jpeg2000(_codestream(siz(100, 100, precision=32)))
    yield "J2K, 38 bits", jpeg2000(_codestream(siz(100, 100, precision=38)))
    yield (
        "J2K, signed where the header is not",
        jpeg2000(_codestream(siz(100, 100, precision=12 + 128))),
    )
    yield "J2K, subsampled 255 times", jpeg2000(_codestream(siz(100, 100, step=255)))
    yield "J2K, offset of 4 billion", jpeg2000(_codestream(siz(100, 100, offset=2**32 - 101)))
    yield "J2K, 32 decompositions", jpeg2000(_codestream(siz(100, 100), decompositions=32))
    yield "J2K, 65,535 layers", jpeg2000(_codestream(siz(100, 100), layers=65_535))
    yield (
        "J2K, largest, 65,535 layers",
        jpeg2000(_enlarged_2000(siz(side, side), layers=65_535), large),
    )
    yield "J2K, code-blocks too large", jpeg2000(_codestream(siz(100, 100), block=(255, 255)))
    for exponent in (0, 1, 4):
        tiny = bytes([exponent * 17]) * 6
        yield (
            f"J2K, precincts of {2**exponent}",
            jpeg2000(_codestream(siz(100, 100), precincts=tiny)),
        )
        yield (
            f"J2K, largest, precincts of {2**exponent}",
            jpeg2000(_enlarged_2000(siz(side, side), precincts=tiny), large),
        )
    yield (
        "J2K, largest, code-blocks of 4 x 4",
        jpeg2000(_enlarged_2000(siz(side, side), block=(0, 0)), large),
    )
    noise = np.random.default_rng(1).bytes(2**20)
    yield (
        "J2K, largest, noise for packets",
        jpeg2000(_enlarged_2000(siz(side, side), data=noise), large),
    )
    pixels = (np.indices((100, 100)).sum(0) % 4096).astype(np.uint16)
    boxed = bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="JP2", bitspersample=12))
    yield "J2K, in a JP2 file", jpeg2000(boxed + b"\xff\xd9")
    ht = siz(side, side, capabilities=0x4000)
    yield "HTJ2K, largest, nothing in it", jpeg2000(_enlarged_2000(ht), large, HTJ2K_LOSSLESS)
    yield (
        "HTJ2K, 40000 x 40000 under 100 x 100",
        jpeg2000(_codestream(siz(_HUGE, _HUGE, capabilities=0x4000)), small, HTJ2K_LOSSLESS),
    )
