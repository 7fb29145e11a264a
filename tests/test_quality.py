"""Quality: what must not be scored is named by a stable code, and what may be is let through."""

from __future__ import annotations

import numpy as np
import pytest

from mammoclip_sdk.exam import VIEWS, DisplayAttributes, ModelInput, StoredImage, View
from mammoclip_sdk.quality import assess

GOOD = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (4, 60, 1))


def images(**same_as: str) -> dict[View, StoredImage]:
    """Four stored images with hashes of their own, but for those named."""
    return {
        view: StoredImage(
            view=view,
            name=str(view),
            pixels=np.zeros((1, 1), np.uint16),
            display=DisplayAttributes(bits_stored=12, signed=False, photometric="MONOCHROME2"),
            transfer_syntax="array",
            sha256=same_as.get(view, str(view)),
        )
        for view in VIEWS
    }


def reasons(views: np.ndarray, **same_as: str) -> list[tuple[str, str, str | None]]:
    model_input = ModelInput(tensors={"views": views[None, :, None]}, geometry={})
    return [(r.code, r.severity, r.view) for r in assess(images(**same_as), model_input)]


def test_four_different_views_with_content_have_no_reason() -> None:
    assert reasons(GOOD) == []
    assert reasons(GOOD * np.float32(0.1)) == []  # dark, but not blank


def test_one_image_for_two_views_blocks() -> None:
    assert reasons(GOOD, RMLO="RCC") == [("G04", "block", "RMLO")]
    assert reasons(GOOD, RCC="LCC", LMLO="LCC") == [
        ("G04", "block", "RCC"),
        ("G04", "block", "LMLO"),
    ]


@pytest.mark.parametrize("view", range(4))
@pytest.mark.parametrize("kind", ["air", "grey", "dots", "nan", "inf"])
def test_a_view_without_content_blocks(view: int, kind: str) -> None:
    views = GOOD.copy()
    if kind == "dots":  # a marker in the air: 4.9 % of the pixels
        views[view] = 0
        views[view].flat[: int(0.049 * views[view].size)] = 1
    elif kind in ("nan", "inf"):
        views[view, 7, 7] = float(kind)
    else:
        views[view] = 0 if kind == "air" else 0.5
    code = "G10" if kind in ("nan", "inf") else "G09"
    assert reasons(views) == [(code, "block", VIEWS[view])]
