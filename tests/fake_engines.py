"""Engines of the fake TensorRT: built, opened, and what their sidecars say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from conftest import tiny_golden
from fake_tensorrt import FakeCuda, FakeTensorRT

from mammoclip_sdk import engines
from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.sessions import trt

RTX, FULL = ("tensorrt_rtx", "1.7.1.116"), ("tensorrt", "11.4.0.106")
VIEWS = tiny_golden()["views"]


def installed(
    monkeypatch: pytest.MonkeyPatch, flavour: tuple[str, str], cuda: FakeCuda
) -> FakeTensorRT:
    """Install a flavour, by name and version, on a machine with a GPU."""
    fake = FakeTensorRT(*flavour)
    fake_tensorrt.install(monkeypatch, fake, cuda=cuda)
    return fake


def build(bundle: Bundle, flavour: FakeTensorRT, folder: Path, **settings: Any) -> engines.Engine:
    return engines.build(
        bundle, flavour=flavour.__name__, precision="fp32", engines=folder, **settings
    )


def opened(bundle: Bundle, folder: Path) -> trt.TrtSession:
    return trt.open_session(bundle, precision="fp32", engines=folder)
