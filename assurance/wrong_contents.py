"""Pictures that no mammogram shows, and good ones that were spoilt; the chest wall at the left."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
_Content = Callable[[Picture, np.random.Generator], Picture]


def _blank(picture: Picture, rng: np.random.Generator) -> Picture:
    return np.zeros_like(picture)


def _constant(picture: Picture, rng: np.random.Generator) -> Picture:
    return np.full_like(picture, rng.uniform(0.1, 1))


def _noise(picture: Picture, rng: np.random.Generator) -> Picture:
    return rng.random(picture.shape, dtype=np.float32)


def _noise_in_a_breast(picture: Picture, rng: np.random.Generator) -> Picture:
    return np.where(picture > 0.05, 0.1 + 0.9 * _noise(picture, rng), 0).astype(np.float32)


def _marker_alone(picture: Picture, rng: np.random.Generator) -> Picture:
    alone = np.zeros_like(picture)
    rows, columns = picture.shape
    alone[rows // 20 : rows // 20 + rows // 40, -columns // 6 : -columns // 12] = 0.9
    return alone


def _places(picture: Picture) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (down, across), 0 to 1 each."""
    rows, columns = picture.shape
    down, across = np.mgrid[:rows, :columns]
    return (down + 0.5) / rows, (across + 0.5) / columns


def _clouds(shape: tuple[int, int], size: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise of spread 1; ``size`` in pixels."""
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))
    smoothed = np.fft.ifft2(
        np.fft.fft2(rng.normal(size=shape)) * np.exp(-((frequency * size) ** 2))
    ).real
    clouds: NDArray[np.float64] = (smoothed - smoothed.mean()) / smoothed.std()
    return clouds


def _chest(picture: Picture, rng: np.random.Generator) -> Picture:
    down, across = _places(picture)
    body = (np.abs(across - 0.5) < rng.uniform(0.44, 0.49)) & (down > rng.uniform(0.03, 0.1))
    shown = np.where(body, 0.55 + 0.05 * _clouds(picture.shape, 12, rng), 0)
    for middle in (0.3, 0.7):
        lung = ((across - middle) / 0.15) ** 2 + ((down - 0.5) / 0.32) ** 2 < 1
        shown = np.where(lung, 0.12 + 0.04 * _clouds(picture.shape, 8, rng), shown)
    shown = np.where(body & (np.abs(across - 0.5) < 0.06), 0.85, shown)
    for rib in range(8):
        bone = np.abs(down - 0.25 - 0.07 * rib - 0.3 * (across - 0.5) ** 2) < 0.01
        shown = np.where(bone & body, shown + 0.12, shown)
    return np.clip(shown, 0, 1).astype(np.float32)


def _slice(picture: Picture, rng: np.random.Generator) -> Picture:
    """Show a slice through a body, as CT does."""
    down, across = _places(picture)
    tall, wide = rng.uniform(0.25, 0.4), rng.uniform(0.35, 0.45)
    reach = ((across - 0.5) / wide) ** 2 + ((down - 0.5) / tall) ** 2
    shown = np.where(reach < 1, 0.5 + 0.04 * _clouds(picture.shape, 6, rng), 0)
    shown = np.where((reach < 1) & (reach > 0.9), 0.4, shown)
    shown = np.where(((across - 0.5) / 0.07) ** 2 + ((down - 0.6) / 0.06) ** 2 < 1, 0.95, shown)
    return np.clip(shown, 0, 1).astype(np.float32)


def _test_object(picture: Picture, rng: np.random.Generator) -> Picture:
    """Show a block of plastic with specks and discs, as quality control does."""
    down, across = _places(picture)
    block = (across < rng.uniform(0.4, 0.8)) & (np.abs(down - 0.5) < rng.uniform(0.2, 0.4))
    shown = np.where(block, rng.uniform(0.3, 0.7) + 0.01 * rng.normal(size=picture.shape), 0)
    for disc in range(6):
        inside = ((across - 0.1 - 0.09 * disc) / 0.03) ** 2 + ((down - 0.45) / 0.02) ** 2 < 1
        shown = np.where(inside & block, shown + 0.05 * disc, shown)
    return np.clip(shown, 0, 1).astype(np.float32)


def _limb(picture: Picture, rng: np.random.Generator) -> Picture:
    down, across = _places(picture)
    half = rng.uniform(0.1, 0.22)
    inside = (np.abs(down - 0.5) < half) & (across < rng.uniform(0.7, 1.1))
    shown = 0.45 + 0.3 * np.cos((down - 0.5) / half) + 0.02 * _clouds(picture.shape, 6, rng)
    return np.where(inside, np.clip(shown, 0, 1), 0).astype(np.float32)


def _inside_alone(picture: Picture, rng: np.random.Generator) -> Picture:
    """Cut a piece out of the breast and show it over the whole image."""
    tissue = np.flatnonzero((picture > 0.05)[:, : picture.shape[1] // 6].all(axis=1))
    middle = int(tissue.mean()) if tissue.size else picture.shape[0] // 2
    half = max(8, tissue.size // 4)
    piece = picture[max(0, middle - half) : middle + half, : picture.shape[1] // 6]
    rows = np.linspace(0, len(piece) - 1, picture.shape[0]).round().astype(int)
    columns = np.linspace(0, piece.shape[1] - 1, picture.shape[1]).round().astype(int)
    return piece[np.ix_(rows, columns)]


CONTENTS: Mapping[str, _Content] = {
    "blank": _blank,
    "constant": _constant,
    "noise": _noise,
    "noise in the shape of a breast": _noise_in_a_breast,
    "a lead marker alone": _marker_alone,
    "a chest": _chest,
    "a slice through a body": _slice,
    "a test object": _test_object,
    "a limb": _limb,
    "a piece from within the breast": _inside_alone,
}
"""What is to be refused by its content."""


def implant(picture: Picture, rng: np.random.Generator) -> Picture:
    """Put a breast implant behind the gland: white, without structure, a third of the breast."""
    down, across = _places(picture)
    tissue = picture > 0.05
    rows, columns = np.flatnonzero(tissue.any(axis=1)), np.flatnonzero(tissue.any(axis=0))
    middle = (rows[0] + rows[-1]) / 2 / len(picture)
    tall = rng.uniform(0.25, 0.35) * rows.size / len(picture)
    wide = rng.uniform(0.4, 0.6) * columns.size / picture.shape[1]
    inside = (across / wide) ** 2 + ((down - middle) / tall) ** 2 < 1
    return np.where(inside & tissue, 1, picture).astype(np.float32)


def _half(picture: Picture, rng: np.random.Generator) -> Picture:
    return picture[: picture.shape[0] // 2]


def _without_chest_wall(picture: Picture, rng: np.random.Generator) -> Picture:
    return picture[:, picture.shape[1] // 8 :]


def _rolled(picture: Picture, rng: np.random.Generator) -> Picture:
    return np.roll(picture, round(len(picture) * rng.uniform(0.2, 0.4)), axis=0)


def _halves_exchanged(picture: Picture, rng: np.random.Generator) -> Picture:
    half = len(picture) // 2
    return np.concatenate([picture[half:], picture[:half]])


UNRULED: Mapping[str, _Content] = {
    "the chest wall cut off": _without_chest_wall,
    "rows rolled": _rolled,
    "upper and lower half exchanged": _halves_exchanged,
}
"""What looks like a whole image of another breast; no rule can tell, and the record says so."""
CUT: Mapping[str, _Content] = {"the lower half cut off": _half}
"""What leaves an image of a shape that no detector has."""
