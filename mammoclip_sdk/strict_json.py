"""Frozen dataclasses to JSON and back, by their type hints, without a default or a guess.

Reading collects every problem it meets instead of stopping at the first, so that whoever made the
file can mend it in one go. There is no coercion, but that a whole number may stand for a float.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
import types
import typing
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

DEEPEST = 64
"""Arrays and objects within one another, where the types leave the depth open."""
_LISTED = 20
"""Problems that are told one by one: a file of a few megabytes may hold a hundred thousand."""
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, ends a line, or turns the direction of reading."""

T = TypeVar("T")


class _RefusedError(Exception):
    """The value was refused, and the reason is in the list of problems."""


def to_plain(value: object) -> Any:
    """Turn dataclasses, mappings, tuples and enums into what `json` writes; mappings by key."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return value


def one_line(text: str) -> str:
    """Return the text with escapes in place of what could make it look like other text."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def listed(problems: list[str]) -> str:
    """Join problems to one text; of very many, the first and how many more there are."""
    more = len(problems) - _LISTED
    said = problems if more <= 0 else [*problems[:_LISTED], f"and {more} more"]
    return "; ".join(said)


def dumps(value: object) -> str:
    """Write a dataclass as indented JSON; NaN and infinity raise `ValueError`."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False, ensure_ascii=False)


def parse(text: str) -> tuple[object, list[str]]:
    """Read JSON text to plain values.

    Returns
    -------
    The value (None when the text is not JSON at all) and the problems: syntax, keys that occur
    twice in one object, NaN and infinity.
    """
    problems: list[str] = []

    def object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
        counts = Counter(key for key, _ in pairs)
        problems.extend(f"key {key!r} occurs twice" for key, n in counts.items() if n > 1)
        problems.extend(f"key {key!a} is not text" for key in counts if not _encodable(key))
        return dict(pairs)

    def constant(name: str) -> float:
        problems.append(f"{name} is not a number")
        return 0.0

    try:
        return json.loads(text, object_pairs_hook=object_of, parse_constant=constant), problems
    except (ValueError, RecursionError) as error:
        return None, [*problems, f"not JSON: {error}"]


def from_plain(kind: type[T], value: object, problems: list[str], where: str = "") -> T | None:
    """Build the dataclass ``kind`` from plain JSON values.

    Every problem is added to ``problems`` with the place it was found at, such as
    ``findings[0].logit_scale``; None is returned if there was one.
    """
    before = len(problems)
    try:
        result = _read(kind, value, where, problems)
    except _RefusedError:
        return None
    return typing.cast("T", result) if len(problems) == before else None


def _read(kind: Any, value: object, where: str, problems: list[str]) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where, problems)
    if origin in (types.UnionType, typing.Union):
        return _read_union(arguments, value, where, problems)
    if origin is tuple:
        return _read_tuple(arguments, value, where, problems)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _refuse(where, value, "an object", problems)
        return {
            key: _read(arguments[1], item, f"{where}.{key}", problems)
            for key, item in value.items()
        }
    if kind is object:
        return _read_anything(value, where, problems)
    return _read_scalar(kind, value, where, problems)


def _read_dataclass(kind: Any, value: object, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        raise _refuse(where, value, "an object", problems)
    hints = typing.get_type_hints(kind)
    place = f"{where}." if where else ""
    problems.extend(f"{place}{key}: unknown key" for key in value if key not in hints)
    problems.extend(f"{place}{key}: missing" for key in hints if key not in value)
    read = {}
    for key, hint in hints.items():
        if key in value:
            try:
                read[key] = _read(hint, value[key], f"{place}{key}", problems)
            except _RefusedError:
                continue  # noted; the rest is still worth checking
    if len(read) < len(hints):
        raise _RefusedError
    return kind(**read)


def _read_union(kinds: tuple[Any, ...], value: object, where: str, problems: list[str]) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
    if len(kinds) == 1:
        return _read(kinds[0], value, where, problems)
    for kind in kinds:
        try:
            return _read(kind, value, where, [])
        except _RefusedError:
            continue
    raise _refuse(where, value, " or ".join(kind.__name__ for kind in kinds), problems)


def _read_tuple(kinds: tuple[Any, ...], value: object, where: str, problems: list[str]) -> Any:
    if not isinstance(value, list):
        raise _refuse(where, value, "an array", problems)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _refuse(where, value, f"an array of {len(kinds)}", problems)
    pairs = zip(kinds, value, strict=True)
    return tuple(
        _read(kind, item, f"{where}[{i}]", problems) for i, (kind, item) in enumerate(pairs)
    )


def _read_anything(value: object, where: str, problems: list[str], depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise _refuse(where[:60], value, f"at most {DEEPEST} within one another", problems)
    if isinstance(value, dict):
        return {
            key: _read_anything(item, f"{where}.{key}", problems, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _read_anything(item, f"{where}[{i}]", problems, depth + 1)
            for i, item in enumerate(value)
        ]
    if value is None:
        return None
    return _read_scalar(type(value), value, where, problems)


def _read_scalar(kind: Any, value: object, where: str, problems: list[str]) -> Any:
    if kind is float and type(value) in (int, float):
        number = _as_float(value)
        if not math.isfinite(number):
            raise _refuse(where, value, "a finite number", problems)
        return number
    if type(value) is not kind:  # bool is a subclass of int, and must not pass for one
        raise _refuse(where, value, kind.__name__, problems)
    if isinstance(value, str) and not _encodable(value):
        raise _refuse(where, value, "text that UTF-8 can hold", problems)
    return value


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _refuse(where: str, value: object, expected: str, problems: list[str]) -> _RefusedError:
    names = {dict: "an object", list: "an array", type(None): "null"}
    found = names.get(type(value)) or ascii(value)[:60]
    problems.append(f"{where or 'top level'}: {found} instead of {expected}")
    return _RefusedError()
