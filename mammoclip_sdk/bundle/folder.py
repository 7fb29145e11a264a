"""A bundle's folder, put down whole or not at all.

Nothing here knows what the files mean; only that ``manifest.json`` comes last, so that its presence
means that all the others are there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mammoclip_sdk.bundle.files import MANIFEST
from mammoclip_sdk.errors import BundleError


def write_folder(path: Path, files: Iterable[tuple[str, bytes]], *, overwrite: bool) -> None:
    """Write a bundle's folder in the order given, so that it is there whole or not at all.

    Everything goes to a folder beside the target, reaches the disk, and takes the target's name
    by rename. A bundle that is replaced keeps its name until then, and gets it back on failure.

    Raises
    ------
    BundleError
        The path is taken, or the disk refused.
    """
    partial: Path | None = None
    try:
        path = path.resolve()
        if path.exists():
            _check_replaceable(path, overwrite=overwrite)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        for name, data in files:
            _write(partial / name, data)
        _sync_folder(partial)
        with _out_of_the_way(path):
            partial.rename(path)
        _sync_folder(path.parent)
    except (OSError, ValueError) as error:  # ValueError: a null character, or no name at all
        raise _refused(path, error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Write one file by rename, over an earlier one of its name or none.

    Raises
    ------
    BundleError
        The disk refused.
    """
    path = path.parent.resolve() / path.name  # a folder may be a link to another disk
    # Beside the bundle's folder, for one that stays behind must not make the bundle unreadable.
    partial = path.parent.parent / f".{path.parent.name}.{secrets.token_hex(4)}.partial"
    try:
        _write(partial, data)
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _refused(path: Path, error: OSError | ValueError) -> BundleError:
    return BundleError(
        str(path),
        found=f"a disk that refused ({getattr(error, 'strerror', None) or error})",
        expected="a place to write the bundle",
        remedy="Check space and permissions; nothing was changed.",
    )


def _check_replaceable(path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        raise BundleError(
            str(path),
            found="something already at this path",
            expected="a new path",
            remedy="Choose another path, or ask to overwrite.",
        )
    if not (path / MANIFEST).is_file():
        raise BundleError(
            str(path),
            found="something that is not a bundle",
            expected="a bundle to replace",
            remedy="Choose another path; only bundles are overwritten.",
        )


@contextmanager
def _out_of_the_way(path: Path) -> Iterator[None]:
    """Move what has the name aside; delete it if the body succeeds, bring it back if not."""
    if not path.exists():
        yield
        return
    previous = path.with_name(f".{path.name}.{secrets.token_hex(4)}.previous")
    path.rename(previous)
    try:
        yield
    except BaseException:
        previous.rename(path)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder, and needs no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
