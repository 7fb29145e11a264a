"""One DICOM header -> which view it shows, or why it may not be scored; no pixel is decoded.

Only what the choice of a view needs is kept, as plain values: pydicom is left behind here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydicom import Dataset

from mammoclip_sdk import gate
from mammoclip_sdk.errors import UnsupportedImageError
from mammoclip_sdk.exam import View
from mammoclip_sdk.header import Header, described
from mammoclip_sdk.shield import shielded
from mammoclip_sdk.view_codes import (
    REFUSED_MODIFIERS,
    STANDARD,
    Label,
    modifier_of_code,
    projection_of_code,
    read_label,
)

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
_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_DESCRIPTIONS = ("AcquisitionDeviceProcessingDescription", "SeriesDescription")
_PHOTOMETRIC = {"INVERSE": "MONOCHROME1", "IDENTITY": "MONOCHROME2"}
"""By Presentation LUT Shape."""


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


def read_mammogram(dataset: Dataset, *, name: str) -> Mammogram:
    """Judge one header.

    Raises
    ------
    UnsupportedImageError
        Not a single-frame, one-sample For Presentation mammogram of one breast in a CC or MLO
        view, or its tags contradict each other about side or view. ``code`` says which.
    DicomReadError
        A value does not parse, is not the only one where there may be one, or an instance or
        study without identity: two files could be exchanged, or two women's views be mixed.
    """
    syntax = gate.transfer_syntax(dataset, name=name)
    with shielded(name):
        header = Header(dataset, name=name)
        _require_presentation(header)
        _require_one_plain_image(header)
        side, side_notes = _side(header)
        projection, view_notes = _projection(header)
        modifiers = _modifiers(header)
        _require_screening_view(header, projection, modifiers)
        partial = ["partial view"] if header.one("PartialView") not in ("", "NO") else []
        demoted = (*sorted(modifiers), *partial)
        lossy = _is_lossy(header, syntax)
        notes = [*side_notes, *view_notes, *_polarity(header)]
        notes += [f"not a plain view ({', '.join(demoted)})"] if demoted else []
        notes += ["lossy compressed"] if lossy else []
        return Mammogram(
            side=side,
            projection=projection,
            sop_instance_uid=header.required("SOPInstanceUID"),
            patient=header.text("PatientID"),
            study=header.required("StudyInstanceUID"),
            demoted=demoted,
            lossy=lossy,
            acquired=_acquired(header),
            instance_number=int(header.number("InstanceNumber", 0)),
            notes=tuple(f"{name}: {note}" for note in notes),
        )


def _refusal(header: Header, found: str, code: str, remedy: str = "") -> UnsupportedImageError:
    return UnsupportedImageError(
        header.name,
        found=found,
        expected="a standard CC or MLO view of one breast, Digital Mammography For Presentation",
        remedy=remedy or "Leave this image out, and hand over the standard view.",
        code=code,
    )


def _require_presentation(header: Header) -> None:
    sop_class = header.one("SOPClassUID")
    if sop_class != gate.FOR_PRESENTATION:
        found, code = _OTHER_CLASSES.get(
            sop_class,
            ("another kind of object (SOP Class UID (0008,0016))", "unsupported_sop_class"),
        )
        raise _refusal(header, found, code)
    if header.one("Modality") != "MG":
        raise _refusal(header, "a Modality (0008,0060) other than MG", "unsupported_modality")
    if header.one("PresentationIntentType") == "FOR PROCESSING":
        raise _refusal(
            header,
            "Presentation Intent Type (0008,0068) FOR PROCESSING (raw detector data)",
            "unsupported_intent",
            "Hand over the For Presentation image of the same exposure.",
        )


def _require_one_plain_image(header: Header) -> None:
    if header.number("NumberOfFrames", 1) != 1:
        raise _refusal(header, "Number of Frames (0028,0008) other than 1", "multi_frame")
    if header.number("SamplesPerPixel", 0) != 1:
        raise _refusal(header, "Samples per Pixel (0028,0002) other than 1", "not_greyscale")
    if header.one("QualityControlImage") == "YES":
        raise _refusal(header, "a quality control image (0028,0300)", "quality_control")
    kinds = [part.upper() for part in header.many("ImageType")]
    # Some devices send a volume as single frames that look like 2D images.
    volume = "VOLUME" in header.many("VolumetricProperties") or header.many("ConcatenationUID")
    if volume or {"TOMO", "TOMOSYNTHESIS"} & set(kinds):
        raise _refusal(header, "a slice of a tomosynthesis volume", "tomosynthesis")
    description = header.text("SeriesDescription").upper()
    if any(_SYNTHETIC.search(text) for text in (*kinds, description)):
        raise _refusal(header, "a 2D image synthesised from tomosynthesis", "synthetic_2d")
    if not header.number("EstimatedRadiographicMagnificationFactor", 1) <= _MAGNIFIED:
        raise _refusal(header, "a magnification view (0018,1114)", "magnification")
    if header.one("BreastImplantPresent") not in ("", "NO"):
        raise _refusal(
            header,
            "Breast Implant Present (0028,1300) other than NO",
            "implant",
            "Breasts with implants are not scored; no bundle says that it was trained on them.",
        )


def _side(header: Header) -> tuple[str | None, list[str]]:
    """Laterality by its three tags, which View Position may not contradict; then by text."""
    tagged = {
        described(keyword): {_laterality(header, keyword, value) for value in values if value}
        for keyword, values in (
            ("ImageLaterality", [header.one("ImageLaterality")]),
            ("FrameLaterality", _frame_lateralities(header)),
            ("Laterality", [header.one("Laterality")]),
        )
    }
    (position_tag, position), *descriptions = _labels(header).items()
    texts = {tag: {label.side} for tag, label in descriptions if label.side}
    tags = {**tagged, position_tag: set(position.sides)}
    witnesses = {
        tag: said for tag, said in (tags if any(tagged.values()) else tags | texts).items() if said
    }
    sides = {side for said in witnesses.values() for side in said}
    if len(sides) > 1:
        raise _refusal(
            header,
            f"{' and '.join(witnesses)} in contradiction about the side",
            "laterality_contradiction",
            "Have the side corrected at the source; this software does not guess it.",
        )
    return next(iter(sides), None), [
        f"{tag} names the other side" for tag, named in texts.items() if named != sides
    ]


def _laterality(header: Header, keyword: str, value: str) -> str:
    if value.upper() in ("B", "BILATERAL"):
        raise _refusal(header, "an image of both breasts", "both_breasts")
    side = _SIDES.get(value.upper())
    if side is None:
        raise _refusal(
            header,
            f"{described(keyword)} that is neither L nor R",
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


def _projection(header: Header) -> tuple[str | None, list[str]]:
    """View by View Code Sequence and View Position; by text where both are silent."""
    coded = {projection_of_code(*code) for code in header.codes("ViewCodeSequence")}
    (position_tag, position), *descriptions = _labels(header).items()
    texts = {tag: label.projection for tag, label in descriptions if label.projection}
    notes = ["View Code Sequence (0054,0220) holds an unknown code"] if None in coded else []
    if position.unread and not position.projections:
        notes.append(f"{position_tag} names no known view")
    known = (coded - {None}) | position.projections
    witnesses = ["View Code Sequence (0054,0220)", position_tag]
    if not known and not notes:
        # A view that a tag names and this software does not know is no other view by text.
        known, witnesses = set(texts.values()), list(texts)
    if len(known) > 1:
        raise _refusal(
            header,
            f"{' and '.join(witnesses)} in contradiction about the view",
            "view_contradiction",
            "Have the view corrected at the source; this software does not guess it.",
        )
    projection = next(iter(known), None)
    return projection, notes + [
        f"{tag} names another view" for tag, named in texts.items() if named != projection
    ]


def _modifiers(header: Header) -> set[str]:
    """Return what makes the view another one, or a weaker one, by code and by text."""
    modifiers = {
        modifier_of_code(*code) or "unknown view modifier"
        for holder in (header, *header.items("ViewCodeSequence"))
        for code in holder.codes("ViewModifierCodeSequence")
    }
    for label in _labels(header).values():
        modifiers |= label.modifiers
    paddle = read_label(f"CC {header.text('PaddleDescription')}")
    return modifiers | (paddle.modifiers & {"spot compression"})


def _require_screening_view(header: Header, projection: str | None, modifiers: set[str]) -> None:
    if projection and projection not in STANDARD:
        raise _refusal(header, f"a view of another kind ({projection})", "unsupported_view")
    for modifier in sorted(modifiers & REFUSED_MODIFIERS.keys()):
        raise _refusal(header, f"a {modifier} view", modifier.replace(" ", "_"))


def _labels(header: Header) -> dict[str, Label]:
    """What each text says, the more trustworthy first; Fuji writes the view into the second."""
    texts = {"ViewPosition": header.one("ViewPosition")}
    texts |= {keyword: header.text(keyword) for keyword in _DESCRIPTIONS}
    return {described(keyword): read_label(text) for keyword, text in texts.items()}


def _polarity(header: Header) -> list[str]:
    """Compare the two attributes that both say what is white, PS3.3 C.8.11.1.1."""
    shape = header.one("PresentationLUTShape")
    photometric = header.one("PhotometricInterpretation")
    if _PHOTOMETRIC.get(shape, photometric) == photometric:
        return []
    ignored, followed = described("PresentationLUTShape"), described("PhotometricInterpretation")
    return [f"{ignored} contradicts {followed}, which is followed"]


def _is_lossy(header: Header, syntax: str) -> bool:
    flag = header.one("LossyImageCompression")
    return flag == "01" or syntax in _ALWAYS_LOSSY or (not flag and syntax in _PERHAPS_LOSSY)


def _acquired(header: Header) -> str:
    """Return when it was acquired as far as its day is known; a time alone says nothing."""
    moments = [header.one("AcquisitionDateTime")]
    for kind in ("Acquisition", "Content"):
        # ACR-NEMA wrote periods into dates and colons into times, PS3.5 section 6.2.
        date, time = header.one(f"{kind}Date"), header.one(f"{kind}Time")
        moments.append(date.replace(".", "") + time.replace(":", "") if date else "")
    return next((moment for moment in moments if re.match(r"\d{8}", moment)), "")
