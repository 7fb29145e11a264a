"""Which breast an image shows, and in which view: what the tags and the texts of a header say.

Tags speak first; free text only where they are silent. Where they disagree with one another, the
image is refused: this software does not guess a side. Where a text disagrees, a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mammoclip_sdk.dicom.header import Header, described
from mammoclip_sdk.dicom.view_codes import Label, modifier_of_code, projection_of_code, read_label
from mammoclip_sdk.errors import UnsupportedImageError

_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_BOTH = frozenset({"B", "BILATERAL"})
_TEXTS = ("AcquisitionDeviceProcessingDescription", "SeriesDescription", "PaddleDescription")
"""The more trustworthy first; Fuji writes the view into the first."""
_NAMES = {
    keyword: described(keyword)
    for keyword in (
        *_TEXTS,
        "ViewCodeSequence",
        "ViewPosition",
        "ImageLaterality",
        "FrameLaterality",
        "Laterality",
    )
}


@dataclass(frozen=True, kw_only=True)
class ViewTags:
    """What a header says of its view."""

    side: str | None
    projection: str | None
    """``L`` or ``R``, and a key of `dicom.view_codes.PROJECTIONS`; None where nothing says it."""
    by_text: bool
    """Whether a free text alone says one of them."""
    modifiers: frozenset[str]
    notes: tuple[str, ...]


def read_view_tags(header: Header) -> ViewTags:
    """Read side, view and view modifiers.

    Raises
    ------
    UnsupportedImageError
        Both breasts, a side that is neither left nor right, or a contradiction.
    DicomReadError
        A value does not parse, or is not the only one where there may be one.
    """
    position = read_label(header.one("ViewPosition"))
    texts = {
        _NAMES[keyword]: read_label(header.text(keyword), free=keyword == "SeriesDescription")
        for keyword in _TEXTS
    }
    side, side_by_text, side_notes = _side(header, position, texts)
    projection, view_by_text, view_notes = _projection(header, position, texts)
    return ViewTags(
        side=side,
        projection=projection,
        by_text=side_by_text or view_by_text,
        modifiers=_coded_modifiers(header).union(
            position.modifiers, *(label.modifiers for label in texts.values())
        ),
        notes=(*side_notes, *view_notes),
    )


def refusal(header: Header, found: str, code: str, remedy: str = "") -> UnsupportedImageError:
    """Return the error for a readable image that is no standard view."""
    return UnsupportedImageError(
        header.name,
        found=found,
        expected="a standard CC or MLO view of one breast, Digital Mammography For Presentation",
        remedy=remedy or "Leave this image out, and hand over the standard view.",
        code=code,
    )


def _side(
    header: Header, position: Label, texts: Mapping[str, Label]
) -> tuple[str | None, bool, list[str]]:
    """Laterality by its three tags, which View Position may not contradict; then by text."""
    of_image, of_series = header.one("ImageLaterality"), header.one("Laterality")
    of_frames = _frame_lateralities(header)
    notes = []
    if of_series.upper() in _BOTH and any([of_image, *of_frames]):
        # The series may hold both breasts; which one this image shows, its own tag says.
        notes.append(f"{_NAMES['Laterality']} names both breasts")
        of_series = ""
    tagged = {
        _NAMES[keyword]: {_laterality(header, keyword, value) for value in values if value}
        for keyword, values in (
            ("ImageLaterality", [of_image]),
            ("FrameLaterality", of_frames),
            ("Laterality", [of_series]),
        )
    }
    said_by_text = {
        tag: {label.side}
        for tag, label in texts.items()
        # The letter of a paddle is its size.
        if label.side and tag != _NAMES["PaddleDescription"]
    }
    witnesses = {tag: said for tag, said in tagged.items() if said}
    if position.sides:
        witnesses[_NAMES["ViewPosition"]] = set(position.sides)
    by_text = not witnesses
    if not any(tagged.values()):
        witnesses |= said_by_text
    sides = {side for said in witnesses.values() for side in said}
    if len(sides) > 1:
        raise _contradiction(header, witnesses, "side", "laterality_contradiction")
    notes += [f"{tag} names the other side" for tag, said in said_by_text.items() if said != sides]
    return next(iter(sides), None), by_text, notes


def _laterality(header: Header, keyword: str, value: str) -> str:
    if value.upper() in _BOTH:
        raise refusal(header, "an image of both breasts", "both_breasts")
    side = _SIDES.get(value.upper())
    if side is None:
        raise refusal(
            header,
            f"{_NAMES[keyword]} that is neither L nor R",
            "unsupported_laterality",
            "Have the side corrected at the source; text does not overrule a tag.",
        )
    return side


def _frame_lateralities(header: Header) -> list[str]:
    return [
        anatomy.one("FrameLaterality")
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for group in header.items(groups)
        for anatomy in group.items("FrameAnatomySequence")
    ]


def _projection(
    header: Header, position: Label, texts: Mapping[str, Label]
) -> tuple[str | None, bool, list[str]]:
    """View by View Code Sequence and View Position; by text where both are silent."""
    coded = {projection_of_code(*code) for code in header.codes("ViewCodeSequence")}
    said_by_text = {tag: label.projection for tag, label in texts.items() if label.projection}
    notes = [f"{_NAMES['ViewCodeSequence']} holds an unknown code"] if None in coded else []
    if position.unread and not position.projections:
        notes.append(f"{_NAMES['ViewPosition']} names no known view")
    known = (coded - {None}) | position.projections
    witnesses = [_NAMES["ViewCodeSequence"], _NAMES["ViewPosition"]]
    # A view that a tag names and this software does not know is no other view by text.
    by_text = not known and not notes
    if by_text:
        known, witnesses = set(said_by_text.values()), list(said_by_text)
    if len(known) > 1:
        raise _contradiction(header, witnesses, "view", "view_contradiction")
    projection = next(iter(known), None)
    return (
        projection,
        by_text,
        notes
        + [f"{tag} names another view" for tag, said in said_by_text.items() if said != projection],
    )


def _contradiction(
    header: Header, witnesses: Mapping[str, object] | list[str], about: str, code: str
) -> UnsupportedImageError:
    return refusal(
        header,
        f"{' and '.join(witnesses)} in contradiction about the {about}",
        code,
        f"Have the {about} corrected at the source; this software does not guess it.",
    )


def _coded_modifiers(header: Header) -> frozenset[str]:
    """Return the modifiers by code; some devices write them beside the view, not into it."""
    return frozenset(
        modifier_of_code(*code) or "unknown view modifier"
        for holder in (header, *header.items("ViewCodeSequence"))
        for code in holder.codes("ViewModifierCodeSequence")
    )
