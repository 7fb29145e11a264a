"""Four decoded views and what the model would see of them -> reasons to be careful, or to abstain.

This is the one judge of content: a view that can be turned into a tensor is judged here and nowhere
else. Codes are those of `reasons`; they belong to programs, messages belong to people. Every limit
stands in `limits`, with where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mammoclip_sdk.dicom.view_codes import IMPLANT_DISPLACED
from mammoclip_sdk.exam import (
    VIEWS,
    Acceptance,
    Acquisition,
    BreastRegion,
    Device,
    DisplayAttributes,
    Exam,
    ModelInput,
    StoredImage,
    View,
)
from mammoclip_sdk.printable import printable
from mammoclip_sdk.quality import limits
from mammoclip_sdk.quality.appearance import Appearance, appearance, likeness, wrapped
from mammoclip_sdk.quality.orientation import contradiction, is_turned
from mammoclip_sdk.reasons import (
    CONTENT,
    DEVICE,
    DUPLICATE_VIEW,
    GEOMETRY,
    IMPLANT,
    MODIFIED_VIEW,
    WRONG_SIDE,
)

_REMEDY = "Check its window and its polarity."
_LEAPS = (
    "leaps between bright and dark all over, as where upper bits were cut off. Check its Bits "
    "Stored (0028,0101)."
)
_LONGEST_NAME = 64  # characters; more is not LO, PS3.5 section 6.2

Severity = Literal["block", "warn"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One thing that is wrong with an exam, and whether it may be scored all the same."""

    code: str
    """One of `reasons.CODES`."""
    severity: Severity
    """``block``: no probability is given. ``warn``: it is given, with this beside it."""
    view: View | None
    """The view it is about; None for the whole exam."""
    message: str


def assess(
    exam: Exam,
    images: Mapping[View, StoredImage],
    model_input: ModelInput,
    acceptance: Acceptance,
) -> tuple[Reason, ...]:
    """Return every reason found in an exam's headers, its decoded views and its tensor.

    Parameters
    ----------
    exam, images, model_input
        The exam that was read, its four views decoded, and the tensor made from them.
    acceptance
        Which exams the model was validated on.
    """
    views = model_input.tensors["views"][0, :, 0]  # (4, height, width)
    reasons = [*_device(exam, acceptance)]
    finite = [bool(np.isfinite(pixels).all()) for pixels in views]
    reasons += _duplicates(images, model_input if all(finite) else None)
    for view, pixels, usable in zip(VIEWS, views, finite, strict=True):
        acquisition = exam.images[view].acquisition
        reasons += _geometry(view, images[view], acquisition)
        reasons += _header(view, acquisition) if acquisition else ()
        reasons += _padding(view, images[view].display, model_input.breasts[view])
        if not usable:
            message = f"{view} has values that are not numbers after windowing."
            reasons.append(_reason(GEOMETRY, "block", view, message))
            continue
        breast = model_input.breasts[view]
        content = [*_content(view, breast)]
        if not _blocked(content):
            content += _shape(images[view], appearance(pixels), breast, acceptance)
        reasons += content
        letters = acquisition.patient_orientation if acquisition else ()
        if is_turned(letters) or not _blocked(content):  # else it has no side
            reasons += _side(view, letters, model_input.geometry[view].mirrored)
    return tuple(reasons)


def _blocked(content: list[Reason]) -> bool:
    return any(reason.code == CONTENT and reason.severity == "block" for reason in content)


def _device(exam: Exam, acceptance: Acceptance) -> Iterator[Reason]:
    known = {_plain(device) for device in acceptance.devices}
    others = {}
    for view in VIEWS:
        acquisition = exam.images[view].acquisition
        device = acquisition.device if acquisition else Device(manufacturer="", model="")
        if _plain(device) not in known or not any(_plain(device)):
            quoted = (name.replace('"', "'") for name in named(device))
            others[_plain(device)] = " ".join(f'"{name}"' for name in quoted)
    if others:
        listed = ", ".join(name or "a device that is not named" for name in others.values())
        message = f"The model was not validated on images of {listed}."
        yield _reason(DEVICE, "warn", None, message)


def named(device: Device) -> tuple[str, ...]:
    """Return manufacturer and model as people may see them: anybody may have written a header.

    Both are printable and have at most 64 characters, which is the most that a header may have.
    """
    names = (printable(name) for name in (device.manufacturer, device.model))
    return tuple(name[:_LONGEST_NAME] for name in names if name)


def _plain(device: Device) -> tuple[str, str]:
    manufacturer, model = (
        "".join(name.split()).casefold() for name in (device.manufacturer, device.model)
    )
    return manufacturer, model


def _duplicates(
    images: Mapping[View, StoredImage], model_input: ModelInput | None
) -> Iterator[Reason]:
    first: dict[str, View] = {}
    same = {}
    for view in VIEWS:
        other = first.setdefault(images[view].sha256, view)
        if other is not view:
            same[view] = f"{view} has the same pixels as {other}: one image was given twice."
    if model_input is not None:
        pairs = likeness(model_input.tensors["views"][0, :, 0], model_input.geometry)
        for (other, view), alike in pairs.items():
            if alike > limits.MAX_LIKENESS:
                message = (
                    f"{view} and {other} agree in {alike:.0%} of their detail: they look like one "
                    "image that was encoded, windowed or turned in two ways."
                )
                same.setdefault(view, message)
    for view, message in same.items():
        yield _reason(DUPLICATE_VIEW, "block", view, message)


def _geometry(view: View, image: StoredImage, acquisition: Acquisition | None) -> Iterator[Reason]:
    """Judge sizes; a spacing that is not given is none that is wrong, and changes no pixel."""
    rows, columns = image.reduction.source_shape if image.reduction else image.pixels.shape
    if not limits.ASPECT[0] <= rows / columns <= limits.ASPECT[1]:
        message = f"{view} has {rows} rows and {columns} columns, as no mammogram has."
        yield _reason(GEOMETRY, "block", view, message)
    aspect = acquisition.pixel_aspect if acquisition else None
    if aspect is not None and not max(aspect) <= limits.MAX_STRETCH * min(aspect):
        message = (
            f"{view} has pixels that are not square: Pixel Aspect Ratio (0028,0034) says "
            f"{aspect[0]:g} to {aspect[1]:g}."
        )
        yield _reason(GEOMETRY, "block", view, message)
    spacing = acquisition.pixel_spacing if acquisition else None
    if spacing is None:
        return
    least, most = limits.PIXEL_SPACING
    if not all(least <= length <= most for length in spacing):
        message = (
            f"{view} has pixels of {spacing[0]:.3g} x {spacing[1]:.3g} mm; detectors for "
            f"mammography have {least} to {most} mm."
        )
        yield _reason(GEOMETRY, "block", view, message)
    elif max(spacing) > limits.MAX_STRETCH * min(spacing):
        message = f"{view} has pixels that are not square: {spacing[0]:.3g} x {spacing[1]:.3g} mm."
        yield _reason(GEOMETRY, "block", view, message)


def _header(view: View, acquisition: Acquisition) -> Iterator[Reason]:
    modifiers = [word for word in acquisition.modifiers if word != IMPLANT_DISPLACED]
    if modifiers:
        message = f"{view} is no plain view of the whole breast: {', '.join(modifiers)}."
        yield _reason(MODIFIED_VIEW, "warn", view, message)
    if acquisition.burned_in_annotation:
        message = (
            f"{view} has annotations burned into its pixels, as Burned In Annotation (0028,0301) "
            "says; the model may take them for tissue."
        )
        yield _reason(CONTENT, "warn", view, message)
    ratio = acquisition.lossy_ratio
    if ratio is not None and not ratio <= limits.MAX_LOSSY_RATIO:
        message = (
            f"{view} was compressed {ratio:.3g} to 1 with loss, as Lossy Image Compression Ratio "
            f"(0028,2112) says; detail may be lost beyond {limits.MAX_LOSSY_RATIO:g} to 1."
        )
        yield _reason(CONTENT, "warn", view, message)


def _padding(view: View, display: DisplayAttributes, breast: BreastRegion) -> Iterator[Reason]:
    """Warn where air is dark only because it is padding, and where tissue may be padding."""
    if display.padding is None:
        return
    if breast.beside_padding > limits.MAX_BESIDE_PADDING:
        message = (
            f"{view} has values beside its Pixel Padding Value (0028,0120) or Range Limit "
            f"(0028,0121) that are shown at {breast.beside_padding:.0%} of white: the padding may "
            f"cover tissue. {_REMEDY}"
        )
        yield _reason(CONTENT, "warn", view, message)
    first = -(2 ** (display.bits_stored - 1)) if display.signed else 0
    place = (sum(display.padding) / 2 - first) / 2**display.bits_stored
    if (place > 0.5) != (display.photometric == "MONOCHROME1"):
        what = (
            f"{view} has a Pixel Padding Value (0028,0120) among its brightest values, as where "
            "Photometric Interpretation (0028,0004) is wrong."
        )
        yield _reason(CONTENT, "warn", view, f"{what} {_REMEDY}")


def _content(view: View, breast: BreastRegion) -> Iterator[Reason]:
    if breast.share < limits.MIN_SHARE:
        what = f"{view} shows no breast: what is bright fills {breast.share:.1%} of the image."
        yield _reason(CONTENT, "block", view, f"{what} {_REMEDY}")
    elif breast.share > limits.MAX_SHARE or breast.far_edge > limits.MAX_FAR_EDGE:
        what = (
            f"{view} shows no air: what is bright fills {breast.share:.1%} of the image, and "
            f"{breast.far_edge:.0%} of the edge where air should be, as with inverted polarity."
        )
        yield _reason(CONTENT, "block", view, f"{what} {_REMEDY}")
    elif breast.saturated > limits.MAX_SATURATED:
        what = f"{view} shows {breast.saturated:.0%} of the breast as white, without structure."
        yield _reason(CONTENT, "block", view, f"{what} {_REMEDY}")
    elif breast.spread < limits.LOW_SPREAD:
        what = f"{view} is flat: the breast takes {breast.spread:.1%} of the range from black to "
        severity: Severity = "block" if breast.spread < limits.MIN_SPREAD else "warn"
        yield _reason(CONTENT, severity, view, f"{what}white. {_REMEDY}")


def _shape(
    image: StoredImage, seen: Appearance | None, breast: BreastRegion, acceptance: Acceptance
) -> Iterator[Reason]:
    view = image.view
    if seen is None:
        yield _reason(CONTENT, "block", view, f"{view} shows nothing. {_REMEDY}")
    elif seen.grain < limits.MIN_GRAIN:
        what = f"{view} shows noise: neighbouring pixels agree by {seen.grain:.2f} of 1."
        yield _reason(CONTENT, "block", view, f"{what} Check how its pixels were stored.")
    elif image.reduction is None and wrapped(image) > limits.MAX_WRAPPED:
        yield _reason(CONTENT, "block", view, f"{view} {_LEAPS}")
    elif seen.contact < limits.MIN_CONTACT or seen.tip > limits.MAX_TIP:
        what = (
            f"{view} does not show what is shaped as a breast: {seen.contact:.0%} of it begins at "
            f"the chest wall, and {seen.tip:.0%} of its height is left at the far end."
        )
        yield _reason(CONTENT, "block", view, f"{what} Check that it is a mammogram.")
    elif seen.bright_body > limits.MAX_BRIGHT_BODY:
        if not acceptance.implants:
            message = (
                f"{view} has a compact bright area of {seen.bright_body:.0%} of the breast, as a "
                "breast implant makes; the model was not validated on implants."
            )
            # An implant is in both views of a breast; in an oblique one the muscle may be as white.
            severity: Severity = "block" if view.projection == "CC" else "warn"
            yield _reason(IMPLANT, severity, view, message)
    elif image.reduction is not None and wrapped(image) > limits.MAX_WRAPPED:
        yield _reason(CONTENT, "warn", view, f"{view} {_LEAPS}")
    elif seen.pieces > limits.MAX_PIECES:
        what = f"{view} shows a breast in pieces, {seen.pieces:.1f} in a row: its fat is black."
        yield _reason(CONTENT, "warn", view, f"{what} {_REMEDY}")
    elif breast.saturated > limits.HIGH_SATURATED:
        what = f"{view} shows {breast.saturated:.0%} of the breast as white, without structure."
        yield _reason(CONTENT, "warn", view, f"{what} {_REMEDY}")


def _side(view: View, letters: tuple[str, ...], mirrored: bool) -> Iterator[Reason]:
    if wrong := contradiction(view, letters, wall_right=mirrored):
        yield _reason(WRONG_SIDE, "block", view, wrong)
    elif mirrored == (view.laterality == "L"):
        message = (
            f"{view} is stored mirrored, as Patient Orientation (0020,0020) says and its chest "
            "wall shows."
        )
        yield _reason(WRONG_SIDE, "warn", view, message)


def _reason(code: str, severity: Severity, view: View | None, message: str) -> Reason:
    return Reason(code=code, severity=severity, view=view, message=message)
