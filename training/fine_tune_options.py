"""The options of ``python -m training.fine_tune``: their types, names and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Manifest = Annotated[
    Path, typer.Option(help="CSV of the exams: exam, malignant, view, file, patient.")
]
Pretrained = Annotated[
    str, typer.Option(help="Weights file on disk, checkpoint folder, or: random.")
]
Out = Annotated[Path, typer.Option(help="Checkpoint folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier checkpoint.")]
Model = Annotated[
    str, typer.Option(help="open_clip model; OpenAI's own weights need one with -quickgelu.")
]
Height = Annotated[int, typer.Option(min=1, help="Rows of the model input.")]
Width = Annotated[int, typer.Option(min=1, help="Columns of the model input.")]
NLocal = Annotated[int, typer.Option(help="Blocks that see one view at a time.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training exams.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Exams per step.")]
LearningRate = Annotated[float, typer.Option(help="Peak of AdamW's rate.")]
NegativePrompt = Annotated[str, typer.Option(help="Says that there is no cancer.")]
PositivePrompt = Annotated[str, typer.Option(help="Says that there is.")]
AcceptImplants = Annotated[
    bool, typer.Option("--accept-implants", help="The cohort has breasts with implants.")
]
AcceptSynthetic2D = Annotated[
    bool, typer.Option("--accept-synthetic-2d", help="The cohort has synthetic 2D images.")
]
Licence = Annotated[str, typer.Option(help="Of the weights, as an SPDX expression.")]
TrainingData = Annotated[
    str, typer.Option(help="For the model card: where the cohort's exams come from.")
]
Limitations = Annotated[
    list[str] | None,
    typer.Option("--limitation", help="For the model card; may be given several times."),
]
Seed = Annotated[int, typer.Option(help="Of weights, order and split.")]
