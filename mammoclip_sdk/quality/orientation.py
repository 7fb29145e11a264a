"""Which breast lies which way, by a view's name, its pixels and Patient Orientation (0020,0020).

Rows lead to the front (A) of the patient from a chest wall at the left, and to her back (P) where
it is at the right. Columns lead to the midline of her body, and in an oblique view to her feet too:
to the right (R) in a left breast, to the left (L) in a right one (PS3.3 C.7.6.1.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from mammoclip_sdk.exam import View

_SIDES = {"L": "left", "R": "right"}


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """What the two directions of an image say."""

    wall_right: bool
    """Whether the chest wall is at the right."""
    side: str | None
    """``L`` or ``R``, the breast whose midline the columns lead to; None where they do not say."""
    upside_down: bool
    oblique: bool
    """Whether the columns lead to her feet."""


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
        oblique="F" in columns,
    )


def is_turned(letters: tuple[str, ...]) -> bool:
    """Tell whether columns, and not rows, lead to the front or the back of the patient."""
    forward = [bool(set("AP") & set(letter)) for letter in letters]
    return forward == [False, True]


def contradiction(view: View, letters: tuple[str, ...], *, wall_right: bool) -> str | None:
    """Return what cannot be true together, in words; None where all agrees.

    An image that is stored mirrored has the rows of the other breast and the columns of its own;
    it agrees where Patient Orientation says so.

    Parameters
    ----------
    view
        The view as its tags name it.
    letters
        Patient Orientation.
    wall_right
        Whether the chest wall lies at the right in the pixels.
    """
    said = read_orientation(letters)
    if is_turned(letters):
        return (
            f"{view} was turned by a quarter, as Patient Orientation (0020,0020) says: its columns "
            "lead to the front or the back of the patient. Turn image and header back."
        )
    if said is not None and said.oblique and view.projection == "CC":
        return (
            f"{view} is named a craniocaudal view, and Patient Orientation (0020,0020) is that of "
            "an oblique one, whose columns lead to the feet. Check which of the two it is, and "
            "have the header corrected."
        )
    if said is not None and said.wall_right != wall_right:
        return (
            f"{view} has its chest wall at the {'right' if wall_right else 'left'}, and Patient "
            "Orientation (0020,0020) says that it is at the other side. One of the two was "
            "turned; have the image or its header corrected."
        )
    if said is not None and (said.side not in (None, view.laterality) or said.upside_down):
        return (
            f"{view} is named a {_SIDES[view.laterality]} breast, and Patient Orientation "
            "(0020,0020) is that of the other breast, or of an image that is upside down; have it "
            "corrected."
        )
    usual = wall_right == (view.laterality == "R")
    if not usual and (said is None or said.side is None):
        return (
            f"{view} is named a {_SIDES[view.laterality]} breast, but its chest wall lies where a "
            f"{_SIDES['R' if wall_right else 'L']} breast's does. Either the side is wrong, or "
            "the image is stored mirrored, and Patient Orientation (0020,0020) does not say so; "
            "check which, and send it corrected."
        )
    return None
