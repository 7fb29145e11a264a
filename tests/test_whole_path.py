"""The whole path once, in small: phantoms, training, export, bundle, and a score by the command."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from rich.console import Console

from export import build_engine
from export.build_engine import ExportConfig
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.exam import VIEWS
from training.adapters import AdapterConfig
from training.demo_model import DEMO, make_demo_model
from training.phantom import PhantomSettings, make_exam
from training.phantom_files import write_exam
from training.pretrain import PretrainStage
from training.saved_model import load_checkpoint

SIZE = (48, 32)
ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def small(folder):
    """The demo's settings, each number as small as it can be."""
    path = folder / "tiny.json"
    path.write_text(json.dumps(ARCHITECTURE))
    adapter = AdapterConfig(
        rank=4, activation="gelu", placement="both", connection="serial", scale=1.0
    )
    return replace(
        DEMO,
        seed=11,
        model=replace(
            DEMO.model,
            open_clip_model=str(path),
            image_size=SIZE,
            n_local=1,
            image_adapter=adapter,
            text_adapter=adapter,
        ),
        preprocessing=replace(DEMO.preprocessing, height=SIZE[0], width=SIZE[1]),
        pretraining=replace(
            DEMO.pretraining,
            stages=(PretrainStage(contrast=(0.5, 0.9), exams=8, epochs=1),),
            batch_size=16,
        ),
        training=replace(DEMO.training, epochs=1, batch_size=4),
        training_exams=8,
        calibration_exams=12,
        test_exams=12,
        golden_exams=2,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The settings, the checkpoint's folder and the bundle's."""
    folder = tmp_path_factory.mktemp("whole")
    settings = small(folder)
    make_demo_model(settings, folder / "made", Console(quiet=True))
    checkpoint, bundle = folder / "made" / "checkpoint", folder / "bundle"
    # Hardly trained, its calibration is so steep that bf16 and int8 move probabilities too far.
    config = ExportConfig(
        checkpoint=checkpoint, out=bundle, name="small", precisions=("fp32", "fp16")
    )
    build_engine.main(config)
    return settings, checkpoint, bundle


def test_the_bundle_says_what_it_was_made_from(made):
    settings, checkpoint, bundle = made
    manifest = read_bundle(bundle).manifest
    checksum = (checkpoint / "config.sha256").read_text()
    assert checksum == f"{manifest.source.checkpoint_sha256}  config.json\n"
    report = manifest.source.training_report
    assert report["settings"]["seed"] == manifest.source.seed == 11
    saved = json.loads(json.dumps(asdict(settings)))
    for key in ("pretraining", "training", "preprocessing", "contrast", "test_exams"):
        assert report["settings"][key] == saved[key]
    assert manifest.preprocessing == settings.preprocessing
    assert len(manifest.source.git_commit.removesuffix("-dirty")) == 40
    assert manifest.source.command.startswith("python -m training.demo_model --out ")
    assert 0 < report["report"]["trained_share"] < 1
    assert {loss["stage"] for loss in report["report"]["losses"]} >= {"stage 1"}
    auc = next(item for item in manifest.measurements if item.name == "AUC")
    assert auc.exams == 12
    assert auc.value.method == "delong"
    (finding,) = manifest.findings
    assert finding.calibration is not None
    assert [point.name for point in finding.operating_points] == [
        "sensitivity 90 %",
        "specificity 90 %",
    ]
    assert manifest.golden.count == 2
    assert load_checkpoint(checkpoint).model.config.image_size == SIZE


def test_the_command_scores_a_written_phantom_with_it(made, tmp_path):
    bundle = made[2]
    exam = make_exam(PhantomSettings(seed=12, rows=256, columns=208), 0)
    write_exam(exam, tmp_path)
    command = ["predict", str(tmp_path / exam.name), "--bundle", str(bundle), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "mammoclip_sdk", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["status"] == "scored"
    assert answer["provenance"]["bundle"] == "small"
    assert [record["view"] for record in answer["views"]] == [view.value for view in VIEWS]
    (finding,) = answer["findings"]
    assert finding["name"] == "malignancy"
    assert finding["calibrated"]
    assert np.isfinite(finding["logit"])
    assert 0 < finding["probability"] < 1
