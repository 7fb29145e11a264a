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
from mammoclip_sdk.errors import BundleVersionError, MissingViewError, PixelError
from mammoclip_sdk.exam import (
    VIEWS,
    BreastRegion,
    ModelInput,
    StoredImage,
    View,
    ViewGeometry,
)
from mammoclip_sdk.grey_values import GreyScale, grey_scale
from mammoclip_sdk.preprocessing import (
    MAX_INPUT_SIDE,
    PREPROCESSING_VERSION,
    Preprocessing,
    require_preprocessing,
)

_WHITE = 254 / 255
"""Displayed values from here on look the same on an 8-bit screen."""

_Box = tuple[int, int, int, int]


def build_view(
    image: StoredImage, preprocessing: Preprocessing
) -> tuple[NDArray[np.float32], ViewGeometry, BreastRegion]:
    """Turn one stored view into its share of the model input.

    Whether what it shows should be scored is for ``quality`` to say.

    Returns
    -------
    view : ndarray
        (height, width) float32, 0 (air) to 1; the chest wall is at the left.
    geometry : ViewGeometry
        Maps points of the view to points of the source image and back.
    breast : BreastRegion
        What was measured where the crop was made.

    Raises
    ------
    PixelError
        Nothing is bright enough to be cropped to, or the header asks for something undefined.
        The message names the view and the image.
    BundleFormatError, BundleVersionError
        The preprocessing is not one that this software obeys.

    Notes
    -----
    A SIGMOID window never reaches 0, so the segmentation threshold counts from the darkest value
    the image's grey scale holds: of a scale that starts at 0.1, 0.05 means 0.145.
    """
    with _naming(image):
        scale = _grey_scale(image, preprocessing)
        threshold = scale.darkest + preprocessing.segmentation_threshold * (1.0 - scale.darkest)
        breast = find_breast(image.pixels, scale.values, threshold)
        _check_found(breast)
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
    geometry = ViewGeometry(
        view=image.view,
        source_shape=(rows, columns),
        crop=crop,
        mirrored=breast.chest_wall_right,
        placed=placed,
    )
    return view, geometry, _region(breast, image, scale, threshold)


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
    BundleFormatError, BundleVersionError
        The preprocessing is not one that this software obeys.
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
    views, geometries, breasts = zip(*built, strict=True)
    return ModelInput(
        tensors={"views": np.stack(views)[None, :, None]},
        geometry=dict(zip(VIEWS, geometries, strict=True)),
        breasts=dict(zip(VIEWS, breasts, strict=True)),
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
        As in `grey_values.grey_scale`, or ``height`` is out of range.
    """
    with _naming(image):
        scale = _grey_scale(image, preprocessing)
        rows, columns = image.pixels.shape
        width = max(1, round(columns * height / rows))
        if not (1 <= height <= MAX_INPUT_SIDE and width <= MAX_INPUT_SIDE):
            raise PixelError(
                "picture size",
                found=f"{height}x{width} pixels",
                expected=f"1 to {MAX_INPUT_SIDE} pixels a side",
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
    return grey_scale(
        image.display, preprocessing, container_bits=8 * pixels.itemsize, pixels=pixels
    )


def _check_found(breast: Breast) -> None:
    if breast.blocks == 0:
        raise PixelError(
            "breast",
            found="nothing brighter than the segmentation threshold",
            expected="a breast in front of air",
            remedy="Check that the image shows a breast and that its polarity and window are "
            "right.",
            code="no_breast",
        )


def _region(breast: Breast, image: StoredImage, scale: GreyScale, threshold: float) -> BreastRegion:
    """Measure the breast by one pixel from the middle of each of its blocks."""
    side = breast.block_side
    samples = scale.values[image.pixels[side // 2 :: side, side // 2 :: side]]
    rows, columns = samples.shape  # a block that is cut off before its middle has no sample
    tissue = samples[breast.mask[:rows, :columns] & (samples > threshold)]
    low, high = np.percentile(tissue, (5, 95)) if tissue.size else (0.0, 0.0)
    return BreastRegion(
        share=breast.blocks / breast.mask.size,
        far_edge=float(breast.mask[:, 0 if breast.chest_wall_right else -1].mean()),
        spread=float(high - low),
        saturated=float(np.mean(tissue >= _WHITE)) if tissue.size else 0.0,
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
