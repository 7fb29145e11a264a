"""Device engines: graphs built by TensorRT or TensorRT for RTX, for the GPUs of this machine.

An engine is native code, fits one version of one flavour and few GPUs, and is never shipped. It is
built here from the bundle's verified graph, kept in a folder beside a sidecar that says everything
about it, and active only after the bundle's golden exams agreed on the GPU. Nothing in this
package builds one unless `build` is called.
"""

from __future__ import annotations

import importlib.metadata
import shlex
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from mammoclip_sdk.bundle import Bundle, Graph, sha256
from mammoclip_sdk.bundle.graphs import graph_of, has_graph
from mammoclip_sdk.engines import cache, matching
from mammoclip_sdk.engines import flavour as flavours
from mammoclip_sdk.engines.builder import CURRENT, PRECISIONS, Plan, Settings, build_plan
from mammoclip_sdk.engines.cache import Engine, Entry
from mammoclip_sdk.engines.cuda import Gpu, current_gpu, find_gpu, first_gpu
from mammoclip_sdk.engines.flavour import FLAVOURS, RTX, Flavour
from mammoclip_sdk.engines.folder import delete, engines_folder, keep, kept
from mammoclip_sdk.engines.matching import Machine, Misfit
from mammoclip_sdk.engines.sidecar import NOT_RUN, SIDECAR_SCHEMA, Parity, Sidecar
from mammoclip_sdk.errors import DeviceError, EngineError, MammoClipError

__all__ = [
    "FLAVOURS",
    "PRECISIONS",
    "Engine",
    "Gpu",
    "Parity",
    "Removed",
    "Sidecar",
    "Status",
    "build",
    "build_command",
    "engines_folder",
    "find",
    "find_all",
    "find_gpu",
    "is_active",
    "prune",
    "status",
    "survey",
]


@dataclass(frozen=True, kw_only=True)
class Status:
    """An entry of the folder of engines, as this machine sees it."""

    entry: Entry
    misfits: tuple[Misfit, ...]
    """Why it cannot be used here; empty where it can."""
    parity: Parity | None
    """What the golden exams gave on this GPU and driver; None where they did not run."""

    @property
    def active(self) -> bool:
        """Whether it can be used, and the golden exams agreed."""
        return not self.misfits and self.parity is not None and self.parity.passed


@dataclass(frozen=True, kw_only=True)
class Removed:
    """A file that was removed from the folder of engines, and why."""

    path: Path
    reason: str


def build(
    bundle: Bundle,
    *,
    flavour: str,
    precision: str = "fp16",
    engines: Path | None = None,
    max_batch: int = 32,
    optimum_batch: int = 1,
    level: int = 3,
    target: str | None = None,
) -> Engine:
    """Build an engine of a bundle's graph, and put it into the folder of engines.

    TensorRT for RTX needs no GPU for it. It takes seconds there, and minutes with TensorRT, which
    tries kernels out. The golden exams are not run here: whoever opens a session on the engine
    does (`golden.require_golden`).

    Parameters
    ----------
    flavour
        ``tensorrt`` or ``tensorrt_rtx``.
    precision
        Of the bundle's graph, ``fp16`` or ``fp32``.
    engines
        The folder; None takes MAMMOCLIP_ENGINES, or the user's own cache.
    max_batch, optimum_batch, level, target
        See `builder.Settings`.

    Raises
    ------
    DeviceError
        No graph of that precision, settings that contradict one another; TensorRT without a GPU.
    RuntimeNotInstalledError
        The flavour is not installed.
    BundleFormatError, InferenceError
        The graph is not the one that the manifest describes, or not whole.
    EngineError
        TensorRT failed, with its log; or the disk refused. Nothing new is left behind.
    """
    if precision not in PRECISIONS:
        raise DeviceError(
            f"engine in precision {precision!r}",
            found="no precision that engines are built in",
            expected=f"one of {', '.join(PRECISIONS)}",
            remedy="Name one of them; devices openvino and cpu run others without an engine.",
        )
    graph = graph_of(bundle, precision)
    settings = Settings(
        max_batch=max_batch, optimum_batch=optimum_batch, level=level, target=target
    )
    chosen = flavours.load(flavour)
    needs_gpu = chosen.name != RTX or target == CURRENT
    gpu = current_gpu() if needs_gpu else find_gpu()
    folder = engines_folder(engines)
    timings = folder / f"timing-{sha256(f'{chosen.runtime} {gpu}'.encode())[:16]}.cache"
    with first_gpu() if needs_gpu else nullcontext():
        plan = build_plan(chosen, bundle, graph, settings, timing=kept(timings))
    if plan.timing is not None:
        keep(timings, plan.timing)
    return cache.store(folder, _sidecar(bundle, graph, chosen, gpu, plan, level), plan.data)


def _sidecar(
    bundle: Bundle, graph: Graph, chosen: Flavour, gpu: Gpu | None, plan: Plan, level: int
) -> Sidecar:
    """Describe an engine that was just built; its file is described where it is stored."""
    return Sidecar(
        schema=SIDECAR_SCHEMA,
        graph_sha256=graph.sha256,
        precision=graph.precision,
        flavour=chosen.name,
        version=chosen.version,
        gpu=gpu,
        target=plan.target,
        flags=plan.flags,
        level=level,
        profiles=plan.profiles,
        bundle=f"{bundle.manifest.name} {bundle.manifest.version}",
        plan_file="",
        plan_sha256="",
        plan_bytes=0,
        built=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        build_seconds=plan.seconds,
        sdk_version=importlib.metadata.version("mammoclip-sdk"),
        build_log=plan.log,
        parity=f"{NOT_RUN} ({'no GPU' if gpu is None else 'runs at first load'})",
        golden=(),
    )


def find(bundle: Bundle, precision: str, engines: Path | None = None) -> Engine:
    """Return the engine that a session on this machine takes; active ones go before others.

    Raises what `find_all` does.
    """
    return find_all(bundle, precision, engines)[0]


def find_all(bundle: Bundle, precision: str, engines: Path | None = None) -> tuple[Engine, ...]:
    """Return every engine of a graph that can be used on this machine, the best first.

    Raises
    ------
    RuntimeNotInstalledError, DeviceError
        No flavour of TensorRT is installed, there is no GPU, or no graph of the precision.
    EngineError
        ``engine_missing``: none fits. The message says why those that are there do not, and how
        one is built.
    """
    graph = graph_of(bundle, precision)
    machine = matching.this_machine()
    if not machine.versions:
        raise flavours.none_installed()
    gpu = current_gpu()
    fitting, others = [], []
    for one in survey(engines):
        engine, words = one.entry.engine, ", ".join(misfit.text for misfit in one.misfits)
        if engine is None or (engine.sidecar.graph_sha256 == graph.sha256 and words):
            others.append(f"{one.entry.path.name}: {words}")
        elif engine.sidecar.graph_sha256 == graph.sha256:
            fitting.append(engine)
    if fitting:
        return tuple(matching.best_first(fitting, gpu))
    name = RTX if RTX in machine.versions else FLAVOURS[0]
    raise EngineError(
        f"{bundle.path}: {precision} engine for {gpu.name}",
        found=f"none in {engines_folder(engines)}" + (f" ({'; '.join(others)})" if others else ""),
        expected="an engine that was built for this graph and this machine",
        remedy=f"Build it: {build_command(bundle, name, precision, engines)}",
        code="engine_missing",
    )


def build_command(bundle: Bundle, flavour: str, precision: str, engines: Path | None) -> str:
    """Return the command that builds an engine, as it is typed into a shell."""
    words = ["mammoclip-sdk", "engine", "build", bundle.path]
    words += ["--flavour", flavour, "--precision", precision]
    words += [] if engines is None else ["--engines", str(engines)]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def is_active(bundle: Bundle, precision: str, engines: Path | None = None) -> bool:
    """Whether an engine fits whose golden exams agreed on this GPU and driver; never raises."""
    try:
        if not has_graph(bundle, precision) or not any(cache.entries(engines_folder(engines))):
            return False  # the common case, without a look at GPU and packages
        engine = find(bundle, precision, engines)
    except MammoClipError:
        return False
    return matching.is_active(engine.sidecar, find_gpu())


def survey(engines: Path | None = None, bundles: tuple[Bundle, ...] = ()) -> tuple[Status, ...]:
    """Say of everything in the folder whether it can be used here; no plan is opened.

    Parameters
    ----------
    bundles
        Engines of other graphs than theirs are misfits; without bundles, every graph will do.
    """
    machine = matching.this_machine()
    graphs = [graph.sha256 for bundle in bundles for graph in bundle.manifest.graphs] or None
    found = cache.entries(engines_folder(engines))
    return tuple(_status(entry, machine, graphs) for entry in found)


def status(engine: Engine) -> Status:
    """Say of one engine whether it can be used here."""
    entry = Entry(path=engine.sidecar_path, engine=engine, problem="")
    return _status(entry, matching.this_machine(), None)


def _status(entry: Entry, machine: Machine, graphs: list[str] | None) -> Status:
    misfits, parity = [Misfit(text=entry.problem, stale=True)], None
    if entry.engine is not None:
        sidecar = entry.engine.sidecar
        misfits = matching.misfits(sidecar, machine, graphs)
        parity = None if machine.gpu is None else sidecar.parity_on(machine.gpu)
    return Status(entry=entry, misfits=tuple(misfits), parity=parity)


def prune(engines: Path | None = None, bundles: tuple[Bundle, ...] = ()) -> tuple[Removed, ...]:
    """Remove what can never be used on this machine as it is.

    That is: damaged entries, engines of another version of an installed flavour, for another GPU
    or driver, and leftovers of builds that were cut off. An engine whose flavour is not installed
    stays, and without a GPU so do those of any.

    Parameters
    ----------
    bundles
        Also remove the engines of all other graphs; none keeps every graph's.

    Raises
    ------
    EngineError
        The disk refused.
    """
    removed = []
    for one in survey(engines, bundles):
        reason = ", ".join(misfit.text for misfit in one.misfits if misfit.stale)
        reason = reason or _damage(one.entry.engine)
        if reason:
            cache.remove(one.entry)
            removed.append(Removed(path=one.entry.path, reason=reason))
    for path, reason in tuple(cache.leftovers(engines_folder(engines))):
        delete(path)
        removed.append(Removed(path=path, reason=reason))
    return tuple(removed)


def _damage(engine: Engine | None) -> str:
    if engine is None:
        return ""
    try:
        cache.read_plan(engine)
    except EngineError as error:
        return error.found
    return ""
