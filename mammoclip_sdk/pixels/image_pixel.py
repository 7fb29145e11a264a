"""The Image Pixel module of one header, PS3.3 C.7.6.3: how its stored values are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mammoclip_sdk.dicom.header import Header, described
from mammoclip_sdk.dicom.image_limits import require_size
from mammoclip_sdk.errors import PixelError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the stored values lie in the Pixel Data."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    overlay_bits: int = 0
    """Mask of the bits outside the stored ones that the header gives to overlays."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a decoded pixel."""
        return np.dtype("u1" if self.bits_allocated == 8 else "<u2")

    def reduced_shape(self, levels: int) -> tuple[int, int]:
        """Return (rows, columns) without the ``levels`` finest resolution levels of JPEG 2000."""
        return -(-self.rows >> levels), -(-self.columns >> levels)


def read_layout(header: Header) -> Layout:
    """Read the attributes, which must agree with each other and lie within the accepted limits.

    To be called inside ``shielded``: values are converted here.
    """
    name = header.name
    representation = _unsigned(header, "PixelRepresentation")
    layout = Layout(
        rows=_unsigned(header, "Rows"),
        columns=_unsigned(header, "Columns"),
        bits_allocated=_unsigned(header, "BitsAllocated"),
        bits_stored=_unsigned(header, "BitsStored"),
        high_bit=_unsigned(header, "HighBit"),
        signed=representation == 1,
        overlay_bits=_overlay_bits(header),
    )
    if representation not in (0, 1):
        found = f"{described('PixelRepresentation')} {representation}"
        raise pixel_error(name, found, "0 (unsigned) or 1 (signed)", "pixel_header")
    if _unsigned(header, "SamplesPerPixel") != 1 or header.number("NumberOfFrames", 1) != 1:
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


def _unsigned(header: Header, keyword: str) -> int:
    """Return an attribute of Type 1 and VR US; nothing stands in for an absent one."""
    number = header.word(keyword)
    if number is None:
        raise header.missing(keyword)
    if header.representation(keyword) != "US":
        found = f"{described(keyword)} of another VR"
        raise pixel_error(header.name, found, "US", "pixel_header")
    return number


def _overlay_bits(header: Header) -> int:
    """Overlays used to lie in unused bits of the pixels, without Overlay Data of their own."""
    mask = 0
    for group in range(0x60000000, 0x60200000, 0x20000):  # 6000 to 601E, PS3.3 C.9.2
        position = header.word(group + 0x0102)
        if position is not None and 0 <= position < 16 and not header.values(group + 0x3000):
            mask |= 1 << position
    return mask


def pixel_error(
    name: str,
    found: str,
    expected: str,
    code: str,
    remedy: str = "Retrieve the image again, or export it uncompressed.",
) -> PixelError:
    """Return the error for an image whose header and pixels do not fit together."""
    return PixelError(name, found=found, expected=expected, remedy=remedy, code=code)
