"""JPEG 2000 codestreams that lie, most of them without a single coefficient in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless

from assurance.jpeg_bombs import HUGE, RATIO
from assurance.part10 import File

_SIDE = 5_600
"""Rows and columns of what is just within the accepted limits of JPEG 2000."""
_HIGH_THROUGHPUT = 0x4000  # in the capabilities, ISO/IEC 15444-15
_EXPONENTS = (0, 1, 4)
_Named = Iterator[tuple[str, bytes]]


def jpeg2000_bombs(plain: File) -> _Named:
    """Yield the name and the bytes of each."""
    small, large = plain.sized(100, 100), plain.sized(_SIDE, _SIDE)
    for frames, header, syntax in (
        (_lying_sizes, small, JPEG2000Lossless),
        (_lying_codings, small, JPEG2000Lossless),
        (_largest, large, JPEG2000Lossless),
        (_huge_htj2k, small, HTJ2KLossless),
        (_largest_htj2k, large, HTJ2KLossless),
    ):
        for name, frame in frames():
            yield name, header.in_syntax(syntax, frame).content()


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


def _enlarged(**options: Any) -> bytes:
    """Return a codestream of the largest image, with zeros for its packets."""
    in_size = {key: options.pop(key) for key in ("tile", "capabilities") if key in options}
    size = _size_segment(_SIDE, _SIDE, **in_size)
    return _codestream(size, **{"data": bytes(2 * _SIDE**2 // RATIO), **options})


def _precincts(exponent: int) -> bytes:
    return bytes([exponent * 17]) * 6


def _lying_sizes() -> _Named:
    for name, size in (
        ("nothing in it", _size_segment(100, 100)),
        ("40000 x 40000 under 100 x 100", _size_segment(HUGE, HUGE)),
        ("tiles of 1 x 1", _size_segment(100, 100, tile=(1, 1))),
        ("tiles of 0 x 0", _size_segment(100, 100, tile=(0, 0))),
        ("16,384 components", _size_segment(100, 100, components=16_384)),
        ("32 bits", _size_segment(100, 100, precision=32)),
        ("38 bits", _size_segment(100, 100, precision=38)),
        ("signed where the header is not", _size_segment(100, 100, precision=12 + 128)),
        ("subsampled 255 times", _size_segment(100, 100, step=255)),
        ("offset of 4 billion", _size_segment(100, 100, offset=2**32 - 101)),
    ):
        yield f"J2K, {name}", _codestream(size)


def _lying_codings() -> _Named:
    size = _size_segment(100, 100)
    yield "J2K, 32 decompositions", _codestream(size, decompositions=32)
    yield "J2K, 65,535 layers", _codestream(size, layers=65_535)
    yield "J2K, code-blocks too large", _codestream(size, block=(255, 255))
    for exponent in _EXPONENTS:
        name = f"J2K, precincts of {2**exponent}"
        yield name, _codestream(size, precincts=_precincts(exponent))
    pixels = (np.indices((100, 100)).sum(0) % 4096).astype(np.uint16)
    boxed = bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="JP2", bitspersample=12))
    yield "J2K, in a JP2 file", boxed + b"\xff\xd9"


def _largest() -> _Named:
    yield "J2K, 100 x 100 under 5600 x 5600", _codestream(_size_segment(100, 100))
    yield "J2K, largest, nothing in it", _enlarged()
    yield "J2K, largest, tiles of 1 x 1", _enlarged(tile=(1, 1))
    yield "J2K, largest, 64,000 tiles", _enlarged(tile=(32, 32))
    yield "J2K, largest, 65,535 layers", _enlarged(layers=65_535)
    for exponent in _EXPONENTS:
        name = f"J2K, largest, precincts of {2**exponent}"
        yield name, _enlarged(precincts=_precincts(exponent))
    yield "J2K, largest, code-blocks of 4 x 4", _enlarged(block=(0, 0))
    noise = np.random.default_rng(1).bytes(2**20)
    yield "J2K, largest, noise for packets", _enlarged(data=noise)


def _huge_htj2k() -> _Named:
    size = _size_segment(HUGE, HUGE, capabilities=_HIGH_THROUGHPUT)
    yield "HTJ2K, 40000 x 40000 under 100 x 100", _codestream(size)


def _largest_htj2k() -> _Named:
    yield "HTJ2K, largest, nothing in it", _enlarged(capabilities=_HIGH_THROUGHPUT)
