"""The gate: bytes are refused, or become a pydicom Dataset, before any other stage sees them.

The transfer syntax is read from the file meta by a few lines of this module, and pydicom is
handed only the bytes behind it: a deflated file, which pydicom would inflate without a limit, is
refused unopened.
"""

from __future__ import annotations

import io
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset as parse_elements
from pydicom.tag import BaseTag
from pydicom.uid import UID

from mammoclip_sdk.errors import (
    DicomReadError,
    NotDicomError,
    UnsupportedTransferSyntaxError,
)
from mammoclip_sdk.shield import shielded

MAX_FILE_BYTES = 256 * 2**20
"""Largest accepted file; a 4096 x 3328 mammogram of 16 bits has 27 MB of pixels."""

FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
"""SOP Class of the images this software scores."""

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"

NATIVE_SYNTAXES = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE})
JPEG_SYNTAXES = frozenset({JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1})
JPEG_LS_SYNTAXES = frozenset({JPEG_LS, JPEG_LS_NEAR})
JPEG_2000_SYNTAXES = frozenset({JPEG_2000_LOSSLESS, JPEG_2000})
ACCEPTED_SYNTAXES = NATIVE_SYNTAXES | {RLE} | JPEG_SYNTAXES | JPEG_LS_SYNTAXES | JPEG_2000_SYNTAXES

_HTJ2K = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203))
_PREAMBLE_BYTES = 128
_META_START = _PREAMBLE_BYTES + 4  # behind "DICM", PS3.10 section 7.1
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"})
_RETRIEVE = "Retrieve or export the image again; the file is damaged or incomplete."


def read_file(path: Path, *, name: str) -> bytes:
    """Read a DICOM Part 10 file whole.

    Raises
    ------
    NotDicomError
        No ``DICM`` behind the preamble.
    DicomReadError
        Not there, not a regular file, not readable, or larger than `MAX_FILE_BYTES`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DicomReadError(
                name,
                found="something that is not a regular file",
                expected="a DICOM file",
                remedy="Name the file itself, not a folder, pipe or device.",
                code="not_a_file",
            )
        with path.open("rb") as file:
            _require_magic(file.read(_META_START), name)
            file.seek(0)
            content = b"" if status.st_size > MAX_FILE_BYTES else file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a path that no file system can hold
        raise DicomReadError(
            name,
            found=f"no readable file ({getattr(exc, 'strerror', None) or type(exc).__name__})",
            expected="a DICOM file",
            remedy="Check the path and the permissions.",
            code="file_unreadable",
        ) from None
    size = max(status.st_size, len(content))
    if size > MAX_FILE_BYTES:
        raise DicomReadError(
            name,
            found=f"a file of {size / 2**20:.0f} MiB",
            expected=f"at most {MAX_FILE_BYTES // 2**20} MiB",
            remedy="A single mammogram is smaller; check that this is not a multi-frame object.",
            code="file_too_large",
        )
    return content


def read_header(source: bytes, *, name: str) -> Dataset:
    """Parse everything before the pixel data; ``file_meta`` is set.

    Raises
    ------
    NotDicomError, DicomReadError, UnsupportedTransferSyntaxError
    """
    at_pixels = []

    def stop(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        if tag.group == 0x7FE0:
            at_pixels.append(tag)
        return tag.group == 0x7FE0

    header = _parse(source, name, stop)
    if not at_pixels:
        raise _without_pixels(header, name)
    return header


def read_dataset(source: bytes, *, name: str) -> Dataset:
    """Parse the whole file, the Pixel Data included but not decoded.

    Raises
    ------
    NotDicomError, DicomReadError, UnsupportedTransferSyntaxError
    """
    dataset = _parse(source, name, None)
    if "PixelData" not in dataset:
        raise _without_pixels(dataset, name)
    return dataset


def _without_pixels(dataset: Dataset, name: str) -> DicomReadError:
    """Tell what never was an image, such as a report, from an image that is cut off."""
    with shielded(name):
        named = (dataset.file_meta.get("MediaStorageSOPClassUID"), dataset.get("SOPClassUID"))
    classes = {str(uid) for uid in named if uid}
    other = bool(classes) and FOR_PRESENTATION not in classes
    return DicomReadError(
        name,
        found="no Pixel Data (7FE0,0010) before the end of the file",
        expected="an image",
        remedy="Leave it out." if other else _RETRIEVE,
        code="no_pixel_data" if other else "truncated",
    )


def transfer_syntax(dataset: Dataset, *, name: str) -> str:
    """Return the transfer syntax of a Dataset that may not have come through this gate.

    Raises
    ------
    DicomReadError
        There is no file meta, so nobody can say how the pixels are encoded.
    UnsupportedTransferSyntaxError
        It is not one of `ACCEPTED_SYNTAXES`.
    """
    with shielded(name):
        meta = getattr(dataset, "file_meta", None)
        uid = "" if meta is None else str(meta.get("TransferSyntaxUID", ""))
    _require_accepted(uid, name)
    return uid


def _parse(
    source: bytes, name: str, stop: Callable[[BaseTag, str | None, int], bool] | None
) -> Dataset:
    _require_magic(source, name)
    uid, start = _scan_meta(source, name)
    _require_accepted(uid, name)
    with shielded(name):
        meta = FileMetaDataset(parse_elements(io.BytesIO(source[_META_START:start]), False, True))
        meta.TransferSyntaxUID = UID(uid)
        body = io.BytesIO(source)
        body.seek(start)
        dataset = parse_elements(body, uid == IMPLICIT_LITTLE, True, stop_when=stop)
        dataset.file_meta = meta
        # get_item hands over raw elements; iterating the Dataset itself would convert every value.
        for element in map(dataset.get_item, dataset.keys()):
            _require_whole(element, name)
    return dataset


def _require_whole(element: RawDataElement | pydicom.DataElement | None, name: str) -> None:
    """Refuse a value shorter than its length says; pydicom reads on without a word."""
    if not isinstance(element, RawDataElement) or element.length == _UNDEFINED_LENGTH:
        return
    if len(element.value or b"") != element.length:
        raise DicomReadError(
            name,
            found=f"the end of the file inside {element.tag}",
            expected=f"a value of {element.length} bytes",
            remedy=_RETRIEVE,
            code="truncated",
        )


def _require_magic(source: bytes, name: str) -> None:
    if source[_PREAMBLE_BYTES:_META_START] != b"DICM":
        raise NotDicomError(
            name,
            found="no 'DICM' at byte 128",
            expected="a DICOM Part 10 file",
            remedy="Export the image as a DICOM file, with its preamble and file meta.",
        )


def _scan_meta(source: bytes, name: str) -> tuple[str, int]:
    """Return the Transfer Syntax UID and where the dataset begins, PS3.10 section 7.1."""
    found: list[bytes] = []
    at = _META_START
    while source[at : at + 2] == b"\x02\x00":
        vr = source[at + 4 : at + 6]
        head, form = (12, "<8xI") if vr in _LONG_VRS else (8, "<6xH")
        end = at + head
        if end <= len(source):
            end += struct.unpack_from(form, source, at)[0]
        if end > len(source) or not vr.isalpha():
            raise DicomReadError(
                name,
                found="a file meta group that is cut off or not explicit little endian",
                expected="group 0002 as PS3.10 section 7.1 has it",
                remedy=_RETRIEVE,
                code="file_meta",
            )
        if source[at + 2 : at + 4] == b"\x10\x00":
            found.append(source[at + head : end])
        at = end
    if len(found) > 1:
        raise DicomReadError(
            name,
            found=f"Transfer Syntax UID (0002,0010) {len(found)} times",
            expected="it once",
            remedy=_RETRIEVE,
            code="file_meta",
        )
    return (found[0].rstrip(b"\x00 ").decode("ascii", "replace") if found else ""), at


def _require_accepted(uid: str, name: str) -> None:
    if uid in ACCEPTED_SYNTAXES:
        return
    if not uid:
        raise DicomReadError(
            name,
            found="no Transfer Syntax UID (0002,0010)",
            expected="a file meta group that says how the pixels are encoded",
            remedy="Set file_meta.TransferSyntaxUID, or export the image as a DICOM file again.",
            code="no_transfer_syntax",
        )
    with shielded(name):
        registered = UID(uid).name
    found = "a private or unknown transfer syntax" if registered == uid else f"{registered} ({uid})"
    remedy = "Export the image uncompressed, or as JPEG Lossless, JPEG-LS, JPEG 2000 or RLE."
    if uid in _HTJ2K:
        remedy += " HTJ2K decoders hang on damaged data, and need a process that can be killed."
    raise UnsupportedTransferSyntaxError(
        name,
        found=found,
        expected="one of the transfer syntaxes this software decodes",
        remedy=remedy,
    )
