"""The comparison of quantization tools: what it judges by, and what its table says."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import quantization
from benchmarks.machine import describe_machine
from benchmarks.quantization import judged, runtimes, tools
from benchmarks.quantization_report import Case, Judgement, Report, to_markdown
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.predictor import DEMO_BUNDLE

SHAPE = (4, 1, 16, 16)


@pytest.fixture
def graph(tmp_path):
    """Make one product of an exam's pixels, as the smallest graph a tool can round."""
    weights = np.random.default_rng(0).normal(size=(1024, 8)).astype(np.float32)
    made = helper.make_graph(
        [
            helper.make_node("Flatten", ["views"], ["pixels"], name="flatten"),
            helper.make_node("MatMul", ["pixels", "weights"], ["embedding"], name="product"),
        ],
        "g",
        [helper.make_tensor_value_info("views", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "float32.onnx")
    return tmp_path / "float32.onnx", weights


def views(count):
    return np.random.default_rng(1).random((count, *SHAPE)).astype(np.float32)


def test_every_tool_rounds_the_product_and_stays_near_it(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda _: None)
    path, weights = graph
    exams = views(8)
    expected = exams.reshape(8, -1) @ weights
    found = dict(tools(path, exams, tmp_path))
    assert len(found) == 4
    for made in found.values():
        kinds = {tensor.data_type for tensor in onnx.load(made).graph.initializer}
        assert TensorProto.INT8 in kinds
        [(name, run)] = runtimes(made, threads=1)
        assert name == "ONNX Runtime"
        error = np.abs(run(exams) - expected).max()
        assert 0 < error < 0.05 * np.abs(expected).max()


def test_a_judgement_is_in_terms_of_the_findings_probability():
    finding = read_bundle(DEMO_BUNDLE).manifest.findings[0]
    size = len(finding.positive_embedding)
    positive, negative = np.eye(size)[:2]
    finding = replace(
        finding,
        positive_embedding=tuple(positive),
        negative_embedding=tuple(negative),
        logit_scale=2.0,
        calibration=None,
    )
    expected = np.zeros((2, size), np.float32)
    expected[:, 0], expected[:, 1] = (0, 1), (1, 0)
    found = expected.copy()
    found[1, :2] = 0.8, 0.6
    judgement = judged(expected, found, finding, np.array([False, True]))
    before, after = (1 / (1 + np.exp(-2 * margin)) for margin in (1.0, 0.8 - 0.6))
    assert judgement.worst_probability == pytest.approx(before - after)
    assert judgement.worst_logit == pytest.approx(1.2)
    assert judgement.worst_cosine == pytest.approx(0.2)
    assert judgement.auc == 0


def test_the_report_shows_accuracy_time_absences_hardware_and_bundle():
    here = describe_machine()
    judgement = Judgement(
        tool="a tool",
        runtime="a runtime",
        megabytes=12.34,
        worst_probability=0.0123,
        worst_logit=0.456,
        worst_cosine=1.2e-4,
        auc=0.0007,
        median_ms=9.87,
        speedup=2.5,
    )
    case = Case(
        model="m",
        bundle_sha256="abcdef" * 8,
        exams=64,
        calibration_exams=32,
        rounds=20,
        threads=2,
        absent=("nncf is not installed",),
        judgements=(judgement,),
    )
    text = to_markdown(Report(command="python x", machine=here, cases=(case,)))
    row = "| a tool | a runtime | 12.3 | 0.0123 | 0.456 | 1.2e-04 | 0.0007 | 9.9 | 2.50 |"
    said = ["64 phantoms, calibrated on 32 others", "20 rounds, 2 threads", "`abcdefabcdef`"]
    for part in (row, *said, "Not compared: nncf is not installed.", here.line()):
        assert part in text
