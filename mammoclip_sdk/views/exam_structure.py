"""An `Exam` that a caller hands over: whether every field is of the kind that its class says.

`views` makes them right; but dataclasses hold whatever they are given, and an exam may have been
through other hands since.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from numbers import Real
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from pydicom import Dataset

from mammoclip_sdk.errors import ExamError
from mammoclip_sdk.exam import Exam


def require_structure(exam: Exam) -> None:
    """Refuse an exam that is none but by its name; what the images hold is not looked at.

    Raises
    ------
    ExamError
        The first field that is of another kind, by its place in the exam, never by its value.
    """
    try:
        found = _misfit(exam, Exam, "exam")
    except Exception as exc:  # whatever a mapping of the caller's happens to raise
        found = f"an exam that cannot be read ({type(exc).__name__})"
    if found is not None:
        raise ExamError(
            "views",
            found=found,
            expected="an Exam as read_exam and archive.scan make it",
            remedy="Read the exam again, and hand it over unchanged.",
        )


def _misfit(value: Any, hint: Any, place: str) -> str | None:
    """Return what is not as its type hint says, the outermost and first."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        of_each = [_misfit(value, one, place) for one in inner]
        return None if None in of_each else of_each[0]
    if not _is_a(value, kind):
        return f"{place} of type {type(value).__name__}"
    if kind is tuple and inner[-1] is not Ellipsis and len(value) != len(inner):
        return f"{place} of {len(value)} values"
    return next(filter(None, (_misfit(*part) for part in _parts(value, kind, inner, place))), None)


def _parts(
    value: Any, kind: Any, inner: tuple[Any, ...], place: str
) -> Iterator[tuple[Any, Any, str]]:
    """Yield what a value is made of, with its type hint and its place."""
    if kind is tuple:
        for number, one in enumerate(value):
            yield one, inner[0] if inner[-1] is Ellipsis else inner[number], f"{place}[{number}]"
    elif issubclass(kind, Mapping):
        for number, (key, one) in enumerate(value.items()):
            yield key, inner[0], f"key {number} of {place}"
            yield one, inner[1], f"{place}[{key}]"
    elif dataclasses.is_dataclass(kind):
        for field, hint in _fields(cast("type", kind)).items():
            yield getattr(value, field), hint, f"{place}.{field}"


def _is_a(value: object, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, Real if kind is float else kind)


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    """Return the type hints of a dataclass's fields; Dataset is not in the module they stand in."""
    return get_type_hints(kind, localns={"Dataset": Dataset})
