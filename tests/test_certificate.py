"""Certificates: gates judge the worst case at exact limits, and what is written is read back."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_files, tiny_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammoclip_sdk.bundle import Interval
from mammoclip_sdk.errors import BundleFormatError, BundleVersionError
from mammoclip_sdk.parity.agreement import (
    LIMITS,
    Agreement,
    AucAgreement,
    FindingAgreement,
    Flips,
    Worst,
    gate,
    gate_text,
    judge,
)
from mammoclip_sdk.parity.certificate import (
    FORMAT,
    NOT_ASKED,
    Absence,
    Certificate,
    Comparison,
    certificate_from_json,
    certificate_to_json,
)
from mammoclip_sdk.parity.certificate_page import to_html

MANIFEST = tiny_manifest(tiny_files())


def page_of(certificate: Certificate, **changes: Any) -> str:
    """The page of a certificate that a bundle carries, its manifest the tiny one or changed."""
    return to_html(certificate, replace(MANIFEST, **changes))


def interval(estimate: float, lower: float, upper: float) -> Interval:
    return Interval(estimate=estimate, lower=lower, upper=upper, level=0.95, method="delong")


AUC = AucAgreement(
    exams=64,
    positives=32,
    reference=interval(0.9, 0.83, 0.97),
    runtime=interval(0.899, 0.828, 0.97),
    difference=interval(-0.001, -0.003, 0.001),
)


def worst(value: float) -> Worst:
    return Worst(value=value, where=f"exam {value}")


FINDING = FindingAgreement(
    finding="malignancy",
    probability=worst(1e-4),
    operating_points=(Flips(operating_point="recall", threshold=0.4, count=0, where=""),),
    auc=AUC,
)
AGREEMENT = Agreement(
    exams=65,
    unusable=0,
    unusable_where="",
    logit=worst(1e-5),
    cosine=worst(1e-9),
    length=worst(1e-8),
    findings=(FINDING,),
    batch_sizes=(8,),
    batch_logit=worst(0.0),
    batch_probability=worst(0.0),
    batch_cosine=worst(0.0),
)


def with_finding(**changes: Any) -> Agreement:
    return replace(AGREEMENT, findings=(replace(FINDING, **changes),))


def with_value(quantity: str, value: float) -> Agreement:
    """The agreement with one value in it changed."""
    if quantity == "probability":
        return with_finding(probability=worst(value))
    if quantity == "auc":
        difference = interval(-value, -1.0, 1.0)
        return with_finding(auc=replace(AUC, difference=difference))
    if quantity == "flips":
        point = replace(FINDING.operating_points[0], count=int(value), where="exam 3")
        return with_finding(operating_points=(point,))
    if quantity == "unusable":
        return replace(AGREEMENT, unusable=int(value), unusable_where="exam 3 (NaN)")
    return replace(AGREEMENT, **{quantity: worst(value)})


def verdicts(precision: str, agreement: Agreement) -> dict[str, str]:
    return {gate.quantity: gate.verdict for gate in judge(precision, agreement)}


def test_the_limits_are_those_that_were_promised() -> None:
    rounded = {
        "unusable": 0,
        "cosine": 0.01,
        "probability": 0.02,
        "auc": 0.005,
        "batch_probability": 0.02,
        "batch_cosine": 0.01,
    }
    assert {name: dict(limits) for name, limits in LIMITS.items()} == {
        "fp32": {
            "unusable": 0,
            "logit": 1e-3,
            "cosine": 1e-6,
            "length": 1e-5,
            "flips": 0,
            "batch_logit": 1e-3,
            "batch_cosine": 1e-6,
        },
        "fp16": {
            "unusable": 0,
            "logit": 0.05,
            "cosine": 1e-4,
            "length": 1e-5,
            "probability": 0.02,
            "flips": 0,
            "batch_logit": 0.05,
            "batch_probability": 0.02,
            "batch_cosine": 1e-4,
        },
        "bf16": rounded,
        "int8": rounded,
    }


CASES = [(precision, name) for precision, limits in LIMITS.items() for name in limits]


@pytest.mark.parametrize(("precision", "quantity"), CASES)
def test_a_value_at_its_limit_passes_and_the_next_one_fails(precision: str, quantity: str) -> None:
    limit = LIMITS[precision][quantity]
    whole = quantity in ("unusable", "flips")
    beyond = limit + 1 if whole else math.nextafter(limit, 1)
    assert set(verdicts(precision, AGREEMENT).values()) == {"passed"}
    assert set(verdicts(precision, with_value(quantity, limit)).values()) == {"passed"}
    found = verdicts(precision, with_value(quantity, beyond))
    assert [name for name, verdict in found.items() if verdict == "failed"] == [quantity]


def test_the_worst_finding_decides() -> None:
    other = replace(FINDING, finding="density", probability=worst(0.03))
    gates = judge("int8", replace(AGREEMENT, findings=(FINDING, other)))
    (found,) = [gate for gate in gates if gate.quantity == "probability"]
    assert (found.value, found.where, found.verdict) == (0.03, "exam 0.03", "failed")


def test_flips_are_counted_over_all_operating_points() -> None:
    points = tuple(
        Flips(operating_point=name, threshold=0.4, count=count, where=where)
        for name, count, where in (("a", 1, "exam 4"), ("b", 0, ""), ("c", 2, "exam 4, exam 5"))
    )
    gates = judge("fp16", with_finding(operating_points=points))
    (found,) = [gate for gate in gates if gate.quantity == "flips"]
    assert (found.value, found.where) == (3, "a: exam 4; c: exam 4, exam 5")
    assert found.verdict == "failed"


def test_without_operating_points_none_is_judged_and_that_is_said() -> None:
    gates = judge("fp32", with_finding(operating_points=()))
    (found,) = [gate for gate in gates if gate.quantity == "flips"]
    assert (found.value, found.where, found.verdict) == (None, "no operating points", "not judged")
    assert gate_text(found) == (
        "decisions that differ at an operating point: not judged, no operating points"
    )


def test_an_area_is_judged_only_where_the_reference_tells_the_exams_apart() -> None:
    chance = replace(AUC, reference=interval(0.6, 0.5, 0.7), difference=interval(0.05, 0.01, 0.09))
    (found,) = [g for g in judge("int8", with_finding(auc=chance)) if g.quantity == "auc"]
    assert (found.value, found.verdict) == (None, "not judged")
    assert found.where == (
        "malignancy: the reference does not tell the labelled exams apart "
        "(AUC 0.600, 0.500 to 0.700)"
    )
    better = replace(chance, reference=interval(0.6, math.nextafter(0.5, 1), 0.7))
    (found,) = [g for g in judge("int8", with_finding(auc=better)) if g.quantity == "auc"]
    assert (found.value, found.verdict) == (0.05, "failed")
    (found,) = [g for g in judge("int8", with_finding(auc=None)) if g.quantity == "auc"]
    assert found.where == "malignancy: too few labelled exams"


def test_nothing_usable_fails_and_judges_nothing_else() -> None:
    nothing = replace(
        AGREEMENT,
        unusable=65,
        unusable_where="all",
        logit=None,
        cosine=None,
        length=None,
        batch_logit=None,
        batch_probability=None,
        batch_cosine=None,
        findings=(replace(FINDING, probability=None, auc=None),),
    )
    for precision in LIMITS:
        found = verdicts(precision, nothing)
        assert found.pop("unusable") == "failed"
        found.pop("flips", None)
        assert set(found.values()) == {"not judged"}


def comparison(precision: str = "fp32", agreement: Agreement = AGREEMENT) -> Comparison:
    return Comparison(
        runtime="onnxruntime 1.32.0 CPUExecutionProvider",
        device="cpu",
        hardware="A processor, 2 logical processors",
        precision=precision,
        graph=f"model.{precision}.onnx",
        graph_sha256="a" * 64,
        agreement=agreement,
        gates=judge(precision, agreement),
    )


CERTIFICATE = Certificate(
    format=FORMAT,
    bundle="tiny",
    version="1.2.3",
    judged_sha256="d" * 64,
    bundle_sha256=None,
    issued_at=None,
    sdk_version="0.3.0",
    reference="PyTorch 2.14.1, float32, not folded",
    exams=65,
    labelled=64,
    positives=32,
    exams_sha256="b" * 64,
    comparisons=(comparison(), comparison("int8")),
    absent=(Absence(device="cuda", precision="fp16", reason="no CUDA"),),
)
FAILED = replace(
    CERTIFICATE,
    comparisons=(comparison(), comparison("int8", with_value("probability", 0.03))),
)


def test_a_certificate_passes_when_something_was_compared_and_nothing_failed() -> None:
    assert CERTIFICATE.passed
    assert CERTIFICATE.failures == ()
    assert not FAILED.passed
    assert FAILED.failures == (
        "onnxruntime 1.32.0 CPUExecutionProvider, int8: difference of a probability: 0.03, at "
        "most 0.02 (exam 0.03)",
    )
    assert not replace(CERTIFICATE, comparisons=()).passed


NAMES = st.text(max_size=12)
VALUES = st.floats(min_value=0, max_value=1e3)
WORST = st.builds(Worst, value=VALUES, where=NAMES)
INTERVALS = st.builds(
    Interval, estimate=VALUES, lower=VALUES, upper=VALUES, level=VALUES, method=NAMES
)
COUNTS = st.integers(min_value=0, max_value=99)
FINDINGS = st.builds(
    FindingAgreement,
    finding=NAMES,
    probability=st.none() | WORST,
    operating_points=st.lists(
        st.builds(Flips, operating_point=NAMES, threshold=VALUES, count=COUNTS, where=NAMES),
        max_size=2,
    ).map(tuple),
    auc=st.none()
    | st.builds(
        AucAgreement,
        exams=COUNTS,
        positives=COUNTS,
        reference=INTERVALS,
        runtime=INTERVALS,
        difference=INTERVALS,
    ),
)
AGREEMENTS = st.builds(
    Agreement,
    exams=COUNTS,
    unusable=COUNTS,
    unusable_where=NAMES,
    logit=st.none() | WORST,
    cosine=st.none() | WORST,
    length=st.none() | WORST,
    findings=st.lists(FINDINGS, min_size=1, max_size=2).map(tuple),
    batch_sizes=st.lists(COUNTS, max_size=2, unique=True).map(tuple),
    batch_logit=st.none() | WORST,
    batch_probability=st.none() | WORST,
    batch_cosine=st.none() | WORST,
)
COMPARISONS = st.builds(comparison, st.sampled_from(list(LIMITS)), AGREEMENTS)
CERTIFICATES = st.builds(
    replace,
    st.just(CERTIFICATE),
    bundle=NAMES,
    judged_sha256=NAMES,
    bundle_sha256=st.none() | NAMES,
    issued_at=st.none() | NAMES,
    comparisons=st.lists(COMPARISONS, max_size=2).map(tuple),
    absent=st.lists(
        st.builds(Absence, device=NAMES, precision=NAMES, reason=NAMES), max_size=2
    ).map(tuple),
)


@given(CERTIFICATES)
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_back(certificate: Certificate) -> None:
    text = certificate_to_json(certificate)
    assert certificate_from_json(text, subject="certificate.json") == certificate


@given(CERTIFICATES)
@settings(max_examples=25, deadline=None)
def test_every_certificate_makes_a_page_that_stands_alone(certificate: Certificate) -> None:
    page = page_of(certificate)
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|\bsrc=|\bhref=", page)
    assert page.encode().startswith(b"<!DOCTYPE html>")  # UTF-8 can hold it


def altered(**changes: Any) -> str:
    plain = json.loads(certificate_to_json(CERTIFICATE))
    return json.dumps({**plain, **changes})


def with_batches(*sizes: int) -> str:
    plain = json.loads(certificate_to_json(CERTIFICATE))
    plain["comparisons"][0]["agreement"]["batch_sizes"] = sizes
    return json.dumps(plain)


def negative(quantity: str) -> str:
    """A value below zero, in what was measured and in the gate that follows from it."""
    agreement = with_value(quantity, -1)
    return certificate_to_json(
        replace(CERTIFICATE, comparisons=(comparison("fp32", agreement),)),
    )


def with_gate(**changes: Any) -> str:
    plain = json.loads(certificate_to_json(FAILED))
    plain["comparisons"][1]["gates"][2] |= changes
    return json.dumps(plain)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "not JSON"),
        (altered(more=1), "more: unknown key"),
        (altered(exams=65.5), "exams: 65.5 instead of int"),
        (altered(positives=65), "positives, labelled, exams: each holds those before it"),
        (with_gate(verdict="passed"), r"gates probability: 'passed' is not what it found"),
        (with_gate(limit=0.05, verdict="passed"), r"gates probability: 'passed' is not what"),
        (with_gate(value=0.01, verdict="passed"), r"gates probability: 'passed' is not what"),
        (with_gate(limit=0.05), r"gates probability: 'failed' is not what it found"),
        (with_gate(value=None), r"gates probability: 'failed' is not what it found"),
        (with_gate(quantity="speed"), "'speed' is none of unusable, .*; "),
        (with_gate(quantity="golden_probability"), r"comparisons\[1\].gates: none for probability"),
        (certificate_to_json(FAILED).replace('"int8"', '"fp8"'), "'fp8' is none of fp32"),
        (with_gate(value=math.nan), "NaN is not a number"),
        (negative("logit"), r"comparisons\[0\].gates logit: -1.0 is negative"),
        (negative("unusable"), r"gates unusable: -1.0 is negative"),
        (with_batches(3, 8, 8), r"comparisons\[0\].agreement.batch_sizes: \(3, 8, 8\), one of"),
    ],
)
def test_a_certificate_that_contradicts_itself_is_refused(text: str, found: str) -> None:
    with pytest.raises(BundleFormatError, match=found):
        certificate_from_json(text, subject="certificate.json")


def test_another_format_is_refused_before_its_keys() -> None:
    with pytest.raises(BundleVersionError, match=r"certificate\.json: format: found 2; expected 3"):
        certificate_from_json('{"format": 2, "unknown": 0}', subject="certificate.json")


def test_a_gate_cannot_pass_with_what_is_no_number() -> None:
    for value in (math.nan, math.inf):
        found = gate("logit", 1e-3, Worst(value=value, where="exam 2"))
        assert (found.verdict, found.value) == ("failed", None)
        assert gate_text(found).endswith(": failed, exam 2")


def test_the_page_says_what_failed_and_where_and_what_was_not_here() -> None:
    page = page_of(FAILED)
    assert ">Not every runtime that was here agrees within its limits<" in page
    absent = "Not compared, in one precision or more: cuda."
    assert (
        f'its limits</p><p class="verdict absent">{absent}</p>' in page
    )  # as large as the verdict
    assert 'class="verdict absent"' not in page_of(replace(FAILED, absent=()))
    assert "<li>onnxruntime 1.32.0 CPUExecutionProvider, int8: difference of a probability" in page
    assert "1 of 6 gates failed" in page
    assert "passed, " not in page
    assert "<th>cuda, fp16</th><td>no CUDA</td>" in page
    assert ">Every runtime that was here agrees within its limits<" in page_of(CERTIFICATE)
    left_out = Absence(device="cpu", precision="fp16", reason=NOT_ASKED)
    narrowed = replace(CERTIFICATE, absent=(left_out,))
    assert (narrowed.narrowed, CERTIFICATE.narrowed) == (True, False)
    assert ">Every runtime that was asked for agrees within its limits<" in page_of(narrowed)
    assert "with the bundle" in page_of(CERTIFICATE)
    issued = replace(CERTIFICATE, issued_at="2026-11-24T12:00:00+00:00", bundle_sha256="c" * 64)
    assert "2026-11-24T12:00:00+00:00" in page_of(issued)
    assert "c" * 64 in page_of(issued)
    assert f"<th>SHA-256 of what was judged</th><td>{CERTIFICATE.judged_sha256}</td>" in page


def summary(one: Comparison) -> list[str]:
    """The cells of a comparison's row in the overview."""
    page = page_of(replace(CERTIFICATE, comparisons=(one,)))
    (row,) = re.findall(r"<h2>What was compared</h2>.*?<tbody><tr.*?>(.*?)</tr></tbody>", page)
    return re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)


def test_the_summary_shows_the_largest_difference_of_a_probability_there_is() -> None:
    one = comparison("bf16", with_finding(probability=worst(0.005)))
    runtime, verdict, precision, logit, probability, flips = summary(one)
    assert (runtime, verdict, precision) == (one.runtime, one.verdict, "bf16")
    assert (logit, probability, flips) == ("1e-05", "0.005", "0")
    for golden, shown in ((0.0113, "0.0113"), (0.001, "0.005"), (math.inf, "inf")):
        judged = gate("golden_probability", 0.02, Worst(value=golden, where="exam 1"))
        assert summary(replace(one, gates=(*one.gates, judged)))[4] == shown
    unjudged = gate("golden_probability", 0.02, "not here")
    assert summary(replace(one, gates=(*one.gates, unjudged)))[4] == "0.005"
    logits = gate("golden_logit", 0.05, worst(0.04))  # of another scale
    assert summary(replace(one, gates=(*one.gates, logits)))[3:5] == ["1e-05", "0.005"]


def test_the_page_escapes_every_text_that_comes_from_elsewhere() -> None:
    evil = "<b onload=x>&'\""
    bad_worst = Worst(value=1.0, where=evil)
    point = Flips(operating_point=evil, threshold=0.5, count=1, where=evil)
    finding = FindingAgreement(
        finding=evil, probability=bad_worst, operating_points=(point,), auc=None
    )
    agreement = replace(
        AGREEMENT,
        unusable=1,
        unusable_where=evil,
        logit=bad_worst,
        cosine=bad_worst,
        length=bad_worst,
        findings=(finding,),
        batch_logit=bad_worst,
        batch_probability=bad_worst,
        batch_cosine=bad_worst,
    )
    one = replace(
        comparison("int8", agreement), runtime=evil, device=evil, hardware=evil, graph=evil
    )
    page = page_of(
        replace(
            CERTIFICATE,
            bundle=evil,
            version=evil,
            bundle_sha256=evil,
            issued_at=evil,
            sdk_version=evil,
            reference=evil,
            exams_sha256=evil,
            comparisons=(one,),
            absent=(Absence(device=evil, precision=evil, reason=evil),),
        ),
        intended_use=evil,
    )
    assert "<b onload" not in page
    assert page.count("&lt;b onload") >= 21


@pytest.mark.parametrize("forbidden", [True, False])
def test_the_page_says_first_what_the_bundle_may_be_used_for(forbidden: bool) -> None:
    page = page_of(CERTIFICATE, intended_use="Only this.", not_for_clinical_use=forbidden)
    warning = "<strong>Not for clinical use.</strong> " if forbidden else ""
    note = f'<main><p class="use" role="note">{warning}Only this.</p>'
    assert f"{note}<h1>Parity certificate</h1>" in page
    assert page.lower().count("not for clinical use") == 2 * forbidden  # and on every sheet


def test_what_was_not_judged_is_counted_beside_what_passed() -> None:
    one = comparison("int8", with_finding(auc=None))
    assert one.verdict == f"passed, 1 of {len(one.gates)} gates not judged"
    page = page_of(replace(CERTIFICATE, comparisons=(one,)))
    assert f"<td>{one.verdict}</td>" in page
    assert CERTIFICATE.comparisons[0].verdict == "passed"


def test_the_documents_table_of_limits_is_the_one_that_judges() -> None:
    page = (Path(__file__).parents[1] / "docs" / "bundles.md").read_text("utf-8")
    for precision, limits in LIMITS.items():
        (row,) = re.findall(rf"^\| (?:\w+, )?{precision}(?:, \w+)? \| (.+) \|$", page, re.MULTILINE)
        told = {float(number) for number in re.findall(r"(?<![\w.])0\.\d+", row)}
        assert told == {limit for limit in limits.values() if limit}
