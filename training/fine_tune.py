"""Adapters on a cohort of one's own: manifest of DICOM exams -> checkpoint, ready for export.

``python -m training.fine_tune --manifest M.csv --model ViT-B-16 --pretrained FILE --out FOLDER``

``--pretrained`` takes a weights file or a checkpoint folder; nothing is downloaded. The state after
each epoch lies in ``FOLDER.unfinished``: the same command goes on from there, and deletes it when
the checkpoint is written.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import typer
from rich import get_console
from rich.console import Console

from mammoclip_sdk.bundle import ModelCard, Preprocessing, sha256
from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.exam import Acceptance
from training import fine_tune_options as options
from training.adapters import AdapterConfig
from training.checkpoint import Provenance, base_sha256
from training.checkpoint_folder import check_free
from training.cohort import CohortExam, Split, devices, load, read_manifest, split
from training.data import PREPROCESSING, ExamSet
from training.errors import CohortError
from training.evaluation import ScoredSet, in_words, limits, measured_auc, trained_finding
from training.model import MammoClip, ModelConfig
from training.pretrain import require_batch
from training.provenance import git_commit
from training.saved_model import save_checkpoint
from training.train import TrainSettings, malignancy_logits, train_adapters

ADAPTER = AdapterConfig(
    rank=None, activation="gelu", placement="mlp", connection="serial", scale=1.0
)
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
    settings: FineTuneSettings,
    manifest: Path,
    out: Path,
    console: Console,
    *,
    command: str,
    overwrite: bool = False,
) -> None:
    """Train the adapters and write a checkpoint with calibration and measured AUC.

    What can be refused without reading an image is refused before that.

    Raises
    ------
    UnusableInputError, ValueError
        ``out`` is taken; the model, the manifest, an exam or the split cannot be used; or nothing
        was learned.
    OSError
        The disk refused.
    """
    check_free(out, overwrite=overwrite)
    provenance = Provenance(git_commit=git_commit(), seed=settings.training.seed, command=command)
    model = _untrained(settings)
    parts = _split(settings, manifest)
    started_from = base_sha256(model.state_dict())
    for name, part in vars(parts).items():
        console.print(f"{name}: {len(part)} exams, {_malignant(part)} malignant")
    exams, acceptance = _load(settings, parts)
    unfinished = out.with_name(f"{out.name}.unfinished")
    out.parent.mkdir(parents=True, exist_ok=True)
    losses = _train(model, settings.training, exams["training"], unfinished, console)
    calibration, test = (
        _scored(model, settings.training, exams[name], f"{name} part of {manifest.name}")
        for name in ("calibration", "test")
    )
    measurement = measured_auc("AUC", settings.finding, test)
    console.print(in_words(measurement))
    shown = limits(measurement, calibration)
    for limit in shown:
        console.print(f"Limit: {limit}", style="bold", soft_wrap=True)
    save_checkpoint(
        out,
        model,
        # The model has a key of its own, of which the export leaves out where its weights lay.
        settings={key: value for key, value in asdict(settings).items() if key != "model"},
        report={
            "losses": losses,
            "trained_share": model.trained_share(),
            "manifest_sha256": sha256(manifest.read_bytes()),
        },
        provenance=provenance,
        preprocessing=settings.preprocessing,
        acceptance=acceptance,
        findings=[trained_finding(settings.finding, settings.training, calibration, test)],
        measurements=[measurement],
        intended_use=INTENDED_USE,
        model_card=_model_card(settings, parts, manifest, shown),
        started_from=started_from,
        overwrite=overwrite,
    )
    unfinished.unlink()
    console.print(f"Wrote {out}", markup=False, soft_wrap=True)


def _split(settings: FineTuneSettings, manifest: Path) -> Split:
    """Split the cohort, or refuse, before hours of training, one to train or measure nothing on."""
    parts = split(
        read_manifest(manifest),
        seed=settings.training.seed,
        calibration_share=settings.calibration_share,
        test_share=settings.test_share,
    )
    problems = [
        f"{_malignant(part)} malignant of {len(part)} exams for {name}"
        for name, part in vars(parts).items()
        if not 2 <= _malignant(part) <= len(part) - 2
    ]
    if problems:
        raise CohortError(
            manifest,
            found="; ".join(problems),
            expected="at least two of each class in every part",
            remedy="Add exams, or try another seed.",
        )
    require_batch(len(parts.training), settings.training.batch_size)
    return parts


def _untrained(settings: FineTuneSettings) -> MammoClip:
    """Build the model the run starts from, and refuse prompts that do not fit into it."""
    torch.manual_seed(settings.training.seed)
    model = MammoClip(settings.model)
    model.tokenize([settings.training.negative_prompt, settings.training.positive_prompt])
    return model


def _malignant(part: tuple[CohortExam, ...]) -> int:
    return sum(exam.malignant for exam in part)


def _train(
    model: MammoClip, training: TrainSettings, exams: ExamSet, unfinished: Path, console: Console
) -> list[float]:
    """Train the adapters, from where an interrupted run stopped; return the loss of each epoch."""
    losses: list[float] = []

    def report(_: str, loss: float) -> None:
        losses.append(loss)
        console.print(f"epoch {len(losses)} of {training.epochs}: loss {loss:.4f}")

    train_adapters(model, training, exams, report=report, unfinished=unfinished)
    return losses


def _scored(model: MammoClip, training: TrainSettings, exams: ExamSet, part: str) -> ScoredSet:
    return ScoredSet(
        positive=exams.malignant.numpy(),
        logits=malignancy_logits(model, training, exams),
        data=f"{part}, {len(exams)} exams",
    )


def _load(settings: FineTuneSettings, parts: Split) -> tuple[dict[str, ExamSet], Acceptance]:
    """Read the exams of every part, and say what a model that is measured on them may score.

    Other devices of the training part count for nothing.
    """
    acceptance = Acceptance(
        implants=settings.accept_implants, synthetic_2d=settings.accept_synthetic_2d, devices=()
    )
    by_name = vars(parts)
    exams = [exam for part in by_name.values() for exam in part]
    read = load(exams, settings.preprocessing, acceptance=acceptance)
    sizes = [len(part) for part in by_name.values()]
    sets = zip(by_name, read.views.split(sizes), read.malignant.split(sizes), strict=True)
    return (
        {name: ExamSet(views=views, malignant=malignant) for name, views, malignant in sets},
        replace(acceptance, devices=devices(parts.test, acceptance)),
    )


def _model_card(
    settings: FineTuneSettings, parts: Split, manifest: Path, shown: tuple[str, ...]
) -> ModelCard:
    exams, malignant = len(parts.training), _malignant(parts.training)
    cohort = f"{settings.training_data.strip()} " if settings.training_data.strip() else ""
    weights = settings.model.pretrained
    base = "random weights" if weights is None else Path(weights).name
    return ModelCard(
        training_data=f"{cohort}Training part of {manifest.name}: {exams} exams, {malignant} "
        f"malignant. Adapters alone, on {settings.model.open_clip_model} with {base}.",
        limitations=(
            *settings.limitations,
            *shown,
            f"Measured on the test part of {manifest.name} alone: whether it holds for other "
            "patients, devices and readers is not known.",
            "Its probabilities are those of the cohort's share of malignant exams.",
        ),
        licence=settings.licence,
    )


def main(
    manifest: options.Manifest,
    pretrained: options.Pretrained,
    out: options.Out,
    model: options.Model = "ViT-B-16",
    height: options.Height = 224,
    width: options.Width = 224,
    n_local: options.NLocal = 2,
    epochs: options.Epochs = 30,
    batch_size: options.BatchSize = 16,
    learning_rate: options.LearningRate = 1e-3,
    negative_prompt: options.NegativePrompt = "a mammogram exam with benign or no findings",
    positive_prompt: options.PositivePrompt = "a mammogram exam with a malignant finding",
    accept_implants: options.AcceptImplants = False,
    accept_synthetic_2d: options.AcceptSynthetic2D = False,
    licence: options.Licence = FineTuneSettings.licence,
    training_data: options.TrainingData = FineTuneSettings.training_data,
    limitations: options.Limitations = None,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 0,
) -> None:
    """Fine-tune the adapters on a cohort. Exit code 2: unusable input."""
    try:
        settings = FineTuneSettings(
            model=ModelConfig(
                open_clip_model=model,
                pretrained=None if pretrained == "random" else pretrained,
                image_size=(height, width),
                n_local=n_local,
                image_adapter=ADAPTER,
                text_adapter=ADAPTER,
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
        command = "python -m training.fine_tune"
        fine_tune(settings, manifest, out, get_console(), command=command, overwrite=overwrite)
    except (MammoClipError, ValueError, OSError) as error:
        Console(stderr=True).print(
            f"No checkpoint was written: {error}", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
