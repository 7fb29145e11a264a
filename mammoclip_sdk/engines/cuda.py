"""The GPU through NVIDIA's CUDA runtime: what it is, its memory and a stream; each status checked.

The sole importer of cuda-bindings, which imports without a GPU and answers with statuses.
"""

from __future__ import annotations

import ctypes
import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.errors import DeviceError, InferenceError, RuntimeNotInstalledError

_INSTALL = 'pip install "mammoclip-sdk[tensorrt-rtx]" brings cuda-bindings'
_FIRST = 0
_NAN_BYTE = 0xFF
"""A float32 of such bytes is NaN."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What decides whether an engine, and what was found out with it, holds for a GPU."""

    name: str
    compute_capability: str
    """Such as ``8.6``."""
    driver: str
    """Version of NVIDIA's driver, such as ``580.95.05``."""


def current_gpu() -> Gpu:
    """Return the GPU that CUDA takes, the first of those that CUDA_VISIBLE_DEVICES leaves.

    Raises
    ------
    RuntimeNotInstalledError
        cuda-bindings is not installed.
    DeviceError
        There is no GPU, or none that works with its driver.
    """
    try:
        count = _call("cudaGetDeviceCount")
        properties = _call("cudaGetDeviceProperties", _FIRST) if count else None
        if properties is not None:
            return Gpu(
                name=properties.name.split(b"\0")[0].decode(errors="replace").strip(),
                compute_capability=f"{properties.major}.{properties.minor}",
                driver=_driver_version(),
            )
        reason = "none"
    except InferenceError as error:
        reason = error.found
    raise DeviceError(
        "NVIDIA GPU",
        found=reason,
        expected="a GPU with NVIDIA's driver for CUDA 13 or later (580 or later)",
        remedy="Install or update the driver, or use device cpu.",
        code="no_gpu",
    )


def find_gpu() -> Gpu | None:
    """Return the GPU that CUDA takes, or None where there is none that can be used."""
    try:
        return current_gpu()
    except DeviceError:
        return None


@contextmanager
def first_gpu() -> Iterator[None]:
    """Work on that GPU in this thread, whatever other one its owner works on, before and after.

    CUDA keeps a current GPU for each thread, and allocates, loads and runs there.
    """
    before = _call("cudaGetDevice")
    if before == _FIRST:
        yield
        return
    _call("cudaSetDevice", _FIRST)
    try:
        yield
    finally:
        _call("cudaSetDevice", before)


def _driver_version() -> str:
    """Ask NVIDIA's management library; engines have failed with another driver of the same CUDA."""
    try:
        library = importlib.import_module("cuda.bindings.nvml")
        library.init_v2()
        try:
            return str(library.system_get_driver_version())
        finally:
            library.shutdown()
    except Exception as error:  # a class of its own for each of its statuses, and for its absence
        raise InferenceError(
            "NVIDIA's management library",
            found=f"that it does not tell the driver's version ({error})",
            expected="the library that comes with NVIDIA's driver",
            remedy="Install the whole driver; a container needs its capability 'utility'.",
            code="cuda",
        ) from error


class Stream:
    """A stream of CUDA, other than the default one, which serialises with everything else."""

    def __init__(self) -> None:
        self._handle: Any = _call("cudaStreamCreateWithFlags", 1)  # cudaStreamNonBlocking

    @property
    def handle(self) -> int:
        """The stream as an address, for TensorRT."""
        return int(self._handle)

    def wait(self) -> None:
        """Wait until everything that was put on the stream is done."""
        _call("cudaStreamSynchronize", self._handle)

    def close(self) -> None:
        """Destroy the stream."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            _call("cudaStreamDestroy", handle)


class Buffer:
    """Memory of the GPU with its page-locked counterpart on the host.

    It stays where it is for as long as it is there: runs may have been recorded with its address.
    """

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream = stream
        self.address = int(_call("cudaMalloc", size))
        """Of the GPU's memory."""
        self._host = 0
        try:
            self._host = int(_call("cudaMallocHost", size))
        except InferenceError:
            self.close()
            raise

    def upload(self, array: NDArray[np.float32]) -> None:
        """Put an array on the GPU, in the stream's order."""
        self._view(array.shape)[...] = array
        self._copy(self.address, self._host, array.nbytes)

    def clear(self, size: int) -> None:
        """Fill with NaN, so that what a run does not write is never taken for its answer."""
        _call("cudaMemsetAsync", self.address, _NAN_BYTE, size, self._stream._handle)

    def download(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Wait for the stream, and return an array of its own."""
        self._copy(self._host, self.address, math.prod(shape) * 4)
        self._stream.wait()
        return self._view(shape).copy()

    def close(self) -> None:
        """Free the memory."""
        address, host = self.address, self._host
        self.address = self._host = 0
        try:
            if address:
                _call("cudaFree", address)
        finally:
            if host:
                _call("cudaFreeHost", host)

    def _view(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        memory = (ctypes.c_float * math.prod(shape)).from_address(self._host)
        return np.ctypeslib.as_array(memory).reshape(shape)

    def _copy(self, to: int, source: int, size: int) -> None:
        kind = _runtime().cudaMemcpyKind.cudaMemcpyDefault  # the addresses tell the direction
        _call("cudaMemcpyAsync", to, source, size, kind, self._stream._handle)


def _runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise RuntimeNotInstalledError(
            "cuda-bindings",
            found=f"that it does not load ({error})",
            expected="NVIDIA's Python bindings of CUDA, 13.2 or later",
            remedy=f"{_INSTALL}.",
        ) from error


def _call(name: str, *arguments: Any) -> Any:
    """Call the CUDA runtime; any status but success is an error."""
    runtime = _runtime()
    status, *answer = getattr(runtime, name)(*arguments)
    if int(status) != 0:
        (_, code), (_, text) = runtime.cudaGetErrorName(status), runtime.cudaGetErrorString(status)
        raise InferenceError(
            f"CUDA: {name}",
            found=f"{code.decode()} ({text.decode()})",
            expected="cudaSuccess",
            remedy="Check the driver and the GPU's free memory; other programs may be using it.",
            code="cuda",
        )
    return answer[0] if answer else None
