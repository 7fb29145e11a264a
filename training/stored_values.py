"""Which stored value shows as a given grey: the display pipeline of PS3.3 C.11, inverted.

A reader goes from the stored value through the modality transformation, the VOI and the polarity
to what is shown, 0 (air) to 1. Every profile makes that a monotone function of the stored value,
so that it has an inverse, exact to within the step between two stored values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.vendor_profiles import VendorProfile

LEVELS = 65536
"""Displayed values are told apart in this many steps, four times those of 14 bits."""
_SIGMOID_SPAN = 7 / 2
"""Image values span this many window widths: a SIGMOID then runs from 0.0009 to 0.9991."""
_LUT_TOP = 4095
"""Largest output of a VOI LUT, 12 bits."""
_PADDED_SHARE = 658 / 4096
"""Share of the stored values that a padding range takes, from a real 12-bit GE header."""


@dataclass(frozen=True, kw_only=True)
class StoredValues:
    """A profile's display attributes, and the stored value of every grey."""

    padding: tuple[int, int] | None
    modality_lut: NDArray[np.uint16] | None
    windows: tuple[tuple[str, float, float], ...]
    """Explanation, center and width of each."""
    voi_lut: NDArray[np.uint16] | None
    voi_lut_first: int
    code_of_level: NDArray[np.uint16]
    """Stored value, as its two's complement in 16 bits, of each of `LEVELS` displayed values."""
    air_levels: int
    """Displayed levels below this are air, and get padding; 0 without padding."""


@lru_cache(maxsize=64)
def stored_values(profile: VendorProfile) -> StoredValues:
    """Return what a profile's header says about display, and the inverse of it."""
    first = -(2 ** (profile.bits_stored - 1)) if profile.signed else 0
    codes = np.arange(first, first + 2**profile.bits_stored)
    padding, image = _split_padding(profile, codes)
    modality_lut = None
    modality = profile.slope * codes + profile.intercept
    if profile.modality_lut:
        share = (codes - codes[0]) / (codes.size - 1)
        modality_lut = np.rint(65535 * np.log1p(9 * share) / math.log(10)).astype(np.uint16)
        modality = modality_lut.astype(np.float64)
    values = modality[image - first]
    windows = _windows(profile, values)
    shown = _voi(profile, values, windows)
    voi_lut = None
    if profile.voi in ("lut", "windows_and_lut"):
        voi_lut = np.rint(_LUT_TOP * shown).astype(np.uint16)
        if profile.voi == "lut":
            shown = voi_lut / _LUT_TOP
    if profile.photometric == "MONOCHROME1":
        shown, image = 1 - shown[::-1], image[::-1]
    code_of_level, air_levels = _invert(shown, image, padding)
    return StoredValues(
        padding=padding,
        modality_lut=modality_lut,
        windows=windows,
        voi_lut=voi_lut,
        voi_lut_first=int(values[0]),
        code_of_level=code_of_level,
        air_levels=air_levels,
    )


def _split_padding(
    profile: VendorProfile, codes: NDArray[np.int64]
) -> tuple[tuple[int, int] | None, NDArray[np.int64]]:
    """Return the padding, darkest first, and the ascending codes that are left to the image."""
    count = {"none": 0, "value": 1, "range": round(codes.size * _PADDED_SHARE)}[profile.padding]
    if not count:
        return None, codes
    if profile.photometric == "MONOCHROME1":
        return (int(codes[-1]), int(codes[-count])), codes[:-count]
    return (int(codes[0]), int(codes[count - 1])), codes[count:]


def _invert(
    shown: NDArray[np.float64], codes: NDArray[np.int64], padding: tuple[int, int] | None
) -> tuple[NDArray[np.uint16], int]:
    """Return the code of every displayed level, and how many levels are air."""
    levels = np.arange(LEVELS) / (LEVELS - 1)
    nearest = np.searchsorted((shown[1:] + shown[:-1]) / 2, levels)
    code_of_level = codes[nearest]
    air_levels = 0
    if padding is not None:
        air_levels = int(np.searchsorted(nearest, 1))
        code_of_level[:air_levels] = padding[0]
    return code_of_level.astype(np.uint16), air_levels


def _windows(
    profile: VendorProfile, values: NDArray[np.float64]
) -> tuple[tuple[str, float, float], ...]:
    """Return windows over ``values`` (ascending, modality units), the intended one first."""
    if not profile.voi.startswith("window"):
        return ()
    low, high = float(values[0]), float(values[-1])
    center, width = (low + high) / 2, high - low
    if profile.voi_function == "LINEAR":  # PS3.3 C.11.2.1.2.1: half a unit and one unit off
        center, width = center + 0.5, round(width * profile.window_share) + 1
    elif profile.voi_function == "SIGMOID":
        width = round(width / _SIGMOID_SPAN)
    if profile.voi == "window":
        return (("", center, width),)
    return (
        ("NORMAL", center, width),
        ("HARDER", center + round(width / 20), round(width * 0.8)),
        ("SOFTER", center - round(width / 20), round(width * 1.2)),
    )


def _voi(
    profile: VendorProfile,
    values: NDArray[np.float64],
    windows: tuple[tuple[str, float, float], ...],
) -> NDArray[np.float64]:
    """Apply the first window, or the curve of a LUT, to ascending modality values."""
    share = (values - values[0]) / (values[-1] - values[0])
    if profile.voi == "lut":  # the toe and shoulder of film
        return share / 2 + share**2 * (3 - 2 * share) / 2
    if profile.voi == "none":
        return share
    _, center, width = windows[0]
    if profile.voi_function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if profile.voi_function == "LINEAR":
        center, width = center - 0.5, width - 1
    return np.clip((values - center) / width + 0.5, 0, 1)
