"""A checkpoint becomes a bundle that computes the same, or no bundle at all."""

import errno
import functools
import json
import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import typer
from exams import PLAIN, write_exam
from rich.console import Console
from typer.testing import CliRunner

from export import answers, build_engine, random_checkpoint
from export.build_engine import ExportConfig
from export.engines import build_engines
from export.errors import ExportError
from export.exams import parity_exams
from export.fold import fold
from export.golden import golden_views, structured_exams
from export.graphs import contrasts
from export.manifest import golden_tolerance
from export.precision import half
from export.settings import PRECISIONS
from export.stages import Stages
from mammoclip_sdk.bundle import (
    PREPROCESSING_VERSION,
    Calibration,
    Interval,
    Measurement,
    ModelCard,
    Preprocessing,
    read_bundle,
)
from mammoclip_sdk.bundle.graphs import has_graph
from mammoclip_sdk.errors import BundleError, BundleSignatureError, DeviceError, EngineError
from mammoclip_sdk.exam import Acceptance, Device
from mammoclip_sdk.golden import read_golden, run_golden
from mammoclip_sdk.parity.agreement import LIMITS
from mammoclip_sdk.parity.certificate import certificate_from_json
from mammoclip_sdk.parity.exams import read_exams
from mammoclip_sdk.sessions import open_session
from training.adapters import AdapterConfig
from training.checkpoint import Provenance, TrainedFinding
from training.errors import CheckpointError
from training.model import MammoClip, ModelConfig
from training.saved_model import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]
app = typer.Typer()
app.command()(build_engine.command)
SIZE = (48, 32)
ARCHITECTURE = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESSING = Preprocessing(
    version=PREPROCESSING_VERSION,
    height=SIZE[0],
    width=SIZE[1],
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.02,
    background="zero",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)
FINDINGS = (
    TrainedFinding(
        name="malignancy",
        negative_prompt="mammogram without malignancy",
        positive_prompt="mammogram with malignancy",
        calibration=Calibration(slope=1.5, intercept=-0.25, fitted_on="validation exams"),
    ),
    TrainedFinding(
        name="density", negative_prompt="breast of fat", positive_prompt="breast of dense tissue"
    ),
)
MEASUREMENT = Measurement(
    name="AUC",
    finding="malignancy",
    value=Interval(estimate=0.88, lower=0.84, upper=0.91, level=0.95, method="delong"),
    exams=400,
    data="unseen exams",
)
ACCEPTANCE = Acceptance(
    implants=True, synthetic_2d=False, devices=(Device(manufacturer="ACME", model="Mammo 3"),)
)
MODEL_CARD = ModelCard(
    training_data="None.", limitations=("It knows nothing.",), licence="Apache-2.0"
)
COMPLETE = {
    "settings": {"epochs": 2},
    "report": {"loss": 0.5},
    "provenance": Provenance(git_commit="0" * 40, seed=3, command="make model"),
    "preprocessing": PREPROCESSING,
    "acceptance": ACCEPTANCE,
    "findings": FINDINGS,
    "measurements": (MEASUREMENT,),
    "intended_use": "Tests.",
    "model_card": MODEL_CARD,
}


def write_checkpoint(folder, **changes):
    torch.manual_seed(0)
    adapter = AdapterConfig(
        rank=4, activation="gelu", placement="both", connection="serial", scale=0.3
    )
    config = ModelConfig(
        open_clip_model="/somewhere/tiny.json",
        pretrained=None,
        image_size=SIZE,
        n_local=1,
        view_embedding="learned",
        image_adapter=adapter,
        text_adapter=adapter,
    )
    model = MammoClip(config, architecture=ARCHITECTURE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_adapter." in name or name == "image.view_embedding":
                parameter.normal_(std=0.3)
    save_checkpoint(folder, model, **(COMPLETE | changes))
    return folder


@pytest.fixture(scope="module", autouse=True)
def exams_are_made_once():
    """The same phantoms for every export here: they follow from the seed."""
    made_once = functools.cache(parity_exams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "parity_exams", made_once)
        patch.setattr(build_engine, "parity_exams", made_once)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    golden = torch.from_numpy(structured_exams(*SIZE, count=2, seed=7))
    folder = tmp_path_factory.mktemp("made") / "checkpoint"
    return write_checkpoint(folder, golden_views=golden)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """The result of one export with everything, its settings and its stages."""
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    config = ExportConfig(checkpoint=checkpoint, out=out, name="test", version="1.2", release=3)
    stages = quiet()
    return build_engine.main(config, stages), config, stages


@pytest.fixture(scope="module")
def bundle(exported):
    return read_bundle(exported[1].out)


def quiet():
    return Stages(Console(quiet=True))


def run(*arguments, cwd=ROOT):
    """Run the exporter as a user does."""
    script = ROOT / "export" / "build_engine.py"
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def invoke(*arguments):
    """Run the exporter's command; return its exit code and what it says of it in one line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.stderr.split())


def bytes_below(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
        "checkpoint": "checkpoint",
        "exams": None,
        "name": "test",
        "version": "1.2",
        "release": 3,
        "not_for_clinical_use": True,
        "precisions": ["fp32", "fp16", "bf16", "int8"],
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
    (malignancy, density), scale = findings, 1 / 0.07
    assert (malignancy.calibration.slope, density.calibration) == (1.5, None)
    found = golden_tolerance(findings, PRECISIONS)
    assert found == dict(bundle.manifest.golden.tolerance)
    assert found == pytest.approx(
        {
            "fp32": LIMITS["fp32"]["logit"] * scale / 100,
            "fp16": LIMITS["fp16"]["logit"] * scale / 100,
            "bf16": LIMITS["bf16"]["probability"] / (1.5 / 16),
            "int8": LIMITS["int8"]["probability"] / (1.5 / 16),
        }
    )
    assert golden_tolerance(findings, ("fp32", "int8")).keys() == {"fp32", "int8"}


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
    assert "  fp16 on onnxruntime" in done.stdout
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


# The gate


@pytest.fixture
def earlier(exported, tmp_path):
    """A bundle in place of the one that is to be written, and its bytes."""
    shutil.copytree(exported[1].out, tmp_path / "bundle")
    yield tmp_path / "bundle", bytes_below(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_no_bundle_is_written_when_the_graph_computes_something_else(
    checkpoint, earlier, monkeypatch
):
    def wrong_fold(model):
        folded = fold(model)
        folded.blocks[1].mlp.output.layer.weight.mul_(1.01)
        return folded

    monkeypatch.setattr(answers, "fold", wrong_fold)
    out, before = earlier
    code, said = invoke(
        "--checkpoint", checkpoint, "--out", out, "--precisions", "fp32", "--overwrite"
    )
    assert code == 1
    assert "No bundle was written" in said
    assert re.search(r"difference of a logit, at scale 100: \d.*, at most 0\.001 \(exam \d+", said)
    assert bytes_below(out) == before


def test_no_bundle_is_written_when_half_precision_alone_is_wrong(checkpoint, tmp_path, monkeypatch):
    from export import graphs

    def wrong_half(encoder, *, float32_blocks):
        made = half(encoder, float32_blocks=float32_blocks)
        made.blocks[0].mlp.output.layer.weight.mul_(1.2)
        return made

    monkeypatch.setattr(graphs, "half", wrong_half)
    code, said = invoke(
        "--checkpoint", checkpoint, "--out", tmp_path / "bundle", "--precisions", "fp32,fp16"
    )
    assert code == 1
    assert re.search(r"onnxruntime \S+ CPUExecutionProvider, fp16: difference of a logit", said)
    assert "fp32: difference" not in said
    assert list(tmp_path.iterdir()) == []


# What goes in


def test_golden_exams_from_an_npz_or_from_folders_of_dicom_files(checkpoint, tmp_path):
    loaded = load_checkpoint(checkpoint)
    given = structured_exams(*SIZE, count=3, seed=5)
    np.savez(tmp_path / "given.npz", views=given)
    found = golden_views(loaded, PREPROCESSING, tmp_path / "given.npz", seed=0)
    assert np.array_equal(found, given)
    for name in ("exam_1", "exam_2"):
        write_exam(tmp_path / "exams" / name, PLAIN)
    found = golden_views(loaded, PREPROCESSING, tmp_path / "exams", seed=0)
    assert found.shape == (2, 4, 1, *SIZE)
    assert np.array_equal(found[0], found[1])
    assert 0.2 < found.max() <= 1
    single = golden_views(loaded, PREPROCESSING, tmp_path / "exams" / "exam_1", seed=0)
    assert np.array_equal(single, found[:1])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 4, 1, 32, 48), np.float32),
        np.zeros((1, 4, 1, *SIZE), np.float64),
        np.full((1, 4, 1, *SIZE), 1.5, np.float32),
        np.full((1, 4, 1, *SIZE), np.nan, np.float32),
        np.zeros((0, 4, 1, *SIZE), np.float32),
    ],
    ids=["size", "dtype", "range", "nan", "empty"],
)
def test_golden_exams_that_are_no_model_inputs_are_refused(checkpoint, tmp_path, wrong):
    np.savez(tmp_path / "wrong.npz", views=wrong)
    with pytest.raises(ExportError, match=r"expected float32 \(N, 4, 1, 48, 32\), 0 to 1"):
        golden_views(load_checkpoint(checkpoint), PREPROCESSING, tmp_path / "wrong.npz", seed=0)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no zip", b"\x93NUMPY", "unnamed"])
def test_golden_exams_from_a_file_that_is_none_are_refused(checkpoint, tmp_path, content):
    path = tmp_path / "wrong.npz"
    if content == "unnamed":
        np.savez(path, images=np.zeros(1))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError) as caught:
        golden_views(load_checkpoint(checkpoint), PREPROCESSING, path, seed=0)
    assert caught.value.subject == str(path)


def test_a_checkpoint_without_golden_exams_gets_made_ones(tmp_path):
    loaded = load_checkpoint(write_checkpoint(tmp_path / "checkpoint"))
    found = golden_views(loaded, PREPROCESSING, None, seed=8)
    assert np.array_equal(found, structured_exams(*SIZE, count=4, seed=8))
    assert not np.array_equal(found, structured_exams(*SIZE, count=4, seed=9))


def test_made_exams_have_air_tissue_and_extremes():
    exams = structured_exams(64, 32, count=3, seed=1)
    assert exams.dtype == np.float32
    assert (exams.min(), exams.max()) == (0, 1)
    breast = exams[0, 0, 0]
    assert 0.2 < (breast == 0).mean() < 0.9
    assert breast[breast > 0].std() > 0.02
    assert set(np.unique(exams[-1])) == {0, 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"preprocessing": None, "model_card": None}, "no preprocessing; no model_card;"),
        ({"findings": (), "provenance": None}, "no provenance; no findings;"),
        ({"findings": FINDINGS[:1] * 2}, "2 findings named 'malignancy';"),
        (
            {"preprocessing": replace(PREPROCESSING, width=64)},
            "views of (48, 64) pixels for a model that takes (48, 32) (height, width);",
        ),
    ],
)
def test_a_checkpoint_that_no_bundle_can_be_made_of_is_refused(tmp_path, changes, reason):
    folder = write_checkpoint(tmp_path / "checkpoint", **changes)
    code, said = invoke("--checkpoint", folder, "--out", tmp_path / "bundle")
    assert code == 2
    assert reason in said
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_damaged_checkpoint_is_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    code, said = invoke("--checkpoint", folder, "--out", tmp_path / "bundle")
    assert code == 2
    assert f"No bundle was written: {weights}: found" in said
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        build_engine.main(ExportConfig(checkpoint=tmp_path, out=tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def test_another_base_model_than_the_one_that_is_expected_is_refused(checkpoint, tmp_path):
    own = load_checkpoint(checkpoint).record.base_sha256
    config = ExportConfig(checkpoint=checkpoint, out=tmp_path / "bundle", base_sha256="0" * 64)
    with pytest.raises(ExportError) as caught:
        build_engine.main(config)
    assert own in caught.value.found
    assert "0" * 64 in caught.value.expected
    record = load_checkpoint(checkpoint).record
    answers.check_complete(
        record, load_checkpoint(checkpoint).model.config, replace(config, base_sha256=own)
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--precisions", "fp16,int8"), "found precisions without fp32;"),
        (("--precisions", "fp32,fp8"), "found precisions fp8;"),
        (("--parity-exams", 63), "found 63 parity exams;"),
        (("--engine", "cudnn"), "found engines of cudnn;"),
        (("--base-sha256", "ABC"), "found base_sha256 'ABC';"),
        (("--release", -1, "--seed", -1), "found seed -1; release -1;"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_read(tmp_path, options, reason):
    code, said = invoke("--checkpoint", tmp_path, "--out", tmp_path / "bundle", *options)
    assert code == 2
    assert reason in said
    assert list(tmp_path.iterdir()) == []


# A checkpoint of random weights


def random_checkpoint_at(folder, seed):
    command = typer.Typer()
    command.command()(random_checkpoint.main)
    options = ["--model", "phantom-clip", "--height", 64, "--width", 32, "--seed", seed]
    result = CliRunner().invoke(command, [*map(str, options), "--out", str(folder)])
    assert result.exit_code == 0, result.output
    return load_checkpoint(folder)


@torch.no_grad()
def test_a_random_checkpoint_is_complete_honest_and_follows_from_its_seed(tmp_path):
    first, again, other = (
        random_checkpoint_at(tmp_path / name, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert bytes_below(tmp_path / "a") == bytes_below(tmp_path / "b")
    assert first.record.base_sha256 == again.record.base_sha256 != other.record.base_sha256
    answers.check_complete(
        first.record,
        first.model.config,
        ExportConfig(checkpoint=tmp_path / "a", out=tmp_path / "bundle"),
    )
    assert all(finding.calibration is None for finding in first.record.findings)
    assert "drawn at random from seed 3" in first.record.model_card.training_data
    assert "never trained" in first.record.model_card.limitations[0]
    for name, tensor in first.model.named_parameters():
        if "_adapter." in name or name == "image.view_embedding":
            assert tensor.std() > 0.01, name
    exams = torch.from_numpy(structured_exams(64, 32, count=3, seed=1))
    embedding = first.model.encode_exam(exams)
    cosines = embedding @ embedding.T
    assert (cosines[~torch.eye(3, dtype=bool)] < 0.9999).all()


def test_a_random_checkpoint_of_an_unknown_model_is_refused(tmp_path):
    command = typer.Typer()
    command.command()(random_checkpoint.main)
    result = CliRunner().invoke(command, ["--model", "ViT-Z", "--out", str(tmp_path / "c")])
    assert result.exit_code == 2
    assert "No checkpoint was written: open_clip model 'ViT-Z'" in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


# Where it goes


@pytest.fixture
def quick(exported, monkeypatch):
    """An export whose long stages were done before: what is left is what it writes."""
    result, config, _ = exported
    made = read_bundle(config.out)
    files = {name: made.files[name] for name in result.files}
    monkeypatch.setattr(build_engine, "ask", lambda *_: (SimpleNamespace(findings=()), None))
    monkeypatch.setattr(build_engine, "calibration_exams", lambda *_: np.zeros(1))
    for stage in ("reference_graph", "with_half", "with_int8"):
        monkeypatch.setattr(build_engine, stage, lambda *_: None)
    monkeypatch.setattr(
        build_engine, "certified", lambda *_: (result.certificate, made.manifest, files)
    )
    return config


@contextmanager
def no_file_beyond(size):
    """The kernel refuses to make any file of this process longer, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_earlier_bundle(quick, earlier):
    out, before = earlier
    config = replace(quick, out=out, overwrite=True)
    with no_file_beyond(30_000), pytest.raises(BundleError, match="a disk that refused"):
        build_engine.main(config)
    assert bytes_below(out) == before
    build_engine.main(config)
    assert bytes_below(out) == before


def test_a_taken_or_unwritable_place_is_refused_before_the_long_work(
    checkpoint, tmp_path, monkeypatch
):
    def place(out, **keys):
        config = ExportConfig(checkpoint=tmp_path / "not even looked at", out=out, **keys)
        with pytest.raises(ExportError) as caught:
            build_engine.main(config)
        return caught.value.found

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("mine")
    assert place(tmp_path / "notes") == "something already at this path"
    assert place(tmp_path / "notes", overwrite=True) == "something that is not a bundle"
    assert place(tmp_path / "notes" / "text" / "bundle").startswith("a folder that cannot be")
    refused = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda **_: (_ for _ in ()).throw(refused))
    assert place(tmp_path / "a" / "b") == (
        f"a folder that cannot be written to ({tmp_path}: Permission denied)"
    )
    assert (tmp_path / "notes" / "text").read_text() == "mine"


# Signature and engines


def test_a_bundle_can_be_signed_and_a_key_that_is_none_is_said_first(quick, tmp_path):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    def written(key, name):
        path = tmp_path / name
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path

    out = tmp_path / "bundle"
    for key in (
        tmp_path / "absent.pem",
        written(ec.generate_private_key(ec.SECP256R1()), "other.pem"),
    ):
        with pytest.raises(BundleSignatureError):
            build_engine.main(
                replace(quick, checkpoint=tmp_path / "not even looked at", out=out, sign=key)
            )
    private = ed25519.Ed25519PrivateKey.generate()
    build_engine.main(replace(quick, out=out, sign=written(private, "key.pem")))
    assert (out / "manifest.sig").is_file()
    assert read_bundle(out).signature is not None
    assert "key.pem" not in (out / "manifest.json").read_text()


def test_an_engine_is_built_from_the_written_bundle_and_says_that_it_was_not_run(
    quick, tmp_path, capsys
):
    pytest.importorskip("tensorrt_rtx")
    config = replace(
        quick,
        out=tmp_path / "bundle",
        engines=("tensorrt_rtx",),
        engine_folder=tmp_path / "engines",
    )
    stages = Stages(Console(width=400))
    (engine,) = build_engine.main(config, stages).engines
    fp16 = read_bundle(tmp_path / "bundle").manifest.graphs[1]
    assert engine.sidecar.graph_sha256 == fp16.sha256
    assert (engine.sidecar.flavour, engine.sidecar.precision) == ("tensorrt_rtx", "fp16")
    assert Path(engine.path).stat().st_size == engine.sidecar.plan_bytes > 10_000
    assert stages.ended[-1].name == "engine tensorrt_rtx"
    if engine.sidecar.gpu is None:
        assert engine.sidecar.parity.startswith("not run")
        assert "parity: not run" in capsys.readouterr().out


def test_a_disk_too_full_for_an_engine_leaves_the_bundle_and_no_engine(exported, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path / "engines"
    config = replace(exported[1], engines=("tensorrt_rtx",), engine_folder=folder)
    before = bytes_below(config.out)
    with no_file_beyond(10_000), pytest.raises(EngineError):
        build_engines(config, quiet())
    assert bytes_below(config.out) == before
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_an_engine_of_a_flavour_that_is_not_installed_is_refused_first(tmp_path):
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        code, said = invoke(
            "--checkpoint", tmp_path, "--out", tmp_path / "bundle", "--engine", "tensorrt"
        )
        assert code == 2
        assert "No bundle was written: " in said
        assert list(tmp_path.iterdir()) == []
    else:
        pytest.skip("full TensorRT is installed")
