"""Adapters on a cohort of one's own: manifest of DICOM exams -> checkpoint, ready for export.

``python -m training.fine_tune --manifest M.csv --model ViT-B-16 --pretrained openai --out FOLDER``

``--pretrained`` takes an open_clip tag, a weights file or a checkpoint folder; where the hub
cannot be reached, one of the latter two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from mammoclip_sdk.bundle import ModelCard, Preprocessing
from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.exam import Acceptance
from training.adapters import AdapterConfig
from training.checkpoint import Provenance, base_sha256
from training.cohort import Split, devices, load, read_manifest, split
from training.data import PREPROCESSING
from training.evaluation import ScoredSet, measured_auc, trained_finding
from training.model import MammoClip, ModelConfig
from training.provenance import git_commit
from training.saved_model import save_checkpoint
from training.train import TrainSettings, malignancy_logits, train_adapters

INTENDED_USE = "Research on the cohort the model was trained on."


@dataclass(frozen=True, kw_only=True)
class FineTuneSettings:
    """Everything a fine-tuning run depends on, but the exams themselves."""

    model: ModelConfig
    preprocessing: Preprocessing
    training: TrainSettings
    accept_implants: bool = False
    """Whether breasts with implants are part of the cohort, and may be scored."""
    accept_synthetic_2d: bool = False
    """Whether 2D images synthesised from tomosynthesis are, and may be."""
    finding: str = "malignancy"
    calibration_share: float = 0.15
    """Share of the patients kept for calibration and operating points."""
    test_share: float = 0.15
    """Share of the patients kept for measuring alone."""
    licence: str = "LicenseRef-unstated"
    """Of the weights, as an SPDX expression: it follows from those of the base model and the
    cohort."""
    training_data: str = ""
    """What the cohort is, for the model card, which says how many exams it has in any case."""
    limitations: tuple[str, ...] = ()
    """For the model card, beside those that follow from how the model was measured."""


def fine_tune(
    settings: FineTuneSettings, manifest: Path, out: Path, console: Console, *, command: str
) -> None:
    """Train the adapters and write a checkpoint with calibration and measured AUC.

    Raises
    ------
    ValueError
        The manifest, the model or the split cannot be used.
    MammoClipError
        An exam cannot be read.
    """
    provenance = Provenance(git_commit=git_commit(), seed=settings.training.seed, command=command)
    parts = split(
        read_manifest(manifest),
        seed=settings.training.seed,
        calibration_share=settings.calibration_share,
        test_share=settings.test_share,
    )
    _check_classes(parts)
    acceptance = _acceptance(settings, parts)
    torch.manual_seed(settings.training.seed)
    model = MammoClip(settings.model)
    started_from = base_sha256(model.state_dict())
    losses: list[float] = []

    def report(_: str, loss: float) -> None:
        losses.append(loss)
        console.print(f"epoch {len(losses)}: loss {loss:.4f}")

    exams = {
        name: load(getattr(parts, name), settings.preprocessing, what=name, acceptance=acceptance)
        for name in ("training", "calibration", "test")
    }
    train_adapters(model, settings.training, exams["training"], report=report)
    calibration, test = (
        ScoredSet(
            positive=exams[name].malignant.numpy(),
            logits=malignancy_logits(model, settings.training, exams[name]),
            data=f"{name} part of {manifest.name}, {len(exams[name])} exams",
        )
        for name in ("calibration", "test")
    )
    measurement = measured_auc("AUC", settings.finding, test)
    console.print(f"AUC {measurement.value.estimate:.3f} on {measurement.exams} exams")
    save_checkpoint(
        out,
        model,
        settings=asdict(settings),
        report={"losses": losses, "trained_share": model.trained_share()},
        provenance=provenance,
        preprocessing=settings.preprocessing,
        acceptance=acceptance,
        findings=[trained_finding(settings.finding, settings.training, calibration, test)],
        measurements=[measurement],
        intended_use=INTENDED_USE,
        model_card=_model_card(settings, parts, manifest),
        started_from=started_from,
    )


def _model_card(settings: FineTuneSettings, parts: Split, manifest: Path) -> ModelCard:
    exams, malignant = len(parts.training), sum(exam.malignant for exam in parts.training)
    cohort = f"{settings.training_data.strip()} " if settings.training_data.strip() else ""
    weights = settings.model.pretrained
    base = "random weights" if weights is None else Path(weights).name
    return ModelCard(
        training_data=f"{cohort}Training part of {manifest.name}: {exams} exams, {malignant} "
        f"malignant. Adapters alone, on {settings.model.open_clip_model} with {base}.",
        limitations=(
            *settings.limitations,
            f"Measured on the test part of {manifest.name} alone: whether it holds for other "
            "patients, devices and readers is not known.",
            "Its probabilities are those of the cohort's share of malignant exams.",
        ),
        licence=settings.licence,
    )


def _check_classes(parts: Split) -> None:
    """Refuse, before hours of training, a split on which nothing could be measured."""
    problems = []
    for name, exams in vars(parts).items():
        malignant = sum(exam.malignant for exam in exams)
        if min(malignant, len(exams) - malignant) < 2:
            problems.append(f"{name} has {malignant} malignant of {len(exams)} exams")
    if problems:
        raise ValueError(
            f"{'; '.join(problems)}; expected at least two of each class in every part. "
            "Add exams or try another seed."
        )


def _acceptance(settings: FineTuneSettings, parts: Split) -> Acceptance:
    """What the model is measured on: other devices of the training part count for nothing."""
    acceptance = Acceptance(
        implants=settings.accept_implants, synthetic_2d=settings.accept_synthetic_2d, devices=()
    )
    return replace(acceptance, devices=devices(parts.test, acceptance))


def main(
    manifest: Annotated[
        Path, typer.Option(help="CSV of the exams: exam, malignant, view, file, patient.")
    ],
    pretrained: Annotated[
        str, typer.Option(help="open_clip tag, weights file, checkpoint folder, or: random.")
    ],
    out: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    model: Annotated[str, typer.Option(help="open_clip model.")] = "ViT-B-16",
    height: Annotated[int, typer.Option(help="Rows of the model input.")] = 224,
    width: Annotated[int, typer.Option(help="Columns of the model input.")] = 224,
    n_local: Annotated[int, typer.Option(help="Blocks that see one view at a time.")] = 2,
    epochs: Annotated[int, typer.Option(help="Passes over the training exams.")] = 30,
    batch_size: Annotated[int, typer.Option(help="Exams per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Peak of AdamW's rate.")] = 1e-3,
    negative_prompt: Annotated[
        str, typer.Option(help="Says that there is no cancer.")
    ] = "a mammogram exam with benign or no findings",
    positive_prompt: Annotated[
        str, typer.Option(help="Says that there is.")
    ] = "a mammogram exam with a malignant finding",
    accept_implants: Annotated[
        bool, typer.Option("--accept-implants", help="The cohort has breasts with implants.")
    ] = False,
    accept_synthetic_2d: Annotated[
        bool, typer.Option("--accept-synthetic-2d", help="The cohort has synthetic 2D images.")
    ] = False,
    licence: Annotated[
        str, typer.Option(help="Of the weights, as an SPDX expression.")
    ] = FineTuneSettings.licence,
    training_data: Annotated[
        str, typer.Option(help="For the model card: where the cohort's exams come from.")
    ] = FineTuneSettings.training_data,
    limitations: Annotated[
        list[str] | None,
        typer.Option("--limitation", help="For the model card; may be given several times."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and split.")] = 0,
) -> None:
    """Fine-tune the adapters on a cohort. Exit code 2: unusable input."""
    adapter = AdapterConfig(
        rank=None, activation="gelu", placement="mlp", connection="serial", scale=1.0
    )
    try:
        settings = FineTuneSettings(
            model=ModelConfig(
                open_clip_model=model,
                pretrained=None if pretrained == "random" else pretrained,
                image_size=(height, width),
                n_local=n_local,
                image_adapter=adapter,
                text_adapter=adapter,
            ),
            preprocessing=replace(PREPROCESSING, height=height, width=width),
            training=TrainSettings(
                seed=seed,
                negative_prompt=negative_prompt,
                positive_prompt=positive_prompt,
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
            ),
            accept_implants=accept_implants,
            accept_synthetic_2d=accept_synthetic_2d,
            licence=licence,
            training_data=training_data,
            limitations=tuple(limitations or ()),
        )
        fine_tune(settings, manifest, out, Console(), command="python -m training.fine_tune")
    except (MammoClipError, ValueError, OSError) as error:
        Console(stderr=True).print(f"No checkpoint was written: {error}", markup=False)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
