"""JPEG 2000 is decoded without its finest levels where that is possible, else in full."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import exams
import imagecodecs
import numpy as np
import pytest
from PIL import Image, Jpeg2KImagePlugin
from source_images import ROW, coded, source, textured

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.exam import View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.pixels.codestream import read_jpeg2000


def by_pillow(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000", no_jp2=True, **options)
    return file.getvalue()


def reduced_by_pillow(frame: bytes, levels: int, shape: tuple[int, int], bits: int) -> np.ndarray:
    image = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(frame))
    image.reduce = levels
    # Pillow rounds sides to the nearest number, where the standard rounds up.
    image._size = (shape[1] << levels, shape[0] << levels)
    return np.asarray(image) >> (16 - bits)


REDUCIBLE: dict[str, Callable[[np.ndarray], tuple[int, bytes]]] = {
    "5-3, 12 bits": lambda pixels: (12, by_imagecodecs(pixels, 12, reversible=True, level=0)),
    "9-7, 12 bits": lambda pixels: (12, by_imagecodecs(pixels, 12, reversible=False, level=60)),
    "LRCP": lambda pixels: (16, by_pillow(pixels, progression="LRCP")),
    "RLCP": lambda pixels: (16, by_pillow(pixels, progression="RLCP")),
    "RPCL, layers": lambda pixels: (16, by_pillow(pixels, progression="RPCL",
                                                  quality_layers=[80, 20, 5, 0])),
    "RPCL, precincts": lambda pixels: (16, by_pillow(pixels, progression="RPCL",
                                                     precinct_size=(128, 128))),
    "PCRL": lambda pixels: (16, by_pillow(pixels, progression="PCRL")),
    "CPRL": lambda pixels: (16, by_pillow(pixels, progression="CPRL")),
    "HTJ2K": lambda pixels: (16, imagecodecs.htj2k_encode(pixels, reversible=True, resolutions=5)),
    "HTJ2K 9-7": lambda pixels: (16, imagecodecs.htj2k_encode(pixels, reversible=False,
                                                              level=2**-12, resolutions=5)),
}  # fmt: skip


def by_imagecodecs(pixels: np.ndarray, bits: int, **options: Any) -> bytes:
    return imagecodecs.jpeg2k_encode(
        pixels, codecformat="J2K", bitspersample=bits, resolutions=6, **options
    )


@pytest.mark.parametrize("kind", REDUCIBLE)
@pytest.mark.parametrize("shape", [(512, 400), (333, 251)])
def test_a_reduced_image_is_the_one_another_decoder_gives(
    kind: str, shape: tuple[int, int]
) -> None:
    bits = 12 if "12" in kind else 16
    pixels = textured(*shape, bits)
    _, frame = REDUCIBLE[kind](pixels)
    syntax = gate.HTJ2K if "HTJ2K" in kind else gate.JPEG_2000
    header = read_jpeg2000(bytes(frame))
    assert header is not None
    assert header.skippable >= 4
    for levels in (1, 2, 3, 4, 9):
        stored = decode(coded(pixels, bits, bytes(frame), syntax), levels=levels)
        assert stored.reduction is not None
        done = stored.reduction.levels
        assert done == min(levels, header.skippable)
        assert stored.reduction.source_shape == shape
        assert stored.reduction.reversible == ("9-7" not in kind)
        reduced = (-(-shape[0] // 2**done), -(-shape[1] // 2**done))
        assert stored.pixels.shape == reduced
        expected = reduced_by_pillow(bytes(frame), done, reduced, bits)
        assert np.array_equal(stored.pixels, expected)
        assert stored.sha256 == hashlib.sha256(expected.tobytes()).hexdigest()


def test_a_reduced_signed_image_keeps_its_sign() -> None:
    variant = ROW["jpeg-2000-signed"]
    full = exams.codes(View.LCC, variant).astype(int)
    stored = decode(source(exams.dataset(View.LCC, variant)), levels=1)
    unsigned = decode(source(exams.dataset(View.LCC, ROW["jpeg-2000-lossless"])), levels=1)
    assert stored.reduction == unsigned.reduction
    assert stored.pixels.max() < 2**12
    assert np.array_equal(stored.pixels ^ 2**11, unsigned.pixels)
    assert (full >= 2**11).any()


@pytest.mark.parametrize(
    ("bits", "options"),
    [
        (16, {"progression": "LRCP", "quality_layers": [80, 20, 0]}),
        (16, {"progression": "PCRL", "precinct_size": (64, 64)}),
        (16, {"progression": "CPRL", "precinct_size": (64, 64)}),
        (16, {"tile_size": (128, 128)}),
        (16, {"num_resolutions": 1}),
        (12, {}),  # 16 bits in the frame: a reduced image overshoots where the full one does not
    ],
)
def test_what_cannot_be_reduced_is_decoded_in_full(bits: int, options: dict[str, Any]) -> None:
    pixels = textured(300, 280, bits)
    frame = by_pillow(pixels, **options)
    stored = decode(coded(pixels, bits, frame, gate.JPEG_2000_LOSSLESS), levels=2)
    assert stored.reduction is None
    whole = np.asarray(Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(frame)))
    assert np.array_equal(stored.pixels, whole)


def test_large_tiles_are_reduced_as_far_as_they_divide() -> None:
    pixels = textured(1100, 2100, 16)
    for side, most in ((1024, 5), (1028, 2), (1025, 0), (512, 0)):
        blank = np.zeros_like(pixels)
        header = read_jpeg2000(by_pillow(blank, tile_size=(side, side), num_resolutions=6))
        assert header is not None
        assert header.skippable == most
    frame = by_pillow(pixels, tile_size=(1028, 1028), num_resolutions=6)
    stored = decode(coded(pixels, 16, frame, gate.JPEG_2000), levels=3)
    assert stored.reduction is not None
    assert stored.reduction.levels == 2
    assert np.array_equal(stored.pixels, reduced_by_pillow(frame, 2, (275, 525), 16))


@pytest.mark.parametrize("name", ["explicit-le", "rle", "jpeg-lossless-sv1", "jpeg-ls"])
def test_other_encodings_are_decoded_in_full(name: str) -> None:
    stored = decode(source(exams.dataset(View.LCC, ROW[name])), levels=2)
    assert stored.reduction is None
    assert np.array_equal(stored.pixels, exams.codes(View.LCC, ROW[name]))
