"""Sessions: the device that was asked for runs, from bytes, and its answer is checked."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import FakeSession, tiny_embedding, tiny_golden, tiny_graph
from tiny_graphs import half_graph, int8_embedding, int8_graph, many_bundle

from mammoclip_sdk.bundle import Bundle, read_bundle
from mammoclip_sdk.errors import (
    DeviceError,
    InferenceError,
    RuntimeConflictError,
    RuntimeNotInstalledError,
)
from mammoclip_sdk.sessions import CheckedSession, open_session, ort

VIEWS = tiny_golden()["views"]


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


def test_onnxruntime_is_imported_by_one_file() -> None:
    package = Path(importlib.import_module("mammoclip_sdk").__file__ or "").parent
    importers = [
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if 'import_module("onnxruntime")' in file.read_text("utf-8")
        or "import onnxruntime" in file.read_text("utf-8")
    ]
    assert importers == ["sessions/ort.py"]
