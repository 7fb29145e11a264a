"""Everything a bundle says of itself: the keys of ``manifest.json``.

Every key is required and none has a default. What their values may be is in `contradictions`, how
they are written and read in `manifest_json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mammoclip_sdk.exam import Acceptance
from mammoclip_sdk.preprocessing import Preprocessing

SCHEMA = 4
GRAPH_PRECISIONS = ("fp32", "fp16", "int8")
"""What a graph is written in; a session may run the ``fp32`` graph in ``bf16`` as well."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    lower: float
    upper: float
    level: float
    """Coverage, such as 0.95."""
    method: str
    """``delong``, ``wilson``, ``bootstrap``."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Platt scaling: p = sigmoid(slope * (positive logit - negative logit) + intercept)."""

    slope: float
    intercept: float
    fitted_on: str


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold on a finding's score (`scoring.FindingScore.score`), met by one as large."""

    name: str
    threshold: float
    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One question the bundle answers, by similarity to a negative and a positive prompt."""

    name: str
    negative_prompt: str
    positive_prompt: str
    tokenizer: str
    tokenizer_sha256: str
    """Of the vocabulary that the prompts were cut into tokens with."""
    negative_embedding: tuple[float, ...]
    """L2-normalised, float32."""
    positive_embedding: tuple[float, ...]
    logit_scale: float
    calibration: Calibration | None
    operating_points: tuple[OperatingPoint, ...]


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Name, shape and type of a graph's input or output; a string in a shape is a free size."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file."""

    file: str
    sha256: str
    precision: str
    """``fp32``, ``fp16`` or ``int8``."""
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    largest_activations: tuple[float, ...]
    """Of each block, over the calibration exams, in float32; none where they limit nothing."""
    float32_blocks: tuple[int, ...]
    """Blocks that an ``fp16`` graph keeps in float32, for their activations leave half's range."""


GOLDEN_QUANTITIES: Mapping[str, str] = {
    "fp32": "logit",
    "fp16": "logit",
    "bf16": "probability",
    "int8": "probability",
}
"""What the golden exams are judged by in each precision: rounded to 8 bits, logits move further
than anything that is reported."""


@dataclass(frozen=True, kw_only=True)
class GoldenExams:
    """Exams with the reference model's answers, to be reproduced by whatever runs the graph."""

    file: str
    """A ``.npz`` (no pickle) with ``views`` (N, 4, 1, height, width), ``embedding`` (N, D) and
    ``logits`` (N, findings, 2), all float32."""
    sha256: str
    count: int
    tolerance: Mapping[str, float]
    """Largest accepted absolute difference of what `GOLDEN_QUANTITIES` names, by precision."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model came from."""

    git_commit: str
    checkpoint_sha256: str
    """Of the checkpoint's ``config.json``, which holds the hashes of all of its tensors."""
    open_clip_model: str
    base_sha256: str
    """Of the weights that stayed as they were while the adapters were trained."""
    seed: int | None
    command: str
    training_report: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A figure measured on exams the model never saw."""

    name: str
    finding: str
    value: Interval
    exams: int
    data: str


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the other keys do not say of a model, and its user has to know."""

    training_data: str
    limitations: tuple[str, ...]
    licence: str
    """Of the weights, as an SPDX expression; ``LicenseRef-...`` where SPDX has none."""


MADE_AFTERWARDS = ("certificate", "certificate_page", "model_card", "sbom")
"""Attachments that tell of a bundle once it is judged: all of a manifest that may change after its
certificate was made. Anything else, a prompt or a calibration or a word of the card, takes another.
"""
ATTACHMENTS = ("parity_exams", *MADE_AFTERWARDS)


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A file that no graph needs: evidence, or something to read."""

    kind: str
    """One of `ATTACHMENTS`."""
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a bundle says of itself."""

    schema: int
    name: str
    version: str
    release: int
    """Sequence number; a later release of the same bundle has a greater one."""
    intended_use: str
    not_for_clinical_use: bool
    acceptance: Acceptance
    source: Source
    views: tuple[str, ...]
    """Order of the views in the graph's input."""
    preprocessing: Preprocessing
    findings: tuple[Finding, ...]
    graphs: tuple[Graph, ...]
    golden: GoldenExams
    measurements: tuple[Measurement, ...]
    model_card: ModelCard
    attachments: tuple[Attachment, ...]

    def attachment(self, kind: str) -> Attachment | None:
        """Return the attachment of a kind, or None where the bundle has none."""
        return next((one for one in self.attachments if one.kind == kind), None)

    def file_hashes(self) -> dict[str, str]:
        """Return the SHA-256 of every other file of the bundle, by name."""
        files: tuple[Graph | GoldenExams | Attachment, ...] = (
            *self.graphs,
            self.golden,
            *self.attachments,
        )
        return {entry.file: entry.sha256 for entry in files}
