"""The gate: bytes are refused, or become a pydicom Dataset, before any other stage sees them.

The file meta and the structure of the data set are read here and in ``elements``. pydicom is handed
the values of the attributes this software reads, one by one, and never the file: it would inflate
a deflated one without a limit, and allocate by any length it is told.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from mammoclip_sdk import elements
from mammoclip_sdk.elements import Element, MoreNeededError, Scan
from mammoclip_sdk.errors import (
    DicomReadError,
    UnsupportedImageError,
    UnsupportedTransferSyntaxError,
)
from mammoclip_sdk.file_meta import CLASS, META_START, SYNTAX, as_uid, read_meta, require_magic
from mammoclip_sdk.image_limits import require_one_plain_image
from mammoclip_sdk.shield import raise_alone, shielded

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
_LAST_READ = elements.MAX_HEADER_BYTES + 12  # tag, VR and length of Pixel Data at the limit
_RETRIEVE = "Retrieve or export the image again; the file is damaged or incomplete."


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

    The Dataset holds the attributes in ``elements.READ``. An object of another SOP Class is handed
    over as far as it can be read, so that it is refused for what it is.

    Raises
    ------
    NotDicomError
        No ``DICM`` behind the preamble.
    DicomReadError
        Not a readable regular file, larger than `MAX_FILE_BYTES`, damaged, or a structure outside
        the limits of ``elements``.
    UnsupportedImageError
        A DICOMDIR, or an image of several frames or samples.
    UnsupportedTransferSyntaxError
        Not one of `ACCEPTED_SYNTAXES`.
    PixelError
        Rows, Columns or Bits Allocated outside the accepted limits.
    """
    with _opened(path, name) as (file, size):
        return _header(file, size, name)


def read_document_of(path: Path, *, name: str) -> Dataset:
    """Read the header of an object that may have no Pixel Data, such as a rejection note.

    Raises
    ------
    NotDicomError, DicomReadError, UnsupportedImageError, UnsupportedTransferSyntaxError
        As `read_header_of` does, but for what it demands of an image.
    """
    with _opened(path, name) as (file, size):
        found = _find(file, size, name)
        if found.fault is not None:
            raise found.fault
        return _as_pydicom(found, name)


def read_dataset_of(path: Path, *, name: str) -> Dataset:
    """Read what `read_header_of` reads, and the Pixel Data, which are not decoded.

    The value of the Pixel Data is read straight into one bytes object; nothing copies it.

    Raises
    ------
    NotDicomError, DicomReadError, UnsupportedImageError, PixelError
        As `read_header_of` does, and where what is read stands behind the Pixel Data.
    """
    with _opened(path, name) as (file, size):
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


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file of an accepted size; errors of the file system become our own."""
    try:
        with _open(path, name) as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            if not stat.S_ISREG(status.st_mode):  # put there since it was looked at
                raise _not_a_file(name)
            if size == 0:  # those of /proc are empty, and reading them may never end
                require_magic(b"", name)
            if size > MAX_FILE_BYTES:
                require_magic(file.read(META_START), name)
                raise DicomReadError(
                    name,
                    found=f"a file of {size / 2**20:.0f} MiB",
                    expected=f"at most {MAX_FILE_BYTES // 2**20} MiB",
                    remedy="A single mammogram is smaller; check that it is no multi-frame object.",
                    code="file_too_large",
                )
            yield file, size
    except OSError as exc:
        raise_alone(_unreadable(name, exc))  # the other names the path


def _open(path: Path, name: str) -> BinaryIO:
    try:
        if stat.S_ISREG(path.stat().st_mode):
            # A pipe that took the file's place would wait for a writer.
            flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
            return os.fdopen(os.open(path, flags), "rb")
    except ValueError as exc:  # a path that no file system can hold
        raise_alone(_unreadable(name, exc))  # the other names the path
    raise _not_a_file(name)


def _not_a_file(name: str) -> DicomReadError:
    return DicomReadError(
        name,
        found="something that is not a regular file",
        expected="a DICOM file",
        remedy="Name the file itself, not a folder, pipe or device.",
        code="not_a_file",
    )


def _unreadable(name: str, exc: Exception) -> DicomReadError:
    return DicomReadError(
        name,
        found=f"no readable file ({getattr(exc, 'strerror', None) or type(exc).__name__})",
        expected="a DICOM file",
        remedy="Check the path and the permissions.",
        code="file_unreadable",
    )


def _header(file: BinaryIO, size: int, name: str) -> Dataset:
    found = _find(file, size, name)
    if found.fault is None:
        _require_image(found, name)
    return _as_pydicom(found, name)


def _dataset(file: BinaryIO, size: int, name: str) -> Dataset:
    found = _find(file, size, name)
    if found.fault is not None:
        raise found.fault
    pixels = _require_image(found, name)
    length = _fragments_length(file, size, pixels, name) if pixels.undefined else pixels.length
    file.seek(pixels.at)
    data = file.read(length)
    if len(data) != length:
        raise _damaged(name, "a file that grew shorter", "truncated")
    if pixels.undefined:
        file.seek(elements.DELIMITER_BYTES, os.SEEK_CUR)
    tail = file.read(size - file.tell())
    _require_nothing_read(tail, pixels.implicit, name)
    dataset = _as_pydicom(found, name)
    dataset[elements.READ[pixels.tag]] = _raw(pixels, data)
    return dataset


def _fragments_length(file: BinaryIO, size: int, pixels: Element, name: str) -> int:
    """Walk the fragments in bytes that are gone again before the Pixel Data are kept."""
    file.seek(pixels.at)
    rest = file.read(size - pixels.at)
    return Scan(rest, size=len(rest), name=name).fragments_end(0) - elements.DELIMITER_BYTES


def _find(file: BinaryIO, size: int, name: str) -> _Found:
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
        if not more and len(source) < _LAST_READ:
            raise _damaged(name, "a file that grew shorter", "truncated")
        if not more:
            fault = elements.header_too_large(name)
            break
    own_class = found[elements.SOP_CLASS].value(source) if elements.SOP_CLASS in found else b""
    sop_class = as_uid(own_class) or meta_class
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
    pixels = found.elements.get(elements.PIXEL_DATA)
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


def _require_nothing_read(tail: bytes, implicit: bool, name: str) -> None:
    """Refuse attributes behind the Pixel Data, where a reader of headers would not see them."""
    if tail.count(0) == len(tail):  # some archives fill files up to whole blocks
        return
    scan = Scan(tail, size=len(tail), name=name, most=len(tail))
    for element in scan.elements(0, implicit=implicit):
        raise _damaged(
            name,
            f"{elements.written(element.tag)} behind the Pixel Data (7FE0,0010)",
            "tag_order",
            "elements in ascending order, PS3.5 section 7.1",
        )


def _as_pydicom(found: _Found, name: str) -> Dataset:
    """Return the attributes as raw elements, whose values pydicom converts when asked for them."""
    raw: dict[BaseTag, RawDataElement | DataElement] = {
        elements.READ[tag]: _raw(element, element.value(found.source))
        for tag, element in found.elements.items()
        if tag != elements.PIXEL_DATA
    }
    implicit = any(element.implicit for element in found.elements.values())
    charset = found.elements.get(elements.CHARACTER_SET)
    with shielded(name):
        dataset = Dataset(raw)
        encodings = _encodings(b"" if charset is None else charset.value(found.source))
        dataset.set_original_encoding(implicit, True, encodings)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(found.syntax)
    return dataset


def _raw(element: Element, value: bytes) -> RawDataElement:
    # What is written as UN is what the dictionary says, PS3.5 section 6.2.2.
    vr = None if element.vr in (b"", b"UN") else element.vr.decode()
    is_delimited = element.tag == elements.PIXEL_DATA and element.undefined
    length = elements.UNDEFINED_LENGTH if is_delimited else len(value)
    tag = elements.READ[element.tag]
    return RawDataElement(tag, vr, length, value, element.at, element.implicit, True)


def _encodings(value: bytes) -> list[str]:
    """Return what pydicom makes of Specific Character Set (0008,0005)."""
    names = value.decode("ascii", "replace").split("\\")
    return convert_encodings([name.strip(" \0") for name in names])


def _damaged(name: str, found: str, code: str, expected: str = "a whole image") -> DicomReadError:
    return DicomReadError(name, found=found, expected=expected, remedy=_RETRIEVE, code=code)


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
