"""A cohort: labelled exams as DICOM files, listed in a manifest and split by patient.

The manifest is a CSV with a row for each view: ``exam``, ``malignant`` (0 or 1), ``view`` and
``file`` (relative to the manifest); ``patient`` too where a patient has several exams. Other
columns are left alone, so that the phantom generator's manifests are cohorts as they are.
"""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.bundle import Preprocessing
from mammoclip_sdk.exam import VIEWS, Acceptance, Device, View
from mammoclip_sdk.views import read_exam
from training.data import ExamSet

_REQUIRED = ("exam", "malignant", "view", "file")


@dataclass(frozen=True, kw_only=True)
class CohortExam:
    """One labelled exam."""

    name: str
    patient: str
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
    ValueError
        Columns, views, labels or files are not as they must be; all problems are named together.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        absent = [column for column in _REQUIRED if column not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(f"{path}: found no column {', '.join(absent)}; expected {_REQUIRED}")
        rows: dict[str, list[dict[str, str]]] = {}
        for row in reader:
            rows.setdefault(row["exam"], []).append(row)
    problems: list[str] = []
    exams = [_exam(name, mine, path.parent, problems) for name, mine in rows.items()]
    if not exams:
        problems.append("no exam")
    if problems:
        shown = "; ".join(problems[:20]) + ("; …" if len(problems) > 20 else "")
        raise ValueError(f"{path}: {len(problems)} problems: {shown}")
    return tuple(exam for exam in exams if exam is not None)


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
    patients = {row.get("patient") or name for row in rows}
    if len(patients) != 1:
        problems.append(f"{name} belongs to {len(patients)} patients; expected one")
    files = {row["view"]: folder / row["file"] for row in rows}
    problems += [
        f"{name} lacks its file {path.name}" for path in files.values() if not path.exists()
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
        digest = hashlib.sha256(f"{seed}/{exam.patient}".encode()).digest()
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
        As `load`.
    """
    named: dict[tuple[str, str], Device] = {}
    for exam in exams:
        for image in read_exam(exam.files, acceptance=acceptance).images.values():
            device = image.acquisition.device
            key = tuple("".join(name.split()).casefold() for name in vars(device).values())
            named.setdefault(key, device)
    return tuple(named[key] for key in sorted(named) if any(key))


def load(
    exams: tuple[CohortExam, ...],
    preprocessing: Preprocessing,
    *,
    what: str,
    acceptance: Acceptance,
    workers: int = 2,
) -> ExamSet:
    """Read exams by the SDK's own stages; an exam that it refuses to score ends the run.

    Raises
    ------
    MammoClipError
        A file cannot be read, or shows another side or view than the manifest says.
    """
    if not exams:
        raise ValueError(f"the {what} set is empty; expected at least one exam")
    jobs = [(exam, preprocessing, acceptance) for exam in exams]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        views = list(track(pool.map(_read, jobs), total=len(jobs), description=what))
    return ExamSet(
        views=torch.from_numpy(np.stack(views)),
        malignant=torch.tensor([exam.malignant for exam in exams]),
    )


def _read(job: tuple[CohortExam, Preprocessing, Acceptance]) -> NDArray[np.uint8]:
    exam, preprocessing, acceptance = job
    read = read_exam(exam.files, acceptance=acceptance)
    _, built = tensor.decode_and_build(read, preprocessing, pixels.decode)
    return np.round(built.tensors["views"][0] * 255).astype(np.uint8)
