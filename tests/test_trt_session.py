"""A session on an engine: it runs the one that was built, or says why it does not."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from conftest import tiny_embedding
from fake_engines import FULL, RTX, VIEWS, build, installed, opened
from fake_tensorrt import FakeCuda, FakeTensorRT, Status

from mammoclip_sdk import engines
from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.errors import DeviceError, EngineError, InferenceError, RuntimeNotInstalledError
from mammoclip_sdk.sessions import trt


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


def test_the_engine_computes_and_says_what_ran(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)
    np.testing.assert_array_equal(session.run({"views": VIEWS}), tiny_embedding(VIEWS))
    assert session.runtime == f"{flavour.__name__} {flavour.__version__}"
    assert (session.device, session.precision) == ("tensorrt", "fp32")


def test_a_batch_larger_than_the_engine_takes_is_cut_into_runs(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path, max_batch=3)
    views = np.random.default_rng(0).random((7, *VIEWS.shape[1:]), dtype=np.float32)
    found = opened(bundle, tmp_path).run({"views": views})
    np.testing.assert_allclose(found, tiny_embedding(views), atol=1e-6)
    assert flavour.runs == [3, 3, 1]


def test_what_a_run_does_not_write_is_not_the_exam_before(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)
    assert np.isfinite(session.run({"views": VIEWS})).all()
    flavour.writes = False
    assert np.isnan(session.run({"views": VIEWS})).all()


def test_an_answer_is_not_overwritten_by_the_next(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)
    first = session.run({"views": VIEWS})
    session.run({"views": 1 - VIEWS})
    np.testing.assert_array_equal(first, tiny_embedding(VIEWS))


def test_the_memory_of_a_session_stays_where_it_is(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path, max_batch=4)
    session = opened(bundle, tmp_path)
    for batch in (1, 4, 2, 9, 1):  # RTX records a CUDA graph for each, with the addresses in it
        session.run({"views": np.zeros((batch, *VIEWS.shape[1:]), np.float32)})
    assert len(flavour.addresses) == 1


def test_the_gpu_is_the_one_that_was_looked_at_and_the_callers_stays_current(
    bundle: Bundle, flavour: FakeTensorRT, cuda: FakeCuda, tmp_path: Path
) -> None:
    cuda.current = 1  # as a program leaves it that works on its second GPU
    build(bundle, flavour, tmp_path)
    assert cuda.current == 1
    cuda.used.clear()
    session = opened(bundle, tmp_path)
    assert cuda.current == 1
    cuda.used.clear()
    np.testing.assert_array_equal(session.run({"views": VIEWS}), tiny_embedding(VIEWS))
    session.close()
    assert (cuda.used, cuda.current) == ({0}, 1)


def test_threads_share_one_context_and_get_their_own_answers(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)
    rng = np.random.default_rng(1)
    exams = [rng.random((1 + i % 3, *VIEWS.shape[1:]), dtype=np.float32) for i in range(24)]
    found: dict[int, Any] = {}

    def work(first: int) -> None:
        for i in range(first, len(exams), 4):
            found[i] = session.run({"views": exams[i]})

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, views in enumerate(exams):
        np.testing.assert_array_equal(found[i], tiny_embedding(views))


def test_memory_is_freed_when_a_session_is_closed_and_when_it_cannot_be_opened(
    bundle: Bundle, flavour: FakeTensorRT, cuda: FakeCuda, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)
    session.run({"views": VIEWS})
    assert cuda.memory
    session.close()
    session.close()
    assert not cuda.memory
    with pytest.raises(InferenceError, match="closed session"):
        session.run({"views": VIEWS})
    flavour.fails["create_execution_context"] = None
    with pytest.raises(EngineError):
        opened(bundle, tmp_path)
    flavour.fails.clear()
    for function in ("cudaMalloc", "cudaMallocHost"):
        cuda.fails = {function: Status.cudaErrorMemoryAllocation}
        with pytest.raises(InferenceError, match="cudaErrorMemoryAllocation") as caught:
            opened(bundle, tmp_path)
        assert (caught.value.subject, caught.value.code) == (f"CUDA: {function}", "cuda")
    assert not cuda.memory
    assert cuda.called.count("cudaStreamCreateWithFlags") == cuda.called.count("cudaStreamDestroy")


def test_everything_is_freed_though_something_is_not(
    bundle: Bundle, flavour: FakeTensorRT, cuda: FakeCuda, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)
    cuda.fails["cudaFree"] = Status.cudaErrorIllegalAddress
    with pytest.raises(InferenceError, match="cudaErrorIllegalAddress"):
        session.close()
    assert not cuda.memory
    assert cuda.called[-1] in ("cudaStreamDestroy", "cudaSetDevice")


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        ("deserialize_cuda_engine", None),
        ("create_execution_context", None),
        ("deserialize_cuda_engine", RuntimeError("thrown in C++")),
    ],
)
def test_an_engine_that_does_not_load_is_an_error_with_the_log(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path, function: str, answer: object
) -> None:
    build(bundle, flavour, tmp_path)
    flavour.fails[function] = answer
    with pytest.raises(EngineError, match=f"{function} went wrong: error code 4") as caught:
        opened(bundle, tmp_path)
    reason = "it raised thrown in C++" if isinstance(answer, Exception) else "it answered None"
    assert reason in caught.value.found
    assert caught.value.subject == f"{flavour.__name__} {flavour.__version__}"


@pytest.mark.parametrize("function", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_a_run_that_fails_is_an_error_with_the_log_and_the_next_one_may_succeed(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path, function: str
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)
    flavour.fails[function] = False
    with pytest.raises(InferenceError, match=f"{function} went wrong: error code 4"):
        session.run({"views": VIEWS})
    flavour.fails.clear()
    np.testing.assert_array_equal(session.run({"views": VIEWS}), tiny_embedding(VIEWS))


@pytest.mark.parametrize(
    "function",
    ["cudaGetDevice", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaStreamSynchronize"],
)
def test_every_status_of_cuda_is_looked_at(
    bundle: Bundle, flavour: FakeTensorRT, cuda: FakeCuda, tmp_path: Path, function: str
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)
    cuda.fails[function] = Status.cudaErrorMemoryAllocation
    with pytest.raises(InferenceError, match="cudaErrorMemoryAllocation") as caught:
        session.run({"views": VIEWS})
    assert (caught.value.subject, caught.value.code) == (f"CUDA: {function}", "cuda")


def test_another_gpus_engine_is_refused_in_rtxs_own_words(
    bundle: Bundle, rtx: FakeTensorRT, tmp_path: Path
) -> None:
    build(bundle, rtx, tmp_path)
    invalid = type("Validity", (), {"name": "INVALID"})
    rtx.fails["get_engine_validity"] = (
        invalid,
        int(rtx.EngineInvalidityDiagnostics.UNSUPPORTED_CC),
    )
    with pytest.raises(EngineError, match=r"UNSUPPORTED_CC\).*get_engine_validity went wrong"):
        opened(bundle, tmp_path)


def test_an_engine_of_other_tensors_is_refused(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path)
    engine = flavour._engine(b"")
    engine.get_tensor_name = ["image", "embedding"].__getitem__
    engine.get_tensor_shape = lambda name: (-1, 4)
    flavour.fails["deserialize_cuda_engine"] = engine
    with pytest.raises(EngineError, match=r"tensors .*image") as caught:
        opened(bundle, tmp_path)
    assert caught.value.code == "engine_damaged"


def test_a_damaged_plan_never_reaches_tensorrt(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    engine = build(bundle, flavour, tmp_path)
    plan = bytearray(engine.plan.read_bytes())
    plan[0] ^= 1
    engine.plan.write_bytes(plan)
    flavour.fails["deserialize_cuda_engine"] = AssertionError("it saw the bytes")
    with pytest.raises(EngineError, match="another SHA-256") as caught:
        opened(bundle, tmp_path)
    assert caught.value.code == "engine_damaged"


def test_an_engine_of_another_graph_is_refused_before_its_plan_is_read(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    engine = build(bundle, flavour, tmp_path)
    engine.plan.unlink()
    foreign = replace(engine, sidecar=replace(engine.sidecar, graph_sha256="b" * 64))
    with pytest.raises(EngineError, match=r"another graph \(bbbbbbbbbbbb\)") as caught:
        trt.open_engine(bundle, foreign)
    assert caught.value.code == "engine_stale"


def test_wrong_inputs_are_refused_before_they_are_copied(
    bundle: Bundle, flavour: FakeTensorRT, cuda: FakeCuda, tmp_path: Path
) -> None:
    build(bundle, flavour, tmp_path)
    session = opened(bundle, tmp_path)
    with pytest.raises(InferenceError, match="float64"):
        session.run({"views": VIEWS.astype(np.float64)})
    assert "cudaMemcpyAsync" not in cuda.called


# -- what is missing ------------------------------------------------------------------------------


def test_without_an_engine_nothing_is_built_and_the_command_is_named(
    bundle: Bundle, flavour: FakeTensorRT, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="engine for NVIDIA RTX A2000") as caught:
        opened(bundle, tmp_path / "none here")
    assert caught.value.code == "engine_missing"
    assert caught.value.remedy == (
        f"Build it: mammoclip-sdk engine build {bundle.path} --flavour {flavour.__name__} "
        f"--precision fp32 --engines '{tmp_path / 'none here'}'"
    )
    assert flavour.builds == 0


@pytest.mark.parametrize(
    ("system", "folder"), [("win32", '"C:\\my engines"'), ("linux", "'C:\\my engines'")]
)
def test_the_command_is_quoted_as_the_systems_shell_wants_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, system: str, folder: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    command = engines.build_command(bundle, "tensorrt_rtx", "fp16", Path("C:\\my engines"))
    assert command.endswith(f" --precision fp16 --engines {folder}")


def test_without_either_flavour_both_ways_to_install_one_are_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_tensorrt.install(monkeypatch, cuda=FakeCuda())
    with pytest.raises(RuntimeNotInstalledError) as caught:
        opened(bundle, tmp_path)
    assert 'pip install "mammoclip-sdk[tensorrt-rtx]"' in caught.value.remedy
    assert 'pip install "mammoclip-sdk[tensorrt]"' in caught.value.remedy


def test_without_a_gpu_the_reason_is_cudas(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rtx = FakeTensorRT(*RTX)
    fake_tensorrt.install(monkeypatch, rtx, cuda=None)
    engine = build(bundle, rtx, tmp_path)
    assert engine.sidecar.parity == "not run (no GPU)"
    with pytest.raises(DeviceError, match="cudaErrorNoDevice") as caught:
        opened(bundle, tmp_path)
    assert caught.value.code == "no_gpu"
    assert not trt.available(bundle, "fp32", tmp_path)


def test_looking_for_an_engine_where_there_is_none_imports_neither_tensorrt_nor_cuda(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    program = """
import sys
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.sessions import trt
assert not trt.available(read_bundle(sys.argv[1]), "fp32")
assert not {"tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "cuda"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, str(tiny_bundle)], check=True)
