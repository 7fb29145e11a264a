"""The tiny bundle with a parity certificate: every precision that it may be run in, compared."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from conftest import FakeSession, tiny_files, tiny_manifest
from tiny_graphs import exams

from mammoclip_sdk.bundle import (
    Attachment,
    Bundle,
    Manifest,
    manifest_to_json,
    sha256,
    write_bundle,
)
from mammoclip_sdk.parity import measure
from mammoclip_sdk.parity.certificate import (
    FORMAT,
    Certificate,
    certificate_to_json,
    judged_sha256,
)
from mammoclip_sdk.parity.exams import write_exams

EXAMS = 64


def bundle_of(manifest: Manifest, files: dict[str, bytes]) -> Bundle:
    """A bundle in memory, as the exporter holds one that it has not written yet."""
    digest = sha256(manifest_to_json(manifest).encode())
    return Bundle(manifest=manifest, sha256=digest, files=files, path="certified")


def attached(bundle: Bundle, kind: str, file: str, data: bytes) -> Bundle:
    """The bundle with an attachment, in place of an earlier one of its kind."""
    others = tuple(one for one in bundle.manifest.attachments if one.kind != kind)
    entry = Attachment(kind=kind, file=file, sha256=sha256(data))
    manifest = replace(bundle.manifest, attachments=(*others, entry))
    return bundle_of(manifest, {**bundle.files, file: data})


@functools.cache
def certificate() -> Certificate:
    """The certificate of `uncertified`, its runtime the tiny graph in NumPy."""
    bundle, made = uncertified(), exams(EXAMS)
    return Certificate(
        format=FORMAT,
        bundle="tiny",
        version="1.2.3",
        judged_sha256=judged_sha256(bundle.manifest),
        bundle_sha256=None,
        issued_at=None,
        sdk_version="0.0.0",
        reference=made.reference,
        exams=EXAMS,
        labelled=made.labelled,
        positives=made.positives,
        exams_sha256=bundle.manifest.attachments[0].sha256,
        comparisons=tuple(
            measure(bundle, made, FakeSession(precision=precision))
            for precision in bundle.manifest.golden.tolerance
        ),
        absent=(),
    )


@functools.cache
def uncertified() -> Bundle:
    """The tiny bundle with 64 parity exams, and no certificate."""
    files = tiny_files()
    bundle = bundle_of(tiny_manifest(files), files)
    return attached(bundle, "parity_exams", "parity.npz", write_exams(exams(EXAMS)))


def certified(made: Certificate | None = None) -> Bundle:
    """The tiny bundle with its certificate, or with another one."""
    data = certificate_to_json(certificate() if made is None else made).encode()
    return attached(uncertified(), "certificate", "certificate.json", data)


def write_certified(path: Path, bundle: Bundle | None = None) -> Path:
    """Write a bundle's folder, by default of the one with its certificate."""
    bundle = certified() if bundle is None else bundle
    write_bundle(path, bundle.manifest, bundle.files)
    return path
