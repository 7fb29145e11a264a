"""Device engines of a bundle that has been written: they stay on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from export.settings import ExportConfig
from export.stages import Stages
from mammoclip_sdk import engines
from mammoclip_sdk.bundle import Bundle, read_bundle
from mammoclip_sdk.engines import flavour as flavours
from mammoclip_sdk.engines.sidecar import Sidecar
from mammoclip_sdk.golden import prove


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """An engine, and what its parity was found to be."""

    sidecar: Sidecar
    path: str


def require_flavours(config: ExportConfig) -> None:
    """Refuse, before hours of work, to build with what is not installed.

    Raises
    ------
    RuntimeNotInstalledError
    """
    for name in config.engines:
        flavours.load(name)


def build_engines(config: ExportConfig, stages: Stages) -> tuple[BuiltEngine, ...]:
    """Build every engine that was asked for; where there is a GPU, run the golden exams on it.

    Raises
    ------
    EngineError, DeviceError
        An engine cannot be built, or the golden exams do not agree on this GPU.
    """
    if not config.engines:
        return ()
    bundle = read_bundle(config.out)
    return tuple(_build(bundle, name, config, stages) for name in config.engines)


def _build(bundle: Bundle, name: str, config: ExportConfig, stages: Stages) -> BuiltEngine:
    precision = "fp16" if "fp16" in config.precisions else "fp32"
    with stages(f"engine {name}"):
        built = engines.build(
            bundle, flavour=name, precision=precision, engines=config.engine_folder
        )
        engine = prove(bundle, built)
    sidecar = engine.sidecar
    stages.say(
        f"{sidecar.flavour} {sidecar.version}, {sidecar.precision}: {engine.plan}, "
        f"{sidecar.plan_bytes / 2**20:.0f} MiB, parity: {sidecar.parity}"
    )
    return BuiltEngine(sidecar=sidecar, path=str(engine.plan))
