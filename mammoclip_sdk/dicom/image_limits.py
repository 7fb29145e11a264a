"""The numbers that decide how much memory an image takes, held against their limits."""

from __future__ import annotations

from collections.abc import Mapping

from mammoclip_sdk.dicom.elements import Element
from mammoclip_sdk.errors import PixelError, UnsupportedImageError

SMALLEST_SIDE, LARGEST_SIDE = 64, 8192
"""Of Rows and Columns; the largest detectors have about 5600."""
MOST_PIXELS = 64_000_000

_ROWS, _COLUMNS, _SAMPLES, _BITS = 0x00280010, 0x00280011, 0x00280002, 0x00280100
_NAMES = {
    _ROWS: "Rows (0028,0010)",
    _COLUMNS: "Columns (0028,0011)",
    _SAMPLES: "Samples per Pixel (0028,0002)",
    _BITS: "Bits Allocated (0028,0100)",
}
_FRAMES = 0x00280008


def require_size(rows: int, columns: int, name: str) -> None:
    """Refuse what is too small for a breast or too large for any detector.

    Raises
    ------
    PixelError
        ``image_size``.
    """
    if (
        min(rows, columns) < SMALLEST_SIDE
        or max(rows, columns) > LARGEST_SIDE
        or rows * columns > MOST_PIXELS
    ):
        raise _error(
            name,
            f"{rows} rows and {columns} columns",
            f"{SMALLEST_SIDE} to {LARGEST_SIDE} of each, at most {MOST_PIXELS} pixels",
            "image_size",
        )


def require_one_plain_image(found: Mapping[int, Element], source: bytes, name: str) -> None:
    """Refuse several frames or samples, and Rows, Columns or Bits Allocated outside the limits.

    What is absent, or no single number, is left to those who read it.

    Raises
    ------
    PixelError
        ``image_size``, ``bits``, or ``pixel_header`` for numbers of another VR than US.
    UnsupportedImageError
        ``not_greyscale``, ``multi_frame``.
    """
    words = {tag: _word(found.get(tag), source, name) for tag in _NAMES}
    rows, columns = words[_ROWS], words[_COLUMNS]
    if rows is not None and columns is not None:
        require_size(rows, columns, name)
    if words[_BITS] not in (8, 16, None):
        found_bits = f"{_NAMES[_BITS]} {words[_BITS]}"
        raise _error(name, found_bits, "8 or 16 bits that hold the stored ones", "bits")
    if words[_SAMPLES] not in (1, None):
        raise _more_than_one(name, _NAMES[_SAMPLES], "not_greyscale")
    frames = found[_FRAMES].value(source).strip(b" \0") if _FRAMES in found else b""
    if frames.isdigit() and frames.lstrip(b"0") != b"1":
        raise _more_than_one(name, "Number of Frames (0028,0008)", "multi_frame")


def _word(element: Element | None, source: bytes, name: str) -> int | None:
    if element is None:
        return None
    if element.vr not in (b"US", b"", b"UN"):
        raise _error(name, f"{_NAMES[element.tag]} of another VR", "US", "pixel_header")
    return int.from_bytes(element.value(source), "little") if element.length == 2 else None


def _more_than_one(name: str, what: str, code: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        name,
        found=f"{what} other than 1",
        expected="a single image of one grey value a pixel",
        remedy="Leave this image out, and hand over the standard view.",
        code=code,
    )


def _error(name: str, found: str, expected: str, code: str) -> PixelError:
    return PixelError(
        name,
        found=found,
        expected=expected,
        remedy="Retrieve the image again, or have its header corrected at the source.",
        code=code,
    )
