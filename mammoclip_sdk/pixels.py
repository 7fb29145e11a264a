"""One source image -> its stored values; the only place where pixels are decoded.

What a frame's own header promises is compared with the DICOM header before a decoder runs, and
what the decoder returns is compared again. No value is windowed, scaled or inverted here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_fragments
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import RLELossless

from mammoclip_sdk import gate
from mammoclip_sdk.codestream import FrameHeader, read_jpeg, read_jpeg2000
from mammoclip_sdk.errors import DicomReadError, PixelError
from mammoclip_sdk.exam import DisplayAttributes, SourceImage, StoredImage
from mammoclip_sdk.header import Header
from mammoclip_sdk.image_pixel import Layout, pixel_error, read_layout, require_size
from mammoclip_sdk.presentation import read_display
from mammoclip_sdk.shield import shielded

Stored = NDArray[Any]
"""(rows, columns), uint8 or uint16 by Bits Allocated."""

_PROCESSES = {
    gate.JPEG_BASELINE: ("SOF0",),
    gate.JPEG_EXTENDED: ("SOF0", "SOF1"),
    gate.JPEG_LOSSLESS: ("SOF3",),
    gate.JPEG_LOSSLESS_SV1: ("SOF3",),
    gate.JPEG_LS: ("JPEG-LS",),
    gate.JPEG_LS_NEAR: ("JPEG-LS",),
    gate.JPEG_2000_LOSSLESS: ("JPEG 2000",),
    gate.JPEG_2000: ("JPEG 2000",),
}


def decode(image: SourceImage) -> StoredImage:
    """Decode one view.

    Returns
    -------
    StoredImage
        ``pixels`` (rows, columns) uint8 or uint16 as Bits Allocated says; a read-only view of the
        file's bytes where they need no change.

    Raises
    ------
    PixelError
        The header is outside the accepted limits, contradicts the frame, or decoding failed.
    DicomReadError
        The file is damaged, or is no longer the one whose header was read.
    NotDicomError, UnsupportedTransferSyntaxError
        As from ``gate``.
    """
    if image.array is not None:
        return _from_array(image, image.array)
    dataset = _dataset(image)
    name = image.name
    syntax = gate.transfer_syntax(dataset, name=name)
    with shielded(name):
        header = Header(dataset, name=name)
        layout = read_layout(header)
        display = read_display(header, bits_stored=layout.bits_stored, signed=layout.signed)
        stream = _pixel_data(dataset, name)
    if syntax in gate.NATIVE_SYNTAXES:
        pixels = _native(stream, layout, name)
    elif syntax == gate.RLE:
        pixels = _run_lengths(dataset, layout, name)
    else:
        pixels = _compressed(_frame(stream, name), layout, syntax, name)
    # Only JPEG 2000 has a sign of its own, so that its decoder returns numbers, not their bits.
    extended = layout.signed and syntax in gate.JPEG_2000_SYNTAXES
    return _stored(image, _stored_bits(pixels, layout, name, extended), display, syntax)


def _from_array(image: SourceImage, array: Stored) -> StoredImage:
    rows, columns = array.shape
    require_size(rows, columns, image.name)
    display = DisplayAttributes(
        bits_stored=8 * array.dtype.itemsize, signed=False, photometric="MONOCHROME2"
    )
    return _stored(image, array, display, "array")


def _stored(
    image: SourceImage, pixels: Stored, display: DisplayAttributes, syntax: str
) -> StoredImage:
    return StoredImage(
        view=image.view,
        name=image.name,
        pixels=np.ascontiguousarray(pixels),
        display=display,
        transfer_syntax=syntax,
        sha256=hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest(),
    )


def _dataset(image: SourceImage) -> Dataset:
    if image.path is not None:
        source = gate.read_file(image.path, name=image.name)
        dataset = gate.read_dataset(source, name=image.name)
    elif image.dataset is not None:
        dataset = image.dataset
    else:
        raise PixelError(
            image.name,
            found="neither path, dataset nor array",
            expected="one of the three",
            remedy="Make the SourceImage with read_exam.",
        )
    with shielded(image.name):
        uid = str(dataset.get("SOPInstanceUID", ""))
    if image.sop_instance_uid is not None and uid != image.sop_instance_uid:
        raise DicomReadError(
            image.name,
            found="another SOP Instance UID (0008,0018) than when the exam was read",
            expected="the same image",
            remedy="Do not change the files while they are scored; read the exam again.",
            code="changed",
        )
    return dataset


def _pixel_data(dataset: Dataset, name: str) -> bytes:
    data = dataset.get("PixelData")
    if not isinstance(data, bytes) or not data:
        raise pixel_error(name, "no Pixel Data (7FE0,0010)", "an image", "no_pixel_data")
    return data


def _native(data: bytes, layout: Layout, name: str) -> Stored:
    count = layout.rows * layout.columns
    expected = count * layout.dtype.itemsize
    if len(data) not in (expected, expected + expected % 2):  # padded to an even length
        raise pixel_error(name, f"{len(data)} bytes of pixels", f"{expected} bytes", "pixel_length")
    return np.frombuffer(data, layout.dtype, count).reshape(layout.rows, layout.columns)


def _run_lengths(dataset: Dataset, layout: Layout, name: str) -> Stored:
    with shielded(name, "pixel data"):
        data, _ = get_decoder(RLELossless).as_buffer(dataset, index=0)
    return _native(bytes(data), layout, name)


def _frame(data: bytes, name: str) -> bytes:
    """Join the fragments of the one frame, PS3.5 A.4; the offset table is not needed for that."""
    with shielded(name, "pixel data"):
        _offset_table, *fragments = generate_fragments(data)
        frame = b"".join(fragments)
    # Every process accepted here ends with EOI or EOC; an even length may add one zero byte.
    if not frame[-16:].rstrip(b"\x00").endswith(b"\xff\xd9"):
        raise pixel_error(name, "a frame without its end", "a whole frame", "truncated")
    return frame


def _compressed(frame: bytes, layout: Layout, syntax: str, name: str) -> Stored:
    is_jpeg2000 = syntax in gate.JPEG_2000_SYNTAXES
    header = read_jpeg2000(frame) if is_jpeg2000 else read_jpeg(frame)
    _require_agreement(header, layout, syntax, name)
    codec: Callable[[bytes], NDArray[Any]] = imagecodecs.jpeg8_decode
    if is_jpeg2000:
        codec = imagecodecs.jpeg2k_decode
    elif syntax in gate.JPEG_LS_SYNTAXES:
        codec = imagecodecs.jpegls_decode
    try:
        decoded = codec(frame)
    except Exception as exc:
        # Each codec has its own exceptions, and their texts are not under this package's control.
        found = f"a frame that does not decode ({type(exc).__name__})"
        raise pixel_error(name, found, "an undamaged frame", "decode_failed") from None
    if (
        decoded.shape != (layout.rows, layout.columns)
        or decoded.dtype.itemsize > layout.dtype.itemsize
    ):
        raise pixel_error(
            name,
            f"decoded pixels {decoded.shape} of {decoded.dtype}",
            f"({layout.rows}, {layout.columns}) of {layout.dtype}",
            "decoded_shape",
        )
    if decoded.dtype.kind == "i":
        decoded = decoded.astype(f"i{layout.dtype.itemsize}", copy=False)  # keeps the sign
        return decoded.view(layout.dtype)
    return decoded.astype(layout.dtype, copy=False)


def _require_agreement(header: FrameHeader | None, layout: Layout, syntax: str, name: str) -> None:
    if header is None or header.process not in _PROCESSES[syntax]:
        found = header.process if header else "no frame header"
        expected = " or ".join(_PROCESSES[syntax])
        raise pixel_error(name, f"{found} in the frame", expected, "codestream_process")
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
    if header.process == "JPEG 2000" and header.signed != layout.signed:
        raise pixel_error(
            name,
            "a frame and a Pixel Representation (0028,0103) of different sign",
            "both signed, or neither",
            "codestream_sign",
        )


def _stored_bits(pixels: Stored, layout: Layout, name: str, extended: bool) -> Stored:
    """Move the stored bits down to bit 0, PS3.5 section 8.1.1; refuse what would be lost.

    Bright tissue above a Bits Stored that is too small would come out black, and padding outside
    the stored range white. Only sign extension and overlays the header declares are cleared.
    ``extended`` demands the sign extension, where the values are numbers.
    """
    shift = layout.high_bit + 1 - layout.bits_stored
    codes = 2**layout.bits_stored - 1
    if not shift and not extended and int(pixels.max()) <= codes:
        return pixels
    word = layout.dtype.type
    outside = 2**layout.bits_allocated - 1 & ~(codes << shift) & ~layout.overlay_bits
    lost = pixels & word(outside)
    negative = pixels >> word(layout.high_bit) & word(1)
    extension = negative * word(outside >> (layout.high_bit + 1) << (layout.high_bit + 1))
    is_extended = layout.signed and np.array_equal(lost, extension)
    if not is_extended and (extended or lost.any()):
        raise pixel_error(
            name,
            "pixels with bits set outside Bits Stored (0028,0101)",
            f"values of {layout.bits_stored} bits, or overlays the header declares",
            "value_range",
            "Have Bits Stored, High Bit or the padding corrected at the source.",
        )
    stored: Stored = pixels >> word(shift) & word(codes)
    return stored
