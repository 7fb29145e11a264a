"""Adapters on four-view exams: everything else frozen, classes told apart by two prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch.nn import functional

from mammoclip_sdk.exam import VIEWS, View
from training.data import ExamSet, augment, swap_sides
from training.model import MammoClip, freeze_all_but_adapters
from training.pretrain import batches, make_optimizer


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
) -> None:
    """Train the adapters by cross-entropy over the prompts, in place.

    The loss is softmax(logit scale * cosine) against the label; ``report`` is called with the
    mean loss of each epoch. Every weight that is not an adapter's, nor of a learned view
    embedding, is bit for bit the same afterwards.
    """
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    freeze_all_but_adapters(model)
    steps = settings.epochs * (len(exams) // settings.batch_size)
    optimizer, schedule = make_optimizer(
        list(model.trainable_parameters().values()),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        steps=steps,
    )
    prompts = model.tokenize([settings.negative_prompt, settings.positive_prompt])
    chosen = [VIEWS.index(view) for view in settings.views]
    model.train()
    with Progress() as progress:
        task = progress.add_task("Adapters", total=steps)
        for _ in range(settings.epochs):
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
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                progress.advance(task)
            report("adapters", sum(losses) / len(losses))
    model.eval()


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
