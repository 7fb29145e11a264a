"""JPEG 2000 that lost a part is refused, whatever its encoder's options; whole, it is accepted."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import JPEG2000, HTJ2KLossless, JPEG2000Lossless
from source_images import coded, textured

from mammoclip_sdk._native import jpeg2000_fault
from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.pixels import decode, frame

PROGRESSIONS = ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")
TILE, DATA, END = b"\xff\x90\x00\x0a", b"\xff\x93", b"\xff\xd9"
BREAST = textured(512, 416, 12)
BREAST[:, 250:] = 0


def pillow(pixels: NDArray[Any], **options: Any) -> bytes:
    """Encode with layers, precincts and progressions, for which imagecodecs has no option.

    Tiles must divide the image: with others Pillow 13 corrupts its memory.
    """
    to = io.BytesIO()
    Image.fromarray(pixels).save(to, format="JPEG2000", no_jp2=True, **options)
    return to.getvalue()


def openjpeg(pixels: NDArray[Any], **options: Any) -> bytes:
    options = {"level": 0, "reversible": True, "bitspersample": 12} | options
    return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="J2K", **options))


def openjph(pixels: NDArray[Any], **options: Any) -> bytes:
    return bytes(imagecodecs.htj2k_encode(pixels, **{"reversible": True} | options))


LAYERS: dict[str, Any] = {"quality_mode": "rates", "quality_layers": [20, 8, 2]}
PRECINCTS: dict[str, Any] = {"precinct_size": (128, 128), "codeblock_size": (32, 32)}
STREAMS = {
    "lossless": openjpeg(BREAST),
    "lossy": openjpeg(BREAST, level=60, reversible=False),
    "layers": pillow(BREAST, **LAYERS),
    "tiles": pillow(BREAST, tile_size=(208, 256)),
    **{name: pillow(BREAST, progression=name, **LAYERS, **PRECINCTS) for name in PROGRESSIONS},
    "high throughput": openjph(BREAST),
    "high throughput, tile-parts": openjph(
        BREAST, tlm=True, tilepart=imagecodecs.HTJ2K.TILEPART.RESOLUTIONS
    ),
    "high throughput, lossy": openjph(BREAST, reversible=False, level=2.0**-12),
}
MQ_CODED = [name for name in STREAMS if "throughput" not in name]


def body(stream: bytes) -> tuple[int, int]:
    return stream.index(DATA) + 2, len(stream) - 2


def tile_parts(stream: bytes) -> list[tuple[int, int]]:
    """Where each begins, and its length."""
    found, at = [], stream.index(TILE)
    while stream[at : at + 4] == TILE:
        found.append((at, int.from_bytes(stream[at + 6 : at + 10], "big")))
        at += found[-1][1]
    return found


def without(stream: bytes, at: int, count: int) -> bytes:
    """Take bytes out of a tile-part, whose length is told anew."""
    begin, length = next(part for part in tile_parts(stream) if at < sum(part))
    told = (length - count).to_bytes(4, "big")
    return stream[: begin + 6] + told + stream[begin + 10 : at] + stream[at + count :]


def overwritten(stream: bytes, at: int, part: bytes) -> bytes:
    return stream[:at] + part + stream[at + len(part) :]


@pytest.mark.parametrize("name", STREAMS)
def test_whole(name):
    assert jpeg2000_fault(STREAMS[name]) is None
    assert jpeg2000_fault(STREAMS[name] + b"\0") is None  # made even


@pytest.mark.parametrize("name", MQ_CODED)
@pytest.mark.parametrize("size", [512, 4096])
def test_a_lost_sector(name, size):
    stream = STREAMS[name]
    begin, end = body(stream)
    for at in range(begin + 2000, end - size - 2000, (end - begin) // 5):
        assert jpeg2000_fault(overwritten(stream, at, bytes(size))) is not None


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_many_lost_sectors(name, fill):
    stream = STREAMS[name]
    begin, end = body(stream)
    at = (begin + end) // 3
    assert jpeg2000_fault(overwritten(stream, at, fill * 16384)) is not None


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("count", [16, 512])
def test_bytes_cut_out(name, count):
    stream = STREAMS[name]
    begin, length = max(tile_parts(stream), key=lambda part: part[1])
    data = stream.index(DATA, begin) + 2
    middle = (data + begin + length - count) // 2
    assert jpeg2000_fault(without(stream, middle, count)) is not None


@pytest.mark.parametrize("name", STREAMS)
def test_bytes_between_tile_parts_behind_the_last_packet_and_behind_the_end(name):
    stream = STREAMS[name]
    begin, length = tile_parts(stream)[-1]
    end = begin + length
    parts = "tile-parts that do not follow each other"
    assert jpeg2000_fault(stream[:end] + b"\0\0" + stream[end:]) == parts
    told = (length + 1).to_bytes(4, "big")
    longer = stream[: begin + 6] + told + stream[begin + 10 : end] + b"\0" + stream[end:]
    assert jpeg2000_fault(longer) == "bytes behind its last packet"
    assert jpeg2000_fault(stream + b"\1") == "no end of its codestream"


def test_a_tile_that_is_not_there():
    stream = STREAMS["tiles"]
    begin, length = tile_parts(stream)[2]
    assert jpeg2000_fault(stream[:begin] + stream[begin + length :]) == "tiles that are not there"


def test_a_tile_part_that_is_there_twice():
    stream = STREAMS["tiles"]
    begin, length = tile_parts(stream)[2]
    doubled = stream[: begin + length] + stream[begin:]
    assert jpeg2000_fault(doubled) == "tile-parts that do not follow each other"


def test_packets_that_do_not_follow_each_other():
    plain = openjpeg(BREAST, resolutions=1)
    at = plain.index(b"\xff\x52")
    marked = overwritten(plain, at + 4, bytes([plain[at + 4] | 2]))
    (begin, length), data = tile_parts(plain)[0], plain.index(DATA) + 2
    told = (length + 6).to_bytes(4, "big")

    def numbered(number: int) -> bytes:
        start = b"\xff\x91\x00\x04" + number.to_bytes(2, "big")
        return marked[: begin + 6] + told + marked[begin + 10 : data] + start + marked[data:]

    assert jpeg2000_fault(numbered(0)) is None
    assert jpeg2000_fault(numbered(1)) == "packets that do not follow each other"


def test_a_high_throughput_block_without_its_suffix():
    stream = openjph(BREAST[:60, :60], resolutions=1)
    _, end = body(stream)
    assert jpeg2000_fault(stream) is None
    assert jpeg2000_fault(overwritten(stream, end - 2, b"\0\0")) is not None


@pytest.mark.parametrize("columns", [256, 512])
@pytest.mark.parametrize("reversible", [True, False])
def test_long_runs_of_zeros_that_an_encoder_wrote(columns, reversible):
    """Stripes put the coder into a state in which each of them costs one bit, zero."""
    longest = 0
    for seed in range(6):
        stripes = np.random.default_rng(seed).integers(0, 4096, 4)
        pixels = np.repeat(np.tile(stripes, 128)[:, None], columns, axis=1).astype(np.uint16)
        level = 0 if reversible else 60
        stream = openjpeg(pixels, reversible=reversible, level=level, resolutions=6)
        longest = max(longest, *map(len, re.findall(rb"\0+", stream)))
        assert jpeg2000_fault(stream) is None
    assert longest > 256


@pytest.mark.parametrize(
    ("name", "syntax"),
    [("lossless", JPEG2000Lossless), ("lossy", JPEG2000), ("high throughput", HTJ2KLossless)],
)
@pytest.mark.parametrize("levels", [0, 2])
def test_what_is_refused_in_full_is_refused_reduced(name, syntax, levels):
    stream = STREAMS[name]
    assert decode(coded(BREAST, 12, stream, syntax), levels=levels).pixels.size > 0
    _, end = body(stream)
    damaged = overwritten(stream, end - 20000, bytes(16384))
    with pytest.raises(PixelError) as caught:
        decode(coded(BREAST, 12, damaged, syntax), levels=levels)
    assert caught.value.code == "decode_failed"
    assert jpeg2000_fault(damaged) in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    seed=st.integers(0, 99),
    bits=st.sampled_from([8, 10, 12, 16]),
)
def test_small_images_are_whole(rows, columns, seed, bits):
    kind = np.uint8 if bits == 8 else np.uint16
    pixels = np.random.default_rng(seed).integers(0, 2**bits, (rows, columns)).astype(kind)
    assert jpeg2000_fault(openjpeg(pixels, resolutions=1, bitspersample=bits)) is None
    for resolutions in range(4):
        assert jpeg2000_fault(openjph(pixels, resolutions=resolutions)) is None


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    rows=st.integers(32, 200),  # OpenJPEG's encoder wants a pixel of each resolution
    columns=st.integers(32, 200),
    content=st.sampled_from(["noise", "black", "white", "point", "low bits zero"]),
    progression=st.sampled_from(PROGRESSIONS),
    layers=st.lists(st.integers(2, 40), min_size=1, max_size=4, unique=True),
    resolutions=st.integers(1, 6),
    precincts=st.booleans(),
    irreversible=st.booleans(),
)
def test_no_whole_stream_is_refused_and_no_shortened_one_accepted(
    data, rows, columns, content, progression, layers, resolutions, precincts, irreversible
):
    random = np.random.default_rng(rows * columns)
    pixels = random.integers(0, 4096, (rows, columns)).astype(np.uint16)
    if content == "low bits zero":
        pixels = pixels >> 4 << 4
    elif content != "noise":
        pixels[:] = 4095 if content == "white" else 0
    if content == "point":
        pixels[rows // 2, columns // 3] = 4095
    stream = pillow(
        pixels,
        progression=progression,
        quality_mode="rates",
        quality_layers=sorted(layers, reverse=True),
        num_resolutions=resolutions,
        irreversible=irreversible,
        **(PRECINCTS if precincts else {}),
    )
    assert jpeg2000_fault(stream) is None
    begin, length = tile_parts(stream)[-1]
    first = stream.index(DATA, begin) + 2
    count = data.draw(st.integers(1, begin + length - first))
    assert jpeg2000_fault(without(stream, begin + length - count, count)) is not None


def test_without_another_thread_it_is_decoded_in_the_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    monkeypatch.setattr(frame, "_turns", ended)
    image = coded(BREAST, 12, STREAMS["lossless"], JPEG2000Lossless)
    np.testing.assert_array_equal(decode(image).pixels, BREAST)
