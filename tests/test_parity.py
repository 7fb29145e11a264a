"""Parity exams: read strictly, run on every runtime that is here, and judged by the worst case."""

from __future__ import annotations

import inspect
import io
import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import fake_tensorrt
import numpy as np
import pytest
from conftest import SIZE, FakeSession, as_npz, tiny_embedding, tiny_graph, tiny_weights
from fake_tensorrt import FakeCuda, FakeTensorRT
from test_certificate import CERTIFICATE
from tiny_graphs import exams, half_graph, int8_graph, many_bundle
from typer.testing import CliRunner

from mammoclip_sdk import engines, parity
from mammoclip_sdk.__main__ import app
from mammoclip_sdk.bundle import Bundle, sha256, write_bundle
from mammoclip_sdk.errors import (
    BundleFormatError,
    DeviceError,
    EngineError,
    InferenceError,
    RuntimeNotInstalledError,
)
from mammoclip_sdk.parity import certify, measure
from mammoclip_sdk.parity import exams as parity_exams
from mammoclip_sdk.parity.agreement import Gate, gate_text, judge
from mammoclip_sdk.parity.certificate import (
    NOT_ASKED,
    Certificate,
    certificate_from_json,
    certificate_to_json,
)
from mammoclip_sdk.parity.comparison import Answers, compare
from mammoclip_sdk.parity.exams import ParityExams, read_exams, write_exams
from mammoclip_sdk.predictor import Predictor
from mammoclip_sdk.sessions import BATCH_SIZE, Session, ort

EXAMS = exams()


def test_exams_are_read_as_they_were_written() -> None:
    found = read_exams(many_bundle(EXAMS))
    for name in ("views", "labels", "embedding", "logits"):
        written, read = getattr(EXAMS, name), getattr(found, name)
        np.testing.assert_array_equal(read, written)
        assert read.dtype == written.dtype
    assert found.reference == "NumPy, float32"


def test_equal_exams_give_equal_bytes() -> None:
    assert write_exams(exams()) == write_exams(exams())


def changed(**arrays: Any) -> bytes:
    with np.load(io.BytesIO(write_exams(EXAMS))) as stored:
        return as_npz({**stored, **arrays})


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"not a zip", "no readable arrays"),
        (changed(views=EXAMS.views.astype(np.float32)), r"'views': \('float32'"),
        (changed(views=EXAMS.views[:, :3]), r"\(20, 3, 1, 32, 24\)"),
        (changed(views=EXAMS.views[:19]), r"\(19, 4, 1, 32, 24\)"),
        (changed(more=np.zeros(1)), "'more'"),
        (changed(labels=EXAMS.labels.astype(bool)), r"'labels': \('bool'"),
        (changed(labels=np.int8(1)), r"'labels': \('int8', \(\)\)"),
        (changed(labels=EXAMS.labels * np.int8(2)), "labels other than -1, 0 and 1"),
        (changed(embedding=EXAMS.embedding * np.float32(1.01)), "whose length is not 1"),
        (changed(embedding=np.full_like(EXAMS.embedding, np.nan)), "NaN or infinity"),
        (changed(logits=EXAMS.logits + np.float32(0.02)), "not those of the embeddings"),
        (changed(logits=EXAMS.logits[..., ::-1]), "not those of the embeddings"),
        (changed(reference=np.array([None])), "allow_pickle=False"),
        (changed(reference=np.array(1)), r"'reference': \('int64'"),
    ],
)
def test_exams_that_are_not_as_described_are_refused(data: bytes, found: str) -> None:
    with pytest.raises(BundleFormatError, match=found):
        read_exams(many_bundle(data))


def test_no_exam_at_all_is_refused() -> None:
    arrays = {name: getattr(EXAMS, name)[:0] for name in ("views", "labels", "embedding", "logits")}
    with pytest.raises(BundleFormatError, match="of one exam or more"):
        read_exams(many_bundle(changed(**arrays)))


def test_exams_that_unpack_to_too_much_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = many_bundle(EXAMS)
    with zipfile.ZipFile(io.BytesIO(bundle.files["parity.npz"])) as archive:
        size = sum(member.file_size for member in archive.infolist())
    monkeypatch.setattr(parity_exams, "MAX_BYTES", size - 1)
    monkeypatch.setattr(parity_exams.np, "load", None)
    with pytest.raises(BundleFormatError, match=f"{size} bytes unpacked, more than {size - 1}"):
        read_exams(bundle)


def test_a_bundle_without_exams_says_what_to_do() -> None:
    bundle = many_bundle()
    without = replace(bundle, manifest=replace(bundle.manifest, attachments=()))
    with pytest.raises(BundleFormatError, match="found no parity exams") as caught:
        certify(without)
    assert "Make the bundle again with the exporter" in caught.value.remedy
    assert "bundle verify without --parity" in caught.value.remedy


def ran(session: Session, given: ParityExams = EXAMS) -> Any:
    return measure(many_bundle(given), given, session)


def test_every_exam_is_run_alone_and_the_first_ones_in_batches() -> None:
    session = FakeSession()
    found = ran(session)
    assert session.batches == (1,) * 20 + (3, 8) + (1, 1)  # and the golden exams
    assert found.agreement.exams == 20
    assert found.agreement.batch_sizes == (3, 8)
    assert {gate.verdict for gate in found.gates} == {"passed"}
    assert found.gates[-1].quantity == "golden_logit"
    assert (found.runtime, found.device, found.precision) == ("fake 1.0 NumPy", "cpu", "fp32")
    assert (found.graph, found.graph_sha256) == ("model.fp32.onnx", sha256(tiny_graph()))


def test_the_batch_is_as_large_as_one_that_nobody_asked_for() -> None:
    parameters = inspect.signature(Predictor.predict_many).parameters
    assert parameters["batch_size"].default == BATCH_SIZE


@pytest.mark.parametrize("size", [2, 8, 16])
def test_an_engine_that_is_wrong_in_batches_of_one_size_fails(
    both: tuple[FakeTensorRT, FakeTensorRT], size: int
) -> None:
    bundle = many_bundle(fp32=tiny_graph())
    engine = engines.build(bundle, flavour="tensorrt", precision="fp32", max_batch=16)

    class Negated(FakeSession):
        def run(self, tensors: Any) -> np.ndarray:
            embedding = super().run(tensors)
            return -embedding if len(embedding) == size else embedding

    session = Negated()
    session.engine = engine
    found = measure(bundle, EXAMS, session)
    assert found.agreement.batch_sizes == (2, 3, 4, 5, 6, 7, 8, 16)
    assert [gate.quantity for gate in found.failed] == ["batch_logit", "batch_cosine"]
    assert found.failed[1].value == pytest.approx(2)
    assert found.failed[1].where.endswith(f" in a batch of {size}")
    assert found.failed[0].where.count(f"in a batch of {size}; alone") == 1


def test_the_input_is_exactly_the_byte_divided_by_255() -> None:
    seen: list[np.ndarray] = []

    def remember(views: np.ndarray) -> np.ndarray:
        seen.append(views)
        return tiny_embedding(views)

    ran(FakeSession(remember))
    assert seen[0].dtype == np.float32
    np.testing.assert_array_equal(seen[0][0], EXAMS.views[0] / np.float32(255))


def spoilt(exam: int, change: Callable[[np.ndarray], None], *, alone: bool = True) -> FakeSession:
    """A session that answers one exam wrongly."""
    image = EXAMS.views[exam] / np.float32(255)

    def compute(views: np.ndarray) -> np.ndarray:
        embedding = tiny_embedding(views)
        for row, view in enumerate(views):
            if np.array_equal(view, image) and (alone or len(views) > 1):
                change(embedding[row])
        return embedding

    return FakeSession(compute)


def failed(session: Session) -> dict[str, str]:
    return {gate.quantity: gate.where for gate in ran(session).failed}


def test_nan_in_one_exam_fails_and_names_it() -> None:
    found = failed(spoilt(17, lambda row: row.fill(np.nan)))
    assert found == {"unusable": "exam 17 (an image embedding with NaN or infinity)"}


def test_nan_in_every_answer_fails_gates_and_is_a_certificate_still() -> None:
    comparison = ran(FakeSession(lambda views: np.full((len(views), SIZE), np.nan, np.float32)))
    found = {gate.quantity: gate for gate in comparison.failed}
    assert found.keys() == {"unusable", "golden_logit"}
    assert found["unusable"].value == 20
    assert gate_text(found["golden_logit"]) == (
        "difference of a golden exam's logit: failed, an image embedding with NaN or infinity"
    )
    made = replace(CERTIFICATE, comparisons=(comparison,))
    text = certificate_to_json(made)
    assert certificate_from_json(text, subject="certificate.json") == made
    assert not made.passed


def test_nan_in_a_golden_exam_alone_fails_its_gate() -> None:
    parity_views = EXAMS.views / np.float32(255)

    def compute(views: np.ndarray) -> np.ndarray:
        known = any(np.array_equal(views[0], one) for one in parity_views)
        return tiny_embedding(views) * np.float32(1 if known else np.nan)

    assert failed(FakeSession(compute)) == {
        "golden_logit": "an image embedding with NaN or infinity"
    }


def test_a_little_error_in_one_exam_fails_and_names_it() -> None:
    def nudge(row: np.ndarray) -> None:
        row[:2] = row[:2] @ np.array([[np.cos(1e-3), np.sin(1e-3)], [-np.sin(1e-3), np.cos(1e-3)]])

    found = failed(spoilt(18, nudge))
    assert found.keys() == {"logit"}
    assert found["logit"].startswith("exam 18, malignancy, ")
    found = failed(spoilt(7, nudge, alone=False))
    assert found.keys() == {"batch_logit"}
    assert found["batch_logit"].startswith("exam 7, malignancy, ")


@pytest.mark.parametrize("size", [3, 8])
def test_an_answer_that_is_wrong_in_batches_of_one_size_fails(size: int) -> None:
    def compute(views: np.ndarray) -> np.ndarray:
        embedding = tiny_embedding(views)
        if len(views) == size:
            embedding[2] = embedding[1]
        return embedding

    found = failed(FakeSession(compute))
    assert found == {"batch_logit": ANY, "batch_cosine": f"exam 2 in a batch of {size}"}
    assert f"in a batch of {size}; alone" in found["batch_logit"]


def blind_gates(precision: str, found: np.ndarray, *batches: np.ndarray) -> dict[str, Gate]:
    """What is found in answers to `APART` where every exam has a probability of a half."""
    (finding,) = many_bundle(EXAMS).manifest.findings
    finding = replace(finding, logit_scale=1e-3, operating_points=())
    labels = np.full(len(APART), -1, np.int8)
    agreement = compare((finding,), APART, Answers(embedding=found, batches=batches), labels)
    return {gate.quantity: gate for gate in judge(precision, agreement)}


APART = np.random.default_rng(11).normal(size=(20, SIZE))
APART = (APART / np.linalg.norm(APART, axis=1, keepdims=True)).astype(np.float32)
"""Embeddings that lie in all directions."""


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_answers_that_are_all_alike_fail_where_no_probability_shows_it(precision: str) -> None:
    alike = np.tile(APART[4], (20, 1))
    found = blind_gates(precision, alike, alike[:3], alike[:8])
    assert [name for name, gate in found.items() if gate.verdict == "failed"] == ["cosine"]
    cosines = APART.astype(np.float64) @ APART[4].astype(np.float64)
    assert found["cosine"].value == pytest.approx(1 - cosines.min(), abs=1e-6)
    assert found["cosine"].where == f"exam {cosines.argmin()}"


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_batch_in_another_order_fails_where_no_probability_shows_it(precision: str) -> None:
    found = blind_gates(precision, APART, APART[:3], np.roll(APART[:8], 1, axis=0))
    assert [name for name, gate in found.items() if gate.verdict == "failed"] == ["batch_cosine"]
    assert found["batch_cosine"].where.endswith(" in a batch of 8")


def test_other_golden_answers_fail_a_gate_of_their_own() -> None:
    parity_views = EXAMS.views / np.float32(255)

    def compute(views: np.ndarray) -> np.ndarray:
        known = any(np.array_equal(views[0], one) for one in parity_views)
        embedding = tiny_embedding(views)
        return embedding if known else embedding[:, ::-1].copy()

    assert failed(FakeSession(compute)) == {"golden_logit": "2 golden exams"}


def test_a_precision_without_a_golden_tolerance_is_not_compared() -> None:
    bundle = many_bundle()
    golden = replace(bundle.manifest.golden, tolerance={"fp32": 1e-4})
    bundle = replace(bundle, manifest=replace(bundle.manifest, golden=golden))
    with pytest.raises(DeviceError, match="fp16, int8; expected one in fp16, certified for fp16"):
        measure(bundle, EXAMS, FakeSession(precision="fp16"))
    found = certify(bundle, "cpu")
    assert [one.precision for one in found.comparisons] == ["fp32"]


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return certify(many_bundle(), threads=1)


def test_everything_that_is_here_is_compared_and_the_rest_is_listed(
    certificate: Certificate,
) -> None:
    """Which device is here depends on the machine; none is left out."""
    compared = {(one.device, one.precision) for one in certificate.comparisons}
    absent = {(one.device, one.precision) for one in certificate.absent}
    assert {("cpu", "fp32"), ("cpu", "fp16"), ("cpu", "int8")} <= compared
    assert compared | absent == {
        *(("tensorrt", precision) for precision in ("fp16", "fp32")),
        *(("cuda", precision) for precision in ("fp16", "fp32")),
        *(("openvino", precision) for precision in ("fp32", "bf16", "int8")),
        *(("cpu", precision) for precision in ("fp32", "fp16", "int8")),
    }
    assert not compared & absent
    assert all(one.reason for one in certificate.absent)
    assert certificate.passed
    assert (certificate.exams, certificate.labelled, certificate.positives) == (20, 12, 6)
    assert certificate.exams_sha256 == sha256(write_exams(EXAMS))
    assert (certificate.bundle, certificate.reference) == ("tiny", "NumPy, float32")
    assert certificate.issued_at is certificate.bundle_sha256 is None


def test_each_precision_is_its_own_graph(certificate: Certificate) -> None:
    graphs = {"fp32": tiny_graph(), "bf16": tiny_graph(), "fp16": half_graph()}
    for one in certificate.comparisons:
        assert one.graph_sha256 == sha256(graphs.get(one.precision, int8_graph()))
    worst = {one.precision: one.agreement.logit for one in certificate.comparisons}
    assert worst["fp32"].value < 1e-4 < worst["fp16"].value < 0.05


def test_only_what_was_asked_for_is_compared() -> None:
    one = certify(many_bundle(), "cpu", "fp16")
    assert [(c.device, c.precision) for c in one.comparisons] == [("cpu", "fp16")]
    assert {absence.reason for absence in one.absent} == {NOT_ASKED}
    assert one.narrowed
    int8 = certify(many_bundle(), precision="int8")
    assert {c.precision for c in int8.comparisons} == {"int8"}
    assert certify(many_bundle(fp32=tiny_graph()), "cpu").comparisons[0].precision == "fp32"


def test_nothing_of_what_was_asked_for_is_an_error_that_says_why() -> None:
    with pytest.raises(DeviceError, match="no graph of many to compare: it has fp32"):
        certify(many_bundle(fp32=tiny_graph()), "cpu", "int8")
    with pytest.raises(DeviceError, match="cpu with fp32, fp16, int8"):
        certify(many_bundle(), "cpu", "bf16")


def test_absent_runtimes_are_listed_and_alone_they_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_session(bundle: Bundle, device: str, **options: Any) -> FakeSession:
        if device == "cpu":
            return FakeSession(precision=options["precision"])
        raise RuntimeNotInstalledError(device, found="nothing", expected="it", remedy="Install it.")

    monkeypatch.setattr(parity, "open_session", open_session)
    monkeypatch.setattr(parity, "find_all", lambda bundle, precision: open_session(bundle, "rtx"))
    found = certify(many_bundle(), precision="fp32")
    assert [one.device for one in found.comparisons] == ["cpu"]
    reasons = {(one.device, one.precision): one.reason for one in found.absent}
    assert reasons == {
        **{(device, "fp32"): "nothing" for device in ("tensorrt", "cuda", "openvino")},
        **{(device, "fp16"): NOT_ASKED for device in ("tensorrt", "cuda", "cpu")},
        **{(device, "int8"): NOT_ASKED for device in ("openvino", "cpu")},
        ("openvino", "bf16"): NOT_ASKED,
    }
    with pytest.raises(RuntimeNotInstalledError, match="cuda: found nothing"):
        certify(many_bundle(), "cuda")


def test_a_runtime_that_is_here_and_fails_is_not_listed_as_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_session(bundle: Bundle, device: str, **options: Any) -> FakeSession:
        raise InferenceError(device, found="a graph it does not load", expected="", remedy="")

    monkeypatch.setattr(parity, "open_session", open_session)
    with pytest.raises(InferenceError, match="does not load"):
        certify(many_bundle())


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[FakeTensorRT, FakeTensorRT]:
    """Both flavours of TensorRT, on a machine with a GPU, and a folder of engines."""
    flavours = FakeTensorRT("tensorrt", "11.4.0.106"), FakeTensorRT("tensorrt_rtx", "1.7.1.116")
    fake_tensorrt.install(monkeypatch, *flavours, cuda=FakeCuda())
    monkeypatch.setenv("MAMMOCLIP_ENGINES", str(tmp_path))
    return flavours


def test_engines_of_both_flavours_are_compared(both: tuple[FakeTensorRT, FakeTensorRT]) -> None:
    bundle = many_bundle(fp32=tiny_graph())
    with pytest.raises(EngineError, match="fp32 engine for NVIDIA RTX A2000: found none"):
        certify(bundle, "tensorrt")
    for flavour in both:
        engines.build(bundle, flavour=flavour.__name__, precision="fp32", max_batch=8)
        engines.build(bundle, flavour=flavour.__name__, precision="fp32", level=0, max_batch=8)
    found = certify(bundle, "tensorrt")
    assert {one.runtime for one in found.comparisons} == {
        "tensorrt 11.4.0.106",
        "tensorrt_rtx 1.7.1.116",
    }
    assert len(found.comparisons) == 2
    assert found.passed
    assert found.comparisons[0].hardware.startswith("NVIDIA RTX A2000, compute capability 8.6")


def test_an_engine_that_is_here_and_damaged_is_not_listed_as_absent(
    both: tuple[FakeTensorRT, FakeTensorRT],
) -> None:
    bundle = many_bundle(fp32=tiny_graph())
    engine = engines.build(bundle, flavour="tensorrt", precision="fp32", max_batch=8)
    engine.plan.write_bytes(b"other")
    with pytest.raises(EngineError) as caught:
        certify(bundle)
    assert caught.value.code == "engine_damaged"


def test_a_gpu_without_a_name_is_not_taken_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    found = parity.hardware("cuda")
    assert found.startswith("NVIDIA GPU of unknown name (cuda-bindings: ")
    assert "logical processors" not in found
    assert "logical processors" in parity.hardware("cpu")


def test_sessions_are_open_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[FakeSession] = []

    def open_session(bundle: Bundle, device: str, **options: Any) -> FakeSession:
        assert all(session.closed for session in opened)
        opened.append(FakeSession(precision=options["precision"], device=device))
        return opened[-1]

    monkeypatch.setattr(parity, "open_session", open_session)
    steps: list[tuple[int, int]] = []
    certify(many_bundle(), "cpu", progress=lambda done, of: steps.append((done, of)))
    assert [session.precision for session in opened] == ["fp32", "fp16", "int8"]
    assert all(session.closed for session in opened)
    assert steps == [(done, 60) for done in range(1, 61)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle = many_bundle()
    write_bundle(tmp_path / "bundle", bundle.manifest, bundle.files)
    return tmp_path / "bundle"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bundle", "verify", *map(str, arguments)])


def test_verify_runs_the_golden_exams_in_the_precision_that_is_asked_for(folder: Path) -> None:
    found = run(folder, "--device", "cpu", "--precision", "fp16", "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["precision"] == "fp16"
    found = run(folder, "--device", "cpu", "--precision", "bf16")
    assert found.exit_code == 2
    assert "one that runs bf16: openvino" in found.stderr


def test_verify_parity_certifies_this_workstation(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    found = run(folder, "--parity", "--device", "cpu", "--certificate", file)
    assert found.exit_code == 0, found.output
    assert "tiny 1.2.3: every runtime on device cpu agrees within its limits" in found.stdout
    assert "CPUExecutionProvider, fp16: passed" in found.stdout
    certificate = certificate_from_json(file.read_text("utf-8"), subject=file.name)
    assert [one.precision for one in certificate.comparisons] == ["fp32", "fp16", "int8"]
    assert certificate.bundle_sha256 == sha256((folder / "manifest.json").read_bytes())
    assert certificate.issued_at is not None
    page = tmp_path / "here.html"
    found = run(folder, "--parity", "--device", "cpu", "--precision", "fp32", "--certificate", page)
    assert found.exit_code == 0
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_a_failed_gate_is_an_exit_code_and_its_worst_case(tmp_path: Path) -> None:
    other = tiny_graph(np.roll(tiny_weights(), 1, axis=1))
    bundle = many_bundle(fp32=tiny_graph(), int8=other)
    write_bundle(tmp_path / "bundle", bundle.manifest, bundle.files)
    for more in ((), ("--json",)):
        found = run(tmp_path / "bundle", "--parity", "--device", "cpu", *more)
        assert found.exit_code == 2
        assert "Gate failed: onnxruntime" in found.stderr
        assert "int8: difference of a probability: " in found.stderr
        assert ", at most 0.02 (exam " in found.stderr
    plain = json.loads(found.stdout)
    assert plain["verified"] is False
    verdicts = {
        one["precision"]: {gate["verdict"] for gate in one["gates"]}
        for one in plain["certificate"]["comparisons"]
    }
    assert verdicts["fp32"] == {"passed"}
    assert "failed" in verdicts["int8"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("there.json", "something of that name"),
        ("here.txt", "the ending '.txt'"),
        ("none/here.json", "no such folder"),
    ],
)
def test_a_certificate_has_a_place_before_anything_is_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, found: str
) -> None:
    (tmp_path / "there.json").write_text("a record of last year")
    monkeypatch.setattr(parity, "certify", None)
    answer = run(folder, "--parity", "--certificate", tmp_path / name)
    assert answer.exit_code == 2
    assert found in answer.stderr
    assert "[certificate]" in answer.stderr
    assert (tmp_path / "there.json").read_text() == "a record of last year"


def test_a_certificate_needs_parity(folder: Path, tmp_path: Path) -> None:
    found = run(folder, "--certificate", tmp_path / "here.json")
    assert found.exit_code == 2
    assert "--certificate needs --parity" in found.stderr


def test_the_command_says_where_a_bundle_has_no_parity_exams(tiny_bundle: Path) -> None:
    found = run(tiny_bundle, "--parity")
    assert found.exit_code == 2
    assert "found no parity exams" in found.stderr
    assert "[bundle_format]" in found.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not ort.is_available("cuda"), reason="this onnxruntime has no CUDA")
def test_cuda_agrees_in_both_of_its_precisions() -> None:
    found = certify(many_bundle(), "cuda")
    assert [one.precision for one in found.comparisons] == ["fp16", "fp32"]
    assert found.passed
    assert found.comparisons[0].hardware.count("compute capability") == 1
