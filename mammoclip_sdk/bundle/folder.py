"""A bundle's folder, put down whole or not at all, over an earlier bundle and over nothing else.

``manifest.json`` comes last, so that its presence means that all the others are there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from mammoclip_sdk.bundle import swap
from mammoclip_sdk.bundle.files import CHECKSUM, MANIFEST, MAX_MANIFEST_BYTES, OWN_NAMES
from mammoclip_sdk.errors import BundleError

_FILE = re.compile(rb'"file"\s*:\s*"([A-Za-z0-9._-]+)"')
"""What names a file in a manifest of any schema."""


def write_folder(path: Path, files: Iterable[tuple[str, bytes]], *, overwrite: bool) -> None:
    """Write a bundle's folder in the order given, so that it is there whole or not at all.

    Everything goes to a folder beside the target, reaches the disk, and takes the target's name
    by rename. A bundle that is replaced keeps its name until then, and on failure.

    Raises
    ------
    BundleError
        The path is taken, or the disk refused.
    """
    partial: Path | None = None
    try:
        path = path.resolve()
        _require_free(path, overwrite=overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        swap.clear(path)
        partial = swap.beside(path, swap.PARTIAL)
        partial.mkdir()
        for name, data in files:
            _write(partial / name, data)
        swap.sync_folder(partial)
        _require_free(path, overwrite=overwrite)  # once more: the writing took a while
        try:
            swap.put(partial, path, replace=overwrite)
        except FileExistsError as error:  # it appeared in the last moment
            raise _taken(path, "something already at this path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character, or no name at all
        raise _refused(path, error, "nothing was changed") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _require_free(path: Path, *, overwrite: bool) -> None:
    found = obstacle(path, overwrite=overwrite)
    if found:
        raise _taken(path, found)


def _taken(path: Path, found: str) -> BundleError:
    return BundleError(
        str(path),
        found=found,
        expected="a new path, or, to overwrite, a bundle and nothing else",
        remedy="Choose another path, or ask to overwrite a bundle.",
    )


def obstacle(path: Path, *, overwrite: bool) -> str:
    """Say what keeps a bundle from being written to a path; an empty text if nothing does.

    A bundle that is replaced is deleted. So that nothing else ever is, a folder counts as one only
    if ``manifest.sha256`` vouches for its manifest and that names every file in it; whether these
    are whole, or of an older schema, does not matter.

    Raises
    ------
    OSError, ValueError
        The path cannot be looked at, or is none.
    """
    path = path.resolve()
    around = enclosing_bundle(path.parent)
    if around is not None:
        return f"a path inside the bundle {around}, which may hold its own files alone"
    if not path.exists():
        return ""
    if not overwrite:
        return "something already at this path"
    if not _looks_like_a_bundle(path):
        return "something that is not a bundle"
    manifest = path / MANIFEST
    text = manifest.read_bytes() if manifest.stat().st_size <= MAX_MANIFEST_BYTES else b""
    if (path / CHECKSUM).read_bytes() != checksum_line(text):
        return f"something that is not a bundle, or a damaged one: {CHECKSUM} disagrees"
    named = {name.decode() for name in _FILE.findall(text)}
    for entry in sorted(path.iterdir()):
        if entry.name not in (*OWN_NAMES, *named) or not entry.is_file():
            return f"a bundle with {entry.name!a} in it, which is none of its files"
    return ""


def enclosing_bundle(path: Path) -> Path | None:
    """Return the bundle's folder that a path is or lies in, where nothing else may be put."""
    path = path.resolve()
    return next((one for one in (path, *path.parents) if _looks_like_a_bundle(one)), None)


def _looks_like_a_bundle(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (MANIFEST, CHECKSUM))


def checksum_line(manifest: bytes) -> bytes:
    """Return what ``manifest.sha256`` holds for these bytes of ``manifest.json``."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def write_file(path: Path, data: bytes) -> None:
    """Write one file by rename, over an earlier one of its name or none.

    Raises
    ------
    BundleError
        The disk refused.
    """
    path = path.parent.resolve() / path.name  # a folder may be a link to another disk
    # Beside the bundle's folder, for one that stays behind must not make the bundle unreadable.
    partial = swap.beside(path.parent, swap.PARTIAL)
    try:
        _write(partial, data)
        partial.replace(path)
        swap.sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error, "what is there is whole, the earlier one or this") from error
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _refused(path: Path, error: OSError | ValueError, state: str) -> BundleError:
    return BundleError(
        str(path),
        found=f"a disk that refused ({getattr(error, 'strerror', None) or error})",
        expected="a place to write the bundle",
        remedy=f"Check space and permissions; {state}.",
    )
