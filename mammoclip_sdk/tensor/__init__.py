"""Four stored views and a `Preprocessing` become the model's input, side by side on all cores.

What is made of one view is in ``view``; here the four are decoded, as far as they must be,
and put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from mammoclip_sdk.errors import MissingViewError, PixelError
from mammoclip_sdk.exam import VIEWS, Exam, ModelInput, SourceImage, StoredImage, View
from mammoclip_sdk.preprocessing import Preprocessing, reduction_for, require_preprocessing
from mammoclip_sdk.processor import side_by_side
from mammoclip_sdk.tensor.view import Built, build_view, build_view_and_judge, display

__all__ = [
    "Decode",
    "build",
    "build_view",
    "decode_and_build",
    "decode_and_build_view",
    "display",
]


class Decode(Protocol):
    """What turns a source image into stored pixels: `pixels.decode`, or the like of it."""

    def __call__(self, image: SourceImage, *, levels: int) -> StoredImage:
        """Decode, JPEG 2000 without its ``levels`` finest resolution levels where it can be."""


def build(images: Mapping[View, StoredImage], preprocessing: Preprocessing) -> ModelInput:
    """Turn the four views of an exam into the graph's input, side by side.

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
    return _model_input(side_by_side(lambda view: build_view(images[view], preprocessing), VIEWS))


def decode_and_build(
    exam: Exam, preprocessing: Preprocessing, decode: Decode
) -> tuple[dict[View, StoredImage], ModelInput]:
    """Decode and turn the four views of an exam into the graph's input, side by side.

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

    def chain(view: View) -> tuple[StoredImage, Built]:
        return decode_and_build_view(exam.images[view], preprocessing, decode)

    images, built = zip(*side_by_side(chain, VIEWS), strict=True)
    return dict(zip(VIEWS, images, strict=True)), _model_input(list(built))


def decode_and_build_view(
    source: SourceImage, preprocessing: Preprocessing, decode: Decode
) -> tuple[StoredImage, Built]:
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
        built, certain = build_view_and_judge(image, preprocessing)
        if image.reduction is None:
            return image, built
        _, geometry, breast = built
        # The wavelet mixes padding with the image beside it. A mixture is no padding, and would be
        # a bright rim where the next values are bright.
        fades = breast.beside_padding <= preprocessing.segmentation_threshold
        enough = reduction_for(geometry, preprocessing) if fades else 0
        if certain and image.reduction.levels <= enough:
            return image, built
        levels = min(enough, image.reduction.levels - 1)


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


def _model_input(built: list[Built]) -> ModelInput:
    views, geometries, breasts = zip(*built, strict=True)
    return ModelInput(
        tensors={"views": np.stack(views)[None, :, None]},
        geometry=dict(zip(VIEWS, geometries, strict=True)),
        breasts=dict(zip(VIEWS, breasts, strict=True)),
    )
