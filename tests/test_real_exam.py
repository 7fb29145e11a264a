"""A real four-view exam, where the checkout has one beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.views import read_exam

FOLDER = Path(__file__).parents[2] / "shared" / "exams" / "real"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no real exam beside the repository")


def test_views_are_found_by_their_headers() -> None:
    exam = read_exam(FOLDER, strict=True)
    assert {view: image.name for view, image in exam.images.items()} == {
        View.LCC: "IM0001.dcm",
        View.RCC: "IM0002.dcm",
        View.LMLO: "IM0003.dcm",
        View.RMLO: "IM0004.dcm",
    }
    assert exam.alternatives == ()
    assert {note.split()[1] for note in exam.notes} == {"LICENSE", "README.md"}


def test_pixels_have_the_size_the_header_says_and_tissue_at_the_chest_wall() -> None:
    exam = read_exam(FOLDER)
    hashes = set()
    for view in VIEWS:
        stored = decode(exam.images[view])
        assert stored.pixels.shape == (2600, 2000)
        assert stored.display.bits_stored == 8
        left, right = stored.pixels[:, :200].mean(), stored.pixels[:, -200:].mean()
        assert (left > right) == (view.laterality == "L")
        hashes.add(stored.sha256)
    assert len(hashes) == 4
