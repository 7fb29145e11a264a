"""OpenVINO on the CPU; the sole importer of openvino.

Left to itself OpenVINO runs a float32 graph in bfloat16 on a CPU that has it: here every session
says what it computes in, and opening fails where the runtime took something else. Nothing is
cached on disk. Nor is anything sent: openvino reports each import of itself to its makers, unasked,
where its package for telemetry is installed, and it always is.
"""

from __future__ import annotations

import importlib
import queue
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle, Graph, Tensor
from mammoclip_sdk.bundle.graphs import (
    check_inputs,
    check_signature,
    closed_error,
    graph_of,
    load_error,
    require_whole,
    run_error,
)
from mammoclip_sdk.errors import DeviceError, RuntimeNotInstalledError

INSTALL = 'pip install "mammoclip-sdk[openvino]"'
_COMPUTES_IN = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Whatever is not quantised; in int8 too, so that an answer does not depend on a CPU's bfloat16."""
_NEEDS = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
_DTYPES = {"f32": "float32", "f16": "float16", "f64": "float64"}


def open_session(bundle: Bundle, *, precision: str, threads: int | None) -> OpenVinoSession:
    """Compile the bundle's graph from its verified bytes; see `sessions.open_session`."""
    runtime = load()
    core = runtime.Core()
    version = f"openvino {runtime.__version__.partition('-')[0]} CPU"
    _require_capability(core, precision)
    graph = graph_of(bundle, precision)
    data = require_whole(bundle, graph)
    wanted = _COMPUTES_IN[precision]
    try:
        model = core.read_model(data)
        compiled = core.compile_model(model, "CPU", _settings(wanted, threads))
    except Exception as error:  # OpenVINO raises RuntimeError for everything, and others for types
        raise load_error(bundle, graph, _reason(error), version) from error
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if used != wanted:
        raise DeviceError(
            f"precision {precision!r} on device 'openvino'",
            found=f"that {version} computes in {used}",
            expected=wanted,
            remedy="Ask for another precision or device.",
        )
    check_signature(bundle, graph, _tensors(compiled.inputs), _tensors(compiled.outputs))
    return OpenVinoSession(compiled, graph, precision, version)


def require(precision: str) -> None:
    """Refuse a precision that no graph could be run in here; no graph is needed to say so.

    Raises
    ------
    RuntimeNotInstalledError
        OpenVINO is not installed, or does not load.
    DeviceError
        This processor does not compute in it.
    """
    _require_capability(load().Core(), precision)


def _require_capability(core: Any, precision: str) -> None:
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _NEEDS[precision] not in capabilities:
        able = [name for name, need in _NEEDS.items() if need in capabilities]
        raise DeviceError(
            f"precision {precision!r} on device 'openvino'",
            found=f"a CPU that runs {', '.join(able)}",
            expected=f"one that has {_NEEDS[precision]}",
            remedy="Ask for one of its precisions, or for another device.",
        )


def _settings(computes_in: str, threads: int | None) -> dict[str, Any]:
    settings = {
        "INFERENCE_PRECISION_HINT": computes_in,
        "EXECUTION_MODE_HINT": "ACCURACY" if computes_in == "f32" else "PERFORMANCE",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "CACHE_DIR": "",
    }
    return settings if threads is None else {**settings, "INFERENCE_NUM_THREADS": threads}


class OpenVinoSession:
    """A graph in OpenVINO; implements `sessions.Session`, and leaves its output unchecked."""

    device = "openvino"

    def __init__(self, compiled: Any, graph: Graph, precision: str, runtime: str) -> None:
        self._compiled = compiled
        self._graph = graph
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.precision = precision
        self.runtime = runtime

    def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Run the graph; see `sessions.Session.run`. Every run has a request to itself."""
        # One look, so that a close in another thread cannot come between.
        compiled, idle = self._compiled, self._idle
        if compiled is None:
            raise closed_error(self._graph, self.runtime)
        check_inputs(self._graph, self.runtime, tensors)
        try:
            request = idle.get_nowait()
        except queue.Empty:
            request = compiled.create_infer_request()
        try:
            (embedding,) = request.infer(dict(tensors)).values()
        except Exception as error:  # see open_session
            raise run_error(self._graph, self.runtime, error) from error
        idle.put(request)  # a request that failed is not used again
        return np.asarray(embedding)

    def close(self) -> None:
        """Let go of the runtime's memory; runs that are under way finish."""
        self._compiled = None
        self._idle = queue.SimpleQueue()


def load() -> Any:
    """Import openvino without its telemetry.

    Raises
    ------
    RuntimeNotInstalledError
        It is not installed, or does not load.
    """
    try:
        with _without_telemetry():
            return importlib.import_module("openvino")
    except (ImportError, OSError) as error:
        raise RuntimeNotInstalledError(
            "device 'openvino'",
            found="no openvino that loads",
            expected="the package openvino",
            remedy=f"{INSTALL}.",
        ) from error


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the package, so that openvino takes the stub that it has for its absence."""
    name = "openvino_telemetry"
    hide = name not in sys.modules
    if hide:
        sys.modules[name] = None  # type: ignore[assignment]  # what makes an import fail
    try:
        yield
    finally:
        if hide:
            del sys.modules[name]


def _tensors(ports: Any) -> list[Tensor]:
    """Describe a compiled graph's inputs or outputs as a manifest does."""
    return [
        Tensor(
            name=port.get_any_name(),
            shape=tuple(
                str(size) if size.is_dynamic else size.get_length() for size in port.partial_shape
            ),
            dtype=_DTYPES.get(port.element_type.get_type_name(), port.element_type.get_type_name()),
        )
        for port in ports
    ]


def _reason(error: Exception) -> str:
    """Return the last line of OpenVINO's message: those before say where in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
