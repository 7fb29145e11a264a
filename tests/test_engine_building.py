"""What either flavour is asked to build, and how it says that it could not: nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from conftest import HEIGHT, WIDTH
from fake_tensorrt import FakeCuda, FakeTensorRT
from tensorrt_here import needs_rtx

from mammoclip_sdk import engines
from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.errors import DeviceError, EngineError


@pytest.fixture(params=[("tensorrt", "11.4.0.106"), ("tensorrt_rtx", "1.7.1.116")])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    module = FakeTensorRT(*request.param)
    fake_tensorrt.install(monkeypatch, module, cuda=FakeCuda())
    return module


FAILURES = [
    ("create_network", None),
    ("create_builder_config", None),
    ("parse", False),
    ("set_shape", RuntimeError("Shape provided for max is inconsistent")),
    ("set_shape", TypeError("set_shape(): incompatible function arguments. \n 1. (self")),
    ("add_optimization_profile", -1),
    ("build_serialized_network", None),
    ("build_serialized_network", MemoryError("std::bad_alloc")),
]


@pytest.mark.parametrize(("function", "answer"), FAILURES)
def test_none_false_and_minus_one_are_errors_with_the_log(
    bundle: Bundle, fake: FakeTensorRT, tmp_path: Path, function: str, answer: object
) -> None:
    fake.fails[function] = answer
    with pytest.raises(EngineError, match=f"{function} went wrong: error code 4") as caught:
        engines.build(bundle, flavour=fake.__name__, precision="fp32", engines=tmp_path)
    assert caught.value.subject == f"{fake.__name__} {fake.__version__}"
    assert [*tmp_path.glob("*.*")] == []


def test_timings_that_tensorrt_does_not_give_are_an_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = FakeTensorRT("tensorrt", "11.4.0.106")
    fake_tensorrt.install(monkeypatch, full, cuda=FakeCuda())
    full.fails["get_timing_cache"] = None
    with pytest.raises(EngineError, match=r"not give its timing cache \(it answered None\)"):
        engines.build(bundle, flavour="tensorrt", precision="fp32", engines=tmp_path)


@pytest.mark.parametrize("batch", [3_000_000_000, 10**20])
@needs_rtx
def test_more_exams_than_rtx_can_count_are_an_error_of_one_line(
    bundle: Bundle, tmp_path: Path, batch: int
) -> None:
    with pytest.raises(EngineError, match=f"did not take batches of up to {batch} ") as caught:
        engines.build(
            bundle, flavour="tensorrt_rtx", precision="fp32", engines=tmp_path, max_batch=batch
        )
    assert "\n" not in str(caught.value)


def test_what_was_said_before_is_not_in_the_error(
    bundle: Bundle, fake: FakeTensorRT, tmp_path: Path
) -> None:
    fake.fails["parse"] = False
    with pytest.raises(EngineError):
        engines.build(bundle, flavour=fake.__name__, precision="fp32", engines=tmp_path)
    fake.fails = {"create_builder_config": None}
    with pytest.raises(EngineError) as caught:
        engines.build(bundle, flavour=fake.__name__, precision="fp32", engines=tmp_path)
    assert "parse went wrong" not in caught.value.found


def test_tf32_is_off_and_full_tensorrt_takes_its_timings_again(
    bundle: Bundle, fake: FakeTensorRT, tmp_path: Path
) -> None:
    engines.build(bundle, flavour=fake.__name__, precision="fp32", engines=tmp_path)
    assert fake.config.cleared == ["TF32"]
    assert fake.timing_given == (None if fake.rtx else b"")
    engines.build(bundle, flavour=fake.__name__, precision="fp32", engines=tmp_path, level=5)
    assert fake.config.builder_optimization_level == 5
    assert fake.timing_given == (None if fake.rtx else b"timings")


def test_full_tensorrt_takes_no_timings_of_another_version(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version in ("11.4.0.106", "11.5.0.1"):
        full = FakeTensorRT("tensorrt", version)
        fake_tensorrt.install(monkeypatch, full, cuda=FakeCuda())
        engines.build(bundle, flavour="tensorrt", precision="fp32", engines=tmp_path)
        assert full.timing_given == b""


def test_the_batches_asked_for_are_the_builders_and_the_sidecars(
    bundle: Bundle, fake: FakeTensorRT, tmp_path: Path
) -> None:
    engine = engines.build(
        bundle, flavour=fake.__name__, precision="fp32", engines=tmp_path, max_batch=8,
        optimum_batch=4,
    )  # fmt: skip
    (profile,) = engine.sidecar.profiles
    given = json.loads(engine.plan.read_bytes())["shapes"]
    assert given == ["views", *([batch, 4, 1, HEIGHT, WIDTH] for batch in (1, 4, 8))]
    assert (profile.minimum, profile.optimum, profile.maximum) == tuple(map(tuple, given[1:]))


def test_full_tensorrt_builds_on_the_gpu_that_was_looked_at(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full, cuda = FakeTensorRT("tensorrt", "11.4.0.106"), FakeCuda(current=1)
    fake_tensorrt.install(monkeypatch, full, cuda=cuda)
    engines.build(bundle, flavour="tensorrt", precision="fp32", engines=tmp_path)
    assert (full.built_on, cuda.current) == (0, 1)


def test_full_tensorrt_needs_a_gpu_to_build(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = FakeTensorRT("tensorrt", "11.4.0.106")
    fake_tensorrt.install(monkeypatch, full, cuda=None)
    with pytest.raises(DeviceError) as caught:
        engines.build(bundle, flavour="tensorrt", precision="fp32", engines=tmp_path)
    assert (caught.value.code, full.builds) == ("no_gpu", 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_batch": 0}, "batches of 1, 1 and 0"),
        ({"max_batch": 4, "optimum_batch": 5}, "batches of 1, 5 and 4"),
        ({"optimum_batch": 0}, "batches of 1, 0 and 32"),
        ({"level": 6}, "level 6"),
        ({"level": -1}, "level -1"),
        ({"precision": "fp16"}, "graphs in fp32"),
        ({"precision": "bf16"}, "no precision that engines are built in; expected one of fp16"),
        ({"precision": "int8"}, "no precision that engines are built in; expected one of fp16"),
        ({"flavour": "trt"}, "no such flavour"),
        ({"target": "sm99"}, "no target of"),
        ({"target": "none"}, "no target of"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_built(
    bundle: Bundle, fake: FakeTensorRT, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    asked = {"flavour": fake.__name__, "precision": "fp32", **settings}
    with pytest.raises(DeviceError, match=words):
        engines.build(bundle, engines=tmp_path, **asked)
    assert fake.builds == 0
