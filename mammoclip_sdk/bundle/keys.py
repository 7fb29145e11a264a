"""Ed25519 keys in PEM: the public ones that are trusted, the private one that signs.

A key's identifier is the SHA-256 of its public half as DER (SubjectPublicKeyInfo): ``openssl pkey
-pubin -in KEY.pem -outform DER | sha256sum``. ``cryptography`` is imported for nothing but keys and
signatures.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mammoclip_sdk.errors import BundleSignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PASSWORD = "MAMMOCLIP_KEY_PASSWORD"  # noqa: S105 - a variable's name
"""Environment variable with the password of a private key; without it, the terminal is asked."""
_MAX_KEY_BYTES = 2**16
"""A key takes some hundred; a slip on the command line may name a bundle."""
_PRIVATE, _PUBLIC = b"PRIVATE KEY-----", b"PUBLIC KEY-----"
"""How the first line of a PEM block ends, whatever the kind of key."""
_GET_PUBLIC = "Get the public key from the bundle's vendor, as a PEM file."
_CHECK_PRIVATE = (
    f"Check the path, and the password in {PASSWORD}; openssl genpkey -algorithm ed25519 makes a "
    "key."
)


def public_key_file(path: Path) -> bytes:
    """Read a file that is to hold a public key.

    Raises
    ------
    BundleSignatureError
        ``trust_key``: it cannot be read, or holds a private key.
    """
    data = _read(path, code="trust_key")
    _require_not_private(data, str(path))
    return data


def public_key(data: bytes, subject: str) -> Ed25519PublicKey:
    """Return a public key from PEM.

    Raises
    ------
    BundleSignatureError
        ``trust_key``: it is none; ``signing_not_installed``.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    _require_not_private(data, subject)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise trust_error(subject, f"no public key in PEM ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise trust_error(subject, "a public key of another kind")
    return key


def _require_not_private(data: bytes, subject: str) -> None:
    if _PRIVATE in data:
        raise trust_error(
            subject,
            "a private key",
            remedy="Trust the public key (openssl pkey -in KEY.pem -pubout makes it of the "
            "private one). A private key does not belong on a workstation: whoever has it can "
            "sign bundles in its owner's name. Remove it from there.",
        )


def private_key(path: Path, ask: Callable[[str], str]) -> Ed25519PrivateKey:
    """Read a private key, encrypted or not; see `signature.load_signer`.

    Raises
    ------
    BundleSignatureError
        ``signing_key``: it is none, or has another password; ``signing_not_installed``.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path, code="signing_key")
    if _PUBLIC in data and _PRIVATE not in data:
        raise _error(
            path, "a public key", "signing_key", remedy="Name the private key that belongs to it."
        )
    try:
        try:
            key = load_pem_private_key(data, None)
        except TypeError:  # it is encrypted
            key = load_pem_private_key(data, _password(path, ask).encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _error(path, f"no key that opens ({error})", "signing_key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _error(path, "a private key of another kind", "signing_key")
    return key


def _password(path: Path, ask: Callable[[str], str]) -> str:
    given = os.environ.get(PASSWORD)
    if given is not None:
        return given
    if ask is getpass.getpass and not sys.stdin.isatty():
        raise _error(path, f"an encrypted key, no terminal and no {PASSWORD}", "signing_key")
    return ask(f"Password of {path.name}: ")


def key_id(key: Ed25519PublicKey) -> str:
    """Return a key's identifier."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _read(path: Path, code: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", error)
        raise _error(path, f"a file that cannot be read ({reason})", code) from error
    if len(data) > _MAX_KEY_BYTES:
        raise _error(path, f"a file of more than {_MAX_KEY_BYTES} bytes", code)
    return data


def trust_error(subject: str, found: str, remedy: str = _GET_PUBLIC) -> BundleSignatureError:
    """Say what was found in place of a public key."""
    return _error(subject, found, "trust_key", remedy=remedy)


def _error(
    subject: str | Path, found: str, code: str, remedy: str | None = None
) -> BundleSignatureError:
    private = code == "signing_key"
    return BundleSignatureError(
        str(subject),
        found=found,
        expected=f"an Ed25519 {'private' if private else 'public'} key in PEM",
        remedy=remedy or (_CHECK_PRIVATE if private else _GET_PUBLIC),
        code=code,
    )


def require_cryptography() -> None:
    """Refuse, with the remedy, to go on without the package."""
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
