"""Stored images of a breast in front of air, and how they are to be prepared."""

from __future__ import annotations

import numpy as np

from mammoclip_sdk.exam import (
    DisplayAttributes,
    StoredImage,
    View,
)
from mammoclip_sdk.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(
    version=1,
    height=96,
    width=64,
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.02,
    background="keep",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)

TWELVE_BITS = DisplayAttributes(bits_stored=12, signed=False, photometric="MONOCHROME2")


def stored(pixels, view=View.LCC, display=TWELVE_BITS) -> StoredImage:
    return StoredImage(
        view=view,
        name="IM0001.dcm",
        pixels=np.ascontiguousarray(pixels),
        display=display,
        transfer_syntax="array",
    )


def breast(rows=400, columns=300, *, chest_wall="left", level=1500):
    """A half ellipse against one edge, air elsewhere, texture inside."""
    row, column = np.mgrid[:rows, :columns] + 0.5
    inside = ((row - rows / 2) / (0.4 * rows)) ** 2 + (column / (0.6 * columns)) ** 2 < 1
    texture = np.random.default_rng(rows + columns).integers(-300, 300, (rows, columns))
    pixels = np.where(inside, level + texture, 0).astype(np.uint16)
    return pixels if chest_wall == "left" else np.ascontiguousarray(pixels[:, ::-1])
