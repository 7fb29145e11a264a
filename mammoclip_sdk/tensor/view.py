"""One stored view -> its share of the model's input, or a picture of all of it.

The native core passes the pixels through the view's grey scale, finds the breast, crops, mirrors
and resamples. Where every part came from is kept in a `ViewGeometry`, in pixels of the source image
however that was decoded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk._native import Breast, find_breast, measure_tissue, place, resample
from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.exam import BreastRegion, StoredImage, ViewGeometry
from mammoclip_sdk.preprocessing import MAX_INPUT_SIDE, Preprocessing
from mammoclip_sdk.tensor.displayed import (
    beside_padding,
    lowered,
    naming,
    native_reduction,
    source_shape,
    stored_scale,
)
from mammoclip_sdk.tensor.grey_values import GreyScale

Built = tuple[NDArray[np.float32], ViewGeometry, BreastRegion]


def build_view(image: StoredImage, preprocessing: Preprocessing) -> Built:
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
    built, _ = build_view_and_judge(image, preprocessing)
    return built


def build_view_and_judge(image: StoredImage, preprocessing: Preprocessing) -> tuple[Built, bool]:
    """Build a view, and say whether the breast is that of the image decoded in full for certain."""
    with naming(image):
        stored = stored_scale(image, preprocessing)
        scale = lowered(stored, image)
        threshold = scale.darkest + preprocessing.segmentation_threshold * (1.0 - scale.darkest)
        breast = find_breast(
            image.pixels, scale.values, threshold, reduction=native_reduction(image)
        )
        _check_found(breast)
        shape = source_shape(image)
        crop, placed = place(
            breast,
            shape=shape,
            height=preprocessing.height,
            width=preprocessing.width,
            crop_margin=preprocessing.crop_margin,
            letterbox=preprocessing.geometry == "letterbox",
        )
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
            reduction=native_reduction(image),
        )
    geometry = ViewGeometry(
        view=image.view,
        source_shape=shape,
        crop=crop,
        mirrored=breast.chest_wall_right,
        placed=placed,
    )
    region = _region(breast, image, scale, threshold, beside_padding(stored, image.display))
    return (view, geometry, region), breast.certain


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
    with naming(image):
        scale = lowered(stored_scale(image, preprocessing), image)
        rows, columns = source_shape(image)
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
            reduction=native_reduction(image),
        )
    shown: NDArray[np.uint8] = np.rint(np.clip(whole, 0.0, 1.0) * 255.0).astype(np.uint8)
    return shown


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


def _region(
    breast: Breast, image: StoredImage, scale: GreyScale, threshold: float, beside: float
) -> BreastRegion:
    spread, saturated = measure_tissue(
        image.pixels, scale.values, breast, threshold, reduction=native_reduction(image)
    )
    mask = breast.mask
    return BreastRegion(
        share=breast.blocks / mask.size,
        far_edge=float(mask[:, 0 if breast.chest_wall_right else -1].mean()),
        spread=spread,
        saturated=saturated,
        beside_padding=beside,
    )
