"""What stored pixel values are shown as: 0 (air) to 1.

Order, PS3.3 C.11 and C.7.6.3.1.2: stored value (sign) -> Modality LUT or rescale -> VOI ->
polarity -> padding. The native core composes it once per image, in float64, into a table with one
displayed value per stored code, through which it then passes the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk import _native
from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.exam import DisplayAttributes, LookupTable
from mammoclip_sdk.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class GreyScale:
    """What one image's stored codes are shown as."""

    values: NDArray[np.float32]
    """(256,) or (65536,), one displayed value for each code, 0 (air) to 1; padding is 0."""
    darkest: float
    """Displayed value of the darkest code that is not padding; above 0 for SIGMOID windows."""


def grey_scale(
    display: DisplayAttributes,
    preprocessing: Preprocessing,
    *,
    container_bits: int,
    pixels: NDArray[np.uint8] | NDArray[np.uint16] | None = None,
) -> GreyScale:
    """Compose the displayed value of every code a stored pixel can hold.

    Parameters
    ----------
    display : DisplayAttributes
        What the header says.
    preprocessing : Preprocessing
        Its ``voi`` chooses between the header's windows and LUTs. The full stored range, taken
        after the modality transformation, is what ``stored`` asks for and what a header without
        window and LUT gets.
    container_bits : int
        8 or 16, the bits of the pixel array's type. Bits above ``bits_stored`` are ignored.
    pixels : ndarray, optional
        The image's stored pixels, C-contiguous; needed for ``percentile`` alone.

    Raises
    ------
    PixelError
        The header asks for something undefined or unknown.

    Notes
    -----
    Windows follow PS3.3 C.11.2.1.2 and C.11.2.1.3. A VOI LUT's output is divided by the largest
    value in the table: the third value of LUT Descriptor (0028,3002) is wrong in some vendors'
    files. MONOCHROME1 is inverted by the full range after VOI, so that a marker in one image
    does not change its grey values.
    """
    window = display.windows[0] if display.windows else None
    try:
        values, darkest = _native.grey_scale(
            container_bits=container_bits,
            bits_stored=display.bits_stored,
            signed=display.signed,
            photometric=display.photometric,
            slope=display.slope,
            intercept=display.intercept,
            modality_lut=_table(display.modality_lut),
            window=(window.center, window.width) if window else None,
            voi_function=display.voi_function,
            voi_lut=_table(display.voi_luts[0]) if display.voi_luts else None,
            padding=display.padding,
            voi=preprocessing.voi,
            percentiles=preprocessing.percentiles or (0.0, 0.0),
            pixels=pixels if preprocessing.voi == "percentile" else None,
        )
    except _native.UndefinedGreyValuesError as exc:
        subject, found, expected, remedy = exc.args
        raise PixelError(subject, found=found, expected=expected, remedy=remedy) from None
    return GreyScale(values=values, darkest=darkest)


def _table(lut: LookupTable | None) -> tuple[int, NDArray[np.uint16]] | None:
    return None if lut is None else (lut.first, np.ascontiguousarray(lut.data))
