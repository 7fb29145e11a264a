"""Ways to damage a DICOM file, each drawn from a generator, so that a seed gives them again."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.uid import ImplicitVRLittleEndian

from assurance.corpus import Seed

_META_AT = 132
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"})
_VRS = (*_LONG, *b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST SV TM UI UL US UV ??".split())
_LENGTHS = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFE, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF,
            0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
_VALUES = (
    *b"NaN 1e308 -1e-320 inf - 0 65535 -1 1e99999 R L MLO MONOCHROME1 CANARY 19270731".split(),
    *(b"\\", b"\\\\\\\\", b"\xff", b"\x00", b"\x1b$B"),
    *(b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.4.90"),
)
_ITEMS = 0xFFFE
_REPEATED = (b"\x08\x00\x70\x00", b"\x08\x00\x90\x10")
"""Manufacturer (0008,0070) and its model: what a warning may name, so that no canary goes there."""


@dataclass(frozen=True, kw_only=True)
class _Element:
    at: int
    explicit: bool
    length_at: int
    length_bytes: int
    value_at: int
    end: int


def damage(seed: Seed, others: Sequence[Seed], rng: np.random.Generator) -> bytes:
    """Return a damaged copy: mostly one change, to the header, to the frame or to the file."""
    where = rng.choice(("header", "frame", "file"), p=(0.45, 0.45, 0.1))
    changes = int(rng.geometric(0.5))
    if where == "header":
        return _damaged_header(seed, changes, rng)
    if where == "frame":
        return _damaged_frame(seed, others, changes, rng)
    content = bytearray(seed.content)
    for _ in range(changes):
        _change_bytes(content, others, rng)
    return bytes(content)


def _damaged_header(seed: Seed, changes: int, rng: np.random.Generator) -> bytes:
    """Change elements from the last to the first, so that their places stay true."""
    content, elements = bytearray(seed.content), _elements(seed)
    places = sorted(rng.integers(len(elements), size=changes).tolist(), reverse=True)
    for place in places:
        change = _OF_ELEMENTS[rng.integers(len(_OF_ELEMENTS))]
        change(content, elements[place], rng)
    return bytes(content)


def _damaged_frame(
    seed: Seed, others: Sequence[Seed], changes: int, rng: np.random.Generator
) -> bytes:
    """Change the frame and, as a rule, mend the lengths around it: a decoder is to see it."""
    frame = bytearray(seed.frame)
    for _ in range(changes):
        if rng.random() < 0.4:
            _marker(frame, rng)
        else:
            _change_bytes(frame, others, rng)
        if not frame:
            break
    return seed.with_frame(bytes(frame), mended=bool(rng.random() < 0.9))


def _change_bytes(content: bytearray, others: Sequence[Seed], rng: np.random.Generator) -> None:
    if not content:
        return
    if rng.random() < 0.15:
        _splice(content, others[rng.integers(len(others))].frame, rng)
    else:
        _OF_BYTES[rng.integers(len(_OF_BYTES))](content, rng)


def _elements(seed: Seed) -> list[_Element]:
    """List the elements of the header, those inside sequences included, in one pass."""
    content, at, found = seed.content, _META_AT, []
    implicit = seed.syntax == ImplicitVRLittleEndian
    while at + 8 <= seed.frame_at:
        group, number = struct.unpack_from("<HH", content, at)
        vr = content[at + 4 : at + 6]
        explicit = group != _ITEMS and not (implicit and group != 2)
        if explicit and vr not in _LONG:
            length_at, length_bytes = at + 6, 2
        else:
            length_at, length_bytes = at + (8 if explicit else 4), 4
        length = int.from_bytes(content[length_at : length_at + length_bytes], "little")
        value_at = length_at + length_bytes
        inside = group == _ITEMS or _is_sequence(group, number, vr if explicit else None)
        end = value_at if inside else value_at + length
        found.append(
            _Element(
                at=at,
                explicit=explicit,
                length_at=length_at,
                length_bytes=length_bytes,
                value_at=value_at,
                end=end,
            )
        )
        at = end
    return found


def _is_sequence(group: int, number: int, vr: bytes | None) -> bool:
    if vr is not None:
        return vr == b"SQ"
    try:
        return dictionary_VR((group, number)) == "SQ"
    except KeyError:  # private, or a group length
        return False


def _length(content: bytearray, element: _Element, rng: np.random.Generator) -> None:
    length = int(rng.choice(_LENGTHS)) if rng.random() < 0.7 else int(rng.integers(2**16))
    size = element.length_bytes
    content[element.length_at : element.length_at + size] = (
        length & (2 ** (8 * size) - 1)
    ).to_bytes(size, "little")


def _tag(content: bytearray, element: _Element, rng: np.random.Generator) -> None:
    known = (0x00280010, 0x00280011, 0x00281050, 0x00283010, 0x7FE00010, 0xFFFEE000, 0xFFFEE00D,
             0xFFFEE0DD, 0x00020010, 0x00080005, 0x00540220, 0x52009229, 0x00100010)  # fmt: skip
    tag = int(rng.choice(known)) if rng.random() < 0.6 else int(rng.integers(2**32))
    content[element.at : element.at + 4] = struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def _representation(content: bytearray, element: _Element, rng: np.random.Generator) -> None:
    if element.explicit:
        content[element.at + 4 : element.at + 6] = _VRS[rng.integers(len(_VRS))]


def _value(content: bytearray, element: _Element, rng: np.random.Generator) -> None:
    """Put another value in place of one, of the same length or with its length set right."""
    if content[element.at : element.at + 4] in _REPEATED:
        return
    value = _VALUES[rng.integers(len(_VALUES))] * int(rng.choice((1, 1, 2, 50)))
    if rng.random() < 0.5:
        value = value[: element.end - element.value_at].ljust(element.end - element.value_at)
    else:
        size = element.length_bytes
        value = value[: 2 ** (8 * size) - 2] + b" " * (len(value) % 2)
        content[element.length_at : element.value_at] = len(value).to_bytes(size, "little")
    content[element.value_at : element.end] = value


def _again(content: bytearray, element: _Element, rng: np.random.Generator) -> None:
    """Repeat an element, or leave it out."""
    whole = bytes(content[element.at : element.end])
    content[element.at : element.end] = whole * int(rng.choice((0, 2, 300)))


def _flip(content: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(len(content), size=int(rng.integers(1, 9))):
        content[at] ^= 1 << int(rng.integers(8))


def _run(content: bytearray, rng: np.random.Generator) -> None:
    at, length = int(rng.integers(len(content))), int(rng.integers(1, 65))
    fill = (b"\0" * length, b"\xff" * length, rng.bytes(length))[rng.integers(3)]
    content[at : at + length] = fill[: len(content) - at]


def _insert(content: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(content)))
    content[at:at] = rng.bytes(int(rng.integers(1, 65)))


def _delete(content: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(content)))
    del content[at : at + int(rng.integers(1, 65))]


def _truncate(content: bytearray, rng: np.random.Generator) -> None:
    """Cut the end off, but for the two bytes that say it is one."""
    end = bytes(content[-2:])
    content[int(rng.integers(len(content))) :] = end


def _marker(content: bytearray, rng: np.random.Generator) -> None:
    """Change what follows one of the first codestream markers: a length, a size, a table."""
    markers = [at for at, byte in enumerate(content[:2048]) if byte == 0xFF]
    if markers:
        at = markers[rng.integers(len(markers))] + int(rng.integers(1, 24))
        if at < len(content):
            content[at] = int(rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.integers(256))))


def _splice(content: bytearray, other: bytes, rng: np.random.Generator) -> None:
    """Put a piece of another frame over these bytes, or between them."""
    at, source = int(rng.integers(len(content))), int(rng.integers(len(other)))
    piece = other[source : source + int(rng.integers(1, 4096))]
    content[at : at + len(piece) * int(rng.integers(2))] = piece


_OF_ELEMENTS = (_length, _tag, _representation, *(_value,) * 6, _again)
_OF_BYTES = (_flip, _flip, _run, _run, _insert, _delete, _truncate)
