"""ONNX Runtime reports nothing: its import leaves no identity behind and starts nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from mammoclip_sdk.sessions import ort

PREDICT = """
from mammoclip_sdk.predictor import DEMO_EXAM, Predictor
import time
with Predictor(device="cpu") as predictor:
    assert predictor.predict(DEMO_EXAM).status == "scored"
    time.sleep(0.5)
"""


def test_a_prediction_leaves_nothing_in_the_home(tmp_path: Path) -> None:
    """Left alone, an import of onnxruntime writes a device's id and a queue of events there."""
    asked = {key: os.environ[key] for key in os.environ if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", PREDICT],
        env={**asked, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "CI": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == []


def test_the_variable_is_set_by_the_time_of_the_import_and_events_are_off_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str | None] = []
    runtime = types.SimpleNamespace(disable_telemetry_events=lambda: seen.append("off"))

    def imported(name: str) -> object:
        seen.append(os.environ.get("ORT_DISABLE_TELEMETRY"))
        return runtime

    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setattr(ort.importlib, "import_module", imported)
    assert ort.load() is runtime
    assert seen == ["1", "off"]
