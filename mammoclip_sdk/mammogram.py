"""One DICOM header -> which view it shows, or why it may not be scored; no pixel is decoded.

Only what the choice of a view needs is kept, as plain values: pydicom is left behind here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.multival import MultiValue

from mammoclip_sdk import gate
from mammoclip_sdk.errors import UnsupportedImageError
from mammoclip_sdk.exam import View
from mammoclip_sdk.view_codes import (
    DEMOTING_MODIFIERS,
    REFUSED_MODIFIERS,
    STANDARD,
    Label,
    modifier_of_code,
    projection_of_code,
    read_label,
)

FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
_OTHER_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1.2.1": (
        "a For Processing mammogram (raw detector data)",
        "unsupported_intent",
    ),
    "1.2.840.10008.5.1.4.1.1.13.1.3": ("a tomosynthesis volume", "tomosynthesis"),
    "1.2.840.10008.5.1.4.1.1.13.1.4": ("tomosynthesis projections", "tomosynthesis"),
    "1.2.840.10008.5.1.4.1.1.13.1.5": ("tomosynthesis projections", "tomosynthesis"),
    "1.2.840.10008.5.1.4.1.1.7": ("a Secondary Capture", "secondary_capture"),
    "1.2.840.10008.5.1.4.1.1.1": ("a Computed Radiography image", "unsupported_sop_class"),
    "1.2.840.10008.5.1.4.1.1.1.1": ("a Digital X-Ray image", "unsupported_sop_class"),
}
_SYNTHETIC = re.compile(r"C-?VIEW|S-?VIEW|INTELLIGENT ?2D|V-?PREVIEW|TOMO_2D|GENERATED_2D")
_MAGNIFIED = 1.2  # a contact view is magnified at most 1.1 times, a magnification view 1.5 or more
_ALWAYS_LOSSY = frozenset({gate.JPEG_BASELINE, gate.JPEG_EXTENDED})
_PERHAPS_LOSSY = frozenset({gate.JPEG_LS_NEAR, gate.JPEG_2000})


@dataclass(frozen=True, kw_only=True)
class Mammogram:
    """What a header says that matters to the choice of four views."""

    side: str | None
    projection: str | None
    """``L`` or ``R``, ``CC`` or ``MLO``; None where no tag and no text says it."""
    sop_instance_uid: str
    patient: str
    study: str
    """Compared between images, never shown."""
    demoted: tuple[str, ...]
    """Why a plainer image of the same view would be preferred."""
    lossy: bool
    acquired: str
    """``YYYYMMDDHHMMSS.ffffff`` as far as known, so that later is greater."""
    instance_number: int
    notes: tuple[str, ...]

    @property
    def view(self) -> View | None:
        """The view, when both its side and its projection are known."""
        return View(self.side + self.projection) if self.side and self.projection else None


def read_mammogram(header: Dataset, *, name: str) -> Mammogram:
    """Judge one header.

    Raises
    ------
    UnsupportedImageError
        Not a single-frame, one-sample For Presentation mammogram of one breast in a CC or MLO
        view, or its tags contradict each other about side or view. ``code`` says which.
    DicomReadError
        A value does not parse.
    """
    syntax = gate.transfer_syntax(header, name=name)
    with gate.shielded(name):
        _require_presentation(header, name)
        _require_one_plain_image(header, name)
        side, side_notes = _side(header, name)
        projection, modifiers, view_notes = _projection(header, name)
        _require_screening_view(projection, modifiers, name)
        partial = ["partial view"] if _text(header, "PartialView") == "YES" else []
        return Mammogram(
            side=side,
            projection=projection,
            sop_instance_uid=_text(header, "SOPInstanceUID"),
            patient=_text(header, "PatientID"),
            study=_text(header, "StudyInstanceUID"),
            demoted=(*sorted(modifiers & DEMOTING_MODIFIERS.keys()), *partial),
            lossy=_is_lossy(header, syntax),
            acquired=_acquired(header),
            instance_number=int(_text(header, "InstanceNumber") or 0),
            notes=(*side_notes, *view_notes),
        )


def _refusal(name: str, found: str, code: str, remedy: str = "") -> UnsupportedImageError:
    return UnsupportedImageError(
        name,
        found=found,
        expected="a standard CC or MLO view of one breast, Digital Mammography For Presentation",
        remedy=remedy or "Leave this image out, and hand over the standard view.",
        code=code,
    )


def _require_presentation(header: Dataset, name: str) -> None:
    sop_class = _text(header, "SOPClassUID")
    if sop_class != FOR_PRESENTATION:
        found, code = _OTHER_CLASSES.get(
            sop_class,
            ("another kind of object (SOP Class UID (0008,0016))", "unsupported_sop_class"),
        )
        raise _refusal(name, found, code)
    if _text(header, "Modality") != "MG":
        raise _refusal(name, "a Modality (0008,0060) other than MG", "unsupported_modality")
    if _text(header, "PresentationIntentType") == "FOR PROCESSING":
        raise _refusal(
            name,
            "Presentation Intent Type (0008,0068) FOR PROCESSING (raw detector data)",
            "unsupported_intent",
            "Hand over the For Presentation image of the same exposure.",
        )


def _require_one_plain_image(header: Dataset, name: str) -> None:
    if int(_text(header, "NumberOfFrames") or 1) != 1:
        raise _refusal(name, "Number of Frames (0028,0008) other than 1", "multi_frame")
    if _text(header, "SamplesPerPixel") != "1":
        raise _refusal(name, "Samples per Pixel (0028,0002) other than 1", "not_greyscale")
    if _text(header, "QualityControlImage") == "YES":
        raise _refusal(name, "a quality control image (0028,0300)", "quality_control")
    kinds = [part.upper() for part in _texts(header, "ImageType")]
    # Some devices send a volume as single frames that look like 2D images.
    volume = "VOLUME" in _texts(header, "VolumetricProperties") or header.get("ConcatenationUID")
    if volume or {"TOMO", "TOMOSYNTHESIS"} & set(kinds):
        raise _refusal(name, "a slice of a tomosynthesis volume", "tomosynthesis")
    description = _text(header, "SeriesDescription").upper()
    if any(_SYNTHETIC.search(text) for text in (*kinds, description)):
        raise _refusal(name, "a 2D image synthesised from tomosynthesis", "synthetic_2d")
    if float(_text(header, "EstimatedRadiographicMagnificationFactor") or 1) > _MAGNIFIED:
        raise _refusal(name, "a magnification view (0018,1114)", "magnification")


def _side(header: Dataset, name: str) -> tuple[str | None, list[str]]:
    """Laterality by ImageLaterality, FrameLaterality, Laterality, then by text."""
    tags = {
        "Image Laterality (0020,0062)": _text(header, "ImageLaterality"),
        "Frame Laterality (0020,9072)": _frame_laterality(header),
        "Laterality (0020,0060)": _text(header, "Laterality"),
    }
    said = {tag: value.upper() for tag, value in tags.items() if value.upper() in ("L", "R")}
    if len(set(said.values())) > 1:
        raise _refusal(
            name,
            f"{' and '.join(said)} that contradict each other",
            "laterality_contradiction",
            "Have the side corrected at the source; this software does not guess it.",
        )
    first = next((value.upper() for value in tags.values() if value), "")
    if first in ("B", "BILATERAL"):
        raise _refusal(name, "an image of both breasts", "both_breasts")
    side = next(iter(said.values()), None)
    texts = {tag: label.side for tag, label in _labels(header).items() if label.side}
    notes = [
        f"{name}: {tag} names the other side"
        for tag, value in texts.items()
        if side and value != side
    ]
    if side is None and len(set(texts.values())) > 1:
        raise _refusal(
            name,
            f"{' and '.join(texts)} that contradict each other about the side",
            "laterality_contradiction",
            "Have Image Laterality (0020,0062) set at the source.",
        )
    return side or next(iter(texts.values()), None), notes


def _projection(header: Dataset, name: str) -> tuple[str | None, set[str], list[str]]:
    """View and modifiers by ViewCodeSequence, ViewPosition, then by text."""
    items = list(header.get("ViewCodeSequence") or [])
    coded = {projection_of_code(*_code(item)) for item in items}
    modifiers = {
        modifier_of_code(*_code(item)) or ""
        for holder in (*items, header)
        for item in holder.get("ViewModifierCodeSequence") or []
    }
    labels = _labels(header)
    said = {tag: label.projection for tag, label in labels.items() if label.projection}
    position = said.get(_VIEW_POSITION)
    notes = (
        [f"{name}: View Code Sequence (0054,0220) holds an unknown code"] if None in coded else []
    )
    known = coded - {None} or {position} - {None}
    if len(known | {position} - {None}) > 1:
        raise _refusal(
            name,
            "View Code Sequence (0054,0220) and View Position (0018,5101) in contradiction",
            "view_contradiction",
            "Have the view corrected at the source; this software does not guess it.",
        )
    projection = next(iter(known or said.values()), None)
    notes += [
        f"{name}: {tag} names another view" for tag, value in said.items() if value != projection
    ]
    for label in labels.values():
        modifiers |= label.modifiers
    paddle = read_label(f"CC {_text(header, 'PaddleDescription')}")
    return projection, (modifiers | paddle.modifiers & {"spot compression"}) - {""}, notes


def _require_screening_view(projection: str | None, modifiers: set[str], name: str) -> None:
    if projection and projection not in STANDARD:
        raise _refusal(name, f"a view of another kind ({projection})", "unsupported_view")
    for modifier in sorted(modifiers & REFUSED_MODIFIERS.keys()):
        raise _refusal(name, f"a {modifier} view", modifier.replace(" ", "_"))


_VIEW_POSITION = "View Position (0018,5101)"


def _labels(header: Dataset) -> dict[str, Label]:
    """What each text says, the more trustworthy first; Fuji writes the view into the second."""
    return {
        _VIEW_POSITION: read_label(_text(header, "ViewPosition")),
        "Acquisition Device Processing Description (0018,1400)": read_label(
            _text(header, "AcquisitionDeviceProcessingDescription")
        ),
        "Series Description (0008,103E)": read_label(_text(header, "SeriesDescription")),
    }


def _frame_laterality(header: Dataset) -> str:
    for group in header.get("SharedFunctionalGroupsSequence") or []:
        for anatomy in group.get("FrameAnatomySequence") or []:
            return _text(anatomy, "FrameLaterality")
    return ""


def _is_lossy(header: Dataset, syntax: str) -> bool:
    flag = _text(header, "LossyImageCompression")
    return flag == "01" or syntax in _ALWAYS_LOSSY or (not flag and syntax in _PERHAPS_LOSSY)


def _acquired(header: Dataset) -> str:
    moment = _text(header, "AcquisitionDateTime")
    for kind in ("Acquisition", "Content"):
        moment = moment or _text(header, f"{kind}Date") + _text(header, f"{kind}Time")
    return moment


def _code(item: Dataset) -> tuple[str, str]:
    return _text(item, "CodeValue"), _text(item, "CodingSchemeDesignator")


def _texts(header: Dataset, keyword: str) -> list[str]:
    value = header.get(keyword)
    parts = value if isinstance(value, MultiValue | list) else [value]
    return [str(part).strip() for part in parts if part is not None]


def _text(header: Dataset, keyword: str) -> str:
    return next(iter(_texts(header, keyword)), "")
