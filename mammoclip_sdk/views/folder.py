"""A folder -> what each of its files is: a mammogram, a rejection note, or something else.

What was merely found may be passed over; then its error says why, and somebody has to tell it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.errors import (
    DicomReadError,
    ExamError,
    InputError,
    UnsupportedImageError,
)
from mammoclip_sdk.exam import Acceptance
from mammoclip_sdk.printable import printable
from mammoclip_sdk.views.mammogram import Mammogram, read_mammogram, require_view, study_of
from mammoclip_sdk.views.rejection import is_key_object_selection, rejected_instances

_NO_CANDIDATES = frozenset({"no_pixel_data", "not_a_file", "file_too_large", "dicomdir"})
"""Codes of what a folder may hold beside an exam, also where no choice may be made."""


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """What one file turned out to be."""

    name: str
    """Its path below the folder."""
    path: Path
    mammogram: Mammogram | None = None
    error: InputError | None = None
    """Why it is no candidate for a view; exactly one of the two is set."""
    study: str | None = None
    """Study Instance UID, where one could be read."""
    rejects: frozenset[str] = frozenset()
    """SOP Instance UIDs that it takes out of use."""

    @property
    def maybe_meant(self) -> bool:
        """Whether this is a damaged file that might be the image that is meant."""
        return isinstance(self.error, DicomReadError) and self.error.code not in _NO_CANDIDATES

    @property
    def note(self) -> str:
        """Say why it was passed over."""
        return "" if self.error is None else f"{self.name} ({self.error.code}: {self.error.found})"


def list_files(
    place: str | os.PathLike[str], *, holding: str
) -> tuple[list[tuple[str, Path]], list[FoundFile]]:
    """Return name and path of every file below a folder, sorted, and the folders not searched.

    Names are relative to the folder; paths are absolute, so that a later change of the working
    directory does not break them.

    Raises
    ------
    ExamError
        It is no folder; ``holding`` says what one was expected to hold.
    """
    folder = _folder(place, holding)
    paths: list[Path] = []
    unsearched: list[FoundFile] = []

    def pass_over(path: Path, found: str) -> None:
        name = _below(path, folder)
        unsearched.append(FoundFile(name=name, path=path, error=_unread_folder(name, found)))

    def unreadable(error: OSError) -> None:
        found = f"a folder that cannot be read ({type(error).__name__})"
        pass_over(Path(error.filename or folder), found)

    for root, folders, files in os.walk(folder, onerror=unreadable):
        paths += [Path(root, file) for file in files]
        for inner in (Path(root, name) for name in sorted(folders)):
            if os.path.islink(inner):  # noqa: PTH114  # no error where it may not be looked at
                pass_over(inner, "a link to a folder, which is not followed")
    return [(_below(path, folder), path) for path in sorted(paths)], unsearched


def examine(name: str, path: Path, acceptance: Acceptance) -> FoundFile:
    """Read one file's header, and say what the file is; raises nothing that it can say."""
    study, document = None, False
    try:
        header = gate.read_header_of(path, name=name)
        document = is_key_object_selection(header, name=name)
        study = study_of(header, name=name)
        mammogram = read_mammogram(header, name=name, acceptance=acceptance)
        require_view(mammogram, name=name)
    except InputError as error:
        if document or error.code == "no_pixel_data":
            return _document(name, path, error)
        return FoundFile(name=name, path=path, error=error, study=study)
    return FoundFile(name=name, path=path, mammogram=mammogram, study=study)


def without_rejected(files: Iterable[FoundFile]) -> list[FoundFile]:
    """Take out what a rejection note among the files names, and say so in its place."""
    files = list(files)
    rejected = frozenset().union(*(file.rejects for file in files))
    return [
        replace(file, mammogram=None, error=_rejection(file.name))
        if file.mammogram and file.mammogram.sop_instance_uid in rejected
        else file
        for file in files
    ]


def _document(name: str, path: Path, error: InputError) -> FoundFile:
    """Read what has no pixels again, for it may be a rejection note."""
    try:
        document = gate.read_document_of(path, name=name)
        rejects = rejected_instances(document, name=name)
        study = study_of(document, name=name)
    except InputError as unreadable:
        return FoundFile(name=name, path=path, error=unreadable)
    return FoundFile(name=name, path=path, error=error, study=study, rejects=rejects)


def _rejection(name: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        name,
        found="an image that a rejection note (Key Object Selection) takes out of use",
        expected="an image in use",
        remedy="Hand over the image that replaces it, or leave the note out if it is wrong.",
        code="rejected",
    )


def _folder(place: object, holding: str) -> Path:
    name = "folder"
    try:
        if not isinstance(place, str | os.PathLike):
            found = f"an object of type {type(place).__name__}"
        elif not os.fspath(place):
            found = "an empty path"
        else:
            path = Path(os.fsdecode(place))
            name = printable(path.name) or name
            if path.is_dir():
                return path.absolute()
            found = "a single file" if path.exists() else "nothing at this path"
    except Exception as exc:  # whatever the path's own __fspath__ raises, too
        found = f"a path that no folder can have ({type(exc).__name__})"
    raise ExamError(
        name,
        found=found,
        expected=f"a folder with {holding}",
        remedy="Name a folder; files of one exam go to predict, as a list.",
        code="not_a_folder",
    )


def _unread_folder(name: str, found: str) -> DicomReadError:
    return DicomReadError(
        name,
        found=found,
        expected="a folder whose files can be read",
        remedy="Check its permissions, or hand over the four files.",
        code="folder_unreadable",
    )


def _below(path: Path, folder: Path) -> str:
    return printable(path.relative_to(folder).as_posix())
