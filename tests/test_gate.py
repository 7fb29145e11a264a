"""The gate: what is refused unopened, and that nothing pydicom says ever leaves it."""

from __future__ import annotations

import io
import logging
import os
import struct
import threading
import traceback
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import exams
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from mammoclip_sdk.dicom import file as dicom_file
from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.attributes import READ
from mammoclip_sdk.dicom.element_head import MAX_ELEMENTS
from mammoclip_sdk.dicom.elements import MAX_HEADER_BYTES
from mammoclip_sdk.dicom.header import Header
from mammoclip_sdk.dicom.shield import AttributeNotListedError, shielded
from mammoclip_sdk.errors import (
    DicomReadError,
    InputError,
    MammoClipError,
    NotDicomError,
    PixelError,
    UnsupportedImageError,
    UnsupportedTransferSyntaxError,
)
from mammoclip_sdk.exam import SourceImage, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.views import read_exam

BUNDLED = sorted(Path(DATA_ROOT, "test_files").rglob("*"))


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    head = struct.pack("<HH2s", group, number, vr)
    return head + struct.pack("<2xI" if long else "<H", len(value)) + value


def part10(syntax: str | bytes, body: bytes = b"", more_meta: bytes = b"") -> bytes:
    uid = syntax if isinstance(syntax, bytes) else syntax.encode()
    meta = element(2, 0x10, b"UI", uid + b"\0" * (len(uid) % 2)) + more_meta
    return b"\0" * 128 + b"DICM" + meta + body


def outcome(attempt: Callable[[], object]) -> MammoClipError | None:
    """Return this package's error; any other exception is a failure of the test."""
    try:
        attempt()
    except MammoClipError as error:
        return error
    return None


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return exams.write_exam(tmp_path_factory.mktemp("plain"), exams.PLAIN)[0].read_bytes()


def test_header_stops_before_the_pixels_and_dataset_holds_them(plain: bytes) -> None:
    header = gate.read_header(plain, name="x")
    assert header.Rows == 96
    assert "PixelData" not in header
    assert header.file_meta.TransferSyntaxUID == gate.EXPLICIT_LITTLE
    assert len(gate.read_dataset(plain, name="x").PixelData) == 96 * 80 * 2


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


def changed(**attributes: object) -> bytes:
    """Return a whole file whose header was changed; a private element and a sequence are in it."""
    return written(exams.dataset(View.LCC, exams.PLAIN), **attributes)


def written(image: FileDataset, **attributes: object) -> bytes:
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    file = io.BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_an_object_of_another_class_is_handed_over_to_be_refused_for_that() -> None:
    volume = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.3", "NumberOfFrames": 60}
    header = gate.read_header(changed(**volume, Rows=9000, SamplesPerPixel=3), name="x")
    assert header.SOPClassUID == volume["SOPClassUID"]
    frames = Sequence([Dataset() for _ in range(MAX_ELEMENTS)])
    source = changed(**volume, PerFrameFunctionalGroupsSequence=frames)
    partial = gate.read_header(source, name="x")
    assert partial.SOPClassUID == volume["SOPClassUID"]
    assert "PerFrameFunctionalGroupsSequence" not in partial
    for read in (gate.read_dataset,):
        with pytest.raises(DicomReadError) as caught:
            read(source, name="x")
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
    for path in BUNDLED:
        if path.name == "DICOMDIR":
            with pytest.raises(UnsupportedImageError, match="the index of a medium") as caught:
                gate.read_header_of(path, name="x")
            assert caught.value.code == "dicomdir"


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


@pytest.mark.parametrize("name", ["explicit-le", "implicit-le", "rle", "jpeg-2000", "ge-display"])
def test_what_is_read_is_what_pydicom_reads(tmp_path: Path, name: str) -> None:
    variant = next(row for row in exams.VARIANTS if row.name == name)
    path = exams.write_exam(tmp_path, variant)[0]
    theirs, ours = pydicom.dcmread(path), gate.read_dataset_of(path, name="x")
    assert ours == gate.read_dataset(path.read_bytes(), name="x")
    assert {int(tag) for tag in ours.keys()} == {int(tag) for tag in theirs.keys()} & set(READ)  # noqa: SIM118
    for tag in ours.keys():  # noqa: SIM118
        assert ours[tag].value == theirs[tag].value
        assert ours[tag].VR == theirs[tag].VR
    assert type(ours.PixelData) is memoryview
    assert ours["PixelData"].is_undefined_length == (variant.syntax not in gate.NATIVE_SYNTAXES)


def test_private_elements_overlays_and_unknown_sequences_reach_no_parser() -> None:
    image = exams.dataset(View.LCC, exams.PLAIN)
    image.private_block(0x0045, "GE", create=True).add_new(1, "SQ", [Dataset()])
    image.ReferencedImageSequence = [Dataset()]
    image.add_new(0x60000010, "US", 4)
    image.add_new(0x60000102, "US", 12)
    header = gate.read_header(written(image), name="x")
    assert 0x60000102 in header
    assert not {0x00450010, 0x00451001, 0x60000010} & {int(tag) for tag in header.keys()}  # noqa: SIM118
    assert "ReferencedImageSequence" not in header
    assert "PatientName" not in header


def test_texts_are_read_in_their_character_set() -> None:
    for charset, text in (("ISO_IR 100", "Brüste"), ("ISO_IR 192", "乳房"), ("ISO_IR 144", "Л")):
        source = changed(SpecificCharacterSet=charset, SeriesDescription=text)
        with shielded("x"):
            assert (
                Header(gate.read_header(source, name="x"), name="x").one("SeriesDescription")
                == text
            )


def test_a_sequence_of_unknown_vr_is_an_implicit_one() -> None:
    """PS3.5 section 6.2.2, with and without a length."""
    code = (
        struct.pack("<HHI", 8, 0x100, 10)
        + b"399162004 "
        + struct.pack("<HHI", 8, 0x102, 4)
        + b"SCT "
    )
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(code)) + code
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    image = exams.dataset(View.LCC, exams.PLAIN)
    del image.ViewCodeSequence
    source = written(image)
    at = source.index(struct.pack("<HH", 0x7FE0, 0x10))
    head = struct.pack("<HH2s2xI", 0x54, 0x220, b"UN", len(item))
    for sequence in (head + item, head[:-4] + b"\xff" * 4 + item + end):
        header = gate.read_header(source[:at] + sequence + source[at:], name="x")
        with shielded("x"):
            codes = Header(header, name="x").codes("ViewCodeSequence")
        assert codes == [("399162004", "SCT")]


@pytest.mark.parametrize("private", [10, 100_000, 5_000_000])
def test_of_a_file_no_more_is_read_than_its_header(tmp_path: Path, private: int) -> None:
    image = exams.dataset(View.LCC, replace(exams.PLAIN, rows=4000, columns=3000))
    image.private_block(0x0011, "VENDOR", create=True).add_new(1, "OB", bytes(private))
    path = tmp_path / "x.dcm"
    path.write_bytes(written(image))
    tracemalloc.start()
    header = gate.read_header_of(path, name="x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (header.Rows, header.Columns) == (4000, 3000)
    assert peak < 300_000 + 25 * private  # of 24 MB


def test_the_pixels_are_read_once_and_copied_never(tmp_path: Path) -> None:
    path = exams.write_exam(tmp_path, replace(exams.PLAIN, rows=2000, columns=2000))[0]
    tracemalloc.start()
    dataset = gate.read_dataset_of(path, name="x")
    pixels = np.frombuffer(dataset.PixelData, "<u2")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels.size == 2000 * 2000
    assert peak < 0.05 * pixels.nbytes  # they lie in memory that is not Python's own


def test_the_header_ends_at_the_limit(tmp_path: Path, plain: bytes) -> None:
    at = plain.index(struct.pack("<HH", 0x7FE0, 0x10))
    path = tmp_path / "x.dcm"
    for surplus, code in ((0, None), (2, "header_too_large")):
        filling = element(0x7FD1, 0x1001, b"OB", bytes(MAX_HEADER_BYTES - at - 12 + surplus))
        path.write_bytes(plain[:at] + filling + plain[at:])
        error = outcome(lambda: gate.read_header_of(path, name="x"))
        assert getattr(error, "code", None) == code
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 2**20) + bytes(2**20)
    endless = struct.pack("<HH2s2xI", 0x7FD1, 0x1001, b"OB", 0xFFFFFFFF) + items * 17
    path.write_bytes(plain[:at] + endless + plain[at:])
    error = outcome(lambda: gate.read_header_of(path, name="x"))
    assert error is not None
    assert error.code == "header_too_large"


def test_a_header_is_asked_only_for_what_the_gate_lets_through(plain: bytes) -> None:
    with (
        pytest.raises(AttributeNotListedError, match=r"\(0010,0010\) is not in attributes.READ"),
        shielded("x"),
    ):
        Header(gate.read_header(plain, name="x"), name="x").one("PatientName")
    dataset = exams.dataset(View.LCC, exams.PLAIN)
    with shielded("x"):
        header = Header(dataset, name="x")
        with pytest.raises(AttributeNotListedError):
            header.representation("PatientName")
        assert header.items("ViewCodeSequence")[0].one("CodeMeaning") == "meaning"
        assert header.values(0x601E3000) == []
        with pytest.raises(AttributeNotListedError):
            header.values(0x60200102)


@pytest.mark.parametrize("name", ["explicit-le", "implicit-le", "rle", "jpeg-lossless-sv1"])
def test_no_proper_prefix_of_a_file_is_an_image(tmp_path: Path, name: str) -> None:
    variant = next(row for row in exams.VARIANTS if row.name == name)
    whole = exams.write_exam(tmp_path, variant)[0].read_bytes()
    path = tmp_path / "cut.dcm"
    for length in [*range(0, len(whole), len(whole) // 150), *range(len(whole) - 9, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            decode(SourceImage(view=View.LCC, name="cut.dcm", path=path))
        assert "Canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["explicit-le", "implicit-le", "rle", "jpeg-2000"])
def test_cut_at_any_offset_a_file_is_refused(tmp_path: Path, name: str) -> None:
    variant = next(row for row in exams.VARIANTS if row.name == name)
    whole = exams.write_exam(tmp_path, replace(variant, rows=64, columns=64))[0].read_bytes()
    gate.read_dataset(whole, name="x")
    for length in range(len(whole)):
        with pytest.raises(InputError):
            gate.read_dataset(whole[:length], name="x")


def test_a_value_cut_short_is_named(plain: bytes) -> None:
    with pytest.raises(DicomReadError) as caught:
        gate.read_dataset(plain[:-10], name="x")
    assert caught.value.code == "truncated"
    assert caught.value.found == "the end of the file inside (7FE0,0010)"


def test_pixels_cut_short_are_seen_in_the_header(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes(plain[:-10])
    for attempt in (
        lambda: gate.read_header(plain[:-10], name="x"),
        lambda: gate.read_header_of(path, name="x"),
        lambda: gate.read_dataset_of(path, name="x"),
    ):
        with pytest.raises(DicomReadError) as caught:
            attempt()
        assert caught.value.code == "truncated"


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_bytes_lead_to_a_result_or_to_an_error_without_names(
    data: st.DataObject, tmp_path: Path, plain: bytes
) -> None:
    pixels_at = plain.index(b"\xe0\x7f\x10\x00")
    damaged = bytearray(plain)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(132, pixels_at + 11))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(damaged)
    for attempt in (
        lambda: read_exam({view: path for view in View}),
        lambda: decode(SourceImage(view=View.LCC, name="damaged.dcm", path=path)),
    ):
        error = outcome(attempt)
        assert error is None or "Canary" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.name)
def test_files_of_others_lead_to_a_result_or_to_a_named_error(path: Path) -> None:
    assert get_testdata_file("CT_small.dcm", download=False)
    for attempt in (
        lambda: read_exam([path]),
        lambda: decode(SourceImage(view=View.LCC, name="x", path=path)),
    ):
        error = outcome(attempt)
        assert error is None or (error.subject and error.remedy)


def test_neither_warnings_nor_logs_nor_causes_repeat_a_value(
    plain: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uid = f"{exams.ROOT}.100".encode()
    at = plain.index(b"IS", plain.index(b"\x20\x00\x13\x00"))
    name = exams.CANARY.encode()
    broken = plain[: at + 2] + struct.pack("<H", 14) + name + b" " + plain[at + 6 :]
    broken = broken.replace(uid, name.ljust(len(uid), b" "))
    path = tmp_path / "x.dcm"
    path.write_bytes(broken)
    with pytest.warns(UserWarning, match="Canary"):  # what pydicom says when left alone
        pydicom.dcmread(path).StudyInstanceUID  # noqa: B018
    caplog.clear()
    with caplog.at_level(logging.DEBUG), pytest.raises(DicomReadError) as caught:
        read_exam([path])
    assert caught.value.found == (
        "a value that does not parse (ValueError) in Instance Number (0020,0013)"
    )
    assert "Canary" not in "".join(traceback.format_exception(caught.value))
    assert not caplog.records


@pytest.mark.parametrize("logger", ["pydicom", "pydicom.pixels.decoders.base"])
def test_no_log_of_this_thread_passes_the_shield(
    logger: str, caplog: pytest.LogCaptureFixture
) -> None:
    def speak() -> None:
        logging.getLogger(logger).warning("Canary")

    with caplog.at_level(logging.DEBUG), ThreadPoolExecutor(1) as pool:
        with shielded("x"):
            speak()
            assert not caplog.records
            pool.submit(speak).result()
            assert len(caplog.records) == 1
        speak()
        assert len(caplog.records) == 2


def test_the_warning_filters_survive_readers_in_many_threads(tmp_path: Path) -> None:
    """The host's own filters stay, however its threads and the readers take turns."""
    exams.write_exam(tmp_path, exams.PLAIN)
    stop = threading.Event()

    def host() -> None:
        while not stop.is_set():
            with warnings.catch_warnings():
                warnings.simplefilter("error", category=UserWarning)

    read_exam(tmp_path)
    before = list(warnings.filters)
    with ThreadPoolExecutor(9) as pool:
        pool.submit(host)
        found = list(pool.map(lambda _: list(read_exam(tmp_path).images), range(32)))
        stop.set()
    assert warnings.filters == before
    assert found == [list(View)] * 32


def test_no_warning_of_this_thread_passes_the_shield_and_all_of_others_do() -> None:
    with warnings.catch_warnings(record=True) as heard, ThreadPoolExecutor(1) as pool:
        warnings.simplefilter("always")
        with shielded("x"):
            warnings.warn("of a patient", UserWarning, stacklevel=1)
            assert heard == []
            pool.submit(warnings.warn, "of the host", UserWarning).result()
        warnings.warn("of the host", UserWarning, stacklevel=1)
    assert [str(one.message) for one in heard] == ["of the host"] * 2


def test_our_own_errors_pass_through_the_shield() -> None:
    with pytest.raises(NotDicomError), shielded("x"):
        raise NotDicomError("x", found="a", expected="b", remedy="c")


def chain(error: BaseException | None) -> str:
    """Return all that an error reporter can find which walks from cause to cause."""
    said = ""
    while error is not None:
        said += repr(error)
        error = error.__cause__ or error.__context__
    return said


def test_no_other_error_hides_behind_ours(plain: bytes, tmp_path: Path) -> None:
    def convert() -> None:
        with shielded("x"):
            float("Canary")

    def read() -> None:
        broken = exams.dataset(View.LCC, exams.PLAIN)
        broken._dict[Tag(0x00281050)] = RawDataElement(
            Tag(0x00281050), "DS", 6, b"Canary", 0, False, True
        )
        with shielded("x"):
            Header(broken, name="x").numbers("WindowCenter")

    for attempt in (
        convert,
        read,
        lambda: gate.read_header_of(tmp_path / "Canary", name="x"),
        lambda: gate.read_header_of(tmp_path / "Canary\0", name="x"),
    ):
        error = outcome(attempt)
        assert error is not None
        assert "Canary" not in chain(error)


def test_a_file_that_the_system_makes_while_it_is_read_is_refused_unread():
    path = Path("/proc/kmsg")  # of size 0, and reading it waits for the kernel's next message
    if not path.exists():
        pytest.skip("no /proc on this system")
    with pytest.raises(InputError) as caught:
        gate.read_header_of(path, name="kmsg")
    assert caught.value.code in ("not_dicom", "file_unreadable")
