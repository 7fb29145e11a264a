"""Patient Orientation (0020,0020) of a mammogram, as far as it says which breast lies which way.

Rows lead to the front (A) of the patient from a chest wall at the left, and to her back (P) where
it is at the right. Columns lead to the midline of her body, and in an oblique view to her feet too:
to the right (R) in a left breast, to the left (L) in a right one (PS3.3 C.7.6.1.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """What the two directions of an image say."""

    wall_right: bool
    """Whether the chest wall is at the right."""
    side: str | None
    """``L`` or ``R``, the breast whose midline the columns lead to; None where they do not say."""
    upside_down: bool


def read_orientation(letters: tuple[str, ...]) -> Orientation | None:
    """Read the directions of rows and columns; None where rows lead neither forward nor back."""
    if len(letters) != 2 or ("A" in letters[0]) == ("P" in letters[0]):
        return None
    rows, columns = letters
    sides = {"R": "L", "L": "R"}
    medial = [sides[letter] for letter in columns if letter in sides]
    return Orientation(
        wall_right="P" in rows,
        side=medial[0] if len(medial) == 1 else None,
        upside_down="H" in columns,
    )
