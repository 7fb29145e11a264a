"""What a figure was measured with: command, hardware and versions, to stand beside it."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("mammoclip-sdk", "torch", "onnxruntime", "onnxruntime-gpu", "openvino",
            "tensorrt-rtx-cu13-bindings", "nncf", "numpy", "pydicom", "imagecodecs",
            "pillow")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware, system and package versions of one run."""

    processor: str
    cores: int
    system: str
    python: str
    gpus: tuple[str, ...]
    """Name and driver version of each NVIDIA GPU, as ``nvidia-smi`` has them; often none."""
    packages: Mapping[str, str]
    """Those of `PACKAGES` that are installed."""

    def line(self) -> str:
        """Return all of it in one line of text."""
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return (
            f"{self.processor}, {self.cores} cores, {', '.join(self.gpus) or 'no NVIDIA GPU'}, "
            f"{self.system}, Python {self.python}, {packages}"
        )


def command_line(script: str, arguments: Sequence[str]) -> str:
    """Return a run's command as one would type it, of paths only the last part.

    Where a bundle lies on the machine that measured is nobody else's business.
    """
    plain = (Path(part).name if "/" in part else part for part in arguments)
    return shlex.join(["python", script, *plain])


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
        gpus=_gpus(),
        packages=packages,
    )


def _gpus() -> tuple[str, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode != 0:  # the tool without a card or a driver
        return ()
    rows = [line.split(", ") for line in found.stdout.splitlines() if line]
    return tuple(f"{name} (driver {driver})" for name, driver in rows)


def _processor() -> str:
    """Name the processor: the kernel knows it on Linux, where `platform` does not."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
