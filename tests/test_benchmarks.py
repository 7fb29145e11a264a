"""Reports of figures: nothing is typed in by hand, and documents say what the records say."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import HEIGHT, WIDTH, tiny_files, tiny_graph, tiny_manifest, tiny_weights

from benchmarks import export, latency, machine
from benchmarks.figures import FIGURES, README, accuracy_text, chief_figures, write_region
from benchmarks.latency import compare, time_in_turn
from benchmarks.latency_report import Case, LatencySettings, Report, Timing, to_markdown
from benchmarks.machine import describe_machine
from mammoclip_sdk.bundle import read_bundle, write_bundle
from mammoclip_sdk.predictor import DEMO_BUNDLE
from training.model import MammoClip, ModelConfig


def region(name, path=FIGURES):
    text = path.read_text(encoding="utf-8")
    return text.split(f"<!-- begin: {name} -->")[1].split(f"<!-- end: {name} -->")[0].strip()


def test_documents_repeat_the_shipped_bundles_own_figures():
    manifest = read_bundle(DEMO_BUNDLE).manifest
    assert region("demo-model") == accuracy_text(manifest).strip()
    assert region("figures", README) == chief_figures(manifest).strip()


@pytest.mark.parametrize("name", ["latency", "quantization", "reading"])
def test_the_page_of_figures_repeats_the_last_report(name):
    report = README.parent / "benchmarks" / "results" / f"{name}.md"
    assert region(name) == report.read_text().partition("\n\n")[2].strip()


def test_the_page_of_figures_repeats_what_was_measured_of_exports():
    assert region("export") == export.tables(export.RESULTS).strip() != ""


def test_contenders_are_timed_in_turn_after_a_warm_up():
    order = []
    times = time_in_turn(
        [lambda: order.append("a"), lambda: order.append("b")], rounds=4, what="test"
    )
    assert order == ["a", "b"] * 7
    assert times.shape == (2, 4)
    assert (times > 0).all()


SKIPPED = {"cuda in fp32": "no driver", "cuda in fp16": "no driver.", "openvino in bf16": "none"}


def test_the_report_shows_times_ratio_difference_hardware_and_bundle():
    here = describe_machine()
    timing = Timing(
        contender="fast runtime",
        median_ms=2.5,
        p95_ms=3.25,
        speedup=4.0,
        worst_difference=1.5e-4,
        quantity="logit",
    )
    case = Case(
        model="m",
        bundle_sha256="abcdef" * 8,
        weights="w",
        rounds=7,
        threads=3,
        timings=(timing,),
        skipped=SKIPPED,
    )
    report = Report(
        command="python benchmarks/latency.py --rounds 7",
        settings=LatencySettings(rounds=7, threads=3),
        machine=here,
        cases=(case,),
        stages_ms={"read": 1.5},
    )
    text = to_markdown(report)
    assert "| fast runtime | 2.5 | 3.2 | 4.00 | 1.5e-04 of a logit |" in text
    assert here.processor in text
    assert "`python benchmarks/latency.py --rounds 7`" in text
    assert "7 rounds; 3 threads for each contender" in text
    assert "Not measured: cuda in fp32, cuda in fp16: no driver; openvino in bf16: none." in text
    assert "against the answers of PyTorch in float32 that the exporter stored" in text
    assert f"numpy {np.__version__}" in text
    assert "abcdefabcdef" in text
    assert "read 1.5" in text
    saved = json.loads(json.dumps(asdict(report)))
    assert saved["settings"] == {"rounds": 7, "vit_rounds": 20, "threads": 3}
    assert saved["cases"][0]["skipped"] == SKIPPED
    assert saved["machine"]["gpus"] == list(here.gpus)


TINY = {
    "embed_dim": 8,
    "vision_cfg": {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


@pytest.fixture
def tiny_model():
    config = ModelConfig(
        open_clip_model="tiny.json",
        pretrained=None,
        image_size=(HEIGHT, WIDTH),
        n_local=1,
        image_adapter=None,
        text_adapter=None,
    )
    return MammoClip(config, architecture=TINY).eval()


@pytest.mark.parametrize("shift", [0.0, 0.01])
def test_a_comparison_times_the_reference_and_says_how_far_each_graph_is_from_it(
    tiny_model, tmp_path, monkeypatch, shift
):
    files = tiny_files() | {"model.fp32.onnx": tiny_graph(tiny_weights() + np.float32(shift))}
    write_bundle(tmp_path / "bundle", tiny_manifest(files), files)
    bundle = read_bundle(tmp_path / "bundle")
    measured = []

    def clock(contenders, *, rounds, what):
        measured.extend(np.asarray(contender()) for contender in contenders)
        return np.array([[8.0, 10.0, 12.0]] + [[4.0, 5.0, 14.0]] * (len(contenders) - 1))

    monkeypatch.setattr(latency, "time_in_turn", clock)
    case = compare(tiny_model, bundle, name="tiny", weights="random", rounds=3, threads=1)
    reference, *others = case.timings
    (session,) = (one for one in others if one.contender.endswith("CPUExecutionProvider, fp32"))
    assert [embedding.shape for embedding in measured[:2]] == [(1, 8), (1, 6)]
    assert {timing.contender.split()[0] for timing in others} <= {"onnxruntime", "openvino"}
    assert torch.get_num_threads() == case.threads == 1
    assert reference.contender.startswith("PyTorch ")
    assert (reference.median_ms, reference.speedup) == (10.0, 1.0)
    assert reference.worst_difference is None
    assert (session.median_ms, session.speedup) == (5.0, 2.0)
    assert session.p95_ms == pytest.approx(13.1)
    assert (session.worst_difference > 1e-3) == (shift > 0)
    assert session.worst_difference < 1
    assert case.bundle_sha256 == bundle.sha256
    assert set(case.skipped) >= {"tensorrt in fp32", "cuda in fp32"}
    assert not any("in int8" in one for one in case.skipped)  # the bundle has no such graph
    assert all(case.skipped.values())


def test_a_command_names_no_folder_of_the_machine():
    typed = machine.command_line("benchmarks/x.py", ["--bundle", "/home/me/ViT B", "--rounds", "3"])
    assert typed == "python benchmarks/x.py --bundle 'ViT B' --rounds 3"


def test_gpus_are_named_with_their_driver_or_there_are_none(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert describe_machine().gpus == ()
    assert "no NVIDIA GPU" in describe_machine().line()

    def ask(command, **keys):
        assert command[0] == "nvidia-smi"
        return subprocess.CompletedProcess(command, code, "NVIDIA RTX A2000, 570.1\n", "")

    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine.subprocess, "run", ask)
    code = 0
    assert describe_machine().gpus == ("NVIDIA RTX A2000 (driver 570.1)",)
    assert "NVIDIA RTX A2000 (driver 570.1)" in describe_machine().line()
    code = 9
    assert describe_machine().gpus == ()


def test_the_script_runs_from_any_folder_by_its_path(tmp_path):
    script = README.parent / "benchmarks" / "latency.py"
    done = subprocess.run(
        [sys.executable, script, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--vit-rounds" in done.stdout


def test_a_region_that_is_not_there_is_an_error_and_the_file_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- begin: a -->\nold\n<!-- end: a -->\n")
    write_region(page, "a", "new")
    assert page.read_text() == "<!-- begin: a -->\nnew\n<!-- end: a -->\n"
    with pytest.raises(ValueError, match="no single region 'b'"):
        write_region(page, "b", "new")
    assert "new" in page.read_text()
