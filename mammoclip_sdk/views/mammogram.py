"""One DICOM header -> which view it shows, or why it may not be scored; no pixel is decoded.

Only what the choice of a view needs is kept, as plain values: pydicom is left behind here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date

from pydicom import Dataset

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.header import Header, described
from mammoclip_sdk.dicom.identity import identity
from mammoclip_sdk.dicom.shield import shielded
from mammoclip_sdk.dicom.view_codes import IMPLANT_DISPLACED, REFUSED_MODIFIERS, SPECIMEN, STANDARD
from mammoclip_sdk.errors import DicomReadError, UnsupportedImageError
from mammoclip_sdk.exam import PLAIN, Acceptance, Acquisition, View
from mammoclip_sdk.views.acquisition import (
    PARTIAL,
    Moment,
    acquired,
    acquisition_day,
    is_lossy,
    is_synthetic,
    read_acquisition,
    require_accepted,
)
from mammoclip_sdk.views.tags import ViewTags, read_view_tags, refusal

_OTHER_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1.2.1": (
        "a For Processing mammogram (raw detector data)",
        "unsupported_intent",
    ),
    "1.2.840.10008.5.1.4.1.1.13.1.3": ("a tomosynthesis volume", "tomosynthesis"),
    "1.2.840.10008.5.1.4.1.1.13.1.4": ("tomosynthesis projections", "tomosynthesis_projections"),
    "1.2.840.10008.5.1.4.1.1.13.1.5": ("tomosynthesis projections", "tomosynthesis_projections"),
    "1.2.840.10008.5.1.4.1.1.7": ("a Secondary Capture", "secondary_capture"),
    **{
        f"1.2.840.10008.5.1.4.1.1.7.{kind}": ("a Secondary Capture", "secondary_capture")
        for kind in range(1, 5)
    },
    "1.2.840.10008.5.1.4.1.1.1": ("a Computed Radiography image", "unsupported_sop_class"),
    "1.2.840.10008.5.1.4.1.1.1.1": ("a Digital X-Ray image", "unsupported_sop_class"),
    "1.2.840.10008.5.1.4.1.1.2": ("a CT image", "unsupported_sop_class"),
}
_CONTRAST = "a contrast-enhanced mammogram"
_OTHER_PURPOSES = (
    (re.compile(r"SPECIMEN"), "an image of a specimen", "specimen"),
    (
        re.compile(
            r"STEREO|NEEDLE|WIRE[ _-]?LOC"
            r"|(?<!POST[ _-])(?<!S/P[ _])(?<!AFTER[ _])(?<!(?<![A-Z])NO[ _])BIOPSY"
        ),
        "an image taken for a biopsy",
        "biopsy",
    ),
    (
        re.compile(r"PHANTOM|(?<![A-Z])QC(?![A-Z])|QUALITY[ _]CONTROL|FLAT[ _]?FIELD"),
        "a quality control image",
        "quality_control",
    ),
    (
        re.compile(
            r"(?<![A-Z])(?:CESM|CEDM|CEM|TICEM|CE-?2D|I-VIEW)(?![A-Z])|CONTRAST[ _-]ENHANCED"
            r"|SENOBRIGHT|RECOMB|SUBTRACT|(?:LOW|HIGH|DUAL)[ _-]ENERGY|(?<![A-Z])DE[ _-]SUB"
        ),
        _CONTRAST,
        "contrast_enhanced",
    ),
)
"""By words in Image Type and in the texts about the image."""
_TEXTS = (
    "ViewPosition",
    "AcquisitionDeviceProcessingDescription",
    "SeriesDescription",
    "PaddleDescription",
)
_MAGNIFIED = 1.2  # a contact view is magnified at most 1.1 times, a magnification view 1.5 or more
_PHOTOMETRIC = {"INVERSE": "MONOCHROME1", "IDENTITY": "MONOCHROME2"}
"""By Presentation LUT Shape."""


@dataclass(frozen=True, kw_only=True)
class Mammogram:
    """What a header says that matters to the choice of four views."""

    side: str | None
    projection: str | None
    """``L`` or ``R``, ``CC`` or ``MLO``; None where no tag and no text says it."""
    by_text: bool
    """Whether a free text alone says one of them."""
    sop_instance_uid: str
    patient: str = field(repr=False)
    birth_date: str = field(repr=False)
    """Compared between images, and never shown; nor is the patient."""
    study: str = field(repr=False)
    """Study Instance UID (0020,000D)."""
    acquisition: Acquisition
    lossy: bool
    acquired: Moment
    acquisition_day: date | None
    area: int
    """Rows times columns."""
    instance_number: int
    identity: str = field(repr=False)
    """As from `dicom.identity`."""
    notes: tuple[str, ...]

    @property
    def view(self) -> View | None:
        """The view, when both its side and its projection are known."""
        return View(self.side + self.projection) if self.side and self.projection else None

    @property
    def demoting(self) -> tuple[str, ...]:
        """Modifiers for which a plainer image of the same view would be preferred."""
        others = (PARTIAL, IMPLANT_DISPLACED)  # preferences of their own
        return tuple(word for word in self.acquisition.modifiers if word not in others)


def read_mammogram(dataset: Dataset, *, name: str, acceptance: Acceptance = PLAIN) -> Mammogram:
    """Judge one header.

    Raises
    ------
    UnsupportedImageError
        Not a single-frame, one-sample For Presentation mammogram of one breast in a CC or MLO
        view, of a kind that is not accepted, or its tags contradict each other about side or
        view. ``code`` says which.
    DicomReadError
        A value does not parse, is not the only one where there may be one, or an instance or
        study without identity: two files could be exchanged, or two women's views be mixed.
    """
    syntax = gate.transfer_syntax(dataset, name=name)
    with shielded(name):
        header = Header(dataset, name=name)
        _require_presentation(header)
        _require_one_plain_image(header)
        _require_no_other_purpose(header)
        tags = read_view_tags(header)
        _require_screening_view(header, tags)
        lossy = is_lossy(header, syntax)
        acquisition = read_acquisition(header, tags.modifiers, lossy=lossy)
        require_accepted(acquisition, acceptance, name=name)
        notes = [*tags.notes, *_polarity(header), *_rawness(header), *_weaknesses(acquisition)]
        notes += ["lossy compressed"] if lossy else []
        return Mammogram(
            side=tags.side,
            projection=tags.projection,
            by_text=tags.by_text,
            sop_instance_uid=header.required("SOPInstanceUID"),
            patient=header.text("PatientID"),
            birth_date=header.one("PatientBirthDate").replace(".", ""),
            study=header.required("StudyInstanceUID"),
            acquisition=acquisition,
            lossy=lossy,
            acquired=acquired(header),
            acquisition_day=acquisition_day(header),
            area=int(header.number("Rows", 0) * header.number("Columns", 0)),
            instance_number=int(header.number("InstanceNumber", 0)),
            identity=identity(header),
            notes=tuple(f"{name}: {note}" for note in notes),
        )


def require_view(mammogram: Mammogram, *, name: str) -> None:
    """Refuse an image that does not say which view it is; only a caller can, by a mapping.

    Raises
    ------
    UnsupportedImageError
    """
    if mammogram.view is None:
        raise UnsupportedImageError(
            name,
            found="no tag or text that names both a side and a known view",
            expected="Image Laterality (0020,0062) and View Code Sequence (0054,0220)",
            remedy='Say which view it is: {"LCC": ..., "RCC": ..., "LMLO": ..., "RMLO": ...}.',
            code="unknown_view",
        )


def study_of(dataset: Dataset, *, name: str) -> str | None:
    """Return the Study Instance UID of any object, or None where it has no readable one."""
    try:
        with shielded(name):
            return Header(dataset, name=name).one("StudyInstanceUID") or None
    except DicomReadError:
        return None


def _require_presentation(header: Header) -> None:
    sop_class = header.one("SOPClassUID")
    if sop_class != gate.FOR_PRESENTATION:
        found, code = _OTHER_CLASSES.get(
            sop_class,
            ("another kind of object (SOP Class UID (0008,0016))", "unsupported_sop_class"),
        )
        raise refusal(header, found, code)
    if header.one("Modality") != "MG":
        raise refusal(header, "a Modality (0008,0060) other than MG", "unsupported_modality")
    if header.one("PresentationIntentType") == "FOR PROCESSING":
        raise refusal(
            header,
            "Presentation Intent Type (0008,0068) FOR PROCESSING (raw detector data)",
            "unsupported_intent",
            "Hand over the For Presentation image of the same exposure.",
        )


def _require_one_plain_image(header: Header) -> None:
    if header.number("NumberOfFrames", 1) != 1:
        raise refusal(header, "Number of Frames (0028,0008) other than 1", "multi_frame")
    if header.number("SamplesPerPixel", 0) != 1:
        raise refusal(header, "Samples per Pixel (0028,0002) other than 1", "not_greyscale")
    # Some devices send a volume as single frames that look like 2D images.
    volume = "VOLUME" in header.many("VolumetricProperties") or header.many("ConcatenationUID")
    kinds = {kind.upper() for kind in header.many("ImageType")}
    slices = any(kind.startswith("TOMO") and kind != "TOMO_2D" for kind in kinds)
    if volume or (slices and not is_synthetic(header)):
        raise refusal(header, "a slice of a tomosynthesis volume", "tomosynthesis_slice")


def _require_no_other_purpose(header: Header) -> None:
    if header.one("QualityControlImage") not in ("", "NO"):
        raise refusal(header, "a quality control image (0028,0300)", "quality_control")
    if header.items("SpecimenDescriptionSequence"):
        raise refusal(header, "an image of a specimen (0040,0560)", "specimen")
    agent = header.text("ContrastBolusAgent").upper() not in ("", "NONE", "NO")
    if agent or header.items("ContrastBolusAgentSequence"):
        raise refusal(header, _CONTRAST, "contrast_enhanced")
    texts = [*header.many("ImageType"), *(header.text(keyword) for keyword in _TEXTS)]
    for words, found, code in _OTHER_PURPOSES:
        if any(words.search(text.upper()) for text in texts):
            raise refusal(header, found, code)


def _require_screening_view(header: Header, tags: ViewTags) -> None:
    if tags.projection == SPECIMEN:
        raise refusal(header, "an image of a specimen", "specimen")
    if tags.projection and tags.projection not in STANDARD:
        raise refusal(header, f"a view of another kind ({tags.projection})", "unsupported_view")
    for modifier in sorted(tags.modifiers & REFUSED_MODIFIERS.keys()):
        raise refusal(header, f"a {modifier} view", modifier.replace(" ", "_"))
    if not 0 < header.number("EstimatedRadiographicMagnificationFactor", 1) <= _MAGNIFIED:
        raise refusal(header, "a magnification view (0018,1114)", "magnification")


def _weaknesses(acquisition: Acquisition) -> list[str]:
    notes = []
    if acquisition.modifiers:
        notes.append(f"not a plain view ({', '.join(acquisition.modifiers)})")
    if acquisition.synthetic_2d:
        notes.append("synthesised from tomosynthesis")
    return notes


def _polarity(header: Header) -> list[str]:
    """Compare the two attributes that both say what is white, PS3.3 C.8.11.1.1."""
    shape = header.one("PresentationLUTShape")
    photometric = header.one("PhotometricInterpretation")
    if _PHOTOMETRIC.get(shape, photometric) == photometric:
        return []
    ignored, followed = described("PresentationLUTShape"), described("PhotometricInterpretation")
    return [f"{ignored} contradicts {followed}, which is followed"]


def _rawness(header: Header) -> list[str]:
    """Tell what a For Presentation image should not have, PS3.3 C.8.11.3."""
    if header.one("PixelIntensityRelationship").upper() != "LIN":
        return []
    return [f"{described('PixelIntensityRelationship')} is LIN, as of raw detector data"]
