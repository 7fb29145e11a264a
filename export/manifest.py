"""What a bundle's manifest says: all of it follows from checkpoint, settings and graphs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from export.answers import Answers
from export.graphs import Graphs
from export.settings import PRECISIONS, ExportConfig
from mammoclip_sdk.bundle import (
    SCHEMA,
    Attachment,
    Finding,
    GoldenExams,
    Manifest,
    Source,
    sha256,
)
from mammoclip_sdk.bundle.contradictions import largest_tolerance
from mammoclip_sdk.exam import VIEWS
from training.checkpoint import CheckpointRecord
from training.checkpoint_folder import checkpoint_sha256
from training.model import ModelConfig

GOLDEN = "golden.npz"
ATTACHED = {
    "parity_exams": "parity.npz",
    "certificate": "certificate.json",
    "certificate_page": "certificate.html",
    "model_card": "model_card.html",
    "sbom": "sbom.cdx.json",
}
"""File of each kind of attachment, in every bundle."""
TOOLS = ("torch", "open_clip", "onnx", "onnxscript", "onnxruntime")
"""Modules whose version decides a graph's bytes."""


def make_manifest(config: ExportConfig, answers: Answers, graphs: Graphs) -> Manifest:
    """Describe a bundle that has no attachments yet."""
    record = answers.record
    return Manifest(
        schema=SCHEMA,
        name=config.name,
        version=config.version,
        release=config.release,
        intended_use=record.intended_use,
        not_for_clinical_use=config.not_for_clinical_use,
        acceptance=record.acceptance,
        source=_source(config, record, answers.model),
        views=tuple(str(view) for view in VIEWS),
        preprocessing=record.preprocessing,
        findings=answers.findings,
        graphs=graphs.entries,
        golden=GoldenExams(
            file=GOLDEN,
            sha256=sha256(answers.golden),
            count=answers.golden_count,
            tolerance=golden_tolerance(answers.findings, config.precisions),
        ),
        measurements=record.measurements,
        model_card=record.model_card,
        attachments=(),
    )


def golden_tolerance(
    findings: tuple[Finding, ...], precisions: tuple[str, ...]
) -> dict[str, float]:
    """Return the largest accepted difference of a golden exam's answer, by precision.

    It is the certificate's gate on the same quantity; of a logit, at the model's own scale.
    """
    return {one: largest_tolerance(findings, one) for one in PRECISIONS if one in precisions}


def attached(manifest: Manifest, files: dict[str, bytes], kind: str, data: str | bytes) -> Manifest:
    """Put an attachment among the files, and return the manifest that names it."""
    data, name = data.encode() if isinstance(data, str) else data, ATTACHED[kind]
    files[name] = data
    entry = Attachment(kind=kind, file=name, sha256=sha256(data))
    return replace(manifest, attachments=(*manifest.attachments, entry))


def tool_versions() -> dict[str, str]:
    """Return the versions of the programs that made the graphs."""
    return {tool: importlib.import_module(tool).__version__ for tool in TOOLS}


def _source(config: ExportConfig, record: CheckpointRecord, model: ModelConfig) -> Source:
    name, started_from = model.open_clip_model, model.pretrained
    if started_from is not None and Path(started_from).exists():
        started_from = Path(started_from).name  # where it lay is nobody else's business
    shape = dict(record.model) | {"pretrained": started_from, "open_clip_model": Path(name).stem}
    export: Mapping[str, object] = config.recorded() | {"tools": tool_versions()}
    return Source(
        git_commit=record.provenance.git_commit,
        checkpoint_sha256=checkpoint_sha256(config.checkpoint),
        open_clip_model=Path(name).stem if name.endswith(".json") else name,
        base_sha256=record.base_sha256,
        seed=record.provenance.seed,
        command=record.provenance.command,
        training_report={
            "model": shape,
            "settings": record.settings,
            "report": record.report,
            "export": export,
        },
    )
