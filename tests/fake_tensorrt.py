"""A TensorRT and a CUDA runtime of a few lines: they fail on command, and compute the tiny graph.

Memory of the fake GPU is memory of this process, so that addresses, copies and what was left from
the run before are as real as on a GPU. `test_fake_tensorrt` holds its names to the real ones.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import HEIGHT, SIZE, WIDTH, tiny_embedding

Severity = enum.Enum("Severity", {"ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4}, start=0)
Status = enum.IntEnum(
    "Status",
    {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2, "cudaErrorInsufficientDriver": 35,
     "cudaErrorNoDevice": 100, "cudaErrorIllegalAddress": 700},
)  # fmt: skip


@dataclass
class FakeCuda:
    """``cuda.bindings.runtime``: one GPU, whose memory is this process's."""

    name: str = "NVIDIA RTX A2000"
    capability: tuple[int, int] = (8, 6)
    driver: str = "580.95.05"
    fails: dict[str, Status] = field(default_factory=dict)
    memory: dict[int, Any] = field(default_factory=dict)
    called: list[str] = field(default_factory=list)
    current: int = 0
    used: set[int] = field(default_factory=set)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)  # noqa: N815

    def _answer(self, function: str, *answer: Any) -> tuple[Any, ...]:
        self.called.append(function)
        if function not in ("cudaGetDevice", "cudaSetDevice"):
            self.used.add(self.current)
        status = self.fails.get(function, Status.cudaSuccess)
        return (status, *answer) if status == Status.cudaSuccess else (status, None)

    def cudaGetErrorName(self, status: Status) -> tuple[int, bytes]:  # noqa: N802
        return 0, status.name.encode()

    def cudaGetErrorString(self, status: Status) -> tuple[int, bytes]:  # noqa: N802
        return 0, b"in other words"

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:  # noqa: N802
        return self._answer("cudaGetDeviceCount", 1)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        major, minor = self.capability
        name = self.name.encode() + b"\0" * 8
        found = SimpleNamespace(name=name, major=major, minor=minor)
        return self._answer("cudaGetDeviceProperties", found)

    def cudaGetDevice(self) -> tuple[Any, ...]:  # noqa: N802
        return self._answer("cudaGetDevice", self.current)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        self.current = device
        return self._answer("cudaSetDevice")

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        assert flags == 1, "the default stream serialises with everything else"
        return self._answer("cudaStreamCreateWithFlags", 77)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        return self._answer("cudaStreamSynchronize")

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        return self._answer("cudaStreamDestroy")

    def _allocate(self, function: str, size: int) -> tuple[Any, ...]:
        answer = self._answer(function, 0)
        if answer[0] != Status.cudaSuccess:
            return answer
        block = ctypes.create_string_buffer(b"\x55" * size, size)
        self.memory[ctypes.addressof(block)] = block
        return answer[0], ctypes.addressof(block)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        return self._allocate("cudaMalloc", size)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        return self._allocate("cudaMallocHost", size)

    def cudaFree(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        del self.memory[address]
        return self._answer("cudaFree")

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        del self.memory[address]
        return self._answer("cudaFreeHost")

    def cudaMemsetAsync(  # noqa: N802
        self, address: int, value: int, size: int, stream: int
    ) -> tuple[Any, ...]:
        assert size <= len(self.memory[address])
        ctypes.memset(address, value, size)
        return self._answer("cudaMemsetAsync")

    def cudaMemcpyAsync(  # noqa: N802
        self, to: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[Any, ...]:
        assert size <= len(self.memory[to])
        assert size <= len(self.memory[source])
        ctypes.memmove(to, source, size)
        return self._answer("cudaMemcpyAsync")


@dataclass
class FakeNvml:
    """``cuda.bindings.nvml``: the driver's version."""

    cuda: FakeCuda

    def init_v2(self) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def system_get_driver_version(self) -> str:
        return self.cuda.driver


class FakeTensorRT(ModuleType):
    """``tensorrt`` or ``tensorrt_rtx``.

    Attributes
    ----------
    fails
        What a function answers instead, by its name; it logs an error as it does so.
    writes
        Whether a run writes its output.
    built_on
        The GPU that was current when the last engine was built.
    OWN
        Names that are the fake's alone.
    """

    OWN = frozenset(
        ("rtx", "fails", "writes", "builds", "kernels_given", "timing_given", "config", "runs",
         "addresses", "logger", "cleared", "target", "built_on")
    )  # fmt: skip

    def __init__(self, name: str, version: str) -> None:
        super().__init__(name)
        self.rtx = name == "tensorrt_rtx"
        self.__version__ = version
        self.fails: dict[str, Any] = {}
        self.writes = True
        self.builds = 0
        self.built_on: int | None = None
        self.kernels_given: bytes | None = None
        self.timing_given: bytes | None = None
        self.config: SimpleNamespace | None = None
        self.runs: list[int] = []
        self.addresses: set[tuple[int, int]] = set()
        self.logger: Any = None
        self.ILogger = type("ILogger", (), {"__init__": lambda logger: None})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
        self.BuilderFlag = SimpleNamespace(TF32="TF32")
        self.LayerType = SimpleNamespace(ATTENTION_INPUT="attention")
        self.DataType = enum.Enum("DataType", "FLOAT HALF")
        self.Builder = self._builder
        self.OnnxParser = self._parser
        self.Runtime = self._runtime
        if self.rtx:
            self.ComputeCapability = enum.Enum("ComputeCapability", "NONE CURRENT SM75 SM86")
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
            self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
            self.EngineInvalidityDiagnostics = enum.IntFlag(
                "EngineInvalidityDiagnostics", "VERSION_MISMATCH UNSUPPORTED_CC"
            )

    def _or_fail(self, function: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if function not in self.fails:
                return answer(*arguments)
            self.logger.log(Severity.ERROR, f"{function} went wrong: error code 4")
            if isinstance(self.fails[function], Exception):
                raise self.fails[function]
            return self.fails[function]

        return call

    def _builder(self, logger: Any) -> Any:
        self.logger = logger
        return SimpleNamespace(
            create_network=self._or_fail("create_network", self._network),
            create_builder_config=self._or_fail("create_builder_config", self._new_config),
            create_optimization_profile=lambda: SimpleNamespace(
                set_shape=self._or_fail(
                    "set_shape", lambda *shapes: setattr(self.config, "shapes", shapes)
                )
            ),
            build_serialized_network=self._or_fail("build_serialized_network", self._build),
        )

    def _network(self, flags: int) -> Any:
        assert flags == 1
        tensors = [
            SimpleNamespace(name=name, shape=shape, dtype=self.DataType.FLOAT)
            for name, shape in (
                ("views", (-1, 4, 1, HEIGHT, WIDTH)),
                ("embedding", (-1, SIZE)),
            )
        ]
        return SimpleNamespace(
            num_inputs=1,
            num_outputs=1,
            num_layers=0,
            get_input=lambda _: tensors[0],
            get_output=lambda _: tensors[1],
        )

    def _parser(self, network: Any, logger: Any) -> Any:
        return SimpleNamespace(parse=self._or_fail("parse", lambda data: len(data) > 0))

    def _new_config(self) -> SimpleNamespace:
        self.config = SimpleNamespace(
            cleared=[],
            target=None,
            clear_flag=lambda flag: self.config.cleared.append(flag),
            add_optimization_profile=self._or_fail("add_optimization_profile", lambda profile: 0),
            set_compute_capability=lambda target, index: (
                setattr(self.config, "target", target) or True
            ),
            create_timing_cache=lambda data: setattr(self, "timing_given", data) or "timings",
            set_timing_cache=lambda cache, ignore: True,
            get_timing_cache=self._or_fail(
                "get_timing_cache", lambda: SimpleNamespace(serialize=lambda: b"timings")
            ),
        )
        return self.config

    def _build(self, network: Any, config: Any) -> bytes:
        self.builds += 1
        self.built_on = sys.modules["cuda.bindings.runtime"].current
        self.logger.log(Severity.INFO, "Engine generation completed")
        return json.dumps({"fake": self.builds, "shapes": config.shapes}).encode()

    def _runtime(self, logger: Any) -> Any:
        self.logger = logger
        runtime = SimpleNamespace(
            deserialize_cuda_engine=self._or_fail("deserialize_cuda_engine", self._engine),
        )
        if self.rtx:
            runtime.engine_header_size = 8
            validity = SimpleNamespace(name="VALID"), 0
            runtime.get_engine_validity = self._or_fail(
                "get_engine_validity", lambda header: validity
            )
        return runtime

    def _engine(self, plan: bytes) -> Any:
        names = ["views", "embedding"]
        shapes = {"views": (-1, 4, 1, HEIGHT, WIDTH), "embedding": (-1, SIZE)}
        engine = SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=lambda place: names[place],
            get_tensor_shape=lambda name: shapes[name],
            get_tensor_dtype=lambda name: self.DataType.FLOAT,
            create_execution_context=self._or_fail("create_execution_context", self._context),
        )
        if self.rtx:
            engine.create_runtime_config = self._runtime_config
        return engine

    def _runtime_config(self) -> Any:
        def take(kernels: bytes) -> bool:
            self.kernels_given = kernels
            return True

        runtime_cache = SimpleNamespace(
            deserialize=self._or_fail("deserialize", take), serialize=lambda: b"kernels"
        )
        self.config = SimpleNamespace(
            create_runtime_cache=lambda: runtime_cache,
            set_runtime_cache=self._or_fail("set_runtime_cache", lambda cache: True),
        )
        return self.config

    def _context(self, *config: Any) -> Any:
        state: dict[str, Any] = {}

        def execute(stream: int) -> bool:
            batch = state["shape"][0]
            self.addresses.add((state["views"], state["embedding"]))
            self.runs.append(batch)
            if self.writes:
                views = _floats(state["views"], state["shape"])
                _floats(state["embedding"], (batch, SIZE))[...] = tiny_embedding(views)
            return True

        def put(name: str, value: Any) -> bool:
            state[name] = value
            return True

        return SimpleNamespace(
            set_input_shape=self._or_fail("set_input_shape", lambda _, s: put("shape", s)),
            set_tensor_address=self._or_fail("set_tensor_address", put),
            execute_async_v3=self._or_fail("execute_async_v3", execute),
        )


def _floats(address: int, shape: tuple[int, ...]) -> Any:
    memory = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(memory).reshape(shape)


def install(
    monkeypatch: pytest.MonkeyPatch, *flavours: FakeTensorRT, cuda: FakeCuda | None
) -> None:
    """Let these flavours alone be installed; without ``cuda``, on a machine without a GPU."""
    modules = {"tensorrt": None, "tensorrt_rtx": None, "tensorrt_rtx_bindings": None}
    modules |= {flavour.__name__: flavour for flavour in flavours}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    cuda = cuda or FakeCuda(fails={"cudaGetDeviceCount": Status.cudaErrorNoDevice})
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", FakeNvml(cuda))
