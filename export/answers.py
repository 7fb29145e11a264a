"""All that an export asks the training model, once: afterwards the model is not needed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.exams import parity_exams
from export.fold import InferenceEncoder, fold
from export.golden import golden_file, golden_views
from export.one_dnn import one_dnn
from export.settings import ExportConfig
from export.stages import Stages
from export.verify import answered
from mammoclip_sdk.bundle import Finding
from mammoclip_sdk.exam import VIEWS
from mammoclip_sdk.golden import logits_of
from mammoclip_sdk.parity.exams import MAX_BYTES, ParityExams
from training import clip
from training.checkpoint import CheckpointRecord, TrainedFinding
from training.errors import UnusableInputError
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
_ANSWERS = 2**23
"""Bytes that are left for the answers, beside the pixels of the parity exams."""


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
    found += [
        f"a prompt of {finding.name!r} that says nothing"
        for finding in record.findings
        if not (finding.negative_prompt.strip() and finding.positive_prompt.strip())
    ]
    found += _false_names(record, model)
    keys = record.preprocessing
    if keys is not None and (keys.height, keys.width) != model.image_size:
        found.append(
            f"preprocessing that makes views of {(keys.height, keys.width)} pixels for a model "
            f"that takes {model.image_size} (height, width)"
        )
    pixels = (config.parity_exams + 1) * len(VIEWS) * model.image_size[0] * model.image_size[1]
    if pixels > MAX_BYTES - _ANSWERS:
        found.append(
            f"{config.parity_exams} parity exams of {model.image_size} pixels, {pixels} bytes"
        )
    if config.base_sha256 not in (None, record.base_sha256):
        found.append(f"the base model of SHA-256 {record.base_sha256}")
    if found:
        base = config.base_sha256
        raise ExportError(
            config.checkpoint,
            found="; ".join(found),
            expected=f"{', '.join(NEEDED)}; findings of different names, with prompts; the "
            "backbone that it names; preprocessing of the model's own size; "
            f"parity exams of {MAX_BYTES - _ANSWERS} bytes or less"
            + ("" if base is None else f"; the base model of SHA-256 {base}"),
            remedy="Train again with these saved beside the model, or name the right checkpoint.",
        )


def _false_names(record: CheckpointRecord, model: ModelConfig) -> Iterator[str]:
    """Say where a checkpoint names a backbone that it is not: card and SBOM would repeat it."""
    name = model.open_clip_model
    if name.endswith(".json"):  # a file of its own, whose content the checkpoint holds
        return
    try:
        known = clip.architecture_of(name)
    except UnusableInputError as error:
        yield f"{error.subject}, {error.found}"
        return
    if json.loads(json.dumps(known)) != json.loads(json.dumps(dict(record.architecture))):
        yield f"{name!r} as the name of another architecture than open_clip's"


@torch.no_grad()
def embedded(model: MammoClip, trained: TrainedFinding) -> Finding:
    """Embed a finding's prompts, in float32: no text encoder is needed afterwards.

    A finding that was never calibrated stays so: its bundle reports ``uncalibrated``.

    Raises
    ------
    ExportError
        The model cannot tell one prompt from the other: every exam would get the same answer.
    """
    prompts = [trained.negative_prompt, trained.positive_prompt]
    negative, positive = model.encode_text(model.tokenize(prompts)).tolist()
    if negative == positive:
        raise ExportError(
            f"finding {trained.name!r}",
            found=f"two prompts that are one to the model, {prompts[0]!r} and {prompts[1]!r}",
            expected="prompts of different embeddings",
            remedy="Train again with prompts that differ in words the tokenizer knows.",
        )
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
    with one_dnn():
        embedding = torch.cat([model.encode_exam(exam[None]) for exam in torch.from_numpy(exams)])
    logits = logits_of(embedding.numpy(), findings).astype(np.float32)
    return golden_file(exams, embedding, torch.from_numpy(logits))
