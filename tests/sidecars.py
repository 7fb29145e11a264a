"""A sidecar of an engine that was never built, GPUs that are not here, and what a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mammoclip_sdk.engines.cuda import Gpu
from mammoclip_sdk.engines.sidecar import Profile, Sidecar

A2000 = Gpu(name="NVIDIA RTX A2000", compute_capability="8.6", driver="580.95.05")
ADA = Gpu(name="NVIDIA RTX 4000 Ada", compute_capability="8.9", driver="580.95.05")


def a_sidecar(**changes: Any) -> Sidecar:
    profile = Profile(name="views", minimum=(1, 4), optimum=(1, 4), maximum=(32, 4))
    facts = {
        "schema": 1,
        "graph_sha256": "a" * 64,
        "precision": "fp16",
        "flavour": "tensorrt",
        "version": "11.4.0.106",
        "gpu": A2000,
        "target": "current",
        "flags": ("strongly typed", "TF32 off"),
        "level": 3,
        "profiles": (profile,),
        "bundle": "tiny 1.2.3",
        "plan_file": "",
        "plan_sha256": "",
        "plan_bytes": 0,
        "built": "2026-11-24T12:00:00Z",
        "build_seconds": 4.2,
        "sdk_version": "0.2.0",
        "build_log": ("INFO: done",),
        "parity": "not run (runs at first load)",
        "golden": (),
    }
    return Sidecar(**{**facts, **changes})


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}
