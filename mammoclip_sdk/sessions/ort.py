"""ONNX Runtime, on CPU or CUDA; the sole importer of onnxruntime.

ONNX Runtime falls back to the CPU without an error when CUDA does not load, and rounds float32 to
TF32 on the GPU unless told otherwise. Here the first is an error, the second is switched off.
It also takes weights that a graph keeps in another file from the current folder, where nobody
hashed them: here there is no such folder.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle, Graph, Tensor
from mammoclip_sdk.errors import (
    BundleFormatError,
    InferenceError,
    RuntimeConflictError,
    RuntimeNotInstalledError,
)

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
_NO_FOLDER = f"{os.devnull}/none"
"""Cannot exist: the folder for weights outside the graph."""
_PREFERENCE = ("fp32", "fp16", "int8")
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


def is_available(device: str) -> bool:
    """Whether ONNX Runtime is installed with the device's provider (its driver may still fail)."""
    try:
        return _PROVIDERS[device][0] in _import().get_available_providers()
    except RuntimeNotInstalledError:
        return False


def open_session(bundle: Bundle, device: str, *, threads: int | None) -> OrtSession:
    """Load the bundle's graph from its verified bytes; see `sessions.open_session`."""
    runtime = _import()
    provider, provider_options = _PROVIDERS[device]
    if provider not in runtime.get_available_providers():
        raise RuntimeNotInstalledError(
            f"device {device!r}",
            found=f"onnxruntime {runtime.__version__} without {provider}",
            expected=f"an onnxruntime with {provider}",
            remedy=f"Uninstall onnxruntime, then {INSTALL[device]}.",
        )
    missing = _preload(runtime) if device == "cuda" else ""
    graph = min(bundle.manifest.graphs, key=lambda graph: _PREFERENCE.index(graph.precision))
    try:
        session = runtime.InferenceSession(
            bundle.files[graph.file],
            _options(runtime, threads),
            providers=[(provider, provider_options)],
            enable_fallback=0,  # else a failure prints to standard output and runs on the CPU
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise _load_error(bundle, graph, str(error)) from error
    used = session.get_providers()[0]
    if used != provider:
        raise RuntimeNotInstalledError(
            f"device {device!r}",
            found=f"that onnxruntime {runtime.__version__} took {used} instead{missing}",
            expected=provider,
            remedy=f"{INSTALL_CUDA_LIBRARIES} brings NVIDIA's libraries; the driver comes with "
            "the system. Or ask for another device.",
        )
    _check_signature(bundle, graph, session)
    return OrtSession(session, graph, device, f"onnxruntime {runtime.__version__} {provider}")


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


def _options(runtime: Any, threads: int | None) -> Any:
    options = runtime.SessionOptions()
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
            raise self._error("a closed session", "an open one", "Open another session.")
        self._check_inputs(tensors)
        try:
            (embedding,) = session.run(None, dict(tensors))
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise self._error(
                f"a failure inside ONNX Runtime ({error})", "an embedding", "Check free memory."
            ) from error
        return np.asarray(embedding)

    def close(self) -> None:
        """Let go of the runtime's session; runs that are under way finish."""
        self._session = None

    def _check_inputs(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        wanted = {tensor.name: tensor for tensor in self._graph.inputs}
        found = {name: (value.dtype.name, value.shape) for name, value in tensors.items()}
        sizes = {value.shape[:1] for value in tensors.values()}
        fits = found.keys() == wanted.keys() and all(
            dtype == wanted[name].dtype and _fits(shape, wanted[name].shape)
            for name, (dtype, shape) in found.items()
        )
        if not fits or len(sizes) != 1:
            expected = {t.name: (t.dtype, t.shape) for t in self._graph.inputs}
            raise self._error(f"inputs {found}", f"{expected}", "Build them with tensor.build.")

    def _error(self, found: str, expected: str, remedy: str) -> InferenceError:
        subject = f"{self._graph.file} on {self.runtime}"
        return InferenceError(subject, found=found, expected=expected, remedy=remedy)


def _import() -> Any:
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
    try:
        return importlib.import_module("onnxruntime")
    except (ImportError, OSError) as error:
        raise RuntimeNotInstalledError(
            "onnxruntime",
            found="that it does not load" if installed else "no inference runtime",
            expected="ONNX Runtime",
            remedy=f"{INSTALL['cpu']}, or for NVIDIA GPUs {INSTALL['cuda']}.",
        ) from error


def _installed_packages() -> list[str]:
    installed = []
    for name in _PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        installed.append(name)
    return installed


def _load_error(bundle: Bundle, graph: Graph, reason: str) -> InferenceError:
    return InferenceError(
        f"{bundle.path}: {graph.file}",
        found=f"a graph that ONNX Runtime does not load ({reason})",
        expected=f"a graph of opset {graph.opset} that it knows",
        remedy="Update onnxruntime, or export the bundle for an older opset.",
    )


def _check_signature(bundle: Bundle, graph: Graph, session: Any) -> None:
    for what, promised, loaded in (
        ("inputs", graph.inputs, session.get_inputs()),
        ("outputs", graph.outputs, session.get_outputs()),
    ):
        same = len(promised) == len(loaded) and all(
            _same_tensor(tensor, other) for tensor, other in zip(promised, loaded, strict=True)
        )
        if not same:
            raise BundleFormatError(
                f"{bundle.path}: {graph.file}",
                found=f"{what} {[(o.name, tuple(o.shape), o.type) for o in loaded]}",
                expected=f"those of the manifest, {[(t.name, t.shape, t.dtype) for t in promised]}",
                remedy="Make the bundle again with the exporter of this version.",
            )


def _same_tensor(promised: Tensor, loaded: Any) -> bool:
    free = [size if isinstance(size, int) else None for size in promised.shape]
    found = [size if isinstance(size, int) else None for size in loaded.shape]
    dtype = _DTYPES.get(loaded.type, loaded.type)
    return (promised.name, promised.dtype, free) == (loaded.name, dtype, found)


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(size, str) or size == found for found, size in zip(shape, wanted, strict=True)
    )
