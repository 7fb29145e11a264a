"""A compressed breast without lesions: outline, skin, nipple, pectoral muscle and parenchyma.

Lengths are mm. The texture is Gaussian noise with a power spectrum that falls as frequency to the
power of `SPECTRUM_EXPONENT`, which is what mammographic parenchyma was measured to have (Burgess,
Jacobson and Judy, Medical Physics 28:419, 2001). The image is in displayed values, 0 (air) to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.exam import View

SPECTRUM_EXPONENT = 3.0
OBLIQUE_ANGLE = np.deg2rad(45.0)
"""Of the MLO projection against the cranio-caudal one."""
DENSITIES = ("A", "B", "C", "D")
"""BI-RADS breast composition, 5th edition."""
DENSITY_SHARE = (0.1, 0.4, 0.4, 0.1)
_GLANDULAR_BIAS = {"A": -1.5, "B": -0.6, "C": 0.3, "D": 1.3}
_SHARED = 0.7
"""Correlation of the two breasts' parenchyma."""

_SKIN_MM = 1.2
"""How far inside the outline the skin line is brightest."""

Field = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Detector:
    """The pixel matrix a view is rendered on."""

    rows: int
    columns: int
    height_mm: float = 230.0

    @property
    def spacing(self) -> float:
        """Imager pixel spacing, mm per pixel."""
        return self.height_mm / self.rows


@dataclass(frozen=True, kw_only=True)
class Breast:
    """One breast's shape and tissue."""

    depth: float
    """Chest wall to nipple."""
    half_width: float
    """Half the extent across the chest wall, in the CC view."""
    axilla: float
    """How much farther the MLO view reaches upwards, as a factor of ``half_width``."""
    pectoral_width: float
    pectoral_length: float
    density: str
    texture: float
    """Standard deviation of the parenchymal texture, of a displayed range of 1."""
    middle: float
    """Row of the nipple, mm from the top of the detector."""

    def extent(self, projection: str) -> tuple[float, float]:
        """Reach above and below the nipple's row in a projection."""
        if projection == "CC":
            return self.half_width, self.half_width
        return self.half_width * self.axilla, self.half_width * 1.05

    def locate(self, view: View, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project (N, 3) points (depth, lateral, height) to (N, 2): mm down and from chest wall."""
        across = -points[:, 1]
        if view.projection == "MLO":
            across = -(np.cos(OBLIQUE_ANGLE) * points[:, 2] + np.sin(OBLIQUE_ANGLE) * points[:, 1])
        return np.stack([self.middle + across, points[:, 0]], axis=1)

    def radial(self, projection: str, down: Field, across: Field) -> Field:
        """Return the outline coordinate: below 1 inside, 1 at the skin."""
        above, below = self.extent(projection)
        offset = down - np.float32(self.middle)
        reach = np.where(offset < 0, np.float32(above), np.float32(below))
        return np.sqrt((across / np.float32(self.depth)) ** 2 + np.abs(offset / reach) ** 2.4)


def draw_breasts(rng: np.random.Generator) -> dict[str, Breast]:
    """Draw the left and the right breast of one woman: alike, not identical."""
    depth = float(np.clip(rng.normal(82.0, 14.0), 58.0, 115.0))
    shared = Breast(
        depth=depth,
        half_width=depth * float(rng.uniform(0.78, 0.92)),
        axilla=float(rng.uniform(1.35, 1.6)),
        pectoral_width=float(rng.uniform(22.0, 42.0)),
        pectoral_length=float(rng.uniform(100.0, 150.0)),
        density=str(rng.choice(DENSITIES, p=DENSITY_SHARE)),
        texture=float(rng.uniform(0.06, 0.12)),
        middle=float(rng.uniform(126.0, 138.0)),
    )
    return {
        side: replace(
            shared,
            depth=shared.depth * float(rng.uniform(0.96, 1.04)),
            half_width=shared.half_width * float(rng.uniform(0.96, 1.04)),
            middle=shared.middle + float(rng.uniform(-4.0, 4.0)),
        )
        for side in ("L", "R")
    }


def power_law_field(detector: Detector, rng: np.random.Generator) -> Field:
    """Return noise of unit standard deviation whose power falls as 1 / f**3, (rows, columns)."""
    shape = (detector.rows, detector.columns)
    white = rng.standard_normal(shape, dtype=np.float32)
    vertical = np.fft.fftfreq(shape[0], d=detector.spacing).astype(np.float32)[:, None]
    horizontal = np.fft.rfftfreq(shape[1], d=detector.spacing).astype(np.float32)[None, :]
    # Below 1 / 100 mm the law would only move the whole breast's brightness.
    frequency = np.maximum(np.hypot(vertical, horizontal), 0.01)
    spectrum = np.fft.rfft2(white) * frequency ** (-SPECTRUM_EXPONENT / 2)
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=shape).astype(np.float32)
    return field / field.std()


@dataclass(frozen=True, kw_only=True)
class Parenchyma:
    """The two noise fields behind one projection of one breast."""

    glandular: Field
    texture: Field


def draw_parenchyma(detector: Detector, rng: np.random.Generator) -> dict[View, Parenchyma]:
    """Draw the four views' fields; the same projection of the two breasts is correlated."""
    fields: dict[View, Parenchyma] = {}
    for projection in ("CC", "MLO"):
        common = [power_law_field(detector, rng) for _ in range(2)]
        for side in ("L", "R"):
            glandular, texture = (
                np.float32(_SHARED**0.5) * field
                + np.float32((1 - _SHARED) ** 0.5) * power_law_field(detector, rng)
                for field in common
            )
            fields[View(side + projection)] = Parenchyma(glandular=glandular, texture=texture)
    return fields


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """One view of a breast, chest wall at the left: three fields (rows, columns)."""

    tissue: Field
    """Displayed values at full thickness; lesions are added here."""
    thickness: Field
    """Share of the compressed thickness that is tissue: 1 well inside, falling to 0 at the skin."""
    skin: Field
    """Displayed values of the skin line, seen edge on."""

    def displayed(self) -> Field:
        """Put the three together; 0 outside the breast."""
        return self.tissue * self.thickness + self.skin


def render(breast: Breast, view: View, parenchyma: Parenchyma, detector: Detector) -> Rendering:
    """Render one view of a breast without lesions."""
    spacing = np.float32(detector.spacing)
    down = (np.arange(detector.rows, dtype=np.float32)[:, None] + 0.5) * spacing
    across = (np.arange(detector.columns, dtype=np.float32)[None, :] + 0.5) * spacing
    radial = breast.radial(view.projection, down, across)
    envelope = np.exp(
        -(((across - 0.5 * breast.depth) / (0.42 * breast.depth)) ** 2)
        - ((down - breast.middle) / (0.75 * breast.half_width)) ** 2
    )
    bias = np.float32(_GLANDULAR_BIAS[breast.density])
    glandular = envelope / (1 + np.exp(-2.0 * (parenchyma.glandular + bias)))
    tissue = 0.25 + 0.33 * glandular + np.float32(breast.texture) * parenchyma.texture
    if view.projection == "MLO":
        edge = breast.pectoral_width * (1 - down / breast.pectoral_length) - across
        tissue += np.float32(0.25) / (1 + np.exp(np.clip(-edge / 1.5, -30, 30)))
    inside = (1 - radial) / np.maximum(radial, 0.1) * np.hypot(across, down - breast.middle)
    skin = np.float32(0.16) * np.exp(-(((inside - _SKIN_MM) / 0.8) ** 2)) * (radial < 1)
    nipple = np.hypot(down - breast.middle, across - breast.depth) / 5.0
    thickness = np.maximum(
        np.sqrt(np.clip((1 - radial) / 0.14, 0, 1)), np.clip(2.5 * (1 - nipple), 0, 0.9)
    )
    return Rendering(tissue=np.maximum(tissue, np.float32(0.12)), thickness=thickness, skin=skin)
