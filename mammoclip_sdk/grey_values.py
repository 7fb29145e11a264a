"""What stored pixel values are shown as: 0 (air) to 1.

Order, PS3.3 C.11 and C.7.6.3.1.2: stored value (sign) -> Modality LUT or rescale -> VOI ->
polarity -> padding. It is composed once per image, in float64, into a table with one displayed
value per stored code, through which the native core passes the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.exam import DisplayAttributes, LookupTable, Window
from mammoclip_sdk.preprocessing import Preprocessing

LARGEST_GREY_VALUE = 1e12
"""In modality units; more comes from a damaged rescale, and would overflow further on."""


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
        window and LUT gets. Its keys are taken as `preprocessing.require_preprocessing` let
        them through.
    container_bits : int
        8 or 16, the bits of the pixel array's type. Bits above ``bits_stored`` are ignored.
    pixels : ndarray, optional
        The image's stored pixels; needed for ``percentile`` alone.

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
    stored = _stored_values(display, container_bits)
    modality = _modality_values(display, stored)
    image = np.ones(stored.shape, dtype=bool)
    if display.padding is not None:
        image = (stored < min(display.padding)) | (stored > max(display.padding))
    values = _voi_values(display, preprocessing, modality, image, pixels)
    if display.photometric == "MONOCHROME1":
        values = 1.0 - values
    elif display.photometric != "MONOCHROME2":
        raise PixelError(
            "Photometric Interpretation (0028,0004)",
            found=repr(display.photometric),
            expected="MONOCHROME1 or MONOCHROME2",
            remedy="Send the grey-scale image the modality made.",
        )
    return GreyScale(
        values=np.where(image, values, 0.0).astype(np.float32),
        darkest=float(values[image].min(initial=1.0)),
    )


def _stored_values(display: DisplayAttributes, container_bits: int) -> NDArray[np.float64]:
    if container_bits not in (8, 16) or not 1 <= display.bits_stored <= container_bits:
        raise PixelError(
            "Bits Stored (0028,0101)",
            found=f"{display.bits_stored} bits in pixels of {container_bits}",
            expected="1 to 8 bits in 8, or 1 to 16 bits in 16",
            remedy="Send the image with a consistent header.",
        )
    codes: NDArray[np.int64] = np.arange(2**container_bits) & (2**display.bits_stored - 1)
    if display.signed:
        sign = 2 ** (display.bits_stored - 1)
        codes = (codes ^ sign) - sign
    return codes.astype(np.float64)


def _modality_values(
    display: DisplayAttributes, stored: NDArray[np.float64]
) -> NDArray[np.float64]:
    if display.modality_lut is not None:
        return _look_up(display.modality_lut, stored, "Modality LUT Sequence (0028,3000)")
    with np.errstate(over="ignore", invalid="ignore"):
        modality: NDArray[np.float64] = stored * display.slope + display.intercept
        if np.abs(modality).max() <= LARGEST_GREY_VALUE:  # not so for NaN either
            return modality
    raise PixelError(
        "Rescale Slope and Intercept (0028,1053), (0028,1052)",
        found=f"slope {display.slope:g}, intercept {display.intercept:g}",
        expected=f"finite numbers that keep grey values within {LARGEST_GREY_VALUE:g}",
        remedy="Send the image with its real rescale.",
    )


def _look_up(lut: LookupTable, values: NDArray[np.float64], subject: str) -> NDArray[np.float64]:
    if lut.data.size == 0:
        raise PixelError(
            subject,
            found="no entries in LUT Data (0028,3006)",
            expected="at least one",
            remedy="Send the image with its whole LUT, or with a window.",
        )
    index = np.clip(np.rint(values - lut.first), 0, lut.data.size - 1).astype(np.intp)
    return np.asarray(lut.data, dtype=np.float64)[index]


def _voi_values(
    display: DisplayAttributes,
    preprocessing: Preprocessing,
    modality: NDArray[np.float64],
    image: NDArray[np.bool_],
    pixels: NDArray[np.uint8] | NDArray[np.uint16] | None,
) -> NDArray[np.float64]:
    if preprocessing.voi == "percentile":
        return _ramp(modality, *_percentiles(preprocessing, modality, image, pixels))
    sources: dict[str, tuple[str, ...]] = {
        "header_window": ("window", "lut"),
        "header_lut": ("lut", "window"),
        "stored": (),
    }
    for source in sources[preprocessing.voi]:
        if source == "window" and display.windows:
            return _window(display.windows[0], display.voi_function, modality)
        if source == "lut" and display.voi_luts:
            return _voi_lut(display.voi_luts[0], modality)
    return _ramp(modality, float(modality.min()), float(modality.max()))


def _window(window: Window, function: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.2 (LINEAR_EXACT), C.11.2.1.3.1 (SIGMOID)."""
    center, width = window.center, window.width
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise PixelError(
            "VOI LUT Function (0028,1056)",
            found=repr(function),
            expected="LINEAR, LINEAR_EXACT or SIGMOID",
            remedy="Send the image with a defined VOI LUT Function.",
        )
    wide_enough = width >= 1 if function == "LINEAR" else width > 0
    if not (wide_enough and math.isfinite(width) and math.isfinite(center)):
        raise PixelError(
            "Window Center and Width (0028,1050), (0028,1051)",
            found=f"center {center:g}, width {width:g}",
            expected=f"finite numbers, width {'>= 1' if function == 'LINEAR' else '> 0'}",
            remedy=f"Correct the window; {function} is not defined for this one.",
        )
    if function == "LINEAR" and width == 1:
        return np.where(x <= center - 0.5, 0.0, 1.0)
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    with np.errstate(over="ignore"):  # an infinite distance is black or white, as it should be
        distance = (x - center) / width
    if function == "SIGMOID":
        return np.asarray(0.5 + 0.5 * np.tanh(2.0 * distance))  # 1 / (1 + exp(-4 distance))
    return np.clip(distance + 0.5, 0.0, 1.0)


def _voi_lut(lut: LookupTable, modality: NDArray[np.float64]) -> NDArray[np.float64]:
    values = _look_up(lut, modality, "VOI LUT Sequence (0028,3010)")
    highest = float(lut.data.max())
    if highest == 0.0:
        raise PixelError(
            "VOI LUT Sequence (0028,3010)",
            found="nothing but zeros in LUT Data (0028,3006)",
            expected="a table that shows the image",
            remedy="Send the image with its real LUT, or with a window.",
        )
    return values / highest


def _ramp(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    if not low < high:
        raise PixelError(
            "grey values",
            found=f"one value ({low:g}) from the darkest to the brightest",
            expected="a range",
            remedy="The image is constant, or its header maps all of it to one value; resend it.",
        )
    return np.clip((values - low) / (high - low), 0.0, 1.0)


def _percentiles(
    preprocessing: Preprocessing,
    modality: NDArray[np.float64],
    image: NDArray[np.bool_],
    pixels: NDArray[np.uint8] | NDArray[np.uint16] | None,
) -> tuple[float, float]:
    """Return the lowest values that reach each percentile, over pixels that are not padding."""
    if pixels is None or preprocessing.percentiles is None:
        raise PixelError(
            "percentiles",
            found="no pixels" if pixels is None else "no percentiles in the preprocessing",
            expected="both, since voi is percentile",
            remedy="Hand over the stored pixels and a preprocessing with percentiles.",
        )
    counts = np.zeros(modality.size, dtype=np.int64)
    for band in np.array_split(pixels, max(1, pixels.size >> 20)):  # bincount copies to int64
        counts += np.bincount(band.reshape(-1), minlength=modality.size)
    counts[~image] = 0
    if not counts.any():
        raise PixelError(
            "pixels",
            found="padding only",
            expected="an image",
            remedy="Check Pixel Padding Value (0028,0120) and Range Limit (0028,0121).",
        )
    order = np.argsort(modality, kind="stable")
    reached = np.cumsum(counts[order])
    low, high = (
        modality[order[np.searchsorted(reached, max(1.0, reached[-1] * share / 100.0))]]
        for share in preprocessing.percentiles
    )
    return float(low), float(high)
