"""The one place where a bundle is signed: what its own certificate does not prove, is not.

Whoever trusts a key takes its signature for the vendor's word that the bundle computes what was
validated. Nothing less than a certificate says so.
"""

from __future__ import annotations

from pathlib import Path

from mammoclip_sdk.bundle import Bundle, manifest_to_json, read_bundle, sha256
from mammoclip_sdk.bundle.files import SIGNATURE
from mammoclip_sdk.bundle.folder import write_file
from mammoclip_sdk.bundle.manifest_json import not_canonical
from mammoclip_sdk.bundle.signature import Signer
from mammoclip_sdk.errors import BundleError
from mammoclip_sdk.parity.certificate import require_certificate


def signature_of(bundle: Bundle, signer: Signer) -> bytes:
    """Sign a bundle in memory; return the content of its ``manifest.sig``.

    Raises
    ------
    BundleCertificateError, BundleVersionError, BundleFormatError
        As `require_certificate`: it carries no certificate of its own that passed.
    BundleSignatureError
        ``not_canonical``: its manifest was not written as this software writes it.
    """
    require_certificate(bundle)
    data = manifest_to_json(bundle.manifest).encode()
    if sha256(data) != bundle.sha256:
        raise not_canonical(bundle.path)
    return signer.sign(data)


def sign_bundle(path: str | Path, signer: Signer) -> Bundle:
    """Sign a bundle that is there, whole and in order; an earlier signature is replaced.

    Raises
    ------
    BundleError
        As `read_bundle` and `signature_of`; or it is a zip, or the disk refused.
    """
    bundle = read_bundle(path)
    folder = Path(path)
    if not folder.is_dir():
        raise BundleError(
            str(path),
            found="a zip",
            expected="a bundle's folder",
            remedy="Unpack it, sign the folder, and zip it again.",
        )
    write_file(folder / SIGNATURE, signature_of(bundle, signer))
    return read_bundle(path)
