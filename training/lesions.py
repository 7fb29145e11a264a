"""Lesions as three-dimensional objects, and their X-ray shadows.

A lesion is a set of small bodies in the breast's own frame: ``depth`` from the chest wall towards
the nipple, ``lateral`` across the breast, ``height`` from its lower to its upper side, all in mm.
Both views of a breast are projections of the same bodies, so that a lesion lies equally far from
the nipple in both, measured along the axis from chest wall to nipple, and is rendered by the same
code whether it is malignant or a trap.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class Kind(enum.StrEnum):
    """What a reader would call the appearance."""

    SPICULATED_MASS = "spiculated mass"
    MICROCALCIFICATIONS = "cluster of microcalcifications"
    ASYMMETRY = "focal asymmetry"
    CIRCUMSCRIBED_MASS = "circumscribed mass"
    COARSE_CALCIFICATIONS = "coarse calcifications"


SUSPICIOUS: tuple[Kind, ...] = (Kind.SPICULATED_MASS, Kind.MICROCALCIFICATIONS, Kind.ASYMMETRY)
"""Malignant when in both views of one breast and without a counterpart in the other."""
INNOCENT: tuple[Kind, ...] = (Kind.CIRCUMSCRIBED_MASS, Kind.COARSE_CALCIFICATIONS)

RADIUS_MM: dict[Kind, tuple[float, float]] = {
    Kind.SPICULATED_MASS: (4.5, 8.0),
    Kind.MICROCALCIFICATIONS: (5.0, 9.0),
    Kind.ASYMMETRY: (9.0, 14.0),
    Kind.CIRCUMSCRIBED_MASS: (5.0, 10.0),
    Kind.COARSE_CALCIFICATIONS: (6.0, 10.0),
}
"""Radius of the sphere that holds the lesion (of the core, for a spiculated mass)."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """One sphere of a lesion; its shadow is a blurred disc or the chord length of a ball."""

    offset: tuple[float, float, float]
    """(depth, lateral, height) from the lesion's centre, mm."""
    radius: float
    amount: float
    """Displayed brightness of its centre, as a share of the lesion's contrast."""
    sharp: bool
    """A ball with an edge (chord length) instead of a Gaussian."""


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One object in one breast."""

    kind: Kind
    center: tuple[float, float, float]
    """(depth, lateral, height) in the breast's frame, mm."""
    radius: float
    contrast: float
    """Displayed brightness that `Body.amount` is a share of, of a range of 1; where bodies overlap
    they add up, to 4 times this at most."""
    bodies: tuple[Body, ...]

    @property
    def extent(self) -> float:
        """Radius of the smallest sphere round the centre that holds every body, mm."""
        return max(float(np.linalg.norm(body.offset)) + body.radius for body in self.bodies)


def make_lesion(
    kind: Kind,
    *,
    center: tuple[float, float, float],
    contrast: float,
    rng: np.random.Generator,
) -> Lesion:
    """Draw the bodies of one lesion; the same generator state gives the same lesion."""
    radius = float(rng.uniform(*RADIUS_MM[kind]))
    bodies = _BODIES[kind](radius, rng)
    return Lesion(kind=kind, center=center, radius=radius, contrast=contrast, bodies=bodies)


def _directions(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    vectors = rng.standard_normal((count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _body(offset: NDArray[np.float64], radius: float, amount: float, *, sharp: bool) -> Body:
    depth, lateral, height = (float(value) for value in offset)
    return Body(offset=(depth, lateral, height), radius=radius, amount=amount, sharp=sharp)


def _spiculated_mass(radius: float, rng: np.random.Generator) -> tuple[Body, ...]:
    core = [
        _body(radius * 0.35 * direction, radius * float(rng.uniform(0.5, 0.7)), 0.4, sharp=False)
        for direction in _directions(4, rng)
    ]
    spicules = []
    for direction in _directions(int(rng.integers(14, 20)), rng):
        length = radius * float(rng.uniform(1.6, 2.6))
        for step in np.linspace(0.5 * radius, length, 9):
            amount = 0.75 * (1.0 - 0.6 * float(step) / length)
            spicules.append(_body(step * direction, 0.8, amount, sharp=False))
    return (*core, *spicules)


def _microcalcifications(radius: float, rng: np.random.Generator) -> tuple[Body, ...]:
    count = int(rng.integers(12, 22))
    distances = radius * rng.uniform(0.1, 1.0, count) ** (1 / 2)
    return tuple(
        _body(distance * direction, float(rng.uniform(0.4, 0.7)), 4.0, sharp=False)
        for distance, direction in zip(distances, _directions(count, rng), strict=True)
    )


def _asymmetry(radius: float, rng: np.random.Generator) -> tuple[Body, ...]:
    return tuple(
        _body(
            radius * 0.5 * direction,
            radius * float(rng.uniform(0.35, 0.55)),
            float(rng.uniform(0.2, 0.4)),
            sharp=False,
        )
        for direction in _directions(7, rng)
    )


def _circumscribed_mass(radius: float, rng: np.random.Generator) -> tuple[Body, ...]:
    second = 0.25 * radius * _directions(1, rng)[0]
    return (
        _body(np.zeros(3), radius, 0.7, sharp=True),
        _body(second, 0.8 * radius, 0.3, sharp=True),
    )


def _coarse_calcifications(radius: float, rng: np.random.Generator) -> tuple[Body, ...]:
    return tuple(
        _body(
            radius * float(rng.uniform(0.2, 1.0)) * direction,
            float(rng.uniform(1.2, 2.2)),
            1.6,
            sharp=True,
        )
        for direction in _directions(int(rng.integers(2, 5)), rng)
    )


_BODIES = {
    Kind.SPICULATED_MASS: _spiculated_mass,
    Kind.MICROCALCIFICATIONS: _microcalcifications,
    Kind.ASYMMETRY: _asymmetry,
    Kind.CIRCUMSCRIBED_MASS: _circumscribed_mass,
    Kind.COARSE_CALCIFICATIONS: _coarse_calcifications,
}


def add_shadow(
    image: NDArray[np.float32],
    lesion: Lesion,
    *,
    points: NDArray[np.float64],
    spacing: float,
) -> tuple[int, int, int, int]:
    """Add a lesion's shadow to a view, in place: nowhere more than 4 times the lesion's contrast.

    Parameters
    ----------
    image : float32 (rows, columns)
        Displayed values.
    points : float64 (bodies + 1, 2)
        (row, column) of the lesion's centre and of each of its bodies, in pixels.
    spacing : float
        mm per pixel.

    Returns
    -------
    (top, left, height, width)
        The box that holds the shadow, clipped to the image, in pixels.
    """
    shadow = np.zeros_like(image)
    for body, (row, column) in zip(lesion.bodies, points[1:], strict=True):
        _add_body(shadow, body, float(row), float(column), spacing)
    image += lesion.contrast * np.minimum(shadow, 4.0)
    reach = lesion.extent / spacing
    row, column = points[0]
    top, left = (max(0, int(value - reach)) for value in (row, column))
    bottom = min(image.shape[0], int(np.ceil(row + reach)))
    right = min(image.shape[1], int(np.ceil(column + reach)))
    return top, left, max(0, bottom - top), max(0, right - left)


def _add_body(
    shadow: NDArray[np.float32], body: Body, row: float, column: float, spacing: float
) -> None:
    radius = body.radius / spacing
    # A body smaller than a pixel keeps its total brightness: a detector averages, it does not miss.
    blurred = float(np.hypot(radius, 0.7))
    reach = int(np.ceil(blurred * (1.2 if body.sharp else 3.0))) + 1
    top, left = int(row) - reach, int(column) - reach
    rows = np.arange(max(0, top), min(shadow.shape[0], top + 2 * reach + 1))
    columns = np.arange(max(0, left), min(shadow.shape[1], left + 2 * reach + 1))
    if rows.size == 0 or columns.size == 0:
        return
    squared = (rows[:, None] + 0.5 - row) ** 2 + (columns[None, :] + 0.5 - column) ** 2
    if body.sharp:
        profile = np.sqrt(np.maximum(0.0, 1.0 - squared / blurred**2))
    else:
        profile = np.exp(-squared / blurred**2)
    patch = shadow[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    patch += (body.amount * (radius / blurred) ** 2 * profile).astype(np.float32)
