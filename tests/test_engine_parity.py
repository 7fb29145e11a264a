"""An engine becomes active by the golden exams alone, for one GPU and driver."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from conftest import tiny_embedding
from fake_engines import FULL, RTX, build, installed, opened
from fake_tensorrt import FakeCuda, FakeTensorRT
from typer.testing import CliRunner

from mammoclip_sdk import engines, golden
from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.commands.engine import app as engine_app
from mammoclip_sdk.engines import cache
from mammoclip_sdk.errors import EngineError, InferenceError
from mammoclip_sdk.golden import require_golden
from mammoclip_sdk.predictor import Predictor
from mammoclip_sdk.sessions import CheckedSession, open_session, trt


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture(params=[RTX, FULL], ids=lambda param: param[0])
def flavour(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda
) -> FakeTensorRT:
    """Each flavour in turn, installed on a machine with a GPU."""
    return installed(monkeypatch, request.param, cuda)


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeTensorRT:
    return installed(monkeypatch, RTX, cuda)


def figures(engine: engines.Engine) -> Any:
    return json.loads(engine.sidecar_path.read_text())


def test_an_engine_is_active_once_the_golden_exams_agreed_on_this_gpu_and_driver(
    bundle: Bundle, flavour: FakeTensorRT, cuda: FakeCuda, tmp_path: Path
) -> None:
    engine = build(bundle, flavour, tmp_path)
    assert engine.sidecar.parity == "not run (runs at first load)"
    assert not trt.available(bundle, "fp32", tmp_path)
    session = CheckedSession(opened(bundle, tmp_path), bundle)
    result = require_golden(bundle, session)
    assert trt.available(bundle, "fp32", tmp_path)
    written = figures(engine)
    assert written["parity"] == "passed"
    assert written["golden"] == [
        {
            "gpu": {"name": "NVIDIA RTX A2000", "compute_capability": "8.6", "driver": "580.95.05"},
            "exams": 2,
            "worst_difference": result.worst_difference,
            "tolerance": 1e-4,
        }
    ]
    cuda.driver = "590.10"
    assert not trt.available(bundle, "fp32", tmp_path)


def test_an_engine_that_failed_the_golden_exams_is_never_active(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build(bundle, flavour, tmp_path)
    monkeypatch.setattr(fake_tensorrt, "tiny_embedding", lambda views: -tiny_embedding(views))
    with pytest.raises(InferenceError) as caught:
        require_golden(bundle, CheckedSession(opened(bundle, tmp_path), bundle))
    assert caught.value.code == "golden_mismatch"
    written = figures(engine)
    assert written["parity"] == "failed"
    assert written["golden"][0]["worst_difference"] > 1
    assert not trt.available(bundle, "fp32", tmp_path)


def test_an_engine_that_answers_with_nan_is_active_no_longer(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    engine = build(bundle, flavour, tmp_path)
    session = CheckedSession(opened(bundle, tmp_path), bundle)
    require_golden(bundle, session)
    assert trt.available(bundle, "fp32", tmp_path)
    flavour.writes = False
    with pytest.raises(InferenceError, match="NaN or infinity"):
        require_golden(bundle, session)
    assert not trt.available(bundle, "fp32", tmp_path)
    written = figures(engine)
    assert (written["parity"], written["golden"][0]["worst_difference"]) == ("failed", None)
    done = CliRunner().invoke(engine_app, ["list", "--engines", str(tmp_path)])
    assert "2 golden exams, an answer that is no embedding" in done.stdout


def test_proven_engines_go_before_newer_ones_and_failed_ones_come_last(
    bundle: Bundle, rtx: FakeTensorRT, cuda: FakeCuda, tmp_path: Path
) -> None:
    engine = build(bundle, rtx, tmp_path)
    session = opened(bundle, tmp_path)
    newer = replace(engine.sidecar, level=5, built="2999-01-01T00:00:00Z")
    new = cache.store(tmp_path, newer, b"new")
    assert engines.find(bundle, "fp32", tmp_path).plan == new.plan
    require_golden(bundle, CheckedSession(session, bundle))
    assert engines.find(bundle, "fp32", tmp_path).plan == engine.plan
    trt.record_parity(session, exams=2, worst_difference=1.0, tolerance=0.1)
    assert engines.find(bundle, "fp32", tmp_path).plan == new.plan


def test_auto_takes_an_engine_once_it_is_proven_and_not_before(
    bundle: Bundle,
    flavour: FakeTensorRT,
    cuda: FakeCuda,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAMMOCLIP_ENGINES", str(tmp_path / "engines"))
    engines.build(bundle, flavour=flavour.__name__, precision="fp32")
    assert open_session(bundle, "auto").device == "cpu"
    with Predictor(bundle, "tensorrt") as predictor:
        assert predictor.provenance.runtime == f"{flavour.__name__} {flavour.__version__}"
    assert open_session(bundle, "auto").device == "tensorrt"
    cuda.driver = "590.10"
    assert open_session(bundle, "auto").device == "cpu"
    if flavour.rtx:  # fits every driver, and is to be proven with each
        assert open_session(bundle, "tensorrt").device == "tensorrt"
    else:
        with pytest.raises(EngineError, match=r"here is 590\.10"):
            open_session(bundle, "tensorrt")
    assert flavour.builds == 1


def test_the_command_proves_the_engine_that_it_built(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["build", bundle.path, "--flavour", flavour.__name__, "--engines", str(tmp_path)]
    done = CliRunner().invoke(engine_app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (answer["usable"], answer["active"]) == (True, True)
    assert answer["sidecar"]["parity"] == "passed"
    monkeypatch.setattr(fake_tensorrt, "tiny_embedding", lambda views: -tiny_embedding(views))
    done = CliRunner().invoke(engine_app, words)
    assert done.exit_code == 2
    assert "golden exams whose logits differ" in done.stderr
    done = CliRunner().invoke(engine_app, ["list", "--engines", str(tmp_path)])
    assert "parity: failed" in done.stdout
    assert "not active: the golden exams failed on this GPU and driver" in done.stdout


def test_parity_that_cannot_be_written_is_a_warning_and_the_session_runs(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.warns(RuntimeWarning, match="Read-only file system"):
        require_golden(bundle, CheckedSession(session, bundle))
    assert not trt.available(bundle, "fp32", tmp_path)


def test_a_session_without_an_engine_has_nothing_to_record(
    bundle: Bundle, fake_session: Any
) -> None:
    trt.record_parity(fake_session, exams=1, worst_difference=0.0, tolerance=1.0)
    assert golden.run_golden(bundle, fake_session).passed
