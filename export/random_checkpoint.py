"""A checkpoint of random weights: for figures of export and speed that anyone can make again.

``python -m export.random_checkpoint --model ViT-B-16 --seed 1 --out FOLDER``
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from mammoclip_sdk.bundle import ModelCard, Preprocessing
from mammoclip_sdk.exam import PLAIN
from training.adapters import AdapterConfig
from training.checkpoint import Provenance, TrainedFinding, is_trained
from training.data import PREPROCESSING
from training.model import MammoClip, ModelConfig
from training.provenance import git_commit
from training.saved_model import save_checkpoint

FINDINGS = (
    TrainedFinding(
        name="malignancy",
        negative_prompt="a mammogram exam with benign or no findings",
        positive_prompt="a mammogram exam with a malignant finding",
    ),
    TrainedFinding(
        name="calcifications",
        negative_prompt="a mammogram exam without calcifications",
        positive_prompt="a mammogram exam with suspicious calcifications",
    ),
)
_INTENDED_USE = "Measuring export, parity and speed. Its weights are random: it knows nothing."
_SPREAD = 0.05
"""Standard deviation of what is added to every weight that starts neutral."""


@dataclass(frozen=True, kw_only=True)
class RandomSettings:
    """Everything a checkpoint of random weights depends on."""

    model: ModelConfig
    preprocessing: Preprocessing
    seed: int


def random_model(config: ModelConfig, seed: int) -> MammoClip:
    """Return a model of random weights, none of which is neutral, as after training.

    open_clip's own initialisation gives activations of the size that its training starts from;
    norms, biases and adapters, which start as ones and zeros, get a random part.
    """
    torch.manual_seed(seed)
    model = MammoClip(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if is_trained(name) or parameter.ndim == 1:
            parameter.add_(_SPREAD * torch.randn_like(parameter))
    return model


def write_random_checkpoint(
    settings: RandomSettings, out: Path, *, command: str, overwrite: bool = False
) -> None:
    """Write the checkpoint of a random model, ready for export, with uncalibrated findings."""
    provenance = Provenance(git_commit=git_commit(), seed=settings.seed, command=command)
    save_checkpoint(
        out,
        random_model(settings.model, settings.seed),
        settings=asdict(settings),
        report={},
        provenance=provenance,
        preprocessing=settings.preprocessing,
        acceptance=PLAIN,
        findings=FINDINGS,
        intended_use=_INTENDED_USE,
        model_card=ModelCard(
            training_data=f"None: the weights were drawn at random from seed {settings.seed}.",
            limitations=(
                "It was never trained: its answers say nothing about any exam.",
                "Activations of trained weights can be larger than those of random ones.",
            ),
            licence="Apache-2.0",
        ),
        overwrite=overwrite,
    )


def main(
    out: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    model: Annotated[str, typer.Option(help="Name of an open_clip model.")] = "ViT-B-16",
    height: Annotated[int, typer.Option(help="Of a view, in pixels.")] = PREPROCESSING.height,
    width: Annotated[int, typer.Option(help="Of a view, in pixels.")] = PREPROCESSING.width,
    n_local: Annotated[int, typer.Option(help="Blocks that see one view at a time.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier checkpoint.")
    ] = False,
) -> None:
    """Write a checkpoint of random weights with adapters. Exit code 2: unusable settings."""
    adapter = AdapterConfig(
        rank=None, activation="gelu", placement="both", connection="serial", scale=1.0
    )
    try:
        settings = RandomSettings(
            model=ModelConfig(
                open_clip_model=model,
                pretrained=None,
                image_size=(height, width),
                n_local=n_local,
                view_embedding="learned",
                image_adapter=adapter,
                text_adapter=adapter,
            ),
            preprocessing=replace(PREPROCESSING, height=height, width=width),
            seed=seed,
        )
        command = f"python -m export.random_checkpoint --model {model} --seed {seed}"
        write_random_checkpoint(settings, out, command=command, overwrite=overwrite)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"No checkpoint was written: {error}", markup=False)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
