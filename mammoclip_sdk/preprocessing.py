"""How pixels become the model's input, as keys; the one place that says which are obeyed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mammoclip_sdk.errors import BundleFormatError, BundleVersionError
from mammoclip_sdk.exam import ViewGeometry

PREPROCESSING_VERSION = 1
"""Raised whenever the same pixels and keys would give a different tensor."""
MAX_INPUT_SIDE = 8192
"""Pixels; no detector has more, and a manifest must not ask for all of the memory."""
MAX_REDUCTION = 5
"""Resolution levels; JPEG 2000 encoders make five unless told otherwise."""
SAMPLES_PER_INPUT_PIXEL = 3.5
"""Fewest samples of a reduced JPEG 2000 image along a side of a pixel of the model input. With as
many, no image of ``benchmarks/reduction.py`` differed from what it is when decoded in full by more
than 1 % of the standard deviation inside the breast."""

_CHOICES = {
    "voi": ("header_window", "header_lut", "stored", "percentile"),
    "background": ("keep", "zero"),
    "geometry": ("letterbox", "stretch"),
    "resampling": ("area",),
}
_RANGES = {
    "height": (1, MAX_INPUT_SIDE),
    "width": (1, MAX_INPUT_SIDE),
    "segmentation_threshold": (0, 0.99),
    "crop_margin": (0, 0.99),
    "jpeg2000_reduction": (0, MAX_REDUCTION),
}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How pixels become the model's input; every key explicit, none with a default."""

    version: int
    """`PREPROCESSING_VERSION` the model was trained with."""
    height: int
    """Rows of the model input, pixels."""
    width: int
    """Columns of the model input, pixels."""
    voi: str
    """``header_window`` (window before LUT), ``header_lut`` (LUT before window), ``stored`` (full
    range of the stored bits) or ``percentile``."""
    percentiles: tuple[float, float] | None
    """Lower and upper percentile of the pixels that are not padding; null unless ``voi`` is
    ``percentile``."""
    segmentation_threshold: float
    """Displayed value, 0 to 1, above which a pixel may be breast."""
    crop_margin: float
    """Margin kept round the breast, as a share of the longer side of its bounding box."""
    background: str
    """``keep`` or ``zero``: whether pixels outside the breast are set to air."""
    geometry: str
    """``letterbox`` or ``stretch``."""
    resampling: str
    """``area``."""
    jpeg2000_reduction: int
    """Largest number of resolution levels a JPEG 2000 decoder may skip, 0 to `MAX_REDUCTION`;
    each image is decoded with as many of them as `reduction_for` allows. 0 where ``voi`` is
    ``percentile``, which counts every pixel."""


def preprocessing_problems(keys: Preprocessing) -> Iterator[str]:
    """Say which keys hold something that this version does not obey, and why."""
    for key, choices in _CHOICES.items():
        if getattr(keys, key) not in choices:
            yield f"preprocessing.{key}: {getattr(keys, key)!r} is none of {', '.join(choices)}"
    for key, (low, high) in _RANGES.items():
        if not low <= getattr(keys, key) <= high:  # NaN is in no range
            yield f"preprocessing.{key}: {getattr(keys, key)} is not in {low} to {high}"
    if (keys.voi == "percentile") != (keys.percentiles is not None):
        yield "preprocessing.percentiles: given if and only if voi is percentile"
    if keys.percentiles and not 0 <= keys.percentiles[0] < keys.percentiles[1] <= 100:
        yield f"preprocessing.percentiles: {keys.percentiles} do not rise within 0 to 100"
    if keys.voi == "percentile" and keys.jpeg2000_reduction > 0:
        yield "preprocessing.jpeg2000_reduction: 0 where voi is percentile, which counts all pixels"


def reduction_for(geometry: ViewGeometry, keys: Preprocessing) -> int:
    """Return how many resolution levels a decoder may skip for a view that is placed like this."""
    _, _, height, width = geometry.crop
    _, _, placed_height, placed_width = geometry.placed
    pixels = min(height / placed_height, width / placed_width)
    levels = math.floor(math.log2(pixels / SAMPLES_PER_INPUT_PIXEL))
    return min(max(levels, 0), keys.jpeg2000_reduction)


def require_preprocessing(keys: Preprocessing) -> None:
    """Refuse keys that this version does not obey.

    Raises
    ------
    BundleVersionError
        They are of another version.
    BundleFormatError
        With every problem in one message.
    """
    if keys.version != PREPROCESSING_VERSION:
        raise BundleVersionError(
            "preprocessing",
            found=f"version {keys.version}",
            expected=f"version {PREPROCESSING_VERSION}",
            remedy="Install the mammoclip-sdk that belongs to the bundle.",
        )
    problems = list(preprocessing_problems(keys))
    if problems:
        raise BundleFormatError(
            "preprocessing",
            found="; ".join(problems),
            expected="keys that this version of mammoclip-sdk obeys",
            remedy="Correct them, or install the mammoclip-sdk that they were written for.",
        )
