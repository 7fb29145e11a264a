"""Values that stand for a patient's own, and may turn up in no message of any kind."""

from __future__ import annotations

from pydicom import Dataset

NAME = "Canary^Yellow"
WORD = "CANARY"
DIGITS = "19270731"
"""A date of birth, and what stands in numeric attributes: in no other value of a test file."""

_TEXTS = (
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "PatientAddress",
    "PatientComments",
    "ImageComments",
    "AdditionalPatientHistory",
    "StudyDescription",
    "ProtocolName",
    "StudyID",
    "RequestedProcedureDescription",
)
_NAMES = ("PatientName", "ReferringPhysicianName", "OperatorsName", "PatientMotherBirthName")
_NUMBERS = ("PatientWeight", "PatientSize")


def mark(dataset: Dataset) -> None:
    """Put canaries wherever a header may tell who somebody is."""
    for keyword in _NAMES:
        setattr(dataset, keyword, NAME)
    for keyword in _TEXTS:
        setattr(dataset, keyword, f"{WORD} {len(keyword)}"[:16])
    for keyword in _NUMBERS:
        setattr(dataset, keyword, DIGITS)
    dataset.PatientBirthDate = DIGITS


def leaked(text: str) -> str:
    """Return the first canary that a text holds, in capitals; nothing where there is none."""
    capitals = text.upper()
    return next((canary for canary in (WORD, DIGITS) if canary in capitals), "")
