"""A bundle's files, in a folder or in a zip of one: hashed when read, and again when handed out.

Three graphs of a large model take more memory than a workstation has to spare. Every file is
hashed once, in pieces; small ones stay in memory, and a large one is read when somebody asks for
it, and refused if it is no longer what it was. Nothing here knows what the files mean.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mammoclip_sdk.bundle.swap import set_aside
from mammoclip_sdk.errors import BundleFormatError, BundleIntegrityError, BundleNotFoundError

MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"
SIGNATURE = "manifest.sig"
OWN_NAMES = (MANIFEST, CHECKSUM, SIGNATURE)
"""What a manifest cannot name: itself, and what is said about it."""
MAX_FILES = 64
MAX_FILE_BYTES = 2**31
"""What protobuf, and so a graph in one file, can hold; ViT-L/14's takes 1.2 GB in float32."""
MAX_BYTES = 4 * MAX_FILE_BYTES
"""Of all files together: a graph in float32, its half, its quarter, and the exams."""
MAX_MANIFEST_BYTES = 4 * 2**20
"""And of its checksum and its signature, which are read whole as it is. A finding's text embeddings
take 40 kB."""
MAX_ZIP_RATIO = 100
"""Unpacked to packed size of one zip member; weights reach 1.2, JSON and golden exams about 20."""
KEPT_BYTES = 2**20
"""Of one file: those up to this size stay in memory."""

_CHUNK = 2**20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
"""Windows drops a point at the end."""
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Windows opens the device, whatever the folder and the extension."""
_NO_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError)
"""What zipfile raises; the last where one is encrypted, or of a kind that it does not know."""
_AGAIN = "Copy the bundle again from where it was made."
_NO_BUNDLE = "Check the path, or make the bundle again."

_Open = Callable[[str], AbstractContextManager[IO[bytes]]]


def is_plain_name(name: str) -> bool:
    """Whether a name is one file inside the bundle's folder on every system."""
    return _PLAIN_NAME.fullmatch(name) is not None and _DEVICE_NAME.fullmatch(name) is None


@dataclass(frozen=True)
class _Stored:
    size: int
    sha256: str
    kept: bytes | None


class StoredFiles(Mapping[str, bytes]):
    """The files by name: what a name gives is what was hashed when the bundle was read.

    May be asked from several threads at once. A large file is read and hashed at every look: take
    it, use it, and let go of it.
    """

    def __init__(self, path: Path, open_file: _Open, files: Mapping[str, _Stored]) -> None:
        self._path = path
        self._open_file = open_file
        self._files = files

    def __getitem__(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        KeyError
            No such file was there when the bundle was read.
        BundleIntegrityError
            It is not there any more, or holds other bytes.
        """
        stored = self._files[name]
        if stored.kept is not None:
            return stored.kept
        with _readable(self._path), self._open_file(name) as file:
            found = _take(file, stored.size, keep=True)
        if found is None or found.kept is None or found.sha256 != stored.sha256:
            raise BundleIntegrityError(
                f"{self._path}: {name}",
                found="other bytes than when the bundle was read",
                expected=f"the SHA-256 {stored.sha256}",
                remedy="Find out what writes to the bundle, and copy it again from where it was "
                "made.",
            )
        return found.kept

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the file
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def size(self, name: str) -> int:
        """Return a file's length in bytes, without reading it again."""
        return self._files[name].size

    def sha256(self, name: str) -> str:
        """Return the SHA-256 that a file had when the bundle was read."""
        return self._files[name].sha256

    def without(self, names: Collection[str]) -> StoredFiles:
        """Return the other files."""
        others = {name: stored for name, stored in self._files.items() if name not in names}
        return StoredFiles(self._path, self._open_file, others)


def read_files(path: Path) -> StoredFiles:
    """Hash every file of a bundle, and hold what is needed to hand it out.

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
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", error)
        raise _no_bundle(path, f"nothing at this path ({reason})") from error
    is_folder = stat.S_ISDIR(mode)
    if not is_folder and not stat.S_ISREG(mode):  # a pipe or a device may have no end
        raise _no_bundle(path, "neither a folder nor a file")
    path = path.absolute()  # files are read later, from whatever folder is the current one then
    if not is_folder and all(path.with_name(name).is_file() for name in (MANIFEST, CHECKSUM)):
        remedy = f"Name the bundle's folder, {path.parent}."
        raise _no_bundle(path, "one file of a bundle", remedy)
    with _readable(path):
        open_file, sizes = _in_folder(path) if is_folder else _in_zip(path)
        files = {}
        for name, size in sizes.items():
            with open_file(name) as file:
                taken = _take(file, size, keep=size <= KEPT_BYTES)
            if taken is None:
                raise BundleIntegrityError(
                    f"{path}: {name}",
                    found="a file that grows or shrinks while it is read",
                    expected="a bundle that nobody writes to",
                    remedy="Wait until it is copied, and try again.",
                )
            files[name] = taken
    return StoredFiles(path, open_file, files)


def _take(file: IO[bytes], size: int, *, keep: bool) -> _Stored | None:
    """Read a file to its end, in pieces; None where it is not as long as was said."""
    digest, length = hashlib.sha256(), 0
    taken = io.BytesIO()  # hands its bytes over without a copy
    while chunk := file.read(_CHUNK):
        length += len(chunk)
        if length > size:
            return None
        digest.update(chunk)
        if keep:
            taken.write(chunk)
    if length < size:
        return None
    return _Stored(length, digest.hexdigest(), taken.getvalue() if keep else None)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say what a file system, a zip archive or its compression found wrong."""
    try:
        yield
    except OSError as error:
        raise BundleIntegrityError(
            str(path),
            found=f"a file that cannot be read ({error.strerror})",
            expected="readable files",
            remedy="Check the permissions and the disk.",
        ) from error
    except _NO_ZIP as error:
        raise BundleIntegrityError(
            str(path),
            found=f"no readable zip archive ({error})",
            expected="a bundle: a folder, or a zip of one",
            remedy=_AGAIN,
        ) from error


def _in_folder(folder: Path) -> tuple[_Open, dict[str, int]]:
    sizes: dict[str, int] = {}
    for entry in sorted(folder.iterdir()):
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _foreign(folder, entry.name)
        sizes[entry.name] = status.st_size
    _check_listing(folder, sizes)
    return lambda name: (folder / name).open("rb", buffering=0), sizes


class _ZipBytes(io.FileIO):
    """A zip's bytes, a little at a time: its directory is read in one piece, as long as it says."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _CHUNK:
            raise zipfile.BadZipFile(f"a directory of {size} bytes")
        return super().read(size)


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with _ZipBytes(path) as file, zipfile.ZipFile(file) as archive:
        yield archive


def _in_zip(path: Path) -> tuple[_Open, dict[str, int]]:
    with _zip(path) as archive:
        members = _zip_members(path, archive)

    @contextmanager
    def open_member(name: str) -> Iterator[IO[bytes]]:
        with _zip(path) as archive, archive.open(members[name]) as file:
            yield file

    return open_member, {name: member.file_size for name, member in members.items()}


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
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NotImplementedError(f"{name!a} is packed by another method than deflate")
    _check_listing(path, {name: member.file_size for name, member in members.items()})
    return members


def _check_listing(path: Path, sizes: Mapping[str, int]) -> None:
    for name in sizes:
        if not is_plain_name(name):
            raise _foreign(path, ascii(name))
    if MANIFEST not in sizes:
        raise _no_bundle(path, "no manifest.json, which is written last")
    own = max(sizes[name] for name in OWN_NAMES if name in sizes)
    count, total, longest = len(sizes), sum(sizes.values()), max(sizes.values())
    measured = ((count, MAX_FILES), (total, MAX_BYTES), (longest, MAX_FILE_BYTES))
    if any(size > limit for size, limit in (*measured, (own, MAX_MANIFEST_BYTES))):
        raise BundleFormatError(
            str(path),
            found=f"{count} files, {total} bytes, {longest} in one of them, "
            f"{own} in the manifest or beside it",
            expected=f"at most {MAX_FILES} files, {MAX_BYTES} bytes, {MAX_FILE_BYTES} in one of "
            f"them, {MAX_MANIFEST_BYTES} in the manifest",
            remedy="Check that the path is the bundle's own folder.",
        )


def _no_bundle(path: Path, found: str, remedy: str = _NO_BUNDLE) -> BundleNotFoundError:
    earlier = set_aside(path)
    if earlier is not None:
        found += ", for somebody was interrupted while overwriting it"
        remedy = f"Rename {earlier.name}, which is the earlier bundle; or make it again."
    expected = "a bundle: a folder or zip with a manifest.json"
    return BundleNotFoundError(str(path), found=found, expected=expected, remedy=remedy)


def _foreign(path: Path, what: str) -> BundleFormatError:
    return BundleFormatError(
        str(path),
        found=what,
        expected="only the bundle's own files, with plain names and no folders",
        remedy="Move everything else out of the bundle.",
    )
