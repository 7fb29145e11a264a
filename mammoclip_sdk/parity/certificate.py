"""The parity certificate: every runtime that was there, compared with the reference model.

It is made when a bundle is and travels in it, and may be made again on any workstation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mammoclip_sdk import strict_json
from mammoclip_sdk.bundle import Bundle, manifest_to_json, sha256
from mammoclip_sdk.bundle.manifest import GOLDEN_QUANTITIES, MADE_AFTERWARDS, Manifest
from mammoclip_sdk.errors import BundleCertificateError, BundleFormatError, BundleVersionError
from mammoclip_sdk.parity.agreement import (
    LIMITS,
    QUANTITIES,
    Agreement,
    Gate,
    Worst,
    gate,
    gate_text,
    judge,
)
from mammoclip_sdk.parity.exams import ParityExams, read_exams
from mammoclip_sdk.sessions import BATCH_SIZE

FORMAT = 3
KIND = "certificate"
"""Of the attachment."""
MIN_EXAMS = 64
"""That a certificate rests on, for what is rare to be met at all."""
MAY_BE_UNJUDGED = ("flips", "auc")
"""Without operating points, and without exams that the reference tells apart."""
BATCHES = (3, BATCH_SIZE)
"""Exams in one run, beside one exam alone: the last of many runs is seldom full. A device engine,
which has a largest batch of its own, is run in every size up to it."""
NOT_ASKED = "not asked for"
"""Why something that could have been compared is absent from a narrowed certificate."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One graph on one runtime against the reference model."""

    runtime: str
    """Name, version and provider, as the session says."""
    device: str
    hardware: str
    precision: str
    graph: str
    graph_sha256: str
    agreement: Agreement
    gates: tuple[Gate, ...]

    @property
    def failed(self) -> tuple[Gate, ...]:
        """The gates that failed."""
        return tuple(gate for gate in self.gates if gate.verdict == "failed")

    @property
    def verdict(self) -> str:
        """In words: what was not judged has not passed, and is counted."""
        if self.failed:
            return f"{len(self.failed)} of {len(self.gates)} gates failed"
        unjudged = sum(gate.verdict == "not judged" for gate in self.gates)
        return f"passed, {unjudged} of {len(self.gates)} gates not judged" if unjudged else "passed"


@dataclass(frozen=True, kw_only=True)
class Absence:
    """A device and precision that could have been compared, and why it was not."""

    device: str
    precision: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Every runtime that was there, compared with the reference model over the same exams."""

    format: int
    bundle: str
    version: str
    judged_sha256: str
    """Of all that was judged: see `judged_sha256`."""
    bundle_sha256: str | None
    """None in the certificate that travels in the bundle, whose hash covers it."""
    issued_at: str | None
    """None in the certificate that travels: the same checkpoint gives the same bundle."""
    sdk_version: str
    reference: str
    """What computed the reference answers, such as ``PyTorch 2.14.1, float32, not folded``."""
    exams: int
    labelled: int
    positives: int
    exams_sha256: str
    comparisons: tuple[Comparison, ...]
    absent: tuple[Absence, ...]

    @property
    def passed(self) -> bool:
        """Whether something was compared, and no gate failed."""
        return bool(self.comparisons) and not any(one.failed for one in self.comparisons)

    @property
    def narrowed(self) -> bool:
        """Whether something was left out because it was not asked for."""
        return any(one.reason == NOT_ASKED for one in self.absent)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every failed gate in words, with its worst case."""
        return tuple(
            f"{one.runtime}, {one.precision}: {gate_text(gate)}"
            for one in self.comparisons
            for gate in one.failed
        )


def judged_sha256(manifest: Manifest) -> str:
    """Return the SHA-256 of a manifest's canonical text without what is `MADE_AFTERWARDS`.

    It holds the hashes of graphs, golden exams and parity exams, and whatever else decides what is
    reported: prompts, their order, scales, calibration, operating points, preprocessing.
    """
    kept = tuple(one for one in manifest.attachments if one.kind not in MADE_AFTERWARDS)
    return sha256(manifest_to_json(replace(manifest, attachments=kept)).encode())


def certificate_to_json(certificate: Certificate) -> str:
    """Write JSON text that `certificate_from_json` turns back into its equal."""
    return strict_json.dumps(certificate) + "\n"


def certificate_from_json(text: str, *, subject: str) -> Certificate:
    """Read a certificate, with every problem in one error.

    Raises
    ------
    BundleVersionError
        It has another format.
    BundleFormatError
        Unknown, missing or contradictory keys.
    """
    plain, problems = strict_json.parse(text)
    found = plain.get("format") if isinstance(plain, dict) else None
    if type(found) is int and found != FORMAT:
        raise BundleVersionError(
            f"{subject}: format",
            found=str(found),
            expected=str(FORMAT),
            remedy="Use the version of mammoclip-sdk that this certificate was made by.",
        )
    certificate = strict_json.from_plain(Certificate, plain, problems)
    if certificate is not None:
        problems.extend(_contradictions(certificate))
    if certificate is None or problems:
        raise BundleFormatError(
            subject,
            found=f"{len(problems)} problem{'s' * (len(problems) != 1)}: " + "; ".join(problems),
            expected=f"a certificate of format {FORMAT}, with all of its keys and no others",
            remedy="Make the bundle again with the exporter of this version, or the certificate "
            "with mammoclip-sdk bundle verify --parity.",
        )
    return certificate


def require_certificate(bundle: Bundle) -> Certificate:
    """Return the certificate that travels in a bundle: its own, and passed by every graph of it.

    Raises
    ------
    BundleCertificateError
        There is none, a gate failed, or it speaks of another manifest, exams or limits.
    BundleVersionError, BundleFormatError
        As `certificate_from_json`, and `read_exams`.
    """
    attachment = bundle.manifest.attachment(KIND)
    if attachment is None:
        raise _no_proof(bundle, "no parity certificate")
    subject = f"{bundle.path}: {attachment.file}"
    text = bundle.files[attachment.file].decode("utf-8", errors="surrogateescape")
    certificate = certificate_from_json(text, subject=subject)
    problems = [*_missing(certificate, bundle.manifest), *certificate.failures]
    if not problems:
        problems.extend(_miscounted(certificate, read_exams(bundle)))
    if problems:
        raise _no_proof(bundle, strict_json.listed(problems))
    return certificate


def _no_proof(bundle: Bundle, found: str) -> BundleCertificateError:
    return BundleCertificateError(
        bundle.path,
        found=found,
        expected="the parity certificate of this bundle, with every graph compared and every gate "
        "passed",
        remedy="Do not use or sign this bundle. Make it again with the exporter of this version.",
    )


def _missing(certificate: Certificate, manifest: Manifest) -> Iterator[str]:
    """Say why a certificate is not a proof of what a manifest describes."""
    exams = manifest.attachment("parity_exams")
    if (certificate.bundle, certificate.version) != (manifest.name, manifest.version):
        yield f"a certificate of {certificate.bundle} {certificate.version}"
    if certificate.judged_sha256 != judged_sha256(manifest):
        yield "a certificate of another manifest: what it says was changed after it was judged"
    if exams is None or certificate.exams_sha256 != exams.sha256:
        yield "a certificate over other exams than those of the bundle"
    if certificate.exams < MIN_EXAMS:
        yield f"a certificate over {certificate.exams} exams, of at least {MIN_EXAMS}"
    if certificate.narrowed:
        yield "a certificate that was narrowed to a device or a precision"
    if certificate.bundle_sha256 is not None or certificate.issued_at is not None:
        yield "a certificate that was made on a workstation, which travels in no bundle"
    yield from _uncompared(certificate, manifest)
    for one in certificate.comparisons:
        place = f"{one.runtime}, {one.precision}"
        if one.agreement.exams != certificate.exams:
            yield f"{place}: {one.agreement.exams} exams of {certificate.exams}"
        yield from (f"{place}: {problem}" for problem in _unproved(one, manifest))


def _miscounted(certificate: Certificate, exams: ParityExams) -> Iterator[str]:
    found = certificate.exams, certificate.labelled, certificate.positives
    counted = len(exams.labels), exams.labelled, exams.positives
    if found != counted:
        yield f"exams, labelled, positives: {found} instead of the bundle's {counted}"


def _uncompared(certificate: Certificate, manifest: Manifest) -> Iterator[str]:
    compared = {(one.graph, one.precision, one.graph_sha256) for one in certificate.comparisons}
    for graph in manifest.graphs:
        if (graph.file, graph.precision, graph.sha256) not in compared:
            yield f"no comparison of {graph.file} in {graph.precision}"
    run = {one.precision for one in certificate.comparisons}
    for precision in manifest.golden.tolerance:
        if precision not in run:
            yield f"no comparison in {precision}, in which the bundle may be run"


def _unproved(one: Comparison, manifest: Manifest) -> Iterator[str]:
    """Say what a comparison, whose gates have not failed, leaves open."""
    agreement = one.agreement
    if one.graph_sha256 not in {graph.sha256 for graph in manifest.graphs}:
        yield "a graph that the bundle does not have"
    if {found.finding for found in agreement.findings} != {f.name for f in manifest.findings}:
        yield "other findings than those of the bundle"
    unrun = [size for size in BATCHES if size not in agreement.batch_sizes]
    if unrun and one.device != "tensorrt":
        yield f"no batch of {' and of '.join(map(str, unrun))} exams"
    quantity = f"golden_{GOLDEN_QUANTITIES[one.precision]}"
    limit = manifest.golden.tolerance.get(one.precision)
    golden = [found for found in one.gates if found.quantity == quantity]
    if [found.limit for found in golden] != [limit]:
        yield f"no judgement of the golden exams by the bundle's tolerance, {limit}"
    for found in one.gates:
        if found.verdict == "not judged" and found.quantity not in MAY_BE_UNJUDGED:
            yield f"{found.quantity} was not judged"


def _contradictions(certificate: Certificate) -> Iterator[str]:
    if not 0 <= certificate.positives <= certificate.labelled <= certificate.exams:
        yield "positives, labelled, exams: each holds those before it"
    for i, one in enumerate(certificate.comparisons):
        place = f"comparisons[{i}]"
        if one.precision not in LIMITS:
            yield f"{place}.precision: {one.precision!r} is none of {', '.join(LIMITS)}"
            continue
        judged = {found.quantity: found for found in judge(one.precision, one.agreement)}
        absent = judged.keys() - {found.quantity for found in one.gates}
        if absent:
            yield f"{place}.gates: none for {', '.join(sorted(absent))}"
        if len(set(one.agreement.batch_sizes)) < len(one.agreement.batch_sizes):
            yield f"{place}.agreement.batch_sizes: {one.agreement.batch_sizes}, one of them twice"
        for found in one.gates:
            if found.value is not None and found.value < 0:
                yield f"{place}.gates {found.quantity}: {found.value} is negative"
            if found.quantity not in QUANTITIES:
                yield f"{place}.gates: {found.quantity!r} is none of {', '.join(QUANTITIES)}"
            elif found != judged.get(found.quantity, _again(found)):
                yield f"{place}.gates {found.quantity}: {found.verdict!r} is not what it found"


def _again(found: Gate) -> Gate:
    return gate(found.quantity, found.limit, _judged(found))


def _judged(found: Gate) -> Worst | str:
    if found.value is None and found.verdict != "failed":
        return found.where
    return Worst(value=math.inf if found.value is None else found.value, where=found.where)
