"""The contract between export and runtime: what a bundle holds, and how it is read and written.

A bundle is a folder, or a zip of one, with a ``manifest.json`` that is written last: its presence
means that the bundle is complete. The manifest holds the hash of every other file, and
``manifest.sha256`` (what ``sha256sum -c`` reads) the hash of the manifest, and ``manifest.sig``,
where there is one, a signature over it. Reading is strict. Every key is required, every unknown key
is an error, and all problems are reported together. Whoever needs a file gets the bytes that were
hashed: those of a large one are read when asked for, and refused where they have changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mammoclip_sdk.bundle import releases
from mammoclip_sdk.bundle.files import (
    CHECKSUM,
    MANIFEST,
    OWN_NAMES,
    SIGNATURE,
    StoredFiles,
    read_files,
)
from mammoclip_sdk.bundle.folder import checksum_line, write_folder
from mammoclip_sdk.bundle.manifest import (
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
)
from mammoclip_sdk.bundle.manifest_json import (
    format_error,
    manifest_from_json,
    manifest_to_json,
    not_canonical,
)
from mammoclip_sdk.bundle.releases import Release
from mammoclip_sdk.bundle.signature import Signature, Signer, Trust, read_signature, verify
from mammoclip_sdk.errors import BundleIntegrityError
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
    "Signature",
    "Signer",
    "Source",
    "Tensor",
    "Trust",
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
    """The graphs, the golden exams and the attachments; see `StoredFiles` for large ones."""
    path: str
    signature: Signature | None = None
    """Who says that they have signed it; whether that is true, ``trusted`` says."""
    trusted: bool = False
    """Whether a key that the reader trusts has signed it."""

    def size(self, name: str) -> int:
        """Return a file's length in bytes; a large file is not read for it."""
        files = self.files
        return files.size(name) if isinstance(files, StoredFiles) else len(files[name])

    def release(self) -> Release:
        """Return what the record of accepted releases says of a bundle."""
        return Release(
            bundle=self.manifest.name,
            release=self.manifest.release,
            version=self.manifest.version,
            sha256=self.sha256,
            key_id="" if self.signature is None else self.signature.key_id,
        )


def sha256(data: bytes) -> str:
    """Return the SHA-256 of the bytes as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_bundle(path: str | Path, trust: Trust | None = None) -> Bundle:
    """Read a bundle from a folder or a zip, and believe nothing that does not add up.

    Parameters
    ----------
    trust
        Keys one of which must have signed the bundle, and the record of releases that it may not
        fall behind. None asks for no signature.

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
    BundleSignatureError
        It is not signed by a key that is trusted.
    BundleReleaseError
        A later release was accepted before, or the record of those cannot be used.
    """
    files = read_files(Path(path))
    manifest_bytes = files[MANIFEST]
    checksum = files.get(CHECKSUM)
    if checksum != checksum_line(manifest_bytes):
        raise BundleIntegrityError(
            f"{path}: {MANIFEST}",
            found="no checksum" if checksum is None else "a manifest of another checksum",
            expected=f"the SHA-256 that {CHECKSUM} holds",
            remedy="Copy the bundle again from where it was made.",
        )
    signature = read_signature(files[SIGNATURE], subject=str(path)) if SIGNATURE in files else None
    if trust is not None:  # before anything else in it is believed
        verify(manifest_bytes, signature, trust, subject=str(path))
    text = manifest_bytes.decode("utf-8", errors="surrogateescape")
    manifest = manifest_from_json(text, subject=f"{path}: {MANIFEST}")
    if signature is not None and manifest_to_json(manifest) != text:
        raise not_canonical(str(path))
    others = files.without(OWN_NAMES)
    _check_files(manifest, {name: others.sha256(name) for name in others}, subject=str(path))
    bundle = Bundle(
        manifest=manifest,
        sha256=sha256(manifest_bytes),
        files=others,
        path=str(path),
        signature=signature,
        trusted=trust is not None,
    )
    if trust is not None and not trust.allow_older:
        file = releases.record_file(trust.accepted)
        releases.require_not_older(bundle.release(), trust.key_ids(), file)
    return bundle


def write_bundle(
    path: str | Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    *,
    overwrite: bool = False,
    signature: bytes | None = None,
) -> None:
    """Write a bundle's folder, whole or not at all; what would not be read is not written.

    Parameters
    ----------
    manifest
        Its hashes must already agree with ``files``; nothing is filled in.
    overwrite
        Replace a bundle at the path. Anything else there is refused in any case.
    signature
        The content of ``manifest.sig``, such as `parity.signing.signature_of` returns.

    Raises
    ------
    BundleFormatError, BundleVersionError, BundleIntegrityError, BundleSignatureError
        As `read_bundle` would.
    BundleError
        The path is taken, or the disk refused.
    """
    text = manifest_to_json(manifest)
    manifest_from_json(text, subject=f"{path}: {MANIFEST}")
    _check_files(manifest, {name: sha256(files[name]) for name in files}, subject=str(path))
    data = text.encode()
    last = {CHECKSUM: checksum_line(data), MANIFEST: data}
    if signature is not None:
        read_signature(signature, subject=str(path))
        last = {SIGNATURE: signature, **last}

    def in_order() -> Iterator[tuple[str, bytes]]:
        yield from ((name, files[name]) for name in files)  # one of the large ones at a time
        yield from last.items()

    write_folder(Path(path), in_order(), overwrite=overwrite)


def _check_files(manifest: Manifest, found: Mapping[str, str], *, subject: str) -> None:
    """Compare the files' SHA-256 by name with what the manifest promises."""
    promised = manifest.file_hashes()
    unnamed, absent = sorted(found.keys() - promised), sorted(promised.keys() - found.keys())
    if unnamed:
        raise format_error(subject, [f"{name} is not in the manifest" for name in unnamed])
    differing = [name for name in promised if name in found and found[name] != promised[name]]
    if absent or differing:
        raise BundleIntegrityError(
            subject,
            found="; ".join(
                [f"no {name}" for name in absent] + [f"other bytes in {n}" for n in differing]
            ),
            expected="every file with the SHA-256 that the manifest promises",
            remedy="Copy the bundle again from where it was made.",
        )
