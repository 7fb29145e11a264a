"""The gate: bytes are refused, or become a pydicom Dataset, before any other stage sees them.

In order: ``file``, its meta group (``file_meta``), the structure of the data set (``elements``),
what an image must be (``image_limits``), and what of it pydicom is given (``pydicom_dataset``).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from mammoclip_sdk._native import image_memory
from mammoclip_sdk.dicom.attributes import PIXEL_DATA, READ, SOP_CLASS
from mammoclip_sdk.dicom.element_head import RETRIEVE, MoreNeededError
from mammoclip_sdk.dicom.elements import (
    DELIMITER_BYTES,
    MAX_HEADER_BYTES,
    Element,
    Scan,
    header_too_large,
)
from mammoclip_sdk.dicom.file import only_zeros, opened
from mammoclip_sdk.dicom.file_meta import CLASS, SYNTAX, as_uid, read_meta, require_magic
from mammoclip_sdk.dicom.image_limits import require_one_plain_image
from mammoclip_sdk.dicom.pydicom_dataset import raw_element, to_dataset
from mammoclip_sdk.dicom.shield import shielded
from mammoclip_sdk.errors import (
    DicomReadError,
    UnsupportedImageError,
    UnsupportedTransferSyntaxError,
)

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
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"

NATIVE_SYNTAXES = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE})
JPEG_SYNTAXES = frozenset({JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1})
JPEG_LS_SYNTAXES = frozenset({JPEG_LS, JPEG_LS_NEAR})
JPEG_2000_SYNTAXES = frozenset({JPEG_2000_LOSSLESS, JPEG_2000})
HTJ2K_SYNTAXES = frozenset({HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K})
ACCEPTED_SYNTAXES = (
    NATIVE_SYNTAXES | {RLE} | JPEG_SYNTAXES | JPEG_LS_SYNTAXES | JPEG_2000_SYNTAXES | HTJ2K_SYNTAXES
)

_PIXEL_VRS = frozenset({b"", b"OB", b"OW", b"UN"})
_DICOMDIR = "1.2.840.10008.1.3.10"
_FIRST_READ = 64 * 2**10  # bytes; few mammograms have a longer header
_LAST_READ = MAX_HEADER_BYTES + 12  # tag, VR and length of Pixel Data at the limit


class _Found(NamedTuple):
    """What the bytes before the Pixel Data hold."""

    source: bytes
    """From the beginning of the file to the Pixel Data or beyond."""
    syntax: str
    sop_class: str
    """Of the data set, or of the file meta where the data set has none."""
    elements: dict[int, Element]
    fault: DicomReadError | None
    """What ended the search, in an object of another class."""


def read_header_of(path: Path, *, name: str) -> Dataset:
    """Read no more of a file than its header, which may take 16 MiB; ``file_meta`` is set.

    The Dataset holds the attributes in ``attributes.READ``. An object of another SOP Class is
    handed over as far as it can be read, so that it is refused for what it is.

    Raises
    ------
    NotDicomError
        No ``DICM`` behind the preamble.
    DicomReadError
        Not a readable regular file, larger than ``file.MAX_FILE_BYTES``, damaged, or a
        structure outside the limits of ``elements``.
    UnsupportedImageError
        A DICOMDIR, or an image of several frames or samples.
    UnsupportedTransferSyntaxError
        Not one of `ACCEPTED_SYNTAXES`.
    PixelError
        Rows, Columns or Bits Allocated outside the accepted limits.
    """
    with opened(path, name) as (file, size):
        return _header(file, size, name)


def read_document_of(path: Path, *, name: str) -> Dataset:
    """Read the header of an object that may have no Pixel Data, such as a rejection note.

    Raises
    ------
    NotDicomError, DicomReadError, UnsupportedImageError, UnsupportedTransferSyntaxError
        As `read_header_of` does, but for what it demands of an image.
    """
    with opened(path, name) as (file, size):
        found = _find(file, size, name)
        if found.fault is not None:
            raise found.fault
        return _as_dataset(found, name)


def read_dataset_of(path: Path, *, name: str) -> Dataset:
    """Read what `read_header_of` reads, and the Pixel Data, which are not decoded.

    The value of the Pixel Data is a read-only memoryview, read straight into its memory; nothing
    copies it, and a Dataset that holds it cannot be pickled.

    Raises
    ------
    NotDicomError, DicomReadError, UnsupportedImageError, PixelError
        As `read_header_of` does, and where what is read stands behind the Pixel Data.
    """
    with opened(path, name) as (file, size):
        return _dataset(file, size, name)


def read_header(source: bytes, *, name: str) -> Dataset:
    """Do what `read_header_of` does, with the bytes of a whole file."""
    return _header(io.BytesIO(source), len(source), name)


def read_dataset(source: bytes, *, name: str) -> Dataset:
    """Do what `read_dataset_of` does, with the bytes of a whole file."""
    return _dataset(io.BytesIO(source), len(source), name)


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


def _header(file: io.BufferedIOBase, size: int, name: str) -> Dataset:
    found = _find(file, size, name)
    if found.fault is None:
        _require_image(found, name)
    return _as_dataset(found, name)


def _dataset(file: io.BufferedIOBase, size: int, name: str) -> Dataset:
    found = _find(file, size, name)
    if found.fault is not None:
        raise found.fault
    pixels = _require_image(found, name)
    file.seek(pixels.at)
    if pixels.undefined:
        data = _filled(np.empty(size - pixels.at, np.uint8), file, name)
        length = Scan(data.data, size=data.size, name=name).fragments_end(0)
        _require_nothing_read(data[length:], pixels, name)
        data.resize(length - DELIMITER_BYTES, refcheck=False)  # what is behind takes no memory now
    else:
        data = _filled(image_memory(pixels.length), file, name)
        if not only_zeros(file):
            file.seek(pixels.at + pixels.length)
            behind = _filled(np.empty(size - file.tell(), np.uint8), file, name)
            _require_nothing_read(behind, pixels, name)
    dataset = _as_dataset(found, name)
    dataset[READ[pixels.tag]] = raw_element(pixels, data.data.toreadonly())
    return dataset


def _filled(data: NDArray[np.uint8], file: io.BufferedIOBase, name: str) -> NDArray[np.uint8]:
    if file.readinto(data.data) != data.size:
        raise _damaged(name, "a file that grew shorter", "truncated")
    return data


def _require_nothing_read(behind: NDArray[np.uint8], pixels: Element, name: str) -> None:
    if behind.any():  # some archives fill files up to whole blocks
        scan = Scan(behind.data, size=behind.size, name=name, most=behind.size)
        scan.require_none_read(implicit=pixels.implicit)


def _find(file: io.BufferedIOBase, size: int, name: str) -> _Found:
    """Find the attributes that are read, in no more of the file than it takes."""
    source = file.read(_FIRST_READ)
    require_magic(source, name)
    meta, start = read_meta(source, name)
    meta_class, syntax = (as_uid(meta.get(number, b"")) for number in (CLASS, SYNTAX))
    if meta_class == _DICOMDIR:
        raise UnsupportedImageError(
            name,
            found="a DICOMDIR, the index of a medium",
            expected="an image",
            remedy="Hand over the images it lists, or the folder that holds them.",
            code="dicomdir",
        )
    _require_accepted(syntax, name)
    while True:
        found, fault = _elements(source, start, size, syntax, name)
        if not isinstance(fault, MoreNeededError):
            break
        more = file.read(min(16 * len(source), _LAST_READ) - len(source))
        source += more
        if not more:
            if len(source) < _LAST_READ:
                raise _damaged(name, "a file that grew shorter", "truncated")
            fault = header_too_large(name)
            break
    sop_class = as_uid(found[SOP_CLASS].value(source) if SOP_CLASS in found else b"") or meta_class
    if fault is not None and sop_class in ("", FOR_PRESENTATION):
        raise fault
    return _Found(source, syntax, sop_class, found, fault)


def _elements(
    source: bytes, start: int, size: int, syntax: str, name: str
) -> tuple[dict[int, Element], DicomReadError | MoreNeededError | None]:
    """Return what was found, and what ended the search before the Pixel Data did."""
    found: dict[int, Element] = {}
    scan = Scan(source, size=size, name=name)
    try:
        for element in scan.elements(start, implicit=syntax == IMPLICIT_LITTLE):
            found[element.tag] = element
    except (DicomReadError, MoreNeededError) as fault:
        return found, fault
    return found, None


def _require_image(found: _Found, name: str) -> Element:
    """Return the Pixel Data of what may be scored, or of what will be refused for its class."""
    pixels = found.elements.get(PIXEL_DATA)
    is_other = found.sop_class not in ("", FOR_PRESENTATION)
    if pixels is None:
        what = "no Pixel Data (7FE0,0010) before the end of the file"
        raise _damaged(name, what, "no_pixel_data" if is_other else "truncated")
    if is_other:
        return pixels
    require_one_plain_image(found.elements, found.source, name)
    if pixels.undefined == (found.syntax in NATIVE_SYNTAXES) or pixels.vr not in _PIXEL_VRS:
        raise _damaged(
            name,
            "Pixel Data (7FE0,0010) that are not encoded as the transfer syntax says",
            "pixel_encoding",
            "a length where pixels are native, fragments where they are compressed, PS3.5 A.4",
        )
    return pixels


def _as_dataset(found: _Found, name: str) -> Dataset:
    return to_dataset(found.elements, found.source, transfer_syntax=found.syntax, name=name)


def _damaged(name: str, found: str, code: str, expected: str = "a whole image") -> DicomReadError:
    return DicomReadError(name, found=found, expected=expected, remedy=RETRIEVE, code=code)


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
    raise UnsupportedTransferSyntaxError(
        name,
        found=found,
        expected="one of the transfer syntaxes this software decodes",
        remedy="Export the image uncompressed, or as JPEG Lossless, JPEG-LS, JPEG 2000 or RLE.",
    )
