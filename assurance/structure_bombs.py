"""Files whose structure lies: lengths, sequences, elements and fragments beyond reason."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    RLELossless,
)

from assurance.part10 import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    MAGIC,
    PIXEL_DATA,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    File,
    bare,
    element,
    encapsulated,
    even,
    file_meta,
)

_PRIVATE = 0x00091001
_SEQUENCE = 0x00081140
_VIEW_CODES = 0x00540220
_MILLION = 1_000_000
_START, _END = element(_SEQUENCE, "SQ", b"", UNDEFINED), bare(SEQUENCE_END)
_ITEM_START, _ITEM_STOP = bare(ITEM, length=UNDEFINED), bare(ITEM_END)
_Named = Iterator[tuple[str, File]]


def structure_bombs(plain: File) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each."""
    yield from _scraps()
    for bombs in (_lengths, _nestings, _crowds, _repetitions, _misnomers):
        for name, file in bombs(plain):
            yield name, file.content()


def pixel_bombs(plain: File) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each whose Pixel Data are not what is said of them."""
    for bombs in (_native_pixels, _encapsulations):
        for name, file in bombs(plain):
            yield name, file.content()


def _scraps() -> Iterator[tuple[str, bytes]]:
    start = bytes(128) + MAGIC
    for length in (0, 1, 127, 128, 131):
        yield f"a file of {length} bytes", start[:length]
    yield "the magic and nothing", start
    yield "the magic and a byte", start + b"\x02"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("image.dcm", bytes(2**20))
    yield "a zip renamed", archive.getvalue()
    yield "file meta that never ends", start + file_meta("1.2") * 50_000
    yield "file meta of 4 GiB", start + element(0x20001, "OB", b"", 0xFFFFFFF0)
    # A megabyte of zeros, deflated behind a full flush, may be repeated as often as one likes.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(b"")
    zeros = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = zeros * 2048 + packer.flush()
    yield "deflated, 2 GiB of zeros", start + file_meta(DeflatedExplicitVRLittleEndian) + bomb


def _lengths(plain: File) -> _Named:
    for vr in (*LONG_VRS, *SHORT_VRS):
        for length in (0xFFFFFFF0, UNDEFINED, 2**31):
            yield f"{vr} of {length:#x}", plain.having(_PRIVATE, element(_PRIVATE, vr, b"", length))


def _nestings(plain: File) -> _Named:
    opened, closed = _START + _ITEM_START, _ITEM_STOP + _END
    for depth in (17, 1_000, 20_000):
        nested = opened * depth + closed * depth
        yield f"{depth:,} sequences in one another", plain.having(_SEQUENCE, nested)
    yield "20,000 sequences that do not end", plain.having(_SEQUENCE, opened * 20_000)
    defined = b""
    for _ in range(3_000):
        defined = element(_SEQUENCE, "SQ", bare(ITEM, defined))
    yield "3,000 sequences of stated length", plain.having(_SEQUENCE, defined)
    unknown = element(_PRIVATE, "UN", b"", UNDEFINED) + _ITEM_START
    yield "20,000 unknown sequences", plain.having(_PRIVATE, unknown * 20_000)


def _crowds(plain: File) -> _Named:
    yield "a million empty items", plain.having(_SEQUENCE, _START + bare(ITEM) * _MILLION + _END)
    codes = element(_VIEW_CODES, "SQ", bare(ITEM) * _MILLION)
    yield "a million items in the view's code", plain.having(_VIEW_CODES, codes)
    empty = element(_PRIVATE, "LO", b"") * _MILLION
    yield "a million empty elements", plain.having(_PRIVATE, empty)
    rising = b"".join(element(0x00090000 + 2 * n, "LO", b"") for n in range(30_000))
    yield "a million tags, rising", plain.having(0x00090000, rising)
    large = element(_PRIVATE, "OB", bytes(17 * 2**20))
    yield "a header of 17 MB in one value", plain.having(_PRIVATE, large)
    many = b"".join(element(0x00091000 + n, "UN", bytes(900)) for n in range(19_000))
    yield "a header of 17 MB in 19,000 values", plain.having(_PRIVATE, many)


def _repetitions(plain: File) -> _Named:
    pixels = plain.elements[PIXEL_DATA]
    for tag in (0x00280010, 0x00100010, 0x00080018, _VIEW_CODES):
        yield f"{tag:08X} twice", plain.having(tag, plain.elements[tag] * 2)
    yield "Pixel Data twice", plain.having(PIXEL_DATA, pixels * 2)
    yield "Pixel Data first", plain.having(0x00080000, pixels)
    inside = element(_SEQUENCE, "SQ", bare(ITEM, pixels))
    alone = plain.having(PIXEL_DATA, b"").having(_SEQUENCE, inside)
    yield "Pixel Data in a sequence alone", alone
    floats = element(0x7FE00008, "OF", bytes(96 * 80 * 4))
    yield "Float Pixel Data", plain.having(PIXEL_DATA, floats)
    backwards = b"".join(plain.elements[tag] for tag in sorted(plain.elements, reverse=True))
    yield "tags backwards", File(elements={0: backwards}, syntax=plain.syntax)


def _misnomers(plain: File) -> _Named:
    yield "file meta again in the dataset", plain.having(0x1, file_meta("1.2.3"))
    yield "delimiters alone", plain.having(0x1, (_ITEM_STOP + _END) * 100_000)
    yield "Big Endian by name", File(elements=plain.elements, syntax=ExplicitVRBigEndian)
    endless = File(elements=plain.elements, syntax="1." * 30_000 + "1")
    yield "a transfer syntax of 1 MB", endless
    for name, magic in (("PE", b"MZ"), ("ELF", b"\x7fELF"), ("Mach-O", b"\xcf\xfa\xed\xfe"),
                        ("PDF", b"%PDF-1.7"), ("TIFF", b"II*\0")):  # fmt: skip
        polyglot = File(elements=plain.elements, preamble=magic.ljust(128, b"\0"))
        yield f"also a {name} file", polyglot


def _native_pixels(plain: File) -> _Named:
    four = element(PIXEL_DATA, "OW", bytes(4))
    for rows, columns in ((65535, 65535), (0, 0), (65535, 1), (1, 65535), (8192, 8192), (64, 64)):
        file = plain.sized(rows, columns).having(PIXEL_DATA, four)
        yield f"native, {rows} x {columns} in 4 bytes", file
    for length in (0, 2**31, UNDEFINED, 0xFFFFFFFE):
        lying = plain.having(PIXEL_DATA, element(PIXEL_DATA, "OW", bytes(4), length))
        yield f"native, of {length:#x} bytes by its own word", lying
    for tag, name in ((0x00280010, "Rows"), (0x00280100, "Bits Allocated")):
        for vr in ("UL", "OW", "SS", "DS", "SQ", "UN", "AT"):
            value = bytes(4) if vr == "SQ" else struct.pack("<I", 96)
            yield f"{name} as {vr}", plain.having(tag, element(tag, vr, value))
    for samples, frames in ((65535, "1"), (3, "1"), (1, "2147483647"), (0, "-1"), (1, "1e9")):
        file = plain.having(0x00280002, element(0x00280002, "US", struct.pack("<H", samples)))
        file = file.having(0x00280008, element(0x00280008, "IS", even(frames.encode())))
        yield f"native, {samples} samples, {frames} frames", file
    pixels = element(PIXEL_DATA, "OW", bytes(range(256)) * 125 * 4_000)
    yield "native, the largest image", plain.sized(8_000, 8_000, 16).having(PIXEL_DATA, pixels)


def _encapsulations(plain: File) -> _Named:
    def file(data: bytes, syntax: str = JPEG2000Lossless) -> File:
        return File(elements=plain.having(PIXEL_DATA, data).elements, syntax=syntax)

    native = plain.elements[PIXEL_DATA]
    for syntax in (JPEG2000Lossless, RLELossless):
        yield f"{syntax.name} by name, native by nature", file(native, syntax)
        yield f"{syntax.name}, no fragments", file(encapsulated(), syntax)
        yield f"{syntax.name}, a million fragments", file(encapsulated(*[b"ab"] * _MILLION), syntax)
        yield f"{syntax.name}, empty fragments", file(encapsulated(*[b""] * _MILLION), syntax)
    start = element(PIXEL_DATA, "OB", b"", UNDEFINED)
    yield "an offset table of 16 MB", file(start + bare(ITEM, bytes(2**24)) + bare(SEQUENCE_END))
    yield "an item of 4 GiB", file(start + bare(ITEM) + bare(ITEM, b"", 0xFFFFFFF0))
    yield "an item of undefined length", file(start + bare(ITEM, b"", UNDEFINED) * 50_000)
    yield "no offset table", file(start + bare(SEQUENCE_END))
    yield "no end", file(start + bare(ITEM) + bare(ITEM, b"\xff\x4f\xff\x51"))
    yield "elements for items", file(start + element(_PRIVATE, "LO", b"") * 100_000)
