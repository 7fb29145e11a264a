"""A bundle's bytes: a folder, or a zip of one, taken in whole and put down whole or not at all.

Nothing here knows what the files mean; only that ``manifest.json`` comes last when writing, so
that its presence means that all the others are there.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mammoclip_sdk.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    BundleNotFoundError,
)

MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"
MAX_FILES = 64
MAX_BYTES = 4 * 2**30
"""Of all files together; ViT-L/14's image encoder in float32 takes 1.2 GB."""
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_ZIP_RATIO = 100
"""Unpacked to packed size of one zip member; weights reach 1.2, JSON and golden exams about 20."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
"""Windows drops a point at the end."""
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Windows opens the device, whatever the folder and the extension."""
_AGAIN = "Copy the bundle again from where it was made."


def is_plain_name(name: str) -> bool:
    """Whether a name is one file inside the bundle's folder on every system."""
    return _PLAIN_NAME.fullmatch(name) is not None and _DEVICE_NAME.fullmatch(name) is None


def read_files(path: Path) -> dict[str, bytes]:
    """Read every file of a bundle, each of them once.

    Raises
    ------
    BundleNotFoundError
        Nothing is at the path, or what is there has no manifest.
    BundleFormatError
        Folders inside it, names that are not plain, more files or bytes than a bundle may have.
    BundleIntegrityError
        The zip is damaged, or a file cannot be read.
    """
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise BundleNotFoundError(
            str(path),
            found=f"nothing at this path ({getattr(error, 'strerror', error)})",
            expected="a bundle: a folder or zip with a manifest.json",
            remedy="Check the path.",
        ) from error
    try:
        return _read_folder(path) if is_folder else _read_zip(path)
    except OSError as error:
        raise BundleIntegrityError(
            str(path),
            found=f"a file that cannot be read ({error.strerror})",
            expected="readable files",
            remedy="Check the permissions and the disk.",
        ) from error


def _read_folder(folder: Path) -> dict[str, bytes]:
    sizes: dict[str, int] = {}
    for entry in sorted(folder.iterdir()):
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _foreign(folder, entry.name)
        sizes[entry.name] = status.st_size
    _check_listing(folder, sizes)
    return {name: (folder / name).read_bytes() for name in sizes}


def _read_zip(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = _zip_members(path, archive)
            return {name: archive.read(member) for name, member in members.items()}
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # a compression method zipfile does not know
        RuntimeError,  # encrypted
        ValueError,
        struct.error,
    ) as error:
        raise BundleIntegrityError(
            str(path),
            found=f"no readable zip archive ({error})",
            expected="a bundle: a folder, or a zip of one",
            remedy=_AGAIN,
        ) from error


def _zip_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Name the members as in the folder that was zipped, with or without that folder's name."""
    listed = [member for member in archive.infolist() if not member.is_dir()]
    tops = {member.filename.partition("/")[0] for member in listed if "/" in member.filename}
    top = f"{tops.pop()}/" if len(tops) == 1 else ""
    if not all(member.filename.startswith(top) for member in listed):
        top = ""
    members = {member.filename.removeprefix(top): member for member in listed}
    if len(members) < len(listed):
        raise _foreign(path, "two files of one name")
    for name, member in members.items():
        if member.file_size > MAX_ZIP_RATIO * max(member.compress_size, 1024):
            raise _foreign(path, f"{name}, which unpacks to {member.file_size} bytes")
    _check_listing(path, {name: member.file_size for name, member in members.items()})
    return members


def _check_listing(path: Path, sizes: Mapping[str, int]) -> None:
    for name in sizes:
        if not is_plain_name(name):
            raise _foreign(path, ascii(name))
    if MANIFEST not in sizes:
        raise BundleNotFoundError(
            str(path),
            found="no manifest.json",
            expected="a complete bundle; the manifest is written last",
            remedy="Check the path, or make the bundle again.",
        )
    total = sum(sizes.values())
    if len(sizes) > MAX_FILES or total > MAX_BYTES or sizes[MANIFEST] > MAX_MANIFEST_BYTES:
        raise BundleFormatError(
            str(path),
            found=f"{len(sizes)} files, {total} bytes, {sizes[MANIFEST]} in the manifest",
            expected=f"at most {MAX_FILES} files, {MAX_BYTES} bytes, {MAX_MANIFEST_BYTES} in the "
            "manifest",
            remedy="Check that the path is the bundle's own folder.",
        )


def _foreign(path: Path, what: str) -> BundleFormatError:
    return BundleFormatError(
        str(path),
        found=what,
        expected="only the bundle's own files, with plain names and no folders",
        remedy="Move everything else out of the bundle.",
    )


def write_files(path: Path, files: Mapping[str, bytes], *, overwrite: bool) -> None:
    """Write a bundle's folder in the mapping's order, so that it is there whole or not at all.

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
        for name, data in files.items():
            with (partial / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(partial)
        with _out_of_the_way(path):
            partial.rename(path)
        _sync_folder(path.parent)
    except (OSError, ValueError) as error:  # ValueError: a null character, or no name at all
        raise BundleError(
            str(path),
            found=f"a disk that refused ({getattr(error, 'strerror', None) or error})",
            expected="a place to write the bundle",
            remedy="Check space and permissions; nothing was changed.",
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


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
