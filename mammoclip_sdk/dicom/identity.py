"""What tells one image from another, so that a file exchanged after it was read is noticed."""

from __future__ import annotations

import hashlib

from mammoclip_sdk.dicom.header import Header

_KEYWORDS = (
    *("SOPInstanceUID", "StudyInstanceUID", "PatientID", "PatientBirthDate"),
    *("ImageLaterality", "Laterality", "ViewPosition", "SeriesDescription"),
    *("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ContentDate", "ContentTime"),
    *("InstanceNumber", "ImageType", "Manufacturer", "ManufacturerModelName"),
    *("Rows", "Columns", "BitsStored", "PhotometricInterpretation"),
)


def identity(header: Header) -> str:
    """Return a digest of whose image it is, which view, when and by what; of no pixel.

    To be called inside ``shielded``: values are converted here.
    """
    values = [header.many(keyword) for keyword in _KEYWORDS]
    told = repr((values, header.codes("ViewCodeSequence")))
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()
