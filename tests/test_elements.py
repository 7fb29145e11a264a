"""The structure of a data set: what is found in bytes, where its limits lie, what is refused."""

from __future__ import annotations

import struct
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import exams
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset as parse_elements

from mammoclip_sdk.dicom import attributes
from mammoclip_sdk.dicom.attributes import LUT_DATA, MAX_VALUE_BYTES, PIXEL_DATA, READ
from mammoclip_sdk.dicom.element_head import LONG_VRS, MAX_ELEMENTS, MoreNeededError
from mammoclip_sdk.dicom.elements import MAX_DEPTH, MAX_HEADER_BYTES, Element, Scan
from mammoclip_sdk.dicom.file_meta import SYNTAX, as_uid, read_meta
from mammoclip_sdk.errors import DicomReadError

NO_LENGTH = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
ROWS, VIEW_CODES, UNREAD_SEQUENCE = 0x00280010, 0x00540220, 0x00081140
UNREAD = 0x00091001
BUNDLED = sorted(path for path in Path(DATA_ROOT, "test_files").rglob("*") if path.is_file())


def head(tag: int, vr: bytes, length: int) -> bytes:
    """Return what stands before a value; implicit where the VR is empty."""
    group = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not vr:
        return group + struct.pack("<I", length)
    long = vr in LONG_VRS
    return group + vr + struct.pack("<2xI" if long else "<H", length)


def element(tag: int, vr: bytes, value: bytes = b"") -> bytes:
    return head(tag, vr, len(value)) + value


def sequence(tag: int, vr: bytes, *items: bytes, defined: bool = True) -> bytes:
    if defined:
        return element(tag, vr, b"".join(element(ITEM, b"", item) for item in items))
    inside = [head(ITEM, b"", NO_LENGTH) + item + element(ITEM_END, b"") for item in items]
    return head(tag, vr, NO_LENGTH) + b"".join(inside) + element(SEQUENCE_END, b"")


def nested(depth: int, vr: bytes, *, defined: bool) -> bytes:
    inside = b""
    for _ in range(depth):
        inside = sequence(UNREAD_SEQUENCE, vr, inside, defined=defined)
    return inside


def scan(source: bytes, *, implicit: bool = False, size: int | None = None) -> list[Element]:
    whole = len(source) if size is None else size
    return list(Scan(source, size=whole, name="x").elements(0, implicit=implicit))


def code_of(source: bytes, **how: bool) -> str:
    with pytest.raises(DicomReadError) as caught:
        scan(source, **how)
    error = caught.value
    assert error.subject == "x"
    assert error.found
    assert error.expected
    assert error.remedy
    return error.code


PIXELS = element(PIXEL_DATA, b"OW", b"\1\2")


def test_only_what_is_read_is_found_and_where_its_value_lies() -> None:
    source = element(UNREAD, b"LO", b"ab") + element(ROWS, b"US", b"\x60\0") + PIXELS
    source += element(0x00280011, b"US", b"\x50\0")
    rows, pixels = scan(source)
    assert rows == Element(ROWS, b"US", 18, 2, False, False)
    assert rows.value(source) == b"\x60\0"
    assert (pixels.tag, pixels.vr, pixels.value(source)) == (PIXEL_DATA, b"OW", b"\1\2")


def test_odd_lengths_and_empty_values_are_read_as_they_are() -> None:
    source = element(0x00080060, b"CS", b"MG\0") + element(ROWS, b"US")
    assert [found.value(source) for found in scan(source)] == [b"MG\0", b""]


@pytest.mark.parametrize("vr", [b"SQ", b""])
@pytest.mark.parametrize("defined", [True, False])
def test_sequences_end_where_they_say(vr: bytes, defined: bool) -> None:
    inner = sequence(0x00540222, vr, element(0x00080100, vr and b"SH", b"R-1 "), defined=defined)
    source = element(0x00080060, vr and b"CS", b"MG")
    source += sequence(VIEW_CODES, vr, inner, b"", defined=defined)
    source += element(PIXEL_DATA, vr and b"OW", b"\1\2")
    found = {item.tag: item for item in scan(source, implicit=not vr)}
    assert list(found) == [0x00080060, VIEW_CODES, PIXEL_DATA]
    begin = len(element(0x00080060, vr and b"CS", b"MG")) + (12 if vr else 8)
    end = source.index(element(PIXEL_DATA, vr and b"OW", b"\1\2")) - (0 if defined else 8)
    assert found[VIEW_CODES].at == begin
    assert found[VIEW_CODES].length == end - begin
    assert found[VIEW_CODES].undefined is not defined


def test_the_first_element_tells_whether_vrs_are_explicit() -> None:
    explicit, implicit = element(ROWS, b"US", b"\x60\0"), element(ROWS, b"", b"\x60\0")
    for assumed in (False, True):
        assert [found.vr for found in scan(explicit, implicit=assumed)] == [b"US"]
        assert [found.vr for found in scan(implicit, implicit=assumed)] == [b""]


@pytest.mark.parametrize("vr", [b"UN", b"SQ"])
def test_items_of_an_explicit_data_set_may_be_implicit(vr: bytes) -> None:
    inner = sequence(UNREAD_SEQUENCE, b"", element(0x00080100, b"", b"1 "), defined=False)
    source = sequence(UNREAD, vr, inner, b"", defined=False) + PIXELS
    assert [found.tag for found in scan(source)] == [PIXEL_DATA]


def test_an_icon_may_be_compressed() -> None:
    fragments = element(ITEM, b"") + element(ITEM, b"", b"\xff\xd8ab") + element(SEQUENCE_END, b"")
    icon = element(ROWS, b"US", b"\1\0") + head(PIXEL_DATA, b"OB", NO_LENGTH) + fragments
    source = sequence(0x00880200, b"SQ", icon) + PIXELS
    assert [found.tag for found in scan(source)] == [PIXEL_DATA]


def test_fragments_end_behind_their_delimiter() -> None:
    value = element(ITEM, b"", b"\0" * 4) + element(ITEM, b"", b"abcd") + element(SEQUENCE_END, b"")
    assert Scan(value + b"tail", size=len(value) + 4, name="x").fragments_end(0) == len(value)
    for length in range(len(value)):
        with pytest.raises(DicomReadError) as caught:
            Scan(value[:length], size=length, name="x").fragments_end(0)
        assert caught.value.code == "truncated"
    for broken in (head(ITEM, b"", NO_LENGTH), element(ROWS, b"", b"ab")):
        with pytest.raises(DicomReadError) as caught:
            Scan(broken + value, size=len(broken + value), name="x").fragments_end(0)
        assert caught.value.code == "sequence_structure"


@pytest.mark.parametrize("vr", [b"SQ", b""])
@pytest.mark.parametrize("defined", [True, False])
def test_sequences_are_nested_as_deep_as_the_limit(vr: bytes, defined: bool) -> None:
    deepest = nested(MAX_DEPTH, vr, defined=defined)
    assert MAX_DEPTH == 16
    assert scan(deepest, implicit=not vr) == []
    too_deep = nested(MAX_DEPTH + 1, vr, defined=defined)
    assert code_of(too_deep, implicit=not vr) == "sequence_depth"


@pytest.mark.parametrize("inside", [False, True])
def test_there_are_as_many_elements_as_the_limit(inside: bool) -> None:
    def made(count: int) -> bytes:
        if inside:  # the sequence and its item count, too
            return sequence(UNREAD_SEQUENCE, b"SQ", element(UNREAD, b"LO") * (count - 2))
        return element(UNREAD, b"LO") * count

    assert MAX_ELEMENTS == 20_000
    assert scan(made(MAX_ELEMENTS)) == []
    assert code_of(made(MAX_ELEMENTS + 1)) == "too_many_elements"


def test_empty_items_count() -> None:
    assert code_of(element(UNREAD_SEQUENCE, b"SQ", element(ITEM, b"") * MAX_ELEMENTS)) == (
        "too_many_elements"
    )


def test_the_header_is_as_long_as_the_limit() -> None:
    assert MAX_HEADER_BYTES == 16 * 2**20
    room = MAX_HEADER_BYTES - len(head(UNREAD, b"OB", 0))
    assert [found.at for found in scan(element(UNREAD, b"OB", bytes(room)) + PIXELS)] == [
        MAX_HEADER_BYTES + 12
    ]
    assert code_of(element(UNREAD, b"OB", bytes(room + 2)) + PIXELS) == "header_too_large"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        pytest.param(head(UNREAD, b"UT", 0xFFFFFFF0), "truncated", id="4 GiB"),
        pytest.param(head(ROWS, b"US", 4) + b"\0\0", "truncated", id="2 bytes too few"),
        pytest.param(head(PIXEL_DATA, b"OW", 4) + b"\0\0", "truncated", id="pixels"),
        pytest.param(b"\x08\x00", "truncated", id="half a tag"),
        pytest.param(head(UNREAD, b"UT", 0)[:10], "truncated", id="half a length"),
        pytest.param(
            sequence(UNREAD_SEQUENCE, b"SQ", head(UNREAD, b"LO", 2)) + b"\0\0" + PIXELS,
            "element_length",
            id="longer than its item",
        ),
        pytest.param(
            element(UNREAD_SEQUENCE, b"SQ", head(ITEM, b"", 8)) + bytes(8) + PIXELS,
            "element_length",
            id="an item longer than its sequence",
        ),
        pytest.param(element(UNREAD, b"ZZ", b"\0\0"), "unknown_vr", id="ZZ"),
        pytest.param(
            element(UNREAD, b"LO") + element(UNREAD, b"lo"), "unknown_vr", id="lower case"
        ),
        pytest.param(head(UNREAD, b"UT", NO_LENGTH) + PIXELS, "undefined_length", id="text"),
        pytest.param(
            head(ROWS, b"UN", NO_LENGTH) + element(SEQUENCE_END, b""), "undefined_length", id="Rows"
        ),
        pytest.param(
            head(0x60003000, b"OW", NO_LENGTH) + element(SEQUENCE_END, b""),
            "undefined_length",
            id="an overlay",
        ),
        pytest.param(
            element(UNREAD_SEQUENCE, b"SQ", element(ROWS, b"US", b"\0\0")),
            "sequence_structure",
            id="no item",
        ),
        pytest.param(
            sequence(UNREAD_SEQUENCE, b"SQ", element(ITEM, b"")), "sequence_structure", id="twice"
        ),
        pytest.param(
            sequence(UNREAD_SEQUENCE, b"SQ", element(ITEM_END, b"")),
            "sequence_structure",
            id="an end too many",
        ),
        pytest.param(element(ROWS, b"US", b"\0\0") * 2, "duplicate_tag", id="two Rows"),
        pytest.param(
            sequence(VIEW_CODES, b"SQ", element(0x00080100, b"SH", b"1 ") * 2),
            "duplicate_tag",
            id="two codes in one item",
        ),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(source: bytes, code: str) -> None:
    assert code_of(source) == code


def test_what_is_not_read_may_come_twice_and_in_any_order() -> None:
    source = element(UNREAD, b"LO", b"ab") * 2 + element(ROWS, b"US", b"\0\0")
    source += element(0x00080060, b"CS", b"MG") + sequence(
        UNREAD_SEQUENCE, b"SQ", element(UNREAD, b"LO") * 2
    )
    assert [found.tag for found in scan(source)] == [ROWS, 0x00080060]


@pytest.mark.parametrize("name", ["explicit-le", "implicit-le", "ge-display", "jpeg-lossless-sv1"])
def test_the_first_bytes_lead_to_the_same_or_ask_for_more(name: str, tmp_path: Path) -> None:
    variant = next(row for row in exams.VARIANTS if row.name == name)
    source = exams.write_exam(tmp_path, variant)[0].read_bytes()
    start = read_meta(source, "x")[1]
    implicit = variant.syntax == "1.2.840.10008.1.2"

    def found_in(length: int) -> list[Element]:
        part = Scan(source[:length], size=len(source), name="x")
        return list(part.elements(start, implicit=implicit))

    whole = found_in(len(source))
    pixels = whole[-1].at
    for length in range(start, pixels):
        with pytest.raises(MoreNeededError):
            found_in(length)
    assert found_in(pixels) == whole


def agree(source: bytes) -> bool:
    """Compare with what pydicom's reader finds, where it finds its way through the file."""
    meta, start = read_meta(source, "x")
    uid = pydicom.uid.UID(as_uid(meta[SYNTAX]))
    body = pydicom.filebase.DicomBytesIO(source)
    body.seek(start)
    theirs = parse_elements(body, uid.is_implicit_VR, True)
    scanned = Scan(source, size=len(source), name="x")
    ours = {found.tag: found for found in scanned.elements(start, implicit=uid.is_implicit_VR)}
    assert set(ours) == {int(tag) for tag in theirs.keys() if int(tag) in READ}  # noqa: SIM118
    compared = 0
    for tag, found in ours.items():
        other = theirs.get_item(tag)
        if not isinstance(other, RawDataElement) or found.undefined:
            continue
        assert (other.VR or "").encode() == found.vr
        assert (other.value or b"") == found.value(source)
        assert other.length == found.length
        assert other.value_tell == found.at
        compared += 1
    return compared > 0


@pytest.mark.parametrize("variant", exams.VARIANTS, ids=lambda variant: variant.name)
def test_pydicom_finds_the_same_elements(variant: exams.Variant, tmp_path: Path) -> None:
    for path in exams.write_exam(tmp_path, variant):
        assert agree(path.read_bytes())


def test_pydicom_finds_the_same_elements_in_files_of_others() -> None:
    agreed, refused = 0, {}
    for path in BUNDLED:
        source = path.read_bytes()
        if source[128:132] != b"DICM":
            continue
        uid = as_uid(read_meta(source, "x")[0].get(SYNTAX, b""))
        if not uid or uid in ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                agreed += agree(source)
            except DicomReadError as error:
                refused[path.name] = error.code
    assert agreed > 100
    assert refused == {
        "DICOMDIR-nooffset": "truncated",
        "MR_truncated.dcm": "truncated",
        "rtplan_truncated.dcm": "truncated",
    }


def within(seconds: float, peak: int, attempt: Callable[[], None]) -> None:
    """Run with memory traced; the clock is the thread's, as the machine is shared."""
    tracemalloc.start()
    try:
        attempt()
        assert tracemalloc.get_traced_memory()[1] < peak
    finally:
        tracemalloc.stop()
    begin = time.thread_time()
    attempt()
    assert time.thread_time() - begin < seconds


@pytest.mark.parametrize(
    ("source", "code"),
    [
        pytest.param(
            (head(UNREAD_SEQUENCE, b"SQ", NO_LENGTH) + head(ITEM, b"", NO_LENGTH)) * 20_000,
            "sequence_depth",
            id="20,000 nested sequences",
        ),
        pytest.param(head(0x00080119, b"UT", 0xFFFFFFF0), "truncated", id="a length of 4 GiB"),
        pytest.param(head(VIEW_CODES, b"SQ", 0xFFFFFFF0), "truncated", id="a sequence of 4 GiB"),
        pytest.param(
            head(UNREAD_SEQUENCE, b"SQ", NO_LENGTH) + element(ITEM, b"") * 2_000_000,
            "too_many_elements",
            id="2,000,000 items",
        ),
        pytest.param(element(UNREAD, b"LO") * 2_000_000, "too_many_elements", id="2,000,000"),
    ],
)
def test_bombs_cost_nothing(source: bytes, code: str) -> None:
    within(0.1, 2**20, lambda: _refuse(source, code))


def _refuse(source: bytes, code: str) -> None:
    assert code_of(source) == code


@settings(max_examples=400, deadline=None)
@given(source=st.binary(max_size=400), implicit=st.booleans(), more=st.integers(0, 50))
def test_any_bytes_end_in_elements_or_in_an_error(source: bytes, implicit: bool, more: int) -> None:
    try:
        found = scan(source, implicit=implicit, size=len(source) + more)
    except (DicomReadError, MoreNeededError):
        return
    assert more == 0 or found[-1].tag == PIXEL_DATA
    for item in found:
        assert item.tag in READ
        assert item.tag == PIXEL_DATA or 0 <= item.at <= item.at + item.length <= len(source)


PIECES = st.sampled_from([
    element(UNREAD, b"LO", b"ab"), element(ROWS, b"US", b"\x60\0"), element(ROWS, b"", b"\x60\0"),
    head(UNREAD_SEQUENCE, b"SQ", NO_LENGTH), head(VIEW_CODES, b"SQ", 40), head(UNREAD, b"UN", 30),
    head(VIEW_CODES, b"", NO_LENGTH), head(ITEM, b"", NO_LENGTH), head(ITEM, b"", 18),
    element(ITEM, b"", b"abcd"), element(ITEM_END, b""), element(SEQUENCE_END, b""),
    element(0x00080100, b"SH", b"R-1 "), head(UNREAD, b"UN", NO_LENGTH), b"\0", b"\0" * 7, PIXELS,
    head(PIXEL_DATA, b"OB", NO_LENGTH), sequence(VIEW_CODES, b"SQ", element(UNREAD, b"LO")),
])  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(PIECES, max_size=20))
def test_shuffled_structure_ends_in_elements_or_in_an_error(pieces: list[bytes]) -> None:
    source = b"".join(pieces)
    try:
        found = scan(source)
    except DicomReadError as error:
        assert error.code  # noqa: PT017
        return
    ends = [item.at + (0 if item.undefined else item.length) for item in found]
    assert ends == sorted(ends)
    assert len({item.tag for item in found}) == len(found)
    assert all(end <= len(source) for end in ends)


def test_values_that_are_converted_are_as_long_as_the_limit() -> None:
    assert MAX_VALUE_BYTES == 8192
    for tag in (0x00281050, 0x0008103E):
        assert scan(element(tag, b"UN", b"1\\" * 4096) + PIXELS)[0].length == 8192
        assert code_of(element(tag, b"UN", b"1\\" * 4097) + PIXELS) == "value_too_long"

    def codes(length: int, count: int) -> bytes:
        code = element(0x00080100, b"SH", bytes(length))
        return sequence(VIEW_CODES, b"SQ", *[code] * count) + PIXELS

    assert len(scan(codes(8192, 64))) == 2  # 512 KiB together
    assert code_of(codes(8194, 1)) == "value_too_long"
    assert code_of(codes(8192, 65)) == "value_too_long"


def test_tables_and_what_is_not_converted_may_be_longer() -> None:
    def tables(vr: bytes, length: int, count: int) -> bytes:
        return sequence(0x00283010, b"SQ", *[element(LUT_DATA, vr, bytes(length))] * count)

    assert len(scan(tables(b"OW", 2**17, 32))) == 1
    assert code_of(tables(b"OW", 2**17, 33)) == "value_too_long"
    assert code_of(tables(b"IS", 8194, 1)) == "value_too_long"
    private = sequence(VIEW_CODES, b"SQ", element(UNREAD, b"OB", bytes(2**20)))
    assert len(scan(private + element(0x60003000, b"OW", bytes(2**21)))) == 2
    assert code_of(element(0x60003000, b"LO", bytes(8194))) == "value_too_long"
    assert scan(element(UNREAD, b"LT", bytes(60_000))) == []


def test_nothing_is_handed_over_that_nobody_reads() -> None:
    package = Path(attributes.__file__).parents[1]
    others = "".join(
        path.read_text("utf-8") for path in package.rglob("*.py") if path.name != "attributes.py"
    )
    keywords = attributes._KEYWORDS.split()
    known_otherwise = {"SpecificCharacterSet"}
    unread = {keyword for keyword in keywords if f'"{keyword}"' not in others}
    assert unread == known_otherwise  # by its tag
