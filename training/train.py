"""Adapters on four-view exams: everything else frozen, classes told apart by two prompts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch.nn import functional

from mammoclip_sdk.exam import VIEWS, View
from training.data import ExamSet, augment, swap_sides
from training.errors import TrainingError
from training.model import MammoClip, freeze_all_but_adapters
from training.pretrain import batches, make_optimizer
from training.unfinished import MovingParts, go_on, keep, run_sha256


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of the adapter training."""

    seed: int
    negative_prompt: str
    positive_prompt: str
    epochs: int
    batch_size: int = 64
    """Exams per step."""
    bfloat16: bool = True
    """Multiply matrices in bfloat16, at twice the speed where the processor can."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises."""
    views: tuple[View, ...] = VIEWS
    """The views the model sees; a subset makes the comparison models."""


def train_adapters(
    model: MammoClip,
    settings: TrainSettings,
    exams: ExamSet,
    *,
    report: Callable[[str, float], None],
    unfinished: Path | None = None,
) -> None:
    """Train the adapters by cross-entropy over the prompts, in place.

    The loss is softmax(logit scale * cosine) against the label; ``report`` is called with the
    mean loss of each epoch. Every weight that is not an adapter's, nor of a learned view
    embedding, is bit for bit the same afterwards.

    Parameters
    ----------
    unfinished
        A file for the state after each epoch. A run that finds its own there goes on with it, and
        reports the epochs before once more. The caller deletes it, once the model is saved.

    Raises
    ------
    TrainingError
        There are fewer exams than a batch has, the loss is no finite number any more, or
        ``unfinished`` belongs to another run.
    """
    run = run_sha256(model, asdict(settings), exams) if unfinished is not None else ""
    batches_per_epoch = len(exams) // settings.batch_size
    parts = _moving_parts(model, settings, steps=settings.epochs * batches_per_epoch)
    losses = [] if unfinished is None else go_on(unfinished, run, parts)
    for loss in losses:
        report("adapters", loss)
    model.train()
    with Progress() as progress:
        task = progress.add_task(
            "Adapters",
            total=settings.epochs * batches_per_epoch,
            completed=len(losses) * batches_per_epoch,
        )
        while len(losses) < settings.epochs:
            losses.append(_epoch(parts, settings, exams, lambda: progress.advance(task)))
            _require_finite(losses)
            if unfinished is not None:
                keep(unfinished, run, losses, parts)
            report("adapters", losses[-1])
    model.eval()


def _moving_parts(model: MammoClip, settings: TrainSettings, *, steps: int) -> MovingParts:
    """Bring a run to its start: everything seeded, all but the adapters frozen."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    freeze_all_but_adapters(model)
    optimizer, schedule = make_optimizer(
        list(model.trainable_parameters().values()),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        steps=steps,
    )
    return MovingParts(model=model, optimizer=optimizer, schedule=schedule, generator=generator)


def _require_finite(losses: list[float]) -> None:
    if not math.isfinite(losses[-1]):
        raise TrainingError(
            f"epoch {len(losses)}",
            found=f"a loss of {losses[-1]}",
            expected="a finite one",
            remedy="Lower the learning rate.",
        )


def _epoch(
    parts: MovingParts, settings: TrainSettings, exams: ExamSet, advance: Callable[[], None]
) -> float:
    """Show the model every exam once, and return the mean loss of the batches."""
    model, generator = parts.model, parts.generator
    prompts = model.tokenize([settings.negative_prompt, settings.positive_prompt])
    chosen = [VIEWS.index(view) for view in settings.views]
    losses = []
    for batch in batches(len(exams), settings.batch_size, generator):
        images = augment(exams.views[batch][:, chosen].float() / 255, generator)
        images = swap_sides(images, settings.views, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            seen = model.encode_exam(images, settings.views)
            said = model.encode_text(prompts)
        # Outside: a logit of 50 in bfloat16 is known to a quarter.
        logits = model.logit_scale.exp() * seen.float() @ said.float().T
        loss = functional.cross_entropy(logits, exams.malignant[batch].long())
        parts.optimizer.zero_grad()
        loss.backward()
        parts.optimizer.step()
        parts.schedule.step()
        losses.append(loss.item())
        advance()
    return sum(losses) / len(losses)


@torch.inference_mode()
def malignancy_logits(
    model: MammoClip, settings: TrainSettings, exams: ExamSet
) -> NDArray[np.float64]:
    """Return the positive minus the negative prompt's logit of every exam, (N,)."""
    prompts = model.tokenize([settings.negative_prompt, settings.positive_prompt])
    chosen = [VIEWS.index(view) for view in settings.views]
    parts = [
        model.logits(part[:, chosen].float() / 255, prompts, settings.views)
        for part in exams.views.split(settings.batch_size)
    ]
    logits = torch.cat(parts).double().numpy()
    return np.asarray(logits[:, 1] - logits[:, 0])
