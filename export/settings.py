"""Settings of one export, and what they refuse."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from export.errors import ExportError
from export.exams import COUNT
from mammoclip_sdk.engines import FLAVOURS

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What a bundle may be run in; each is a graph of its own but bf16, which runtimes make of fp32."""
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of one export.

    Raises
    ------
    ExportError
        Values that mean nothing, all together.
    """

    checkpoint: Path
    """Checkpoint folder, with preprocessing, findings, model card and provenance."""
    out: Path
    """Folder of the bundle to be written."""
    exams: Path | None = None
    """Golden exams: an ``.npz`` with ``views`` (N, 4, 1, H, W), or a folder with one folder of
    DICOM files for each exam. They become part of the bundle: take none of a real patient that
    may not be passed on. None takes those of the checkpoint."""
    name: str = "mammo-clip"
    version: str = "0.1.0"
    release: int = 1
    """Sequence number; a later release of the same bundle has a greater one."""
    not_for_clinical_use: bool = True
    overwrite: bool = False
    """Whether an earlier bundle in ``out`` is replaced."""
    precisions: tuple[str, ...] = PRECISIONS
    """What the bundle is certified for; ``fp32`` is the reference on every workstation and always
    one. In a precision that is left out no runtime runs it."""
    parity_exams: int = COUNT
    """Exams of the certificate."""
    seed: int = 2404
    """Of the exams that are made for certificate and calibration."""
    base_sha256: str | None = None
    """The base weights that are expected, as the checkpoint's ``base_sha256`` names them."""
    sign: Path | None = None
    """Private Ed25519 key that signs the manifest."""
    engines: tuple[str, ...] = ()
    """Device engines to be built from the written bundle, of `FLAVOURS`."""
    engine_folder: Path | None = None
    """Where they go; None is the cache that the runtime looks in."""
    record: Path | None = None
    """JSON file for times, memory and sizes, which have no place in a bundle."""

    def __post_init__(self) -> None:
        """Refuse, all together, values that mean nothing."""
        unknown = [one for one in self.precisions if one not in PRECISIONS]
        flavours = [one for one in self.engines if one not in FLAVOURS]
        wrong = {
            f"precisions {', '.join(unknown)}": unknown,
            "precisions without fp32": "fp32" not in self.precisions,
            f"engines of {', '.join(flavours)}": flavours,
            f"{self.parity_exams} parity exams": self.parity_exams < COUNT,
            f"seed {self.seed}": self.seed < 0,
            f"release {self.release}": self.release < 0,
            "an empty name or version": not (self.name.strip() and self.version.strip()),
            f"base_sha256 {self.base_sha256!r}": self.base_sha256 is not None
            and not _HASH.fullmatch(self.base_sha256),
        }
        found = [what for what, is_wrong in wrong.items() if is_wrong]
        if found:
            raise ExportError(
                "settings of the export",
                found="; ".join(found),
                expected=f"precisions of {', '.join(PRECISIONS)}, fp32 among them; engines of "
                f"{', '.join(FLAVOURS)}; at least {COUNT} parity exams; seed and "
                "release not negative; 64 lower-case hexadecimal digits as a hash",
                remedy="Correct these options.",
            )

    def recorded(self) -> dict[str, object]:
        """Return what the bundle keeps of the settings: nothing of where things lie or lay."""
        kept = asdict(self)
        for key in ("out", "overwrite", "sign", "engines", "engine_folder", "record"):
            del kept[key]
        return {key: v.name if isinstance(v, Path) else v for key, v in kept.items()}
