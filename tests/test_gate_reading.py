"""What the gate lets through: what pydicom would read of it, and no more bytes than that takes."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import exams
import numpy as np
import pydicom
import pytest
from part10_files import changed, element, outcome, written
from pydicom.dataset import Dataset

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.attributes import READ
from mammoclip_sdk.dicom.elements import MAX_HEADER_BYTES
from mammoclip_sdk.dicom.header import Header
from mammoclip_sdk.dicom.shield import AttributeNotListedError, shielded
from mammoclip_sdk.exam import View


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
