"""Whatever the caller names as an exam -> an `Exam` of four views, before any pixel is decoded.

What the caller named itself must be usable, or an error says why not. What was merely found in
a folder may be skipped; then a note says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from mammoclip_sdk import gate
from mammoclip_sdk.errors import (
    DicomReadError,
    ExamError,
    InputError,
    MissingViewError,
    PixelError,
    UnsupportedImageError,
)
from mammoclip_sdk.exam import VIEWS, Exam, SourceImage, View
from mammoclip_sdk.mammogram import read_mammogram
from mammoclip_sdk.selection import Candidate, choose, require_one_study

PathSource = str | os.PathLike[str]
ViewSource = (
    PathSource
    | Sequence[PathSource | Dataset]
    | Mapping[str, PathSource | Dataset | NDArray[Any]]
    | Mapping[View, PathSource | Dataset | NDArray[Any]]
)

_NO_CANDIDATES = frozenset({"no_pixel_data", "not_a_file", "file_too_large"})
"""Codes of what a folder may hold beside an exam, also where no choice may be made."""
_LEAST_MAXIMUM = 2**14  # a 16-bit image that stays below this is 12- to 14-bit data, not full range


def read_exam(views: ViewSource, *, strict: bool = False) -> Exam:
    """Find LCC, RCC, LMLO and RMLO by what the headers say; file names mean nothing.

    Parameters
    ----------
    views
        A folder (searched with its subfolders), a list of paths or Datasets, or a mapping from
        the view's name to a path, a Dataset or a 2-D uint8/uint16 array. An array is taken as
        display-ready MONOCHROME2 over the full range of its dtype.
    strict
        Raise `AmbiguousViewError` where several images claim one view, instead of preferring,
        in this order: no view modifier, lossless, the latest acquisition, the highest Instance
        Number, the greatest SOP Instance UID. Raise for a damaged image in a folder, too, instead
        of leaving it out with a note: it may be the one that is meant.

    Raises
    ------
    MissingViewError
        A view is absent; the message lists it and what was refused.
    AmbiguousViewError
        Images that differ share one SOP Instance UID.
    MixedExamError
        More than one Patient ID or Study Instance UID.
    ExamError
        A mapping's key contradicts the header, or the argument is of another kind.
    NotDicomError, DicomReadError, UnsupportedImageError, PixelError
        An image the caller named itself cannot be used.
    """
    if isinstance(views, Mapping):
        return _from_mapping(views)
    if isinstance(views, str | os.PathLike):
        candidates, skipped = _scan_folder(views, strict=strict)
    elif isinstance(views, Iterable) and not isinstance(views, Dataset | np.ndarray | bytes):
        named = [_read_image(image, f"views[{place}]") for place, image in enumerate(views)]
        candidates, skipped = [_with_view(candidate) for candidate in named], []
    else:
        raise ExamError(
            "views",
            found=f"one {type(views).__name__}",
            expected="a folder, a list of paths or Datasets, or a mapping from view to image",
            remedy="Hand over all four views of one exam together.",
        )
    return choose(candidates, skipped, strict=strict)


def _scan_folder(place: PathSource, *, strict: bool) -> tuple[list[Candidate], list[str]]:
    folder = _folder(place)
    candidates: list[Candidate] = []
    skipped: list[str] = []

    def skip(name: str, error: InputError) -> None:
        if strict and isinstance(error, DicomReadError) and error.code not in _NO_CANDIDATES:
            raise error
        skipped.append(f"{name} ({error.code}: {error.found})")

    def skip_folder(error: OSError) -> None:
        name = _relative(Path(error.filename or folder), folder)
        skip(name, _unread_folder(name, f"a folder that cannot be read ({type(error).__name__})"))

    paths: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=skip_folder):
        paths += [Path(root, file) for file in files]
        for link in (path for path in sorted(folders) if Path(root, path).is_symlink()):
            name = _relative(Path(root, link), folder)
            skip(name, _unread_folder(name, "a link to a folder, which is not followed"))
    for path in sorted(paths):
        name = _relative(path, folder)
        try:
            candidates.append(_with_view(_read_path(path, name)))
        except InputError as error:
            skip(name, error)
    return candidates, skipped


def _folder(place: PathSource) -> Path:
    try:
        if not os.fspath(place):
            found = "an empty path"
        elif Path(place).is_dir():
            return Path(place)
        else:
            found = "a single file" if Path(place).exists() else "nothing at this path"
    except (OSError, ValueError) as exc:
        found = f"a path that no folder can have ({type(exc).__name__})"
    raise ExamError(
        _printable(Path(place).name) or "views",
        found=found,
        expected="a folder with the DICOM files of one exam",
        remedy="Name the folder, or hand over a list of four files.",
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


def _relative(path: Path, folder: Path) -> str:
    return _printable(path.relative_to(folder).as_posix())


def _printable(name: str) -> str:
    """Write what a terminal, a page or UTF-8 cannot hold as escapes: file names are any bytes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )


def _read_image(image: object, place: str) -> Candidate:
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return _read_path(path, _printable(path.name) or place)
    if isinstance(image, Dataset):
        return Candidate(name=place, mammogram=read_mammogram(image, name=place), source=image)
    raise ExamError(
        place,
        found=f"a {type(image).__name__}",
        expected="a path or a pydicom Dataset",
        remedy='Hand arrays over in a mapping that names their views: {"LCC": array, ...}.',
    )


def _read_path(path: Path, name: str) -> Candidate:
    header = gate.read_header(gate.read_file(path, name=name), name=name)
    return Candidate(name=name, mammogram=read_mammogram(header, name=name), source=path)


def _with_view(candidate: Candidate) -> Candidate:
    if candidate.mammogram.view is None:
        raise UnsupportedImageError(
            candidate.name,
            found="no tag or text that names both a side and a known view",
            expected="Image Laterality (0020,0062) and View Code Sequence (0054,0220)",
            remedy='Say which view it is: {"LCC": ..., "RCC": ..., "LMLO": ..., "RMLO": ...}.',
            code="unknown_view",
        )
    return candidate


def _from_mapping(views: Mapping[Any, object]) -> Exam:
    unknown = sum(key not in set(VIEWS) for key in views)
    if unknown:
        raise ExamError(
            "views",
            found=f"{unknown} keys that name no view",
            expected="LCC, RCC, LMLO, RMLO",
            remedy="Use the four names as keys.",
            code="unknown_view_key",
        )
    given = {View(key): image for key, image in views.items()}
    missing = [view.value for view in VIEWS if view not in given]
    if missing:
        raise MissingViewError(
            ", ".join(missing),
            found=", ".join(view.value for view in VIEWS if view in given) or "an empty mapping",
            expected="all four of LCC, RCC, LMLO, RMLO",
            remedy="Add the missing views; this software never scores an exam without them.",
        )
    images: dict[View, SourceImage] = {}
    notes: list[str] = []
    candidates: list[Candidate] = []
    for view in VIEWS:
        image = given[view]
        if isinstance(image, np.ndarray):
            name = f"views[{view.value}]"
            images[view] = SourceImage(view=view, name=name, array=_display_ready(image, name))
            continue
        candidate = _read_image(image, f"views[{view.value}]")
        candidates.append(candidate)
        notes += [*candidate.mammogram.notes, *_agreement(view, candidate)]
        images[view] = candidate.as_view(view)
    require_one_study(candidates)
    _require_distinct(candidates)
    return Exam(images=images, notes=tuple(notes))


def _agreement(view: View, candidate: Candidate) -> list[str]:
    mammogram = candidate.mammogram
    contradicts = (mammogram.side or view.laterality) != view.laterality or (
        mammogram.projection or view.projection
    ) != view.projection
    said = f"{mammogram.side or ''}{mammogram.projection or ''}"
    if contradicts:
        raise ExamError(
            f"views[{view.value}]",
            found=f"{candidate.name}, whose header says {said}",
            expected=f"an image of {view.value}",
            remedy="Correct the mapping, or the header at its source.",
            code="view_mismatch",
        )
    if mammogram.view is None:
        return [f"{candidate.name}: taken as {view.value} on the caller's word"]
    return []


def _require_distinct(candidates: list[Candidate]) -> None:
    uids = [candidate.mammogram.sop_instance_uid for candidate in candidates]
    if len(set(uids)) < len(uids):
        raise ExamError(
            "views",
            found="one SOP Instance UID (0008,0018) under two views",
            expected="four different images",
            remedy="Hand each view its own image.",
            code="same_image_twice",
        )


def _display_ready(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Accept what can only be meant one way; a guess at the scale of pixels would be silent."""
    if array.dtype not in (np.uint8, np.uint16):
        raise PixelError(
            name,
            found=f"an array of {array.dtype}",
            expected="uint8 or uint16, display-ready, 0 (air) to the largest value of the dtype",
            remedy="Scale it: (image / image_range * 65535).round().astype(numpy.uint16).",
            code="array_dtype",
        )
    if array.ndim != 2:
        raise PixelError(
            name,
            found=f"an array of shape {array.shape}",
            expected="(rows, columns)",
            remedy="Hand over one greyscale channel of one image.",
            code="array_shape",
        )
    if array.dtype == np.uint16 and array.size and int(array.max()) < _LEAST_MAXIMUM:
        raise PixelError(
            name,
            found=f"uint16 values up to {int(array.max())}, which looks like unscaled 12-bit data",
            expected="display-ready values over the full range 0 to 65535",
            remedy="Apply the window and scale to 65535, or hand over the DICOM file.",
            code="array_range",
        )
    return array
