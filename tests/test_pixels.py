"""Stored values come back exactly, whatever their encoding and wherever their bits lie."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import exams
import numpy as np
import pytest
from exams import PLAIN, VARIANTS, Variant
from pydicom import dcmread
from pydicom.encaps import encapsulate
from source_images import ROW, changed, refusal, source

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.errors import DicomReadError
from mammoclip_sdk.exam import View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.views import read_exam


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_encoding_gives_the_stored_values(tmp_path: Path, variant: Variant) -> None:
    exams.write_exam(tmp_path, variant)
    for view, image in read_exam(tmp_path).images.items():
        stored = decode(image)
        expected = exams.codes(view, variant)
        assert stored.pixels.dtype == expected.dtype
        assert stored.pixels.shape == expected.shape
        assert np.abs(stored.pixels.astype(int) - expected).max() <= variant.tolerance
        assert stored.pixels.flags.c_contiguous
        assert stored.transfer_syntax == variant.syntax
        assert stored.view == view
        assert stored.display.bits_stored == variant.bits_stored
        assert stored.display.signed == variant.signed
        assert stored.display.photometric == variant.photometric


def test_the_same_pixels_have_one_hash_in_every_lossless_encoding(tmp_path: Path) -> None:
    rows = ("explicit-le", "implicit-le", "high-bit-15", "rle", "jpeg-lossless-sv1",
            "jpeg-ls", "jpeg-2000-lossless")  # fmt: skip
    hashes = set()
    for name in rows:
        exams.write_exam(tmp_path / name, ROW[name])
        hashes.add(decode(read_exam(tmp_path / name).images[View.RMLO]).sha256)
    expected = exams.codes(View.RMLO, PLAIN).tobytes()
    assert hashes == {hashlib.sha256(expected).hexdigest()}


def test_only_an_overlay_the_header_declares_is_cleared() -> None:
    image = exams.dataset(View.LCC, PLAIN)
    expected = exams.codes(View.LCC, PLAIN)
    overlay = np.where(np.arange(expected.size).reshape(expected.shape) % 3, 0, 0x9000)
    image.PixelData = (expected | overlay.astype(np.uint16)).tobytes()
    assert refusal(source(image)) == "value_range"
    image.add_new(0x60000102, "US", 12)
    assert refusal(source(image)) == "value_range"
    image.add_new(0x60020102, "US", 15)
    assert np.array_equal(decode(source(image)).pixels, expected)
    image.add_new(0x60023000, "OW", b"\0\0")  # an overlay with data of its own takes no bit
    assert refusal(source(image)) == "value_range"


@pytest.mark.parametrize("name", ["explicit-le", "rle", "jpeg-lossless-sv1", "jpeg-extended",
                                  "jpeg-2000-lossless", "jpeg-2000-signed"])  # fmt: skip
def test_bright_tissue_is_not_wrapped_to_black(name: str) -> None:
    assert refusal(changed(ROW[name], BitsStored=10, HighBit=9)) == "value_range"


def test_padding_outside_the_stored_range_is_not_wrapped_to_white() -> None:
    image = exams.dataset(View.LCC, PLAIN)
    pixels = exams.codes(View.LCC, PLAIN)
    image.add_new(0x00280120, "US", 65535)
    image.PixelData = np.where(pixels == 0, 65535, pixels).astype(np.uint16).tobytes()
    assert refusal(source(image)) == "value_range"


def test_bits_below_the_stored_ones_are_not_dropped() -> None:
    image = exams.dataset(View.LCC, ROW["high-bit-15"])
    pixels = np.frombuffer(image.PixelData, np.uint16)
    image.PixelData = (pixels | 1).tobytes()
    assert refusal(source(image)) == "value_range"


def test_sign_extension_is_cleared_to_twos_complement() -> None:
    variant = ROW["signed"]
    image = exams.dataset(View.LCC, variant)
    expected = exams.codes(View.LCC, variant)
    extended = ((expected.astype(np.int16) << 4) >> 4).astype(np.uint16)
    image.PixelData = extended.tobytes()
    assert np.array_equal(decode(source(image)).pixels, expected)
    extended[40, 40] ^= 0x8000
    image.PixelData = extended.tobytes()
    assert refusal(source(image)) == "value_range"


def test_eight_signed_bits_keep_their_sign_in_sixteen() -> None:
    variant = Variant(
        name="x", syntax=gate.JPEG_2000_LOSSLESS, bits_stored=8, signed=True, bits_allocated=16
    )
    stored = decode(source(exams.dataset(View.LCC, variant)))
    assert stored.pixels.dtype == np.uint16
    assert np.array_equal(stored.pixels, exams.codes(View.LCC, variant))


def test_several_fragments_are_one_frame() -> None:
    image = exams.dataset(View.LCC, ROW["jpeg-ls"])
    frame = exams.compress(exams.codes(View.LCC, PLAIN), ROW["jpeg-ls"])
    for has_table in (True, False):
        image.PixelData = encapsulate([frame], fragments_per_frame=3, has_bot=has_table)
        assert np.array_equal(decode(source(image)).pixels, exams.codes(View.LCC, PLAIN))


def test_a_file_exchanged_after_the_exam_was_read_is_noticed(tmp_path: Path) -> None:
    first, second, *_ = exams.write_exam(tmp_path, PLAIN)
    exam = read_exam(tmp_path)
    first.write_bytes(second.read_bytes())
    with pytest.raises(DicomReadError) as caught:
        decode(exam.images[View.LCC])
    assert caught.value.code == "changed"
    assert decode(exam.images[View.RCC]).view == View.RCC


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageLaterality", "R"),
        ("PatientID", "another"),
        ("AcquisitionTime", "235959"),
        ("Rows", 95),
        ("ViewCodeSequence", []),
    ],
)
def test_another_image_of_the_same_uid_is_noticed(tmp_path: Path, keyword: str, value: Any) -> None:
    first, *_ = exams.write_exam(tmp_path, PLAIN)
    exam = read_exam(tmp_path)
    assert decode(exam.images[View.LCC]).view == View.LCC
    image = dcmread(first)
    setattr(image, keyword, value)
    image.save_as(first)
    with pytest.raises(DicomReadError) as caught:
        decode(exam.images[View.LCC])
    assert caught.value.code == "changed"
