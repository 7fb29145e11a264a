"""A checkpoint's folder: written whole, and read as it was written or not at all.

It holds ``config.json`` and tensors in safetensors, never a pickle. ``config.json`` has the keys of
`CheckpointRecord`; ``model.safetensors`` the model's parameters and buffers;
``golden.safetensors``, where there is one, the tensor ``views`` (N, 4, 1, H, W) of exams that a
bundle made from this checkpoint must reproduce. The record has the hashes of all tensors, and
``config.sha256`` has its own, in the form that ``sha256sum -c`` reads.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mammoclip_sdk import strict_json
from mammoclip_sdk.bundle import sha256
from mammoclip_sdk.exam import VIEWS
from training.checkpoint import (
    CONFIG,
    FORMAT,
    GOLDEN,
    WEIGHTS,
    CheckpointRecord,
    base_sha256,
    tensors_sha256,
    trained_sha256,
)
from training.errors import CheckpointError, together

CHECKSUM = "config.sha256"
_AGAIN = "Copy the checkpoint again from where it was made, or train again."


def write_checkpoint(
    folder: str | Path,
    record: CheckpointRecord,
    tensors: Mapping[str, torch.Tensor],
    golden_views: torch.Tensor | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint folder; it appears whole, by a rename, or not at all.

    Raises
    ------
    CheckpointError
        See `check_free`.
    """
    folder = Path(folder)
    check_free(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new.chmod(0o755)
        (new / WEIGHTS).write_bytes(save(_on_cpu(tensors)))
        if golden_views is not None:
            (new / GOLDEN).write_bytes(save(_on_cpu({"views": golden_views})))
        config = f"{strict_json.dumps(record)}\n".encode()
        (new / CONFIG).write_bytes(config)
        (new / CHECKSUM).write_bytes(_checksum(config))
        old = new.with_name(new.name + "-old")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def check_free(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a place for a checkpoint that is taken; ``overwrite`` allows an earlier checkpoint.

    Raises
    ------
    CheckpointError
    """
    finished = (folder / CONFIG).is_file()
    if not folder.exists() or (finished and overwrite):
        return
    raise CheckpointError(
        folder,
        found="a finished checkpoint" if finished else "something that is no checkpoint",
        expected="a new folder, or that of a run that was interrupted",
        remedy="Name another folder, or ask for --overwrite to replace this checkpoint."
        if finished
        else "Name another folder.",
    )


def read_record(folder: str | Path) -> CheckpointRecord:
    """Read ``config.json``; unknown and missing keys are errors, reported together.

    Raises
    ------
    CheckpointError
        There is none, it is of another format, or it is not as it was written.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is no checkpoint",
            found=f"no {CONFIG}",
            expected=f"a folder with {CONFIG} and {WEIGHTS}, as training writes it",
            remedy="Check the path.",
        )
    data = path.read_bytes()
    plain, problems = strict_json.parse(data.decode("utf-8", errors="surrogateescape"))
    if isinstance(plain, dict) and plain.get("format") != FORMAT:
        raise CheckpointError(
            path,
            found=f"format {plain.get('format')!r}",
            expected=f"format {FORMAT}",
            remedy="Export it with the version that wrote it, or train again with this one.",
        )
    _check_config(path, data)
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


def checkpoint_sha256(folder: str | Path) -> str:
    """Return the SHA-256 of a whole checkpoint: ``config.json``'s, which holds all the others."""
    return sha256((Path(folder) / CONFIG).read_bytes())


def read_tensors(folder: str | Path) -> dict[str, torch.Tensor]:
    """Read the model's parameters and buffers by name."""
    return _load(Path(folder) / WEIGHTS)


def read_golden(folder: str | Path, expected: str | None) -> torch.Tensor | None:
    """Return the golden exams (N, 4, 1, H, W) of this SHA-256; None where there are to be none.

    Raises
    ------
    CheckpointError
        There are others, or none.
    """
    path = Path(folder) / GOLDEN
    if expected is None and not path.exists():
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
    digest = tensors_sha256(found)
    if digest != expected:
        raise CheckpointError(
            path,
            found=f"golden exams of SHA-256 {digest}",
            expected="no golden exams" if expected is None else expected,
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


def check_trained(folder: str | Path, found: Mapping[str, torch.Tensor], expected: str) -> None:
    """Refuse other adapters, or another view embedding, than those that were trained.

    Raises
    ------
    CheckpointError
    """
    digest = trained_sha256(found)
    if digest != expected:
        raise CheckpointError(
            Path(folder) / WEIGHTS,
            found=f"adapters and view embedding of SHA-256 {digest}",
            expected=f"{expected}, those that were trained",
            remedy=_AGAIN,
        )


def _check_config(path: Path, data: bytes) -> None:
    checksum = path.with_name(CHECKSUM)
    found = checksum.read_bytes() if checksum.is_file() else None
    if found != _checksum(data):
        raise CheckpointError(
            path,
            found=f"no {CHECKSUM}" if found is None else f"other bytes than {CHECKSUM} names",
            expected=f"the SHA-256 that {CHECKSUM} holds",
            remedy="Copy the checkpoint again from where it was made; after a change of your own, "
            f"run `sha256sum {CONFIG} > {CHECKSUM}` in its folder.",
        )


def _checksum(config: bytes) -> bytes:
    return f"{sha256(config)}  {CONFIG}\n".encode()


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
