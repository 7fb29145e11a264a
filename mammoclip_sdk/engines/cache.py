"""The folder of engines: each a plan and its sidecar, put there whole, and never believed blindly.

``<key>.json`` is written last, by rename, and names the plan, whose name holds its own hash. Two
processes that build the same engine at once both leave a whole one, and the later one counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mammoclip_sdk.bundle import sha256
from mammoclip_sdk.engines.cuda import Gpu
from mammoclip_sdk.engines.folder import delete, discard, files, is_old, write
from mammoclip_sdk.engines.sidecar import Parity, Sidecar, sidecar_from_json, sidecar_to_json
from mammoclip_sdk.errors import EngineError

_SIDECAR = re.compile(r"[0-9a-f]{16}\.json")
_PLAN = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}\.plan")
_KEPT = re.compile(r"([0-9a-f]{16}-[0-9a-f]{16}-sm\d+\.kernels|timing-[0-9a-f]{16}\.cache)")
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")
_AGAIN = "mammoclip-sdk engine prune, and build it again."


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A plan that lies in a folder, and what its sidecar says."""

    folder: Path
    sidecar: Sidecar

    @property
    def plan(self) -> Path:
        """The plan's file."""
        return self.folder / self.sidecar.plan_file

    @property
    def sidecar_path(self) -> Path:
        """The sidecar's file."""
        return self.folder / f"{self.sidecar.key[:16]}.json"

    def kernels(self, gpu: Gpu) -> Path:
        """Return the file of what TensorRT for RTX compiled of it for a GPU."""
        digits = gpu.compute_capability.replace(".", "")
        return self.folder / f"{self.plan.stem}-sm{digits}.kernels"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What lies in a folder under an engine's name: the engine, or what is wrong with it."""

    path: Path
    """Of the sidecar."""
    engine: Engine | None
    problem: str
    """In words; empty where there is an engine."""


def store(folder: Path, sidecar: Sidecar, plan: bytes) -> Engine:
    """Put an engine in the folder, whole or not at all; one of the same key is replaced.

    Parameters
    ----------
    sidecar
        Complete but for the plan's name, hash and size, which are filled in here.

    Raises
    ------
    EngineError
        The disk refused; nothing new is there, and what was there still is.
    """
    digest = sha256(plan)
    name = f"{sidecar.key[:16]}-{digest[:16]}.plan"
    sidecar = replace(sidecar, plan_file=name, plan_sha256=digest, plan_bytes=len(plan))
    engine = Engine(folder=folder, sidecar=sidecar)
    before = {path.name for path in files(folder, _PLAN) if path.name[:16] == name[:16]}
    superseded = {entry.engine.plan.name for entry in entries(folder) if entry.engine} & before
    write(engine.plan, plan)
    try:
        write(engine.sidecar_path, sidecar_to_json(sidecar))
    except EngineError:
        if name not in before:
            engine.plan.unlink(missing_ok=True)
        raise
    for other in superseded - {name}:
        discard(folder / other)
    return engine


def entries(folder: Path) -> Iterator[Entry]:
    """Yield what lies in the folder, each sidecar read strictly; no plan is opened.

    Raises
    ------
    EngineError
        There is a folder, and it cannot be read.
    """
    for path in files(folder, _SIDECAR):
        try:
            sidecar = sidecar_from_json(path.read_bytes(), subject=str(path))
        except EngineError as error:
            yield Entry(path=path, engine=None, problem=error.found)
            continue
        except OSError as error:
            yield Entry(path=path, engine=None, problem=f"it cannot be read ({error.strerror})")
            continue
        engine = Engine(folder=folder, sidecar=sidecar)
        plan = f"{sidecar.key[:16]}-{sidecar.plan_sha256[:16]}.plan"
        if engine.sidecar_path != path or sidecar.plan_file != plan:
            yield Entry(path=path, engine=None, problem="its names are not those of its content")
        else:
            yield Entry(path=path, engine=engine, problem="")


def read_plan(engine: Engine) -> bytes:
    """Read a plan, and refuse bytes that are not those the sidecar was written for.

    Raises
    ------
    EngineError
        ``engine_damaged``.
    """
    try:
        plan = engine.plan.read_bytes()
    except OSError as error:
        found = f"a plan that cannot be read ({error.strerror})"
    else:
        if sha256(plan) == engine.sidecar.plan_sha256:
            return plan
        found = f"{len(plan)} bytes with another SHA-256"
    raise EngineError(
        str(engine.plan),
        found=found,
        expected=f"the {engine.sidecar.plan_bytes} bytes that were built",
        remedy=_AGAIN,
        code="engine_damaged",
    )


def now(engine: Engine) -> Engine | None:
    """Read an engine's sidecar again; None where it is gone, or was built anew."""
    found = [one.engine for one in entries(engine.folder) if one.path == engine.sidecar_path]
    same = [one for one in found if one and one.sidecar.plan_sha256 == engine.sidecar.plan_sha256]
    return same[0] if same else None


def record(engine: Engine, parity: Parity) -> Engine:
    """Write what the golden exams gave on a GPU into the sidecar, by rename.

    Returns the engine as it is now; an engine that was meanwhile built anew is left alone.

    Raises
    ------
    EngineError
        The disk refused.
    """
    current = now(engine)
    if current is None:
        return engine
    others = tuple(one for one in current.sidecar.golden if one.gpu != parity.gpu)
    sidecar = replace(
        current.sidecar,
        parity="passed" if parity.passed else "failed",
        golden=(*others, parity),
    )
    write(engine.sidecar_path, sidecar_to_json(sidecar))
    return Engine(folder=engine.folder, sidecar=sidecar)


def leftovers(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files that belong to no engine, and why; not those of a build under way."""
    named = {entry.engine.plan.stem for entry in entries(folder) if entry.engine}
    for path in files(folder, _PARTIAL):
        if is_old(path):
            yield path, "left by a build that was cut off"
    for path in files(folder, _PLAN):
        if path.stem not in named and is_old(path):
            yield path, "a plan that no sidecar names"
    for path in files(folder, _KEPT):
        if path.suffix == ".kernels" and path.stem.rpartition("-")[0] not in named:
            yield path, "kernels of an engine that is gone"


def remove(entry: Entry) -> None:
    """Remove an engine and what belongs to it; the sidecar first, so that none is left alone.

    Raises
    ------
    EngineError
        The disk refused.
    """
    paths = [entry.path]
    if entry.engine is not None:
        stem = entry.engine.plan.stem
        paths += [entry.engine.plan, *entry.path.parent.glob(f"{stem}-sm*.kernels")]
    for path in paths:
        delete(path)
