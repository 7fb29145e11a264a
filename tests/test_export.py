"""A checkpoint becomes a bundle that computes the same, or no bundle at all."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import typer
from exams import PLAIN, write_exam
from typer.testing import CliRunner

from export import build_engine, verify
from export.build_engine import ExportConfig
from export.fold import fold
from export.golden import golden_views, structured_exams
from export.verify import ParityError
from mammoclip_sdk.bundle import (
    PREPROCESSING_VERSION,
    Calibration,
    Interval,
    Measurement,
    Preprocessing,
    read_bundle,
)
from mammoclip_sdk.exam import Acceptance, Device
from mammoclip_sdk.golden import read_golden, run_golden
from mammoclip_sdk.sessions import open_session
from training.adapters import AdapterConfig
from training.checkpoint import Provenance, TrainedFinding
from training.model import MammoClip, ModelConfig, load_checkpoint, save_checkpoint

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
COMPLETE = {
    "settings": {"epochs": 2},
    "report": {"loss": 0.5},
    "provenance": Provenance(git_commit="0" * 40, seed=3, command="make model"),
    "preprocessing": PREPROCESSING,
    "acceptance": ACCEPTANCE,
    "findings": FINDINGS,
    "measurements": (MEASUREMENT,),
    "intended_use": "Tests.",
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    golden = torch.from_numpy(structured_exams(*SIZE, count=2, seed=7))
    folder = tmp_path_factory.mktemp("made") / "checkpoint"
    return write_checkpoint(folder, golden_views=golden)


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    config = ExportConfig(checkpoint=checkpoint, out=out, name="test", version="1.2", release=3)
    return read_after(config)


def read_after(config):
    parity = build_engine.main(config)
    return parity, read_bundle(config.out)


def run(*arguments, cwd=ROOT):
    """Run the exporter as a user does."""
    script = ROOT / "export" / "build_engine.py"
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_manifest_says_what_the_checkpoint_says(made, checkpoint):
    manifest = made[1].manifest
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
        "out": "bundle",
        "exams": None,
        "name": "test",
        "version": "1.2",
        "release": 3,
        "not_for_clinical_use": True,
        "overwrite": False,
    }
    graph = manifest.graphs[0]
    assert (graph.precision, graph.opset) == ("fp32", 20)
    assert [(t.name, t.shape, t.dtype) for t in graph.inputs] == [
        ("views", ("batch", 4, 1, *SIZE), "float32")
    ]
    assert [(t.name, t.shape, t.dtype) for t in graph.outputs] == [
        ("embedding", ("batch", 24), "float32")
    ]
    for finding, trained in zip(manifest.findings, FINDINGS, strict=True):
        assert finding.calibration == trained.calibration
        assert finding.logit_scale == pytest.approx(1 / 0.07)
        tokens = model.tokenize([trained.negative_prompt, trained.positive_prompt])
        with torch.no_grad():
            expected = model.encode_text(tokens).numpy()
        found = np.array([finding.negative_embedding, finding.positive_embedding], np.float32)
        assert np.array_equal(found, expected)


def test_the_graph_computes_what_the_training_model_computes(made, checkpoint):
    model = load_checkpoint(checkpoint).model
    session = onnxruntime.InferenceSession(
        made[1].files["model.fp32.onnx"], providers=["CPUExecutionProvider"]
    )
    exams = structured_exams(*SIZE, count=5, seed=11)
    (found,) = session.run(None, {"views": exams})
    with torch.no_grad():
        expected = model.encode_exam(torch.from_numpy(exams)).numpy()
    assert found.shape == (5, 24)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


@torch.no_grad()
def test_the_golden_exams_are_the_checkpoints_with_the_models_answers(made, checkpoint):
    loaded, bundle = load_checkpoint(checkpoint), made[1]
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
    assert (result.exams, result.tolerance) == (2, 1e-3)
    assert result.worst_difference <= 1e-4


def test_the_graph_is_one_plain_file_without_traces_of_where_it_was_made(made):
    data = made[1].files["model.fp32.onnx"]
    model = onnx.load_from_string(data)
    assert {entry.domain for entry in model.opset_import} == {""}
    operators = {node.op_type for node in model.graph.node}
    assert {"Conv", "MatMul", "Softmax", "LayerNormalization", "Gelu"} <= operators
    assert not {"Shape", "If", "Loop", "Gather", "Dropout", "Identity", "Expand"} & operators
    assert len(model.graph.node) <= 110
    assert not any(init.external_data for init in model.graph.initializer)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(i for i in model.graph.initializer if i.name == conv.input[1])
    assert list(weight.dims) == [32, 1, 16, 16]
    for trace in (b".py", b"stack_trace", b"/somewhere", str(ROOT).encode(), b"torch"):
        assert trace not in data
    assert b"/somewhere" not in json.dumps(dict(made[1].manifest.source.training_report)).encode()


def test_the_command_makes_the_same_bytes_again_wherever_it_runs(made, checkpoint, tmp_path):
    done = run("--checkpoint", checkpoint, "--out", "bundle", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "6 exams verified on onnxruntime" in " ".join(done.stdout.split())
    again = read_bundle(tmp_path / "bundle")
    assert again.files == made[1].files
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_the_report_gives_the_worst_difference(made):
    parity = made[0]
    assert 0 < parity.worst <= 1e-3
    assert parity.exams == 6  # two of the checkpoint, four made
    assert "batch" in parity.where


# The gate


@pytest.mark.parametrize("damage", [1.01, float("nan")])
def test_no_bundle_is_written_when_the_graph_computes_something_else(
    checkpoint, tmp_path, monkeypatch, damage
):
    def wrong_fold(model):
        folded = fold(model)
        folded.blocks[1].mlp.output.layer.weight.mul_(damage)
        return folded

    monkeypatch.setattr(build_engine, "fold", wrong_fold)
    arguments = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "bundle")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    message = " ".join(result.stderr.split())
    assert "No bundle was written" in message
    if damage == 1.01:
        assert re.search(r"a logit differs by .* exam \d, prompt \d: .*-?\d+\.\d+ and", message)
    else:
        assert "NaN" in message
    assert list(tmp_path.iterdir()) == []


@dataclass
class Drifting:
    """A session that answers correctly for single exams, and a little off in a batch."""

    session: object
    runtime: str = "drifting"

    def run(self, tensors):
        embedding = self.session.run(tensors)
        return embedding + np.float32(1e-3 * (len(embedding) > 1))

    def close(self):
        self.session.close()


def test_a_runtime_whose_answer_depends_on_the_batch_is_refused(made, checkpoint, monkeypatch):
    monkeypatch.setattr(verify, "open_session", lambda *args: Drifting(open_session(*args)))
    views = structured_exams(*SIZE, count=4, seed=3)
    with pytest.raises(ParityError, match="drifting, batch"):
        verify.verify(load_checkpoint(checkpoint).model, made[1], views)


def test_a_model_that_answers_nan_itself_is_refused(made, checkpoint):
    model = load_checkpoint(checkpoint).model
    with torch.no_grad():
        model.image.proj[0, 0] = float("nan")
    with pytest.raises(ParityError, match="the training model itself"):
        verify.verify(model, made[1], structured_exams(*SIZE, count=1, seed=3))


# What goes in


def test_a_checkpoint_without_what_a_bundle_needs_is_refused(tmp_path):
    folder = write_checkpoint(
        tmp_path / "checkpoint", preprocessing=None, acceptance=None, findings=(), provenance=None
    )
    result = CliRunner().invoke(
        app, ["--checkpoint", str(folder), "--out", str(tmp_path / "bundle")]
    )
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    assert "has no provenance, preprocessing, acceptance, findings" in message
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(FileNotFoundError, match="is no checkpoint"):
        build_engine.main(ExportConfig(checkpoint=tmp_path, out=tmp_path / "bundle"))


def test_preprocessing_for_another_size_than_the_models_is_refused(tmp_path):
    folder = write_checkpoint(
        tmp_path / "checkpoint", preprocessing=replace(PREPROCESSING, width=64)
    )
    with pytest.raises(ValueError, match=r"\(48, 64\) pixels .* the model takes \(48, 32\)"):
        build_engine.main(ExportConfig(checkpoint=folder, out=tmp_path / "bundle"))


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
    with pytest.raises(ValueError, match=r"expected float32 \(N, 4, 1, 48, 32\), 0 to 1"):
        golden_views(load_checkpoint(checkpoint), PREPROCESSING, tmp_path / "wrong.npz", seed=0)


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


def test_an_earlier_bundle_is_replaced_only_when_asked(checkpoint, tmp_path):
    config = ExportConfig(checkpoint=checkpoint, out=tmp_path / "bundle")
    build_engine.main(config)
    before = (config.out / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError, match="ask for overwrite"):
        build_engine.main(replace(config, checkpoint=tmp_path / "not even looked at"))
    assert (config.out / "manifest.json").read_bytes() == before
    build_engine.main(replace(config, overwrite=True, release=2))
    assert read_bundle(tmp_path / "bundle").manifest.release == 2
