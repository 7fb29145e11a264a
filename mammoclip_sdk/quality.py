"""What was decoded and what the model would see -> reasons to be careful, or not to answer.

Codes are stable and belong to programs; messages belong to people and may be reworded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.exam import VIEWS, ModelInput, StoredImage, View

DUPLICATE_VIEW = "G04"
EMPTY_VIEW = "G09"
NOT_FINITE = "G10"

_MIN_CONTRAST = 1 / 255
"""Of displayed values 0 to 1: less than one grey level of an 8-bit screen is a blank image."""
_TISSUE_LEVEL = 0.05
"""Share of a view's own contrast above its darkest pixel, from which a pixel is not air."""
_MIN_TISSUE = 0.05
"""Share of the model input that must be tissue; real views fill a quarter to nine tenths."""


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
    return (
        *_duplicates(images),
        *(
            reason
            for view, pixels in zip(VIEWS, views, strict=True)
            for reason in _content(view, pixels)
        ),
    )


def _duplicates(images: Mapping[View, StoredImage]) -> Iterator[Reason]:
    first: dict[str, View] = {}
    for view in VIEWS:
        other = first.setdefault(images[view].sha256, view)
        if other is not view:
            yield Reason(
                code=DUPLICATE_VIEW,
                severity="block",
                view=view,
                message=f"{view} has the same pixels as {other}: one image was given twice.",
            )


def _content(view: View, pixels: NDArray[np.float32]) -> Iterator[Reason]:
    if not np.isfinite(pixels).all():
        yield Reason(
            code=NOT_FINITE,
            severity="block",
            view=view,
            message=f"{view} has values that are not numbers after windowing.",
        )
        return
    contrast = float(pixels.max() - pixels.min())
    tissue = float(np.mean(pixels > pixels.min() + _TISSUE_LEVEL * contrast))
    if contrast < _MIN_CONTRAST or tissue < _MIN_TISSUE:
        yield Reason(
            code=EMPTY_VIEW,
            severity="block",
            view=view,
            message=f"{view} is blank or nearly empty: {tissue:.1%} of it is not air, "
            f"with a contrast of {contrast:.3f}.",
        )
