"""Four stored views and a `Preprocessing` become the model's input.

The grey values of a view are composed into one table; the native core passes the pixels through
it, finds the breast, crops, mirrors and resamples. Where every part of the result came from is
kept in a `ViewGeometry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk._native import PREPROCESSING_VERSION as NATIVE_VERSION
from mammoclip_sdk._native import Breast, find_breast, resample
from mammoclip_sdk.bundle import PREPROCESSING_VERSION, Preprocessing
from mammoclip_sdk.errors import BundleVersionError, MissingViewError, PixelError
from mammoclip_sdk.exam import (
    VIEWS,
    DisplayAttributes,
    ModelInput,
    StoredImage,
    View,
    ViewGeometry,
)
from mammoclip_sdk.grey_values import GreyScale, grey_scale, wrong_key

SMALLEST_BREAST = 16
"""Pixels; a bounding box with a shorter side is a marker or noise, not a breast."""
LARGEST_INPUT = 8192
"""Pixels per side of the model input; more is a damaged bundle, not a model."""

_ACCEPTED = {
    "background": ("keep", "zero"),
    "geometry": ("letterbox", "stretch"),
    "resampling": ("area",),
}

_Box = tuple[int, int, int, int]


def value_table(
    display: DisplayAttributes,
    preprocessing: Preprocessing,
    *,
    container_bits: int,
    pixels: NDArray[np.uint8] | NDArray[np.uint16] | None = None,
) -> NDArray[np.float32]:
    """Return the displayed value of every stored code, as `grey_values.grey_scale` composes it.

    Returns
    -------
    ndarray
        (2**container_bits,) float32, 0 (air) to 1; codes inside the padding range are 0.
    """
    return grey_scale(display, preprocessing, container_bits=container_bits, pixels=pixels).values


def build_view(
    image: StoredImage, preprocessing: Preprocessing
) -> tuple[NDArray[np.float32], ViewGeometry]:
    """Turn one stored view into its share of the model input.

    Returns
    -------
    view : ndarray
        (height, width) float32, 0 (air) to 1; the chest wall is at the left.
    geometry : ViewGeometry
        Maps points of the view to points of the source image and back.

    Raises
    ------
    PixelError
        No breast is found, or the header or preprocessing asks for something undefined. The
        message names the view and the image.
    BundleVersionError
        The preprocessing is of another version than this software.

    Notes
    -----
    A SIGMOID window never reaches 0, so the segmentation threshold counts from the darkest value
    the image's grey scale holds: of a scale that starts at 0.1, 0.05 means 0.145.
    """
    with _naming(image):
        scale = _grey_scale(image, preprocessing)
        threshold = scale.darkest + preprocessing.segmentation_threshold * (1.0 - scale.darkest)
        breast = find_breast(image.pixels, scale.values, threshold)
        _check_breast(breast)
        crop = _with_margin(breast.box, image.pixels.shape, preprocessing.crop_margin)
        placed = _placed(crop, preprocessing)
        zero = preprocessing.background == "zero"
        view = resample(
            image.pixels,
            scale.values,
            crop=crop,
            placed=placed,
            shape=(preprocessing.height, preprocessing.width),
            mirrored=breast.chest_wall_right,
            mask=breast.mask if zero else None,
            block_side=breast.block_side if zero else 0,
        )
    rows, columns = image.pixels.shape
    return view, ViewGeometry(
        view=image.view,
        source_shape=(rows, columns),
        crop=crop,
        mirrored=breast.chest_wall_right,
        placed=placed,
    )


def build(images: Mapping[View, StoredImage], preprocessing: Preprocessing) -> ModelInput:
    """Turn the four views of an exam into the graph's input, one thread a view.

    Returns
    -------
    ModelInput
        ``tensors["views"]`` is (1, 4, 1, height, width) float32 in the order of `VIEWS`.

    Raises
    ------
    MissingViewError
        A view is absent.
    PixelError
        As in `build_view`, or an image stands in the place of another view.
    BundleVersionError
        The preprocessing is of another version than this software.
    """
    absent = [view for view in VIEWS if view not in images]
    if absent:
        raise MissingViewError(
            ", ".join(absent),
            found=f"{len(VIEWS) - len(absent)} of {len(VIEWS)} views",
            expected=", ".join(VIEWS),
            remedy="Hand over all four views; none is filled in.",
        )
    for view in VIEWS:
        if images[view].view != view:
            raise PixelError(
                f"{view} ({images[view].name})",
                found=f"an image of {images[view].view}",
                expected=f"an image of {view}",
                remedy="Hand every image over under its own view.",
            )
    with ThreadPoolExecutor(max_workers=len(VIEWS)) as pool:
        built = list(pool.map(lambda view: build_view(images[view], preprocessing), VIEWS))
    return ModelInput(
        tensors={"views": np.stack([pixels for pixels, _ in built])[None, :, None]},
        geometry={geometry.view: geometry for _, geometry in built},
    )


def display(image: StoredImage, preprocessing: Preprocessing, *, height: int) -> NDArray[np.uint8]:
    """Return the whole image as it would be shown, neither cropped nor mirrored.

    Parameters
    ----------
    image : StoredImage
        The view to show.
    preprocessing : Preprocessing
        Its ``voi`` chooses the grey values; its geometry is not used.
    height : int
        Rows of the picture, 1 to 8192; the columns follow from the image's shape.

    Returns
    -------
    ndarray
        (height, width) uint8, 0 (air) to 255.

    Raises
    ------
    PixelError
        As in `value_table`, or ``height`` is out of range.
    """
    with _naming(image):
        scale = _grey_scale(image, preprocessing)
        rows, columns = image.pixels.shape
        width = max(1, round(columns * height / rows))
        if not (1 <= height <= LARGEST_INPUT and width <= LARGEST_INPUT):
            raise PixelError(
                "picture size",
                found=f"{height}x{width} pixels",
                expected=f"1 to {LARGEST_INPUT} pixels a side",
                remedy="Ask for another height.",
            )
        whole = resample(
            image.pixels,
            scale.values,
            crop=(0, 0, rows, columns),
            placed=(0, 0, height, width),
            shape=(height, width),
        )
    shown: NDArray[np.uint8] = np.rint(np.clip(whole, 0.0, 1.0) * 255.0).astype(np.uint8)
    return shown


def _check_versions(preprocessing: Preprocessing) -> None:
    for subject, version in (
        ("preprocessing of the bundle", preprocessing.version),
        ("native core of mammoclip_sdk", NATIVE_VERSION),
    ):
        if version != PREPROCESSING_VERSION:
            raise BundleVersionError(
                subject,
                found=f"version {version}",
                expected=f"version {PREPROCESSING_VERSION}",
                remedy="Install the mammoclip-sdk that belongs to the bundle, whole.",
            )


def _check_keys(preprocessing: Preprocessing) -> None:
    for key, accepted in _ACCEPTED.items():
        if getattr(preprocessing, key) not in accepted:
            raise wrong_key(key, repr(getattr(preprocessing, key)), " or ".join(accepted))
    for key in ("height", "width"):
        if not 1 <= getattr(preprocessing, key) <= LARGEST_INPUT:
            raise wrong_key(key, str(getattr(preprocessing, key)), f"1 to {LARGEST_INPUT} pixels")
    for key in ("segmentation_threshold", "crop_margin"):
        if not 0.0 <= getattr(preprocessing, key) < 1.0:
            raise wrong_key(key, f"{getattr(preprocessing, key):g}", "0 to less than 1")


@contextmanager
def _naming(image: StoredImage) -> Iterator[None]:
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


def _grey_scale(image: StoredImage, preprocessing: Preprocessing) -> GreyScale:
    _check_versions(preprocessing)
    _check_keys(preprocessing)
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
    return grey_scale(
        image.display, preprocessing, container_bits=8 * pixels.itemsize, pixels=pixels
    )


def _check_breast(breast: Breast) -> None:
    _, _, height, width = breast.box
    if breast.blocks == breast.mask.size:
        found = "no air: the whole image is brighter than the segmentation threshold"
    elif breast.blocks == 0:
        found = "nothing brighter than the segmentation threshold"
    elif min(height, width) < SMALLEST_BREAST:
        found = f"a largest bright region of only {height}x{width} pixels"
    else:
        return
    raise PixelError(
        "breast",
        found=found,
        expected="a breast in front of air",
        remedy="Check that the image shows a breast and that its polarity and window are right.",
        code="no_breast",
    )


def _with_margin(box: _Box, shape: tuple[int, ...], share: float) -> _Box:
    top, left, height, width = box
    margin = round(share * max(height, width))
    first_row, first_column = max(top - margin, 0), max(left - margin, 0)
    return (
        first_row,
        first_column,
        min(top + height + margin, shape[0]) - first_row,
        min(left + width + margin, shape[1]) - first_column,
    )


def _placed(crop: _Box, preprocessing: Preprocessing) -> _Box:
    """Return where the crop goes: the chest wall at the left edge, centred top to bottom."""
    if preprocessing.geometry == "stretch":
        return (0, 0, preprocessing.height, preprocessing.width)
    _, _, height, width = crop
    scale = min(preprocessing.height / height, preprocessing.width / width)
    placed_height = min(max(1, round(height * scale)), preprocessing.height)
    placed_width = min(max(1, round(width * scale)), preprocessing.width)
    return ((preprocessing.height - placed_height) // 2, 0, placed_height, placed_width)
