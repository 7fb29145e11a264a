"""The certificate that a bundle carries: read before it is signed, and when it is verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from certified import attached, bundle_of, certificate, certified, uncertified, write_certified
from command import refused, run
from conftest import KeyPair, tiny_graph, tiny_weights

from mammoclip_sdk.bundle import ATTACHMENTS, Bundle, Calibration, read_bundle, sha256
from mammoclip_sdk.bundle.contradictions import GOLDEN_LIMITS, LOGIT_SCALE, largest_tolerance
from mammoclip_sdk.bundle.manifest import GOLDEN_QUANTITIES, MADE_AFTERWARDS
from mammoclip_sdk.errors import BundleCertificateError, BundleFormatError, BundleVersionError
from mammoclip_sdk.parity.agreement import LIMITS, judge
from mammoclip_sdk.parity.certificate import (
    NOT_ASKED,
    Absence,
    Comparison,
    judged_sha256,
    require_certificate,
)


def test_a_bundles_own_certificate_that_passed_is_returned() -> None:
    assert require_certificate(certified()) == certificate()
    assert {one.precision for one in certificate().comparisons} == {"fp32", "bf16"}


def test_a_bundle_without_a_certificate_proves_nothing() -> None:
    with pytest.raises(BundleCertificateError, match="found no parity certificate"):
        require_certificate(uncertified())


def first(**changes: Any) -> dict[str, Any]:
    """Changes of a certificate: its first comparison with other values."""
    one, *others = certificate().comparisons
    return {"comparisons": (replace(one, **changes), *others)}


def measured(**changes: Any) -> dict[str, Any]:
    """Changes of what was measured, and of the gates that follow from it."""
    one = certificate().comparisons[0]
    agreement = replace(one.agreement, **changes)
    return first(agreement=agreement, gates=(*judge("fp32", agreement), one.gates[-1]))


def measured_on(exams: int) -> dict[str, Any]:
    """Changes of a certificate: every comparison over another number of exams."""
    ones = certificate().comparisons
    return {
        "comparisons": tuple(replace(o, agreement=replace(o.agreement, exams=exams)) for o in ones)
    }


def golden(**changes: Any) -> dict[str, Any]:
    *gates, last = certificate().comparisons[0].gates
    assert last.quantity == "golden_logit"
    return first(gates=(*gates, replace(last, **changes)))


def without_golden() -> dict[str, Any]:
    return first(gates=certificate().comparisons[0].gates[:-1])


def of_precision(precision: str) -> tuple[Comparison, ...]:
    return tuple(one for one in certificate().comparisons if one.precision == precision)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"bundle": "other"}, "a certificate of other 1.2.3"),
        ({"version": "1.2.2"}, "a certificate of tiny 1.2.2"),
        ({"exams_sha256": "0" * 64}, "over other exams than those of the bundle"),
        ({"exams": 63} | measured(exams=63), "over 63 exams, of at least 64"),
        ({"exams": 65}, "64 exams of 65"),
        (
            {"exams": 6500} | measured_on(6500),
            "(6500, 42, 21) instead of the bundle's (64, 42, 21)",
        ),
        ({"positives": 20}, "(64, 42, 20) instead of the bundle's (64, 42, 21)"),
        ({"labelled": 43}, "(64, 43, 21) instead of the bundle's (64, 42, 21)"),
        ({"bundle_sha256": "0" * 64}, "a certificate that was made on a workstation"),
        ({"issued_at": "2026-11-24T12:00:00+00:00"}, "that was made on a workstation"),
        ({"comparisons": ()}, "no comparison of model.fp32.onnx in fp32"),
        ({"comparisons": of_precision("bf16")}, "no comparison of model.fp32.onnx in fp32"),
        ({"comparisons": of_precision("fp32")}, "no comparison in bf16, in which"),
        (
            {"absent": (Absence(device="cuda", precision="fp32", reason=NOT_ASKED),)},
            "a certificate that was narrowed",
        ),
        (first(graph_sha256="0" * 64), "a graph that the bundle does not have"),
        (measured(findings=()), "other findings than those of the bundle"),
        (measured(batch_sizes=(8,)), "fp32: no batch of 3 exams"),
        (measured(batch_sizes=(2,)), "fp32: no batch of 3 and of 8 exams"),
        (golden(limit=1e9), "no judgement of the golden exams by the bundle's tolerance, 0.0001"),
        (golden(quantity="golden_probability"), "no judgement of the golden exams"),
        (without_golden(), "no judgement of the golden exams"),
        (golden(value=None, where="", verdict="not judged"), "golden_logit was not judged"),
        (golden(value=1.0, verdict="failed"), "difference of a golden exam's logit: 1, at most"),
    ],
    ids=lambda value: value.split(",")[0] if isinstance(value, str) else "",
)
def test_a_certificate_that_does_not_prove_this_bundle_is_refused(
    changes: dict[str, Any], found: str
) -> None:
    made = replace(certificate(), **changes)
    with pytest.raises(BundleCertificateError) as caught:
        require_certificate(certified(made))
    assert found in caught.value.found


def test_a_measured_quantity_that_was_left_out_is_no_proof() -> None:
    made = replace(certificate(), **measured(logit=None))
    with pytest.raises(BundleCertificateError, match="logit was not judged"):
        require_certificate(certified(made))


def test_other_weights_under_the_same_certificate_are_refused() -> None:
    bundle = certified()
    weights = tiny_weights()
    weights[::5] *= 1.08
    files = {**bundle.files, "model.fp32.onnx": tiny_graph(weights)}
    (graph,) = bundle.manifest.graphs
    other = replace(graph, sha256=sha256(files["model.fp32.onnx"]))
    swapped = bundle_of(replace(bundle.manifest, graphs=(other,)), files)
    with pytest.raises(BundleCertificateError) as caught:
        require_certificate(swapped)
    assert "no comparison of model.fp32.onnx in fp32" in caught.value.found
    assert "a graph that the bundle does not have" in caught.value.found


(FINDING,) = uncertified().manifest.findings
POINT = replace(FINDING.operating_points[0], threshold=0.5)
CHANGED = {
    "prompts swapped": {
        "negative_embedding": FINDING.positive_embedding,
        "positive_embedding": FINDING.negative_embedding,
    },
    "prompt's words": {"positive_prompt": "anything"},
    "logit scale": {"logit_scale": 50.0},
    "calibration": {"calibration": Calibration(slope=9.0, intercept=-1.0, fitted_on="nothing")},
    "operating point": {"operating_points": (POINT,)},
    "no operating point": {"operating_points": ()},
}


def reworked(**changes: Any) -> Bundle:
    """The certified bundle, its manifest edited afterwards."""
    bundle = certified()
    return bundle_of(replace(bundle.manifest, **changes), dict(bundle.files))


@pytest.mark.parametrize("change", CHANGED)
def test_a_finding_that_was_changed_after_the_judgement_is_not_signed(
    tmp_path: Path, keys: KeyPair, change: str
) -> None:
    bundle = reworked(findings=(replace(FINDING, **CHANGED[change]),))
    with pytest.raises(BundleCertificateError) as caught:
        require_certificate(bundle)
    assert caught.value.found == OTHER
    path = write_certified(tmp_path / "bundle", bundle)
    refused(run("bundle", "sign", path, "--key", keys.private), "BundleCertificateError", OTHER)
    refused(run("bundle", "verify", path, "--device", "cpu"), "BundleCertificateError", OTHER)
    assert not (path / "manifest.sig").exists()


OTHER = "a certificate of another manifest: what it says was changed after it was judged"
MANIFEST = uncertified().manifest


@pytest.mark.parametrize(
    "changes",
    [
        {"release": MANIFEST.release + 1},
        {"intended_use": "Anything."},
        {"not_for_clinical_use": False},
        {"preprocessing": replace(MANIFEST.preprocessing, crop_margin=0.1)},
        {"measurements": ()},
        {"model_card": replace(MANIFEST.model_card, training_data="Everything.")},
        {"source": replace(MANIFEST.source, checkpoint_sha256="f" * 64)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_else_a_manifest_says_is_part_of_the_judgement(changes: dict[str, Any]) -> None:
    with pytest.raises(BundleCertificateError) as caught:
        require_certificate(reworked(**changes))
    assert caught.value.found == OTHER


def test_what_is_made_of_a_judgement_takes_no_new_one() -> None:
    bundle = certified()
    for kind in MADE_AFTERWARDS[1:]:
        bundle = attached(bundle, kind, f"{kind}.html", b"a page")
    assert require_certificate(bundle) == certificate()
    assert judged_sha256(bundle.manifest) == judged_sha256(uncertified().manifest)
    assert set(ATTACHMENTS) == {"parity_exams", *MADE_AFTERWARDS}
    assert MADE_AFTERWARDS[0] == "certificate"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b'{"passed": "sure"}', BundleFormatError),
        (b"\xff", BundleFormatError),
        (b'{"format": 1}', BundleVersionError),
        (b'{"format": 2}', BundleVersionError),
    ],
)
def test_what_is_no_certificate_is_refused(text: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        require_certificate(attached(uncertified(), "certificate", "certificate.json", text))


# Who asks for it


def failing() -> Bundle:
    return certified(replace(certificate(), **golden(value=1.0, verdict="failed")))


@pytest.mark.parametrize("make", [uncertified, failing], ids=["none", "failed"])
def test_nothing_is_signed_without_its_certificate(
    tmp_path: Path, keys: KeyPair, make: Callable[[], Bundle]
) -> None:
    path = write_certified(tmp_path / "bundle", make())
    words = "no parity certificate" if make is uncertified else "a golden exam's logit: 1"
    sign = run("bundle", "sign", path, "--key", keys.private)
    refused(sign, "BundleCertificateError", words)
    assert not (path / "manifest.sig").exists()


def test_what_is_certified_is_signed(tmp_path: Path, keys: KeyPair) -> None:
    path = write_certified(tmp_path / "bundle")
    assert run("bundle", "sign", path, "--key", keys.private).exit_code == 0
    assert read_bundle(path).signature is not None


def test_verifying_reads_the_certificate_and_says_so(tmp_path: Path, tiny_bundle: Path) -> None:
    path = write_certified(tmp_path / "bundle")
    verified = run("bundle", "verify", path, "--device", "cpu")
    assert verified.exit_code == 0
    assert "its parity certificate is its own and passed, over 64 exams" in verified.stdout
    plain = json.loads(run("bundle", "verify", path, "--device", "cpu", "--json").stdout)
    assert plain["certificate_exams"] == 64
    without = run("bundle", "verify", tiny_bundle, "--device", "cpu")
    assert "it has no parity certificate" in without.stdout
    plain = json.loads(run("bundle", "verify", tiny_bundle, "--device", "cpu", "--json").stdout)
    assert plain["certificate_exams"] is None


@pytest.mark.parametrize("parity", [[], ["--parity"]], ids=["golden", "parity"])
def test_a_certificate_that_failed_fails_verification(tmp_path: Path, parity: list[str]) -> None:
    path = write_certified(tmp_path / "bundle", failing())
    result = run("bundle", "verify", path, "--device", "cpu", *parity)
    refused(result, "BundleCertificateError", "a golden exam's logit: 1")


def test_a_certificate_made_anew_is_not_put_into_a_bundle(tmp_path: Path) -> None:
    path = write_certified(tmp_path / "bundle")
    inside = path / "here.json"
    result = run("bundle", "verify", path, "--device", "cpu", "--parity", "--certificate", inside)
    assert result.exit_code == 2
    assert "a place inside the bundle" in result.stderr
    assert not inside.exists()
    read_bundle(path)


# The golden exams' tolerance


def test_no_golden_tolerance_is_wider_than_the_certificates_gate() -> None:
    assert dict(GOLDEN_LIMITS) == {
        precision: LIMITS[precision][quantity] for precision, quantity in GOLDEN_QUANTITIES.items()
    }
    (finding,) = uncertified().manifest.findings
    assert finding.logit_scale == LOGIT_SCALE / 10
    assert largest_tolerance((finding,), "fp32") == pytest.approx(1e-4)
    assert largest_tolerance((finding, replace(finding, logit_scale=50.0)), "fp16") == 0.025
    assert largest_tolerance((replace(finding, logit_scale=1000.0),), "fp16") == 0.05
    assert largest_tolerance((finding,), "int8") == 0.02


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-4), ("bf16", 0.02)])
def test_a_wider_golden_tolerance_is_refused(
    precision: str, largest: float, tmp_path: Path
) -> None:
    manifest = uncertified().manifest

    def with_tolerance(value: float) -> Bundle:
        tolerance = {**manifest.golden.tolerance, precision: value}
        other = replace(manifest, golden=replace(manifest.golden, tolerance=tolerance))
        return bundle_of(other, dict(uncertified().files))

    write_certified(tmp_path / "widest", with_tolerance(largest))
    with pytest.raises(BundleFormatError, match=f"for '{precision}', more than {largest:g}"):
        write_certified(tmp_path / "wider", with_tolerance(largest * 1.01))
