"""Phantom exams that are good, and can be written again with other pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from mammoclip_sdk.exam import VIEWS, View
from training import vendors
from training.phantom import PhantomSettings, make_exam

SPACING = 0.09
"""Millimetres, as a detector has: a phantom of few pixels is a miniature."""

Four = dict[View, Dataset]
Picture = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class GoodExam:
    """A phantom exam that can be written again with other pixels."""

    number: int
    displayed: Mapping[View, Picture]
    profile: vendors.VendorProfile

    def written(self, changed: Mapping[View, Picture] | None = None) -> Four:
        """Return the four views as this profile's device writes them."""
        identity = vendors.ExamIdentity.derive(1, self.number)
        shown = {**self.displayed, **(changed or {})}
        return {
            view: vendors.to_dataset(
                np.ascontiguousarray(shown[view], dtype=np.float32),
                view=view,
                profile=self.profile,
                identity=identity,
                pixel_spacing=SPACING,
                rng=np.random.default_rng([self.number, VIEWS.index(view)]),
            )
            for view in VIEWS
        }


def good_exam(seed: int, number: int, *, rows: int, columns: int) -> GoodExam:
    """Make a phantom exam; profiles and the contrast of lesions take turns."""
    contrast = ((0.05, 0.1), (0.2, 0.45), (0.45, 0.9))[number % 3]
    settings = PhantomSettings(seed=seed, rows=rows, columns=columns, contrast=contrast)
    exam = make_exam(settings, number)
    return GoodExam(
        number=number,
        displayed={view: exam.views[view].displayed for view in VIEWS},
        profile=vendors.PROFILES[number % len(vendors.PROFILES)],
    )


Make = Callable[[GoodExam, np.random.Generator], Four | list[Dataset]]
"""Turns a good exam into what a caller would hand over."""


def one_view(rng: np.random.Generator) -> View:
    """Choose a view."""
    return VIEWS[rng.integers(len(VIEWS))]


def two_views(rng: np.random.Generator) -> tuple[View, View]:
    """Choose two views that differ."""
    first, second = rng.permutation(len(VIEWS))[:2]
    return VIEWS[first], VIEWS[second]
