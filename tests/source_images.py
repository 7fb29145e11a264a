"""Source images for the tests of decoding: as an exam has them, changed, or with another frame."""

from __future__ import annotations

from typing import Any

import exams
import numpy as np
import pytest
from exams import VARIANTS, Variant
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from mammoclip_sdk.errors import InputError
from mammoclip_sdk.exam import SourceImage, View
from mammoclip_sdk.pixels import decode

ROW = {variant.name: variant for variant in VARIANTS}


def source(image: Dataset) -> SourceImage:
    return SourceImage(view=View.LCC, name="x.dcm", dataset=image)


def changed(variant: Variant, **values: Any) -> SourceImage:
    image = exams.dataset(View.LCC, variant)
    for keyword, value in values.items():
        setattr(image, keyword, value)
    return source(image)


def framed(variant: Variant, frame: bytes) -> SourceImage:
    image = exams.dataset(View.LCC, variant)
    image.PixelData = encapsulate([frame])
    return source(image)


def frame_of(variant: Variant) -> bytes:
    return next(generate_frames(exams.dataset(View.LCC, variant).PixelData, number_of_frames=1))


def refusal(image: SourceImage) -> str:
    with pytest.raises(InputError) as caught:
        decode(image)
    return caught.value.code


def coded(pixels: np.ndarray, bits: int, frame: bytes, syntax: str) -> SourceImage:
    rows, columns = pixels.shape
    variant = Variant(name="x", rows=rows, columns=columns, bits_stored=bits)
    image = exams.dataset(View.LCC, variant)
    image.file_meta.TransferSyntaxUID = syntax
    image.PixelData = encapsulate([frame])
    return source(image)


def textured(rows: int, columns: int, bits: int) -> np.ndarray:
    """A smooth image with noise, so that no resolution level is empty."""
    y, x = np.mgrid[:rows, :columns].astype(float)
    noise = np.random.default_rng(rows).normal(0, 0.02, x.shape)
    shown = 0.5 + 0.3 * np.sin(x / 20) * np.cos(y / 13) + noise
    return np.rint(shown.clip(0, 1) * (2**bits - 1)).astype(np.uint16)
