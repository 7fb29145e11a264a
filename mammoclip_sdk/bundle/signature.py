"""Who vouches for a bundle: an Ed25519 signature over its manifest, which has every file's hash.

``manifest.sig`` is made over the bytes of ``manifest.json``, nothing before or behind them, so that
any tool that knows Ed25519 can check it: ``openssl pkeyutl -verify -rawin -pubin -inkey KEY.pem
-in manifest.json -sigfile SIGNATURE`` with the 64 bytes that the file has in base64.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mammoclip_sdk import strict_json
from mammoclip_sdk.bundle.files import SIGNATURE
from mammoclip_sdk.bundle.keys import (
    key_id,
    private_key,
    public_key,
    public_key_file,
    require_cryptography,
    trust_error,
)
from mammoclip_sdk.errors import BundleSignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_ALGORITHM = "Ed25519"
_KEY_ID = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Which bundles may be used: those that one of these keys has signed, and no older release."""

    public_keys: tuple[bytes, ...]
    """PEM, Ed25519. Several while a vendor changes keys."""
    accepted: Path | None = None
    """The record of accepted releases (see `releases`); None is the user's own."""
    allow_older: bool = False
    """For whoever reads an older release to accept it on purpose."""

    @classmethod
    def in_files(cls, paths: Iterable[str | Path], *, accepted: Path | None = None) -> Self:
        """Trust the public keys in these PEM files.

        Raises
        ------
        BundleSignatureError
            ``trust_key``: a file cannot be read, or holds a private key; or one path, which is no
            list of them.
        """
        if isinstance(paths, str | Path):  # whose letters would each be read as a path
            raise BundleSignatureError(
                "trusted keys",
                found="one path",
                expected="the paths of PEM files, in a list",
                remedy="Write Trust.in_files([PATH]).",
                code="trust_key",
            )
        return cls(
            public_keys=tuple(public_key_file(Path(path)) for path in paths), accepted=accepted
        )

    def key_ids(self) -> tuple[str, ...]:
        """Return the identifiers of the keys.

        Raises
        ------
        BundleSignatureError
            ``trust_key``: not a public Ed25519 key, or none at all; ``signing_not_installed``.
        """
        return tuple(_keys(self))


@dataclass(frozen=True, kw_only=True)
class Signature:
    """``manifest.sig``, key by key."""

    algorithm: str
    """Always ``Ed25519``."""
    key_id: str
    signature: str
    """Base64 of 64 bytes."""


class Signer:
    """A private key that signs manifests."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id(key.public_key())

    def sign(self, manifest: bytes) -> bytes:
        """Return the content of ``manifest.sig`` for these bytes of ``manifest.json``."""
        signed = base64.b64encode(self._key.sign(manifest)).decode()
        signature = Signature(algorithm=_ALGORITHM, key_id=self.key_id, signature=signed)
        return f"{strict_json.dumps(signature)}\n".encode()


def load_signer(path: Path, *, ask: Callable[[str], str] = getpass.getpass) -> Signer:
    """Read an Ed25519 private key in PEM (PKCS #8), encrypted or not.

    Parameters
    ----------
    ask
        Asks for the password where `keys.PASSWORD` does not hold it, by default at the terminal.

    Raises
    ------
    BundleSignatureError
        ``signing_key``: no such key, or another password; ``signing_not_installed``.
    """
    return Signer(private_key(path, ask))


def read_signature(data: bytes, *, subject: str) -> Signature:
    """Read ``manifest.sig``; this says who claims to have signed, and nothing more.

    Raises
    ------
    BundleSignatureError
        ``signature_unreadable``.
    """
    plain, problems = strict_json.parse(data.decode("utf-8", errors="surrogateescape"))
    read = None if plain is None else strict_json.from_plain(Signature, plain, problems)
    if read is not None:
        if read.algorithm != _ALGORITHM:
            problems.append(f"algorithm: {read.algorithm!r} instead of {_ALGORITHM!r}")
        if _KEY_ID.fullmatch(read.key_id) is None:
            problems.append("key_id: not 64 lower-case hexadecimal digits")
        if len(_decoded(read)) != 64:
            problems.append("signature: not 64 bytes in base64")
    if read is None or problems:
        raise BundleSignatureError(
            f"{subject}: {SIGNATURE}",
            found=strict_json.listed(problems),
            expected=f"a signature by {_ALGORITHM}",
            remedy="Copy the bundle again from where it was made; or, if it is yours, remove this "
            "file and sign the bundle again.",
            code="signature_unreadable",
        )
    return read


def verify(manifest: bytes, signature: Signature | None, trust: Trust, *, subject: str) -> None:
    """Refuse a manifest that no trusted key has signed.

    Parameters
    ----------
    manifest
        The bytes of ``manifest.json``.

    Raises
    ------
    BundleSignatureError
        ``unsigned``, ``untrusted_key``, ``signature_broken``, ``trust_key`` or
        ``signing_not_installed``.
    """
    keys = _keys(trust)
    trusted = "a signature of a trusted key: " + ", ".join(keys)
    if signature is None:
        raise BundleSignatureError(
            subject,
            found=f"no {SIGNATURE}",
            expected=trusted,
            remedy="Get the signed bundle from its vendor.",
            code="unsigned",
        )
    key = keys.get(signature.key_id)
    if key is None:
        raise BundleSignatureError(
            subject,
            found=f"a signature of key {signature.key_id}",
            expected=trusted,
            remedy="Get the bundle from its vendor; or, where they tell you that they use another "
            "key now, get that key from them and trust it as well.",
            code="untrusted_key",
        )
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(_decoded(signature), manifest)
    except InvalidSignature as error:
        raise BundleSignatureError(
            subject,
            found="a signature of other bytes than those of its manifest",
            expected=trusted,
            remedy="Do not use this bundle. Get it from its vendor again, and tell them.",
            code="signature_broken",
        ) from error


def _decoded(signature: Signature) -> bytes:
    try:
        decoded = base64.b64decode(signature.signature, validate=True)
    except (binascii.Error, ValueError):
        return b""
    # The last character has bits to spare: of the texts that mean these bytes, one is taken.
    return decoded if base64.b64encode(decoded).decode() == signature.signature else b""


def _keys(trust: Trust) -> dict[str, Ed25519PublicKey]:
    require_cryptography()
    if not trust.public_keys:
        raise trust_error("trust", "no key to trust")
    found = [
        public_key(data, f"trusted key {number}")
        for number, data in enumerate(trust.public_keys, start=1)
    ]
    return {key_id(key): key for key in found}
