"""The demo model from nothing: phantom exams -> small CLIP -> adapters -> checkpoint.

``python -m training.demo_model --out FOLDER`` makes the exams, pre-trains, trains the adapters on
all four views and, for comparison, on the CC and on the MLO views alone, and measures all three on
exams that nothing before has seen. ``export/build_engine.py`` turns the checkpoint into a bundle.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import get_console
from rich.console import Console

from mammoclip_sdk.bundle import ModelCard, Preprocessing
from mammoclip_sdk.exam import VIEWS, Acceptance, Device, View
from training import fine_tune_options as options
from training.adapters import AdapterConfig
from training.checkpoint import Provenance, base_sha256, is_trained
from training.checkpoint_folder import check_free
from training.data import PREPROCESSING, ExamSet, phantom_set
from training.errors import CheckpointError
from training.evaluation import ScoredSet, measured_auc, trained_finding
from training.model import MammoClip, ModelConfig
from training.phantom import PhantomSettings
from training.pretrain import PretrainSettings, PretrainStage, pretrain
from training.provenance import git_commit
from training.saved_model import save_checkpoint
from training.train import TrainSettings, malignancy_logits, train_adapters
from training.vendor_profiles import PROFILES

FINDING = "malignancy"
INTENDED_USE = (
    "Demonstration and testing of this software on computer-made phantom exams. The model has "
    "never seen a mammogram of a person; what it says about one means nothing."
)
ACCEPTANCE = Acceptance(
    implants=False,
    synthetic_2d=False,
    devices=tuple(
        Device(manufacturer=profile.manufacturer, model=profile.model_name) for profile in PROFILES
    ),
)
"""Phantoms are plain full-field mammograms; every profile writes some of every set."""

MODEL_CARD = ModelCard(
    training_data=(
        "Computer-made phantom exams alone, drawn from a seed. An exam is malignant when a "
        "spiculated mass, a cluster of calcifications or an asymmetry lies in both views of one "
        "breast and not in the other; each of these also occurs in exams that are not malignant."
    ),
    limitations=(
        "It has never seen a mammogram of a person: every figure here holds for phantoms.",
        "Its lesions stand out more than most cancers do, and none is an architectural distortion.",
        "The exams it was measured on come from the generator that made its training exams.",
        "Half of the exams are malignant; in screening it is fewer than one in a hundred.",
    ),
    licence="Apache-2.0",
)

_ADAPTER = AdapterConfig(
    rank=32, activation="gelu", placement="both", connection="serial", scale=1.0
)


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Everything the demo model is made from."""

    seed: int
    model: ModelConfig
    preprocessing: Preprocessing
    pretraining: PretrainSettings
    training: TrainSettings
    contrast: tuple[float, float]
    """Of the lesions in the exams the adapters are trained, calibrated and measured on."""
    training_exams: int
    calibration_exams: int
    test_exams: int
    golden_exams: int


DEMO = DemoSettings(
    seed=2404,
    model=ModelConfig(
        open_clip_model="phantom-clip",
        pretrained=None,
        image_size=(192, 96),
        n_local=3,
        view_embedding="learned",
        image_adapter=_ADAPTER,
        text_adapter=_ADAPTER,
    ),
    preprocessing=replace(PREPROCESSING, height=192, width=96),
    pretraining=PretrainSettings(
        seed=2404,
        stages=(
            PretrainStage(contrast=(0.5, 0.9), exams=1500, epochs=5),
            PretrainStage(contrast=(0.25, 0.6), exams=3000, epochs=12),
        ),
    ),
    training=TrainSettings(
        seed=2404,
        negative_prompt="mammogram exam, benign or normal",
        positive_prompt="mammogram exam, malignant finding in one breast",
        epochs=14,
        batch_size=32,
        learning_rate=2e-3,
    ),
    contrast=(0.3, 0.6),
    training_exams=5000,
    calibration_exams=600,
    test_exams=800,
    golden_exams=8,
)


def make_demo_model(
    settings: DemoSettings, out: Path, console: Console, *, overwrite: bool = False
) -> None:
    """Make the demo checkpoint in ``out/checkpoint``; exams are kept in ``out/exams``."""
    check_free(out / "checkpoint", overwrite=overwrite)
    began = time.monotonic()
    provenance = Provenance(
        git_commit=git_commit(),
        seed=settings.seed,
        command=f"python -m training.demo_model --out {out}",
    )
    losses: list[dict[str, object]] = []

    def report(stage: str, loss: float) -> None:
        losses.append({"stage": stage, "loss": loss})
        console.print(f"{stage}: loss {loss:.4f} after {time.monotonic() - began:.0f} s")

    exams = _make_sets(settings, out / "exams")
    torch.manual_seed(settings.seed)
    base = MammoClip(replace(settings.model, image_adapter=None, text_adapter=None))
    pretrain(base, settings.pretraining, exams.pretraining, report=report)

    measurements = []
    for name, views in _COMPARED.items():
        model = _with_adapters(base, settings)
        trained = replace(settings.training, views=views)
        train_adapters(model, trained, exams.training, report=report)
        measurement = measured_auc(
            name, FINDING, _scored(model, trained, exams.test, settings, _TEST)
        )
        console.print(f"{name}: {measurement.value.estimate:.3f} on {measurement.exams} exams")
        measurements.append(measurement)
        if views == VIEWS:
            four_views = model
    finding = trained_finding(
        FINDING,
        settings.training,
        _scored(four_views, settings.training, exams.calibration, settings, _CALIBRATION),
        _scored(four_views, settings.training, exams.test, settings, _TEST),
    )
    save_checkpoint(
        out / "checkpoint",
        four_views,
        settings=asdict(settings),
        report={
            "losses": losses,
            "seconds": round(time.monotonic() - began),
            "trained_share": four_views.trained_share(),
        },
        provenance=provenance,
        preprocessing=settings.preprocessing,
        acceptance=ACCEPTANCE,
        findings=[finding],
        measurements=measurements,
        intended_use=INTENDED_USE,
        model_card=MODEL_CARD,
        started_from=base_sha256(base.state_dict()),
        golden_views=exams.calibration.views[: settings.golden_exams].float() / 255,
        overwrite=overwrite,
    )


_TRAINING, _CALIBRATION, _TEST = 100, 101, 102
"""Added to the seed: each set is drawn from a seed of its own."""
_COMPARED: dict[str, tuple[View, ...]] = {
    "AUC": VIEWS,
    "AUC of CC views alone": (View.LCC, View.RCC),
    "AUC of MLO views alone": (View.LMLO, View.RMLO),
}


@dataclass(frozen=True, kw_only=True)
class _Sets:
    pretraining: list[ExamSet]
    training: ExamSet
    calibration: ExamSet
    test: ExamSet


def _make_sets(settings: DemoSettings, folder: Path) -> _Sets:
    """Make every set from a seed of its own: no exam is in two of them."""

    def make(name: str, number: int, contrast: tuple[float, float], exams: int) -> ExamSet:
        phantom = PhantomSettings(seed=settings.seed + number, contrast=contrast)
        return phantom_set(
            phantom, exams, settings.preprocessing, cache=folder / f"{name}.safetensors"
        )

    return _Sets(
        pretraining=[
            make(f"pretraining-{number}", number, stage.contrast, stage.exams)
            for number, stage in enumerate(settings.pretraining.stages, start=1)
        ],
        training=make("training", _TRAINING, settings.contrast, settings.training_exams),
        calibration=make(
            "calibration", _CALIBRATION, settings.contrast, settings.calibration_exams
        ),
        test=make("test", _TEST, settings.contrast, settings.test_exams),
    )


def _with_adapters(base: MammoClip, settings: DemoSettings) -> MammoClip:
    """Return a copy of the pre-trained model with fresh adapters."""
    torch.manual_seed(settings.seed)
    model = MammoClip(settings.model)
    missing, unexpected = model.load_state_dict(deepcopy(base.state_dict()), strict=False)
    added = [name for name in missing if is_trained(name)]
    if unexpected or added != list(missing):
        raise ValueError(f"found {unexpected} and no {missing}; expected a model without adapters")
    return model


def _scored(
    model: MammoClip, training: TrainSettings, exams: ExamSet, settings: DemoSettings, number: int
) -> ScoredSet:
    return ScoredSet(
        positive=exams.malignant.numpy(),
        logits=malignancy_logits(model, training, exams),
        data=f"{len(exams)} phantom exams, seed {settings.seed + number}, contrast "
        f"{settings.contrast[0]} to {settings.contrast[1]}, half of them malignant",
    )


def main(
    out: Annotated[Path, typer.Option(help="Folder for exams and checkpoint.")],
    overwrite: options.Overwrite = False,
) -> None:
    """Make the demo model's checkpoint from nothing. Exit code 2: one is there already."""
    try:
        make_demo_model(DEMO, out, get_console(), overwrite=overwrite)
    except CheckpointError as error:
        typer.echo(f"No checkpoint was written: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
