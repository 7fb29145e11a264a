"""What a figure was measured with: hardware and versions, to stand beside it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("mammoclip-sdk", "torch", "onnxruntime", "onnxruntime-gpu", "numpy")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware, system and package versions of one run."""

    processor: str
    cores: int
    system: str
    python: str
    packages: Mapping[str, str]
    """Those of `PACKAGES` that are installed."""

    def line(self) -> str:
        """Return all of it in one line of text."""
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return (
            f"{self.processor}, {self.cores} cores, {self.system}, Python {self.python}, {packages}"
        )


def describe_machine() -> Machine:
    """Look at the machine this process runs on."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 0,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=packages,
    )


def _processor() -> str:
    """Name the processor: the kernel knows it on Linux, where `platform` does not."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
