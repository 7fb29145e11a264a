"""Inference runtimes, one file each, behind one protocol; the only way to run a graph.

A device that is asked for by name is the one that runs, or opening fails: `auto` alone may
choose, and the session says what it chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.errors import DeviceError, RuntimeNotInstalledError
from mammoclip_sdk.sessions import ort
from mammoclip_sdk.sessions.checked import CheckedSession

__all__ = ["DEVICES", "CheckedSession", "Session", "open_session"]

DEVICES = ("auto", "tensorrt", "cuda", "openvino", "cpu")

_WITHOUT_SESSION = {
    "tensorrt": (
        'TensorRT comes with pip install "mammoclip-sdk[tensorrt]", whose libraries lie on '
        "NVIDIA's own package index, which pip must be told of; TensorRT for RTX comes with "
        'pip install "mammoclip-sdk[tensorrt-rtx]", which is whole on PyPI'
    ),
    "openvino": 'OpenVINO comes with pip install "mammoclip-sdk[openvino]"',
}
"""Devices that this version can name and not yet use, and what a session for one will need."""


class Session(Protocol):
    """A graph, loaded into a runtime, that may be run from several threads at once."""

    @property
    def runtime(self) -> str:
        """Name, version and provider, such as ``onnxruntime 1.32.0 CPUExecutionProvider``."""

    @property
    def device(self) -> str:
        """The member of `DEVICES` that runs; never ``auto``."""

    @property
    def precision(self) -> str:
        """Of the graph: ``fp32``, ``fp16`` or ``int8``."""

    def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Turn the graph's inputs, by name, into (B, D) image embeddings of length 1.

        Raises
        ------
        InferenceError
            The runtime failed. `CheckedSession` adds: or did not answer with one float32 row for
            each exam. Whether a row is an embedding is for `scoring` to say.
        """

    def close(self) -> None:
        """Free the runtime's memory; the session cannot run afterwards."""


def open_session(bundle: Bundle, device: str = "auto", *, threads: int | None = None) -> Session:
    """Load the bundle's graph on a device, in a session whose every output is checked.

    Parameters
    ----------
    device
        One of `DEVICES`. ``auto`` takes CUDA where it works, and the CPU otherwise.
    threads
        Most threads that one CPU run may use; None leaves it to the runtime.

    Raises
    ------
    DeviceError
        No such device, or a number of threads below 1.
    RuntimeNotInstalledError, RuntimeConflictError
        Nothing installed can run on the device, or two packages overwrite one another.
    BundleFormatError
        The graph's inputs or outputs are not those of the manifest.
    InferenceError
        The runtime cannot load the graph.
    """
    if device not in DEVICES:
        raise DeviceError(
            f"device {device!r}",
            found="no such device",
            expected=f"one of {', '.join(DEVICES)}",
            remedy="Name one of them.",
        )
    if threads is not None and threads < 1:
        raise DeviceError(
            "threads", found=str(threads), expected="1 or more", remedy="Leave it out for all."
        )
    if device in _WITHOUT_SESSION:
        raise RuntimeNotInstalledError(
            f"device {device!r}",
            found="no session for it",
            expected="auto, cuda or cpu",
            remedy=f"This version of mammoclip-sdk has no session for {device} yet: use one of "
            f"those; {ort.INSTALL_HINT}. For a version that has one: {_WITHOUT_SESSION[device]}.",
        )
    if device == "auto":
        return CheckedSession(_open_best(bundle, threads), bundle)
    return CheckedSession(ort.open_session(bundle, device, threads=threads), bundle)


def _open_best(bundle: Bundle, threads: int | None) -> Session:
    if ort.is_available("cuda"):
        try:
            return ort.open_session(bundle, "cuda", threads=threads)
        except DeviceError:
            # The package has CUDA, the machine has not: the case that auto is there for. A graph
            # that no device can load fails again below, and is reported from there.
            pass
    return ort.open_session(bundle, "cpu", threads=threads)
