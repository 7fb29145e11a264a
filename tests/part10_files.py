"""DICOM files of a few bytes, plain ones whose headers were changed, and what became of them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import exams
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataset import FileDataset

from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.exam import View

BUNDLED = sorted(Path(DATA_ROOT, "test_files").rglob("*"))


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    head = struct.pack("<HH2s", group, number, vr)
    return head + struct.pack("<2xI" if long else "<H", len(value)) + value


def part10(syntax: str | bytes, body: bytes = b"", more_meta: bytes = b"") -> bytes:
    uid = syntax if isinstance(syntax, bytes) else syntax.encode()
    meta = element(2, 0x10, b"UI", uid + b"\0" * (len(uid) % 2)) + more_meta
    return b"\0" * 128 + b"DICM" + meta + body


def changed(**attributes: object) -> bytes:
    """Return a whole file whose header was changed; a private element and a sequence are in it."""
    return written(exams.dataset(View.LCC, exams.PLAIN), **attributes)


def written(image: FileDataset, **attributes: object) -> bytes:
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


def outcome(attempt: Callable[[], object]) -> MammoClipError | None:
    """Return this package's error; any other exception is a failure of the test."""
    try:
        attempt()
    except MammoClipError as error:
        return error
    return None
