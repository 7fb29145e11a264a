"""One compressed frame -> its pixels, by the decoder of its transfer syntax.

Every decoder here releases Python's lock, and came through tens of thousands of damaged frames
without a crash or a hang. They are shown only frames that agree with the DICOM header and stay
within limits that bound their memory and time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk._native import (
    decode_jpeg_lossless,
    decode_run_lengths,
    image_memory,
    jpeg2000_fault,
    jpeg_blocks_fault,
)
from mammoclip_sdk.dicom import gate
from mammoclip_sdk.exam import Reduction
from mammoclip_sdk.pixels.codestream import (
    Buffer,
    FrameHeader,
    Jpeg2000Header,
    read_jpeg,
    read_jpeg2000,
    without_finest,
)
from mammoclip_sdk.pixels.image_pixel import Layout, pixel_error
from mammoclip_sdk.processor import cores

_JPEG_LOSSLESS = frozenset({gate.JPEG_LOSSLESS, gate.JPEG_LOSSLESS_SV1})
_JPEG_DCT = gate.JPEG_SYNTAXES - _JPEG_LOSSLESS
JPEG_2000_FAMILY = gate.JPEG_2000_SYNTAXES | gate.HTJ2K_SYNTAXES
"""Part 1 and Part 15 of ISO 15444: one kind of codestream, one decoder."""
_PROCESSES = {
    gate.JPEG_BASELINE: ("SOF0",),
    gate.JPEG_EXTENDED: ("SOF0", "SOF1"),
    gate.JPEG_LOSSLESS: ("SOF3",),
    gate.JPEG_LOSSLESS_SV1: ("SOF3",),
    gate.JPEG_LS: ("JPEG-LS",),
    gate.JPEG_LS_NEAR: ("JPEG-LS",),
    gate.JPEG_2000_LOSSLESS: ("JPEG 2000",),
    gate.JPEG_2000: ("JPEG 2000",),
    **dict.fromkeys(gate.HTJ2K_SYNTAXES, ("HTJ2K",)),
}
MOST_FRAGMENTS = 4096
MOST_COMPRESSION = 500
"""Bytes of pixels for each of their compressed frame: no tissue is that smooth."""
MOST_EXPANSION, MOST_HEADER = 2, 2**16
"""Bytes of a frame for each of its pixels' bytes, and of what is around: noise needs no more."""
MOST_FILL = 4096
"""Bytes of a frame's end in which its last marker has to be."""
MOST_JPEG_2000_PIXELS = 32_000_000
MOST_JPEG_2000_BYTES = 32 * 2**20
"""OpenJPEG holds 4 bytes a pixel beside the 2 of the result, and keeps a copy of the frame; it
takes the longest of all decoders, by the byte. The largest detectors have 28 million pixels, which
take 9 bits each where a breast with the noise of 14 bits fills the image."""
MOST_JPEG_2000_PARTS = 2**17
MOST_JPEG_2000_PACKETS = 2**19
_MOST_THREADS = 4
"""Of one JPEG 2000 decoder; a thread takes address space, which isolation limits."""


_turns = ThreadPoolExecutor(1, "jpeg-2000")


def _take_new_turns() -> None:
    global _turns
    _turns = ThreadPoolExecutor(1, "jpeg-2000")


if hasattr(os, "register_at_fork"):  # the forked process has no thread but its own
    os.register_at_fork(after_in_child=_take_new_turns)


def _jpeg_2000(frame: Buffer) -> NDArray[Any]:
    """Decode by all cores, one image of this process at a time, in a thread that does nothing else.

    So no core is idle where a single view takes the longest, OpenJPEG's 4 bytes a pixel are there
    once, and the allocator gives the next image the memory that the last one needed.
    """
    decode: Any = imagecodecs.jpeg2k_decode  # takes more than its stub says
    try:
        turn = _turns.submit(decode, frame, numthreads=min(_MOST_THREADS, cores()))
    except RuntimeError:  # no thread to be had, as while the interpreter ends
        alone: NDArray[Any] = decode(frame, numthreads=1)
        return alone
    decoded: NDArray[Any] = turn.result()
    return decoded


_DECODERS: dict[str, Any] = {
    **dict.fromkeys(_JPEG_DCT, imagecodecs.jpeg8_decode),
    **dict.fromkeys(gate.JPEG_LS_SYNTAXES, imagecodecs.jpegls_decode),
    **dict.fromkeys(JPEG_2000_FAMILY, _jpeg_2000),
}
_ITEM, _SEQUENCE_DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"  # PS3.5 section 7.5


def decode_frame(
    data: memoryview, layout: Layout, syntax: str, *, levels: int, name: str
) -> tuple[NDArray[Any], Reduction | None]:
    """Decode encapsulated Pixel Data of one frame, whose stored bits may be anywhere.

    Returns
    -------
    tuple
        Pixels (rows, columns) of ``layout.dtype``, as the decoder gave them; signed JPEG 2000
        values as their two's complement. And what ``levels``, the number of finest resolution
        levels of JPEG 2000 to leave out at most, came to.

    Raises
    ------
    PixelError
        The frame is damaged, contradicts the header, or exceeds the limits of this module.
    """
    frame = _join_fragments(data, name)
    _require_length(frame, layout, name)
    if syntax == gate.RLE:
        _require_density(frame, layout, name)
        return _by_core(frame, layout, syntax, name), None
    header = _frame_header(frame, layout, syntax, name)
    _require_density(frame, layout, name)
    if syntax in _JPEG_LOSSLESS:
        return _by_core(frame, layout, syntax, name), None
    if syntax in _JPEG_DCT:  # its decoder makes up the blocks that are not there
        _require_whole(jpeg_blocks_fault(frame, layout.rows, layout.columns), name)
    elif syntax in JPEG_2000_FAMILY:  # nor do these tell what is missing
        _require_whole(jpeg2000_fault(frame), name)
    reduction = _reduction(header, layout, levels)
    return _compressed(frame, layout, syntax, name, reduction), reduction


def _join_fragments(data: memoryview, name: str) -> Buffer:
    """Join the fragments of the one frame, PS3.5 A.4; the offset table is not needed for that."""
    items: list[memoryview] = []
    at = 0
    while at < len(data) and data[at : at + 4] != _SEQUENCE_DELIMITER:
        tag, length = data[at : at + 4], data[at + 4 : at + 8]
        end = at + 8 + (int.from_bytes(length, "little") if len(length) == 4 else len(data))
        if tag != _ITEM or end > len(data) or len(items) > MOST_FRAGMENTS:
            expected = f"whole items, at most {MOST_FRAGMENTS}"
            raise pixel_error(name, "fragments that do not add up", expected, "fragments")
        items.append(data[at + 8 : end])
        at = end
    fragments = items[1:]  # the first one is the offset table
    return fragments[0] if len(fragments) == 1 else b"".join(fragments)


def _require_length(frame: Buffer, layout: Layout, name: str) -> None:
    pixels = layout.rows * layout.columns * layout.dtype.itemsize
    if len(frame) > MOST_EXPANSION * pixels + MOST_HEADER:
        raise pixel_error(
            name,
            f"a frame of {len(frame)} bytes for {layout.rows} x {layout.columns} pixels",
            "a frame no longer than twice its pixels",
            "frame_length",
        )


def _require_density(frame: Buffer, layout: Layout, name: str) -> None:
    if len(frame) * MOST_COMPRESSION < layout.rows * layout.columns * layout.dtype.itemsize:
        raise pixel_error(
            name,
            f"a frame of {len(frame)} bytes for {layout.rows} x {layout.columns} pixels",
            f"at most {MOST_COMPRESSION} bytes of pixels for each",
            "compression_ratio",
        )


def _by_core(frame: Buffer, layout: Layout, syntax: str, name: str) -> NDArray[Any]:
    size = layout.rows * layout.columns * layout.dtype.itemsize
    pixels = image_memory(size).view(layout.dtype).reshape(layout.rows, layout.columns)
    if syntax in _JPEG_LOSSLESS:
        _require_whole(decode_jpeg_lossless(frame, pixels), name)
    elif not decode_run_lengths(frame, pixels):
        _require_whole("run lengths that do not add up to the pixels", name)
    return pixels


def _require_whole(fault: str | None, name: str) -> None:
    if fault is not None:
        raise pixel_error(name, f"a frame with {fault}", "an undamaged frame", "decode_failed")


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as exc:
        # Each codec has its own exceptions, and their texts are not under this package's control.
        found = f"a frame that does not decode ({type(exc).__name__})"
        raise pixel_error(name, found, "an undamaged frame", "decode_failed") from None


def _compressed(
    frame: Buffer, layout: Layout, syntax: str, name: str, reduction: Reduction | None
) -> NDArray[Any]:
    levels = reduction.levels if reduction else 0
    with _decoding(name):
        decoded = _DECODERS[syntax](without_finest(frame, levels) if levels else frame)
    shape = layout.reduced_shape(levels)
    if decoded.shape != shape or decoded.dtype.itemsize > layout.dtype.itemsize:
        raise pixel_error(
            name,
            f"decoded pixels {decoded.shape} of {decoded.dtype}",
            f"{shape} of {layout.dtype}",
            "decoded_shape",
        )
    wide = np.dtype(f"{decoded.dtype.kind}{layout.dtype.itemsize}")  # keeps a sign
    pixels: NDArray[Any] = decoded.astype(wide, copy=False).view(layout.dtype)
    return pixels


def _reduction(header: FrameHeader, layout: Layout, levels: int) -> Reduction | None:
    # At edges a reduced image overshoots: where the frame has more bits than are stored, it would
    # leave their range, and nobody could tell that from a Bits Stored that is too small.
    if not isinstance(header, Jpeg2000Header) or header.precision != layout.bits_stored:
        return None
    levels = min(levels, header.skippable)
    if levels < 1:
        return None
    return Reduction(
        levels=levels,
        source_shape=(header.rows, header.columns),
        reversible=header.reversible,
    )


def _frame_header(frame: Buffer, layout: Layout, syntax: str, name: str) -> FrameHeader:
    # Every process accepted here ends with EOI or EOC; an even length may add one zero byte, and
    # some encoders fill up to a whole block.
    if not bytes(frame[-MOST_FILL:]).rstrip(b"\x00").endswith(b"\xff\xd9"):
        raise pixel_error(name, "a frame without its end", "a whole frame", "truncated")
    header = read_jpeg2000(frame) if syntax in JPEG_2000_FAMILY else read_jpeg(frame)
    if header is None or header.process not in _PROCESSES[syntax]:
        found = header.process if header else "no frame header"
        expected = " or ".join(_PROCESSES[syntax])
        raise pixel_error(name, f"{found} in the frame", expected, "codestream_process")
    _require_agreement(header, layout, name)
    if isinstance(header, Jpeg2000Header):
        _require_bounds(header, len(frame), name)
    return header


def _require_bounds(header: Jpeg2000Header, size: int, name: str) -> None:
    for found, most, what in (
        (size, MOST_JPEG_2000_BYTES, "bytes"),
        (header.parts, MOST_JPEG_2000_PARTS, "tiles, code-blocks and precincts"),
        (header.packets, MOST_JPEG_2000_PACKETS, "packets"),
    ):
        if found > most:
            found_text = f"a codestream of {found} {what}"
            raise pixel_error(name, found_text, f"at most {most}", "codestream_limits")


def _require_agreement(header: FrameHeader, layout: Layout, name: str) -> None:
    if (header.rows, header.columns, header.components) != (layout.rows, layout.columns, 1):
        raise pixel_error(
            name,
            f"a frame of {header.rows} x {header.columns} x {header.components}",
            f"{layout.rows} x {layout.columns} x 1, as the header says",
            "codestream_size",
        )
    if not layout.bits_stored <= header.precision <= layout.bits_allocated:
        raise pixel_error(
            name,
            f"a frame of {header.precision} bits",
            f"{layout.bits_stored} to {layout.bits_allocated} bits, as the header says",
            "codestream_precision",
        )
    if isinstance(header, Jpeg2000Header) and header.signed != layout.signed:
        raise pixel_error(
            name,
            "a frame and a Pixel Representation (0028,0103) of different sign",
            "both signed, or neither",
            "codestream_sign",
        )
