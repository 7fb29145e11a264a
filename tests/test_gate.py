"""The gate: what is refused unopened, and that nothing pydicom says ever leaves it."""

from __future__ import annotations

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
from pathlib import Path

import exams
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.data.data_manager import DATA_ROOT

from mammoclip_sdk import gate
from mammoclip_sdk.errors import (
    DicomReadError,
    InputError,
    MammoClipError,
    NotDicomError,
    UnsupportedTransferSyntaxError,
)
from mammoclip_sdk.exam import SourceImage, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.shield import shielded
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
        gate.read_file(path, name="x.dcm")


def test_a_file_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bytes
) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(plain)
    monkeypatch.setattr(gate, "MAX_FILE_BYTES", len(plain))
    assert gate.read_file(path, name="x") == plain
    monkeypatch.setattr(gate, "MAX_FILE_BYTES", len(plain) - 1)
    with pytest.raises(DicomReadError) as caught:
        gate.read_file(path, name="x")
    assert caught.value.code == "file_too_large"


def test_of_a_large_file_no_more_is_read_than_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "large"
    for magic, code in ((b"DICM", "file_too_large"), (b"none", "not_dicom")):
        path.write_bytes(bytes(128) + magic)
        os.truncate(path, gate.MAX_FILE_BYTES + 1)
        tracemalloc.start()
        with pytest.raises(InputError) as caught:
            gate.read_file(path, name="x")
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
            gate.read_file(path, name="x")
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        ("1.2.840.10008.1.2.2", "Explicit VR Big Endian"),
        ("1.2.840.10008.1.2.1.99", "Deflated"),
        ("1.2.840.10008.1.2.4.94", "JPIP"),
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.201", "hang on damaged data"),
        ("1.2.840.10008.1.2.4.203", "hang on damaged data"),
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


@pytest.mark.parametrize("name", ["explicit-le", "implicit-le", "rle", "jpeg-lossless-sv1"])
def test_no_proper_prefix_of_a_file_is_an_image(tmp_path: Path, name: str) -> None:
    variant = next(row for row in exams.VARIANTS if row.name == name)
    whole = exams.write_exam(tmp_path, variant)[0].read_bytes()
    path = tmp_path / "cut.dcm"
    # The last 4 bytes of an encapsulated file are the length, 0, of its delimiter.
    complete = len(whole) - (0 if "-le" in name else 4)
    for length in [*range(0, complete, complete // 150), *range(complete - 9, complete)]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            decode(SourceImage(view=View.LCC, name="cut.dcm", path=path))
        assert "Canary" not in str(caught.value)


def test_a_value_cut_short_is_named(plain: bytes) -> None:
    with pytest.raises(DicomReadError) as caught:
        gate.read_dataset(plain[:-10], name="x")
    assert caught.value.code == "truncated"
    assert caught.value.found == "the end of the file inside (7FE0,0010)"
    assert gate.read_header(plain[:-10], name="x").Columns == 80


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
    exams.write_exam(tmp_path, exams.PLAIN)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: list(read_exam(tmp_path).images), range(16)))
    assert warnings.filters == before
    assert found == [list(View)] * 16


def test_one_thread_at_a_time_is_inside_the_shield() -> None:
    entered = threading.Event()

    def enter() -> None:
        with shielded("y"):
            entered.set()

    with ThreadPoolExecutor(1) as pool:
        with shielded("x"):
            pool.submit(enter)
            assert not entered.wait(0.2)
        assert entered.wait(5)


def test_our_own_errors_pass_through_the_shield() -> None:
    with pytest.raises(NotDicomError), shielded("x"):
        raise NotDicomError("x", found="a", expected="b", remedy="c")
