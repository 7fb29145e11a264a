"""Which engine fits a graph on this machine, and why the others do not, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mammoclip_sdk.engines import flavour as flavours
from mammoclip_sdk.engines.builder import ANY, CURRENT
from mammoclip_sdk.engines.cache import Engine
from mammoclip_sdk.engines.cuda import Gpu, find_gpu
from mammoclip_sdk.engines.sidecar import Sidecar

_ANY_SINCE = (8, 0)
"""Compute capability from which on TensorRT for RTX builds for a GPU without being told."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides which engines can be used."""

    versions: Mapping[str, str]
    """Of the flavours that load, by name."""
    gpu: Gpu | None


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """Why an engine cannot be used."""

    text: str
    stale: bool
    """Whether it never will be on this machine as it is; else something is missing, no more."""


def this_machine() -> Machine:
    """Look at what is installed here."""
    versions = {flavour.name: flavour.version for flavour in flavours.installed()}
    return Machine(versions=versions, gpu=find_gpu())


def misfits(
    sidecar: Sidecar, machine: Machine, graphs: Iterable[str] | None = None
) -> list[Misfit]:
    """Say everything that keeps an engine from being used.

    Parameters
    ----------
    graphs
        SHA-256 of the graphs that are asked for; None where any will do.
    """
    found = []
    wanted = None if graphs is None else {*graphs}
    if wanted is not None and sidecar.graph_sha256 not in wanted:
        found.append(_stale(f"built from another graph ({sidecar.graph_sha256[:12]})"))
    version = machine.versions.get(sidecar.flavour)
    if version is None:
        text = f"{sidecar.flavour} is not installed, or does not load"
        found.append(Misfit(text=text, stale=False))
    elif version != sidecar.version:
        found.append(_stale(f"built by {sidecar.flavour} {sidecar.version}, here is {version}"))
    if machine.gpu is None:
        found.append(Misfit(text="no GPU that works here", stale=False))
    elif sidecar.target == CURRENT:
        found += _other_gpu(sidecar.gpu, machine.gpu)
    else:
        found += _other_target(sidecar.target, machine.gpu)
    return found


def is_active(sidecar: Sidecar, gpu: Gpu | None) -> bool:
    """Whether the golden exams agreed with this engine on this GPU and driver."""
    parity = None if gpu is None else sidecar.parity_on(gpu)
    return parity is not None and parity.passed


def best_first(engines: Iterable[Engine], gpu: Gpu | None) -> list[Engine]:
    """Sort engines that fit: proven before unproven before failed, then by flavour, then by age."""
    newest = sorted(engines, key=lambda engine: engine.sidecar.built, reverse=True)
    return sorted(newest, key=lambda engine: _rank(engine.sidecar, gpu))


def _rank(sidecar: Sidecar, gpu: Gpu | None) -> tuple[int, int]:
    parity = None if gpu is None else sidecar.parity_on(gpu)
    proof = 1 if parity is None else 0 if parity.passed else 2
    return proof, flavours.FLAVOURS.index(sidecar.flavour)


def _stale(text: str) -> Misfit:
    return Misfit(text=text, stale=True)


def _other_gpu(built_on: Gpu | None, here: Gpu) -> list[Misfit]:
    if built_on is None:
        return [_stale("built for one GPU, and does not say for which")]
    found = []
    if (built_on.name, built_on.compute_capability) != (here.name, here.compute_capability):
        found.append(
            _stale(
                f"built on {built_on.name} ({built_on.compute_capability}), here is {here.name} "
                f"({here.compute_capability})"
            )
        )
    if built_on.driver != here.driver:
        found.append(_stale(f"built with driver {built_on.driver}, here is {here.driver}"))
    return found


def _other_target(target: str, here: Gpu) -> list[Misfit]:
    major, minor = map(int, here.compute_capability.split("."))
    fits = (major, minor) >= _ANY_SINCE if target == ANY else target == f"sm{major}{minor}"
    if fits:
        return []
    text = f"built for target {target}, here is compute capability {here.compute_capability}"
    return [_stale(text)]
