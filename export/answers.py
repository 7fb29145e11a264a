"""All that an export asks the training model, once: afterwards the model is not needed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.exams import parity_exams
from export.fold import InferenceEncoder, fold
from export.golden import golden_file, golden_views
from export.settings import ExportConfig
from export.stages import Stages
from export.verify import answered
from mammoclip_sdk.bundle import Finding
from mammoclip_sdk.parity.exams import ParityExams, logits_of
from training import clip
from training.checkpoint import CheckpointRecord, TrainedFinding
from training.model import MammoClip, ModelConfig
from training.saved_model import load_checkpoint

NEEDED = (
    "provenance",
    "preprocessing",
    "acceptance",
    "findings",
    "intended_use",
    "model_card",
)
"""Of a checkpoint: training can leave it out, a bundle cannot."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the training model said, and what is known about it."""

    record: CheckpointRecord
    model: ModelConfig
    findings: tuple[Finding, ...]
    """With the embeddings of their prompts."""
    golden: bytes
    """The golden exams with their answers, packed."""
    golden_count: int
    parity: ParityExams


def ask(config: ExportConfig, stages: Stages) -> tuple[Answers, InferenceEncoder]:
    """Load the training model, ask it everything, and fold its image encoder.

    Raises
    ------
    CheckpointError
        The checkpoint is damaged, or not what it says.
    ExportError
        It lacks what a bundle needs.
    ParityError
        The model itself answers with NaN.
    """
    with stages("checkpoint"):
        checkpoint = load_checkpoint(config.checkpoint)
        model, record = checkpoint.model, checkpoint.record
        check_complete(record, model.config, config)
    with stages("prompts"):
        findings = tuple(embedded(model, finding) for finding in record.findings)
    with stages("golden exams"):
        exams = golden_views(checkpoint, record.preprocessing, config.exams, seed=config.seed)
        golden = _answered_golden(model, findings, exams)
    with stages("parity exams"):
        views, labels = parity_exams(
            record.preprocessing, seed=config.seed, count=config.parity_exams
        )
    with stages("reference answers"):
        parity = answered(model, findings, views, labels)
    with stages("fold"):
        encoder = fold(model)
    answers = Answers(
        record=record,
        model=model.config,
        findings=findings,
        golden=golden,
        golden_count=len(exams),
        parity=parity,
    )
    return answers, encoder


def check_complete(record: CheckpointRecord, model: ModelConfig, config: ExportConfig) -> None:
    """Refuse a checkpoint that no bundle can be made of, with everything that is in the way.

    Raises
    ------
    ExportError
    """
    found = [f"no {key}" for key in NEEDED if not getattr(record, key)]
    named = Counter(finding.name for finding in record.findings)
    found += [f"{count} findings named {name!r}" for name, count in named.items() if count > 1]
    keys = record.preprocessing
    if keys is not None and (keys.height, keys.width) != model.image_size:
        found.append(
            f"preprocessing that makes views of {(keys.height, keys.width)} pixels for a model "
            f"that takes {model.image_size} (height, width)"
        )
    if config.base_sha256 not in (None, record.base_sha256):
        found.append(f"the base model of SHA-256 {record.base_sha256}")
    if found:
        base = config.base_sha256
        raise ExportError(
            config.checkpoint,
            found="; ".join(found),
            expected=f"{', '.join(NEEDED)}; findings of different names; preprocessing of the "
            "model's own size" + ("" if base is None else f"; the base model of SHA-256 {base}"),
            remedy="Train again with these saved beside the model, or name the right checkpoint.",
        )


@torch.no_grad()
def embedded(model: MammoClip, trained: TrainedFinding) -> Finding:
    """Embed a finding's prompts, in float32: no text encoder is needed afterwards.

    A finding that was never calibrated stays so: its bundle reports ``uncalibrated``.
    """
    prompts = [trained.negative_prompt, trained.positive_prompt]
    negative, positive = model.encode_text(model.tokenize(prompts)).tolist()
    return Finding(
        name=trained.name,
        negative_prompt=trained.negative_prompt,
        positive_prompt=trained.positive_prompt,
        tokenizer=clip.tokenizer_name(model.architecture),
        tokenizer_sha256=clip.tokenizer_sha256(model.architecture),
        negative_embedding=tuple(negative),
        positive_embedding=tuple(positive),
        logit_scale=model.logit_scale.exp().item(),
        calibration=trained.calibration,
        operating_points=trained.operating_points,
    )


@torch.no_grad()
def _answered_golden(
    model: MammoClip, findings: tuple[Finding, ...], exams: NDArray[np.float32]
) -> bytes:
    """Answer the golden exams one by one, as exams come."""
    embedding = torch.cat([model.encode_exam(exam[None]) for exam in torch.from_numpy(exams)])
    logits = logits_of(embedding.numpy(), findings).astype(np.float32)
    return golden_file(exams, embedding, torch.from_numpy(logits))
