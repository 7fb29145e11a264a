"""A certificate -> one HTML page that stands alone."""

from __future__ import annotations

import math
from html import escape

from mammoclip_sdk.bundle.contradictions import LOGIT_SCALE
from mammoclip_sdk.bundle.manifest import Interval, Manifest
from mammoclip_sdk.page import NOT_FOR_CLINICAL_USE, fact_table, method_name, page, use_note
from mammoclip_sdk.parity.agreement import (
    QUANTITIES,
    AucAgreement,
    FindingAgreement,
    Gate,
    Worst,
    largest,
    number_text,
)
from mammoclip_sdk.parity.certificate import Absence, Certificate, Comparison

_STYLE = """
.verdict { margin: 0; font-size: 2.2rem; line-height: 1.2; font-weight: 300 }
.absent { color: var(--mark) }
.failed, .failed th { color: var(--mark); font-weight: 600 }
tbody th { white-space: normal }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap }
"""


def to_html(certificate: Certificate, manifest: Manifest) -> str:
    """Return the certificate as HTML5 text, with the use that the bundle's manifest is for."""
    body = "".join(
        (
            use_note(manifest.intended_use, not_for_clinical_use=manifest.not_for_clinical_use),
            _verdict(certificate),
            _overview(certificate.comparisons),
            *(_details(one) for one in certificate.comparisons),
            _absent(certificate.absent),
            _facts(certificate),
        )
    )
    title = f"Parity certificate, {certificate.bundle} {certificate.version}"
    style = _STYLE + (NOT_FOR_CLINICAL_USE if manifest.not_for_clinical_use else "")
    return page(title, body, style=style)


def _verdict(certificate: Certificate) -> str:
    failures = "".join(f"<li>{escape(text)}</li>" for text in certificate.failures)
    here = "Every runtime that was " + ("asked for" if certificate.narrowed else "here")
    said = f"{here} agrees within its limits"
    if not certificate.passed:
        said = f"Not {said[0].lower()}{said[1:]}"
    kind = "" if certificate.passed else " failed"
    devices = ", ".join(dict.fromkeys(one.device for one in certificate.absent))
    absent = f"Not compared, in one precision or more: {escape(devices)}." if devices else ""
    return (
        "<h1>Parity certificate</h1>"
        f'<p class="verdict{kind}">{said}</p>'
        + (f'<p class="verdict absent">{absent}</p>' if absent else "")
        + f"<p>{escape(certificate.bundle)} {escape(certificate.version)} on "
        f"{certificate.exams} exams, compared with {escape(certificate.reference)}. "
        "Every figure is the worst case over all of them.</p>"
        + (f"<ul>{failures}</ul>" if failures else "")
    )


def _overview(comparisons: tuple[Comparison, ...]) -> str:
    rows = "".join(_overview_row(one) for one in comparisons)
    return (
        "<h2>What was compared</h2><table><thead><tr><th>Runtime</th><th>Verdict</th>"
        f"<th>Precision</th><th>Logit (scale {LOGIT_SCALE:g})</th><th>Probability</th>"
        f"<th>Decisions that differ</th></tr></thead><tbody>{rows}</tbody></table>"
        '<p class="caption">Largest differences from the reference; of a probability, over the '
        "golden exams too. A golden exam's logit, which has the scale of its finding, stands with "
        "its runtime below.</p>"
    )


def _overview_row(one: Comparison) -> str:
    agreement = one.agreement
    golden = [_found(gate) for gate in one.gates if gate.quantity == "golden_probability"]
    probability = largest([*(finding.probability for finding in agreement.findings), *golden])
    points = [point for finding in agreement.findings for point in finding.operating_points]
    flips = str(sum(point.count for point in points)) if points else "no operating points"
    cells = (_value(agreement.logit), _value(probability), flips)
    return (
        f'<tr class="{"failed" if one.failed else "passed"}"><th>{escape(one.runtime)}</th>'
        f"<td>{escape(one.verdict)}</td><td>{escape(one.precision)}</td>"
        + "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
        + "</tr>"
    )


def _found(gate: Gate) -> Worst | None:
    """Return what a gate found; what failed without a number was worse than any."""
    if gate.value is None:
        return Worst(value=math.inf, where=gate.where) if gate.verdict == "failed" else None
    return Worst(value=gate.value, where=gate.where)


def _value(worst: Worst | None) -> str:
    return "none" if worst is None else number_text(worst.value)


def _details(one: Comparison) -> str:
    gates = "".join(_gate(found) for found in one.gates)
    agreement, judged = one.agreement, {found.quantity for found in one.gates}
    measured = {
        f"{QUANTITIES[name][0].upper()}{QUANTITIES[name][1:]}": _worst(getattr(agreement, name))
        for name in (
            "logit",
            "cosine",
            "length",
            "batch_logit",
            "batch_probability",
            "batch_cosine",
        )
        if name not in judged
    }
    for finding in agreement.findings:
        measured |= _finding(finding)
    facts = {
        "Device": f"{one.device}: {one.hardware}",
        "Graph": f"{one.graph}, SHA-256 {one.graph_sha256}",
        "Batches": f"the first {' and '.join(map(str, agreement.batch_sizes))} of "
        f"{agreement.exams} exams once more, each in one run",
    }
    return (
        f"<h2>{escape(one.runtime)}, {escape(one.precision)}</h2>"
        "<table><thead><tr><th>Gate</th><th>Verdict</th><th>Worst</th><th>At most</th>"
        f"<th>Where</th></tr></thead><tbody>{gates}</tbody></table>"
        f'<p class="caption">Measured beside that:</p>{fact_table(measured | facts)}'
    )


def _gate(found: Gate) -> str:
    value = "" if found.value is None else number_text(found.value)
    return (
        f'<tr class="{"failed" if found.verdict == "failed" else "passed"}">'
        f"<td>{escape(QUANTITIES[found.quantity])}</td>"
        f'<td class="number">{escape(found.verdict)}</td><td class="number">{value}</td>'
        f'<td class="number">{number_text(found.limit)}</td><td>{escape(found.where)}</td></tr>'
    )


def _worst(found: Worst | None) -> str:
    if found is None:
        return "none"
    return number_text(found.value) + (f" ({found.where})" if found.where else "")


def _finding(one: FindingAgreement) -> dict[str, str]:
    facts = {f"Probability of {one.finding}": _worst(one.probability)}
    for point in one.operating_points:
        where = f" ({point.where})" if point.where else ""
        facts[f"{one.finding} at {point.operating_point}"] = (
            f"{point.count} decisions differ at {point.threshold:.4f}{where}"
        )
    facts[f"AUC of {one.finding}"] = "too few labelled exams" if one.auc is None else _auc(one.auc)
    return facts


def _auc(auc: AucAgreement) -> str:
    return (
        f"reference {_interval(auc.reference)}; here {_interval(auc.runtime)}; difference "
        f"{_interval(auc.difference, '+.4f')}; on {auc.exams} labelled exams, {auc.positives} of "
        "them malignant"
    )


def _interval(one: Interval, form: str = ".4f") -> str:
    limits = f"{one.lower:{form}} to {one.upper:{form}}"
    return f"{one.estimate:{form}} ({one.level:.0%} interval {limits}, {method_name(one.method)})"


def _absent(absent: tuple[Absence, ...]) -> str:
    facts = {f"{one.device}, {one.precision}": one.reason for one in absent}
    return f"<h2>What was not compared</h2>{fact_table(facts)}" if facts else ""


def _facts(certificate: Certificate) -> str:
    facts = {
        "Exams": f"{certificate.exams}, of which {certificate.labelled} are labelled and "
        f"{certificate.positives} malignant",
        "SHA-256 of what was judged": certificate.judged_sha256,
        "SHA-256 of the exams": certificate.exams_sha256,
        "SHA-256 of the bundle": certificate.bundle_sha256 or "that which holds this certificate",
        "Issued": certificate.issued_at or "with the bundle",
        "Software": f"mammoclip-sdk {certificate.sdk_version}",
    }
    return f"<h2>What it rests on</h2>{fact_table(facts)}"
