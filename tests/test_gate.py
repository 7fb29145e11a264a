"""The gate: what is refused unopened, and by which name."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import exams
import pytest
from part10_files import BUNDLED, changed, element, outcome, part10, written
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from mammoclip_sdk.dicom import file as dicom_file
from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.element_head import MAX_ELEMENTS
from mammoclip_sdk.errors import (
    DicomReadError,
    InputError,
    NotDicomError,
    PixelError,
    UnsupportedImageError,
    UnsupportedTransferSyntaxError,
)
from mammoclip_sdk.exam import View


def test_header_stops_before_the_pixels_and_dataset_holds_them(plain: bytes) -> None:
    header = gate.read_header(plain, name="x")
    assert header.Rows == 96
    assert "PixelData" not in header
    assert header.file_meta.TransferSyntaxUID == gate.EXPLICIT_LITTLE
    assert len(gate.read_dataset(plain, name="x").PixelData) == 96 * 80 * 2


# -- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 200, b"\0" * 128 + b"DICN" + b"\0" * 50])
def test_without_magic_it_is_not_dicom(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    with pytest.raises(NotDicomError, match=r"x\.dcm: found no 'DICM' at byte 128"):
        gate.read_header_of(path, name="x.dcm")


def test_a_file_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bytes
) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(plain)
    monkeypatch.setattr(dicom_file, "MAX_FILE_BYTES", len(plain))
    assert gate.read_header_of(path, name="x").Rows == 96
    monkeypatch.setattr(dicom_file, "MAX_FILE_BYTES", len(plain) - 1)
    with pytest.raises(DicomReadError) as caught:
        gate.read_header_of(path, name="x")
    assert caught.value.code == "file_too_large"


def test_of_a_large_file_no_more_is_read_than_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "large"
    for magic, code in ((b"DICM", "file_too_large"), (b"none", "not_dicom")):
        path.write_bytes(bytes(128) + magic)
        os.truncate(path, dicom_file.MAX_FILE_BYTES + 1)
        tracemalloc.start()
        with pytest.raises(InputError) as caught:
            gate.read_header_of(path, name="x")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert caught.value.code == code
        assert peak < 2**20


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, code in (
        (pipe, "not_a_file"),
        (tmp_path, "not_a_file"),
        (tmp_path / "absent", "file_unreadable"),
        (tmp_path / "a\0b", "file_unreadable"),
        (tmp_path / "\ud800", "file_unreadable"),
        (tmp_path / ("x" * 300), "file_unreadable"),
    ):
        with pytest.raises(DicomReadError) as caught:
            gate.read_header_of(path, name="x")
        assert caught.value.code == code


def test_a_file_that_the_system_makes_while_it_is_read_is_refused_unread():
    path = Path("/proc/kmsg")  # of size 0, and reading it waits for the kernel's next message
    if not path.exists():
        pytest.skip("no /proc on this system")
    with pytest.raises(InputError) as caught:
        gate.read_header_of(path, name="kmsg")
    assert caught.value.code in ("not_dicom", "file_unreadable")


# -- the transfer syntax --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        ("1.2.840.10008.1.2.2", "Explicit VR Big Endian"),
        ("1.2.840.10008.1.2.1.99", "Deflated"),
        ("1.2.840.10008.1.2.4.94", "JPIP"),
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.113619.5.2", "private"),
        ("1.2.3", "private or unknown"),
    ],
)
def test_transfer_syntaxes_outside_the_list_are_refused_by_name(syntax: str, words: str) -> None:
    with pytest.raises(UnsupportedTransferSyntaxError, match=words):
        gate.read_header(part10(syntax), name="x")


def test_a_deflate_bomb_is_refused_without_being_inflated() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(2**20)
    body = b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    source = part10("1.2.840.10008.1.2.1.99", body)
    tracemalloc.start()
    with pytest.raises(UnsupportedTransferSyntaxError):
        gate.read_header(source, name="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20  # of 64 MiB


def test_two_transfer_syntaxes_are_one_too_many() -> None:
    second = element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1.99")
    with pytest.raises(DicomReadError) as caught:
        gate.read_header(part10(gate.EXPLICIT_LITTLE, more_meta=second), name="x")
    assert caught.value.code == "file_meta"


def test_no_transfer_syntax_is_not_guessed() -> None:
    source = b"\0" * 128 + b"DICM" + element(2, 2, b"UI", b"1.2")
    with pytest.raises(DicomReadError) as caught:
        gate.read_header(source, name="x")
    assert caught.value.code == "no_transfer_syntax"


# -- the data set ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            struct.pack("<HH2s2xI", 8, 0x1140, b"SQ", 0xFFFFFFFF)
            + (struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
               + struct.pack("<HH2s2xI", 8, 0x1140, b"SQ", 0xFFFFFFFF)) * 20_000,
            id="20,000 nested sequences",
        ),
        pytest.param(struct.pack("<HH2s2xI", 8, 0x119, b"UT", 0xFFFFFFF0), id="a length of 4 GiB"),
        pytest.param(element(8, 5, b"CS", b"NO_SUCH_CHARSET "), id="an unknown character set"),
        pytest.param(b"\x08\x00", id="half an element"),
        pytest.param(b"\xff" * 64, id="no elements at all"),
    ],
)  # fmt: skip
def test_hostile_headers_end_in_a_read_error(body: bytes) -> None:
    with pytest.raises(DicomReadError):
        gate.read_header(part10(gate.EXPLICIT_LITTLE, body), name="x")


def test_an_object_without_pixels_is_named_as_such() -> None:
    for sop_class, code in (
        (b"1.2.840.10008.5.1.4.1.1.88.11", "no_pixel_data"),
        (gate.FOR_PRESENTATION.encode(), "truncated"),
        (b"", "truncated"),
    ):
        body = element(8, 0x16, b"UI", sop_class + b"\0" * (len(sop_class) % 2))
        for read in (gate.read_header, gate.read_dataset):
            with pytest.raises(DicomReadError) as caught:
                read(part10(gate.EXPLICIT_LITTLE, body), name="x")
            assert caught.value.code == code


def test_an_object_of_another_class_is_handed_over_to_be_refused_for_that() -> None:
    volume = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3", "NumberOfFrames": 60}
    header = gate.read_header(changed(**volume, Rows=9000, SamplesPerPixel=3), name="x")
    assert header.SOPClassUID == volume["SOPClassUID"]
    frames = Sequence([Dataset() for _ in range(MAX_ELEMENTS)])
    source = changed(**volume, PerFrameFunctionalGroupsSequence=frames)
    partial = gate.read_header(source, name="x")
    assert partial.SOPClassUID == volume["SOPClassUID"]
    assert "PerFrameFunctionalGroupsSequence" not in partial
    with pytest.raises(DicomReadError) as caught:
        gate.read_dataset(source, name="x")
    assert caught.value.code == "too_many_elements"


def test_a_document_has_no_pixels(tmp_path: Path) -> None:
    body = element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.88.59\0")
    path = tmp_path / "note"
    path.write_bytes(part10(gate.EXPLICIT_LITTLE, body))
    assert gate.read_document_of(path, name="x").SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.59"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DicomReadError, match="the end of the file inside"):
        gate.read_document_of(path, name="x")


def test_a_dicomdir_has_its_own_reason() -> None:
    indices = [path for path in BUNDLED if path.name == "DICOMDIR"]
    assert indices
    for path in indices:
        with pytest.raises(UnsupportedImageError, match="the index of a medium") as caught:
            gate.read_header_of(path, name="x")
        assert caught.value.code == "dicomdir"


# -- the image ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "kind", "code"),
    [
        ({"Rows": 64, "Columns": 8192}, None, None),
        ({"Rows": 8192, "Columns": 7812}, None, None),  # 63,995,904 pixels
        ({"Rows": 8192, "Columns": 7813}, PixelError, "image_size"),  # 64,004,096
        ({"Rows": 63}, PixelError, "image_size"),
        ({"Columns": 8193}, PixelError, "image_size"),
        ({"Columns": 0}, PixelError, "image_size"),
        ({"BitsAllocated": 8}, None, None),
        ({"BitsAllocated": 32}, PixelError, "bits"),
        ({"BitsAllocated": 1}, PixelError, "bits"),
        ({"SamplesPerPixel": 3}, UnsupportedImageError, "not_greyscale"),
        ({"NumberOfFrames": 1}, None, None),
        ({"NumberOfFrames": 2}, UnsupportedImageError, "multi_frame"),
        ({"NumberOfFrames": 0}, UnsupportedImageError, "multi_frame"),
    ],
)
def test_the_size_of_an_image_has_limits(
    attributes: dict[str, int], kind: type[InputError] | None, code: str | None
) -> None:
    source = changed(**attributes)
    for read in (gate.read_header, gate.read_dataset):
        error = outcome(lambda read=read: read(source, name="x"))
        assert type(error) is (kind or type(None))
        assert getattr(error, "code", None) == code


@pytest.mark.parametrize("tag", [0x00280010, 0x00280011, 0x00280002, 0x00280100])
def test_sizes_of_another_vr_are_refused(tag: int) -> None:
    image = exams.dataset(View.LCC, exams.PLAIN)
    image.add_new(tag, "UL", image[tag].value)
    with pytest.raises(PixelError, match=r"\(0028,00\d\d\)|\(0028,0100\)") as caught:
        gate.read_header(written(image), name="x")
    assert caught.value.code == "pixel_header"


def test_pixels_are_encoded_as_the_transfer_syntax_says() -> None:
    packed = exams.dataset(View.LCC, next(row for row in exams.VARIANTS if row.name == "rle"))
    native, encapsulated = gate.EXPLICIT_LITTLE.encode(), gate.RLE.encode()
    assert len(native) == len(encapsulated)
    for source in (
        written(packed).replace(encapsulated, native, 1),
        changed().replace(native, encapsulated, 1),
    ):
        with pytest.raises(DicomReadError) as caught:
            gate.read_header(source, name="x")
        assert caught.value.code == "pixel_encoding"


def test_nothing_that_is_read_may_stand_behind_the_pixels(plain: bytes) -> None:
    padding = element(0xFFFC, 0xFFFC, b"OB", b"\0" * 8)
    for tail in (b"", padding, b"\0" * 2048):
        assert gate.read_dataset(plain + tail, name="x").Rows == 96
    rows, pixels = element(0x28, 0x10, b"US", b"\x60\0"), element(0x7FE0, 0x10, b"OW", b"\0\0")
    for tail, code in (
        (rows, "tag_order"),
        (padding + pixels, "tag_order"),
        (b"\0" * 64 + b"\1", "truncated"),
        (b"\xff" * 64, "sequence_structure"),
    ):
        with pytest.raises(DicomReadError) as caught:
            gate.read_dataset(plain + tail, name="x")
        assert caught.value.code == code
