"""Golden exams: does this session compute this model, and by how much is it off at worst?"""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    FEATURES,
    LOGIT_SCALE,
    FakeSession,
    altered,
    as_npz,
    prompt,
    tiny_embedding,
    tiny_golden,
    tiny_graph,
    with_file,
)

from mammoclip_sdk import golden
from mammoclip_sdk.bundle import Bundle, read_bundle
from mammoclip_sdk.errors import BundleFormatError, InferenceError
from mammoclip_sdk.golden import logits_of, require_golden, run_golden
from mammoclip_sdk.sessions import open_session

VIEWS = tiny_golden()["views"]


@pytest.mark.parametrize(
    ("factor", "found"), [(2, "length is 1 away"), (np.nan, "NaN or infinity"), (0, "1 away")]
)
def test_golden_exams_whose_embedding_is_none_are_refused(
    tiny_bundle: Path, factor: float, found: str
) -> None:
    session = FakeSession(lambda views: np.float32(factor) * tiny_embedding(views))
    with pytest.raises(InferenceError, match=found) as caught:
        run_golden(read_bundle(tiny_bundle), session)
    assert caught.value.reason == "G14"


def test_a_precision_without_a_tolerance_cannot_be_judged(tiny_bundle: Path) -> None:
    with pytest.raises(InferenceError, match=r"'int8'; expected one .*: bf16, fp32"):
        run_golden(read_bundle(tiny_bundle), FakeSession(precision="int8"))


def test_golden_exams_measure_the_worst_logit(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert run_golden(bundle, FakeSession()).worst_difference < 1e-5
    assert run_golden(bundle, open_session(bundle, "cpu")).worst_difference < 1e-5

    def slightly_wrong(views: np.ndarray) -> np.ndarray:
        embedding = tiny_embedding(views)
        embedding[:, 1] += np.float32(0.01)  # times the logit scale of 10: a logit off by 0.1
        rest = 1 - np.sum(embedding[:, :2] ** 2, axis=1, keepdims=True)
        embedding[:, 2:] *= np.sqrt(rest / np.sum(embedding[:, 2:] ** 2, axis=1, keepdims=True))
        return embedding  # of length 1 still

    result = run_golden(bundle, FakeSession(slightly_wrong))
    assert result.worst_difference == pytest.approx(0.1, abs=1e-5)
    assert (result.exams, result.tolerance, result.passed) == (2, 1e-4, False)
    with pytest.raises(InferenceError, match=r"differ by up to 0\.1;") as caught:
        require_golden(bundle, FakeSession(slightly_wrong))
    assert caught.value.code == "golden_mismatch"


def turned(views: np.ndarray, *, first: int, other: int, angle: float) -> np.ndarray:
    """The right embedding, rotated by an angle between two of its axes."""
    embedding = tiny_embedding(views)
    pair = embedding[:, [first, other]]
    cos, sin = np.cos(angle), np.sin(angle)
    embedding[:, [first, other]] = pair @ np.array([[cos, sin], [-sin, cos]], np.float32)
    return embedding


def test_golden_exams_are_judged_by_probability_where_eight_bits_remain(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    (finding,) = bundle.manifest.findings

    def a_little_off(views: np.ndarray) -> np.ndarray:
        return turned(views, first=0, other=1, angle=0.01)

    margins = [
        finding.logit_scale * (rows[:, 1] - rows[:, 0]).astype(np.float64)
        for rows in (a_little_off(VIEWS), tiny_embedding(VIEWS))
    ]
    assert finding.calibration is None
    found, expected = (1 / (1 + np.exp(-margin)) for margin in margins)
    result = run_golden(bundle, FakeSession(a_little_off, precision="bf16"))
    assert result.quantity == "probability"
    assert result.worst_difference == pytest.approx(np.abs(found - expected).max(), rel=1e-3)
    assert (result.tolerance, result.passed) == (0.02, True)
    assert run_golden(bundle, FakeSession(a_little_off)).quantity == "logit"
    assert not run_golden(bundle, FakeSession(a_little_off)).passed


def test_an_error_that_no_prompt_of_today_shows_is_found(tiny_bundle: Path) -> None:
    """The prompts lie along the first two axes; others may be asked tomorrow."""
    session = FakeSession(lambda views: turned(views, first=2, other=3, angle=0.1))
    result = run_golden(read_bundle(tiny_bundle), session)
    assert result.worst_difference > 100 * result.tolerance


def test_golden_embeddings_that_are_none_are_the_bundles_fault(tiny_bundle: Path) -> None:
    longer = as_npz({**tiny_golden(), "embedding": np.float32(1.01) * tiny_golden()["embedding"]})
    bundle = with_file(tiny_bundle, "golden.npz", longer)
    with pytest.raises(BundleFormatError, match="embeddings whose length is not 1"):
        run_golden(bundle, FakeSession())


def changed_finding(path: Path, **changes: object) -> Bundle:
    (finding,) = read_bundle(path).manifest.findings
    return altered(path, findings=(replace(finding, **changes),))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [
        {"negative_embedding": prompt(1), "positive_embedding": prompt(0)},
        {"positive_embedding": prompt(2)},
        {"logit_scale": LOGIT_SCALE * 1.1},
    ],
    ids=["swapped", "another", "scale"],
)
def test_prompts_that_changed_since_the_model_answered_are_noticed_in_every_precision(
    tiny_bundle: Path, changes: dict[str, object], precision: str
) -> None:
    bundle = changed_finding(tiny_bundle, **changes)
    with pytest.raises(BundleFormatError, match="logits that are not those of the embeddings and"):
        run_golden(bundle, FakeSession(precision=precision))


def test_findings_in_another_order_are_noticed(tiny_bundle: Path) -> None:
    (one,) = read_bundle(tiny_bundle).manifest.findings
    other = replace(one, name="density", positive_embedding=prompt(2))
    arrays = tiny_golden()
    both = as_npz({**arrays, "logits": logits_of(arrays["embedding"], (one, other)).astype("f4")})
    bundle = with_file(tiny_bundle, "golden.npz", both)
    ordered = replace(bundle, manifest=replace(bundle.manifest, findings=(one, other)))
    assert run_golden(ordered, FakeSession(precision="bf16")).passed
    turned_round = replace(bundle, manifest=replace(bundle.manifest, findings=(other, one)))
    with pytest.raises(BundleFormatError, match="not those of the embeddings"):
        run_golden(turned_round, FakeSession(precision="bf16"))


def test_a_runtime_with_other_weights_does_not_pass(tiny_bundle: Path) -> None:
    zeros = np.zeros((FEATURES, 6), np.float32)
    session = open_session(with_file(tiny_bundle, "model.fp32.onnx", tiny_graph(zeros)), "cpu")
    with pytest.raises(InferenceError, match="golden exams whose logits differ"):
        require_golden(read_bundle(tiny_bundle), session)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"not a zip", "no readable arrays"),
        (as_npz({"views": VIEWS}), "found {'views'"),
        (as_npz({**tiny_golden(), "logits": np.zeros((2, 1, 2))}), "float64"),
        (as_npz({**tiny_golden(), "logits": np.full((2, 1, 2), np.nan, np.float32)}), "NaN"),
        (as_npz({**tiny_golden(), "logits": np.array([None, None])}), "allow_pickle=False"),
        (as_npz(tiny_golden(3)), r"\(3, 4, 1, 32, 24\)"),
    ],
    ids=["zip", "missing", "dtype", "nan", "pickle", "count"],
)
def test_golden_exams_that_are_not_as_described_are_refused(
    tiny_bundle: Path, data: bytes, found: str
) -> None:
    bundle = with_file(tiny_bundle, "golden.npz", data)
    with pytest.raises(BundleFormatError, match=found):
        run_golden(bundle, FakeSession())


def test_golden_exams_that_unpack_to_too_much_are_not_unpacked(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(tiny_bundle)
    with zipfile.ZipFile(io.BytesIO(bundle.files["golden.npz"])) as archive:
        size = sum(member.file_size for member in archive.infolist())
    monkeypatch.setattr(golden, "_MAX_BYTES", size)
    run_golden(bundle, FakeSession())
    monkeypatch.setattr(golden, "_MAX_BYTES", size - 1)
    monkeypatch.setattr(golden.np, "load", None)
    with pytest.raises(BundleFormatError, match=f"{size} bytes unpacked, more than {size - 1}"):
        run_golden(bundle, FakeSession())
