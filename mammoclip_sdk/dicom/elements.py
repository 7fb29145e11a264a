"""The elements of a data set, found in its bytes before any parser is trusted with them.

PS3.5 chapter 7 lets a few bytes promise gigabytes, and nest sequences without end. Here nothing is
allocated by a length that was read, and nothing recurses: the structure is walked with a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydicom._dicom_dict import DicomDictionary

from mammoclip_sdk.dicom.attributes import (
    MAX_LUT_BYTES,
    MAX_VALUE_BYTES,
    MAX_VALUES_BYTES,
    PIXEL_DATA,
    READ,
    Allowance,
    written,
)
from mammoclip_sdk.dicom.element_head import MARKS, UNDEFINED_LENGTH, HeadReader, MoreNeededError
from mammoclip_sdk.errors import DicomReadError

MAX_HEADER_BYTES = 16 * 2**20
"""Largest distance of the Pixel Data from the beginning of the file."""
MAX_DEPTH = 16
"""Most sequences inside one another; the deepest of a mammogram lie three deep."""

DELIMITER_BYTES = 8
_SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNTOLD = frozenset({b"", b"UN"})  # VRs that leave it to the dictionary whether these are items
_FRAGMENTED = frozenset({b"OB", b"OW"})
_SEQUENCE_LEVEL, _ITEM_LEVEL, _FRAGMENTS = "sequence", "item", "fragments"


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
    ``too_many_elements``, ``header_too_large``, ``value_too_long``, ``duplicate_tag``,
    ``tag_order``; and `MoreNeededError` where ``source`` is shorter than ``size`` and does not
    suffice.

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
        self, source: bytes | memoryview, *, size: int, name: str, most: int = MAX_HEADER_BYTES
    ) -> None:
        self._heads = HeadReader(source, size=size, name=name)
        self._size, self._held = size, len(source)
        self._most = most
        self._name = name
        self._allowance = Allowance()

    def elements(self, at: int, *, implicit: bool) -> Iterator[Element]:
        """Yield those of ``attributes.READ`` from ``at`` on, the last of them any Pixel Data.

        Whether VRs are explicit is seen by the first element, as every other reader sees it; the
        transfer syntax decides only where there is none.
        """
        size = self._size
        implicit = self._heads.is_implicit(at, implicit)
        seen: set[int] = set()
        while at < size:
            tag, vr, length, at = self._heads.read(at, size, implicit)
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
            if at > self._held:
                raise MoreNeededError
            end = at - DELIMITER_BYTES if undefined else at
            yield Element(tag, vr, begin, end - begin, undefined, implicit)

    def require_none_read(self, *, implicit: bool) -> None:
        """Refuse attributes behind the Pixel Data, where a reader of headers would not see them."""
        for element in self.elements(0, implicit=implicit):
            raise self._heads.fault(
                f"{written(element.tag)} behind the Pixel Data (7FE0,0010)",
                "elements in ascending order, PS3.5 section 7.1",
                "tag_order",
            )

    def fragments_end(self, at: int) -> int:
        """Return where the encapsulated Pixel Data end that begin at ``at``, their delimiter in."""
        level = _Level(_FRAGMENTS, self._size, True, True, None)
        return self._walk(level, at)

    def _walk(self, level: _Level, at: int) -> int:
        """Return where ``level`` ends, everything inside it passed."""
        levels = [level]
        while levels:
            level = levels[-1]
            if at >= level.end and not level.delimited:
                levels.pop()
                continue
            tag, vr, length, at = self._heads.read(at, level.end, level.implicit)
            if tag >> 16 == MARKS:
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
                raise self._heads.fault(
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
        implicit = level.implicit or self._heads.is_implicit(at, level.implicit)
        seen: set[int] | None = None if level.seen is None else set()
        levels.append(_Level(_ITEM_LEVEL, end, undefined, implicit, seen))
        return at

    def _require_first(self, tag: int, seen: set[int]) -> None:
        if tag in seen:
            raise self._heads.fault(f"{written(tag)} twice", "it once", "duplicate_tag")
        seen.add(tag)

    def _charge(self, tag: int, vr: bytes, length: int) -> None:
        if not self._allowance.covers(tag, vr, length):
            raise self._heads.fault(
                f"values that are too long, the last of them {written(tag)}",
                f"{MAX_VALUE_BYTES} bytes each, {MAX_VALUES_BYTES} together, "
                f"{MAX_LUT_BYTES} of tables",
                "value_too_long",
                "Leave it out; no image needs such a header.",
            )

    def _without_length(self, tag: int) -> DicomReadError:
        return self._heads.fault(
            f"{written(tag)} without a length",
            "a length wherever the value is no sequence",
            "undefined_length",
        )

    def _misplaced(self, tag: int) -> DicomReadError:
        return self._heads.fault(
            f"{written(tag)} where it does not belong",
            "sequences of items, each with its own end, PS3.5 section 7.5",
            "sequence_structure",
        )


def header_too_large(name: str) -> DicomReadError:
    """Return the error for Pixel Data that begin too late, or not at all."""
    return DicomReadError(
        name,
        found=f"more than {MAX_HEADER_BYTES // 2**20} MiB before the Pixel Data (7FE0,0010)",
        expected="the header of a single image",
        remedy="Leave it out, or have its private elements removed.",
        code="header_too_large",
    )
