"""The folder of engines as files: where it is, and how something gets into it, whole.

What a runtime keeps for the next time (kernels, timings) lies there with its hash before it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
import time
from pathlib import Path

from mammoclip_sdk.bundle.folder import enclosing_bundle
from mammoclip_sdk.errors import EngineError

VARIABLE = "MAMMOCLIP_ENGINES"
_DIGEST = 32  # bytes of SHA-256
_UNDER_WAY = 3600  # seconds within which a file may belong to a build that is not done


def engines_folder(folder: Path | None) -> Path:
    """Return the folder: the argument, else MAMMOCLIP_ENGINES, else the user's own cache.

    Raises
    ------
    EngineError
        There is neither, for the user has no home; or it lies in a bundle, which could not be read
        any more with anything else in it.
    """
    named = os.environ.get(VARIABLE)
    if folder is None and not named:
        return _users_own()
    chosen = folder or Path(named or "")
    around = enclosing_bundle(chosen)
    if around is not None:
        raise EngineError(
            "folder of engines",
            found=f"{chosen}, inside the bundle {around}",
            expected="a folder outside of any bundle",
            remedy=f"Name another with --engines or {VARIABLE}.",
            code="engine_write",
        )
    return chosen


def _users_own() -> Path:
    try:
        return _users_cache() / "mammoclip-sdk" / "engines"
    except RuntimeError as error:  # neither a variable nor the system knows the user's home
        raise EngineError(
            "folder of engines",
            found="a user without a home folder",
            expected="a folder that engines can be kept in",
            remedy=f"Name one with --engines or {VARIABLE}.",
            code="engine_write",
        ) from error


def _users_cache() -> Path:
    if sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache)


def files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return the files whose names match, sorted; none where there is no folder.

    Raises
    ------
    EngineError
        It cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
    except FileNotFoundError:
        return []  # no engines yet
    except OSError as error:
        raise _refused(folder, error) from error


def is_old(path: Path) -> bool:
    """Whether a file has been there longer than a build leaves one unnamed."""
    try:
        return time.time() - path.stat().st_mtime > _UNDER_WAY
    except OSError:  # gone meanwhile
        return False


def write(path: Path, data: bytes) -> None:
    """Write a file by rename, so that it is there whole or as it was before.

    Raises
    ------
    EngineError
        The disk refused.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, error) from error


def delete(path: Path) -> None:
    """Remove a file.

    Raises
    ------
    EngineError
        The disk refused.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, error) from error


def discard(path: Path) -> None:
    """Remove a file if that can be done now."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # Windows: a session has it open; prune finds it later
        return


def keep(path: Path, data: bytes) -> None:
    """Keep bytes that save a runtime work the next time, with their hash before them.

    Raises
    ------
    EngineError
        The disk refused.
    """
    write(path, hashlib.sha256(data).digest() + data)


def kept(path: Path) -> bytes | None:
    """Return bytes that were kept; None where there are none, or others: they are made anew."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, data = content[:_DIGEST], content[_DIGEST:]
    return data if hashlib.sha256(data).digest() == digest else None


def _refused(path: Path, error: OSError) -> EngineError:
    """Make an error of what the disk said."""
    return EngineError(
        str(path),
        found=f"a disk that refused ({error.strerror})",
        expected="a folder that engines can be written to",
        remedy=f"Check space and permissions, or name another folder with --engines or {VARIABLE}.",
        code="engine_write",
    )
