"""The parity certificate: every runtime that was there, compared with the reference model.

It is made when a bundle is and travels in it, and may be made again on any workstation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mammoclip_sdk import strict_json
from mammoclip_sdk.errors import BundleFormatError, BundleVersionError
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

FORMAT = 1


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
    def failures(self) -> tuple[str, ...]:
        """Every failed gate in words, with its worst case."""
        return tuple(
            f"{one.runtime}, {one.precision}: {gate_text(gate)}"
            for one in self.comparisons
            for gate in one.failed
        )


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
        for found in one.gates:
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
