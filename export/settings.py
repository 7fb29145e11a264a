"""Settings of one export, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    """New JSON file for times, memory and sizes, which have no place in a bundle."""

    def __post_init__(self) -> None:
        """Refuse, all together, values that mean nothing."""
        wrong = list(self._wrong())
        if wrong:
            raise ExportError(
                "settings of the export",
                found="; ".join(found for found, _ in wrong),
                expected="; ".join(expected for _, expected in wrong),
                remedy="Correct this option." if len(wrong) == 1 else "Correct these options.",
            )

    def _wrong(self) -> Iterator[tuple[str, str]]:
        """Name each value that means nothing, with what was expected in its place."""
        unknown = [one for one in self.precisions if one not in PRECISIONS]
        if unknown:
            yield (
                f"precisions {', '.join(unknown)}",
                f"precisions of {', '.join(PRECISIONS)}, fp32 among them",
            )
        elif "fp32" not in self.precisions:
            yield "precisions without fp32", "fp32 among them"
        flavours = [one for one in self.engines if one not in FLAVOURS]
        if flavours:
            yield f"engines of {', '.join(flavours)}", f"engines of {', '.join(FLAVOURS)}"
        if self.parity_exams < COUNT:
            yield f"{self.parity_exams} parity exams", f"at least {COUNT} parity exams"
        for key, number in (("seed", self.seed), ("release", self.release)):
            if number < 0:
                yield f"{key} {number}", f"a {key} that is not negative"
        for key, text in (("name", self.name), ("version", self.version)):
            if not text.strip():
                yield f"an empty {key}", f"a {key}"
        if self.base_sha256 is not None and not _HASH.fullmatch(self.base_sha256):
            yield f"base_sha256 {self.base_sha256!r}", "64 lower-case hexadecimal digits"

    def recorded(self) -> dict[str, object]:
        """Return what the bundle keeps of the settings: nothing of where things lie or lay.

        The checkpoint has a hash in the manifest, and makes the same bundle under any name.
        """
        kept = asdict(self)
        for key in ("checkpoint", "out", "overwrite", "sign", "engines", "engine_folder", "record"):
            del kept[key]
        return {key: v.name if isinstance(v, Path) else v for key, v in kept.items()}
