"""Reasons: every error about an exam has a code, or is listed as having none."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mammoclip_sdk
from mammoclip_sdk import errors, reasons
from mammoclip_sdk.dicom.view_codes import REFUSED_MODIFIERS
from mammoclip_sdk.errors import InputError, MammoClipError, UnsupportedImageError
from mammoclip_sdk.views.mammogram import _OTHER_CLASSES, _OTHER_PURPOSES

SOURCE = Path(mammoclip_sdk.__file__).parent
NO_REASON = {
    # what could not be read, of which nothing is known
    "changed",
    "codestream_limits",
    "codestream_precision",
    "codestream_process",
    "codestream_sign",
    "codestream_size",
    "compression_ratio",
    "decode_failed",
    "decoded_shape",
    "dicom_unreadable",
    "duplicate_tag",
    "element_length",
    "file_meta",
    "file_too_large",
    "file_unreadable",
    "fragments",
    "frame_length",
    "header_too_large",
    "missing_tag",
    "no_pixel_data",
    "no_transfer_syntax",
    "not_a_file",
    "not_dicom",
    "pixel_length",
    "pixel_encoding",
    "sequence_depth",
    "sequence_structure",
    "tag_order",
    "too_many_elements",
    "truncated",
    "undefined_length",
    "unknown_vr",
    "unsupported_transfer_syntax",
    "value_multiplicity",
    "value_range",
    "value_too_long",
    "value_unreadable",
    # a header that says nothing defined about its pixels
    "bits",
    "lut",
    "not_one_frame",
    "photometric",
    "pixel_header",
    "rescale",
    "voi_function",
    "window",
    # what the caller handed over is no exam to begin with
    "array_dtype",
    "array_range",
    "array_shape",
    "folder_for_a_file",
    "folder_unreadable",
    "not_a_folder",
    "unknown_view_key",
    # kinds of error; what is raised has a code of its own
    "exam",
    "input",
    "pixels",
    "unsupported_image",
    # of a decoder in a child process
    "decoder_answer",
    "decoder_crashed",
    "decoder_memory",
    "decoder_timeout",
    "isolation_unavailable",
    # of a signature, a release
    "bundle_release",
    "bundle_signature",
    "not_canonical",
    "release_rolled_back",
    "releases_damaged",
    "releases_unwritable",
    "signature_broken",
    "signature_unreadable",
    "signing_key",
    "signing_not_installed",
    "trust_key",
    "unsigned",
    "untrusted_key",
    "unverified",
    # of a bundle, a device, a report
    "bundle",
    "bundle_certificate",
    "bundle_format",
    "bundle_integrity",
    "bundle_not_found",
    "bundle_version",
    "certificate",
    "closed",
    "cuda",
    "device",
    "engine",
    "engine_damaged",
    "engine_missing",
    "engine_stale",
    "engine_write",
    "error",
    "golden_mismatch",
    "inference",
    "no_gpu",
    "report",
    "runtime_conflict",
    "runtime_not_installed",
    "stdout",
}


def _functions_with_code(trees: list[ast.Module]) -> dict[str, int]:
    """Return every function that takes a code, and where: the place among its arguments."""
    found = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = [argument.arg for argument in node.args.args]
                if "code" in names:
                    found[node.name] = names.index("code") - (names[0] == "self")
    return found


def _strings(node: ast.expr) -> Iterator[str]:
    """Return the texts that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _strings(node.body)
        yield from _strings(node.orelse)


def codes_in_the_source() -> set[str]:
    trees = [ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")]
    places = _functions_with_code(trees)
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("Reason", "_reason", "Refusal"):  # those hold codes of the table itself
                continue
            found.update(
                text for k in node.keywords if k.arg == "code" for text in _strings(k.value)
            )
            place = places.get(name)
            if place is not None and place < len(node.args):
                found.update(_strings(node.args[place]))
    tables = {code for _, code in _OTHER_CLASSES.values()}
    tables |= {code for _, _, code in _OTHER_PURPOSES}
    tables |= {modifier.replace(" ", "_") for modifier in REFUSED_MODIFIERS}
    classes = {
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, MammoClipError)
    }
    return found | tables | classes | {"implant", "synthetic_2d"}


def test_every_code_that_an_error_may_have_is_in_a_row_or_listed_without_one() -> None:
    known = {error for row in reasons.CODES.values() for error in row.errors} | NO_REASON
    assert codes_in_the_source() - known == set()


def test_no_error_is_given_for_two_reasons_or_for_one_and_none() -> None:
    named = [error for row in reasons.CODES.values() for error in row.errors]
    assert len(named) == len(set(named))
    assert not set(named) & NO_REASON


def test_no_row_names_an_error_that_is_raised_nowhere() -> None:
    texts = "".join(
        path.read_text("utf-8") for path in SOURCE.rglob("*.py") if path.name != "reasons.py"
    )
    modifiers = {modifier.replace(" ", "_") for modifier in REFUSED_MODIFIERS}
    for row in reasons.CODES.values():
        for error in row.errors - modifiers:
            assert f'"{error}"' in texts, error


def test_the_codes_are_those_of_the_gate_and_each_is_explained() -> None:
    assert list(reasons.CODES) == [
        "G01", "G02", "G03", "G04", "G05", "G07", "G08", "G09", "G10", "G11", "G14",
    ]  # fmt: skip
    for code, row in reasons.CODES.items():
        assert row.title
        assert row.action.endswith(".")
        assert f"\n{code}        {row.title}" in (reasons.__doc__ or "")
    page = Path(mammoclip_sdk.__file__).parents[1] / "docs" / "reading.md"
    assert re.findall(r"^\| (G\d\d) \|", page.read_text("utf-8"), re.MULTILINE) == [*reasons.CODES]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("tomosynthesis", "G01"),
        ("missing_view", "G02"),
        ("mixed_exam", "G03"),
        ("laterality_contradiction", "G05"),
        ("spot_compression", "G07"),
        ("implant", "G08"),
        ("no_breast", "G09"),
        ("truncated", None),
    ],
)
def test_an_error_carries_its_reason(code: str, reason: str | None) -> None:
    error = UnsupportedImageError("IM1", found="a", expected="b", remedy="C.", code=code)
    assert error.reason == reason
    assert json.loads(json.dumps(error.to_dict()))["reason"] == reason


def test_an_error_of_no_exam_has_no_reason() -> None:
    assert InputError("views", found="a", expected="b", remedy="C.").reason is None
