"""One DICOM header, read by keyword: as many values as were asked for, or an error with the tag.

The standard gives most attributes one value. Where a header has two, none of them is taken: the
first would be a guess, and no error would ever tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_description
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

from mammoclip_sdk.dicom.attributes import READ
from mammoclip_sdk.dicom.shield import AttributeNotListedError, raise_alone
from mammoclip_sdk.errors import DicomReadError

_CODED = frozenset({"AS", "CS", "DA", "DT", "TM", "UI"})
"""VRs of text in the default character set, PS3.5 section 6.1.2."""


class Header:
    """A Dataset and what messages call it; to be used inside ``shielded``.

    Attributes are named by keyword, or by tag where a group repeats. Every method raises
    `DicomReadError` for a value that does not convert, and names the tag, never the value; and
    `AttributeNotListedError`, whose cause is this software, for an attribute outside
    ``attributes.READ``, which would look absent. Items of sequences hold whatever they hold.
    """

    def __init__(self, dataset: Dataset, *, name: str) -> None:
        self._dataset = dataset
        self._is_item = False
        self.name = name

    def values(self, keyword: str | int) -> list[Any]:
        """Return every value as pydicom converts it; none where the attribute is absent or empty.

        Numbers are left as bytes where their VR depends on an attribute that an item lacks.
        """
        tag = self._tag(keyword)
        element = self._dataset.get_item(tag)
        if element is None:
            return []
        if isinstance(element, RawDataElement) and element.VR in _CODED and element.value:
            # As pydicom does it, which takes six times as long.
            items = element.value.decode("latin-1").rstrip(" \0").split("\\")
            if element.VR == "UI":
                items = [item.strip() for item in items]
            return [] if items == [""] else items
        try:
            value = self._dataset[tag].value
        except Exception as exc:  # whatever pydicom's converters happen to raise
            raise_alone(self._unreadable(keyword, exc))
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return list(value)
        return [] if value is None or value in ("", b"") else [value]

    def many(self, keyword: str | int) -> list[str]:
        """Return the values of an attribute that may have several, as text."""
        return ["" if value is None else str(value).strip() for value in self.values(keyword)]

    def text(self, keyword: str) -> str:
        r"""Return free text whole; a backslash in it is no mark between values here."""
        return "\\".join(self.many(keyword))

    def one(self, keyword: str | int) -> str:
        """Return the value of an attribute that has one, or an empty string."""
        return next(iter(self._at_most_one(keyword, self.many(keyword))), "")

    def required(self, keyword: str) -> str:
        """Return the value of an attribute of Type 1, PS3.5 section 7.4.1."""
        value = self.one(keyword)
        if not value:
            raise self.missing(keyword)
        return value

    def numbers(self, keyword: str) -> list[float]:
        """Return the numbers of an attribute that may have several."""
        return [number for number in self.numbers_by_place(keyword) if number is not None]

    def numbers_by_place(self, keyword: str) -> list[float | None]:
        """Return the numbers of an attribute that another one is paired with; None where empty."""
        try:
            return [None if value in (None, "") else float(value) for value in self.values(keyword)]
        except (TypeError, ValueError, OverflowError) as exc:
            raise_alone(self._unreadable(keyword, exc))

    def number(self, keyword: str, default: float) -> float:
        """Return the number of an attribute that has one, or what its absence means."""
        return next(iter(self._at_most_one(keyword, self.numbers(keyword))), default)

    def words(self, keyword: str | int) -> list[int]:
        """Return 16-bit numbers, also where an ambiguous VR (US or SS) left them as bytes."""
        words: list[int] = []
        for value in self.values(keyword):
            if isinstance(value, bytes):
                words += np.frombuffer(value[: len(value) // 2 * 2], dtype="<u2").tolist()
            elif isinstance(value, int) and -(2**15) <= value < 2**16:
                words.append(value)
            else:
                raise self._unreadable(keyword, TypeError())
        return words

    def word(self, keyword: str | int) -> int | None:
        """Return the 16-bit number of an attribute that has one, or None."""
        return next(iter(self._at_most_one(keyword, self.words(keyword))), None)

    def representation(self, keyword: str | int) -> str:
        """Return the VR of an attribute that is there."""
        return str(self._dataset[self._tag(keyword)].VR)

    def items(self, keyword: str) -> list[Header]:
        """Return the items of a sequence."""
        items = self.values(keyword)
        if not all(isinstance(item, Dataset) for item in items):
            raise self._unreadable(keyword, TypeError())
        return [self._item(item) for item in items]

    def codes(self, keyword: str) -> list[tuple[str, str]]:
        """Return Code Value and Coding Scheme Designator of every item, PS3.3 section 8.8."""
        return [item.code() for item in self.items(keyword)]

    def code(self) -> tuple[str, str]:
        """Return Code Value and Coding Scheme Designator, where this is the item of a code."""
        return self.one("CodeValue"), self.one("CodingSchemeDesignator")

    def missing(self, keyword: str) -> DicomReadError:
        """Return the error for an attribute that must be there."""
        return self._error(keyword, "no value of", "a value", "missing_tag")

    def _tag(self, keyword: str | int) -> BaseTag:
        tag, is_read = _looked_up(keyword)
        if not (is_read or self._is_item):
            raise AttributeNotListedError(f"{described(keyword)} is not in attributes.READ")
        return tag

    def _item(self, dataset: Dataset) -> Header:
        item = Header(dataset, name=self.name)
        item._is_item = True
        return item

    def _at_most_one(self, keyword: str | int, values: list[Any]) -> list[Any]:
        if len(values) > 1:
            raise self._error(keyword, f"{len(values)} values of", "one", "value_multiplicity")
        return values

    def _unreadable(self, keyword: str | int, exc: Exception) -> DicomReadError:
        found = f"a value that does not parse ({type(exc).__name__}) in"
        return self._error(keyword, found, "a value of its type", "value_unreadable")

    def _error(self, keyword: str | int, found: str, expected: str, code: str) -> DicomReadError:
        return DicomReadError(
            self.name,
            found=f"{found} {described(keyword)}",
            expected=expected,
            remedy="Have the header corrected at the source, and send the image again.",
            code=code,
        )


@cache
def _looked_up(keyword: str | int) -> tuple[BaseTag, bool]:
    """Return a tag, and whether the gate hands it over."""
    tag = Tag(keyword)
    return READ.get(int(tag), tag), int(tag) in READ


@cache
def described(keyword: str | int) -> str:
    """Return what messages call an attribute, such as ``Rows (0028,0010)``."""
    tag = Tag(keyword)
    return f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"
