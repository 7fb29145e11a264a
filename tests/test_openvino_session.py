"""OpenVINO: what was asked for is computed, from bytes, alone, and nothing is sent or kept."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import altered, tiny_embedding, tiny_golden, tiny_graph
from onnx.external_data_helper import set_external_data
from tiny_graphs import int8_embedding, many_bundle

from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.errors import (
    BundleFormatError,
    DeviceError,
    InferenceError,
    RuntimeNotInstalledError,
)
from mammoclip_sdk.golden import require_golden
from mammoclip_sdk.sessions import open_session
from mammoclip_sdk.sessions.openvino import load

try:
    openvino = load()
except RuntimeNotInstalledError:
    pytest.skip("openvino is not installed", allow_module_level=True)
VIEWS = tiny_golden()["views"]
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("batch", [1, 3])
def test_float32_is_what_numpy_computes(batch: int) -> None:
    session = open_session(many_bundle(), "openvino", threads=1)
    views = np.random.default_rng(0).random((batch, *VIEWS.shape[1:]), dtype=np.float32)
    np.testing.assert_allclose(session.run({"views": views}), tiny_embedding(views), atol=1e-6)
    assert (session.device, session.precision) == ("openvino", "fp32")
    assert session.runtime == f"openvino {openvino.__version__.split('-')[0]} CPU"


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16")
def test_bfloat16_rounds_the_float32_graph_and_says_so() -> None:
    bundle = many_bundle(fp32=tiny_graph())
    session = open_session(bundle, "openvino", precision="bf16", threads=1)
    away = np.abs(session.run({"views": VIEWS}) - tiny_embedding(VIEWS)).max()
    assert 1e-5 < away < 1e-2
    assert session.precision == "bf16"
    assert require_golden(bundle, session).precision == "bf16"


def test_int8_computes_the_quantised_graph() -> None:
    session = open_session(many_bundle(), "openvino", precision="int8", threads=1)
    found = session.run({"views": VIEWS})
    np.testing.assert_allclose(found, int8_embedding(VIEWS), atol=2e-3)
    assert np.abs(found - int8_embedding(VIEWS)).max() < np.abs(found - tiny_embedding(VIEWS)).max()
    assert session.precision == "int8"


class Core:
    """OpenVINO's, of a CPU with other abilities, or one that computes in something else."""

    capabilities: Any = None
    settings: list[dict[str, Any]] = []  # noqa: RUF012  # a test replaces it
    computes_in: str | None = None

    def __init__(self) -> None:
        self._real = openvino._pyopenvino.Core()

    def get_property(self, device: str, name: str) -> Any:
        return self.capabilities or self._real.get_property(device, name)

    def read_model(self, data: bytes) -> Any:
        return self._real.read_model(data)

    def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
        self.settings.append(settings)
        if self.computes_in:
            settings = {**settings, "INFERENCE_PRECISION_HINT": self.computes_in}
        return openvino.CompiledModel(self._real.compile_model(model, device, settings))


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> type[Core]:
    class Own(Core):
        settings: list[dict[str, Any]] = []  # noqa: RUF012

    monkeypatch.setattr(openvino, "Core", Own)
    return Own


def test_a_cpu_without_bfloat16_says_what_it_has(core: type[Core]) -> None:
    core.capabilities = ["FP32", "INT8", "BIN"]
    with pytest.raises(DeviceError, match=r"found a CPU that runs fp32, int8; .* has BF16"):
        open_session(many_bundle(), "openvino", precision="bf16")


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bfloat16")
def test_another_precision_than_the_one_asked_for_is_an_error(core: type[Core]) -> None:
    core.computes_in = "bf16"
    with pytest.raises(DeviceError, match="computes in bf16; expected f32"):
        open_session(many_bundle(), "openvino", precision="fp32")


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_settings_reach_the_runtime(core: type[Core], threads: int | None) -> None:
    open_session(many_bundle(), "openvino", threads=threads)
    (settings,) = core.settings
    assert settings["INFERENCE_PRECISION_HINT"] == "f32"
    assert settings["EXECUTION_MODE_HINT"] == "ACCURACY"
    assert settings["CACHE_DIR"] == ""
    assert settings.get("INFERENCE_NUM_THREADS") == threads


def test_bytes_are_compiled_and_the_path_is_never_opened(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    (tiny_bundle / "model.fp32.onnx").write_bytes(b"replaced after the hash was checked")
    embedding = open_session(bundle, "openvino").run({"views": VIEWS})
    np.testing.assert_allclose(embedding, tiny_embedding(VIEWS), atol=1e-6)


def test_weights_in_the_current_folder_are_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load_from_string(tiny_graph())
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
    (tmp_path / "weights.bin").write_bytes(weights.raw_data)
    set_external_data(weights, "weights.bin", offset=0, length=len(weights.raw_data))
    weights.ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    data = model.SerializeToString()
    openvino.Core().read_model(data)  # the runtime itself takes them
    with pytest.raises(InferenceError, match="External data"):
        open_session(many_bundle(fp32=data), "openvino")


@pytest.mark.parametrize("data", [b"", b"not a graph", tiny_graph()[:-200]])
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    with pytest.raises(InferenceError, match="does not load"):
        open_session(many_bundle(fp32=data), "openvino")


def test_a_graph_must_have_the_inputs_and_outputs_of_its_manifest(tiny_bundle: Path) -> None:
    graph = read_bundle(tiny_bundle).manifest.graphs[0]
    shape = graph.inputs[0].shape
    for changed in (
        replace(graph, inputs=(replace(graph.inputs[0], name="image"),)),
        replace(graph, inputs=(replace(graph.inputs[0], shape=(1, *shape[1:])),)),
        replace(graph, outputs=(replace(graph.outputs[0], dtype="float16"),)),
    ):
        with pytest.raises(BundleFormatError, match=r"model\.fp32\.onnx"):
            open_session(altered(tiny_bundle, graphs=(changed,)), "openvino")


def test_inputs_are_neither_converted_nor_cropped() -> None:
    session = open_session(many_bundle(), "openvino")
    for views in (VIEWS[:, :3], VIEWS[0], VIEWS.astype(np.float64)):
        with pytest.raises(InferenceError, match="found inputs"):
            session.run({"views": views})


def test_a_session_may_be_shared_by_threads() -> None:
    session = open_session(many_bundle(), "openvino", threads=1)
    exams = [np.roll(VIEWS, shift, axis=-1) for shift in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda views: session.run({"views": views}), exams))
    for views, embedding in zip(exams, answers, strict=True):
        np.testing.assert_allclose(embedding, tiny_embedding(views), atol=1e-6)


def test_an_answer_is_not_overwritten_by_the_next_run() -> None:
    session = open_session(many_bundle(), "openvino", threads=1)
    first = session.run({"views": VIEWS})
    kept = first.copy()
    session.run({"views": VIEWS[::-1].copy()})
    np.testing.assert_array_equal(first, kept)


def test_a_closed_session_says_so() -> None:
    session = open_session(many_bundle(), "openvino")
    session.close()
    with pytest.raises(InferenceError, match="closed session"):
        session.run({"views": VIEWS})


def test_without_openvino_the_error_is_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeNotInstalledError, match="no openvino that loads") as caught:
        open_session(many_bundle(), "openvino")
    assert 'pip install "mammoclip-sdk[openvino]"' in caught.value.remedy


OFFLINE = """
import socket, sys, threading
from pathlib import Path

def refuse(*_): raise AssertionError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse

from conftest import tiny_golden
from tiny_graphs import many_bundle
from mammoclip_sdk.sessions import open_session

open_session(many_bundle(), "openvino").run({"views": tiny_golden()["views"]})
assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
assert not any(name.startswith("openvino_telemetry") for name in sys.modules)
assert sys.modules["openvino.tools.ovc"].telemetry.__module__.endswith("telemetry_stub")
assert list(Path.home().iterdir()) == []
"""


def test_the_import_reports_nothing_and_leaves_nothing_in_the_home(tmp_path: Path) -> None:
    """Left alone it starts a thread, writes an identity and sends an event, without asking."""
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        cwd=Path(__file__).parent,
        env={**os.environ, "HOME": str(tmp_path), "CI": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
