"""Files cut short, damaged or written by others: a result, or an error that names no patient."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

import exams
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from part10_files import BUNDLED, outcome
from pydicom.data import get_testdata_file

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.errors import DicomReadError, InputError
from mammoclip_sdk.exam import SourceImage, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.views import read_exam


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
