"""A DICOM file as the file system has it: regular, of an accepted size, or refused.

Nothing here waits for a writer or reads without end, and no error carries a path: folders are
named after patients.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from mammoclip_sdk.dicom.file_meta import META_START, require_magic
from mammoclip_sdk.dicom.shield import raise_alone
from mammoclip_sdk.errors import DicomReadError

MAX_FILE_BYTES = 256 * 2**20
"""Largest accepted file; a 4096 x 3328 mammogram of 16 bits has 27 MB of pixels."""


def only_zeros(file: BufferedIOBase) -> bool:
    """Tell whether nothing else is left; a little at a time, for it may be 256 MB of nothing."""
    while piece := file.read(2**16):
        if piece.count(0) != len(piece):
            return False
    return True


@contextmanager
def opened(path: Path, name: str) -> Iterator[tuple[BufferedIOBase, int]]:
    """Open a regular file of an accepted size, and give its size.

    Raises
    ------
    NotDicomError
        An empty file, or a larger one that does not begin as DICOM does.
    DicomReadError
        No regular file, one that cannot be read, or one larger than `MAX_FILE_BYTES`; also while
        it is open.
    """
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


def _open(path: Path, name: str) -> BufferedIOBase:
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
