"""A folder takes a name, in the place of another that has it; and what an interruption leaves.

Linux exchanges two names in one step. Elsewhere there is a moment, between two renames, in which
nothing has the name: whoever is killed in it finds the earlier folder beside it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PARTIAL, EARLIER = "partial", "earlier"
"""Endings of what is not finished, and of what was moved out of the way; of one length, for a name
that is short enough for the one has to be for the other."""
_UNDER_WAY = 86_400
"""Seconds within which something partial may belong to a process that still writes it."""
_CURRENT_FOLDER, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2."""


def beside(path: Path, ending: str) -> Path:
    """Return a new name for something on its way to the path, or away from it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{ending}")


def put(new: Path, path: Path, *, replace: bool) -> None:
    """Give a folder the path's name.

    Parameters
    ----------
    replace
        Whether something may have the name, which has that of ``new`` then. If not, nothing is
        moved, whenever it appeared: the system's rename refuses a folder that is not empty.

    Raises
    ------
    FileExistsError
        Something has the name, and was not to be replaced.
    OSError
        It could not be done, and everything is as it was.
    """
    taken = replace and path.exists()
    if taken:
        _swap(new, path)
    else:
        _take(new, path)
    try:
        sync_folder(path.parent)
    except OSError:
        if taken:
            _swap(new, path)  # back again
        else:
            path.rename(new)
        raise


def _take(new: Path, path: Path) -> None:
    try:
        new.rename(path)
    except OSError as error:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        raise


def _swap(one: Path, other: Path) -> None:
    if _exchanged(one, other):
        return
    aside = beside(other, EARLIER)
    other.rename(aside)
    try:
        one.rename(other)
    except BaseException:
        aside.rename(other)
        raise
    with suppress(OSError):  # the new one is in its place; this is cleared away another day
        aside.rename(one)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    if call is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    flags = ctypes.c_uint(_EXCHANGE)
    return bool(call(_CURRENT_FOLDER, names[0], _CURRENT_FOLDER, names[1], flags) == 0)


def set_aside(path: Path) -> Path | None:
    """Return what had the path's name until somebody was interrupted while replacing it."""
    with suppress(OSError):  # it is gone meanwhile
        return max(_left(path, EARLIER), key=lambda one: one.stat().st_mtime, default=None)
    return None


def clear(path: Path) -> None:
    """Remove what interruptions left of earlier attempts at this path, if it can be done.

    What may belong to another process is left, and what was set aside if nothing has the name.
    """
    now = time.time()
    for ending in (PARTIAL, EARLIER) if path.exists() else (PARTIAL,):
        for one in _left(path, ending):
            with suppress(OSError):
                if now - one.stat().st_mtime < _UNDER_WAY:
                    continue
                if one.is_dir():
                    shutil.rmtree(one)
                else:
                    one.unlink()


def _left(path: Path, ending: str) -> Iterator[Path]:
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.{ending}")
    with suppress(OSError, ValueError):  # ValueError: a null character
        for one in sorted(path.parent.iterdir()):
            if pattern.fullmatch(one.name) and not one.is_symlink():
                yield one


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder have reached the disk."""
    if os.name != "posix":  # Windows cannot open a folder, and needs no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
