"""DICOM files put together byte by byte, since no toolkit writes what a hostile one holds."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from assurance.corpus import plain_dataset
from mammoclip_sdk.dicom.gate import FOR_PRESENTATION

MAGIC = b"DICM"
PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
LONG_VRS = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
SHORT_VRS = ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH",
             "SL", "SS", "ST", "TM", "UI", "UL", "US")  # fmt: skip
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


@dataclass(frozen=True, kw_only=True)
class File:
    """A file in the making."""

    elements: Mapping[int, bytes]
    """Whole elements by tag, written in the order of the tags, each as it stands."""
    syntax: str = ExplicitVRLittleEndian
    preamble: bytes = bytes(128)

    def having(self, tag: int, element: bytes) -> File:
        """Return it with one element more, or another one."""
        return replace(self, elements={**self.elements, tag: element})

    def in_syntax(self, syntax: str, *fragments: bytes) -> File:
        """Return it with encapsulated pixels."""
        return replace(self.having(PIXEL_DATA, encapsulated(*fragments)), syntax=syntax)

    def sized(self, rows: int, columns: int, bits: int = 12) -> File:
        """Return it with other dimensions and precision in the header."""
        sized = self
        allocated = 8 if bits == 8 else 16
        words = {0x280010: rows, 0x280011: columns, 0x280100: allocated, 0x280101: bits}
        for tag, word in (words | {0x280102: bits - 1}).items():
            sized = sized.having(tag, element(tag, "US", struct.pack("<H", word)))
        return sized

    def content(self) -> bytes:
        """Return the bytes."""
        body = b"".join(content for _, content in sorted(self.elements.items()))
        return self.preamble + MAGIC + file_meta(self.syntax) + body


def plain_file(syntax: str = ExplicitVRLittleEndian) -> File:
    """Return the suspect view with native pixels, in explicit or implicit little endian."""
    elements = {}
    implicit = syntax == ImplicitVRLittleEndian
    for each in plain_dataset():
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, implicit
        write_data_element(stream, each)
        elements[int(each.tag)] = stream.getvalue()
    return File(elements=elements, syntax=syntax)


def file_meta(syntax: str) -> bytes:
    """Return group 0002."""
    values = ((0x20002, FOR_PRESENTATION), (0x20003, "2.25.1"), (0x20010, syntax))
    return b"".join(element(tag, "UI", even(value.encode(), b"\0")) for tag, value in values)


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """Return an explicit little endian element, whose length may lie."""
    said = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    size = struct.pack("<2xI", said) if vr in LONG_VRS else struct.pack("<H", said & 0xFFFF)
    return head + size + value


def bare(tag: int, value: bytes = b"", length: int | None = None) -> bytes:
    """Return an item, a delimiter or an implicit element."""
    said = len(value) if length is None else length
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, said) + value


def encapsulated(*fragments: bytes) -> bytes:
    """Return Pixel Data with an empty offset table and these fragments."""
    items = b"".join(bare(ITEM, even(fragment, b"\0")) for fragment in (b"", *fragments))
    return element(PIXEL_DATA, "OB", items + bare(SEQUENCE_END), UNDEFINED)


def even(value: bytes, filler: bytes = b" ") -> bytes:
    """Return a value padded to an even length, PS3.5 section 7.1.1."""
    return value + filler * (len(value) % 2)
