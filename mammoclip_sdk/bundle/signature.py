"""Who vouches for a bundle: an Ed25519 signature over its manifest, which has every file's hash.

``manifest.sig`` is made over the bytes of ``manifest.json``, nothing before or behind them, so that
any tool that knows Ed25519 can check it: ``openssl pkeyutl -verify -rawin -pubin -inkey KEY.pem
-in manifest.json -sigfile SIGNATURE`` with the 64 bytes that the file has in base64. A key's
identifier is the SHA-256 of its public half as DER (SubjectPublicKeyInfo): ``openssl pkey -pubin
-in KEY.pem -outform DER | sha256sum``.

``cryptography`` is needed to sign and to verify, and imported for nothing else.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mammoclip_sdk import strict_json
from mammoclip_sdk.bundle.files import SIGNATURE
from mammoclip_sdk.errors import BundleSignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PASSWORD = "MAMMOCLIP_KEY_PASSWORD"  # noqa: S105 - a variable's name
"""Environment variable with the password of a private key; without it, the terminal is asked."""
_ALGORITHM = "Ed25519"
_KEY_ID = re.compile("[0-9a-f]{64}")
_MAX_KEY_BYTES = 2**16
"""A key takes some hundred; a slip on the command line may name a bundle."""


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
            ``trust_key``: a file cannot be read; or one path, which is no list of them.
        """
        if isinstance(paths, str | Path):  # whose letters would each be read as a path
            raise BundleSignatureError(
                "trusted keys",
                found="one path",
                expected="the paths of PEM files, in a list",
                remedy="Write Trust.in_files([PATH]).",
                code="trust_key",
            )
        return cls(public_keys=tuple(_read_key(Path(path)) for path in paths), accepted=accepted)

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
        self.key_id = _key_id(key.public_key())

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
        Asks for the password where `PASSWORD` does not hold it, by default at the terminal.

    Raises
    ------
    BundleSignatureError
        ``signing_key``: no such key, or another password; ``signing_not_installed``.
    """
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read_key(path, code="signing_key")
    try:
        try:
            key = load_pem_private_key(data, None)
        except TypeError:  # it is encrypted
            key = load_pem_private_key(data, _password(path, ask).encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _key_error(path, f"no key that opens ({error})", code="signing_key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _key_error(path, "a private key of another kind", code="signing_key")
    return Signer(key)


def _password(path: Path, ask: Callable[[str], str]) -> str:
    given = os.environ.get(PASSWORD)
    if given is not None:
        return given
    if ask is getpass.getpass and not sys.stdin.isatty():
        raise _key_error(path, f"an encrypted key, no terminal and no {PASSWORD}", "signing_key")
    return ask(f"Password of {path.name}: ")


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
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if not trust.public_keys:
        raise _key_error("trust", "no key to trust")
    keys = {}
    for number, data in enumerate(trust.public_keys, start=1):
        subject = f"trusted key {number}"
        try:
            key = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _key_error(subject, f"no public key in PEM ({error})") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _key_error(subject, "a public key of another kind")
        keys[_key_id(key)] = key
    return keys


def _key_id(key: Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _read_key(path: Path, code: str = "trust_key") -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", error)
        raise _key_error(path, f"a file that cannot be read ({reason})", code) from error
    if len(data) > _MAX_KEY_BYTES:
        raise _key_error(path, f"a file of more than {_MAX_KEY_BYTES} bytes", code)
    return data


def _key_error(subject: str | Path, found: str, code: str = "trust_key") -> BundleSignatureError:
    private = code == "signing_key"
    return BundleSignatureError(
        str(subject),
        found=found,
        expected=f"an {_ALGORITHM} {'private' if private else 'public'} key in PEM",
        remedy=f"Check the path, and the password in {PASSWORD}; openssl genpkey -algorithm "
        "ed25519 makes a key."
        if private
        else "Get the public key from the bundle's vendor, as a PEM file.",
        code=code,
    )


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise BundleSignatureError(
            "signatures",
            found=f"that cryptography does not load ({error})",
            expected="the package cryptography, which signs and verifies",
            remedy='pip install "mammoclip-sdk[signing]"',
            code="signing_not_installed",
        ) from error
