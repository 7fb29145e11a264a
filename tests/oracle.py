"""The specification of the native core, in NumPy: slow, short, and written to be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[int, int, int, int]
"""(top, left, height, width)"""


def displayed(
    display, stored: Iterable[int], voi: str, pixels: Iterable[int] = (), percentiles=None
) -> list[float]:
    """Return what stored values are shown as, 0 (air) to 1.

    ``display`` has the attributes of `mammoclip_sdk.exam.DisplayAttributes`; ``pixels`` are the
    image's stored values, for percentiles. Values, not codes: the sign is already in them.
    """
    show = voi_transformation(display, voi, pixels, percentiles)
    shown = []
    for value in stored:
        y = 0.0
        if not is_padding(display, value):
            y = show(modality_value(display, value))
            y = 1.0 - y if display.photometric == "MONOCHROME1" else y
        shown.append(y)
    return shown


def voi_transformation(display, voi: str, pixels, percentiles) -> Callable[[float], float]:
    """Return what takes a modality value to 0 to 1: the header's choice or a range's."""
    if voi == "percentile":
        tissue = [modality_value(display, p) for p in pixels if not is_padding(display, p)]
        low, high = (lowest_that_reaches(tissue, share) for share in percentiles)
        return lambda x: between(x, low, high)
    wants_lut = voi == "header_lut" or not display.windows
    if voi != "stored" and display.voi_luts and wants_lut:
        lut = display.voi_luts[0]
        return lambda x: looked_up(lut, x) / max(int(entry) for entry in lut.data)
    if voi != "stored" and display.windows:
        return lambda x: windowed(x, display.windows[0], display.voi_function)
    whole = [modality_value(display, value) for value in stored_range(display)]
    low, high = min(whole), max(whole)
    return lambda x: between(x, low, high)


def stored_range(display) -> range:
    """Return every stored value; Pixel Representation (0028,0103) says whether they have a sign."""
    values = 2**display.bits_stored
    return range(-values // 2, values // 2) if display.signed else range(values)


def is_padding(display, stored: int) -> bool:
    """PS3.3 C.7.5.1.1.2: from Pixel Padding Value to Range Limit, both included, in any order."""
    return display.padding is not None and min(display.padding) <= stored <= max(display.padding)


def modality_value(display, stored: int) -> float:
    """PS3.3 C.11.1: a Modality LUT, or output units = slope * stored value + intercept."""
    if display.modality_lut is not None:
        return float(looked_up(display.modality_lut, stored))
    return display.slope * stored + display.intercept


def first_input(word: int, display, *, of_voi: bool) -> int:
    """PS3.3 C.11.1.1 and C.11.2.1.1: the second value of LUT Descriptor (0028,3002), of 16 bits.

    It has a sign where a value below 0 may be looked up: a stored one, or of a VOI LUT the output
    of the modality transformation.
    """
    inputs = stored_range(display)
    least = min(modality_value(display, value) for value in inputs) if of_voi else inputs[0]
    return word - 2**16 if least < 0 and word >= 2**15 else word


def looked_up(lut, value: float) -> int:
    """PS3.3 C.11.1.1.1: inputs outside the table map to its first or its last entry."""
    entry = round(value - lut.first)
    if entry < 0:
        return int(lut.data[0])
    return int(lut.data[entry] if entry < len(lut.data) else lut.data[-1])


def windowed(x: float, window, function: str) -> float:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2, for an output of 0 to 1."""
    c, w = window.center, window.width
    if function == "SIGMOID":
        exponent = -4 * (x - c) / w
        return 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0
    if function == "LINEAR":
        if x <= c - 0.5 - (w - 1) / 2:
            return 0.0
        if x > c - 0.5 + (w - 1) / 2:
            return 1.0
        return (x - (c - 0.5)) / (w - 1) + 0.5
    if x <= c - w / 2:
        return 0.0
    if x > c + w / 2:
        return 1.0
    return (x - c) / w + 0.5


def between(x: float, low: float, high: float) -> float:
    """Return where x lies from low to high."""
    return min(max((x - low) / (high - low), 0.0), 1.0)


def lowest_that_reaches(values: list[float], share: float) -> float:
    """Return the smallest value that at least this percentage of the values do not exceed."""
    rank = math.ceil(Fraction(share) * len(values) / 100)
    return sorted(values)[max(rank, 1) - 1]


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


def restored(
    samples: NDArray[np.float64], reduction: tuple[int, bool, int, int]
) -> NDArray[np.float64]:
    """Return the image a JPEG 2000 decoder would make of a reduced one with all detail at 0.

    ``reduction``: levels that are missing, whether reversible, rows and columns of the image.
    """
    levels, reversible, *shape = reduction
    for axis, pixels in enumerate(shape):
        sides = [pixels]
        for _ in range(levels):
            sides.append((sides[-1] + 1) // 2)
        for side in reversed(sides[:-1]):
            samples = np.moveaxis(_finer(np.moveaxis(samples, axis, 0), side, reversible), 0, axis)
    return samples


# ISO 15444-1 Table F.4, and the steps of F.3.8.2: (parity of the samples that change, factor).
_K = 1.230174104914001
_STEPS_9_7 = (
    (0, 0.443506852043971),
    (1, 0.882911075530934),
    (0, -0.052980118572961),
    (1, -1.586134342059924),
)


def _finer(low: NDArray[np.float64], side: int, reversible: bool) -> NDArray[np.float64]:
    """Interleave one level along the first axis with detail of 0, and undo the lifting steps."""
    if side == 1:
        return low
    fine = np.zeros((side, *low.shape[1:]))
    fine[::2] = low if reversible else _K * low
    for parity, factor in ((1, -0.5),) if reversible else _STEPS_9_7:
        mirrored = np.pad(fine, [(1, 1)] + [(0, 0)] * (fine.ndim - 1), mode="reflect")
        fine[parity::2] -= factor * (mirrored[:-2] + mirrored[2:])[parity::2]
    return fine


def coverage(start: int, length: int, outputs: int, pixels: int) -> NDArray[np.float64]:
    """Return the (outputs, pixels) matrix of shares in an area average along one axis."""
    low = np.arange(pixels)
    edges = start + np.arange(outputs + 1) * length / outputs
    overlap = np.minimum(low + 1, edges[1:, None]) - np.maximum(low, edges[:-1, None])
    return np.clip(overlap, 0.0, None) * outputs / length


def resample(
    shown: NDArray[np.float64],
    *,
    crop: Box,
    placed: Box,
    shape: tuple[int, int],
    mirrored: bool = False,
    mask: NDArray[np.bool_] | None = None,
    block_side: int = 0,
) -> NDArray[np.float64]:
    """Average displayed values over the area of each output pixel."""
    rows, columns = shown.shape
    if mask is not None:
        block = np.ones((block_side, block_side), dtype=bool)
        shown = shown * np.kron(mask, block)[:rows, :columns]
    down = coverage(crop[0], crop[2], placed[2], rows)
    across = coverage(crop[1], crop[3], placed[3], columns)
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
