"""The Image Pixel module of one header, PS3.3 C.7.6.3: how its stored values are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from mammoclip_sdk.errors import PixelError

SMALLEST_SIDE, LARGEST_SIDE = 64, 8192  # pixels; the largest detectors have about 5600
MOST_PIXELS = 64_000_000


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the stored values lie in the Pixel Data."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a decoded pixel."""
        return np.dtype("u1" if self.bits_allocated == 8 else "<u2")


def read_layout(header: Dataset, name: str) -> Layout:
    """Read the attributes, which must agree with each other and lie within the accepted limits.

    To be called inside ``gate.shielded``: values are converted here.
    """

    def number(keyword: str, default: int | None = None) -> int:
        if default is not None and keyword not in header:
            return default
        element = header[keyword]
        if element.VR != "US" or not isinstance(element.value, int):
            raise pixel_error(name, f"{element.tag} that is no number", "one US", "pixel_header")
        return element.value

    layout = Layout(
        rows=number("Rows"),
        columns=number("Columns"),
        bits_allocated=number("BitsAllocated"),
        bits_stored=number("BitsStored"),
        high_bit=number("HighBit"),
        signed=number("PixelRepresentation", 0) == 1,
    )
    if number("SamplesPerPixel", 1) != 1 or int(header.get("NumberOfFrames") or 1) != 1:
        raise pixel_error(name, "more samples or frames", "one of each", "not_one_frame")
    require_size(layout.rows, layout.columns, name)
    if not (
        layout.bits_allocated in (8, 16)
        and 1 <= layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated
    ):
        raise pixel_error(
            name,
            f"Bits Allocated {layout.bits_allocated}, Bits Stored {layout.bits_stored}, "
            f"High Bit {layout.high_bit}",
            "8 or 16 bits that hold the stored ones",
            "bits",
        )
    return layout


def require_size(rows: int, columns: int, name: str) -> None:
    """Refuse what is too small for a breast or too large for any detector."""
    if (
        min(rows, columns) < SMALLEST_SIDE
        or max(rows, columns) > LARGEST_SIDE
        or rows * columns > MOST_PIXELS
    ):
        raise pixel_error(
            name,
            f"{rows} rows and {columns} columns",
            f"{SMALLEST_SIDE} to {LARGEST_SIDE} of each, at most {MOST_PIXELS} pixels",
            "image_size",
        )


def pixel_error(name: str, found: str, expected: str, code: str) -> PixelError:
    """Return the error for an image whose header and pixels do not fit together."""
    return PixelError(
        name,
        found=found,
        expected=expected,
        remedy="Retrieve the image again, or export it uncompressed.",
        code=code,
    )
