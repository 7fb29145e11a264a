"""Which flavour of TensorRT and which GPU are here, and what to do where there is none."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import fake_tensorrt
import pytest
from fake_tensorrt import FakeCuda, FakeTensorRT, Severity, Status

from mammoclip_sdk.engines import cuda as gpus
from mammoclip_sdk.engines import flavour as flavours
from mammoclip_sdk.errors import DeviceError, EngineError, RuntimeNotInstalledError

# -- what is installed ----------------------------------------------------------------------------


def test_full_tensorrt_that_is_absent_names_nvidias_index_and_the_other_flavour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_tensorrt.install(monkeypatch, cuda=None)
    with pytest.raises(RuntimeNotInstalledError) as caught:
        flavours.load("tensorrt")
    assert "NVIDIA's own package index" in caught.value.remedy
    assert "--flavour tensorrt_rtx" in caught.value.remedy
    assert "://" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "modules"),
    [("tensorrt", ["tensorrt"]), ("tensorrt_rtx", ["tensorrt_rtx", "tensorrt_rtx_bindings"])],
)
def test_a_package_without_its_libraries_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, modules: list[str]
) -> None:
    for module in modules:
        reason = "libnvinfer.so.11: cannot open shared object file"
        (tmp_path / f"{module}.py").write_text(f"raise ImportError({reason!r})")
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec(name) is not None
    with pytest.raises(RuntimeNotInstalledError, match="cannot open shared object file"):
        flavours.load(name)


@pytest.mark.parametrize(
    ("version", "fits"), [("10.13.3.9", False), ("10.14", True), ("10.14.1.48", True)]
)
def test_a_flavour_that_is_too_old_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, version: str, fits: bool
) -> None:
    fake_tensorrt.install(monkeypatch, FakeTensorRT("tensorrt", version), cuda=None)
    if fits:
        assert flavours.load("tensorrt").version == version
        return
    with pytest.raises(RuntimeNotInstalledError, match=f"found version {version}"):
        flavours.load("tensorrt")


def test_the_bindings_alone_are_rtx_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = FakeTensorRT("tensorrt_rtx_bindings", "1.7.1.116")
    fake_tensorrt.install(monkeypatch, bindings, cuda=None)
    assert flavours.load("tensorrt_rtx").module is bindings


def test_an_error_repeats_the_warnings_of_its_own_call_and_information_where_there_is_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeTensorRT("tensorrt", "11.4.0.106")
    fake_tensorrt.install(monkeypatch, fake, cuda=None)
    flavour = flavours.load("tensorrt")
    flavour.logger.log(Severity.ERROR, "before")

    def say(*severities: Severity) -> None:
        for severity in severities:
            flavour.logger.log(severity, severity.name.lower())

    for said, repeated in (
        ((Severity.INFO, Severity.WARNING, Severity.ERROR), "WARNING: warning | ERROR: error"),
        ((Severity.VERBOSE, Severity.INFO), "INFO: info"),
        ((), "nothing"),
    ):
        with pytest.raises(EngineError) as caught:
            flavour.call("do it", say, *said)
        assert caught.value.found.endswith(f"(it answered None); its log says: {repeated}")


# -- the GPU --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "status"),
    [
        ("cudaGetDeviceCount", Status.cudaErrorNoDevice),
        ("cudaGetDeviceCount", Status.cudaErrorInsufficientDriver),
        ("cudaGetDeviceProperties", Status.cudaErrorIllegalAddress),
    ],
)
def test_without_a_usable_gpu_the_reason_is_cudas(
    monkeypatch: pytest.MonkeyPatch, function: str, status: Status
) -> None:
    fake_tensorrt.install(monkeypatch, cuda=FakeCuda(fails={function: status}))
    with pytest.raises(DeviceError, match=status.name) as caught:
        gpus.current_gpu()
    assert caught.value.code == "no_gpu"
    assert gpus.find_gpu() is None


def test_the_gpu_is_named_with_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch, cuda=FakeCuda(capability=(12, 0), driver="590.10"))
    assert gpus.current_gpu() == gpus.Gpu(
        name="NVIDIA RTX A2000", compute_capability="12.0", driver="590.10"
    )


def test_without_cuda_bindings_the_remedy_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(RuntimeNotInstalledError, match="cuda-bindings"):
        gpus.current_gpu()
