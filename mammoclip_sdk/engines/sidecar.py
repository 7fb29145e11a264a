"""What is known of an engine, as JSON beside its plan; the plan itself stays as TensorRT made it.

A plan with anything before or behind it is no plan to NVIDIA's own tools, so nothing is put there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from mammoclip_sdk import strict_json
from mammoclip_sdk.engines.cuda import Gpu
from mammoclip_sdk.engines.flavour import FLAVOURS
from mammoclip_sdk.errors import EngineError

SIDECAR_SCHEMA = 1
NOT_RUN = "not run"
"""How `Sidecar.parity` begins until the golden exams ran."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The shapes of one input that an engine accepts, and the one it is tuned for."""

    name: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What the golden exams gave on one GPU."""

    gpu: Gpu
    exams: int
    worst_difference: float | None
    """Largest absolute difference of a logit from the reference model's; None where an answer was
    no embedding."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the engine may be used on this GPU."""
        return self.worst_difference is not None and 0 <= self.worst_difference <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Everything that decides an engine, and everything that was found out about it."""

    schema: int
    graph_sha256: str
    """Of the ONNX file it was built from."""
    precision: str
    """Of that graph."""
    flavour: str
    """``tensorrt`` or ``tensorrt_rtx``."""
    version: str
    """Of the flavour, in full."""
    gpu: Gpu | None
    """It was built on; None where there was none."""
    target: str
    """``current``: only GPUs like that one; ``any``: all that the flavour supports without being
    told; or one compute capability, such as ``sm86``."""
    flags: tuple[str, ...]
    level: int
    """Of the builder's optimisation, 0 to 5."""
    profiles: tuple[Profile, ...]
    bundle: str
    """Name and version of the bundle it was built for; another with the same graph may use it."""
    plan_file: str
    plan_sha256: str
    plan_bytes: int
    built: str
    """Time, UTC, ISO 8601."""
    build_seconds: float
    sdk_version: str
    build_log: tuple[str, ...]
    """The end of it."""
    parity: str
    """``passed``, ``failed``, or ``not run`` with the reason: the last word on it."""
    golden: tuple[Parity, ...]
    """Figures of the golden exams, one entry for each GPU and driver they ran on."""

    @property
    def key(self) -> str:
        """SHA-256 over all that decides the plan: two engines of one key may replace each other."""
        deciding = {name: strict_json.to_plain(getattr(self, name)) for name in _DECIDING}
        text = json.dumps(deciding, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def max_batch(self) -> int:
        """Most exams in one run."""
        return min(profile.maximum[0] for profile in self.profiles)

    def parity_on(self, gpu: Gpu) -> Parity | None:
        """Return what the golden exams gave on a GPU with its driver; None where they never ran."""
        return next((one for one in self.golden if one.gpu == gpu), None)


_DECIDING = (
    "schema",
    "graph_sha256",
    "precision",
    "flavour",
    "version",
    "gpu",
    "target",
    "flags",
    "level",
    "profiles",
)


def sidecar_to_json(sidecar: Sidecar) -> bytes:
    """Write a sidecar as JSON that `sidecar_from_json` turns back into its equal."""
    return (strict_json.dumps(sidecar) + "\n").encode()


def sidecar_from_json(data: bytes, *, subject: str) -> Sidecar:
    """Read a sidecar strictly.

    Raises
    ------
    EngineError
        ``engine_stale``: of another schema. ``engine_damaged``: keys or values that no sidecar has.
    """
    plain, problems = strict_json.parse(data.decode("utf-8", errors="surrogateescape"))
    schema = plain.get("schema") if isinstance(plain, dict) else None
    if type(schema) is int and schema != SIDECAR_SCHEMA:
        raise EngineError(
            subject,
            found=f"schema {schema}",
            expected=str(SIDECAR_SCHEMA),
            remedy="It was built by another version of mammoclip-sdk: mammoclip-sdk engine prune, "
            "and build it again.",
            code="engine_stale",
        )
    sidecar = None if plain is None else strict_json.from_plain(Sidecar, plain, problems)
    if sidecar is not None and not sidecar.profiles:
        problems.append("profiles: none")
    if sidecar is not None and sidecar.flavour not in FLAVOURS:
        problems.append(f"flavour: {sidecar.flavour!r} is none of {', '.join(FLAVOURS)}")
    if sidecar is None or problems:
        raise EngineError(
            subject,
            found="; ".join(problems),
            expected=f"a sidecar of schema {SIDECAR_SCHEMA}",
            remedy="mammoclip-sdk engine prune, and build it again.",
            code="engine_damaged",
        )
    return sidecar
