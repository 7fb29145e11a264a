"""One stored image, and what its codes are shown as: what the native core is given of a view.

The image is judged here, once for all that is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mammoclip_sdk._native import PREPROCESSING_VERSION as NATIVE_VERSION
from mammoclip_sdk.errors import BundleVersionError, PixelError
from mammoclip_sdk.exam import DisplayAttributes, StoredImage
from mammoclip_sdk.preprocessing import (
    MAX_REDUCTION,
    PREPROCESSING_VERSION,
    Preprocessing,
    require_preprocessing,
)
from mammoclip_sdk.tensor.grey_values import GreyScale, grey_scale


@contextmanager
def naming(image: StoredImage) -> Iterator[None]:
    """Put the view and the image's name in front of what an error is about."""
    try:
        yield
    except PixelError as exc:
        raise PixelError(
            f"{image.view} ({image.name}): {exc.subject}",
            found=exc.found,
            expected=exc.expected,
            remedy=exc.remedy,
            code=exc.code,
        ) from exc


def stored_scale(image: StoredImage, preprocessing: Preprocessing) -> GreyScale:
    """Return what the stored codes are shown as.

    Raises
    ------
    PixelError
        The pixels are no image that a view can be made of, or the header asks for something
        undefined.
    BundleFormatError, BundleVersionError
        The preprocessing is not one that this software, or its native core, obeys.
    """
    require_preprocessing(preprocessing)
    if NATIVE_VERSION != PREPROCESSING_VERSION:
        raise BundleVersionError(
            "native core of mammoclip_sdk",
            found=f"version {NATIVE_VERSION}",
            expected=f"version {PREPROCESSING_VERSION}",
            remedy="Install mammoclip-sdk again, whole.",
        )
    pixels = image.pixels
    if (
        pixels.dtype not in (np.uint8, np.uint16)
        or pixels.ndim != 2
        or pixels.size == 0
        or not pixels.flags.c_contiguous
    ):
        raise PixelError(
            "pixels",
            found=f"{pixels.dtype} of shape {pixels.shape}, strides {pixels.strides}",
            expected="a C-contiguous uint8 or uint16 array (rows, columns), not empty",
            remedy="Hand the image over as one grey-scale frame.",
        )
    _check_reduction(image)
    return grey_scale(
        image.display, preprocessing, container_bits=8 * pixels.itemsize, pixels=pixels
    )


def beside_padding(scale: GreyScale, display: DisplayAttributes) -> float:
    """Return the largest displayed value of the codes next to padding; 0 without padding."""
    if display.padding is None:
        return 0.0
    span = 1 << display.bits_stored
    lowest = -(span // 2) if display.signed else 0
    beside = [min(display.padding) - 1, max(display.padding) + 1]
    codes = [value & (span - 1) for value in beside if lowest <= value < lowest + span]
    return float(scale.values[codes].max(initial=0.0))


def lowered(scale: GreyScale, image: StoredImage) -> GreyScale:
    """Return the scale for the samples at hand, which of a reduced image are not the source's.

    What rounding adds to them is undone, which is visible in images of few bits. The 5-3 wavelet
    rounds down where it predicts, ISO 15444-1 F.4.8.1. Half of the time that takes away half a
    stored value, and of this a half is added to the low-pass sample: of tissue 1/4 in each
    direction, 1/2 at each level.
    """
    if image.reduction is None or not image.reduction.reversible:
        return scale
    span = 1 << image.display.bits_stored
    half = span // 2 if image.display.signed else 0  # to put codes in the order of their values
    stored = np.arange(span)
    ordered = np.roll(scale.values[:span], half)
    lowered = np.roll(np.interp(stored - image.reduction.levels / 2, stored, ordered), -half)
    values = np.tile(lowered.astype(np.float32), scale.values.size // span)
    return GreyScale(values=values, darkest=scale.darkest)


def _check_reduction(image: StoredImage) -> None:
    if image.reduction is None:
        return
    levels = image.reduction.levels
    expected = tuple(-(-side // 2**levels) for side in image.reduction.source_shape)
    if not 1 <= levels <= MAX_REDUCTION or image.pixels.shape != expected:
        raise PixelError(
            "pixels",
            found=f"{image.pixels.shape} without {levels} resolution levels",
            expected=f"{expected} without 1 to {MAX_REDUCTION}",
            remedy="Hand the image over as pixels.decode returns it.",
        )


def source_shape(image: StoredImage) -> tuple[int, int]:
    """Return (rows, columns) of the source image, however it was decoded."""
    if image.reduction is not None:
        return image.reduction.source_shape
    rows, columns = image.pixels.shape
    return rows, columns


def native_reduction(image: StoredImage) -> tuple[int, bool, int, int] | None:
    """Return the reduction as the native core takes it."""
    if image.reduction is None:
        return None
    return (image.reduction.levels, image.reduction.reversible, *image.reduction.source_shape)
