"""What a checkpoint folder holds: ``config.json`` and tensors in safetensors, never a pickle.

``config.json`` has the keys of `CheckpointRecord`; ``model.safetensors`` the model's parameters
and buffers; ``golden.safetensors``, where there is one, the tensor ``views`` (N, 4, 1, H, W) of
exams that a bundle made from this checkpoint must reproduce.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mammoclip_sdk import strict_json
from mammoclip_sdk.bundle import (
    Calibration,
    Measurement,
    ModelCard,
    OperatingPoint,
    Preprocessing,
)
from mammoclip_sdk.exam import VIEWS, Acceptance
from training.errors import CheckpointError, together

FORMAT = 3
CONFIG, WEIGHTS, GOLDEN = "config.json", "model.safetensors", "golden.safetensors"
_AGAIN = "Copy the checkpoint again from where it was made, or train again."


@dataclass(frozen=True, kw_only=True)
class TrainedFinding:
    """A question the model was trained to answer, with its two prompts."""

    name: str
    negative_prompt: str
    positive_prompt: str
    calibration: Calibration | None = None
    operating_points: tuple[OperatingPoint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a checkpoint came about."""

    git_commit: str
    seed: int | None
    command: str


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """``config.json``: everything about a checkpoint but its tensors."""

    model: Mapping[str, object]
    """`ModelConfig`, key by key."""
    architecture: Mapping[str, object]
    """The open_clip configuration the model was built from."""
    settings: Mapping[str, object]
    """Of the command that wrote the checkpoint."""
    report: Mapping[str, object]
    """What the command measured on the way."""
    base_sha256: str
    """`base_sha256` of the tensors: which weights the adapters were trained on."""
    provenance: Provenance | None = None
    preprocessing: Preprocessing | None = None
    acceptance: Acceptance | None = None
    findings: tuple[TrainedFinding, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    intended_use: str = ""
    model_card: ModelCard | None = None
    format: int = FORMAT


def is_trained(name: str) -> bool:
    """Whether a tensor belongs to what is trained: the adapters, and a learned view embedding."""
    return "_adapter." in name or name == "image.view_embedding"


def base_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of all that is not trained: names, types, shapes and values, by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if not is_trained(name):
            values = tensors[name].detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_checkpoint(
    folder: str | Path,
    record: CheckpointRecord,
    tensors: Mapping[str, torch.Tensor],
    golden_views: torch.Tensor | None = None,
) -> None:
    """Write a checkpoint folder; it appears whole, by a rename, or not at all.

    An earlier checkpoint of that name is replaced; anything else in its place is an error.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / CONFIG).is_file():
        raise FileExistsError(f"{folder} exists and is no checkpoint; choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new.chmod(0o755)
        (new / WEIGHTS).write_bytes(save(_on_cpu(tensors)))
        if golden_views is not None:
            (new / GOLDEN).write_bytes(save(_on_cpu({"views": golden_views.float()})))
        (new / CONFIG).write_text(strict_json.dumps(record) + "\n", encoding="utf-8")
        old = new.with_name(new.name + "-old")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def read_record(folder: str | Path) -> CheckpointRecord:
    """Read ``config.json``; unknown and missing keys are errors, reported together.

    Raises
    ------
    CheckpointError
        There is none, it is damaged, or it is of another format.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is no checkpoint",
            found=f"no {CONFIG}",
            expected=f"a folder with {CONFIG} and {WEIGHTS}, as training writes it",
            remedy="Check the path.",
        )
    text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    plain, problems = strict_json.parse(text)
    if isinstance(plain, dict) and plain.get("format") != FORMAT:
        raise CheckpointError(
            path,
            found=f"format {plain.get('format')!r}",
            expected=f"format {FORMAT}",
            remedy="Export it with the version that wrote it, or train again with this one.",
        )
    record = strict_json.from_plain(CheckpointRecord, plain, problems)
    if record is None or problems:
        raise record_error(folder, problems)
    return record


def record_error(folder: str | Path, problems: Sequence[str]) -> CheckpointError:
    """Put every problem of a ``config.json`` into one error."""
    return CheckpointError(
        Path(folder) / CONFIG,
        found=f"{len(problems)} problem{'s' * (len(problems) != 1)}: {together(problems)}",
        expected=f"what training writes in format {FORMAT}, with all of its keys and no others",
        remedy=_AGAIN,
    )


def read_tensors(folder: str | Path) -> dict[str, torch.Tensor]:
    """Read the model's parameters and buffers by name."""
    return _load(Path(folder) / WEIGHTS)


def read_golden(folder: str | Path) -> torch.Tensor | None:
    """Return the golden exams (N, 4, 1, H, W), or None where the checkpoint has none."""
    path = Path(folder) / GOLDEN
    if not path.exists():
        return None
    found = _load(path)
    views = found.get("views")
    if found.keys() != {"views"} or views.ndim != 5 or views.shape[1:3] != (len(VIEWS), 1):
        raise CheckpointError(
            path,
            found=together([_kind(name, value) for name, value in found.items()]) or "no tensor",
            expected="one tensor views (N, 4, 1, height, width)",
            remedy=_AGAIN,
        )
    return views


def check_tensors(
    folder: str | Path,
    found: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    *,
    may_lack: Callable[[str], bool] = lambda _: False,
) -> None:
    """Refuse tensors that are missing, left over, of another shape or type, or not finite.

    Raises
    ------
    CheckpointError
        With every such tensor.
    """
    lacking = [name for name in expected if name not in found and not may_lack(name)]
    problems = [f"no {_kind(name, expected[name])}" for name in lacking]
    for name, tensor in found.items():
        wanted = expected.get(name)
        if wanted is None:
            problems.append(f"{_kind(name, tensor)} too many")
        elif (tensor.dtype, tensor.shape) != (wanted.dtype, wanted.shape):
            problems.append(f"{_kind(name, tensor)} instead of {_kind('', wanted)}")
        elif not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            problems.append(f"{name} with {count} values that are NaN or infinite")
    if problems:
        raise CheckpointError(
            Path(folder) / WEIGHTS,
            found=together(problems),
            expected="the finite tensors of the model that its config.json describes, no others",
            remedy=_AGAIN,
        )


def check_base(folder: str | Path, found: Mapping[str, torch.Tensor], expected: str) -> None:
    """Refuse adapters on other base weights than those they were trained on.

    Raises
    ------
    CheckpointError
    """
    digest = base_sha256(found)
    if digest != expected:
        raise CheckpointError(
            Path(folder) / WEIGHTS,
            found=f"base weights of SHA-256 {digest}",
            expected=f"{expected}, those that the adapters were trained on",
            remedy="Put the adapters back on their own base model, or copy the checkpoint again.",
        )


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            path,
            found=f"no readable tensors ({error})",
            expected="a whole safetensors file",
            remedy=_AGAIN,
        ) from error


def _kind(name: str, tensor: torch.Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{name} {dtype} {tuple(tensor.shape)}".lstrip()


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
