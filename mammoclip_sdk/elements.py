"""The elements of a data set, found in its bytes before any parser is trusted with them.

PS3.5 chapter 7 lets a few bytes promise gigabytes, and nest sequences without end. Here nothing is
allocated by a length that was read, and nothing recurses: the structure is walked with a list.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag

from mammoclip_sdk.errors import DicomReadError

MAX_HEADER_BYTES = 16 * 2**20
"""Largest distance of the Pixel Data from the beginning of the file."""
MAX_ELEMENTS = 20_000
"""Most elements, items and fragments, at all levels; a mammogram has a few hundred."""
MAX_DEPTH = 16
"""Most sequences inside one another; the deepest of a mammogram lie three deep."""
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
ConcatenationUID NumberOfFrames
ConceptNameCodeSequence CurrentRequestedProcedureEvidenceSequence

AcquisitionDate AcquisitionTime AcquisitionDateTime ContentDate ContentTime
Manufacturer ManufacturerModelName

ImageLaterality Laterality ViewPosition ViewCodeSequence ViewModifierCodeSequence
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PatientOrientation
PaddleDescription SeriesDescription PartialView AcquisitionDeviceProcessingDescription

QualityControlImage SpecimenDescriptionSequence BreastImplantPresent BurnedInAnnotation
ContrastBolusAgent DerivationDescription
VolumetricProperties EstimatedRadiographicMagnificationFactor
LossyImageCompression LossyImageCompressionRatio

Rows Columns SamplesPerPixel BitsAllocated BitsStored HighBit PixelRepresentation
ImagerPixelSpacing PixelSpacing PhotometricInterpretation PresentationLUTShape
PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept ModalityLUTSequence
VOILUTSequence VOILUTFunction WindowCenter WindowWidth WindowCenterWidthExplanation PixelData
"""  # what and whose; when and by what; which view; what rules it out; the pixels
_OVERLAY_GROUPS = range(0x60000000, 0x60200000, 0x20000)  # 6000 to 601E, PS3.3 C.9.2
_OVERLAY_POSITIONS = [group + 0x0102 for group in _OVERLAY_GROUPS]
_OVERLAY_DATA = [group + 0x3000 for group in _OVERLAY_GROUPS]
_LUT_DATA = 0x00283006

READ = {
    number: BaseTag(number)
    for number in [*map(tag_for_keyword, _KEYWORDS.split()), *_OVERLAY_POSITIONS, *_OVERLAY_DATA]
    if number is not None
}
"""The tags this software reads in a data set itself; nothing else of a file reaches pydicom.

By number, each as one object: pydicom's own comparison of tags takes longer than its look-ups.
"""

UNDEFINED_LENGTH = 0xFFFFFFFF
DELIMITER_BYTES = 8
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Those whose length has 32 bits, PS3.5 section 7.1.2."""
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MARKS = 0xFFFE  # the group of these three
_UNTOLD = frozenset({b"", b"UN"})  # VRs that leave it to the dictionary whether these are items
_FRAGMENTED = frozenset({b"OB", b"OW"})
_BINARY = frozenset({b"", b"OB", b"OW", b"UN", b"US", b"SS"})
_HEAD = 8  # bytes of tag and length, where the VR is implicit or the length short
_SEQUENCE_LEVEL, _ITEM_LEVEL, _FRAGMENTS = "sequence", "item", "fragments"

_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHI").unpack_from
_long = struct.Struct("<I").unpack_from

_RETRIEVE = "Retrieve or export the image again; the file is damaged or incomplete."


class MoreNeededError(Exception):
    """The bytes at hand end before the Pixel Data begins; the file itself goes on."""


class Element(NamedTuple):
    """One element of the data set itself, and where its value lies in the bytes."""

    tag: int
    vr: bytes
    """As written; empty where the VR is implicit."""
    at: int
    length: int
    """Without the delimiter of an undefined length; of undefined Pixel Data not known yet."""
    undefined: bool
    implicit: bool

    def value(self, source: bytes) -> bytes:
        """Return the bytes of the value."""
        return source[self.at : self.at + self.length]


class _Level(NamedTuple):
    """A sequence, an item or a row of fragments that the walk is inside."""

    kind: str
    end: int
    delimited: bool
    """Ends with a delimiter, at the latest at ``end``."""
    implicit: bool
    seen: set[int] | None
    """Tags passed so far, where none may come twice."""


class Scan:
    """The structure of one data set, little endian.

    Every method raises `DicomReadError`, whose code is one of ``truncated``, ``element_length``,
    ``unknown_vr``, ``undefined_length``, ``sequence_structure``, ``sequence_depth``,
    ``too_many_elements``, ``header_too_large``, ``value_too_long``, ``duplicate_tag``; and
    `MoreNeededError` where ``source`` is shorter than ``size`` and does not suffice.

    Parameters
    ----------
    source
        The file, or its first bytes.
    size
        How many bytes the file has; every length is held against it.
    most
        Where the last element before the Pixel Data has to end.
    """

    def __init__(
        self, source: bytes, *, size: int, name: str, most: int = MAX_HEADER_BYTES
    ) -> None:
        self._source = source
        self._size = size
        self._most = most
        self._name = name
        self._count = 0
        self._values = 0  # bytes that pydicom will convert
        self._tables = 0

    def elements(self, at: int, *, implicit: bool) -> Iterator[Element]:
        """Yield those of `READ` from ``at`` on, the last of them the Pixel Data if there are any.

        Whether VRs are explicit is seen by the first element, as every other reader sees it; the
        transfer syntax decides only where there is none.
        """
        size, held = self._size, len(self._source)
        implicit = self._is_implicit(at, implicit)
        seen: set[int] = set()
        while at < size:
            tag, vr, length, at = self._head(at, size, implicit)
            undefined = length == UNDEFINED_LENGTH
            if tag == PIXEL_DATA:
                yield Element(tag, vr, at, length, undefined, implicit)
                return
            begin = at
            if undefined and tag in READ and tag not in _SEQUENCES:
                raise self._without_length(tag)
            if undefined or vr == b"SQ" or (tag in _SEQUENCES and vr in _UNTOLD):
                at = self._walk(self._enter(tag, vr, length, at, size, implicit, tag in READ), at)
            else:
                at += length
                if tag in READ:
                    self._charge(tag, vr, length)
            if at > self._most:
                raise header_too_large(self._name)
            if tag not in READ:
                continue
            self._require_first(tag, seen)
            if at > held:
                raise MoreNeededError
            end = at - DELIMITER_BYTES if undefined else at
            yield Element(tag, vr, begin, end - begin, undefined, implicit)

    def fragments_end(self, at: int) -> int:
        """Return where the encapsulated Pixel Data end that begin at ``at``, their delimiter in."""
        level = _Level(_FRAGMENTS, self._size, True, True, None)
        return self._walk(level, at)

    def _head(self, at: int, end: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Return tag, VR, length and where the value begins, of an element that ends by ``end``."""
        try:
            if implicit:
                group, number, length = _implicit(self._source, at)
                vr, value = b"", at + _HEAD
            else:
                group, number, vr, length = _explicit(self._source, at)
                value = at + _HEAD
                if group == _MARKS:
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
            raise self._fault(
                f"more than {MAX_ELEMENTS} elements, items and fragments",
                "the header and the one frame of a single image",
                "too_many_elements",
                "Leave it out; check that this is not a multi-frame object.",
            )
        if value + (0 if length == UNDEFINED_LENGTH else length) > end:
            raise self._cut_off(written(tag), end)
        return tag, vr, length, value

    def _walk(self, level: _Level, at: int) -> int:
        """Return where ``level`` ends, everything inside it passed."""
        levels = [level]
        while levels:
            level = levels[-1]
            if at >= level.end and not level.delimited:
                levels.pop()
                continue
            tag, vr, length, at = self._head(at, level.end, level.implicit)
            if tag >> 16 == _MARKS:
                at = self._pass_mark(levels, tag, length, at)
                continue
            if level.kind != _ITEM_LEVEL:
                raise self._misplaced(tag)
            if level.seen is not None:
                self._require_first(tag, level.seen)
            undefined = length == UNDEFINED_LENGTH
            if not (undefined or vr == b"SQ" or (tag in _SEQUENCES and vr in _UNTOLD)):
                at += length
                if level.seen is not None:
                    self._charge(tag, vr, length)
                continue
            if len(levels) // 2 == MAX_DEPTH:
                raise self._fault(
                    f"sequences more than {MAX_DEPTH} deep, at {written(tag)}",
                    "the header of an image",
                    "sequence_depth",
                    "Leave it out; no image needs such a header.",
                )
            watched = level.seen is not None
            levels.append(self._enter(tag, vr, length, at, level.end, level.implicit, watched))
        return at

    def _enter(
        self, tag: int, vr: bytes, length: int, at: int, end: int, implicit: bool, watched: bool
    ) -> _Level:
        """Return the level that an element opens which is more than a value."""
        undefined = length == UNDEFINED_LENGTH
        kind = _SEQUENCE_LEVEL
        if undefined and vr != b"SQ" and tag not in _SEQUENCES:
            # PS3.5 A.4 for Pixel Data, in an icon too; section 6.2.2 for UN, which hides items.
            if vr in _FRAGMENTED or tag == PIXEL_DATA:
                kind, implicit = _FRAGMENTS, True  # nothing but items and their end
            elif vr not in _UNTOLD:
                raise self._without_length(tag)
        return _Level(
            kind, end if undefined else at + length, undefined, implicit, set() if watched else None
        )

    def _pass_mark(self, levels: list[_Level], tag: int, length: int, at: int) -> int:
        """Enter or leave what an item, or a delimiter, opens or closes; return where to go on."""
        level = levels[-1]
        is_item = level.kind == _ITEM_LEVEL
        if level.delimited and tag == (_ITEM_END if is_item else _SEQUENCE_END):
            levels.pop()
            return at
        undefined = length == UNDEFINED_LENGTH
        if tag != _ITEM or is_item or (undefined and level.kind == _FRAGMENTS):
            raise self._misplaced(tag)
        if level.kind == _FRAGMENTS:
            return at + length
        end = level.end if undefined else at + length
        # Items of an explicit data set may be implicit, PS3.5 section 6.2.2; their tags tell.
        implicit = level.implicit or self._is_implicit(at, level.implicit)
        seen: set[int] | None = None if level.seen is None else set()
        levels.append(_Level(_ITEM_LEVEL, end, undefined, implicit, seen))
        return at

    def _is_implicit(self, at: int, assumed: bool) -> bool:
        vr = self._source[at + 4 : at + 6]
        return assumed if len(vr) < 2 else not (vr.isalpha() and vr.isupper())

    def _require_first(self, tag: int, seen: set[int]) -> None:
        if tag in seen:
            raise self._fault(f"{written(tag)} twice", "it once", "duplicate_tag")
        seen.add(tag)

    def _charge(self, tag: int, vr: bytes, length: int) -> None:
        """Count the bytes of a value that is handed over against what may be."""
        too_long = False
        if tag == _LUT_DATA and vr in _BINARY:
            self._tables += length
        elif not (tag & 0x10000 or (tag in _OVERLAY_DATA and vr in _BINARY)):  # never converted
            self._values += length
            too_long = length > MAX_VALUE_BYTES
        if too_long or self._values > MAX_VALUES_BYTES or self._tables > MAX_LUT_BYTES:
            raise self._fault(
                f"values that are too long, the last of them {written(tag)}",
                f"{MAX_VALUE_BYTES} bytes each, {MAX_VALUES_BYTES} together, "
                f"{MAX_LUT_BYTES} of tables",
                "value_too_long",
                "Leave it out; no image needs such a header.",
            )

    def _cut_off(self, where: str, end: int) -> DicomReadError:
        if end == self._size:
            return self._fault(f"the end of the file inside {where}", "a whole file", "truncated")
        return self._fault(
            f"{where} longer than the sequence item around it",
            "lengths that fit into one another",
            "element_length",
        )

    def _unknown_vr(self, tag: int) -> DicomReadError:
        return self._fault(
            f"{written(tag)} with a VR that PS3.5 does not have",
            "a known VR; the length of others can be read in two ways",
            "unknown_vr",
        )

    def _without_length(self, tag: int) -> DicomReadError:
        return self._fault(
            f"{written(tag)} without a length",
            "a length wherever the value is no sequence",
            "undefined_length",
        )

    def _misplaced(self, tag: int) -> DicomReadError:
        return self._fault(
            f"{written(tag)} where it does not belong",
            "sequences of items, each with its own end, PS3.5 section 7.5",
            "sequence_structure",
        )

    def _fault(
        self, found: str, expected: str, code: str, remedy: str = _RETRIEVE
    ) -> DicomReadError:
        return DicomReadError(self._name, found=found, expected=expected, remedy=remedy, code=code)


def header_too_large(name: str) -> DicomReadError:
    """Return the error for Pixel Data that begin too late, or not at all."""
    return DicomReadError(
        name,
        found=f"more than {MAX_HEADER_BYTES // 2**20} MiB before the Pixel Data (7FE0,0010)",
        expected="the header of a single image",
        remedy="Leave it out, or have its private elements removed.",
        code="header_too_large",
    )


def written(tag: int) -> str:
    """Return a tag as messages write it, such as ``(0028,0010)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
