"""A folder of many studies -> the exams in it, by what the headers say.

Which files are of one study, their headers tell wherever they lie; of a file that does not tell,
the folders around it say whose it may be.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

from mammoclip_sdk.errors import InputError
from mammoclip_sdk.exam import PLAIN, Acceptance, Exam
from mammoclip_sdk.views import exam_of
from mammoclip_sdk.views.folder import FoundFile, list_files, without_rejected
from mammoclip_sdk.views.header_reading import Progress, read_headers


@dataclass(frozen=True, kw_only=True)
class Incomplete:
    """A study that did not become an exam."""

    name: str
    """Its folder, or its first file where that folder holds other studies too."""
    files: tuple[str, ...]
    error: InputError


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that is no candidate for a view, or a folder that was not searched."""

    name: str
    error: InputError


@dataclass(frozen=True, kw_only=True)
class Archive:
    """What a folder holds; names are paths below it, and everything is in their order."""

    exams: tuple[Exam, ...]
    incomplete: tuple[Incomplete, ...]
    skipped: tuple[Skipped, ...]


def scan(
    folder: str | os.PathLike[str],
    *,
    strict: bool = False,
    acceptance: Acceptance = PLAIN,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Archive:
    """Find the exams in a folder with any number of studies; no pixel is decoded.

    Parameters
    ----------
    folder
        Searched with its subfolders. Studies are told apart by Study Instance UID and Patient ID,
        wherever their files lie.
    strict, acceptance
        As for `views.read_exam`; a study that does not meet them is incomplete. A damaged file
        that does not say its study is told in the notes of every exam with images in its folder;
        with ``strict`` those studies are incomplete. Where no image lies beside it, the exams in
        the nearest folder around it count it in a note, if they are of one patient.
    workers
        Most processes to read with, this one included; None takes one for each core.
    progress
        Called from this thread with the number of files read and of all files.

    Raises
    ------
    ExamError
        It is no folder.
    ValueError
        ``workers`` is less than 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; expected 1 or more")
    jobs, unsearched = list_files(folder, holding="the DICOM files of any number of studies")
    read = read_headers(jobs, acceptance, workers=workers, progress=progress)
    files = unsearched + without_rejected(read)
    studies = _studies(files)
    damaged = _damaged(files)
    nearby = _unread_nearby(files)
    exams: list[Exam] = []
    incomplete: list[Incomplete] = []
    for name, study in zip(_names(studies), studies, strict=True):
        beside = [file for place in {_place(file) for file in study} for file in damaged[place]]
        try:
            around = nearby[str(study[0].study)]
            exams.append(exam_of([*study, *beside], strict=strict, unread_nearby=around))
        except InputError as error:
            members = tuple(file.name for file in study)
            incomplete.append(Incomplete(name=name, files=members, error=error))
    return Archive(
        exams=tuple(exams),
        incomplete=tuple(incomplete),
        skipped=tuple(Skipped(name=file.name, error=file.error) for file in files if file.error),
    )


def _studies(files: list[FoundFile]) -> list[list[FoundFile]]:
    """Group by Study Instance UID what has at least one candidate for a view."""
    studies: dict[str, list[FoundFile]] = {}
    for file in files:
        if file.study is not None:
            studies.setdefault(file.study, []).append(file)
    return [study for study in studies.values() if any(file.mammogram for file in study)]


def _names(studies: list[list[FoundFile]]) -> list[str]:
    """Name each study by its folder, or by its first file where that says too little."""
    places = [os.path.commonpath([_place(file) for file in study]) or "." for study in studies]
    counts = Counter(places)
    return [
        place if counts[place] == 1 else study[0].name
        for place, study in zip(places, studies, strict=True)
    ]


def _damaged(files: list[FoundFile]) -> defaultdict[str, list[FoundFile]]:
    """Return what might be a missing image of any study beside it, by folder."""
    damaged: defaultdict[str, list[FoundFile]] = defaultdict(list)
    for file in files:
        if file.maybe_meant and file.study is None:
            damaged[_place(file)].append(file)
    return damaged


def _unread_nearby(files: list[FoundFile]) -> Counter[str]:
    """Count, by study, what is damaged in folders without images and may be of it.

    A study may have a folder for each series, and a patient one for each study. Which studies a
    file may be of, the nearest folder around it says that holds any; of several patients, none is.
    """
    counts: Counter[str] = Counter()
    damaged = [file for file in files if file.maybe_meant and file.study is None]
    if not damaged:
        return counts
    held: defaultdict[PurePosixPath, set[str]] = defaultdict(set)
    patients: defaultdict[str, set[str]] = defaultdict(set)
    for file in files:
        if file.study is not None:
            for folder in PurePosixPath(file.name).parents:
                held[folder].add(file.study)
            if file.mammogram is not None:
                patients[file.study].add(file.mammogram.patient)
    with_images = {_place(file) for file in files if file.study is not None}
    for file in damaged:
        if _place(file) not in with_images:
            around = next((held[it] for it in PurePosixPath(file.name).parents if it in held), ())
            if len(set().union(*(patients[study] for study in around))) == 1:
                counts.update(around)
    return counts


def _place(file: FoundFile) -> str:
    folder = PurePosixPath(file.name).parent
    return str(folder) if folder.name else ""
