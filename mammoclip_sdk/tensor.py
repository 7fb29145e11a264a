"""Four stored views and a `Preprocessing` become the model's input.

The grey values of a view are composed into one table; the native core passes the pixels through
it, finds the breast, crops, mirrors and resamples. Where every part of the result came from is
kept in a `ViewGeometry`, in pixels of the source image however that was decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk._native import PREPROCESSING_VERSION as NATIVE_VERSION
from mammoclip_sdk._native import Breast, find_breast, place, resample
from mammoclip_sdk.errors import BundleVersionError, MissingViewError, PixelError
from mammoclip_sdk.exam import (
    VIEWS,
    BreastRegion,
    Exam,
    ModelInput,
    SourceImage,
    StoredImage,
    View,
    ViewGeometry,
)
from mammoclip_sdk.grey_values import GreyScale, grey_scale
from mammoclip_sdk.preprocessing import (
    MAX_INPUT_SIDE,
    MAX_REDUCTION,
    PREPROCESSING_VERSION,
    Preprocessing,
    reduction_for,
    require_preprocessing,
)

_WHITE = 254 / 255
"""Displayed values from here on look the same on an 8-bit screen."""

_Built = tuple[NDArray[np.float32], ViewGeometry, BreastRegion]


class Decode(Protocol):
    """What turns a source image into stored pixels: `pixels.decode`, or the like of it."""

    def __call__(self, image: SourceImage, *, levels: int) -> StoredImage:
        """Decode, JPEG 2000 without its ``levels`` finest resolution levels where it can be."""


def build_view(image: StoredImage, preprocessing: Preprocessing) -> _Built:
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
    built, _ = _build_view(image, preprocessing)
    return built


def _build_view(image: StoredImage, preprocessing: Preprocessing) -> tuple[_Built, bool]:
    """Build a view, and say whether the breast is that of the image decoded in full for certain."""
    with _naming(image):
        scale = _lowered(_grey_scale(image, preprocessing), image)
        threshold = scale.darkest + preprocessing.segmentation_threshold * (1.0 - scale.darkest)
        breast = find_breast(image.pixels, scale.values, threshold, reduction=_reduction(image))
        _check_found(breast)
        shape = _source_shape(image)
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
            reduction=_reduction(image),
        )
    geometry = ViewGeometry(
        view=image.view,
        source_shape=shape,
        crop=crop,
        mirrored=breast.chest_wall_right,
        placed=placed,
    )
    return (view, geometry, _region(breast, image, scale, threshold)), breast.certain


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
    _require_views(images)
    with ThreadPoolExecutor(max_workers=len(VIEWS)) as pool:
        built = list(pool.map(lambda view: build_view(images[view], preprocessing), VIEWS))
    return _model_input(built)


def decode_and_build(
    exam: Exam, preprocessing: Preprocessing, decode: Decode
) -> tuple[dict[View, StoredImage], ModelInput]:
    """Decode and turn the four views of an exam into the graph's input, one thread a view.

    JPEG 2000 is decoded as `decode_and_build_view` says.

    Returns
    -------
    images : dict
        Each view as it was decoded for its tensor.
    model_input : ModelInput
        As from `build`.

    Raises
    ------
    MammoClipError
        What ``decode`` raises, and what `build` raises.
    """
    require_preprocessing(preprocessing)
    _require_views(exam.images)

    def chain(view: View) -> tuple[StoredImage, _Built]:
        return decode_and_build_view(exam.images[view], preprocessing, decode)

    with ThreadPoolExecutor(max_workers=len(VIEWS)) as pool:
        images, built = zip(*pool.map(chain, VIEWS), strict=True)
    return dict(zip(VIEWS, images, strict=True)), _model_input(list(built))


def decode_and_build_view(
    source: SourceImage, preprocessing: Preprocessing, decode: Decode
) -> tuple[StoredImage, _Built]:
    """Decode one view and build its share of the model input.

    JPEG 2000 is decoded without as many resolution levels as the preprocessing allows. Where the
    breast turns out to be too small for that, or its edge too sharp to tell for certain its box and
    the bright regions that belong to it, the image is decoded again with more of them.

    Returns
    -------
    image : StoredImage
        The view as it was decoded for its tensor.
    built : tuple
        As from `build_view`.
    """
    levels = preprocessing.jpeg2000_reduction
    while True:
        image = decode(source, levels=levels)
        built, certain = _build_view(image, preprocessing)
        if image.reduction is None:
            return image, built
        enough = 0
        if _fades_into_padding(image, preprocessing):
            enough = reduction_for(built[1], preprocessing)
        if certain and image.reduction.levels <= enough:
            return image, built
        levels = min(enough, image.reduction.levels - 1)


def _fades_into_padding(image: StoredImage, preprocessing: Preprocessing) -> bool:
    """Say whether the values beside padding are shown as dark as padding, which is 0.

    The wavelet mixes padding with the image beside it. A mixture is no padding, and would be a
    bright rim where the next values are bright.
    """
    padding = image.display.padding
    if padding is None:
        return True
    span = 1 << image.display.bits_stored
    lowest = -(span // 2) if image.display.signed else 0
    beside = [min(padding) - 1, max(padding) + 1]
    codes = [value & (span - 1) for value in beside if lowest <= value < lowest + span]
    values = _grey_scale(image, preprocessing).values
    return bool(values[codes].max(initial=0.0) <= preprocessing.segmentation_threshold)


def _require_views(images: Mapping[View, StoredImage] | Mapping[View, SourceImage]) -> None:
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


def _model_input(built: list[_Built]) -> ModelInput:
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
        scale = _lowered(_grey_scale(image, preprocessing), image)
        rows, columns = _source_shape(image)
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
            reduction=_reduction(image),
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
    _check_reduction(image)
    return grey_scale(
        image.display, preprocessing, container_bits=8 * pixels.itemsize, pixels=pixels
    )


def _lowered(scale: GreyScale, image: StoredImage) -> GreyScale:
    """Undo what rounding adds to reduced samples, which is visible in images of few bits.

    The 5-3 wavelet rounds down where it predicts, ISO 15444-1 F.4.8.1. Half of the time that takes
    away half a stored value, and of this a half is added to the low-pass sample: of tissue 1/4
    in each direction, 1/2 at each level.
    """
    if image.reduction is None or not image.reduction.reversible:
        return scale
    span = 1 << image.display.bits_stored
    half = (
        span // 2 if image.display.signed else 0
    )  # so that codes are in the order of their values
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


def _source_shape(image: StoredImage) -> tuple[int, int]:
    if image.reduction is not None:
        return image.reduction.source_shape
    rows, columns = image.pixels.shape
    return rows, columns


def _reduction(image: StoredImage) -> tuple[int, bool, int, int] | None:
    """Return the reduction as the native core takes it."""
    if image.reduction is None:
        return None
    return (image.reduction.levels, image.reduction.reversible, *image.reduction.source_shape)


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
    levels = 0 if image.reduction is None else image.reduction.levels
    middles = (np.arange(side // 2, length, side) >> levels for length in _source_shape(image))
    samples = scale.values[image.pixels[np.ix_(*middles)]]
    rows, columns = samples.shape  # a block that is cut off before its middle has no sample
    tissue = samples[breast.mask[:rows, :columns] & (samples > threshold)]
    low, high = np.percentile(tissue, (5, 95)) if tissue.size else (0.0, 0.0)
    return BreastRegion(
        share=breast.blocks / breast.mask.size,
        far_edge=float(breast.mask[:, 0 if breast.chest_wall_right else -1].mean()),
        spread=float(high - low),
        saturated=float(np.mean(tissue >= _WHITE)) if tissue.size else 0.0,
    )
