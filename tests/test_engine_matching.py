"""Which engines fit this machine, and in words why the others do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sidecars import A2000, ADA, a_sidecar

from mammoclip_sdk.engines import matching
from mammoclip_sdk.engines.cache import Engine
from mammoclip_sdk.engines.matching import Machine

HERE = Machine(versions={"tensorrt": "11.4.0.106", "tensorrt_rtx": "1.7.1.116"}, gpu=A2000)
STALE = [
    ({"version": "11.3.0.99"}, "built by tensorrt 11.3.0.99, here is 11.4.0.106"),
    ({"graph_sha256": "b" * 64}, "built from another graph (bbbbbbbbbbbb)"),
    (
        {"gpu": ADA},
        "built on NVIDIA RTX 4000 Ada (8.9), here is NVIDIA RTX A2000 (8.6)",
    ),
    (
        {"gpu": replace(A2000, compute_capability="8.0")},
        "built on NVIDIA RTX A2000 (8.0), here is NVIDIA RTX A2000 (8.6)",
    ),
    (
        {"gpu": replace(A2000, driver="570.1")},
        "built with driver 570.1, here is 580.95.05",
    ),
    ({"gpu": None}, "built for one GPU, and does not say for which"),
    (
        {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "target": "sm75"},
        "built for target sm75, here is compute capability 8.6",
    ),
]


@pytest.mark.parametrize(("changes", "words"), STALE)
def test_an_engine_that_is_stale_is_explained(changes: dict[str, Any], words: str) -> None:
    (misfit,) = matching.misfits(a_sidecar(**changes), HERE, ["a" * 64])
    assert (misfit.text, misfit.stale) == (words, True)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (replace(HERE, gpu=None), "no GPU that works here"),
        (replace(HERE, versions={}), "tensorrt is not installed, or does not load"),
    ],
)
def test_what_is_missing_here_makes_no_engine_stale(machine: Machine, words: str) -> None:
    (misfit,) = matching.misfits(a_sidecar(), machine)
    assert (misfit.text, misfit.stale) == (words, False)


@pytest.mark.parametrize(
    ("capability", "target", "fits"),
    [
        ("7.5", "any", False),
        ("7.5", "sm75", True),
        ("8.0", "any", True),
        ("8.6", "any", True),
        ("8.6", "sm86", True),
        ("8.9", "sm86", False),
        ("12.0", "any", True),
        ("12.0", "sm120", True),
    ],
)
def test_engines_of_rtx_fit_every_gpu_of_their_target(
    capability: str, target: str, fits: bool
) -> None:
    built = {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "gpu": None, "target": target}
    machine = replace(HERE, gpu=replace(ADA, compute_capability=capability))
    assert (matching.misfits(a_sidecar(**built), machine) == []) is fits


def test_of_engines_proven_alike_full_tensorrts_goes_first_and_then_the_newest() -> None:
    rtx = {"flavour": "tensorrt_rtx", "version": "1.7.1.116"}
    years = {"2023": {}, "2024": {}, "2025": rtx, "2026": rtx}
    engines = [
        Engine(folder=Path(), sidecar=a_sidecar(built=built, **changes))
        for built, changes in years.items()
    ]
    ranked = matching.best_first(engines, A2000)
    assert [engine.sidecar.built for engine in ranked] == ["2024", "2023", "2026", "2025"]
