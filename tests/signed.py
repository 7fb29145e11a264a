"""Signatures as whoever holds a key can make them with any tool, over a bundle of any kind.

`mammoclip_sdk.parity.signing` signs what has a certificate alone; most tests of what a signature is
worth to its reader need none.
"""

from __future__ import annotations

from pathlib import Path

from conftest import KeyPair

from mammoclip_sdk.bundle import Manifest, manifest_to_json
from mammoclip_sdk.bundle.signature import load_signer


def signature(manifest: Manifest, pair: KeyPair) -> bytes:
    """What ``manifest.sig`` holds once this manifest is signed."""
    return load_signer(pair.private).sign(manifest_to_json(manifest).encode())


def sign(path: Path, pair: KeyPair) -> Path:
    """Put a signature into a bundle's folder, over its manifest as it is."""
    manifest = (path / "manifest.json").read_bytes()
    (path / "manifest.sig").write_bytes(load_signer(pair.private).sign(manifest))
    return path
