"""The file meta group of a DICOM Part 10 file, which says how to read what follows it."""

from __future__ import annotations

import struct

from mammoclip_sdk.dicom.element_head import LONG_VRS, RETRIEVE
from mammoclip_sdk.errors import DicomReadError, NotDicomError

CLASS, SYNTAX = 0x0002, 0x0010
"""Numbers in group 0002: Media Storage SOP Class UID, Transfer Syntax UID."""
META_START = 128 + 4
"""Bytes of the preamble and of the ``DICM`` behind it."""


def require_magic(source: bytes, name: str) -> None:
    """Raise `NotDicomError` for bytes that do not begin as PS3.10 section 7.1 says."""
    if source[128:META_START] != b"DICM":
        raise NotDicomError(
            name,
            found="no 'DICM' at byte 128",
            expected="a DICOM Part 10 file",
            remedy="Export the image as a DICOM file, with its preamble and file meta.",
        )


def read_meta(source: bytes, name: str) -> tuple[dict[int, bytes], int]:
    """Return the values of group 0002 and where the data set begins, PS3.10 section 7.1."""
    values: dict[int, bytes] = {}
    at = META_START
    while source[at : at + 2] == b"\x02\x00":
        vr = source[at + 4 : at + 6]
        head, form = (12, "<2xH4xI") if vr in LONG_VRS else (8, "<2xH2xH")
        end, number = at + head, 0
        if end <= len(source):
            number, length = struct.unpack_from(form, source, at)
            end += length
        if end > len(source) or not vr.isalpha():
            found = "a file meta group that is cut off or not explicit little endian"
            raise _error(name, found, "group 0002 as PS3.10 section 7.1 has it")
        if number in values:
            raise _error(name, f"(0002,{number:04X}) twice in the file meta", "it once")
        values[number] = source[at + head : end]
        at = end
    return values, at


def as_uid(value: bytes) -> str:
    """Return a UID without its padding; what is no ASCII becomes what no UID has."""
    return value.rstrip(b"\x00 ").decode("ascii", "replace")


def _error(name: str, found: str, expected: str) -> DicomReadError:
    return DicomReadError(
        name,
        found=found,
        expected=expected,
        remedy=RETRIEVE,
        code="file_meta",
    )
