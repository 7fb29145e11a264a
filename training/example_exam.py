"""The example exam that ships beside the demo bundle: an unseen phantom, written as DICOM.

``python -m training.example_exam --out FOLDER``
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Annotated

import typer
from pydicom.uid import JPEG2000Lossless

from training.demo_model import DEMO
from training.encodings import write
from training.phantom import PhantomExam, PhantomSettings, make_exam

EXAMPLE = PhantomSettings(
    seed=DEMO.seed + 200, rows=1280, columns=1040, contrast=DEMO.contrast, incidental_share=0.0
)
"""A seed of its own: no set of exams the demo model was made from holds it."""


def example_exam() -> PhantomExam:
    """Return the first exam of its set that is malignant and whose vendor writes JPEG 2000."""
    exams = (make_exam(EXAMPLE, index) for index in itertools.count())
    return next(
        exam
        for exam in exams
        if exam.malignant and exam.profile.transfer_syntax == JPEG2000Lossless
    )


def main(out: Annotated[Path, typer.Option(help="Folder; its DICOM files are replaced.")]) -> None:
    """Write the example exam."""
    exam = example_exam()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for number, dataset in enumerate(exam.datasets.values(), start=1):
        write(dataset, out / f"IM{number:04d}.dcm", exam.profile.transfer_syntax)


if __name__ == "__main__":
    typer.run(main)
