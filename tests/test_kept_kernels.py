"""Kernels that TensorRT for RTX compiled: kept for the next session, never believed blindly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_embedding
from fake_engines import RTX, VIEWS, build, installed, opened
from fake_tensorrt import FakeCuda, FakeTensorRT

from mammoclip_sdk.bundle import Bundle


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return installed(monkeypatch, RTX, FakeCuda())


def test_compiled_kernels_are_kept_for_the_next_session(
    bundle: Bundle, rtx: FakeTensorRT, tmp_path: Path
) -> None:
    engine = build(bundle, rtx, tmp_path)
    opened(bundle, tmp_path).close()
    assert rtx.kernels_given is None
    second = opened(bundle, tmp_path)
    assert rtx.kernels_given == b"kernels"
    assert rtx.config.cuda_graph_strategy == "whole"
    assert rtx.config.dynamic_shapes_kernel_specialization_strategy == "eager"
    second.close()
    (kept,) = tmp_path.glob("*.kernels")
    assert kept == engine.kernels(second.gpu)
    assert kept.name.endswith("-sm86.kernels")


@pytest.mark.parametrize(
    "damage", [lambda kept: kept[:-1], lambda kept: b"", lambda kept: b"x" * 99]
)
def test_damaged_kernels_are_compiled_anew(
    bundle: Bundle, rtx: FakeTensorRT, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    build(bundle, rtx, tmp_path)
    opened(bundle, tmp_path).close()
    (kept,) = tmp_path.glob("*.kernels")
    kept.write_bytes(damage(kept.read_bytes()))
    session = opened(bundle, tmp_path)
    assert rtx.kernels_given is None
    np.testing.assert_array_equal(session.run({"views": VIEWS}), tiny_embedding(VIEWS))


def test_kernels_that_rtx_refuses_are_compiled_anew(
    bundle: Bundle, rtx: FakeTensorRT, tmp_path: Path
) -> None:
    build(bundle, rtx, tmp_path)
    opened(bundle, tmp_path).close()
    rtx.fails["deserialize"] = False
    session = opened(bundle, tmp_path)
    np.testing.assert_array_equal(session.run({"views": VIEWS}), tiny_embedding(VIEWS))
