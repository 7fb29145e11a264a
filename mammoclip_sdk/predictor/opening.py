"""What has to hold before a bundle answers: it may be used, and this session computes its model."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom

from mammoclip_sdk.bundle import Bundle, Trust, read_bundle
from mammoclip_sdk.bundle.trusted import require_trusted
from mammoclip_sdk.errors import BundleSignatureError, DeviceError
from mammoclip_sdk.golden import require_golden
from mammoclip_sdk.prediction import Provenance
from mammoclip_sdk.sessions import Session


def usable_bundle(bundle: Bundle | str | Path, trust: Trust | None) -> Bundle:
    """Read a bundle, or judge one that was read.

    Raises
    ------
    BundleError
        It cannot be used, or is not trusted.
    """
    if trust is not None and not isinstance(trust, Trust):  # such as a key's path
        raise BundleSignatureError(
            "trust",
            found=f"a {type(trust).__name__}",
            expected="a mammoclip_sdk.Trust",
            remedy="Make one: Trust.in_files([PATH]).",
            code="trust_key",
        )
    if not isinstance(bundle, Bundle):
        return read_bundle(bundle, trust)
    if trust is not None:
        require_trusted(bundle, trust)
    return bundle


def require_agreement(
    session: Session, device: str, precision: str | None, threads: int | None
) -> None:
    """Refuse options beside a caller's session, which has them already.

    Raises
    ------
    DeviceError
    """
    options = {"precision": precision, "threads": threads}
    asked = [f"{name}={value!r}" for name, value in options.items() if value is not None]
    if device not in ("auto", session.device):
        asked.insert(0, f"device {device!r}")
    if asked:
        raise DeviceError(
            "session",
            found=f"one on {session.device!r}, and {' and '.join(asked)} beside it",
            expected="a session alone; it has its device, its precision and its threads already",
            remedy="Leave device, precision and threads out, or leave the session out.",
        )


def provenance_of(
    bundle: Bundle, session: Session, *, device_asked: str, isolated: bool
) -> Provenance:
    """Run the golden exams, and say what will answer.

    Raises
    ------
    BundleFormatError, InferenceError
        See `golden.require_golden`.
    """
    manifest, signature = bundle.manifest, bundle.signature
    return Provenance(
        bundle=manifest.name,
        bundle_version=manifest.version,
        bundle_sha256=bundle.sha256,
        signed_by=signature.key_id if signature and bundle.trusted else None,
        intended_use=manifest.intended_use,
        not_for_clinical_use=manifest.not_for_clinical_use,
        device_asked=device_asked,
        device=session.device,
        runtime=session.runtime,
        precision=session.precision,
        preprocessing_version=manifest.preprocessing.version,
        sdk_version=importlib.metadata.version("mammoclip-sdk"),
        pydicom_version=pydicom.__version__,
        imagecodecs_version=imagecodecs.__version__,
        numpy_version=np.__version__,
        strict=False,
        isolated=isolated,
        golden=require_golden(bundle, session),
    )
