"""Sessions: the device that was asked for runs, from bytes, and its answer is checked."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import FEATURES, FakeSession, altered, as_npz, tiny_embedding, tiny_golden, tiny_graph
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from tiny_graphs import half_graph, int8_embedding, int8_graph, many_bundle

from mammoclip_sdk import golden
from mammoclip_sdk.bundle import Bundle, Tensor, read_bundle
from mammoclip_sdk.bundle.graphs import require_whole
from mammoclip_sdk.errors import (
    BundleFormatError,
    DeviceError,
    InferenceError,
    RuntimeConflictError,
    RuntimeNotInstalledError,
)
from mammoclip_sdk.golden import require_golden, run_golden
from mammoclip_sdk.sessions import CheckedSession, open_session, ort, trt

VIEWS = tiny_golden()["views"]
NO_CUDA = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


def with_graph(path: Path, graph: bytes) -> Bundle:
    """The bundle with another graph under the same manifest, as no reader would let it pass."""
    bundle = read_bundle(path)
    return replace(bundle, files={**bundle.files, "model.fp32.onnx": graph})


def with_files(path: Path, **files: bytes) -> Bundle:
    bundle = read_bundle(path)
    return replace(bundle, files={**bundle.files, **files})


@pytest.mark.parametrize("batch", [1, 3])
def test_the_cpu_computes_what_numpy_computes(tiny_bundle: Path, batch: int) -> None:
    session = open_session(read_bundle(tiny_bundle), "cpu", threads=1)
    views = np.random.default_rng(0).random((batch, *VIEWS.shape[1:]), dtype=np.float32)
    np.testing.assert_allclose(session.run({"views": views}), tiny_embedding(views), atol=1e-6)
    assert (session.device, session.precision) == ("cpu", "fp32")
    assert session.runtime == f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider"


def test_bytes_are_loaded_and_the_path_is_never_opened_again(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    (tiny_bundle / "model.fp32.onnx").write_bytes(b"replaced after the hash was checked")
    embedding = open_session(bundle, "cpu").run({"views": VIEWS})
    np.testing.assert_allclose(embedding, tiny_embedding(VIEWS), atol=1e-6)


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


def test_a_graph_is_never_run_again_on_another_provider(tiny_bundle: Path) -> None:
    session: Any = open_session(read_bundle(tiny_bundle), "cpu")
    while not isinstance(session, onnxruntime.InferenceSession):
        session = session._session
    assert session._enable_fallback is False


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_reach_the_runtime(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None
) -> None:
    given: list[Any] = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, model: bytes, options: Any, **others: Any) -> None:
            given.append((options.intra_op_num_threads, options.inter_op_num_threads))
            super().__init__(model, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    open_session(read_bundle(tiny_bundle), "cpu", threads=threads)
    assert given == [(threads or 0, 1)]  # 0: the runtime chooses


@pytest.mark.parametrize("device", ["gpu", "CPU", "", "cuda:0"])
def test_an_unknown_device_lists_the_known_ones(tiny_bundle: Path, device: str) -> None:
    with pytest.raises(DeviceError, match="one of auto, tensorrt, cuda, openvino, cpu"):
        open_session(read_bundle(tiny_bundle), device)


@pytest.mark.parametrize("precision", ["float32", "FP16", "", "fp8"])
def test_an_unknown_precision_lists_the_known_ones(precision: str) -> None:
    with pytest.raises(DeviceError, match="one of fp32, fp16, bf16, int8"):
        open_session(many_bundle(), "cpu", precision=precision)


@pytest.mark.parametrize(
    ("device", "precision", "runs", "able"),
    [
        ("cpu", "bf16", "fp32, fp16, int8", "openvino"),
        ("auto", "bf16", "fp32, fp16, int8", "openvino"),
        ("openvino", "fp16", "fp32, bf16, int8", "tensorrt, cuda, cpu"),
        ("cuda", "int8", "fp16, fp32", "openvino, cpu"),
        ("tensorrt", "int8", "fp16, fp32", "openvino, cpu"),
    ],
)
def test_a_precision_a_device_does_not_run_names_what_does(
    device: str, precision: str, runs: str, able: str
) -> None:
    found = f"found a device that runs {runs}; expected one that runs {precision}: {able}"
    with pytest.raises(DeviceError, match=found):
        open_session(many_bundle(), device, precision=precision)


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_a_precision_the_bundle_lacks_names_what_it_has(device: str) -> None:
    bundle = many_bundle(fp32=tiny_graph(), fp16=half_graph())
    with pytest.raises(DeviceError, match="found graphs in fp32, fp16; expected one in int8"):
        open_session(bundle, device, precision="int8")


@pytest.mark.parametrize("device", ["cpu", "auto", "openvino"])
def test_no_other_precision_stands_in_for_float32(device: str) -> None:
    """Float16 or eight bits, unasked, would be another model on the CPU."""
    with pytest.raises(DeviceError, match="found graphs in fp16, int8; expected one in fp32"):
        open_session(many_bundle(fp16=half_graph(), int8=int8_graph()), device)


@pytest.mark.parametrize(
    ("precision", "expected", "most"),
    [
        (None, tiny_embedding, 1e-6),
        ("fp32", tiny_embedding, 1e-6),
        ("fp16", tiny_embedding, 2e-3),
        ("int8", int8_embedding, 2e-3),
    ],
)
def test_the_cpu_runs_the_graph_of_the_precision(
    precision: str | None, expected: Callable[..., np.ndarray], most: float
) -> None:
    session = open_session(many_bundle(), "cpu", precision=precision, threads=1)
    away = np.abs(session.run({"views": VIEWS}) - expected(VIEWS)).max()
    assert away < most
    assert session.precision == precision or precision is None
    if precision == "fp16":
        assert away > 1e-6  # it is not the float32 graph


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


def test_threads_are_counted_from_one(tiny_bundle: Path) -> None:
    with pytest.raises(DeviceError, match="1 or more"):
        open_session(read_bundle(tiny_bundle), "cpu", threads=0)


def pretend_installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def version(name: str) -> str:
        if name in names:
            return "1.32.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(ort.importlib.metadata, "version", version)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_two_packages_of_one_module_are_a_conflict(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    pretend_installed(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(RuntimeConflictError) as caught:
        open_session(read_bundle(tiny_bundle), device)
    assert caught.value.remedy.startswith(
        "pip uninstall onnxruntime, then pip install --force-reinstall --no-deps onnxruntime-gpu"
    )


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_without_a_runtime_the_error_is_the_install_line(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    pretend_installed(monkeypatch)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeNotInstalledError, match="no inference runtime") as caught:
        open_session(read_bundle(tiny_bundle), device)
    assert 'pip install "mammoclip-sdk[cpu]"' in caught.value.remedy


def test_bytes_that_are_no_graph_are_refused(tiny_bundle: Path) -> None:
    for graph in (b"", b"not a graph", tiny_graph()[:-200]):
        with pytest.raises(InferenceError, match="does not load"):
            open_session(with_graph(tiny_bundle, graph), "auto")


def test_weights_outside_the_hashed_bytes_are_not_loaded(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load_from_string(tiny_graph())
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
    (tmp_path / "weights.bin").write_bytes(weights.raw_data)
    set_external_data(weights, "weights.bin", offset=0, length=len(weights.raw_data))
    weights.ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InferenceError, match="External data: its weights lie in another file"):
        open_session(with_graph(tiny_bundle, model.SerializeToString()), "cpu")


def outside() -> onnx.TensorProto:
    """A tensor whose values lie in a file."""
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "weights")
    set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    return tensor


def in_a_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_a_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    branch = helper.make_graph([], "b", [], [], [tensor])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_a_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "F", [], ["c"], [node], opset)
    return helper.make_model(helper.make_graph([], "g", [], []), functions=[function])


def in_sparse_values(tensor: onnx.TensorProto) -> onnx.ModelProto:
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(tensor, indices, [1])
    graph = helper.make_graph([], "g", [], [], sparse_initializer=[sparse])
    return helper.make_model(graph)


@pytest.mark.parametrize("place", [in_a_constant, in_a_branch, in_a_function, in_sparse_values])
def test_weights_outside_are_found_wherever_a_tensor_may_lie(
    tiny_bundle: Path, place: Callable[[onnx.TensorProto], onnx.ModelProto]
) -> None:
    inside = helper.make_tensor("weights", TensorProto.FLOAT, [1], [1.0])
    graph = read_bundle(tiny_bundle).manifest.graphs[0]
    whole = place(inside).SerializeToString()
    assert require_whole(with_graph(tiny_bundle, whole), graph) == whole
    with pytest.raises(InferenceError, match="External data"):
        require_whole(with_graph(tiny_bundle, place(outside()).SerializeToString()), graph)


def test_a_graph_that_is_cut_off_or_bottomless_is_refused_and_not_followed(
    tiny_bundle: Path,
) -> None:
    graph = read_bundle(tiny_bundle).manifest.graphs[0]
    deep = helper.make_graph([], "g", [], [])
    for _ in range(25):
        deep = helper.make_graph([helper.make_node("If", ["x"], [], then_branch=deep)], "g", [], [])
    for data, found in (
        (tiny_graph()[:-200], "bytes too late"),
        (b"\xff" * 12, "a number without end"),
        (b"\x3b", "wire type 3"),
        (b"\x38\x01", "field 7 is no message"),
        (helper.make_model(deep).SerializeToString(), "more than 64 deep"),
    ):
        with pytest.raises(InferenceError, match=found):
            require_whole(with_graph(tiny_bundle, data), graph)


def test_a_graph_must_have_the_inputs_and_outputs_of_its_manifest(tiny_bundle: Path) -> None:
    graph = read_bundle(tiny_bundle).manifest.graphs[0]
    shape = graph.inputs[0].shape
    for changed in (
        replace(graph, inputs=(replace(graph.inputs[0], name="image"),)),
        replace(graph, inputs=(replace(graph.inputs[0], shape=(*shape[:-1], 25)),)),
        replace(graph, inputs=(replace(graph.inputs[0], shape=(1, *shape[1:])),)),
        replace(graph, inputs=(*graph.inputs, Tensor(name="x", shape=(1,), dtype="float32"))),
        replace(graph, outputs=(replace(graph.outputs[0], dtype="float16"),)),
    ):
        with pytest.raises(BundleFormatError, match=r"model\.fp32\.onnx"):
            open_session(altered(tiny_bundle, graphs=(changed,)), "cpu")


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"image": VIEWS},
        {"views": VIEWS, "more": VIEWS},
        {"views": VIEWS[:, :3]},
        {"views": VIEWS[0]},
        {"views": VIEWS.astype(np.float64)},
    ],
    ids=["none", "name", "extra", "three views", "no batch", "dtype"],
)
def test_inputs_that_do_not_fit_are_refused_by_name(
    tiny_bundle: Path, tensors: dict[str, Any]
) -> None:
    session = open_session(read_bundle(tiny_bundle), "cpu")
    with pytest.raises(InferenceError, match="found inputs"):
        session.run(tensors)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda e: e[:, :-1], r"float32 \(2, 5\)"),
        (lambda e: e[:1], r"float32 \(1, 6\)"),
        (lambda e: e[:0], r"float32 \(0, 6\)"),
        (lambda e: e.astype(np.float16), "float16"),
    ],
    ids=["width", "batch", "empty", "dtype"],
)
def test_an_answer_without_a_row_for_each_exam_is_not_passed_on(
    tiny_bundle: Path, answer: Callable[[Any], Any], found: str
) -> None:
    session = CheckedSession(
        FakeSession(lambda views: answer(tiny_embedding(views))), read_bundle(tiny_bundle)
    )
    with pytest.raises(InferenceError, match=found) as caught:
        session.run({"views": VIEWS})
    assert caught.value.subject == f"{tiny_bundle} on fake 1.0 NumPy"


def test_every_session_that_opens_is_checked(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(bundle: Bundle, device: str, **_: Any) -> FakeSession:
        return FakeSession(lambda views: tiny_embedding(views)[:0], device=device)

    monkeypatch.setattr(ort, "open_session", wrong)
    for device in ("auto", "cpu", "cuda"):
        session = open_session(read_bundle(tiny_bundle), device)
        with pytest.raises(InferenceError, match=r"float32 \(0, 6\)"):
            session.run({"views": VIEWS})


@pytest.mark.parametrize(
    ("factor", "found"), [(2, "length is 1 away"), (np.nan, "NaN or infinity"), (0, "1 away")]
)
def test_golden_exams_whose_embedding_is_none_are_refused(
    tiny_bundle: Path, factor: float, found: str
) -> None:
    session = FakeSession(lambda views: np.float32(factor) * tiny_embedding(views))
    with pytest.raises(InferenceError, match=found) as caught:
        run_golden(read_bundle(tiny_bundle), session)
    assert caught.value.reason == "G14"


def test_a_precision_without_a_tolerance_cannot_be_judged(tiny_bundle: Path) -> None:
    with pytest.raises(InferenceError, match=r"'int8'; expected one .*: bf16, fp32"):
        run_golden(read_bundle(tiny_bundle), FakeSession(precision="int8"))


def test_a_closed_session_says_so(tiny_bundle: Path) -> None:
    session = open_session(read_bundle(tiny_bundle), "cpu")
    session.close()
    with pytest.raises(InferenceError, match="closed session"):
        session.run({"views": VIEWS})


def test_a_session_may_be_shared_by_threads(tiny_bundle: Path) -> None:
    session = open_session(read_bundle(tiny_bundle), "cpu", threads=1)
    exams = [np.roll(VIEWS, shift, axis=-1) for shift in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda views: session.run({"views": views}), exams))
    for views, embedding in zip(exams, answers, strict=True):
        np.testing.assert_allclose(embedding, tiny_embedding(views), atol=1e-6)


def test_golden_exams_measure_the_worst_logit(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert run_golden(bundle, FakeSession()).worst_difference < 1e-5
    assert run_golden(bundle, open_session(bundle, "cpu")).worst_difference < 1e-5

    def slightly_wrong(views: np.ndarray) -> np.ndarray:
        embedding = tiny_embedding(views)
        embedding[:, 1] += np.float32(0.01)  # times the logit scale of 10: a logit off by 0.1
        rest = 1 - np.sum(embedding[:, :2] ** 2, axis=1, keepdims=True)
        embedding[:, 2:] *= np.sqrt(rest / np.sum(embedding[:, 2:] ** 2, axis=1, keepdims=True))
        return embedding  # of length 1 still

    result = run_golden(bundle, FakeSession(slightly_wrong))
    assert result.worst_difference == pytest.approx(0.1, abs=1e-5)
    assert (result.exams, result.tolerance, result.passed) == (2, 1e-4, False)
    with pytest.raises(InferenceError, match=r"differ by up to 0\.1;") as caught:
        require_golden(bundle, FakeSession(slightly_wrong))
    assert caught.value.code == "golden_mismatch"


def test_a_runtime_with_other_weights_does_not_pass(tiny_bundle: Path) -> None:
    zeros = np.zeros((FEATURES, 6), np.float32)
    session = open_session(with_graph(tiny_bundle, tiny_graph(zeros)), "cpu")
    with pytest.raises(InferenceError, match="golden exams whose logits differ"):
        require_golden(read_bundle(tiny_bundle), session)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"not a zip", "no readable arrays"),
        (as_npz({"views": VIEWS}), "found {'views'"),
        (as_npz({**tiny_golden(), "logits": np.zeros((2, 1, 2))}), "float64"),
        (as_npz({**tiny_golden(), "logits": np.full((2, 1, 2), np.nan, np.float32)}), "NaN"),
        (as_npz({**tiny_golden(), "logits": np.array([None, None])}), "allow_pickle=False"),
        (as_npz(tiny_golden(3)), r"\(3, 4, 1, 32, 24\)"),
    ],
    ids=["zip", "missing", "dtype", "nan", "pickle", "count"],
)
def test_golden_exams_that_are_not_as_described_are_refused(
    tiny_bundle: Path, data: bytes, found: str
) -> None:
    bundle = with_files(tiny_bundle, **{"golden.npz": data})
    with pytest.raises(BundleFormatError, match=found):
        run_golden(bundle, FakeSession())


def test_golden_exams_that_unpack_to_too_much_are_not_unpacked(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(tiny_bundle)
    with zipfile.ZipFile(io.BytesIO(bundle.files["golden.npz"])) as archive:
        size = sum(member.file_size for member in archive.infolist())
    monkeypatch.setattr(golden, "_MAX_BYTES", size)
    run_golden(bundle, FakeSession())
    monkeypatch.setattr(golden, "_MAX_BYTES", size - 1)
    monkeypatch.setattr(golden.np, "load", None)
    with pytest.raises(BundleFormatError, match=f"{size} bytes unpacked, more than {size - 1}"):
        run_golden(bundle, FakeSession())


def test_onnxruntime_is_imported_by_one_file() -> None:
    package = Path(importlib.import_module("mammoclip_sdk").__file__ or "").parent
    importers = [
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if 'import_module("onnxruntime")' in file.read_text("utf-8")
        or "import onnxruntime" in file.read_text("utf-8")
    ]
    assert importers == ["sessions/ort.py"]
