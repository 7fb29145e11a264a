"""Rejection notes: Key Object Selection documents that take images out of use, IHE RAD IOCM."""

from __future__ import annotations

from pydicom import Dataset

from mammoclip_sdk.dicom.header import Header
from mammoclip_sdk.dicom.shield import shielded

_KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
_REJECTIONS = frozenset({"113001", "113037", "113038", "113039"})
"""PS3.16 CID 7011: for quality, for patient safety, wrong worklist entry, retention expired."""


def is_key_object_selection(dataset: Dataset, *, name: str) -> bool:
    """Whether a header, which may be all that is whole of a file, is that of such a document.

    Raises
    ------
    DicomReadError
        Its SOP Class UID does not parse.
    """
    with shielded(name):
        return Header(dataset, name=name).one("SOPClassUID") == _KEY_OBJECT_SELECTION


def rejected_instances(dataset: Dataset, *, name: str) -> frozenset[str]:
    """Return the SOP Instance UIDs that a document rejects; none if it is no rejection note.

    Raises
    ------
    DicomReadError
        A value of a rejection note does not parse.
    """
    with shielded(name):
        header = Header(dataset, name=name)
        if header.one("SOPClassUID") != _KEY_OBJECT_SELECTION:
            return frozenset()
        titles = header.codes("ConceptNameCodeSequence")
        if not any(scheme == "DCM" and value in _REJECTIONS for value, scheme in titles):
            return frozenset()
        return frozenset(
            instance.required("ReferencedSOPInstanceUID")
            for study in header.items("CurrentRequestedProcedureEvidenceSequence")
            for series in study.items("ReferencedSeriesSequence")
            for instance in series.items("ReferencedSOPSequence")
        )
