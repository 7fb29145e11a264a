"""Inference runtimes, one file each, behind one protocol; the only way to run a graph.

A device that is asked for by name is the one that runs, or opening fails: `auto` alone may
choose, and the session says what it chose.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk import engines
from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.bundle.graphs import has_graph
from mammoclip_sdk.errors import DeviceError
from mammoclip_sdk.sessions import openvino, ort, trt
from mammoclip_sdk.sessions.checked import CheckedSession

__all__ = [
    "BATCH_SIZE",
    "DEVICES",
    "PRECISIONS",
    "RUNS",
    "CheckedSession",
    "Session",
    "open_session",
]

BATCH_SIZE = 8
"""Exams in one run where nobody asks for another number; certificates are made with it, too."""
DEVICES = ("auto", "tensorrt", "cuda", "openvino", "cpu")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What a session may compute in. bf16 is the fp32 graph, which OpenVINO rounds as it runs."""
RUNS = {
    "tensorrt": engines.PRECISIONS,
    "cuda": ("fp16", "fp32"),
    "openvino": ("fp32", "bf16", "int8"),
    "cpu": ("fp32", "fp16", "int8"),
}
"""The precisions of every device. Float16 on the CPU is for comparing: it is no faster there."""
_DEFAULTS = {
    "tensorrt": ("fp16", "fp32"),
    "cuda": ("fp16", "fp32"),
    "openvino": ("fp32",),
    "cpu": ("fp32",),
}
"""What a device takes where no precision is asked for: the first that the bundle has."""


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
        """The member of `PRECISIONS` that it computes in."""

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


def open_session(
    bundle: Bundle,
    device: str = "auto",
    *,
    precision: str | None = None,
    threads: int | None = None,
) -> Session:
    """Load the bundle's graph on a device, in a session whose every output is checked.

    Parameters
    ----------
    device
        One of `DEVICES`. ``auto`` takes a TensorRT engine that is built and active, then CUDA
        where it works, and the CPU otherwise; it never builds an engine. What is here and does not
        open is a `RuntimeWarning` that says why.
    precision
        One of `PRECISIONS`; None is the device's own: fp32 on the CPU, with OpenVINO too; on a
        GPU fp16 where the bundle has it, or else fp32. The session says which.
    threads
        Most threads that one CPU run may use; None leaves it to the runtime.

    Raises
    ------
    DeviceError
        No such device or precision, the device does not run it or the bundle does not have it, or
        a number of threads below 1.
    RuntimeNotInstalledError, RuntimeConflictError
        Nothing installed can run on the device, or two packages overwrite one another.
    BundleFormatError
        The graph's inputs or outputs are not those of the manifest.
    InferenceError
        The runtime cannot load the graph.
    """
    _require_one_of("device", device, DEVICES)
    if precision is not None:
        _require_one_of("precision", precision, PRECISIONS)
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise DeviceError(
            "threads", found=repr(threads), expected="1 or more", remedy="Leave it out for all."
        )
    if device == "auto":
        return CheckedSession(_open_best(bundle, precision, threads), bundle)
    return CheckedSession(_open(bundle, device, precision, threads), bundle)


def _require_one_of(what: str, asked: str, known: tuple[str, ...]) -> None:
    if asked not in known:
        raise DeviceError(
            f"{what} {asked!r}",
            found=f"no such {what}",
            expected=f"one of {', '.join(known)}",
            remedy="Name one of them.",
        )


def _open(bundle: Bundle, device: str, precision: str | None, threads: int | None) -> Session:
    if precision is None:
        precision = _default(bundle, device)
    if precision not in RUNS[device]:
        able = [name for name, runs in RUNS.items() if precision in runs]
        raise DeviceError(
            f"precision {precision!r} on device {device!r}",
            found=f"a device that runs {', '.join(RUNS[device])}",
            expected=f"one that runs {precision}: {', '.join(able)}",
            remedy="Ask for another precision or another device.",
        )
    if device == "openvino":
        return openvino.open_session(bundle, precision=precision, threads=threads)
    if device == "tensorrt":
        return trt.open_session(bundle, precision=precision)
    return ort.open_session(bundle, device, precision=precision, threads=threads)


def _default(bundle: Bundle, device: str) -> str:
    preferred = _DEFAULTS[device]
    return next((name for name in preferred if has_graph(bundle, name)), preferred[-1])


def _open_best(bundle: Bundle, precision: str | None, threads: int | None) -> Session:
    for device in ("tensorrt", "cuda"):
        kind = _default(bundle, device) if precision is None else precision
        if kind in RUNS[device] and has_graph(bundle, kind) and _is_available(bundle, device, kind):
            try:
                return _open(bundle, device, kind, threads)
            except DeviceError as error:
                # What should run does not run here and now: the case that auto is there for. A
                # graph that no device can load fails again below, and is reported from there.
                warnings.warn(
                    f"Device {device!r} does not open, and auto goes on without it: {error}",
                    RuntimeWarning,
                    stacklevel=3,
                )
    return _open(bundle, "cpu", precision, threads)


def _is_available(bundle: Bundle, device: str, precision: str) -> bool:
    if device == "tensorrt":
        return trt.available(bundle, precision)
    return ort.is_available(device)
