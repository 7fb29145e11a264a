"""Contrastive pre-training of a small CLIP on single phantom views and their captions.

The project cannot ship CLIP's weights, so the demo model learns from nothing what CLIP brings:
what a view looks like in words. Stages go from easy to hard contrast; trained on the hardest
exams alone the loss does not start to fall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from rich.progress import Progress

from training.clip import ClipLoss
from training.data import ExamSet, augment
from training.errors import TrainingError
from training.model import MammoClip


@dataclass(frozen=True, kw_only=True)
class PretrainStage:
    """One stage of the curriculum."""

    contrast: tuple[float, float]
    exams: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Settings of the contrastive pre-training."""

    seed: int
    stages: tuple[PretrainStage, ...]
    batch_size: int = 64
    """Views per step."""
    bfloat16: bool = True
    """Multiply matrices in bfloat16, at twice the speed where the processor can."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises."""


def pretrain(
    model: MammoClip,
    settings: PretrainSettings,
    sets: list[ExamSet],
    *,
    report: Callable[[str, float], None],
) -> None:
    """Train both encoders on the views of one set of exams after another, in place.

    ``report`` is called with a stage's name and the mean loss of each epoch.
    """
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    steps = sum(
        stage.epochs * (4 * len(exams) // settings.batch_size)
        for stage, exams in zip(settings.stages, sets, strict=True)
    )
    optimizer, schedule = make_optimizer(
        list(model.parameters()),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        steps=steps,
    )
    loss_of = ClipLoss()
    model.train()
    with Progress() as progress:
        task = progress.add_task("Pre-training", total=steps)
        for number, (stage, exams) in enumerate(zip(settings.stages, sets, strict=True), start=1):
            views = exams.views.flatten(0, 1)
            captions = [caption for captions in exams.view_captions for caption in captions]
            unique = sorted(set(captions))
            tokens = model.tokenize(unique)
            which = torch.tensor([unique.index(caption) for caption in captions])
            for _ in range(stage.epochs):
                losses = []
                for batch in batches(len(views), settings.batch_size, generator):
                    images = augment(views[batch].float() / 255, generator)
                    said, place = which[batch].unique(return_inverse=True)
                    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
                        texts = model.encode_text(tokens[said])[place].float()
                        seen = model.encode_view(images).float()
                    loss = loss_of(seen, texts, model.logit_scale.exp())
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    with torch.no_grad():  # as CLIP: the scale never exceeds 100
                        model.logit_scale.clamp_(0, math.log(100))
                    losses.append(loss.item())
                    progress.advance(task)
                report(f"stage {number}", sum(losses) / len(losses))
    model.eval()


def require_batch(count: int, size: int) -> None:
    """Refuse batches larger than the set: nothing would be trained.

    Raises
    ------
    TrainingError
    """
    if count < size:
        raise TrainingError(
            "training",
            found=f"{count} examples for batches of {size}",
            expected="at least one whole batch",
            remedy="Add exams, or make the batches smaller.",
        )


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield shuffled index batches of exactly ``size``; the rest of an epoch is left out."""
    require_batch(count, size)
    order = torch.randperm(count, generator=generator)
    return iter(order[: count // size * size].split(size))


def make_optimizer(
    parameters: list[torch.nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    steps: int,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW with linear warm-up and cosine decay; gains and biases are not decayed."""
    decayed = [parameter for parameter in parameters if parameter.ndim >= 2]
    plain = [parameter for parameter in parameters if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
