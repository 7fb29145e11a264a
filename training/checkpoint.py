"""What a checkpoint says of itself, and the hashes by which its tensors are known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mammoclip_sdk.bundle import (
    Calibration,
    Measurement,
    ModelCard,
    OperatingPoint,
    Preprocessing,
)
from mammoclip_sdk.exam import Acceptance

FORMAT = 4
CONFIG, WEIGHTS, GOLDEN = "config.json", "model.safetensors", "golden.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainedFinding:
    """A question the model was trained to answer, with its two prompts."""

    name: str
    negative_prompt: str
    positive_prompt: str
    calibration: Calibration | None = None
    operating_points: tuple[OperatingPoint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a checkpoint came about."""

    git_commit: str
    seed: int | None
    command: str


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """``config.json``: everything about a checkpoint but its tensors."""

    model: Mapping[str, object]
    """`ModelConfig`, key by key."""
    architecture: Mapping[str, object]
    """The open_clip configuration the model was built from."""
    settings: Mapping[str, object]
    """Of the command that wrote the checkpoint."""
    report: Mapping[str, object]
    """What the command measured on the way."""
    base_sha256: str
    """`base_sha256` of the tensors: which weights the adapters were trained on."""
    trained_sha256: str
    """`trained_sha256` of the tensors."""
    golden_sha256: str | None
    """`tensors_sha256` of the golden exams; None where there are none."""
    provenance: Provenance | None = None
    preprocessing: Preprocessing | None = None
    acceptance: Acceptance | None = None
    findings: tuple[TrainedFinding, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    intended_use: str = ""
    model_card: ModelCard | None = None
    format: int = FORMAT


def is_trained(name: str) -> bool:
    """Whether a tensor belongs to what is trained: the adapters, and a learned view embedding."""
    return "_adapter." in name or name == "image.view_embedding"


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values, one tensor after the other by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def base_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the `tensors_sha256` of all that is not trained."""
    return tensors_sha256({name: t for name, t in tensors.items() if not is_trained(name)})


def trained_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the `tensors_sha256` of all that is."""
    return tensors_sha256({name: t for name, t in tensors.items() if is_trained(name)})
