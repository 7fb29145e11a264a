"""Phantom exams written as DICOM files, with a manifest and the settings they were drawn from."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from training import encodings
from training.phantom import PhantomExam, PhantomSettings, make_exams

MANIFEST, SETTINGS = "manifest.csv", "settings.json"
MANIFEST_COLUMNS = (
    "exam",
    "malignant",
    "category",
    "view",
    "file",
    "profile",
    "transfer_syntax",
    "caption",
    "exam_caption",
    "boxes",
)


def write_exam(exam: PhantomExam, folder: Path) -> list[dict[str, str]]:
    """Write an exam's four DICOM files into ``folder/<exam>`` and return its manifest rows."""
    place = folder / exam.name
    place.mkdir(parents=True)
    rows = []
    for number, (view, image) in enumerate(exam.views.items(), start=1):
        path = place / f"IM{number:04d}.dcm"
        encodings.write(exam.datasets[view], path, exam.transfer_syntax)
        rows.append(
            {
                "exam": exam.name,
                "malignant": str(int(exam.malignant)),
                "category": exam.category.value,
                "view": view.value,
                "file": path.relative_to(folder).as_posix(),
                "profile": exam.profile.name,
                "transfer_syntax": str(exam.transfer_syntax),
                "caption": image.caption,
                "exam_caption": exam.caption,
                "boxes": json.dumps([asdict(box) for box in image.boxes]),
            }
        )
    return rows


def write_exams(settings: PhantomSettings, exams: int, folder: Path) -> Path:
    """Write a set of exams and its ``settings.json``; return the path of its ``manifest.csv``.

    The manifest is written last: a folder that has one holds the whole set.

    Raises
    ------
    FileExistsError
        The folder holds a set already.
    """
    manifest = folder / MANIFEST
    if manifest.exists():
        raise FileExistsError(f"{manifest} belongs to an earlier set; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    drawn_from = json.dumps(asdict(settings) | {"exams": exams}, indent=2)
    (folder / SETTINGS).write_text(drawn_from + "\n", encoding="utf-8")
    drawn = track(make_exams(settings, exams), total=exams, description="Phantom exams")
    rows = [row for exam in drawn for row in write_exam(exam, folder)]
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, MANIFEST_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def command(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    exams: Annotated[int, typer.Option(min=1, help="How many exams.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the set.")] = 1,
    rows: Annotated[int, typer.Option(help="Rows of every image, up to 4096.")] = 2048,
    columns: Annotated[int, typer.Option(help="Columns of every image, up to 3328.")] = 1664,
    malignant_share: Annotated[
        float, typer.Option(help="Share of malignant exams.")
    ] = PhantomSettings.malignant_share,
    contrast: Annotated[
        tuple[float, float], typer.Option(help="Range of the lesions' contrast, 0 to 1.")
    ] = PhantomSettings.contrast,
    incidental_share: Annotated[
        float, typer.Option(help="Share of exams with an innocent lesion beside.")
    ] = PhantomSettings.incidental_share,
    transfer_syntax: Annotated[
        str | None,
        typer.Option(
            help="UID that every file is encoded in; 1.2.840.10008.1.2.1 writes native pixels. "
            "Left out, each vendor's own."
        ),
    ] = None,
) -> None:
    """Write phantom exams as DICOM files with a manifest and their settings."""
    try:
        settings = PhantomSettings(
            seed=seed,
            rows=rows,
            columns=columns,
            malignant_share=malignant_share,
            contrast=contrast,
            incidental_share=incidental_share,
            transfer_syntax=transfer_syntax,
        )
        write_exams(settings, exams, out)
    except (ValueError, FileExistsError) as error:
        typer.echo(f"No exams were written: {error}", err=True)
        raise typer.Exit(2) from error


def run() -> None:
    """Be ``python -m training.phantom``."""
    typer.run(command)
