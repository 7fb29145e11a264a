"""The lead marker a radiographer lays on the detector: side and view, in the pixels themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.exam import View

_GLYPHS = {
    "L": ("#....", "#....", "#....", "#....", "#....", "#....", "#####"),
    "R": ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#"),
    "C": (".####", "#....", "#....", "#....", "#....", "#....", ".####"),
    "M": ("#...#", "##.##", "#.#.#", "#.#.#", "#...#", "#...#", "#...#"),
    "O": (".###.", "#...#", "#...#", "#...#", "#...#", "#...#", ".###."),
}
_DOT_MM = 1.1
"""Side of one dot of a glyph; a letter is 7.7 mm tall."""
_MARGIN_MM = 6.0


def draw_lead_marker(displayed: NDArray[np.float32], view: View, *, spacing: float) -> None:
    """Draw the marker at full brightness into the upper corner away from the chest wall, in place.

    Parameters
    ----------
    displayed : float32 (rows, columns)
        A view in natural orientation: the right breast's chest wall at the right edge.
    spacing : float
        mm per pixel.
    """
    letters = [
        np.array([[dot == "#" for dot in row] for row in _GLYPHS[letter]]) for letter in view.value
    ]
    gap = np.zeros((7, 1), dtype=bool)
    marker = np.hstack([part for letter in letters for part in (letter, gap)][:-1])
    dot = max(1, round(_DOT_MM / spacing))
    marker = np.kron(marker, np.ones((dot, dot), dtype=bool))
    margin = round(_MARGIN_MM / spacing)
    height, width = marker.shape
    left = displayed.shape[1] - margin - width if view.laterality == "L" else margin
    displayed[margin : margin + height, left : left + width][marker] = 1.0
