"""The state of a training after each epoch: interrupted, it goes on and ends as if it had not been.

The state lies in one file, which `torch.load` reads as tensors and plain values, never as code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch

from training.checkpoint import tensors_sha256
from training.data import ExamSet
from training.errors import TrainingError
from training.model import MammoClip


@dataclass(frozen=True, kw_only=True)
class MovingParts:
    """All that changes from epoch to epoch, besides torch's own random state."""

    model: MammoClip
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator


def run_sha256(model: MammoClip, settings: Mapping[str, object], exams: ExamSet) -> str:
    """Return what tells a run from every other: its starting weights, settings and exams."""
    tensors = {**model.state_dict(), "exams": exams.views, "labels": exams.malignant}
    keys = [asdict(model.config), settings, tensors_sha256(tensors)]
    return sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()


def keep(file: Path, run: str, losses: list[float], parts: MovingParts) -> None:
    """Write the state after an epoch; the file holds the last epoch or this one, never a half."""
    trained = {name: p.detach() for name, p in parts.model.trainable_parameters().items()}
    state = {
        "run": run,
        "losses": losses,
        "trained": trained,
        "optimizer": parts.optimizer.state_dict(),
        "schedule": parts.schedule.state_dict(),
        "generator": parts.generator.get_state(),
        "torch": torch.get_rng_state(),
    }
    new = file.with_name(f"{file.name}.new")
    torch.save(state, new)
    new.replace(file)


def go_on(file: Path, run: str, parts: MovingParts) -> list[float]:
    """Bring a run back to its last whole epoch, and return the losses so far; none for a new run.

    Raises
    ------
    TrainingError
        The file is another run's, or damaged.
    """
    if not file.exists():
        return []
    try:
        state = torch.load(file, weights_only=True)
        same = state["run"] == run
    except Exception as error:  # zip, pickle and torch each raise their own
        raise _unusable(file, f"no state that can be read ({type(error).__name__})") from error
    if not same:
        raise _unusable(file, "the state of a run with other settings, weights or exams")
    parts.model.load_state_dict(state["trained"], strict=False)
    parts.optimizer.load_state_dict(state["optimizer"])
    parts.schedule.load_state_dict(state["schedule"])
    parts.generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    return list(state["losses"])


def _unusable(file: Path, found: str) -> TrainingError:
    return TrainingError(
        file,
        found=found,
        expected="what this run left when it was interrupted, or no such file",
        remedy="Delete it to train from the start, or write to another folder.",
    )
