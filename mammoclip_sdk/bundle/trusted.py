"""A bundle that somebody vouches for: signed, judged once it is in memory, and taken into use."""

from __future__ import annotations

from pathlib import Path

from mammoclip_sdk.bundle import Bundle, manifest_to_json, read_bundle, releases, sha256
from mammoclip_sdk.bundle.files import SIGNATURE
from mammoclip_sdk.bundle.folder import write_file
from mammoclip_sdk.bundle.manifest_json import not_canonical
from mammoclip_sdk.bundle.releases import Release
from mammoclip_sdk.bundle.signature import Signer, Trust
from mammoclip_sdk.errors import BundleError, BundleSignatureError


def require_trusted(bundle: Bundle, trust: Trust) -> None:
    """Refuse a bundle that was not read with one of these keys, or is older than one accepted.

    Raises
    ------
    BundleSignatureError
        ``unverified``: it was read without a key, or with another one.
    BundleReleaseError
        See `read_bundle`.
    """
    key_ids = trust.key_ids()
    release = bundle.release()
    if not bundle.trusted or release.key_id not in key_ids:
        raise BundleSignatureError(
            bundle.path,
            found="a bundle that was read without one of the trusted keys",
            expected=f"one that was verified with {', '.join(key_ids)}",
            remedy="Give the same trust to read_bundle.",
            code="unverified",
        )
    if not trust.allow_older:
        releases.require_not_older(release, key_ids, releases.record_file(trust.accepted))


def accept_release(bundle: Bundle, trust: Trust, *, by: str) -> Release | None:
    """Record that this release is in use, or wanted; from now on an older one is refused.

    Parameters
    ----------
    by
        `releases.USE`, or `releases.COMMAND`, which may be for an older release.

    Returns
    -------
    What was accepted last before, or None.

    Raises
    ------
    BundleSignatureError, BundleReleaseError
        See `require_trusted` and `releases.accept`.
    """
    require_trusted(bundle, trust)
    file = releases.record_file(trust.accepted)
    return releases.accept(bundle.release(), trust.key_ids(), file, by=by)


def sign_bundle(path: str | Path, signer: Signer) -> Bundle:
    """Sign a bundle that is there, whole and in order; an earlier signature is replaced.

    Raises
    ------
    BundleError
        As `read_bundle`; or it is a zip, or the disk refused.
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
    data = manifest_to_json(bundle.manifest).encode()
    if sha256(data) != bundle.sha256:
        raise not_canonical(str(path))
    write_file(folder / SIGNATURE, signer.sign(data))
    return read_bundle(path)
