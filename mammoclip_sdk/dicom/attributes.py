"""The attributes of a data set that this software reads, and how many bytes their values may have.

pydicom sees nothing else of a file. What is handed over it converts, which costs far more than the
bytes do; so that there is an allowance for all of them together.
"""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag

MAX_VALUE_BYTES = 8 * 2**10
"""Longest value that is read and is no table of numbers; texts and windows take some hundred."""
MAX_VALUES_BYTES = 512 * 2**10
"""All of these together: pydicom takes seconds, and 300 bytes of memory, for each MB of numbers."""
MAX_LUT_BYTES = 4 * 2**20
"""All LUT Data (0028,3006) that are read; one table has at most 128 KiB."""

PIXEL_DATA = 0x7FE00010
SOP_CLASS = 0x00080016
CHARACTER_SET = 0x00080005

_KEYWORDS = """
SpecificCharacterSet SOPClassUID SOPInstanceUID StudyInstanceUID
PatientID PatientBirthDate Modality PresentationIntentType ImageType InstanceNumber
    PixelIntensityRelationship
ConcatenationUID NumberOfFrames
ConceptNameCodeSequence CurrentRequestedProcedureEvidenceSequence

AcquisitionDate AcquisitionTime AcquisitionDateTime ContentDate ContentTime
    TimezoneOffsetFromUTC
Manufacturer ManufacturerModelName

ImageLaterality Laterality ViewPosition ViewCodeSequence ViewModifierCodeSequence
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PatientOrientation
PaddleDescription SeriesDescription PartialView AcquisitionDeviceProcessingDescription

QualityControlImage SpecimenDescriptionSequence BreastImplantPresent BurnedInAnnotation
ContrastBolusAgent ContrastBolusAgentSequence DerivationDescription
VolumetricProperties EstimatedRadiographicMagnificationFactor
LossyImageCompression LossyImageCompressionRatio

Rows Columns SamplesPerPixel BitsAllocated BitsStored HighBit PixelRepresentation
ImagerPixelSpacing PixelSpacing PixelAspectRatio PhotometricInterpretation PresentationLUTShape
PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept ModalityLUTSequence
VOILUTSequence VOILUTFunction WindowCenter WindowWidth WindowCenterWidthExplanation PixelData
"""  # what and whose; when and by what; which view; what rules it out; the pixels
_OVERLAY_GROUPS = range(0x60000000, 0x60200000, 0x20000)  # 6000 to 601E, PS3.3 C.9.2
_OVERLAY_POSITIONS = [group + 0x0102 for group in _OVERLAY_GROUPS]
_OVERLAY_DATA = [group + 0x3000 for group in _OVERLAY_GROUPS]
LUT_DATA = 0x00283006

READ = {
    number: BaseTag(number)
    for number in [*map(tag_for_keyword, _KEYWORDS.split()), *_OVERLAY_POSITIONS, *_OVERLAY_DATA]
    if number is not None
}
"""The tags this software reads in a data set itself; nothing else of a file reaches pydicom.

By number, each as one object: pydicom's own comparison of tags takes longer than its look-ups.
"""

_BINARY = frozenset({b"", b"OB", b"OW", b"UN", b"US", b"SS"})


class Allowance:
    """The bytes of values that one data set may still hand over."""

    def __init__(self) -> None:
        self._values = MAX_VALUES_BYTES  # that pydicom will convert
        self._tables = MAX_LUT_BYTES

    def covers(self, tag: int, vr: bytes, length: int) -> bool:
        """Take what a value costs; False where that is more than may be."""
        if tag == LUT_DATA and vr in _BINARY:
            self._tables -= length
        elif not (tag & 0x10000 or (tag in _OVERLAY_DATA and vr in _BINARY)):  # never converted
            self._values -= length
            if length > MAX_VALUE_BYTES:
                return False
        return self._values >= 0 and self._tables >= 0


def written(tag: int) -> str:
    """Return a tag as messages write it, such as ``(0028,0010)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
