"""A checkpoint becomes a bundle that computes the same; what is in it, and why the same again."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_checkpoint import (
    ACCEPTANCE,
    FINDINGS,
    HERE,
    MEASUREMENT,
    MODEL_CARD,
    PREPROCESSING,
    SIZE,
    bytes_below,
    everything,
)

from export import build_engine
from export.golden import structured_exams
from export.graphs import contrasts
from export.manifest import golden_tolerance
from export.settings import PRECISIONS
from mammoclip_sdk.bundle import (
    read_bundle,
)
from mammoclip_sdk.bundle.graphs import has_graph
from mammoclip_sdk.errors import DeviceError
from mammoclip_sdk.golden import read_golden, run_golden
from mammoclip_sdk.parity.agreement import LIMITS, gate_text
from mammoclip_sdk.parity.certificate import certificate_from_json
from mammoclip_sdk.parity.exams import read_exams
from mammoclip_sdk.sessions import open_session
from training.saved_model import load_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return everything(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def checkpoint(exported):
    return exported[1].checkpoint


@pytest.fixture(scope="module")
def bundle(exported):
    return read_bundle(exported[1].out)


def run(*arguments, cwd=ROOT):
    """Run the exporter as a user does."""
    script = ROOT / "export" / "build_engine.py"
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_manifest_says_what_the_checkpoint_says(bundle, checkpoint):
    manifest = bundle.manifest
    model = load_checkpoint(checkpoint).model
    assert (manifest.name, manifest.version, manifest.release) == ("test", "1.2", 3)
    assert manifest.intended_use == "Tests."
    assert manifest.not_for_clinical_use
    assert manifest.preprocessing == PREPROCESSING
    assert manifest.acceptance == ACCEPTANCE
    assert manifest.measurements == (MEASUREMENT,)
    assert manifest.views == ("LCC", "RCC", "LMLO", "RMLO")
    assert manifest.source.open_clip_model == "tiny"
    assert (manifest.source.seed, manifest.source.command) == (3, "make model")
    assert manifest.source.training_report["report"] == {"loss": 0.5}
    assert manifest.source.training_report["model"]["n_local"] == 1
    assert manifest.source.training_report["export"] == {
        "exams": None,
        "name": "test",
        "version": "1.2",
        "release": 3,
        "not_for_clinical_use": True,
        "precisions": list(HERE),
        "parity_exams": 64,
        "seed": 2404,
        "base_sha256": None,
        "tools": build_engine.manifest.tool_versions(),
    }
    record = load_checkpoint(checkpoint).record
    assert manifest.source.base_sha256 == record.base_sha256
    assert manifest.model_card == MODEL_CARD
    for finding, trained in zip(manifest.findings, FINDINGS, strict=True):
        assert finding.calibration == trained.calibration
        assert finding.logit_scale == pytest.approx(1 / 0.07)
        tokens = model.tokenize([trained.negative_prompt, trained.positive_prompt])
        with torch.no_grad():
            expected = model.encode_text(tokens).numpy()
        found = np.array([finding.negative_embedding, finding.positive_embedding], np.float32)
        assert np.array_equal(found, expected)


def test_there_is_a_graph_of_each_precision_with_one_input_and_one_output(bundle):
    graphs = bundle.manifest.graphs
    assert [(graph.precision, graph.file) for graph in graphs] == [
        (precision, f"model.{precision}.onnx") for precision in ("fp32", "fp16", "int8")
    ]
    assert [graph.opset for graph in graphs[:2]] == [20, 23]
    for graph in graphs:
        assert [(t.name, t.shape, t.dtype) for t in graph.inputs] == [
            ("views", ("batch", 4, 1, *SIZE), "float32")
        ]
        assert [(t.name, t.shape, t.dtype) for t in graph.outputs] == [
            ("embedding", ("batch", 24), "float32")
        ]
    operators = {
        graph.precision: {
            node.op_type for node in onnx.load_from_string(bundle.files[graph.file]).graph.node
        }
        for graph in graphs
    }
    assert "Attention" in operators["fp16"]
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators["int8"]
    assert [len(graph.largest_activations) for graph in graphs] == [0, 2, 0]
    assert all(0.1 < largest < 100 for largest in graphs[1].largest_activations)
    assert all(graph.float32_blocks == () for graph in graphs)


def test_the_graph_computes_what_the_training_model_computes(bundle, checkpoint):
    model = load_checkpoint(checkpoint).model
    session = onnxruntime.InferenceSession(
        bundle.files["model.fp32.onnx"], providers=["CPUExecutionProvider"]
    )
    exams = structured_exams(*SIZE, count=5, seed=11)
    (found,) = session.run(None, {"views": exams})
    with torch.no_grad():
        expected = model.encode_exam(torch.from_numpy(exams)).numpy()
    assert found.shape == (5, 24)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


@torch.no_grad()
def test_the_golden_exams_are_the_checkpoints_with_the_models_answers(bundle, checkpoint):
    loaded = load_checkpoint(checkpoint)
    golden = read_golden(bundle)
    assert np.array_equal(golden.views, loaded.golden_views.numpy())
    embedding = loaded.model.encode_exam(loaded.golden_views)
    assert np.abs(golden.embedding - embedding.numpy()).max() < 1e-6
    for index, finding in enumerate(FINDINGS):
        tokens = loaded.model.tokenize([finding.negative_prompt, finding.positive_prompt])
        expected = loaded.model.logits(loaded.golden_views, tokens).numpy()
        assert np.abs(golden.logits[:, index] - expected).max() < 1e-5
    session = open_session(bundle, "cpu")
    result = run_golden(bundle, session)
    session.close()
    assert result.exams == 2
    assert result.worst_difference <= 1e-5
    assert result.tolerance == pytest.approx(1e-3 / 0.07 / 100)


def test_the_tolerances_of_the_golden_exams_follow_from_the_certificates_gates(bundle):
    findings = bundle.manifest.findings
    scale = 1 / 0.07
    assert golden_tolerance(findings, HERE) == dict(bundle.manifest.golden.tolerance)
    found = golden_tolerance(findings, PRECISIONS)
    assert found == pytest.approx(
        {
            "fp32": LIMITS["fp32"]["logit"] * scale / 100,
            "fp16": LIMITS["fp16"]["logit"] * scale / 100,
            "bf16": LIMITS["bf16"]["probability"],
            "int8": LIMITS["int8"]["probability"],
        }
    )
    assert golden_tolerance(findings, ("fp32", "int8")).keys() == {"fp32", "int8"}


@pytest.mark.skipif("bf16" not in HERE, reason="nothing here runs bfloat16")
def test_a_bundle_that_was_not_certified_for_bf16_is_not_run_in_it(bundle):
    tolerance = golden_tolerance(bundle.manifest.findings, ("fp32", "fp16", "int8"))
    golden = replace(bundle.manifest.golden, tolerance=tolerance)
    uncertified = replace(bundle, manifest=replace(bundle.manifest, golden=golden))
    assert has_graph(bundle, "bf16")
    assert not has_graph(uncertified, "bf16")
    with pytest.raises(DeviceError, match="expected one in fp32, certified for bf16"):
        open_session(uncertified, "openvino", precision="bf16")


def test_contrasts_give_the_logit_of_the_reported_probability(bundle):
    embedding = read_golden(bundle).embedding
    logits = read_golden(bundle).logits
    found = embedding @ contrasts(bundle.manifest.findings).T
    slopes = np.array([1.5, 1.0], np.float32)
    assert np.allclose(found, slopes * (logits[..., 1] - logits[..., 0]), atol=1e-5)


def test_the_certificate_covers_every_graph_and_passes(exported, bundle):
    kinds = {one.kind: one.file for one in bundle.manifest.attachments}
    assert kinds == {
        "parity_exams": "parity.npz",
        "certificate": "certificate.json",
        "certificate_page": "certificate.html",
        "model_card": "model_card.html",
        "sbom": "sbom.cdx.json",
    }
    text = bundle.files["certificate.json"].decode()
    certificate = certificate_from_json(text, subject="certificate")
    assert certificate == exported[0].certificate
    assert certificate.passed
    assert {one.precision for one in certificate.comparisons} >= {"fp32", "fp16", "int8"}
    hashes = {graph.sha256 for graph in bundle.manifest.graphs}
    assert {one.graph_sha256 for one in certificate.comparisons} == hashes
    assert (certificate.exams, certificate.labelled, certificate.positives) == (65, 64, 32)
    assert read_exams(bundle).views.shape == (65, 4, 1, *SIZE)
    assert "<html" in bundle.files["certificate.html"].decode()
    assert "It knows nothing." in bundle.files["model_card.html"].decode()
    assert json.loads(bundle.files["sbom.cdx.json"])["bomFormat"] == "CycloneDX"


def test_the_graphs_are_plain_files_without_traces_of_where_they_were_made(bundle):
    data = bundle.files["model.fp32.onnx"]
    model = onnx.load_from_string(data)
    assert {entry.domain for entry in model.opset_import} == {""}
    operators = {node.op_type for node in model.graph.node}
    assert {"Conv", "MatMul", "Softmax", "LayerNormalization", "Gelu"} <= operators
    assert not {"Shape", "If", "Loop", "Gather", "Dropout", "Identity", "Expand"} & operators
    assert len(model.graph.node) <= 110
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(i for i in model.graph.initializer if i.name == conv.input[1])
    assert list(weight.dims) == [32, 1, 16, 16]
    for name in ("model.fp32.onnx", "model.fp16.onnx", "model.int8.onnx"):
        stored = onnx.load_from_string(bundle.files[name]).graph.initializer
        assert not any(init.external_data for init in stored)
        for trace in (b".py", b"stack_trace", b"/somewhere", str(ROOT).encode(), b"torch"):
            assert trace not in bundle.files[name]
    assert b"/somewhere" not in json.dumps(dict(bundle.manifest.source.training_report)).encode()


def test_the_command_makes_the_same_bytes_again_wherever_it_runs(exported, checkpoint, tmp_path):
    settings = ("--name", "test", "--version", "1.2", "--release", "3")
    done = run(
        "--checkpoint", checkpoint, "--out", "bundle", *settings, "--record", "record.json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bundle: 65 exams, against PyTorch" in done.stdout
    compared = exported[0].certificate.comparisons
    said = [f"    {gate_text(gate)}" for one in compared for gate in one.gates]
    assert [line for line in done.stdout.splitlines() if line.startswith("    ")] == said
    assert bytes_below(tmp_path / "bundle") == bytes_below(exported[1].out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "record.json"]
    record = json.loads((tmp_path / "record.json").read_text())
    names = [stage["name"] for stage in record["stages"]]
    assert names == [stage.name for stage in exported[2].ended]
    assert names[-2:] == ["compare", "write"]
    assert all(stage["seconds"] >= 0 and stage["peak_mib"] > 50 for stage in record["stages"])
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "bundle").iterdir()}
    assert record["files"] == {
        name: size for name, size in sizes.items() if not name.startswith("manifest.")
    }
    assert record["engines"] == []
    said = " ".join(done.stderr.split())
    assert said.index("activation") < said.index("fp16 graph:") < said.index("compare:")
