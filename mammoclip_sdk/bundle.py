"""The contract between export and runtime: what a bundle holds, and how it is read and written.

A bundle is a folder, or a zip of one, with a ``manifest.json`` that is written last: its presence
means that the bundle is complete. The manifest holds the hash of every other file, and
``manifest.sha256`` (what ``sha256sum -c`` reads) the hash of the manifest. Reading is strict.
Every key is required, every unknown key is an error, and all problems are reported together. Bytes
are hashed once, and whoever needs them gets those bytes: no file is opened again by its path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mammoclip_sdk.bundle_files import CHECKSUM, MANIFEST, read_files, write_files
from mammoclip_sdk.errors import BundleIntegrityError
from mammoclip_sdk.manifest import (
    ATTACHMENTS,
    SCHEMA,
    Attachment,
    Calibration,
    Finding,
    GoldenExams,
    Graph,
    Interval,
    Manifest,
    Measurement,
    ModelCard,
    OperatingPoint,
    Source,
    Tensor,
    format_error,
    manifest_from_json,
    manifest_to_json,
)
from mammoclip_sdk.preprocessing import PREPROCESSING_VERSION, Preprocessing

__all__ = [
    "ATTACHMENTS",
    "PREPROCESSING_VERSION",
    "SCHEMA",
    "Attachment",
    "Bundle",
    "Calibration",
    "Finding",
    "GoldenExams",
    "Graph",
    "Interval",
    "Manifest",
    "Measurement",
    "ModelCard",
    "OperatingPoint",
    "Preprocessing",
    "Source",
    "Tensor",
    "manifest_from_json",
    "manifest_to_json",
    "read_bundle",
    "sha256",
    "write_bundle",
]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose every byte agreed with its manifest when it was read."""

    manifest: Manifest
    sha256: str
    """Of ``manifest.json``, which holds the hash of every other file."""
    files: Mapping[str, bytes]
    path: str


def sha256(data: bytes) -> str:
    """Return the SHA-256 of the bytes as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle from a folder or a zip, and believe nothing that does not add up.

    Raises
    ------
    BundleNotFoundError
        There is no manifest at the path.
    BundleIntegrityError
        The manifest or a file is not the one that was written.
    BundleVersionError
        The bundle needs a newer version of this software, or an older one.
    BundleFormatError
        Unknown, missing or contradictory keys, or files that the manifest does not name.
    """
    files = read_files(Path(path))
    manifest_bytes = files.pop(MANIFEST)
    checksum = files.pop(CHECKSUM, None)
    if checksum != _checksum(manifest_bytes):
        raise BundleIntegrityError(
            f"{path}: {MANIFEST}",
            found="no checksum" if checksum is None else "a manifest of another checksum",
            expected=f"the SHA-256 that {CHECKSUM} holds",
            remedy="Copy the bundle again from where it was made.",
        )
    text = manifest_bytes.decode("utf-8", errors="surrogateescape")
    manifest = manifest_from_json(text, subject=f"{path}: {MANIFEST}")
    _check_files(manifest, files, subject=str(path))
    return Bundle(manifest=manifest, sha256=sha256(manifest_bytes), files=files, path=str(path))


def write_bundle(
    path: str | Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    *,
    overwrite: bool = False,
) -> None:
    """Write a bundle's folder, whole or not at all; what would not be read is not written.

    Parameters
    ----------
    manifest
        Its hashes must already agree with ``files``; nothing is filled in.
    overwrite
        Replace a bundle at the path. Anything else there is refused in any case.

    Raises
    ------
    BundleFormatError, BundleVersionError, BundleIntegrityError
        As `read_bundle` would.
    BundleError
        The path is taken, or the disk refused.
    """
    text = manifest_to_json(manifest)
    manifest_from_json(text, subject=f"{path}: {MANIFEST}")
    _check_files(manifest, files, subject=str(path))
    data = text.encode()
    last = {CHECKSUM: _checksum(data), MANIFEST: data}
    write_files(Path(path), {**files, **last}, overwrite=overwrite)


def _checksum(manifest: bytes) -> bytes:
    return f"{sha256(manifest)}  {MANIFEST}\n".encode()


def _check_files(manifest: Manifest, files: Mapping[str, bytes], *, subject: str) -> None:
    promised = {graph.file: graph.sha256 for graph in manifest.graphs}
    promised[manifest.golden.file] = manifest.golden.sha256
    unnamed, absent = sorted(files.keys() - promised), sorted(promised.keys() - files.keys())
    if unnamed:
        raise format_error(subject, [f"{name} is not in the manifest" for name in unnamed])
    differing = [
        name for name in promised if name in files and sha256(files[name]) != promised[name]
    ]
    if absent or differing:
        raise BundleIntegrityError(
            subject,
            found="; ".join(
                [f"no {name}" for name in absent] + [f"other bytes in {n}" for n in differing]
            ),
            expected="every file with the SHA-256 that the manifest promises",
            remedy="Copy the bundle again from where it was made.",
        )
