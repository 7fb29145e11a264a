"""One source image -> its stored values; the only place where pixels are decoded.

What a frame's own header promises is compared with the DICOM header before a decoder runs, and
what the decoder returns is compared again. No value is windowed, scaled or inverted here. Pixels
are decoded without Python's lock, and without a copy of them beside the decoder's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.header import Header
from mammoclip_sdk.dicom.identity import identity
from mammoclip_sdk.dicom.image_limits import require_size
from mammoclip_sdk.dicom.shield import shielded
from mammoclip_sdk.errors import DicomReadError, PixelError
from mammoclip_sdk.exam import DisplayAttributes, Reduction, SourceImage, StoredImage
from mammoclip_sdk.pixels.frame import JPEG_2000_FAMILY, MOST_JPEG_2000_PIXELS, decode_frame
from mammoclip_sdk.pixels.image_pixel import Layout, pixel_error, read_layout
from mammoclip_sdk.pixels.presentation import read_display

Stored = NDArray[Any]
"""(rows, columns), uint8 or uint16 by Bits Allocated."""

_ROWS_AT_A_TIME = 64


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the header of one image says of its pixels; judged, but no pixel seen."""

    layout: Layout
    display: DisplayAttributes
    transfer_syntax: str

    @property
    def is_jpeg_2000(self) -> bool:
        """Whether the pixels are a codestream of ISO 15444, Part 1 or Part 15."""
        return self.transfer_syntax in JPEG_2000_FAMILY


def decode(image: SourceImage, *, levels: int = 0) -> StoredImage:
    """Decode one view.

    Parameters
    ----------
    levels
        How many of the finest resolution levels of a JPEG 2000 image to leave out, where its
        codestream allows that; ``reduction`` says what was done. Other images are decoded in full.

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
        As from ``dicom.gate``.
    """
    try:
        return _decode(image, levels)
    except MemoryError:
        raise pixel_error(
            image.name,
            "no memory for the pixels",
            "512 MB free for each view",
            "decoder_memory",
            "Free some memory, decode fewer views at a time, or raise the limit of the process.",
        ) from None


def _decode(image: SourceImage, levels: int) -> StoredImage:
    if image.array is not None:
        return _from_array(image, image.array)
    dataset = read_source(image)
    described = describe(dataset, name=image.name)
    layout, syntax, name = described.layout, described.transfer_syntax, image.name
    data, reduction = _pixel_data(dataset, name), None
    if syntax in gate.NATIVE_SYNTAXES:
        pixels = _native(data, layout, name)
    else:
        pixels, reduction = decode_frame(data, layout, syntax, levels=levels, name=name)
    # Only JPEG 2000 has a sign of its own, so that its decoder returns numbers, not their bits.
    extended = layout.signed and described.is_jpeg_2000
    stored = _stored_bits(pixels, layout, name, extended)
    return stored_image(image, stored, described, reduction)


def describe(dataset: Dataset, *, name: str) -> Description:
    """Judge the header of one image, before its pixels are touched.

    Raises
    ------
    PixelError, DicomReadError, UnsupportedTransferSyntaxError
        As from `decode`.
    """
    syntax = gate.transfer_syntax(dataset, name=name)
    with shielded(name):
        header = Header(dataset, name=name)
        layout = read_layout(header)
        display = read_display(header, bits_stored=layout.bits_stored, signed=layout.signed)
    if syntax in JPEG_2000_FAMILY and layout.rows * layout.columns > MOST_JPEG_2000_PIXELS:
        raise pixel_error(
            name,
            f"JPEG 2000 of {layout.rows} x {layout.columns}",
            f"at most {MOST_JPEG_2000_PIXELS} pixels in this encoding",
            "image_size",
        )
    return Description(layout=layout, display=display, transfer_syntax=syntax)


def _from_array(image: SourceImage, array: Stored) -> StoredImage:
    rows, columns = array.shape
    require_size(rows, columns, image.name)
    display = DisplayAttributes(
        bits_stored=8 * array.dtype.itemsize, signed=False, photometric="MONOCHROME2"
    )
    return _stored(image, array, display, "array", None)


def stored_image(
    image: SourceImage, pixels: Stored, described: Description, reduction: Reduction | None
) -> StoredImage:
    """Put decoded pixels and what the header says of them together, with their hash."""
    return _stored(image, pixels, described.display, described.transfer_syntax, reduction)


def _stored(
    image: SourceImage,
    pixels: Stored,
    display: DisplayAttributes,
    syntax: str,
    reduction: Reduction | None,
) -> StoredImage:
    pixels = np.ascontiguousarray(pixels)
    return StoredImage(
        view=image.view,
        name=image.name,
        pixels=pixels,
        display=display,
        transfer_syntax=syntax,
        reduction=reduction,
    )


def read_source(image: SourceImage) -> Dataset:
    """Return the image that is to be decoded, if it is still the one whose header was read.

    Raises
    ------
    PixelError, DicomReadError, NotDicomError, UnsupportedTransferSyntaxError
        As from `decode`.
    """
    if image.path is not None:
        dataset = gate.read_dataset_of(image.path, name=image.name)
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
        header = Header(dataset, name=image.name)
        uid = header.one("SOPInstanceUID")
        is_same = image.identity is None or image.identity == identity(header)
    if image.sop_instance_uid not in (None, uid):
        found = "another SOP Instance UID (0008,0018) than when the exam was read"
        raise changed(image.name, found)
    if not is_same:
        found = "another patient, side, view or time than when the exam was read"
        raise changed(image.name, found)
    return dataset


def changed(name: str, found: str) -> DicomReadError:
    """Return the error for a file that is not, or not any more, the one that was read."""
    return DicomReadError(
        name,
        found=found,
        expected="the same image",
        remedy="Do not change the files while they are scored; read the exam again.",
        code="changed",
    )


def _pixel_data(dataset: Dataset, name: str) -> memoryview:
    with shielded(name, "pixel data"):
        data = dataset.get("PixelData")
    if type(data) not in (bytes, memoryview) or not data:
        raise pixel_error(name, "no Pixel Data (7FE0,0010)", "an image", "no_pixel_data")
    return memoryview(data)


def _native(data: memoryview, layout: Layout, name: str) -> Stored:
    count = layout.rows * layout.columns
    expected = count * layout.dtype.itemsize
    if len(data) not in (expected, expected + expected % 2):  # padded to an even length
        raise pixel_error(name, f"{len(data)} bytes of pixels", f"{expected} bytes", "pixel_length")
    return np.frombuffer(data, layout.dtype, count).reshape(layout.rows, layout.columns)


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
    stored = pixels if pixels.flags.writeable else np.empty_like(pixels)
    is_plain, is_extended = not extended, layout.signed
    for top in range(0, len(pixels), _ROWS_AT_A_TIME):
        rows = pixels[top : top + _ROWS_AT_A_TIME]
        lost, extension = _outside(rows, layout)
        is_plain = is_plain and not lost.any()
        is_extended = is_extended and np.array_equal(lost, extension)
        if not is_plain and not is_extended:
            raise pixel_error(
                name,
                "pixels with bits set outside Bits Stored (0028,0101)",
                f"values of {layout.bits_stored} bits, or overlays the header declares",
                "value_range",
                "Have Bits Stored, High Bit or the padding corrected at the source.",
            )
        word = layout.dtype.type
        stored[top : top + _ROWS_AT_A_TIME] = rows >> word(shift) & word(codes)
    return stored


def _outside(pixels: Stored, layout: Layout) -> tuple[Stored, Stored]:
    """Return the bits outside the stored ones and overlays, and what sign extension would set."""
    word = layout.dtype.type
    codes = 2**layout.bits_stored - 1 << layout.high_bit + 1 - layout.bits_stored
    outside = 2**layout.bits_allocated - 1 & ~codes & ~layout.overlay_bits
    above = outside >> (layout.high_bit + 1) << (layout.high_bit + 1)
    return pixels & word(outside), (pixels >> word(layout.high_bit) & word(1)) * word(above)
