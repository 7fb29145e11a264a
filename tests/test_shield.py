"""Nothing that pydicom says of a value leaves the shield: no error, warning, log or cause."""

from __future__ import annotations

import logging
import struct
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import exams
import pydicom
import pytest
from part10_files import outcome
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.header import Header
from mammoclip_sdk.dicom.shield import shielded
from mammoclip_sdk.errors import DicomReadError, NotDicomError
from mammoclip_sdk.exam import View
from mammoclip_sdk.views import read_exam


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
