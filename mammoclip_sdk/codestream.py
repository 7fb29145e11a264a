"""The headers of JPEG, JPEG-LS and JPEG 2000 frames, read before a decoder is trusted with them.

A frame that promises other dimensions than its DICOM header is how a small file asks for
gigabytes; one that promises another precision would be shown with the wrong grey values.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_NOT_FRAMES = frozenset({0xC4, 0xC8, 0xCC})  # DHT, JPG, DAC lie among the SOF markers
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RSTn, SOI have no length
_SOF55 = 0xF7  # JPEG-LS
_START_OF_SCAN = 0xDA
_HIGH_THROUGHPUT = 0x4000  # bit 14 of Rsiz: Part 15 block coding


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


def read_jpeg(stream: bytes) -> FrameHeader | None:
    """Read the first frame header (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2); None without one."""
    at = 2
    if stream[:2] != b"\xff\xd8":
        return None
    while at + 4 <= len(stream) and stream[at] == 0xFF:
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


def read_jpeg2000(stream: bytes) -> FrameHeader | None:
    """Read the SIZ segment (ISO 15444-1 A.5.1) of a raw codestream; None for anything else.

    A JP2 file is no raw codestream, and DICOM does not allow it (PS3.5 A.4.4).
    """
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 45:
        return None
    capabilities, right, lower, left, upper = struct.unpack_from(">HIIII", stream, 6)
    components, depth, step_x, step_y = struct.unpack_from(">HBBB", stream, 40)
    if (step_x, step_y) != (1, 1):
        return None
    return FrameHeader(
        rows=lower - upper,
        columns=right - left,
        components=components,
        precision=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        process="HTJ2K" if capabilities & _HIGH_THROUGHPUT else "JPEG 2000",
    )
