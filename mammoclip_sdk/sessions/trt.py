"""TensorRT and TensorRT for RTX: an engine that was built before, on the GPU it fits.

Nothing is built here: a bundle without an engine for this machine is an error that says how one is
built. The plan is loaded from the bytes that were hashed.

One execution context and one stream serve all threads, one run after the other: the GPU would not
run them faster side by side, and each further context takes the memory of a whole batch.
"""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk import engines as cached
from mammoclip_sdk.bundle import Bundle, Graph
from mammoclip_sdk.bundle.graphs import check_inputs, closed_error, graph_of
from mammoclip_sdk.engines import Engine, Gpu, Parity, cache
from mammoclip_sdk.engines.cuda import Buffer, Stream, current_gpu, first_gpu
from mammoclip_sdk.engines.flavour import RTX, Flavour, load
from mammoclip_sdk.engines.folder import keep, kept
from mammoclip_sdk.errors import EngineError, InferenceError


def available(bundle: Bundle, precision: str, engines: Path | None = None) -> bool:
    """Whether an engine fits here whose golden exams agreed on this GPU; never raises."""
    return cached.is_active(bundle, precision, engines)


def open_session(bundle: Bundle, *, precision: str, engines: Path | None = None) -> TrtSession:
    """Load the engine of a bundle's graph that fits this machine.

    Raises
    ------
    RuntimeNotInstalledError
        Neither flavour of TensorRT is installed, or cuda-bindings is not.
    EngineError
        There is no engine that fits, it is not the one that was built, or TensorRT refuses it.
    DeviceError
        There is no GPU, or no graph of the precision.
    InferenceError
        CUDA failed.
    """
    return open_engine(bundle, cached.find(bundle, precision, engines))


def open_engine(bundle: Bundle, engine: Engine) -> TrtSession:
    """Load an engine of one of the bundle's graphs; raises as `open_session` does."""
    graph = graph_of(bundle, engine.sidecar.precision)
    if engine.sidecar.graph_sha256 != graph.sha256:
        raise EngineError(
            str(engine.plan),
            found=f"an engine of another graph ({engine.sidecar.graph_sha256[:12]})",
            expected=f"one of {graph.file} ({graph.sha256[:12]})",
            remedy="Build one of this bundle.",
            code="engine_stale",
        )
    plan = cache.read_plan(engine)
    return TrtSession(load(engine.sidecar.flavour), engine, plan, graph, current_gpu())


def record_parity(
    session: object, *, exams: int, worst_difference: float | None, tolerance: float
) -> None:
    """Write what the golden exams gave into the sidecar of the session's engine.

    This makes the engine active, or not, for this GPU and driver. A session without an engine is
    left alone. Where the folder cannot be written to, a warning says that the engine stays as it
    was: what this session answers is not affected.
    """
    engine, gpu = getattr(session, "engine", None), getattr(session, "gpu", None)
    if not isinstance(engine, Engine) or not isinstance(gpu, Gpu):
        return
    parity = Parity(gpu=gpu, exams=exams, worst_difference=worst_difference, tolerance=tolerance)
    try:
        cache.record(engine, parity)
    except EngineError as error:
        warnings.warn(
            f"The golden exams ran, but the engine's sidecar does not say so: {error}",
            RuntimeWarning,
            stacklevel=2,
        )


class TrtSession:
    """An engine on the GPU; implements `sessions.Session`, and leaves its output unchecked."""

    device = "tensorrt"

    def __init__(
        self, flavour: Flavour, engine: Engine, plan: bytes, graph: Graph, gpu: Gpu
    ) -> None:
        self.engine = engine
        self.gpu = gpu
        self.runtime = flavour.runtime
        self.precision = graph.precision
        self._flavour = flavour
        self._graph = graph
        self._size = tuple(int(size) for size in graph.outputs[0].shape[1:])
        self._lock = threading.Lock()
        self._runtime: Any = None  # it must outlive the engine, and that the context
        self._engine: Any = None
        self._context: Any = None
        self._cache: Any = None  # of kernels, in the flavour that compiles them as it runs
        self._kernels: bytes | None = None
        self._buffers: dict[str, Buffer] = {}
        with first_gpu(), contextlib.ExitStack() as undo:
            self._stream = Stream()
            undo.callback(self._stream.close)
            self._load(plan)
            for tensor in (*graph.inputs, *graph.outputs):
                rest = math.prod(int(size) for size in tensor.shape[1:])
                buffer = Buffer(self._stream, engine.sidecar.max_batch * rest * 4)
                undo.callback(buffer.close)
                self._buffers[tensor.name] = buffer
            self._memory = undo.pop_all()

    def run(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Run the engine, in as many runs as the batch takes; see `sessions.Session.run`."""
        check_inputs(self._graph, self.runtime, tensors)
        with self._lock:
            if self._context is None:
                raise closed_error(self._graph, self.runtime)
            with first_gpu():
                return self._batches(tensors)

    def close(self) -> None:
        """Free the GPU's memory; a run that is under way finishes first."""
        with self._lock:
            if self._context is None:
                return
            with first_gpu():
                self._keep_kernels()
                self._context = self._cache = self._engine = self._runtime = None
                self._memory.close()

    def _load(self, plan: bytes) -> None:
        trt, call = self._flavour.module, self._flavour.call
        self._runtime = call("make a runtime", trt.Runtime, self._flavour.logger)
        self._check_validity(plan)
        self._engine = call("load the engine", self._runtime.deserialize_cuda_engine, plan)
        self._check_tensors()
        if self._flavour.name != RTX:
            self._context = call("make a context", self._engine.create_execution_context)
            return
        config = call("make a configuration", self._engine.create_runtime_config)
        self._configure(config)
        self._context = call("make a context", self._engine.create_execution_context, config)

    def _check_validity(self, plan: bytes) -> None:
        """Let TensorRT for RTX say why it will not run an engine, before it merely does not."""
        if not hasattr(self._runtime, "get_engine_validity"):
            return
        start = self._flavour.log.position
        header = plan[: self._runtime.engine_header_size]
        validity, diagnostics = self._flavour.call(
            "read the engine's header", self._runtime.get_engine_validity, header
        )
        if validity.name == "INVALID":
            kinds = self._flavour.module.EngineInvalidityDiagnostics.__members__
            names = [name for name, kind in kinds.items() if int(kind) & int(diagnostics)]
            said = " | ".join(self._flavour.log.since(start)) or "nothing"
            raise EngineError(
                f"{self.engine.plan} on {self.gpu.name}",
                found=f"that {self.runtime} does not run it here "
                f"({', '.join(names) or 'no reason given'}); its log says: {said}",
                expected="an engine that it does",
                remedy="Build it again on this machine, with --target current; or use device "
                "cuda or cpu.",
            )

    def _check_tensors(self) -> None:
        """Compare the loaded engine with the manifest, once more: it is what runs."""
        engine = self._engine
        names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        found = {
            name: (tuple(engine.get_tensor_shape(name))[1:], engine.get_tensor_dtype(name).name)
            for name in names
        }
        promised = {
            tensor.name: (tensor.shape[1:], "FLOAT")
            for tensor in (*self._graph.inputs, *self._graph.outputs)
        }
        if found != promised:
            raise EngineError(
                str(self.engine.plan),
                found=f"tensors {found}",
                expected=f"those of the manifest, {promised}",
                remedy="mammoclip-sdk engine prune, and build it again.",
                code="engine_damaged",
            )

    def _configure(self, config: Any) -> None:
        """Set what TensorRT for RTX does when it runs.

        Kernels for a new batch size are compiled before its first run, not behind it: otherwise
        those that the golden exams agreed with would be exchanged for others later on.
        """
        trt, call = self._flavour.module, self._flavour.call
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._cache = call("make a cache of kernels", config.create_runtime_cache)
        self._kernels = kept(self.engine.kernels(self.gpu))
        if self._kernels is not None and not self._cache.deserialize(self._kernels):
            self._kernels = None  # of another driver, say; TensorRT compiles them anew
        call("take the cache of kernels", config.set_runtime_cache, self._cache)

    def _keep_kernels(self) -> None:
        """Spare the next session the compilation, where there is room to."""
        if self._cache is None:
            return
        memory = self._cache.serialize()
        kernels = None if memory is None else bytes(memory)
        if kernels is None or kernels == self._kernels:
            return
        with contextlib.suppress(EngineError):  # costs the next session time, and nothing else
            keep(self.engine.kernels(self.gpu), kernels)

    def _batches(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        batch, most = len(next(iter(tensors.values()))), self.engine.sidecar.max_batch
        embeddings = np.full((batch, *self._size), np.nan, np.float32)
        for start in range(0, batch, most):
            part = slice(start, start + most)
            embeddings[part] = self._run({name: t[part] for name, t in tensors.items()})
        return embeddings

    def _run(self, tensors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        context = self._context
        for name, array in tensors.items():
            self._buffers[name].upload(array)
            self._call(f"take the shape of {name}", context.set_input_shape, name, array.shape)
        shape = (len(array), *self._size)
        output = self._buffers[self._graph.outputs[0].name]
        output.clear(math.prod(shape) * 4)
        for name, buffer in self._buffers.items():
            self._call(f"take {name}", context.set_tensor_address, name, buffer.address)
        self._call("run the engine", context.execute_async_v3, self._stream.handle)
        return output.download(shape)

    def _call(self, what: str, function: Any, *arguments: Any) -> None:
        self._flavour.call(what, function, *arguments, error=InferenceError)
