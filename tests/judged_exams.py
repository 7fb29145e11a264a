"""An exam as the quality gate is given it: good, but for what a test names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.exam import (
    VIEWS,
    Acceptance,
    Acquisition,
    BreastRegion,
    Device,
    DisplayAttributes,
    Exam,
    ModelInput,
    SourceImage,
    StoredImage,
    View,
    ViewGeometry,
)
from mammoclip_sdk.quality import Reason, assess

GOOD = BreastRegion(share=0.4, far_edge=0.0, spread=0.5, saturated=0.0)
TWELVE_BITS = DisplayAttributes(bits_stored=12, signed=False, photometric="MONOCHROME2")
KNOWN = Device(manufacturer="Maker", model="One")
ACCEPTANCE = Acceptance(implants=False, synthetic_2d=False, devices=(KNOWN,))
ORIENTATIONS = {
    View.LCC: ("A", "R"),
    View.RCC: ("P", "L"),
    View.LMLO: ("A", "FR"),
    View.RMLO: ("P", "FL"),
}
SIZE = (192, 96)


def acquisition(view: View, **changed: Any) -> Acquisition:
    plain = Acquisition(
        device=KNOWN,
        patient_orientation=ORIENTATIONS[view],
        pixel_spacing=(0.07, 0.07),
        modifiers=(),
        implant=False,
        synthetic_2d=False,
        burned_in_annotation=False,
        lossy_ratio=1.0,
    )
    return replace(plain, **changed)


def exam(changed: Mapping[View, Mapping[str, Any] | None] = {}) -> Exam:
    """Four plain images, but for what a view's header is said to hold; None: an array."""
    return Exam(
        images={
            view: SourceImage(
                view=view,
                name=str(view),
                acquisition=None
                if (what := changed.get(view, {})) is None
                else acquisition(view, **what),
            )
            for view in VIEWS
        }
    )


def everywhere(**what: Any) -> Exam:
    return exam(dict.fromkeys(VIEWS, what))


def images(**same_as: str) -> dict[View, StoredImage]:
    """Four stored images with pixels of their own, but for those named."""
    return {
        view: StoredImage(
            view=view,
            name=str(view),
            pixels=np.full((20, 16), sum(same_as.get(view, str(view)).encode()), np.uint16),
            display=TWELVE_BITS,
            transfer_syntax="array",
        )
        for view in VIEWS
    }


def breast(seed: int) -> NDArray[np.float32]:
    """A half ellipse of tissue, its texture its own."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[: SIZE[0], : SIZE[1]] / np.array([[[SIZE[0]]], [[SIZE[1]]]])
    inside = across**2 / 0.9**2 + (down - 0.5) ** 2 / 0.45**2 < 1
    texture = rng.normal(size=SIZE)
    for axis in (0, 1):
        texture = sum(np.roll(texture, shift, axis) for shift in range(-2, 3))
    return np.where(inside, 0.5 + 0.02 * texture, 0).astype(np.float32)


def model_input(
    changed: Mapping[View, BreastRegion] = {},
    *,
    turned: tuple[View, ...] = (),
    shown: Mapping[View, NDArray[np.float32]] = {},
) -> ModelInput:
    """An exam as the tensor stage hands it over: good, but for what is named."""
    views = [shown.get(view, breast(number)) for number, view in enumerate(VIEWS)]
    return ModelInput(
        tensors={"views": np.stack(views)[None, :, None]},
        breasts=dict.fromkeys(VIEWS, GOOD) | dict(changed),
        geometry={
            view: ViewGeometry(
                view=view,
                source_shape=SIZE,
                crop=(0, 0, *SIZE),
                mirrored=(view.laterality == "R") != (view in turned),
                placed=(0, 0, *SIZE),
            )
            for view in VIEWS
        },
    )


def judge(
    what: Exam | None = None,
    given: ModelInput | None = None,
    stored: Mapping[View, StoredImage] | None = None,
    acceptance: Acceptance = ACCEPTANCE,
) -> tuple[Reason, ...]:
    return assess(what or exam(), stored or images(), given or model_input(), acceptance)


def brief(reasons: tuple[Reason, ...]) -> list[tuple[str, str, str | None]]:
    return [(reason.code, reason.severity, reason.view) for reason in reasons]
