"""Pixels are held once, and memory that is used again shows nothing of another image."""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import exams
import numpy as np
import pytest
from exams import PLAIN, Variant
from pydicom.uid import UID
from source_images import ROW, frame_of, framed, refusal, source

from mammoclip_sdk._native import release_idle_memory
from mammoclip_sdk.dicom import gate
from mammoclip_sdk.exam import VIEWS, SourceImage, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.pixels import frame as frame_module
from training.encodings import write


def test_native_pixels_are_not_copied() -> None:
    image = exams.dataset(View.LCC, PLAIN)
    pixels = decode(source(image)).pixels
    assert np.shares_memory(pixels, np.frombuffer(image.PixelData, np.uint8))


@pytest.mark.parametrize("syntax", [gate.EXPLICIT_LITTLE, gate.JPEG_LOSSLESS_SV1, gate.RLE])
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak")
def test_no_view_is_held_twice(tmp_path: Path, syntax: str) -> None:
    """Of all that the process holds; what is compressed is held beside its pixels."""
    variant = Variant(name="x", syntax=gate.EXPLICIT_LITTLE, rows=4096, columns=3328)
    path = tmp_path / "view"
    write(exams.dataset(View.LCC, variant), path, UID(syntax))
    image = SourceImage(view=View.LCC, name="x", path=path)
    expected = exams.codes(View.LCC, variant)
    decode(image)
    release_idle_memory()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins now
    before = resident("VmRSS")
    stored = decode(image)
    peak = resident("VmHWM") - before
    assert np.array_equal(stored.pixels, expected)
    frame = 0 if syntax == gate.EXPLICIT_LITTLE else path.stat().st_size
    assert 0.9 * stored.pixels.nbytes < peak < 1.1 * stored.pixels.nbytes + frame


def resident(key: str) -> int:
    """Bytes of this process that Linux counts by this name."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def test_an_image_is_read_alike_whatever_was_read_before(tmp_path: Path) -> None:
    """Also where its pixels come to lie in memory that a larger image has left."""
    large = Variant(name="large", syntax=gate.EXPLICIT_LITTLE, rows=2048, columns=1664)
    small = Variant(name="small", syntax=gate.EXPLICIT_LITTLE, rows=1700, columns=1100)
    for syntax in (gate.EXPLICIT_LITTLE, gate.RLE):
        for variant in (large, small):
            image = exams.dataset(View.LCC, variant)
            write(image, tmp_path / f"{variant.name}-{syntax}", UID(syntax))
    for syntax in (gate.EXPLICIT_LITTLE, gate.RLE, gate.EXPLICIT_LITTLE):
        for variant in (large, small, large):
            path = tmp_path / f"{variant.name}-{syntax}"
            pixels = decode(SourceImage(view=View.LCC, name="x", path=path)).pixels
            assert np.array_equal(pixels, exams.codes(View.LCC, variant))


def test_exams_read_at_once_do_not_meet_in_memory(tmp_path: Path) -> None:
    variant = Variant(name="x", syntax=gate.EXPLICIT_LITTLE, rows=1300, columns=1000)
    for view in VIEWS:
        write(exams.dataset(view, variant), tmp_path / view, UID(variant.syntax))

    def same(number: int) -> bool:
        view = VIEWS[number % len(VIEWS)]
        pixels = decode(SourceImage(view=view, name="x", path=tmp_path / view)).pixels
        return np.array_equal(pixels, exams.codes(view, variant))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(same, range(64)))


def test_run_lengths_that_end_early_show_nothing_of_the_last_image(tmp_path: Path) -> None:
    variant = Variant(name="x", syntax=gate.RLE, rows=1300, columns=1000)
    decode(source(exams.dataset(View.LCC, variant)))
    frame = frame_of(variant)
    assert refusal(framed(variant, frame[: len(frame) // 2 * 2 - 100])) == "decode_failed"


def test_out_of_memory_is_an_error_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(frame: Any) -> Any:
        raise MemoryError

    monkeypatch.setitem(frame_module._DECODERS, gate.JPEG_LS, without_memory)
    assert refusal(source(exams.dataset(View.LCC, ROW["jpeg-ls"]))) == "decoder_memory"
