"""Building engines by TensorRT for RTX in earnest, without a GPU; and running them on one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import onnx
import pytest
from conftest import HEIGHT, SIZE, WIDTH, tiny_graph
from fake_tensorrt import FakeCuda
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from sidecars import A2000
from tensorrt_here import GPU, RTX, needs_rtx, no_gpu
from tiny_graphs import many_bundle

from mammoclip_sdk import engines
from mammoclip_sdk.bundle import Bundle, Graph, Tensor, sha256
from mammoclip_sdk.engines import flavour as flavours
from mammoclip_sdk.engines.sidecar import Parity
from mammoclip_sdk.errors import (
    BundleFormatError,
    DeviceError,
    EngineError,
    InferenceError,
    RuntimeNotInstalledError,
)
from mammoclip_sdk.golden import require_golden
from mammoclip_sdk.parity import certify
from mammoclip_sdk.sessions import CheckedSession, trt


def with_graph(bundle: Bundle, data: bytes, precision: str = "fp32", **changes: Any) -> Bundle:
    """The bundle, in memory, with one graph of its own."""
    (graph,) = bundle.manifest.graphs
    graph = replace(graph, sha256=sha256(data), precision=precision, **changes)
    manifest = replace(bundle.manifest, graphs=(graph,))
    return replace(bundle, manifest=manifest, files={**bundle.files, graph.file: data})


def attention_graph() -> bytes:
    """Float32, with the operator Attention of opset 23: rows of every view attend to each other."""
    heads = 4
    size = WIDTH * heads
    rng = np.random.default_rng(5)
    constants = {
        "rows": np.array([-1, 4 * HEIGHT, WIDTH], np.int64),
        **{n: rng.normal(size=(WIDTH, size)).astype(np.float32) for n in ("wq", "wk", "wv")},
        "out": rng.normal(size=(size, SIZE)).astype(np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["views", "rows"], ["tokens"]),
        *[helper.make_node("MatMul", ["tokens", f"w{n}"], [n]) for n in "qkv"],
        helper.make_node(
            "Attention", ["q", "k", "v"], ["attended"], q_num_heads=heads, kv_num_heads=heads
        ),
        helper.make_node("ReduceMean", ["attended", "axes"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "out"], ["product"]),
        helper.make_node("LpNormalization", ["product"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("views", TensorProto.FLOAT, ["B", 4, 1, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", SIZE])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 23)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


@needs_rtx
def test_rtx_builds_the_tiny_graph_and_the_sidecar_says_of_what(
    bundle: Bundle, tmp_path: Path
) -> None:
    engine = engines.build(
        bundle, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path, max_batch=8, level=2
    )
    written = json.loads(engine.sidecar_path.read_text())
    plan = engine.plan.read_bytes()
    assert written["graph_sha256"] == sha256(bundle.files["model.fp32.onnx"])
    assert (written["plan_sha256"], written["plan_bytes"]) == (sha256(plan), len(plan))
    assert len(plan) > 10_000
    assert (written["flavour"], written["version"]) == ("tensorrt_rtx", RTX.version)
    assert written["flags"][:2] == ["strongly typed", "TF32 off"]
    assert (written["level"], written["target"]) == (2, "any")
    (profile,) = written["profiles"]
    assert profile["minimum"][0] == profile["optimum"][0] == 1
    assert profile["maximum"] == [8, 4, 1, HEIGHT, WIDTH]
    assert any("Engine generation completed" in line for line in written["build_log"])
    if GPU is None:
        assert (written["gpu"], written["parity"]) == (None, "not run (no GPU)")


@needs_rtx
def test_the_plan_is_pure_and_begins_as_rtx_made_it(bundle: Bundle, tmp_path: Path) -> None:
    engine = engines.build(bundle, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path)
    runtime = RTX.module.Runtime(RTX.logger)
    start = RTX.log.position
    runtime.deserialize_cuda_engine(engine.plan.read_bytes())
    said = " ".join(RTX.log.since(start))
    assert "Serialization" not in said, said
    runtime.deserialize_cuda_engine(b"magicTag" + engine.plan.read_bytes())
    assert "Serialization assertion" in " ".join(RTX.log.since(start))


@needs_rtx
@pytest.mark.parametrize("target", ["sm86", "sm120"])
def test_rtx_builds_for_a_gpu_that_is_not_here(bundle: Bundle, tmp_path: Path, target: str) -> None:
    engine = engines.build(
        bundle, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path, target=target
    )
    assert engine.sidecar.target == target


@needs_rtx
def test_a_build_that_fails_says_so_in_rtxs_own_words_and_leaves_nothing(
    bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"Turing \(SM75\): FP32 GEMM is not supported"):
        engines.build(
            bundle, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path, target="sm75"
        )
    assert [*tmp_path.glob("*.*")] == []


@needs_rtx
def test_float32_attention_builds_because_it_is_decomposed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = with_graph(bundle, attention_graph(), opset=23)
    engine = engines.build(graph, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path)
    assert "float32 attention decomposed: 1" in engine.sidecar.flags
    monkeypatch.setattr("mammoclip_sdk.engines.builder._decompose_float32_attention", lambda *_: 0)
    with pytest.raises(EngineError, match="is_decomposable"):
        engines.build(graph, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path, level=2)


@needs_rtx
@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", BundleFormatError, "inputs"),
        (tiny_graph()[:-1000], InferenceError, "no ONNX model"),
        (tiny_graph().replace(b"AveragePool", b"AveragePoll"), EngineError, "AveragePoll"),
    ],
    ids=["nothing", "half", "unknown operator"],
)
def test_a_graph_that_does_not_parse_is_an_error(
    bundle: Bundle, tmp_path: Path, data: bytes, kind: type[DeviceError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        engines.build(
            with_graph(bundle, data), flavour="tensorrt_rtx", precision="fp32", engines=tmp_path
        )
    assert [*tmp_path.glob("*.*")] == []


@needs_rtx
@pytest.mark.parametrize(
    "inputs",
    [
        (Tensor(name="image", shape=("B", 4, 1, HEIGHT, WIDTH), dtype="float32"),),
        (Tensor(name="views", shape=("B", 4, 1, WIDTH, HEIGHT), dtype="float32"),),
        (Tensor(name="views", shape=("B", 4, 1, HEIGHT, WIDTH), dtype="float16"),),
        (Tensor(name="views", shape=(1, 4, 1, HEIGHT, WIDTH), dtype="float32"),),
    ],
    ids=["name", "shape", "type", "fixed"],
)
def test_inputs_that_are_not_the_manifests_are_refused(
    bundle: Bundle, tmp_path: Path, inputs: tuple[Tensor, ...]
) -> None:
    other = with_graph(bundle, tiny_graph(), inputs=inputs)
    with pytest.raises(BundleFormatError, match="inputs"):
        engines.build(other, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path)


@needs_rtx
def test_weights_in_another_file_are_refused_though_the_parser_would_take_them(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load_from_string(tiny_graph())
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
    (tmp_path / "weights.bin").write_bytes(weights.raw_data)
    set_external_data(weights, "weights.bin")
    weights.ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    network = RTX.module.Builder(RTX.logger).create_network(1)
    parser = RTX.module.OnnxParser(network, RTX.logger)
    assert parser.parse(model.SerializeToString())
    outside = with_graph(bundle, model.SerializeToString())
    with pytest.raises(InferenceError, match="weights lie in another file"):
        engines.build(outside, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path)


@needs_rtx
@no_gpu
def test_a_real_plan_without_a_gpu_is_refused_in_rtxs_own_words(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.build(bundle, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda())
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", fake_tensorrt.FakeNvml(FakeCuda()))
    with pytest.raises(EngineError, match=r"does not run it here .*CUDA driver version is insuf"):
        trt.open_session(bundle, precision="fp32", engines=tmp_path)


@needs_rtx
@no_gpu
def test_the_command_builds_and_says_what_is_missing_to_use_it(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    words = ["engine", "build", tiny_bundle, "--flavour", "tensorrt_rtx", "--engines", tmp_path]
    words = [sys.executable, "-m", "mammoclip_sdk", *map(str, words)]
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert (answer["usable"], answer["active"]) == (False, False)
    assert answer["misfits"] == ["no GPU that works here"]
    assert answer["sidecar"]["precision"] == "fp32"  # the only graph there is
    assert answer["sidecar"]["parity"] == "not run (no GPU)"
    assert Path(answer["path"]).with_name(answer["sidecar"]["plan_file"]).exists()
    done = subprocess.run([*words, "--precision", "fp16"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "found graphs in fp32" in done.stderr


@needs_rtx
@pytest.mark.slow
def test_rtx_builds_a_vit_b_16_in_half_on_the_cpu(bundle: Bundle, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from export.fold import fold
    from export.precision import half
    from export.random_checkpoint import random_model
    from export.to_onnx import describe, to_onnx
    from training.adapters import AdapterConfig
    from training.model import ModelConfig

    architecture = tmp_path / "ViT-B-16.json"
    architecture.write_text(json.dumps(vit_b_16()))
    adapter = AdapterConfig(
        rank=None, activation="gelu", placement="both", connection="serial", scale=1.0
    )
    config = ModelConfig(
        open_clip_model=str(architecture),
        pretrained=None,
        image_size=(224, 224),
        n_local=6,
        image_adapter=adapter,
        text_adapter=None,
    )
    with torch.no_grad():
        data = to_onnx(half(fold(random_model(config, seed=1))), "fp16")
    assert len(data) > 170e6
    graph: Graph = describe(data, file="model.fp16.onnx", precision="fp16")
    golden = replace(bundle.manifest.golden, tolerance={"fp16": 1.0})
    manifest = replace(bundle.manifest, graphs=(graph,), golden=golden)
    vit = replace(bundle, manifest=manifest, files={graph.file: data})
    engine = engines.build(vit, flavour="tensorrt_rtx", precision="fp16", engines=tmp_path)
    assert engine.sidecar.graph_sha256 == sha256(data)
    assert 170e6 < engine.plan.stat().st_size < 220e6
    assert engine.sidecar.profiles[0].maximum == (32, 4, 1, 224, 224)


def vit_b_16() -> dict[str, Any]:
    """open_clip's image encoder, with a text encoder of no size."""
    return {
        "embed_dim": 512,
        "vision_cfg": {"layers": 12, "width": 768, "patch_size": 16},
        "text_cfg": {
            "context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("worst", "passed"), [(0.05, True), (0.0, True), (0.051, False), (-0.01, False), (None, False)]
)
def test_golden_exams_pass_from_no_difference_to_the_tolerance(
    worst: float | None, *, passed: bool
) -> None:
    assert Parity(gpu=A2000, exams=2, worst_difference=worst, tolerance=0.05).passed == passed


@pytest.mark.gpu
@pytest.mark.skipif(GPU is None, reason="no NVIDIA GPU that works here")
@pytest.mark.parametrize("name", flavours.FLAVOURS)
@pytest.mark.parametrize("target", [None, "current"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_on_a_gpu_agrees_with_golden_and_parity_exams_and_becomes_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: str | None, precision: str
) -> None:
    try:
        flavours.load(name)
    except RuntimeNotInstalledError as error:
        pytest.skip(error.found)
    bundle = many_bundle()
    monkeypatch.setenv("MAMMOCLIP_ENGINES", str(tmp_path))
    engines.build(bundle, flavour=name, precision=precision, target=target)
    assert not trt.available(bundle, precision)
    for _ in range(2):  # the second time from kept kernels
        session = CheckedSession(trt.open_session(bundle, precision=precision), bundle)
        assert require_golden(bundle, session).passed
        session.close()
    assert trt.available(bundle, precision)
    made = certify(bundle, "tensorrt", precision)
    assert [(one.device, one.precision) for one in made.comparisons] == [("tensorrt", precision)]
    assert made.failures == ()
