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
        Number, the greatest SOP Instance UID.

    Raises
    ------
    MissingViewError
        A view is absent; the message lists it and what was refused.
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
        candidates, skipped = _scan_folder(Path(views))
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


def _scan_folder(folder: Path) -> tuple[list[Candidate], list[str]]:
    if not folder.is_dir():
        raise ExamError(
            folder.name or str(folder),
            found="a single file" if folder.exists() else "nothing at this path",
            expected="a folder with the DICOM files of one exam",
            remedy="Name the folder, or hand over a list of four files.",
            code="not_a_folder",
        )
    candidates: list[Candidate] = []
    skipped: list[str] = []
    for path in sorted(Path(root, file) for root, _, files in os.walk(folder) for file in files):
        name = path.relative_to(folder).as_posix()
        try:
            candidates.append(_with_view(_read_path(path, name)))
        except InputError as error:
            skipped.append(f"{name} ({error.code}: {error.found})")
    return candidates, skipped


def _read_image(image: object, place: str) -> Candidate:
    if isinstance(image, str | os.PathLike):
        return _read_path(Path(image), Path(image).name)
    if isinstance(image, Dataset):
        return Candidate(name=place, mammogram=read_mammogram(image, name=place), dataset=image)
    raise ExamError(
        place,
        found=f"a {type(image).__name__}",
        expected="a path or a pydicom Dataset",
        remedy='Hand arrays over in a mapping that names their views: {"LCC": array, ...}.',
    )


def _read_path(path: Path, name: str) -> Candidate:
    header = gate.read_header(gate.read_file(path, name=name), name=name)
    return Candidate(name=name, mammogram=read_mammogram(header, name=name), path=path)


def _with_view(candidate: Candidate) -> Candidate:
    if candidate.mammogram.view is None:
        raise UnsupportedImageError(
            candidate.name,
            found="no tag or text that says both side and view",
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
    uids = [uid for item in candidates if (uid := item.mammogram.sop_instance_uid)]
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
