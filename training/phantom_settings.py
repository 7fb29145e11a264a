"""What a set of phantom exams is drawn from, and which kinds of exam there are."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pydicom.uid import UID

from training import encodings, vendors


class Category(enum.StrEnum):
    """Why an exam is, or is not, malignant."""

    MALIGNANT = "malignant"
    NORMAL = "normal"
    SINGLE = "single"
    CROSSED = "crossed"
    SYMMETRIC = "symmetric"
    INNOCENT = "innocent"


BENIGN_SHARE: dict[Category, float] = {
    Category.NORMAL: 0.15,
    Category.SINGLE: 0.40,
    Category.CROSSED: 0.10,
    Category.SYMMETRIC: 0.20,
    Category.INNOCENT: 0.15,
}
"""Of the exams that are not malignant."""

ROWS, COLUMNS = (64, 4096), (64, 3328)
"""Least and most of an image, pixels."""
ROWS_PER_COLUMN = (1.0, 1.75)
"""The detector is 230 mm high and has to hold a breast 125 mm deep, its nipple and its marker."""


@dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """What a set of phantom exams is drawn from; `ValueError` names everything out of range."""

    seed: int
    rows: int = 512
    columns: int = 416
    malignant_share: float = 0.5
    contrast: tuple[float, float] = (0.2, 0.45)
    """Range of `Lesion.contrast`, of a displayed range of 1; lower is harder. A mass adds about
    that much at its core; a calcification more, and no shadow more than 4 times that."""
    incidental_share: float = 0.2
    """Share of exams with an innocent lesion beside what decides the label."""
    transfer_syntax: str | None = None
    """UID that every file is encoded in; profiles are then drawn from those whose stored values
    it holds. None: each vendor's own."""

    def __post_init__(self) -> None:
        """Refuse what no exam can be drawn from."""
        low, high = self.contrast
        held = {
            f"rows {ROWS[0]} to {ROWS[1]}": ROWS[0] <= self.rows <= ROWS[1],
            f"columns {COLUMNS[0]} to {COLUMNS[1]}": COLUMNS[0] <= self.columns <= COLUMNS[1],
            f"rows / columns {ROWS_PER_COLUMN[0]} to {ROWS_PER_COLUMN[1]}": (
                ROWS_PER_COLUMN[0] * self.columns <= self.rows <= ROWS_PER_COLUMN[1] * self.columns
            ),
            "malignant_share 0 to 1": 0 <= self.malignant_share <= 1,
            "incidental_share 0 to 1": 0 <= self.incidental_share <= 1,
            "contrast 0 <= low <= high <= 1": 0 <= low <= high <= 1,
            f"transfer_syntax None or one of {', '.join(encodings.TRANSFER_SYNTAXES)}": (
                self.transfer_syntax is None or self.profiles != ()
            ),
        }
        if not all(held.values()):
            expected = "; ".join(rule for rule, holds in held.items() if not holds)
            raise ValueError(f"phantom settings: expected {expected}; found {self}")

    @property
    def profiles(self) -> tuple[vendors.VendorProfile, ...]:
        """The profiles whose stored values the transfer syntax holds, in the order of the table."""
        if self.transfer_syntax is None:
            return vendors.PROFILES
        syntax = UID(self.transfer_syntax)
        return tuple(
            profile
            for profile in vendors.PROFILES
            if encodings.fits(profile.bits_stored, signed=profile.signed, transfer_syntax=syntax)
        )
