"""ONNX Runtime, on CPU or CUDA; the sole importer of onnxruntime, and without its telemetry.

ONNX Runtime falls back to the CPU without an error when CUDA does not load, and rounds float32 to
TF32 on the GPU unless told otherwise. Here the first is an error, for the whole graph and for any
operator of it that takes time; the second is switched off.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import re
from collections.abc import Mapping
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
from mammoclip_sdk.errors import DeviceError, RuntimeConflictError, RuntimeNotInstalledError

INSTALL = {
    "cpu": 'pip install "mammoclip-sdk[cpu]"',
    "cuda": 'pip install "mammoclip-sdk[cuda]"',
}
INSTALL_HINT = f"{INSTALL['cpu']} runs on the CPU, {INSTALL['cuda']} on NVIDIA GPUs as well"
INSTALL_CUDA_LIBRARIES = 'pip install "onnxruntime-gpu[cuda,cudnn]"'

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""All of them install the one module ``onnxruntime``, each over the other."""
_PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
_TAKES_TIME = {"Attention", "Conv", "Gemm", "LayerNormalization", "MatMul", "Softmax"}
"""Operators; the rest of a graph, such as shapes, belongs on the CPU."""
_NO_FOLDER = f"{os.devnull}/none"
"""Cannot exist: the folder for weights outside the graph, should `bundle.graphs` ever miss some."""
_WITHOUT_GPU = re.compile(r"CUDA failure (3|35|36|46|100|101|802|803|804)\b[^;\n]*")
"""How ONNX Runtime says it, by CUDA's own numbers; behind it come names of hosts and files."""
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


def is_available(device: str) -> bool:
    """Whether ONNX Runtime is installed with the device's provider (its driver may still fail)."""
    try:
        return _PROVIDERS[device][0] in load().get_available_providers()
    except RuntimeNotInstalledError:
        return False


def open_session(bundle: Bundle, device: str, *, precision: str, threads: int | None) -> OrtSession:
    """Load the bundle's graph from its verified bytes; see `sessions.open_session`."""
    runtime = load()
    provider, provider_options = _PROVIDERS[device]
    if provider not in runtime.get_available_providers():
        raise RuntimeNotInstalledError(
            f"device {device!r}",
            found=f"onnxruntime {runtime.__version__} without {provider}",
            expected=f"an onnxruntime with {provider}",
            remedy=f"Uninstall onnxruntime, then {INSTALL[device]}.",
        )
    missing = _preload(runtime) if device == "cuda" else ""
    version = f"onnxruntime {runtime.__version__} {provider}"
    graph = graph_of(bundle, precision)
    data = require_whole(bundle, graph)
    try:
        session = runtime.InferenceSession(
            data,
            _options(runtime, device, threads),
            providers=[(provider, provider_options)],
            enable_fallback=0,  # else a failure prints to standard output and runs on the CPU
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        without_gpu = _WITHOUT_GPU.search(str(error))
        if without_gpu:
            raise _no_gpu(without_gpu[0], version) from error
        raise load_error(bundle, graph, str(error), version) from error
    used = session.get_providers()[0]
    if used != provider:
        raise RuntimeNotInstalledError(
            f"device {device!r}",
            found=f"that onnxruntime {runtime.__version__} took {used} instead{missing}",
            expected=provider,
            remedy=f"{INSTALL_CUDA_LIBRARIES} brings NVIDIA's libraries; the driver comes with "
            "the system. Or ask for another device.",
        )
    elsewhere = [] if device == "cpu" else _on_the_cpu(session)
    if elsewhere:
        raise DeviceError(
            f"{bundle.path}: {graph.file} on device {device!r}",
            found=f"that {version} leaves {', '.join(elsewhere)} to the CPU",
            expected="all that takes time on the GPU",
            remedy="Update onnxruntime-gpu, or ask for precision fp32, or for device cpu.",
        )
    inputs, outputs = _tensors(session.get_inputs()), _tensors(session.get_outputs())
    check_signature(bundle, graph, inputs, outputs)
    return OrtSession(session, graph, device, version)


def _on_the_cpu(session: Any) -> list[str]:
    """Name the operators that take time, and that ONNX Runtime placed on the CPU all the same."""
    placed = {
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == _PROVIDERS["cpu"][0]
        for node in part.get_nodes()
    }
    return sorted(placed & _TAKES_TIME)


def _no_gpu(reason: str, version: str) -> DeviceError:
    return DeviceError(
        "device 'cuda'",
        found=f"that {version} finds no GPU that works ({reason.strip()})",
        expected="an NVIDIA GPU with a driver for CUDA 13 or later (580 or later)",
        remedy="Install or update the driver, or use device cpu.",
        code="no_gpu",
    )


def _preload(runtime: Any) -> str:
    """Load NVIDIA's libraries from their Python packages, where the system has none of its own.

    Returns what could not be loaded, to be put behind what was found. ONNX Runtime prints it,
    and standard output belongs to the caller.
    """
    if not hasattr(runtime, "preload_dlls"):
        return ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(OSError, RuntimeError):
        runtime.preload_dlls()
    failures = [line for line in said.getvalue().splitlines() if line.startswith("Failed")]
    return f" ({failures[0]})" if failures else ""


def _options(runtime: Any, device: str, threads: int | None) -> Any:
    options = runtime.SessionOptions()
    if device != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.log_severity_level = 4  # failures come as exceptions; the log would go to stderr
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


class OrtSession:
    """A graph in ONNX Runtime; implements `sessions.Session`, and leaves its output unchecked."""

    def __init__(self, session: Any, graph: Graph, device: str, runtime: str) -> None:
        self._session = session
        self._graph = graph
        self.device = device
        self.runtime = runtime
        self.precision = graph.precision

    def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Run the graph; see `sessions.Session.run`."""
        session = self._session  # one look, so that a close in another thread cannot come between
        if session is None:
            raise closed_error(self._graph, self.runtime)
        check_inputs(self._graph, self.runtime, tensors)
        try:
            (embedding,) = session.run(None, dict(tensors))
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise run_error(self._graph, self.runtime, error) from error
        return np.asarray(embedding)

    def close(self) -> None:
        """Let go of the runtime's session; runs that are under way finish."""
        self._session = None


def load() -> Any:
    """Import onnxruntime so that it neither reports its use to its maker nor prepares to.

    From 1.29 on, its import alone writes a device's id below the user's cache folder and starts
    threads that send events over the network, unless ``ORT_DISABLE_TELEMETRY`` is set by then
    (github.com/microsoft/onnxruntime/pull/27379). On Windows the system collects its events, and
    only the call stops that. Where an application imported onnxruntime itself before, no more than
    the call is left to do. The variable stays set, for the processes that this one may start.

    Raises
    ------
    RuntimeNotInstalledError
        It is not installed, or does not load.
    RuntimeConflictError
        Two packages of it are installed over each other.
    """
    installed = _installed_packages()
    if len(installed) > 1:
        keep = "onnxruntime-gpu" if "onnxruntime-gpu" in installed else installed[-1]
        remove = [name for name in installed if name != keep]
        raise RuntimeConflictError(
            " and ".join(installed),
            found="both installed; they overwrite one another's files",
            expected="one of them",
            remedy=f"pip uninstall {' '.join(remove)}, then pip install --force-reinstall "
            f"--no-deps {keep} (to run on the CPU alone, keep onnxruntime instead).",
        )
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        runtime = importlib.import_module("onnxruntime")
    except (ImportError, OSError) as error:
        raise RuntimeNotInstalledError(
            "onnxruntime",
            found="that it does not load" if installed else "no inference runtime",
            expected="ONNX Runtime",
            remedy=f"{INSTALL['cpu']}, or for NVIDIA GPUs {INSTALL['cuda']}.",
        ) from error
    runtime.disable_telemetry_events()
    return runtime


def _installed_packages() -> list[str]:
    installed = []
    for name in _PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        installed.append(name)
    return installed


def _tensors(loaded: Any) -> list[Tensor]:
    """Describe a session's inputs or outputs as a manifest does."""
    return [
        Tensor(
            name=other.name,
            shape=tuple(size if isinstance(size, int) else str(size) for size in other.shape),
            dtype=_DTYPES.get(other.type, other.type),
        )
        for other in loaded
    ]
