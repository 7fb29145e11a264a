"""What was decoded and what the model would see -> reasons to be careful, or not to answer.

This is the one judge of content: a view that can be turned into a tensor is judged here and nowhere
else. Codes are stable and belong to programs; messages belong to people and may be reworded.

Where the limits come from: 60 phantom exams in the header styles of 13 vendors, and one real exam.
Every right view of them keeps well clear of every limit, and every wrong one lies well beyond it::

                               phantoms      real exam     wrong, and what was wrong
    share of the image         0.10 - 0.53   0.42 - 0.63   0.002 a lead marker alone
                                                           0.996 - 1.00 inverted polarity
    share of the far edge      0.00          0.00          0.99 - 1.00 inverted polarity
    spread of displayed values 0.23 - 0.58   0.43 - 0.72   0.06 a window eight times too wide
    share shown as white       0.00 - 0.014  0.00 - 0.002  1.00 a window of one grey value
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mammoclip_sdk.exam import VIEWS, BreastRegion, ModelInput, StoredImage, View

DUPLICATE_VIEW = "G04"
WRONG_SIDE = "G05"
NO_CONTENT = "G09"
NOT_FINITE = "G10"

_MIN_SHARE = 0.02
"""Of the image: five times below the smallest breast, ten times above a lead marker."""
_MAX_SHARE = 0.95
"""Of the image: a half ellipse that touches all four edges fills 0.79 of it."""
_MAX_FAR_EDGE = 0.5
"""Of the edge opposite to the chest wall: where a breast reaches it at all, it does so at the
nipple."""
_MIN_SPREAD, _LOW_SPREAD = 0.1, 0.15
"""Of displayed values: the first (no answer below it) is less than half of what the flattest right
view has, the second (a warning below it) two thirds."""
_MAX_SATURATED, _HIGH_SATURATED = 0.5, 0.1
"""Of the tissue: beyond the first (no answer), most of it has no structure. Between the two (a
warning) lies what a breast implant covers, which is white in a right window."""

_REMEDY = "Check its window and its polarity."


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One thing that is wrong with an exam, and whether it may be scored all the same."""

    code: str
    severity: Literal["block", "warn"]
    """``block``: no probability is given. ``warn``: it is given, with this beside it."""
    view: View | None
    """The view it is about; None for the whole exam."""
    message: str


def assess(images: Mapping[View, StoredImage], model_input: ModelInput) -> tuple[Reason, ...]:
    """Return every reason found in the four decoded views and the tensor made from them."""
    views = model_input.tensors["views"][0, :, 0]  # (4, height, width)
    reasons = [*_duplicates(images)]
    for view, pixels in zip(VIEWS, views, strict=True):
        if not np.isfinite(pixels).all():
            message = f"{view} has values that are not numbers after windowing."
            reasons.append(_reason(NOT_FINITE, "block", view, message))
            continue
        content = [*_content(view, model_input.breasts[view])]
        reasons += content
        if not any(reason.severity == "block" for reason in content):  # else it has no side
            reasons += _side(view, mirrored=model_input.geometry[view].mirrored)
    return tuple(reasons)


def _duplicates(images: Mapping[View, StoredImage]) -> Iterator[Reason]:
    first: dict[str, View] = {}
    for view in VIEWS:
        other = first.setdefault(images[view].sha256, view)
        if other is not view:
            message = f"{view} has the same pixels as {other}: one image was given twice."
            yield _reason(DUPLICATE_VIEW, "block", view, message)


def _content(view: View, breast: BreastRegion) -> Iterator[Reason]:
    if breast.share < _MIN_SHARE:
        what = f"{view} shows no breast: what is bright fills {breast.share:.1%} of the image."
        yield _reason(NO_CONTENT, "block", view, f"{what} {_REMEDY}")
    elif breast.share > _MAX_SHARE or breast.far_edge > _MAX_FAR_EDGE:
        what = (
            f"{view} shows no air: what is bright fills {breast.share:.1%} of the image, and "
            f"{breast.far_edge:.0%} of the edge where air should be, as with inverted polarity."
        )
        yield _reason(NO_CONTENT, "block", view, f"{what} {_REMEDY}")
    elif breast.saturated > _HIGH_SATURATED:
        what = f"{view} shows {breast.saturated:.0%} of the breast as white, without structure."
        severity = _severity(breast.saturated > _MAX_SATURATED)
        yield _reason(NO_CONTENT, severity, view, f"{what} {_REMEDY}")
    elif breast.spread < _LOW_SPREAD:
        what = f"{view} is flat: the breast takes {breast.spread:.1%} of the range from black to "
        severity = _severity(breast.spread < _MIN_SPREAD)
        yield _reason(NO_CONTENT, severity, view, f"{what}white. {_REMEDY}")


def _side(view: View, *, mirrored: bool) -> Iterator[Reason]:
    if mirrored != (view.laterality == "R"):
        side = {"L": "left", "R": "right"}
        message = (
            f"{view} is named a {side[view.laterality]} breast, but its chest wall lies where a "
            f"{side['R' if mirrored else 'L']} breast's does. Either the side is wrong, or the "
            "image is stored mirrored, as Patient Orientation (0020,0020) may say; check which, "
            "and send it corrected."
        )
        yield _reason(WRONG_SIDE, "block", view, message)


def _severity(block: bool) -> Literal["block", "warn"]:
    return "block" if block else "warn"


def _reason(code: str, severity: Literal["block", "warn"], view: View, message: str) -> Reason:
    return Reason(code=code, severity=severity, view=view, message=message)
