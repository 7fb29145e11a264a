"""The specification of the native core, in NumPy: slow, short, and written to be read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[int, int, int, int]
"""(top, left, height, width)"""


@dataclass(frozen=True)
class Breast:
    """The largest bright region of one image."""

    blocks: int
    box: Box
    chest_wall_right: bool
    block_side: int
    mask: NDArray[np.bool_]
    """One entry a block, grown by one block in all eight directions."""


def find_breast(shown: NDArray[np.float64], threshold: float) -> Breast:
    """Segment an image of displayed values, (rows, columns)."""
    rows, columns = shown.shape
    side = max(1, int(max(rows, columns) / 256 + 0.5))
    bright = np.array(
        [
            [shown[r : r + side, c : c + side].mean() > threshold for c in range(0, columns, side)]
            for r in range(0, rows, side)
        ]
    )
    labels, count = ndimage.label(bright)  # 4-connected
    if count == 0:
        return Breast(0, (0, 0, 0, 0), False, side, np.zeros_like(bright))
    sizes = [int((labels == label).sum()) for label in range(1, count + 1)]
    largest = [label for label in range(1, count + 1) if sizes[label - 1] == max(sizes)]
    first = min(largest, key=lambda label: int(np.flatnonzero(labels == label)[0]))
    breast = labels == first

    pixels = np.kron(breast, np.ones((side, side), dtype=bool))[:rows, :columns]
    inside_rows, inside_columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    top, left = int(inside_rows[0]), int(inside_columns[0])
    return Breast(
        blocks=max(sizes),
        box=(top, left, int(inside_rows[-1]) + 1 - top, int(inside_columns[-1]) + 1 - left),
        # The middle column of an odd number of them belongs to neither half.
        chest_wall_right=bool(
            pixels[:, (columns + 1) // 2 :].sum() > pixels[:, : columns // 2].sum()
        ),
        block_side=side,
        mask=ndimage.binary_dilation(breast, structure=np.ones((3, 3), dtype=bool)),
    )


def coverage(
    start: int, length: int, outputs: int, samples: int, offset: float
) -> NDArray[np.float64]:
    """Return the (outputs, samples) matrix of shares in an area average along one axis."""
    low = np.arange(samples) + offset
    high = low + 1.0
    low[0], high[-1] = -np.inf, np.inf  # the edge is repeated
    edges = start + np.arange(outputs + 1) * length / outputs
    overlap = np.minimum(high, edges[1:, None]) - np.maximum(low, edges[:-1, None])
    return np.clip(overlap, 0.0, None) * outputs / length


def resample(
    shown: NDArray[np.float64],
    *,
    crop: Box,
    placed: Box,
    shape: tuple[int, int],
    mirrored: bool = False,
    offset: tuple[float, float] = (0.0, 0.0),
    mask: NDArray[np.bool_] | None = None,
    block_side: int = 0,
) -> NDArray[np.float64]:
    """Average displayed values over the area of each output pixel."""
    rows, columns = shown.shape
    if mask is not None:
        block = np.ones((block_side, block_side), dtype=bool)
        shown = shown * np.kron(mask, block)[:rows, :columns]
    down = coverage(crop[0], crop[2], placed[2], rows, offset[0])
    across = coverage(crop[1], crop[3], placed[3], columns, offset[1])
    view = down @ shown @ across.T
    output = np.zeros(shape)
    top, left, height, width = placed
    output[top : top + height, left : left + width] = view[:, ::-1] if mirrored else view
    return output


def letterbox(crop: Box, shape: tuple[int, int]) -> Box:
    """Return where a crop goes when its aspect is kept: at the left edge, centred vertically."""
    scale = min(shape[0] / crop[2], shape[1] / crop[3])
    height, width = (max(1, round(side * scale)) for side in crop[2:])
    return ((shape[0] - height) // 2, 0, height, width)
