"""CUDA, and what auto takes: nothing that was asked for is replaced in silence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
from conftest import FakeSession, tiny_graph
from tiny_graphs import many_bundle

from mammoclip_sdk.bundle import Bundle, read_bundle
from mammoclip_sdk.errors import DeviceError, InferenceError, RuntimeNotInstalledError
from mammoclip_sdk.sessions import open_session, trt

NO_CUDA = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


@pytest.mark.skipif(not NO_CUDA, reason="this onnxruntime has CUDA")
def test_auto_says_what_it_chose_and_cuda_is_never_replaced(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert open_session(bundle, "auto").device == "cpu"
    with pytest.raises(RuntimeNotInstalledError, match="without CUDAExecutionProvider") as caught:
        open_session(bundle, "cuda")
    assert 'pip install "mammoclip-sdk[cuda]"' in caught.value.remedy


def pretend_cuda(
    monkeypatch: pytest.MonkeyPatch, *, works: bool, leaves: frozenset[str] = frozenset()
) -> list[Any]:
    """An onnxruntime that offers CUDA and, as the real one does, may quietly use the CPU.

    It may do so for single operators alone, those that it ``leaves``.
    """
    asked: list[Any] = []
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, model: bytes, options: Any, providers: list[Any], **others: Any) -> None:
            asked.append(providers)
            self.claims = providers[0][0] if works else "CPUExecutionProvider"
            super().__init__(model, options, providers=["CPUExecutionProvider"], **others)

        def get_providers(self) -> list[str]:
            return [self.claims, "CPUExecutionProvider"]

        def get_provider_graph_assignment_info(self) -> list[Any]:
            return [
                SimpleNamespace(ep_name=cpu if node.op_type in leaves else cuda, get_nodes=nodes)
                for part in super().get_provider_graph_assignment_info()
                for node in part.get_nodes()
                for nodes in [lambda node=node: [node]]
            ]

    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return asked


def test_a_silent_fallback_from_cuda_is_an_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, works=False)
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(RuntimeNotInstalledError, match="took CPUExecutionProvider instead") as e:
        open_session(bundle, "cuda")
    assert 'pip install "onnxruntime-gpu[cuda,cudnn]"' in e.value.remedy
    words = r"'cuda' does not open, and auto goes on without it: .* took CPUExecutionProvider"
    with pytest.warns(RuntimeWarning, match=words):
        assert open_session(bundle, "auto").device == "cpu"


@pytest.mark.parametrize(
    ("failure", "kind", "code", "found"),
    [
        (
            "CUDA failure 35: CUDA driver version is insufficient ; GPU=-1 ; hostname=station-7",
            DeviceError,
            "no_gpu",
            r"no GPU that works \(CUDA failure 35: CUDA driver version is insufficient\)",
        ),
        ("CUDA failure 2: out of memory ; GPU=0", InferenceError, "inference", "out of memory"),
        ("no kernel for Attention", InferenceError, "inference", "no kernel for Attention"),
    ],
)
def test_a_session_that_cannot_be_made_says_so_and_prints_nothing(
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: str,
    kind: type[DeviceError],
    code: str,
    found: str,
) -> None:
    create = onnxruntime.InferenceSession._create_inference_session

    def fail_on_cuda(self: Any, providers: Any, *others: Any) -> None:
        if providers[0][0] == "CUDAExecutionProvider":
            raise RuntimeError(failure)
        create(self, providers, *others)

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", fail_on_cuda)
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(kind, match=found) as caught:
        open_session(bundle, "cuda")
    assert caught.value.code == code
    assert "station-7" not in str(caught.value)
    with pytest.warns(RuntimeWarning, match=found):
        assert open_session(bundle, "auto").device == "cpu"
    assert capsys.readouterr().out == ""


def test_shapes_may_be_computed_on_the_cpu(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, works=True, leaves=frozenset({"Shape", "Reshape", "Flatten"}))
    assert open_session(read_bundle(tiny_bundle), "cuda").device == "cuda"


def test_an_operator_that_cuda_leaves_to_the_cpu_is_an_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(tiny_bundle)
    pretend_cuda(monkeypatch, works=True, leaves=frozenset({"Gemm"}))
    with pytest.raises(DeviceError, match="CUDAExecutionProvider leaves Gemm to the CPU"):
        open_session(bundle, "cuda")
    assert open_session(bundle, "cpu").device == "cpu"


def test_cuda_runs_alone_and_without_tf32(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = pretend_cuda(monkeypatch, works=True)
    assert open_session(read_bundle(tiny_bundle), "auto").device == "cuda"
    assert asked == [[("CUDAExecutionProvider", {"use_tf32": "0"})]]


def test_nvidia_libraries_are_loaded_before_a_cuda_session_and_quietly(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = pretend_cuda(monkeypatch, works=False)
    loaded: list[int] = []

    def preload() -> None:
        loaded.append(len(asked))
        print("Failed to load libcudnn.so.9: no such file")  # noqa: T201  as ONNX Runtime does
        print("Please follow the manual.")  # noqa: T201

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    bundle = read_bundle(tiny_bundle)
    open_session(bundle, "cpu")
    assert loaded == []
    missing = r"instead \(Failed to load libcudnn\.so\.9: no such file\)"
    with pytest.raises(RuntimeNotInstalledError, match=missing):
        open_session(bundle, "cuda")
    assert loaded == [1]  # after the CPU's session, before CUDA's
    assert capsys.readouterr().out == ""

    monkeypatch.delattr(onnxruntime, "preload_dlls")  # an older one
    with pytest.raises(RuntimeNotInstalledError, match="instead; expected CUDA"):
        open_session(bundle, "cuda")


def test_cuda_takes_float16_where_the_bundle_has_it_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_cuda(monkeypatch, works=True)
    for device in ("auto", "cuda"):
        assert open_session(many_bundle(), device).precision == "fp16"
        assert open_session(many_bundle(), device, precision="fp32").precision == "fp32"
        assert open_session(many_bundle(fp32=tiny_graph()), device).precision == "fp32"
    assert open_session(many_bundle(), "auto", precision="int8").device == "cpu"


def test_auto_takes_an_active_engine_first_and_never_builds_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_cuda(monkeypatch, works=True)
    opened: list[str] = []

    def open_engine(bundle: Bundle, *, precision: str) -> FakeSession:
        opened.append(precision)
        return FakeSession(device="tensorrt", precision=precision)

    monkeypatch.setattr(trt, "open_session", open_engine)
    monkeypatch.setattr(trt, "available", lambda bundle, precision: precision == "fp16")
    assert open_session(many_bundle(), "auto").device == "tensorrt"
    assert open_session(many_bundle(), "auto", precision="fp32").device == "cuda"
    assert open_session(many_bundle(), "auto", precision="int8").device == "cpu"
    assert opened == ["fp16"]

    monkeypatch.setattr(trt, "available", lambda bundle, precision: False)
    assert open_session(many_bundle(), "auto").device == "cuda"
    assert opened == ["fp16"]
    assert open_session(many_bundle(), "tensorrt").device == "tensorrt"  # asked for by name
