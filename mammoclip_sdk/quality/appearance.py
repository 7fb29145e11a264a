"""What the four views of a model input look like, in numbers that a limit can be set on.

Views are compared on the grids of their source images, and not as they were cropped, so that an
image which was shifted, mirrored, turned round, resampled or encoded again falls onto itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.exam import VIEWS, StoredImage, View, ViewGeometry

_GRID_ROWS = 256
"""Of the grid that views are compared on, at most: a tenth of what a detector has."""
_DETAIL = 1 / 40
"""Of the grid's rows: half the side of the square that detail stands out from."""
_REACH = 0.05
"""Of the grid's rows: how far an image may have been shifted and still be found."""
_LEAST_OVERLAP, _LEAST_DETAIL = 0.5, 2000
"""Share of a view's detail, and pixels of it: on less, two views can agree by chance. A model
input of 192 x 96 has 4,500 and more; one of 64 x 32 has too few, and its views are not compared."""
_LEAST_TISSUE = 500
"""Pixels: half of what a breast fills in a model input of 64 x 32."""
_STORED_ROWS = 256
"""Of a stored image, at least, that are searched for values which wrapped round."""
_EDGES = 2
"""Sharp edges that a row may have: of the breast, or of a marker beside it."""
_AIR = 0.02
_TISSUE = 0.05
_EDGE = 0.06
"""Of the breast's depth: how near to the chest wall a row has to begin."""
_BRIGHT = 0.95
_BODY = 0.05
"""Of the breast's height: half the side of the smallest bright square that counts."""

_Pixels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """What was measured in one view of the model input; shares are 0 to 1."""

    contact: float
    """Share of the breast's rows that begin at the chest wall. An ellipse in the air has half."""
    tip: float
    """Rows it still has at 95 % of its depth, as a share of its height: a breast ends in a
    nipple, and a limb, a chest or a test object does not."""
    pieces: float
    """Runs of tissue in a row, the mean: 1 for a breast, more where its fat is shown as black."""
    grain: float
    """Correlation of neighbouring pixels, -1 to 1: near 1 for tissue, near 0 for noise."""
    bright_body: float
    """Share of the tissue in bright areas that are compact, as an implant is and no gland."""


def appearance(view: _Pixels) -> Appearance | None:
    """Measure one view, (height, width) with the chest wall at the left; None if it is empty."""
    darkest = view.min()
    tissue = view > darkest + _TISSUE * (1 - darkest)
    rows, columns = np.flatnonzero(tissue.any(axis=1)), np.flatnonzero(tissue.any(axis=0))
    if rows.size == 0:
        return None
    breast = tissue[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, depth = breast.shape
    starts = breast[:, 0].sum() + np.count_nonzero(~breast[:, :-1] & breast[:, 1:])
    half = max(1, round(_BODY * height))
    body = _square_means((view > _BRIGHT).astype(np.float32), half) > 1 - 1e-3
    return Appearance(
        contact=float(breast[:, : max(1, round(_EDGE * depth))].any(axis=1).mean()),
        tip=float(breast[:, int(0.95 * (depth - 1))].mean()),
        pieces=float(starts / breast.any(axis=1).sum()),
        grain=_grain(view, tissue),
        bright_body=float(body.sum() / tissue.sum()),
    )


def wrapped(image: StoredImage) -> float:
    """Return the share of rows, 0 to 1, with more leaps than a row has sharp edges.

    A leap is by more than half of the image's range, from one stored value to the next. Tissue has
    none, however it is windowed; where upper bits were lost, every contour line is one. In an image
    of reduced resolution some of these are lost, and hard contrast leaps too.
    """
    rows = image.pixels[:: max(1, len(image.pixels) // _STORED_ROWS)].astype(np.int32)
    if image.display.signed:
        rows ^= 1 << (image.display.bits_stored - 1)  # two's complement, in ascending order
    leaps = 2 * np.abs(np.diff(rows, axis=1)) > rows.max() - rows.min()
    return float((np.count_nonzero(leaps, axis=1) > _EDGES).mean())


def likeness(
    views: _Pixels, geometry: Mapping[View, ViewGeometry]
) -> dict[tuple[View, View], float]:
    """Return how alike the detail of every two views is, 0 to 1, however they were turned.

    Parameters
    ----------
    views
        (4, height, width), in the order of `VIEWS`.

    Notes
    -----
    Detail is what stands out from its surroundings, in units of their spread: another window,
    another encoding and a lossy one leave it alike. The result is the largest absolute value of
    the cross-correlation over shifts of up to 5 % of the image, as it is and upside down; left
    and right do not count, since every view of a model input has its chest wall at the left.
    Where images have different numbers of rows they are compared once more with as many samples
    each: one that was archived at another size, as a whole, then falls onto itself too.
    """
    heights = np.array([geometry[view].source_shape[0] for view in VIEWS], np.float64)
    pitch = np.maximum([_pitch(geometry[view]) for view in VIEWS], heights / _GRID_ROWS)
    found = _likeness_at(np.full(len(VIEWS), pitch.max()), views, geometry)
    if np.ptp(heights):
        resampled = _likeness_at(heights * (pitch / heights).max(), views, geometry)
        found = {pair: max(found[pair], resampled[pair]) for pair in found}
    return found


def _likeness_at(
    pitches: NDArray[np.float64], views: _Pixels, geometry: Mapping[View, ViewGeometry]
) -> dict[tuple[View, View], float]:
    """Compare every two views, each with a sample every so many of its source pixels."""
    details = [
        _detail(_on_source_grid(view, geometry[name], float(pitch)))
        for name, view, pitch in zip(VIEWS, views, pitches, strict=True)
    ]
    rows = max(detail.shape[0] for detail in details)
    reach = max(1, round(_REACH * rows))
    shape = (rows + reach, max(detail.shape[1] for detail in details) + reach)
    upright = [np.fft.rfft2(detail, shape) for detail in details]
    turned = [np.fft.rfft2(detail[::-1], shape) for detail in details]
    found = {}
    for one, other in combinations(range(len(VIEWS)), 2):
        found[VIEWS[one], VIEWS[other]] = max(
            _agreement(
                details[one], details[other], _shift(upright[one], upright[other], shape, reach)
            ),
            _agreement(
                details[one],
                details[other][::-1],
                _shift(upright[one], turned[other], shape, reach),
            ),
        )
    return found


def _grain(view: _Pixels, tissue: NDArray[np.bool_]) -> float:
    """Correlate with the next pixel, to the right and below; the lesser counts.

    A few hundred pixels say nothing: each is as wide as a gland, and tissue looks like noise.
    """
    if np.count_nonzero(tissue) < _LEAST_TISSUE:
        return 1.0
    tissue = _inner(tissue)  # its rim is mixed with air, and outweighs tissue of one brightness
    values = np.where(tissue, view - view[tissue].mean(), 0).astype(np.float64)
    variance = float(np.sum(values**2)) / np.count_nonzero(tissue)
    if variance == 0:
        return 1.0
    covariances = []
    for field, mask in ((values, tissue), (values.T, tissue.T)):
        pairs = max(int(np.count_nonzero(mask[1:] & mask[:-1])), 1)
        covariances.append(float(np.sum(field[1:] * field[:-1])) / pairs)
    return min(covariances) / variance


def _inner(tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Take away what has air beside it, in its row or its column; nothing where that is most."""
    inner = tissue.copy()
    for whole, part in ((tissue, inner), (tissue.T, inner.T)):
        part[1:] &= whole[:-1]
        part[:-1] &= whole[1:]
    return inner if 2 * np.count_nonzero(inner) > np.count_nonzero(tissue) else tissue


def _pitch(geometry: ViewGeometry) -> float:
    """Return source pixels per pixel of the model input, of the coarser direction."""
    return max(
        geometry.crop[2] / geometry.placed[2],
        geometry.crop[3] / geometry.placed[3],
    )


def _on_source_grid(view: _Pixels, geometry: ViewGeometry, pitch: float) -> _Pixels:
    """Put a view back where it came from, one sample every ``pitch`` source pixels."""
    rows, columns = geometry.source_shape
    top, left, height, width = geometry.crop
    placed_top, placed_left, placed_height, placed_width = geometry.placed
    if geometry.mirrored:
        left = columns - left - width
    down = (np.arange(int(rows / pitch)) + 0.5) * pitch - top
    across = (np.arange(int(columns / pitch)) + 0.5) * pitch - left
    filled = view[placed_top : placed_top + placed_height, placed_left : placed_left + placed_width]
    rows_of, columns_of = (down >= 0) & (down < height), (across >= 0) & (across < width)
    grid = np.zeros((down.size, across.size), np.float32)
    sampled = _interpolated(filled, down[rows_of] * placed_height / height - 0.5)
    sampled = _interpolated(sampled.T, across[columns_of] * placed_width / width - 0.5).T
    grid[np.ix_(rows_of, columns_of)] = sampled
    return grid


def _interpolated(values: _Pixels, places: NDArray[np.float64]) -> _Pixels:
    """Return the rows of ``values`` at fractional places."""
    places = np.clip(places, 0, len(values) - 1)
    lower = np.floor(places).astype(np.int64)
    upper = np.minimum(lower + 1, len(values) - 1)
    share = (places - lower).astype(np.float32)[:, np.newaxis]
    mixed: _Pixels = values[lower] * (1 - share) + values[upper] * share
    return mixed


def _detail(grid: _Pixels) -> _Pixels:
    """Return what stands out from its surroundings, in units of their spread; 0 near air."""
    half = max(1, round(_DETAIL * len(grid)))
    inside = (grid > _AIR).astype(np.float32)
    # What changes from one pixel to the next does not survive a shift by part of a pixel.
    grid = np.where(inside > 0, _square_means(grid, 1), 0)
    share = _square_means(inside, half)
    known = np.maximum(share, 1e-6)
    mean = _square_means(grid * inside, half) / known
    variance = _square_means(grid**2 * inside, half) / known - mean**2
    detail: _Pixels = np.where(
        share > 0.98, (grid - mean) / np.sqrt(np.maximum(variance, 0) + 1e-6), 0
    ).astype(np.float32)
    return detail


def _square_means(values: _Pixels, half: int) -> _Pixels:
    """Return the mean over the square around each pixel, of what lies inside the array."""
    for _ in range(2):
        sums = np.cumsum(values, axis=0, dtype=np.float64)
        sums = np.concatenate([np.zeros((1, values.shape[1])), sums])
        places = np.arange(len(values))
        first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
        means = (sums[last] - sums[first]) / (last - first)[:, np.newaxis]
        values = means.astype(np.float32).T
    return values


def _shift(
    one: NDArray[np.complexfloating],
    other: NDArray[np.complexfloating],
    shape: tuple[int, int],
    reach: int,
) -> tuple[int, int]:
    """Return by how many (rows, columns) the second has to go back to fall onto the first."""
    correlation = np.abs(np.fft.irfft2(np.conj(one) * other, shape))
    near = np.r_[0 : reach + 1, -reach:0]
    best = correlation[np.ix_(near, near)].argmax()
    down, across = np.unravel_index(best, (near.size, near.size))
    return int(near[down]), int(near[across])


def _agreement(one: _Pixels, other: _Pixels, shift: tuple[int, int]) -> float:
    """Correlate where both have detail, once the second was shifted back; 0 to 1."""
    parts = []
    for values, (down, across) in ((other, shift), (one, (-shift[0], -shift[1]))):
        parts.append(values[max(down, 0) :, max(across, 0) :])
    rows = min(part.shape[0] for part in parts)
    columns = min(part.shape[1] for part in parts)
    moved, still = (part[:rows, :columns] for part in parts)
    both = (moved != 0) & (still != 0)
    least = _LEAST_OVERLAP * max(np.count_nonzero(one), np.count_nonzero(other))
    if np.count_nonzero(both) < max(least, _LEAST_DETAIL):
        return 0.0
    moved, still = moved[both], still[both]
    length = float(np.sqrt(np.sum(moved**2) * np.sum(still**2)))
    return abs(float(np.sum(moved * still))) / length if length else 0.0
