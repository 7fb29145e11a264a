"""Phantom views as the DICOM objects that mammography systems of different makers write.

A phantom view is what the reader of the image should see: 0 is air, 1 the brightest value. What
is stored is the inverse of the display that a profile's header asks for, so that whoever follows
the header sees the phantom again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from mammoclip_sdk.exam import VIEWS, View
from training.stored_values import LEVELS, stored_values
from training.vendor_profiles import PROFILES, VendorProfile

__all__ = ["PROFILES", "ExamIdentity", "VendorProfile", "to_dataset"]

_IMPLEMENTATION_UID = UID("2.25.226851744117104839205173930528340197")


@dataclass(frozen=True, kw_only=True)
class ExamIdentity:
    """Patient, study and instance identifiers of one phantom exam; nobody's."""

    patient_id: str
    patient_name: str
    birth_date: str
    study_uid: str
    study_date: str
    study_time: str
    accession_number: str
    series_uids: Mapping[View, str]
    instance_uids: Mapping[View, str]

    @classmethod
    def derive(cls, seed: int, exam: int) -> ExamIdentity:
        """Return the identity that the generator's seed and the exam's number always give."""
        digest = _digest(seed, exam, "date")
        return cls(
            patient_id=f"PHANTOM-{seed}-{exam:04d}",
            patient_name=f"PHANTOM^{exam:04d}",
            birth_date=f"{1945 + digest[0] % 35}{1 + digest[1] % 12:02d}{1 + digest[2] % 28:02d}",
            study_uid=_uid(seed, exam, "study"),
            study_date=f"{2020 + digest[3] % 6}{1 + digest[4] % 12:02d}{1 + digest[5] % 28:02d}",
            study_time=f"{8 + digest[6] % 9:02d}{digest[7] % 60:02d}{digest[8] % 50:02d}",
            accession_number=f"P{digest[9:14].hex().upper()}",
            series_uids={view: _uid(seed, exam, f"series {view}") for view in VIEWS},
            instance_uids={view: _uid(seed, exam, f"instance {view}") for view in VIEWS},
        )


def _digest(seed: int, exam: int, what: str) -> bytes:
    return hashlib.sha256(f"mammoclip phantom {seed} {exam} {what}".encode()).digest()


def _uid(seed: int, exam: int, what: str) -> str:
    """Return a UID under the root for UUIDs, PS3.5 B.2, that depends on the arguments alone."""
    return f"2.25.{int.from_bytes(_digest(seed, exam, what)[:15])}"


def to_dataset(
    displayed: NDArray[np.float32],
    *,
    view: View,
    profile: VendorProfile,
    identity: ExamIdentity,
    pixel_spacing: float,
    rng: np.random.Generator,
) -> Dataset:
    """Return a Digital Mammography X-Ray image, For Presentation, with native pixels.

    Parameters
    ----------
    displayed
        (rows, columns) float32, 0 (air) to 1; a left breast's chest wall at the left edge, a
        right breast's at the right edge.
    pixel_spacing
        Of the detector, mm.
    rng
        Draws the noise of air where the profile has a padding range, and nothing else.

    Raises
    ------
    ValueError
        If ``displayed`` is not such an array.
    """
    if displayed.ndim != 2 or not (displayed.min() >= 0 and displayed.max() <= 1):
        raise ValueError(
            f"displayed: found shape {displayed.shape}, expected (rows, columns) of 0 to 1"
        )
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    _identify(dataset, view, profile, identity)
    _describe_acquisition(dataset, displayed.shape, view, profile, pixel_spacing)
    _tag_view(dataset, view, profile)
    _describe_display(dataset, profile)
    _set_pixels(dataset, displayed, profile, rng)
    meta = dataset.file_meta
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    meta.ImplementationVersionName = "MAMMOCLIP_PH_1"
    return dataset


def _identify(dataset: Dataset, view: View, profile: VendorProfile, identity: ExamIdentity) -> None:
    number = VIEWS.index(view) + 1
    time = f"{int(identity.study_time) + number:06d}"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["DERIVED", "PRIMARY", ""]
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = identity.instance_uids[view]
    dataset.StudyInstanceUID = identity.study_uid
    dataset.SeriesInstanceUID = identity.series_uids[view]
    dataset.StudyDate = dataset.SeriesDate = identity.study_date
    dataset.AcquisitionDate = dataset.ContentDate = identity.study_date
    dataset.StudyTime = identity.study_time
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = time
    dataset.AccessionNumber = identity.accession_number
    dataset.Modality = "MG"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Manufacturer = profile.manufacturer
    dataset.ManufacturerModelName = profile.model_name
    dataset.DeviceSerialNumber = "PHANTOM"
    dataset.SoftwareVersions = "1"
    dataset.ReferringPhysicianName = ""
    dataset.PatientName = identity.patient_name
    dataset.PatientID = identity.patient_id
    dataset.PatientBirthDate = identity.birth_date
    dataset.PatientSex = "F"
    dataset.StudyID = "1"
    dataset.SeriesNumber = number
    dataset.InstanceNumber = 1


def _describe_acquisition(
    dataset: Dataset,
    shape: tuple[int, ...],
    view: View,
    profile: VendorProfile,
    pixel_spacing: float,
) -> None:
    rows, columns = shape
    spacing = f"{pixel_spacing:.6g}"
    dataset.BodyPartExamined = "BREAST"
    dataset.AnatomicRegionSequence = [_code("76752008", "SCT", "Breast")]
    dataset.DistanceSourceToDetector = dataset.DistanceSourceToPatient = "660"
    dataset.EstimatedRadiographicMagnificationFactor = "1"
    dataset.FieldOfViewShape = "RECTANGLE"
    dataset.FieldOfViewDimensions = [round(n * pixel_spacing) for n in (rows, columns)]
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.PositionerType = "MAMMOGRAPHIC"
    angle = 45 if view.projection == "MLO" else 0
    dataset.PositionerPrimaryAngle = str(angle if view.laterality == "L" else -angle)
    dataset.DetectorType = "DIRECT"
    dataset.DetectorConfiguration = "AREA"
    dataset.DetectorID = "PHANTOM"
    dataset.FieldOfViewOrigin = ["0", "0"]
    dataset.FieldOfViewRotation = str(profile.field_of_view_rotation)
    dataset.FieldOfViewHorizontalFlip = "NO"
    dataset.BurnedInAnnotation = "NO"
    dataset.QualityControlImage = "NO"
    dataset.BreastImplantPresent = "NO"
    dataset.PartialView = "NO"
    dataset.LossyImageCompression = "00"
    dataset.OrganExposed = "BREAST"
    dataset.AcquisitionContextSequence = []


_VIEW_CODES = {
    "CC": {"sct": "399162004", "srt": "R-10242", "meaning": "cranio-caudal"},
    "MLO": {"sct": "399368009", "srt": "R-10226", "meaning": "medio-lateral oblique"},
}
_ORIENTATIONS = {
    View.LCC: ["A", "R"],
    View.RCC: ["P", "L"],
    View.LMLO: ["A", "FR"],
    View.RMLO: ["P", "FL"],
}
"""Directions of rows and columns, PS3.3 C.7.6.1.1.1, with the chest wall where it naturally is."""


def _tag_view(dataset: Dataset, view: View, profile: VendorProfile) -> None:
    dataset.PatientOrientation = _ORIENTATIONS[view]
    if profile.tagging == "description":
        dataset.Laterality = view.laterality
        dataset.AcquisitionDeviceProcessingDescription = (
            f"{view.laterality} MAMMOGRAPHY,{view.projection}"
        )
        return
    dataset.ImageLaterality = view.laterality
    if profile.tagging != "srt":
        dataset.ViewPosition = view.projection
    if profile.tagging != "text":
        code = _VIEW_CODES[view.projection]
        scheme = profile.tagging.upper()
        item = _code(code[profile.tagging], scheme, code["meaning"])
        item.ViewModifierCodeSequence = []
        dataset.ViewCodeSequence = [item]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def _describe_display(dataset: Dataset, profile: VendorProfile) -> None:
    display = stored_values(profile)
    inverted = profile.photometric == "MONOCHROME1"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if inverted else -1
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    if display.padding is not None:
        vr = "SS" if profile.signed else "US"
        value, limit = display.padding
        dataset.add(DataElement("PixelPaddingValue", vr, value))
        if profile.padding == "range":
            dataset.add(DataElement("PixelPaddingRangeLimit", vr, limit))
    if display.modality_lut is not None:
        item = _lut(display.modality_lut, first=0, depth=16, explanation="LOG")
        # Either representation occurs; converted already, as pydicom would do it value by value.
        values = display.modality_lut.tolist()
        item.add(DataElement("LUTData", "US", values, already_converted=True))
        item.ModalityLUTType = "US"
        dataset.ModalityLUTSequence = [item]
    else:
        dataset.RescaleSlope = f"{profile.slope:g}"
        dataset.RescaleIntercept = f"{profile.intercept:g}"
        dataset.RescaleType = "US"
    if display.windows:
        explanations, centers, widths = zip(*display.windows, strict=True)
        dataset.WindowCenter = [f"{center:g}" for center in centers]
        dataset.WindowWidth = [f"{width:g}" for width in widths]
        if len(display.windows) > 1:
            dataset.WindowCenterWidthExplanation = list(explanations)
        if profile.voi_function != "LINEAR":
            dataset.VOILUTFunction = profile.voi_function
    if display.voi_lut is not None:
        depth = display.voi_lut.size if profile.lut_depth_error else 12
        dataset.VOILUTSequence = [
            _lut(display.voi_lut, first=display.voi_lut_first, depth=depth, explanation="NORMAL")
        ]


def _lut(table: NDArray[np.uint16], *, first: int, depth: int, explanation: str) -> Dataset:
    item = Dataset()
    item.add(DataElement("LUTDescriptor", "US", [table.size, first, depth]))
    item.LUTExplanation = explanation
    item.add(DataElement("LUTData", "OW", table.astype("<u2").tobytes()))
    return item


def _set_pixels(
    dataset: Dataset,
    displayed: NDArray[np.float32],
    profile: VendorProfile,
    rng: np.random.Generator,
) -> None:
    display = stored_values(profile)
    levels = (displayed * np.float32(LEVELS - 1) + np.float32(0.5)).astype(np.uint16)
    stored = display.code_of_level[levels]
    if profile.padding == "range" and display.padding is not None:
        air = levels < display.air_levels
        low, high = sorted(display.padding)
        stored[air] = rng.integers(low, high, np.count_nonzero(air), np.uint16, endpoint=True)
    allocated = 8 if profile.bits_stored == 8 else 16
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = profile.photometric
    dataset.Rows, dataset.Columns = displayed.shape
    dataset.BitsAllocated = allocated
    dataset.BitsStored = profile.bits_stored
    dataset.HighBit = profile.bits_stored - 1
    dataset.PixelRepresentation = int(profile.signed)
    pixels = stored.astype(f"<u{allocated // 8}").tobytes()
    dataset.add(DataElement("PixelData", "OW", pixels + b"\0" * (len(pixels) % 2)))
