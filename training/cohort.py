"""A cohort: labelled exams as DICOM files, listed in a manifest and split by patient.

The manifest is a CSV with a row for each view: ``exam``, ``malignant`` (0 or 1), ``view`` and
``file`` (relative to the manifest); ``patient`` too where a patient has several exams. Other
columns are left alone, so that the phantom generator's manifests are cohorts as they are.

Whatever is wrong is told all at once, before the first hour of training: of the manifest, then of
every exam in it.
"""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import torch
from numpy.typing import NDArray
from rich.progress import track

from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.bundle import Preprocessing
from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.exam import VIEWS, Acceptance, Device, View
from mammoclip_sdk.views import read_exam
from training.data import ExamSet
from training.errors import CohortError, together

_REQUIRED = ("exam", "malignant", "view", "file")
_WORKERS = min(8, os.cpu_count() or 1)
"""Each of them imports torch, and holds an exam's images."""


@dataclass(frozen=True, kw_only=True)
class CohortExam:
    """One labelled exam."""

    name: str
    patient: str | None
    """None where the manifest does not say, so that it must be the patient's only exam."""
    malignant: bool
    files: Mapping[View, Path]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Three parts of a cohort; no patient is in two of them."""

    training: tuple[CohortExam, ...]
    calibration: tuple[CohortExam, ...]
    test: tuple[CohortExam, ...]


def read_manifest(path: Path) -> tuple[CohortExam, ...]:
    """Read a cohort's manifest; no image is opened.

    Raises
    ------
    CohortError
        Columns, views, labels or files are not as they must be; all problems are named together.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    for row in _rows(path):
        rows.setdefault(row["exam"], []).append(row)
    problems: list[str] = []
    exams = [_exam(name, mine, path.parent, problems) for name, mine in rows.items()]
    named = Counter(file for exam in exams if exam is not None for file in exam.files.values())
    problems += [f"{file} is named {n} times" for file, n in named.items() if n > 1]
    if problems or not exams:
        raise CohortError(
            path,
            found=f"{len(problems)} problems: {together(problems)}" if problems else "no exam",
            expected=f"for each exam a row for each of {', '.join(VIEWS)}, with a file of its own "
            "and the exam's label, 0 or 1",
            remedy="Mend these rows, or take the exams out.",
        )
    return tuple(exam for exam in exams if exam is not None)


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV, an absent value as an empty one; a byte order mark is skipped."""
    expected = f"UTF-8 with comma-separated columns, {', '.join(_REQUIRED)} among them"
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            columns, rows = reader.fieldnames or (), list(reader)
    except OSError as error:
        raise CohortError(
            path,
            found="a folder" if path.is_dir() else f"no file to read ({error.strerror})",
            expected=f"a CSV file: {expected}",
            remedy="Name the manifest's own path.",
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        found = f"text that is no CSV in UTF-8 ({error})"
        raise CohortError(path, found=found, expected=expected, remedy="Save it again.") from error
    absent = [column for column in _REQUIRED if column not in columns]
    if absent:
        raise CohortError(
            path,
            found=f"no column {', '.join(absent)} among {', '.join(columns) or 'none'}",
            expected=expected,
            remedy="Name the columns in the first row.",
        )
    return rows


def _exam(
    name: str, rows: list[dict[str, str]], folder: Path, problems: list[str]
) -> CohortExam | None:
    before = len(problems)
    found = sorted(row["view"] for row in rows)
    if found != sorted(VIEWS):
        problems.append(f"{name} has the views {found}; expected each of {[*VIEWS]} once")
    labels = {row["malignant"] for row in rows}
    if labels not in ({"0"}, {"1"}):
        problems.append(f"{name} is labelled {sorted(labels)}; expected 0 or 1 in every row")
    patients = {row.get("patient") or None for row in rows}
    if len(patients) != 1:
        problems.append(f"{name} belongs to {len(patients)} patients; expected one")
    files = {row["view"]: folder / row["file"] for row in rows}
    problems += [
        f"{name} lacks its file {path.name}" for path in files.values() if not path.is_file()
    ]
    if len(problems) > before:
        return None
    return CohortExam(
        name=name,
        patient=patients.pop(),
        malignant=labels == {"1"},
        files={view: files[view] for view in VIEWS},
    )


def split(
    exams: Iterable[CohortExam], *, seed: int, calibration_share: float, test_share: float
) -> Split:
    """Split a cohort by a hash of the patient.

    A patient's part depends on the seed and on that patient alone: exams that are added later
    never move an earlier one from the test set into training.
    """
    if min(calibration_share, test_share) < 0 or calibration_share + test_share >= 1:
        raise ValueError(
            f"shares are {calibration_share} and {test_share}; expected none negative, sum below 1"
        )
    parts: tuple[list[CohortExam], list[CohortExam], list[CohortExam]] = ([], [], [])
    for exam in exams:
        digest = hashlib.sha256(f"{seed}/{exam.patient or exam.name}".encode()).digest()
        place = int.from_bytes(digest[:8]) / 2**64
        if place < test_share:
            parts[2].append(exam)
        else:
            parts[1 if place < test_share + calibration_share else 0].append(exam)
    return Split(training=tuple(parts[0]), calibration=tuple(parts[1]), test=tuple(parts[2]))


def devices(exams: Iterable[CohortExam], acceptance: Acceptance) -> tuple[Device, ...]:
    """Return the kinds of system that the exams' headers name, sorted; no pixel is decoded.

    Raises
    ------
    MammoClipError
        An exam cannot be read.
    """
    named: dict[tuple[str, str], Device] = {}
    for exam in exams:
        for image in read_exam(exam.files, acceptance=acceptance).images.values():
            device = image.acquisition.device
            key = tuple("".join(name.split()).casefold() for name in vars(device).values())
            named.setdefault(key, device)
    return tuple(named[key] for key in sorted(named) if any(key))


def load(
    exams: Sequence[CohortExam],
    preprocessing: Preprocessing,
    *,
    acceptance: Acceptance,
    workers: int = _WORKERS,
) -> ExamSet:
    """Read exams by the SDK's own stages: what it would not score, no model is trained on.

    Raises
    ------
    CohortError
        Exams that cannot be read, or show another side or view than the manifest says; or a
        patient with several exams whom the manifest does not name. All of them are listed.
    """
    jobs = [(exam, preprocessing, acceptance) for exam in exams]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        read = list(track(pool.map(_read, jobs), total=len(jobs), description="Reading exams"))
    refused = [
        f"{exam.name}: {outcome}"
        for exam, outcome in zip(exams, read, strict=True)
        if isinstance(outcome, MammoClipError)
    ]
    if refused:
        raise CohortError(
            "the cohort",
            found=f"{len(refused)} of {len(exams)} exams that are not fit to be scored",
            expected="exams that a workstation would accept",
            remedy="\n  ".join(("Mend them, or take them out of the manifest:", *refused)),
        )
    _require_known_patients(exams, [patient for _, patient in read])
    return ExamSet(
        views=torch.from_numpy(np.stack([views for views, _ in read])),
        malignant=torch.tensor([exam.malignant for exam in exams]),
    )


def _read(
    job: tuple[CohortExam, Preprocessing, Acceptance],
) -> tuple[NDArray[np.uint8], str] | MammoClipError:
    """Return an exam's views and its Patient ID (0010,0020), or why it cannot be had."""
    exam, preprocessing, acceptance = job
    try:
        read = read_exam(exam.files, acceptance=acceptance)
        _, built = tensor.decode_and_build(read, preprocessing, pixels.decode)
    except MammoClipError as error:
        return error
    header = pydicom.dcmread(
        exam.files[VIEWS[0]], force=True, stop_before_pixels=True, specific_tags=["PatientID"]
    )
    views = np.round(built.tensors["views"][0] * 255).astype(np.uint8)
    return views, str(header.get("PatientID", "")).strip()


def _require_known_patients(exams: Sequence[CohortExam], headers: Sequence[str]) -> None:
    """Refuse exams of one patient that the split would take for two: it could part them."""
    named: dict[str, list[str]] = {}
    for exam, patient in zip(exams, headers, strict=True):
        if exam.patient is None and patient:
            named.setdefault(patient, []).append(exam.name)
    shared = [", ".join(names) for names in named.values() if len(names) > 1]
    if shared:
        raise CohortError(
            "the cohort",
            found=f"one Patient ID in the exams {together(shared)}",
            expected="the patients' names, so that none is both in training and in the test",
            remedy="Give the manifest a column patient; any name will do that tells them apart.",
        )
