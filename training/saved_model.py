"""A trained model and everything known about it: to a checkpoint folder, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from mammoclip_sdk.bundle import Measurement, ModelCard, Preprocessing
from mammoclip_sdk.exam import Acceptance
from training import checkpoint, checkpoint_folder, clip
from training.checkpoint import CheckpointRecord, Provenance, TrainedFinding
from training.errors import CheckpointError
from training.model import MammoClip, ModelConfig, config_of


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained model and what its checkpoint says of it."""

    model: MammoClip
    record: CheckpointRecord
    golden_views: Tensor | None
    """Exams (N, 4, 1, H, W) a bundle must reproduce, where the checkpoint has some."""


def save_checkpoint(
    folder: str | Path,
    model: MammoClip,
    *,
    settings: Mapping[str, object],
    report: Mapping[str, object],
    provenance: Provenance | None = None,
    preprocessing: Preprocessing | None = None,
    acceptance: Acceptance | None = None,
    findings: Sequence[TrainedFinding] = (),
    measurements: Sequence[Measurement] = (),
    intended_use: str = "",
    model_card: ModelCard | None = None,
    golden_views: Tensor | None = None,
    started_from: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write the model, and what is known about it, to a checkpoint folder.

    ``settings`` and ``report`` must be JSON-serialisable.

    Parameters
    ----------
    started_from
        `base_sha256` of the model before its adapters were trained; None where nothing was.
    overwrite
        Whether an earlier checkpoint is replaced; nothing else ever is.

    Raises
    ------
    CheckpointError
        The folder is taken, or training changed what it must leave as it was.
    """
    tensors = model.state_dict()
    if started_from is not None:
        checkpoint_folder.check_base(folder, tensors, started_from)
    golden = None if golden_views is None else golden_views.float()
    record = CheckpointRecord(
        model=asdict(model.config),
        architecture=model.architecture,
        settings=dict(settings),
        report=dict(report),
        base_sha256=checkpoint.base_sha256(tensors),
        trained_sha256=checkpoint.trained_sha256(tensors),
        golden_sha256=None if golden is None else checkpoint.tensors_sha256({"views": golden}),
        provenance=provenance,
        preprocessing=preprocessing,
        acceptance=acceptance,
        findings=tuple(findings),
        measurements=tuple(measurements),
        intended_use=intended_use,
        model_card=model_card,
    )
    checkpoint_folder.write_checkpoint(folder, record, tensors, golden, overwrite=overwrite)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder back; the model is in evaluation mode, on the CPU.

    Raises
    ------
    CheckpointError
        The folder is no checkpoint, is of another format or not as it was written; its
        architecture is not supported; a tensor is missing, left over, of another shape or type,
        or not finite; or the tensors are not those whose SHA-256 it holds.
    """
    folder = Path(folder)
    record = checkpoint_folder.read_record(folder)
    model = _empty_model(record, folder)
    tensors = checkpoint_folder.read_tensors(folder)
    checkpoint_folder.check_tensors(folder, tensors, model.state_dict())
    checkpoint_folder.check_base(folder, tensors, record.base_sha256)
    checkpoint_folder.check_trained(folder, tensors, record.trained_sha256)
    model.load_state_dict(tensors)
    golden = checkpoint_folder.read_golden(folder, record.golden_sha256)
    return Checkpoint(model=model.eval(), record=record, golden_views=golden)


def _empty_model(record: CheckpointRecord, folder: Path) -> MammoClip:
    """Build the model a record describes; what training started from is not fetched again."""
    config: ModelConfig = config_of(record, folder)
    try:
        clip.refuse_unsupported(config.open_clip_model, record.architecture)
        model = MammoClip(replace(config, pretrained=None), architecture=record.architecture)
    except Exception as error:  # open_clip and torch each raise their own for what cannot be built
        raise CheckpointError(
            folder / checkpoint.CONFIG,
            found=f"an architecture that cannot be built ({type(error).__name__}: {error})",
            expected="the open_clip configuration of a vision transformer that is supported",
            remedy="Train on a supported model, or copy the checkpoint again.",
        ) from error
    model.config = config
    return model
