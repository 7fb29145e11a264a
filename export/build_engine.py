"""Checkpoint -> bundle: fold, embed the prompts, export, verify, write; or write nothing.

``python export/build_engine.py --checkpoint CHECKPOINT --out BUNDLE``
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

from export.fold import fold
from export.golden import golden_file, golden_views, structured_exams
from export.to_onnx import describe, to_onnx
from export.verify import TOLERANCE, Parity, ParityError, verify
from mammoclip_sdk.bundle import (
    SCHEMA,
    Bundle,
    Finding,
    GoldenExams,
    Manifest,
    Source,
    manifest_to_json,
    sha256,
    write_bundle,
)
from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.exam import VIEWS
from training.checkpoint import WEIGHTS, CheckpointRecord
from training.clip import tokenizer_name
from training.model import Checkpoint, MammoClip, load_checkpoint

GRAPH, GOLDEN = "model.fp32.onnx", "golden.npz"
SEED = 2404
"""Of the exams made for verification, the same for every bundle."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of one export."""

    checkpoint: Path
    """Checkpoint folder, with preprocessing, findings and provenance."""
    out: Path
    """Folder of the bundle to be written."""
    exams: Path | None = None
    """Golden exams: an ``.npz`` with ``views`` (N, 4, 1, H, W), or a folder with one folder of
    DICOM files for each exam. They become part of the bundle: take none of a real patient that
    may not be passed on. None takes those of the checkpoint."""
    name: str = "mammo-clip"
    version: str = "0.1.0"
    release: int = 1
    """Sequence number; a later release of the same bundle has a greater one."""
    not_for_clinical_use: bool = True
    overwrite: bool = False
    """Whether an earlier bundle in ``out`` is replaced."""


def main(config: ExportConfig) -> Parity:
    """Make a bundle whose graph agrees with the training model.

    Raises
    ------
    ParityError
        It does not agree; nothing was written.
    ValueError
        The checkpoint lacks what a bundle needs.
    FileExistsError
        Something is in ``out`` already, and ``overwrite`` was not asked for.
    """
    if config.out.exists() and not config.overwrite:
        raise FileExistsError(
            f"{config.out} exists already; ask for overwrite, or name another folder"
        )
    checkpoint = load_checkpoint(config.checkpoint)
    model, record = checkpoint.model, checkpoint.record
    _check_complete(record, model)
    exams = golden_views(checkpoint, record.preprocessing, config.exams, seed=SEED)
    files = {GRAPH: to_onnx(fold(model)), GOLDEN: _golden(checkpoint, exams)}
    manifest = _manifest(config, checkpoint, files, golden_count=len(exams))
    text = manifest_to_json(manifest)
    bundle = Bundle(
        manifest=manifest, sha256=sha256(text.encode()), files=files, path=str(config.out)
    )
    height, width = model.config.image_size
    made = structured_exams(height, width, count=4, seed=SEED)
    parity = verify(model, bundle, np.concatenate([exams, made]))
    write_bundle(config.out, manifest, files, overwrite=config.overwrite)
    return parity


def _check_complete(record: CheckpointRecord, model: MammoClip) -> None:
    absent = [
        key
        for key in ("provenance", "preprocessing", "acceptance", "findings", "intended_use")
        if not getattr(record, key)
    ]
    if absent:
        raise ValueError(
            f"the checkpoint has no {', '.join(absent)}; a bundle needs them, and training has to "
            "save them with the model"
        )
    size = (record.preprocessing.height, record.preprocessing.width)
    if size != model.config.image_size:
        raise ValueError(
            f"preprocessing makes views of {size} pixels (height, width), "
            f"the model takes {model.config.image_size}"
        )


def _manifest(
    config: ExportConfig, checkpoint: Checkpoint, files: dict[str, bytes], *, golden_count: int
) -> Manifest:
    record = checkpoint.record
    return Manifest(
        schema=SCHEMA,
        name=config.name,
        version=config.version,
        release=config.release,
        intended_use=record.intended_use,
        not_for_clinical_use=config.not_for_clinical_use,
        acceptance=record.acceptance,
        source=_source(config, checkpoint),
        views=tuple(str(view) for view in VIEWS),
        preprocessing=record.preprocessing,
        findings=_findings(checkpoint),
        graphs=(describe(files[GRAPH], file=GRAPH),),
        golden=GoldenExams(
            file=GOLDEN,
            sha256=sha256(files[GOLDEN]),
            count=golden_count,
            tolerance={"fp32": TOLERANCE},
        ),
        measurements=record.measurements,
    )


def _source(config: ExportConfig, checkpoint: Checkpoint) -> Source:
    record, model = checkpoint.record, checkpoint.model.config
    name = model.open_clip_model
    started_from = model.pretrained
    if started_from is not None and Path(started_from).exists():
        started_from = Path(started_from).name  # where it lay is nobody else's business
    shape = dict(record.model) | {"pretrained": started_from, "open_clip_model": Path(name).stem}
    return Source(
        git_commit=record.provenance.git_commit,
        checkpoint_sha256=sha256((config.checkpoint / WEIGHTS).read_bytes()),
        open_clip_model=Path(name).stem if name.endswith(".json") else name,
        seed=record.provenance.seed,
        command=record.provenance.command,
        training_report={
            "model": shape,
            "settings": record.settings,
            "report": record.report,
            "export": _recorded(config),
        },
    )


def _recorded(config: ExportConfig) -> dict[str, object]:
    """Return the settings for the bundle's record: of paths, the last part alone."""
    return {
        key: value.name if isinstance(value, Path) else value
        for key, value in asdict(config).items()
    }


@torch.no_grad()
def _findings(checkpoint: Checkpoint) -> tuple[Finding, ...]:
    """Embed each finding's prompts, in float32; no text encoder is needed afterwards."""
    model = checkpoint.model
    tokenizer = tokenizer_name(model.architecture)
    findings = []
    for trained in checkpoint.record.findings:
        prompts = [trained.negative_prompt, trained.positive_prompt]
        negative, positive = model.encode_text(model.tokenize(prompts)).tolist()
        findings.append(
            Finding(
                name=trained.name,
                negative_prompt=trained.negative_prompt,
                positive_prompt=trained.positive_prompt,
                tokenizer=tokenizer,
                negative_embedding=tuple(negative),
                positive_embedding=tuple(positive),
                logit_scale=model.logit_scale.exp().item(),
                calibration=trained.calibration,
                operating_points=trained.operating_points,
            )
        )
    return tuple(findings)


@torch.no_grad()
def _golden(checkpoint: Checkpoint, exams: np.ndarray) -> bytes:
    """Answer the golden exams with the training model, one by one, as exams come."""
    model = checkpoint.model
    embedding = torch.cat([model.encode_exam(exam[None]) for exam in torch.from_numpy(exams)])
    logits = []
    for finding in checkpoint.record.findings:
        prompts = model.tokenize([finding.negative_prompt, finding.positive_prompt])
        logits.append(model.logit_scale.exp() * embedding @ model.encode_text(prompts).T)
    return golden_file(exams, embedding, torch.stack(logits, dim=1))


def command(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    exams: Annotated[
        Path | None, typer.Option(help="Golden exams: .npz, or a folder of exam folders.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = ExportConfig.name,
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = ExportConfig.version,
    release: Annotated[int, typer.Option(help="Sequence number.")] = ExportConfig.release,
    not_for_clinical_use: Annotated[
        bool, typer.Option("--not-for-clinical-use/--clinical-use", help="What the bundle says.")
    ] = ExportConfig.not_for_clinical_use,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier bundle.")
    ] = ExportConfig.overwrite,
) -> None:
    """Make a bundle from a checkpoint. Exit code 1: no parity; 2: unusable input."""
    config = ExportConfig(**locals())
    errors = Console(stderr=True)
    try:
        parity = main(config)
    except ParityError as error:
        errors.print(f"No bundle was written: {error}", markup=False)
        raise typer.Exit(1) from error
    except (MammoClipError, ValueError, OSError) as error:
        errors.print(f"No bundle was written: {error}", markup=False)
        raise typer.Exit(2) from error
    Console().print(
        f"{out}: {parity.exams} exams verified on {parity.runtime}, worst logit difference "
        f"{parity.worst:.2g} ({parity.where})",
        markup=False,
    )


if __name__ == "__main__":
    typer.run(command)
