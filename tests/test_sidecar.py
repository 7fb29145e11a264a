"""Sidecars: which engines may replace each other, and JSON that is read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sidecars import A2000, ADA, a_sidecar

from mammoclip_sdk.engines.cuda import Gpu
from mammoclip_sdk.engines.sidecar import (
    Parity,
    Profile,
    Sidecar,
    sidecar_from_json,
    sidecar_to_json,
)
from mammoclip_sdk.errors import EngineError

DECIDING = {
    "schema": 2,
    "graph_sha256": "b" * 64,
    "precision": "fp32",
    "flavour": "tensorrt_rtx",
    "version": "11.3.0.99",
    "gpu": None,
    "target": "any",
    "flags": ("strongly typed",),
    "level": 4,
    "profiles": (Profile(name="views", minimum=(1, 4), optimum=(1, 4), maximum=(16, 4)),),
}
OTHER_GPUS = [
    replace(A2000, name="NVIDIA RTX A4000"),
    replace(A2000, compute_capability="8.9"),
    replace(A2000, driver="590.10"),
]


@pytest.mark.parametrize("name", DECIDING)
def test_the_key_changes_with_everything_that_decides_an_engine(name: str) -> None:
    assert a_sidecar(**{name: DECIDING[name]}).key != a_sidecar().key


@pytest.mark.parametrize("gpu", OTHER_GPUS)
def test_the_key_changes_with_the_gpu_and_its_driver(gpu: Gpu) -> None:
    assert a_sidecar(gpu=gpu).key != a_sidecar().key


def test_the_key_is_that_of_what_decides_alone() -> None:
    found_out = {
        "bundle": "other 2",
        "plan_file": "x",
        "plan_sha256": "c" * 64,
        "plan_bytes": 7,
        "built": "2027",
        "build_seconds": 1.0,
        "sdk_version": "9",
        "build_log": (),
        "parity": "passed",
        "golden": (Parity(gpu=ADA, exams=1, worst_difference=0.0, tolerance=0.1),),
    }
    assert found_out.keys() | DECIDING.keys() == {field.name for field in fields(Sidecar)}
    assert a_sidecar(**found_out).key == a_sidecar().key


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.builds(
        a_sidecar,
        gpu=st.none() | st.builds(Gpu, name=text, compute_capability=text, driver=text),
        flags=st.lists(text).map(tuple),
        build_seconds=st.floats(0, 1e6),
        build_log=st.lists(text).map(tuple),
    )
)
def test_a_sidecar_reads_back_as_it_was_written(sidecar: Sidecar) -> None:
    assert sidecar_from_json(sidecar_to_json(sidecar), subject="it") == sidecar


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda plain: plain.pop("flags"), "flags: missing"),
        (lambda plain: plain.update(notes=""), "notes: unknown key"),
        (lambda plain: plain.update(level="3"), "level: '3' instead of int"),
        (lambda plain: plain.update(profiles=[]), "profiles: none"),
        (lambda plain: plain.update(flavour="openvino"), "flavour: 'openvino' is none of"),
    ],
)
def test_a_sidecar_is_read_strictly(change: Callable[[Any], Any], problem: str) -> None:
    plain = json.loads(sidecar_to_json(a_sidecar()))
    change(plain)
    with pytest.raises(EngineError, match=problem) as caught:
        sidecar_from_json(json.dumps(plain).encode(), subject="it")
    assert caught.value.code == "engine_damaged"


def test_a_sidecar_of_another_schema_is_stale_and_not_damaged() -> None:
    with pytest.raises(EngineError, match="found schema 2; expected 1") as caught:
        sidecar_from_json(sidecar_to_json(a_sidecar(schema=2)), subject="it")
    assert caught.value.code == "engine_stale"


def test_an_engine_runs_as_many_exams_as_each_of_its_inputs_takes() -> None:
    shapes = {"minimum": (1, 4), "optimum": (1, 4)}
    profiles = tuple(
        Profile(name=name, maximum=(most, 4), **shapes) for name, most in (("a", 32), ("b", 8))
    )
    assert a_sidecar(profiles=profiles).max_batch == 8


@pytest.mark.parametrize(
    ("worst_difference", "passed"), [(0.0, True), (0.05, True), (0.0501, False), (None, False)]
)
def test_parity_holds_up_to_the_tolerance(worst_difference: float | None, passed: bool) -> None:
    parity = Parity(gpu=A2000, exams=2, worst_difference=worst_difference, tolerance=0.05)
    assert parity.passed is passed
