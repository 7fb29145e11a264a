"""The head of one data element: its tag, its VR and its length, held against the bytes there are.

PS3.5 section 7.1 lets twelve bytes promise four gigabytes. A length is believed only where the
value ends within the file, and within whatever is around the element.
"""

from __future__ import annotations

import struct

from mammoclip_sdk.dicom.attributes import written
from mammoclip_sdk.errors import DicomReadError

MAX_ELEMENTS = 20_000
"""Most elements, items and fragments, at all levels; a mammogram has a few hundred."""

UNDEFINED_LENGTH = 0xFFFFFFFF
MARKS = 0xFFFE
"""The group of items and delimiters, which have no VR."""
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Those whose length has 32 bits, PS3.5 section 7.1.2."""
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_HEAD = 8  # bytes of tag and length, where the VR is implicit or the length short
_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHI").unpack_from
_long = struct.Struct("<I").unpack_from

RETRIEVE = "Retrieve or export the image again; the file is damaged or incomplete."
"""The remedy for bytes that are not what they should be."""


class MoreNeededError(Exception):
    """The bytes at hand end before the Pixel Data begins; the file itself goes on."""


class HeadReader:
    """Reads the heads of one data set, little endian, and counts them.

    Parameters
    ----------
    source
        The file, or its first bytes.
    size
        How many bytes the file has.
    name
        What messages call it.
    """

    def __init__(self, source: bytes | memoryview, *, size: int, name: str) -> None:
        self._source = source
        self._size = size
        self._name = name
        self._count = 0

    def read(self, at: int, end: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Return tag, VR, length and where the value begins, of an element that ends by ``end``."""
        try:
            if implicit:
                group, number, length = _implicit(self._source, at)
                vr, value = b"", at + _HEAD
            else:
                group, number, vr, length = _explicit(self._source, at)
                value = at + _HEAD
                if group == MARKS:
                    vr, (length,) = b"", _long(self._source, at + 4)
                elif vr in LONG_VRS:
                    (length,) = _long(self._source, value)
                    value += 4
                elif vr not in _SHORT_VRS:
                    raise self._unknown_vr(group << 16 | number)
        except struct.error:
            if len(self._source) < end:
                raise MoreNeededError from None
            raise self._cut_off("an element", end) from None
        tag = group << 16 | number
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise self.fault(
                f"more than {MAX_ELEMENTS} elements, items and fragments",
                "the header and the one frame of a single image",
                "too_many_elements",
                "Leave it out; check that this is not a multi-frame object.",
            )
        if value + (0 if length == UNDEFINED_LENGTH else length) > end:
            raise self._cut_off(written(tag), end)
        return tag, vr, length, value

    def is_implicit(self, at: int, assumed: bool) -> bool:
        """Tell by its first element whether a data set has no VRs; it may have no element."""
        vr = bytes(self._source[at + 4 : at + 6])
        return assumed if len(vr) < 2 else not (vr.isalpha() and vr.isupper())

    def fault(self, found: str, expected: str, code: str, remedy: str = RETRIEVE) -> DicomReadError:
        """Return the error for bytes that are no data set."""
        return DicomReadError(self._name, found=found, expected=expected, remedy=remedy, code=code)

    def _cut_off(self, where: str, end: int) -> DicomReadError:
        if end == self._size:
            return self.fault(f"the end of the file inside {where}", "a whole file", "truncated")
        return self.fault(
            f"{where} longer than the sequence item around it",
            "lengths that fit into one another",
            "element_length",
        )

    def _unknown_vr(self, tag: int) -> DicomReadError:
        return self.fault(
            f"{written(tag)} with a VR that PS3.5 does not have",
            "a known VR; the length of others can be read in two ways",
            "unknown_vr",
        )
