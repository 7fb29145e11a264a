"""A bundle that somebody vouches for: judged once it is in memory, and taken into use."""

from __future__ import annotations

from mammoclip_sdk.bundle import Bundle, releases
from mammoclip_sdk.bundle.releases import Release
from mammoclip_sdk.bundle.signature import Trust
from mammoclip_sdk.errors import BundleSignatureError


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
