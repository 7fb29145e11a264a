"""The headers of JPEG, JPEG-LS and JPEG 2000 frames, read before a decoder is trusted with them.

A frame that promises other dimensions than its DICOM header is how a small file asks for
gigabytes; one that promises another precision would be shown with the wrong grey values. A
JPEG 2000 codestream can moreover ask for millions of parts, and holds its own reduced image.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

_NOT_FRAMES = frozenset({0xC4, 0xC8, 0xCC})  # DHT, JPG, DAC lie among the SOF markers
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RSTn, SOI have no length
_SOF55 = 0xF7  # JPEG-LS
_START_OF_SCAN = 0xDA
_MOST_MARKERS = 1000  # before the frame header of JPEG, fill bytes included
_HIGH_THROUGHPUT = 0x4000  # bit 14 of Rsiz: Part 15 block coding

# Marker codes of ISO 15444-1 table A.2, without their FF.
_SIZ, _COD, _COC, _QCD, _QCC, _RGN, _POC = 0x51, 0x52, 0x53, 0x5C, 0x5D, 0x5E, 0x5F
_CAP, _TLM, _PLM, _PLT, _PPM, _PPT, _CRG, _COM = 0x50, 0x55, 0x57, 0x58, 0x60, 0x61, 0x63, 0x64
_START_OF_TILE, _START_OF_DATA = b"\xff\x90", b"\xff\x93"
_CODING = (_COD, _COC, _QCD, _QCC, _RGN, _POC)
_IN_MAIN = frozenset({_SIZ, *_CODING, _CAP, _TLM, _PLM, _PPM, _CRG, _COM})
_IN_TILE_PART = frozenset({*_CODING, _PLT, _PPT, _COM})
_LRCP, _RLCP, _RPCL = 0, 1, 2  # progression orders, table A.16
_STEP_BYTES = {0: 1, 1: 0, 2: 2}  # of a band in QCD, by its style, table A.28
_MOST_TILE_PARTS = 8192
_MOST_SEGMENTS = 100  # of the main header, or of one tile-part
_SMALLEST_REDUCED_TILE = 1024

Buffer = bytes | memoryview
Segments = dict[int, list[Buffer]]
"""By marker code: what follows each segment's length."""


@dataclass(frozen=True, kw_only=True)
class FrameHeader:
    """What a frame says it holds."""

    rows: int
    columns: int
    components: int
    precision: int
    """Bits a sample."""
    signed: bool
    process: str
    """``SOF0`` and so on, ``JPEG-LS``, ``JPEG 2000`` or ``HTJ2K``."""


def read_jpeg(stream: Buffer) -> FrameHeader | None:
    """Read the first frame header (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2); None without one."""
    at = 2
    if stream[:2] != b"\xff\xd8":
        return None
    for _ in range(_MOST_MARKERS):
        if at + 4 > len(stream) or stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        is_frame = (0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES) or marker == _SOF55
        if is_frame and at + 10 <= len(stream):
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
            return FrameHeader(
                rows=rows,
                columns=columns,
                components=components,
                precision=precision,
                signed=False,
                process="JPEG-LS" if marker == _SOF55 else f"SOF{marker - 0xC0}",
            )
        if marker == _START_OF_SCAN:
            return None
        at += 2 + int(struct.unpack_from(">H", stream, at + 2)[0])
    return None


@dataclass(frozen=True, kw_only=True)
class Jpeg2000Header(FrameHeader):
    """What a JPEG 2000 codestream's main header and the headers of its tile-parts say."""

    reversible: bool
    """Whether its wavelet is the 5-3 reversible one, and not the 9-7 irreversible one."""
    skippable: int
    """How many of the finest resolution levels `without_finest` can leave out."""
    parts: int
    """Tiles, code-blocks and precincts, at most; each costs a decoder memory."""
    packets: int
    """At most; a decoder visits every one, whether it holds data or not."""


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Where the image and its tiles lie, ISO 15444-1 A.5.1: (rows, columns) each."""

    end: tuple[int, int]
    begin: tuple[int, int]
    tile: tuple[int, int]
    first_tile: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        return self.end[0] - self.begin[0], self.end[1] - self.begin[1]

    @property
    def tiles(self) -> int:
        down, across = (
            -(-(self.end[axis] - self.first_tile[axis]) // self.tile[axis]) for axis in (0, 1)
        )
        return down * across


@dataclass(frozen=True, kw_only=True)
class _Coding:
    """A COD or COC segment, ISO 15444-1 A.6.1 and A.6.2; sizes as exponents of 2."""

    progression: int
    layers: int
    levels: int
    block: tuple[int, int]
    """(height, width) of a code-block."""
    precincts: tuple[tuple[int, int], ...]
    """(height, width) by resolution, the coarsest first; empty where they are the largest."""
    reversible: bool

    @property
    def coarsest_first(self) -> bool:
        """Whether no packet of a resolution comes before one of a coarser resolution."""
        if self.progression == _LRCP:
            return self.layers == 1
        return self.progression in (_RLCP, _RPCL) or not self.precincts

    def parts(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return (code-blocks, precincts) of a tile, at most: it may begin anywhere."""
        blocks = precincts = 0
        for resolution in range(self.levels + 1):
            largest = self.precincts[resolution] if self.precincts else (15, 15)
            bands, halved = (3, 1) if resolution else (1, 0)
            count, areas = bands, 1
            for side, block, precinct in zip(shape, self.block, largest, strict=True):
                length = _over(side, self.levels - resolution)
                count *= _over(length, min(block, precinct - halved) + halved) + 1
                areas *= _over(length, precinct) + 1
            blocks, precincts = blocks + count, precincts + areas
        return blocks, precincts


def read_jpeg2000(stream: Buffer) -> Jpeg2000Header | None:
    """Read the headers (ISO 15444-1 A.3 to A.6) of a raw codestream; None for anything else.

    A JP2 file is no raw codestream, and DICOM does not allow it (PS3.5 A.4.4).
    """
    if stream[:4] != b"\xff\x4f\xff\x51":
        return None
    try:
        main, tile_parts = _segments(stream)
        return _jpeg2000_header(main, tile_parts)
    except (ValueError, LookupError, ArithmeticError, struct.error):
        return None  # a segment is absent, out of place, twice there, or shorter than its fields


def without_finest(stream: Buffer, levels: int) -> bytes:
    """Return a codestream of the image without its finest resolution levels.

    ``levels`` is at most ``skippable``: the packets of coarser resolutions come first, so only the
    main header must change. It promises an image 2**levels times smaller; the bytes behind that
    image's packets are read by nobody.
    """
    pieces, at = [bytes(stream[:2])], 2
    while stream[at : at + 2] != _START_OF_TILE:
        marker, length = struct.unpack_from(">xBH", stream, at)
        body = bytearray(stream[at + 4 : at + 2 + length])
        if marker == _SIZ:
            sides = struct.unpack_from(">8I", body, 2)
            struct.pack_into(">8I", body, 2, *(_over(side, levels) for side in sides))
        elif marker == _COD:
            body[5] -= levels
            if body[0] & 1:
                del body[len(body) - levels :]
        elif marker == _QCD:
            del body[len(body) - 3 * levels * _STEP_BYTES[body[0] & 31] :]
        pieces.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
        at += 2 + length
    return b"".join([*pieces, stream[at:]])


def _over(side: int, exponent: int) -> int:
    """Divide by a power of two, rounding up."""
    return -(-side >> exponent)


def _segments(stream: Buffer) -> tuple[Segments, Segments]:
    """Return the segments of the main header, and those of all tile-parts together."""
    main: Segments = {}
    tile_parts: Segments = {}
    at = _collect(stream, 2, _START_OF_TILE, _IN_MAIN, main)
    for _ in range(_MOST_TILE_PARTS):
        length = int(struct.unpack_from(">I", stream, at + 6)[0])
        data = _collect(stream, at + 12, _START_OF_DATA, _IN_TILE_PART, tile_parts)
        if length and length < data + 2 - at:
            raise ValueError("a tile-part that ends within its header")
        at += length
        if not length or stream[at : at + 2] != _START_OF_TILE:  # the end, or nothing decodable
            return main, tile_parts
    raise ValueError("more tile-parts than any encoder writes")


def _collect(stream: Buffer, at: int, until: bytes, known: frozenset[int], found: Segments) -> int:
    """Add the segments from ``at`` on, and return where ``until`` stands."""
    for _ in range(_MOST_SEGMENTS):
        if stream[at : at + 2] == until:
            return at
        prefix, marker, length = struct.unpack_from(">BBH", stream, at)
        end = at + 2 + length
        if prefix != 0xFF or marker not in known or length < 2 or end > len(stream):
            raise ValueError("no segment that belongs here")
        found.setdefault(marker, []).append(stream[at + 4 : end])
        at = end
    raise ValueError("more segments than any encoder writes")


def _jpeg2000_header(main: Segments, tile_parts: Segments) -> Jpeg2000Header:
    [siz], [cod], [qcd] = main[_SIZ], main[_COD], main[_QCD]
    capabilities, *sides = struct.unpack_from(">H8I", siz)
    components, depth, *step = struct.unpack_from(">HBBB", siz, 34)
    end, begin, tile, first_tile = zip(sides[1::2], sides[::2], strict=True)
    grid = _Grid(end=end, begin=begin, tile=tile, first_tile=first_tile)
    if step != [1, 1] or min(grid.shape) < 1 or first_tile > begin:
        raise ValueError("a grid with steps, nothing on it, or tiles that begin within the image")
    codings = [_coding(body) for body in [cod, *tile_parts.get(_COD, [])]]
    for body in [*main.get(_COC, []), *tile_parts.get(_COC, [])]:
        # Behind the component's number, COC goes on as COD does behind the progression.
        codings.append(_coding(bytes([body[1], *cod[1:5], *body[2:]])))
    height, width = (min(sides) for sides in zip(tile, grid.shape, strict=True))
    counts = [coding.parts((height, width)) for coding in codings]
    blocks, precincts = (grid.tiles * max(count) for count in zip(*counts, strict=True))
    departures = {_COC, _QCC, _RGN, _POC, _PPM} & main.keys() or tile_parts.keys() - {_PLT, _COM}
    return Jpeg2000Header(
        rows=grid.shape[0],
        columns=grid.shape[1],
        components=components,
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        process="HTJ2K" if capabilities & _HIGH_THROUGHPUT else "JPEG 2000",
        reversible=codings[0].reversible,
        skippable=0 if departures else _skippable(grid, codings[0], qcd),
        parts=grid.tiles + blocks + precincts,
        packets=precincts * max(coding.layers for coding in codings),
    )


def _coding(body: Buffer) -> _Coding:
    style, progression, layers, levels, wide, high, filtering = struct.unpack_from(
        ">BBHxBBBxB", body
    )
    sizes = tuple((size >> 4, size & 15) for size in body[10:]) if style & 1 else ()
    too_many = levels > 32 or progression > 4 or filtering > 1
    if too_many or layers == 0 or wide > 8 or high > 8 or wide + high > 8:
        raise ValueError("values that ISO 15444-1 tables A.13 to A.20 do not have")
    if style & 1 and (len(sizes) != levels + 1 or not all(map(all, sizes[1:]))):
        raise ValueError("precincts that do not fit the resolutions")
    return _Coding(
        progression=progression,
        layers=layers,
        levels=levels,
        block=(high + 2, wide + 2),
        precincts=sizes,
        reversible=filtering == 1,
    )


def _skippable(grid: _Grid, coding: _Coding, qcd: Buffer) -> int:
    """Return how many levels `without_finest` can leave out of a stream that keeps to its COD."""
    step_bytes = _STEP_BYTES.get(qcd[0] & 31, 0)
    steps = (3 * coding.levels + 1) * step_bytes or 2  # derived: one step for all bands
    if not coding.coarsest_first or any(grid.begin + grid.first_tile) or len(qcd) != 1 + steps:
        return 0
    if grid.tiles == 1:
        return coding.levels
    # A tile's wavelets end at its border, which small tiles would show.
    if min(grid.tile) < _SMALLEST_REDUCED_TILE:
        return 0
    common = math.gcd(*grid.tile)
    return min(coding.levels, (common & -common).bit_length() - 1)
