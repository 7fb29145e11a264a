"""The two sides of ``benchmarks/reading.py``, and the files that both of them read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.reading_report import ReadingSettings
from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.exam import VIEWS, SourceImage, View
from mammoclip_sdk.preprocessing import Preprocessing
from training import encodings
from training.phantom import PhantomSettings, make_exam
from training.vendors import PROFILES, ExamIdentity, to_dataset

SYNTAXES = {
    "native": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG Lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
_SEED = 1


def reference_pixels(path: Path) -> tuple[pydicom.Dataset, NDArray[Any]]:
    """Read and decode by pydicom."""
    dataset = pydicom.dcmread(path)
    return dataset, dataset.pixel_array


def reference_view(
    dataset: pydicom.Dataset, stored: NDArray[Any], preprocessing: Preprocessing
) -> NDArray[np.float32]:
    """Do what `tensor.build_view` does, but for small bright objects beside the breast."""
    shown = apply_voi_lut(stored, dataset) / (2**dataset.BitsStored - 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    mask = shown > preprocessing.segmentation_threshold
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    middle = mask.shape[1] // 2
    mirrored = mask[:, middle:].sum() > mask[:, :middle].sum()
    crop = np.where(mask[inside], shown[inside], 0).astype(np.float32)
    scale = min(preprocessing.height / crop.shape[0], preprocessing.width / crop.shape[1])
    height, width = (max(1, round(side * scale)) for side in crop.shape)
    small = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BOX))
    view = np.zeros((preprocessing.height, preprocessing.width), np.float32)
    top = (preprocessing.height - height) // 2
    view[top : top + height, :width] = small[:, ::-1] if mirrored else small
    return view


def our_view(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read one view by this software."""
    source = SourceImage(view=View(path.stem), name=path.name, path=path)
    _, (view, _, _) = tensor.decode_and_build_view(source, preprocessing, pixels.decode)
    return view


def whole_reference(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read one view by the reference."""
    return reference_view(*reference_pixels(path), preprocessing)


def write_exam(folder: Path, settings: ReadingSettings) -> None:
    """Write a phantom exam of 12 bits, in a folder for each transfer syntax, files by view."""
    exam = make_exam(PhantomSettings(seed=_SEED, rows=settings.rows, columns=settings.columns), 0)
    profile = next(profile for profile in PROFILES if profile.name == "Philips-like")
    for view in VIEWS:
        dataset = to_dataset(
            exam.views[view].displayed,
            view=view,
            profile=profile,
            identity=ExamIdentity.derive(_SEED, 0),
            pixel_spacing=float(exam.datasets[view].ImagerPixelSpacing[0]),
            rng=np.random.default_rng(_SEED),
        )
        for name, syntax in SYNTAXES.items():
            (folder / name).mkdir(exist_ok=True)
            encodings.write(dataset, folder / name / f"{view}.dcm", syntax)


def write_archive(folder: Path, files: int) -> None:
    """Write so many small files of many studies, four a study."""
    profile = PROFILES[0]
    displayed = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    for number in range(files // len(VIEWS)):
        for view in VIEWS:
            dataset = to_dataset(
                displayed,
                view=view,
                profile=profile,
                identity=ExamIdentity.derive(_SEED, number),
                pixel_spacing=0.1,
                rng=np.random.default_rng(_SEED),
            )
            encodings.write(dataset, folder / f"{number:05d}-{view}.dcm", profile.transfer_syntax)
