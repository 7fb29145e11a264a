"""Phantom exams: deterministic four-view mammograms with known lesions, as real DICOM files.

An exam is malignant when a suspicious lesion lies in one breast, is seen in both of its views and
has no counterpart in the other breast. Along the axis from chest wall to nipple, which both views
show, it lies equally far from the nipple in both; across it each view is another projection. Every
appearance a malignant lesion has also occurs in exams that are not malignant, so that no single
view decides:

========== =========================================================================
normal     no lesion
single     a suspicious appearance in one view only (superposition)
crossed    one in a CC view of one breast and one in the MLO view of the other
symmetric  the same suspicious appearance in both views of both breasts
innocent   a circumscribed mass or coarse calcifications in both views of one breast
========== =========================================================================

``python -m training.phantom --out FOLDER --exams 8 --seed 1`` writes a folder for each exam,
``manifest.csv`` and ``settings.json``. No image shows a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID

from mammoclip_sdk.exam import VIEWS, View
from training import vendors
from training.breast import Breast, Detector, Parenchyma, draw_breasts, draw_parenchyma, render
from training.lead_marker import draw_lead_marker
from training.lesions import INNOCENT, SUSPICIOUS, Kind, Lesion, add_shadow, make_lesion
from training.phantom_settings import BENIGN_SHARE, Category, PhantomSettings

COARSEST_SPACING = 0.2
"""Millimetres: no detector for mammography has larger pixels, and an image that says so is refused.
A phantom of fewer than 1150 rows is written as a miniature."""


@dataclass(frozen=True, kw_only=True)
class LesionBox:
    """Where a lesion's shadow lies in one view, in pixels of the written image."""

    kind: Kind
    malignant: bool
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class PhantomView:
    """One view of a phantom exam."""

    view: View
    displayed: NDArray[np.float32]
    """(rows, columns), 0 (air) to 1, natural orientation: the right breast's chest wall is at the
    right."""
    boxes: tuple[LesionBox, ...]
    caption: str


@dataclass(frozen=True, kw_only=True)
class PhantomExam:
    """Four views with the truth about them."""

    name: str
    category: Category
    views: Mapping[View, PhantomView]
    caption: str
    datasets: Mapping[View, Dataset] = field(repr=False)
    """With native pixels."""
    profile: vendors.VendorProfile
    transfer_syntax: UID
    """What its files are encoded in."""

    @property
    def malignant(self) -> bool:
        """The label."""
        return self.category is Category.MALIGNANT


@dataclass(frozen=True, kw_only=True)
class _Placed:
    lesion: Lesion
    views: tuple[View, ...]
    malignant: bool


def make_exam(settings: PhantomSettings, index: int) -> PhantomExam:
    """Make exam number ``index`` of a set; the same settings and index give the same bytes."""
    rng = np.random.default_rng([settings.seed, index])
    category = _draw_category(settings, rng)
    breasts = draw_breasts(rng)
    placed = _place_lesions(category, breasts, settings, rng)
    detector = Detector(rows=settings.rows, columns=settings.columns)
    parenchyma = draw_parenchyma(detector, rng)
    views = {
        view: _render_view(view, breasts[view.laterality], parenchyma[view], detector, placed, rng)
        for view in VIEWS
    }
    profile = settings.profiles[int(rng.integers(len(settings.profiles)))]
    identity = vendors.ExamIdentity.derive(settings.seed, index)
    return PhantomExam(
        name=f"exam-{settings.seed:04d}-{index:05d}",
        category=category,
        views=views,
        caption=_exam_caption(placed),
        profile=profile,
        transfer_syntax=UID(settings.transfer_syntax or profile.transfer_syntax),
        datasets={
            view: vendors.to_dataset(
                image.displayed,
                view=view,
                profile=profile,
                identity=identity,
                pixel_spacing=min(detector.spacing, COARSEST_SPACING),
                rng=rng,
            )
            for view, image in views.items()
        },
    )


def _draw_category(settings: PhantomSettings, rng: np.random.Generator) -> Category:
    if rng.random() < settings.malignant_share:
        return Category.MALIGNANT
    return Category(rng.choice(list(BENIGN_SHARE), p=list(BENIGN_SHARE.values())))


def _place_lesions(
    category: Category,
    breasts: Mapping[str, Breast],
    settings: PhantomSettings,
    rng: np.random.Generator,
) -> list[_Placed]:
    side = str(rng.choice(["L", "R"]))
    other = "R" if side == "L" else "L"
    kind = SUSPICIOUS[int(rng.integers(len(SUSPICIOUS)))]

    def place(kind: Kind, views: tuple[str, ...], *, malignant: bool = False) -> _Placed:
        breast = breasts[views[0][0]]
        lesion = make_lesion(
            kind,
            center=_draw_center(breast, rng),
            contrast=float(rng.uniform(*settings.contrast)),
            rng=rng,
        )
        return _Placed(
            lesion=lesion, views=tuple(View(view) for view in views), malignant=malignant
        )

    both = (f"{side}CC", f"{side}MLO")
    placed: list[_Placed] = []
    match category:
        case Category.MALIGNANT:
            placed = [place(kind, both, malignant=True)]
        case Category.SINGLE:
            placed = [place(kind, (str(rng.choice(both)),))]
        case Category.CROSSED:
            placed = [place(kind, (f"{side}CC",)), place(kind, (f"{other}MLO",))]
        case Category.SYMMETRIC:
            placed = [place(kind, both), place(kind, (f"{other}CC", f"{other}MLO"))]
        case Category.INNOCENT:
            placed = [place(INNOCENT[int(rng.integers(len(INNOCENT)))], both)]
    if rng.random() < settings.incidental_share:
        innocent = INNOCENT[int(rng.integers(len(INNOCENT)))]
        where = str(rng.choice(["L", "R"]))
        placed.append(place(innocent, (f"{where}CC", f"{where}MLO")))
    return placed


def _draw_center(breast: Breast, rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw a point that lies well inside the outline of both views."""
    while True:
        depth = breast.depth * rng.uniform(0.25, 0.75)
        lateral, height = breast.half_width * rng.uniform(-0.55, 0.55, 2)
        point = np.array([[depth, lateral, height]])
        radial = [
            breast.radial(projection, *np.float32(breast.locate(View("L" + projection), point)[0]))
            for projection in ("CC", "MLO")
        ]
        if max(float(value) for value in radial) < 0.8:
            return float(depth), float(lateral), float(height)


def _render_view(
    view: View,
    breast: Breast,
    parenchyma: Parenchyma,
    detector: Detector,
    placed: list[_Placed],
    rng: np.random.Generator,
) -> PhantomView:
    rendering = render(breast, view, parenchyma, detector)
    boxes = []
    seen = [item for item in placed if view in item.views]
    for item in seen:
        offsets = np.array([(0.0, 0.0, 0.0), *(body.offset for body in item.lesion.bodies)])
        points = breast.locate(view, offsets + np.array(item.lesion.center)) / detector.spacing
        top, left, height, width = add_shadow(
            rendering.tissue, item.lesion, points=points, spacing=detector.spacing
        )
        if view.laterality == "R":
            left = detector.columns - left - width
        boxes.append(
            LesionBox(
                kind=item.lesion.kind,
                malignant=item.malignant,
                top=top,
                left=left,
                height=height,
                width=width,
            )
        )
    displayed = rendering.displayed()
    noise = np.float32(0.012) * rng.standard_normal(displayed.shape, dtype=np.float32)
    displayed = np.clip(displayed + noise * (displayed > 0), 0.0, 1.0)
    if view.laterality == "R":
        displayed = displayed[:, ::-1]
    displayed = np.ascontiguousarray(displayed, dtype=np.float32)
    draw_lead_marker(displayed, view, spacing=detector.spacing)
    return PhantomView(
        view=view,
        displayed=displayed,
        boxes=tuple(boxes),
        caption=view_caption(view, breast.density, [item.lesion.kind for item in seen]),
    )


def view_caption(view: View, density: str, kinds: list[Kind]) -> str:
    """Describe one view; the side is not named, since a model sees every chest wall at the left."""
    projection = "craniocaudal" if view.projection == "CC" else "mediolateral oblique"
    return f"{projection} mammogram, density {density}, {_describe(kinds)}"


def _describe(kinds: list[Kind]) -> str:
    """Name what is seen, after how it looks in this view alone."""
    if not kinds:
        return "no abnormality"
    looks = "suspicious" if any(kind in SUSPICIOUS for kind in kinds) else "benign"
    named = " and ".join(sorted(f"a {kind}" for kind in set(kinds)))
    return f"{looks} appearance, {named}".replace("a coarse", "coarse")


def _exam_caption(placed: list[_Placed]) -> str:
    for item in placed:
        if item.malignant:
            side = "left" if item.views[0].laterality == "L" else "right"
            return f"mammogram exam, malignant {item.lesion.kind} in the {side} breast"
    return "mammogram exam, benign or normal"


def make_exams(settings: PhantomSettings, exams: int, *, first: int = 0) -> Iterator[PhantomExam]:
    """Make exams ``first`` to ``first + exams - 1`` of a set, one after the other."""
    return (make_exam(settings, index) for index in range(first, first + exams))


if __name__ == "__main__":
    # The command writes what this module draws, and is found under this module's name.
    from training.phantom_files import run

    run()
