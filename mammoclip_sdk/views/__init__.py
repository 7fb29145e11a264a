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

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.image_limits import require_size
from mammoclip_sdk.errors import ExamError, MissingViewError, PixelError
from mammoclip_sdk.exam import PLAIN, VIEWS, Acceptance, Exam, SourceImage, View
from mammoclip_sdk.printable import printable
from mammoclip_sdk.views.acquisition import require_accepted
from mammoclip_sdk.views.exam_structure import require_structure
from mammoclip_sdk.views.folder import FoundFile, examine, list_files, without_rejected
from mammoclip_sdk.views.mammogram import read_mammogram, require_view
from mammoclip_sdk.views.selection import Candidate, choose, require_one_exam

PathSource = str | os.PathLike[str]
ViewSource = (
    Exam
    | PathSource
    | Sequence[PathSource | Dataset]
    | Mapping[str, PathSource | Dataset | NDArray[Any]]
    | Mapping[View, PathSource | Dataset | NDArray[Any]]
)

_LEAST_MAXIMUM = 2**14  # a 16-bit image that stays below this is 12- to 14-bit data, not full range


def read_exam(views: ViewSource, *, strict: bool = False, acceptance: Acceptance = PLAIN) -> Exam:
    """Find LCC, RCC, LMLO and RMLO by what the headers say; file names mean nothing.

    Parameters
    ----------
    views
        A folder (searched with its subfolders), a list of paths or Datasets, or a mapping from
        the view's name to a path, a Dataset or a 2-D uint8/uint16 array. An array is taken as
        display-ready MONOCHROME2 over the full range of its dtype. An `Exam` is returned as it
        is, if it is whole: the choices in it were made, strictly or not, when it was read.
    strict
        Raise `AmbiguousViewError` where several images claim one view, instead of preferring,
        in this order: a view that tags name and not a text alone; no view modifier; a displaced
        implant; lossless; not synthesised; all four views from one device; the whole breast;
        more pixels; the latest acquisition; the highest Instance Number; the greatest SOP
        Instance UID. Raise for a damaged image in a folder, too, instead of leaving it out with a
        note: it may be the one that is meant.
    acceptance
        Which images may be scored beside plain full-field digital mammograms.

    Raises
    ------
    MissingViewError
        A view is absent; the message lists it and what was refused.
    AmbiguousViewError
        Images that differ share one SOP Instance UID.
    MixedExamError
        More than one Patient ID, Study Instance UID or birth date, or days more than one apart.
    ExamError
        A mapping's key contradicts the header, or the argument, or a field of an `Exam`, is of
        another kind.
    NotDicomError, DicomReadError, UnsupportedImageError, PixelError
        An image the caller named itself cannot be used.
    """
    if isinstance(views, Exam):
        return _accepted(views, acceptance)
    if isinstance(views, Mapping):
        return _from_mapping(views, acceptance)
    if isinstance(views, str | os.PathLike):
        listed, unsearched = list_files(views, holding="the DICOM files of one exam")
        files = without_rejected(examine(*file, acceptance) for file in listed)
        return exam_of(unsearched + files, strict=strict)
    if not isinstance(views, Iterable) or isinstance(views, Dataset | np.ndarray | bytes):
        raise ExamError(
            "views",
            found=f"one {type(views).__name__}",
            expected="a folder, a list of paths or Datasets, or a mapping from view to image",
            remedy="Hand over all four views of one exam together.",
        )
    candidates = [
        _read_image(image, f"views[{place}]", acceptance) for place, image in enumerate(views)
    ]
    for candidate in candidates:
        require_view(candidate.mammogram, name=candidate.name)
    return choose(candidates, [], strict=strict)


def _accepted(exam: Exam, acceptance: Acceptance) -> Exam:
    """Refuse an exam that was read for a model which accepts more, or was changed since."""
    require_structure(exam)
    for image in exam.images.values():
        if image.array is not None:
            _display_ready(image.array, image.name)
        if image.acquisition is not None:
            require_accepted(image.acquisition, acceptance, name=image.name)
    return exam


def exam_of(files: Iterable[FoundFile], *, strict: bool, unread_nearby: int = 0) -> Exam:
    """Make an exam of what was found in a folder.

    Parameters
    ----------
    files, strict
        What was found, and whether damage among it is an error.
    unread_nearby
        Files and folders elsewhere that could not be read and may be of this exam; they are told
        by their number alone, for the name of a folder may be a patient's.

    Raises
    ------
    ExamError
        As `read_exam`.
    DicomReadError
        ``strict``, and a damaged file may be the image that is meant.
    """
    files = list(files)
    for file in files:
        if strict and file.error and file.maybe_meant:
            raise file.error
    candidates = [
        Candidate(name=file.name, mammogram=file.mammogram, source=file.path)
        for file in files
        if file.mammogram
    ]
    skipped = [file.note for file in files if file.error]
    if unread_nearby:
        what = "files or folders" if unread_nearby > 1 else "file or folder"
        skipped.append(f"{unread_nearby} {what} nearby, not readable, that may be of this exam")
    return choose(candidates, skipped, strict=strict)


def _path(image: PathSource, place: str) -> Path:
    try:
        return Path(os.fsdecode(image))
    except Exception:  # whatever the path's own __fspath__ raises
        found = f"an object of type {type(image).__name__} that gives no path"
    raise ExamError(
        place,
        found=found,
        expected="a path or a pydicom Dataset",
        remedy="Hand over a str or a pathlib.Path.",
    )


def _read_image(image: object, place: str, acceptance: Acceptance) -> Candidate:
    source: Path | Dataset
    if isinstance(image, str | os.PathLike):
        source = _path(image, place)
        name = printable(source.name) or place
        _require_no_folder(source, name)
        header = gate.read_header_of(source, name=name)
    elif isinstance(image, Dataset):
        source = header = image
        name = place
    elif isinstance(image, Exam):
        raise ExamError(
            place,
            found="an Exam where an image is expected",
            expected="the images of one exam",
            remedy="Hand over one exam at a time, or several to Predictor.predict_many.",
        )
    else:
        raise ExamError(
            place,
            found=f"an object of type {type(image).__name__}",
            expected="a path or a pydicom Dataset",
            remedy='Hand arrays over in a mapping that names their views: {"LCC": array, ...}.',
        )
    mammogram = read_mammogram(header, name=name, acceptance=acceptance)
    return Candidate(name=name, mammogram=mammogram, source=source)


def _require_no_folder(path: Path, name: str) -> None:
    try:
        if not path.is_dir():
            return
    except OSError:  # a name that is too long; whoever opens it says so
        return
    raise ExamError(
        name,
        found="a folder where a file is expected",
        expected="either one folder, or the files of one exam",
        remedy="Hand one folder over alone, not in a list, or name the files in it. Of several "
        "exams, mammoclip-sdk scan (mammoclip_sdk.archive.scan) makes a list for predict_many.",
        code="folder_for_a_file",
    )


def _from_mapping(views: Mapping[Any, object], acceptance: Acceptance) -> Exam:
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
        candidate = _read_image(image, f"views[{view.value}]", acceptance)
        candidates.append(candidate)
        notes += [*candidate.mammogram.notes, *_agreement(view, candidate)]
        images[view] = candidate.as_view(view)
    require_one_exam(candidates)
    _require_distinct(candidates)
    # An array does not say which study it is of.
    study = candidates[0].mammogram.study if len(candidates) == len(VIEWS) else None
    return Exam(images=images, notes=tuple(notes), study_instance_uid=study)


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
    if array.dtype not in (np.uint8, np.uint16) or isinstance(array, np.ma.MaskedArray):
        kind = "a masked array" if isinstance(array, np.ma.MaskedArray) else "an array"
        raise PixelError(
            name,
            found=f"{kind} of {array.dtype.name}",
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
    rows, columns = array.shape
    require_size(rows, columns, name)  # before all of it is looked at
    if array.dtype == np.uint16 and int(array.max()) < _LEAST_MAXIMUM:
        raise PixelError(
            name,
            found=f"uint16 values up to {int(array.max())}, which looks like unscaled 12-bit data",
            expected="display-ready values over the full range 0 to 65535",
            remedy="Apply the window and scale to 65535, or hand over the DICOM file.",
            code="array_range",
        )
    return array
