"""Golden exams: model inputs whose answers travel with the bundle, to be reproduced anywhere."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from mammoclip_sdk import pixels, tensor, views
from mammoclip_sdk.bundle import Preprocessing
from mammoclip_sdk.exam import VIEWS, Acceptance
from training.saved_model import Checkpoint


def golden_views(
    checkpoint: Checkpoint, preprocessing: Preprocessing, exams: Path | None, *, seed: int
) -> NDArray[np.float32]:
    """Choose the golden exams (N, 4, 1, H, W), 0 (air) to 1.

    ``exams`` is an ``.npz`` with ``views``, or a folder with one folder of DICOM files for each
    exam. Without it they are those of the checkpoint, or else made by `structured_exams`.
    """
    if exams is None and checkpoint.golden_views is not None:
        chosen = checkpoint.golden_views.numpy()
    elif exams is None:
        chosen = structured_exams(preprocessing.height, preprocessing.width, count=4, seed=seed)
    elif exams.is_dir():
        folders = sorted(path for path in exams.iterdir() if path.is_dir())
        acceptance = checkpoint.record.acceptance
        chosen = np.concatenate(
            [_read(path, preprocessing, acceptance) for path in folders or [exams]]
        )
    else:
        chosen = _unpacked(exams)
    shape = (len(VIEWS), 1, preprocessing.height, preprocessing.width)
    valid = chosen.dtype == np.float32 and chosen.shape[1:] == shape and len(chosen) > 0
    if not (valid and np.isfinite(chosen).all() and chosen.min() >= 0 and chosen.max() <= 1):
        raise ExportError(
            exams or "golden exams of the checkpoint",
            found=f"{chosen.dtype} {chosen.shape}, or values beyond 0 to 1",
            expected=f"float32 (N, {', '.join(map(str, shape))}), 0 to 1",
            remedy="Make them by the preprocessing of this checkpoint.",
        )
    return chosen


def _unpacked(path: Path) -> NDArray[np.float32]:
    try:
        # From bytes: of a file that is no zip, NumPy leaves the handle open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return arrays["views"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ExportError(
            path,
            found=f"no readable array views ({error})",
            expected="a .npz with views, or a folder with a folder of DICOM files for each exam",
            remedy="Check the path.",
        ) from error


def golden_file(exams: NDArray[np.float32], embedding: torch.Tensor, logits: torch.Tensor) -> bytes:
    """Pack the exams with the reference model's answers; equal arrays give equal bytes."""
    stream = io.BytesIO()
    np.savez_compressed(stream, views=exams, embedding=embedding.numpy(), logits=logits.numpy())
    return stream.getvalue()


def structured_exams(height: int, width: int, *, count: int, seed: int) -> NDArray[np.float32]:
    """Make exams with what noise alone lacks: dark air, bright tissue, edges, coarse texture.

    Half-ellipses of a random size at the left edge hold a texture whose power falls with the
    cube of the frequency, as breast tissue's does; the last exam is as extreme as an input can
    be, its views black, white, half and half, and a checkerboard.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    frequency = np.hypot(
        np.fft.fftfreq(height, 1 / height)[:, None], np.fft.rfftfreq(width, 1 / width)
    )
    falloff = np.maximum(frequency, 1) ** -1.5
    exams = np.zeros((count, len(VIEWS), 1, height, width), dtype=np.float32)
    for view in exams.reshape(-1, height, width):
        spectrum = np.fft.rfft2(random.standard_normal((height, width))) * falloff
        texture = np.fft.irfft2(spectrum, s=(height, width))
        texture = (texture - texture.mean()) / texture.std()
        half_height, depth = random.uniform(0.25, 0.45), random.uniform(0.4, 0.95)
        inside = ((rows - 0.5) / half_height) ** 2 + (columns / depth) ** 2 < 1
        level, contrast = random.uniform(0.3, 0.6), random.uniform(0.05, 0.2)
        view[inside] = np.clip(level + contrast * texture, 0, 1)[inside]
    exams[-1, 0], exams[-1, 1] = 0, 1
    exams[-1, 2] = rows < 0.5
    exams[-1, 3] = (np.indices((height, width)).sum(axis=0) % 2).astype(np.float32)
    return exams


def _read(
    folder: Path, preprocessing: Preprocessing, acceptance: Acceptance
) -> NDArray[np.float32]:
    exam = views.read_exam(folder, acceptance=acceptance)
    _, built = tensor.decode_and_build(exam, preprocessing, pixels.decode)
    return built.tensors["views"]
