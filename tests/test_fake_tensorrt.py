"""The fakes have no name that the real TensorRT for RTX and CUDA lack."""

from __future__ import annotations

from types import ModuleType

import pytest
from fake_tensorrt import FakeCuda, FakeTensorRT, Status
from tensorrt_here import RTX, needs_rtx


@needs_rtx
def test_the_fake_tensorrt_has_no_name_that_the_real_one_lacks() -> None:
    real: ModuleType = RTX.module
    fake = FakeTensorRT("tensorrt_rtx", RTX.version)
    builder = fake.Builder(fake.ILogger())
    config = builder.create_builder_config()
    engine = fake._engine(b"")
    runtime_config = fake._runtime_config()
    pairs = [
        (fake, real),
        (builder, real.Builder),
        (config, real.IBuilderConfig),
        (builder.create_network(1), real.INetworkDefinition),
        (fake.OnnxParser(None, None), real.OnnxParser),
        (fake.Runtime(fake.logger), real.Runtime),
        (engine, real.ICudaEngine),
        (engine.create_execution_context(), real.IExecutionContext),
        (runtime_config, real.IRuntimeConfig),
        (runtime_config.create_runtime_cache(), real.IRuntimeCache),
    ]
    for imitation, model in pairs:
        names = {name for name in vars(imitation) if not name.startswith("_")} - FakeTensorRT.OWN
        assert {name for name in names if not hasattr(model, name)} == set()


def test_the_fake_cuda_has_no_function_that_the_real_one_lacks() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    functions = {name for name in dir(FakeCuda) if name.startswith("cuda")}
    assert {name for name in functions if not hasattr(real, name)} == set()
    assert {status.name: int(status) for status in Status} == {
        status.name: int(getattr(real.cudaError_t, status.name)) for status in Status
    }
    assert int(real.cudaMemcpyKind.cudaMemcpyDefault) == FakeCuda.cudaMemcpyKind.cudaMemcpyDefault
