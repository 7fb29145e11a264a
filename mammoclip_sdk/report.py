"""An `Examination` -> one HTML page: what was found, in which pictures, and what ran.

Pictures are data URIs, and every text is escaped, for names of files and findings come from
elsewhere.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from html import escape
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from mammoclip_sdk.bundle import Finding, Interval, Measurement, OperatingPoint
from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.exam import View, ViewGeometry
from mammoclip_sdk.page import (
    DOCTYPE,
    NOT_FOR_CLINICAL_USE,
    fact_table,
    method_name,
    page,
    use_note,
)
from mammoclip_sdk.prediction import Examination, Prediction, ViewRecord
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.quality import Reason, named
from mammoclip_sdk.reasons import CODES
from mammoclip_sdk.scoring import FindingScore

HANGING = (View.RCC, View.LCC, View.RMLO, View.LMLO)
"""Row by row as radiologists hang them: right breast at the left, chest walls in the middle."""


def write_report(examination: Examination, path: str | Path) -> None:
    """Write the page; a page that was there is replaced only by a whole one.

    Raises
    ------
    MammoClipError
        The file cannot be written, or another kind of file has its name; nothing half-written
        stays.
    """
    text = to_html(examination)
    partial: Path | None = None
    try:
        path = Path(path).resolve()
        _refuse_other_files(path)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise MammoClipError(
            str(path),
            found=f"a place that cannot be written ({getattr(error, 'strerror', error)})",
            expected="a file name in a folder that exists",
            remedy="Choose another place for the report.",
            code="report",
        ) from error
    finally:
        if partial is not None:
            with suppress(OSError):
                partial.unlink()


def _refuse_other_files(path: Path) -> None:
    """Keep a slip on the command line from replacing an image by a page about it."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(DOCTYPE)).decode("ascii", "replace") == DOCTYPE:
            return
    raise MammoClipError(
        path.name,
        found="a file that is no report",
        expected="a new name, or that of an earlier report",
        remedy="Choose another name for the report.",
        code="report",
    )


def to_html(examination: Examination) -> str:
    """Return the page as HTML5 text."""
    prediction, manifest = examination.prediction, examination.manifest
    provenance = prediction.provenance
    body = "".join(
        (
            use_note(provenance.intended_use, not_for_clinical_use=provenance.not_for_clinical_use),
            _answer(prediction, manifest.findings),
            _pictures(examination),
            _what_was_read(prediction),
            _what_ran(prediction),
            _what_is_known(manifest.measurements, manifest.model_card.limitations),
        )
    )
    title = f"Four-view mammography report, {provenance.bundle}"
    printed = NOT_FOR_CLINICAL_USE if provenance.not_for_clinical_use else ""
    return page(title, body, style=_STYLE + printed)


def _answer(prediction: Prediction, findings: Iterable[Finding]) -> str:
    blocks = [reason for reason in prediction.reasons if reason.severity == "block"]
    warnings = [reason for reason in prediction.reasons if reason.severity != "block"]
    questions = {finding.name: finding for finding in findings}
    parts = [_finding(score, questions[score.name]) for score in prediction.findings]
    if prediction.status == "abstained":
        parts.append(
            "<h1>Not scored</h1><p>This exam was not analysed, and there is no probability. "
            "That is not a negative result.</p>"
        )
    parts += [_reason("", reason) for reason in blocks]
    parts += [_reason("Caution, ", reason) for reason in warnings]
    return f'<section class="answer">{"".join(parts)}</section>'


def _reason(kind: str, reason: Reason) -> str:
    row = CODES[reason.code]
    return (
        f'<p class="reason"><b>{kind}{escape(reason.code)} {escape(row.title)}.</b> '
        f"{escape(reason.message)} {escape(row.action)}</p>"
    )


def _finding(score: FindingScore, finding: Finding) -> str:
    kind = (
        "<b>uncalibrated score, 0 to 1: it orders exams, and is no probability</b>"
        if score.calibrated_on is None
        else f"probability, 0 to 1, as calibrated on {escape(score.calibrated_on)}"
    )
    points = "".join(
        _operating_point(point, met=point.name in score.operating_points_met)
        for point in finding.operating_points
    )
    return (
        f"<h1>{escape(score.name)}</h1>"
        f'<p class="number">{score.score:.3f}</p>'
        f"<p>{kind} &middot; uncalibrated logit {score.logit:+.2f}</p>"
        f'<div class="scale" aria-hidden="true"><i style="left:{score.score:.2%}"></i></div>'
        + (f"<ul>{points}</ul>" if points else "<p>No operating point is set for it.</p>")
        + f"<p>Compared with the prompts &ldquo;{escape(finding.positive_prompt)}&rdquo; "
        f"and &ldquo;{escape(finding.negative_prompt)}&rdquo;.</p>"
    )


def _operating_point(point: OperatingPoint, *, met: bool) -> str:
    state = "reached" if met else "not reached"
    return (
        f"<li><b>{escape(point.name)}</b>: threshold {point.threshold:.3f} {state}"
        f" (measured: sensitivity {_range(point.sensitivity)},"
        f" specificity {_range(point.specificity)})</li>"
    )


def _range(one: Interval) -> str:
    return f"{one.estimate:.2f}, {one.lower:.2f} to {one.upper:.2f}"


def _pictures(examination: Examination) -> str:
    geometry = {record.view: record.geometry for record in examination.prediction.views}
    figures = "".join(_figure(view, examination.pictures[view], geometry[view]) for view in HANGING)
    return (
        f'<section class="views" aria-label="The four views">{figures}</section>'
        '<p class="caption">Right breast at the left, as hung for reading. '
        "The frame is the part that goes to the model, "
        f"{_reduced(examination.manifest.preprocessing)}.</p>"
    )


def _reduced(preprocessing: Preprocessing) -> str:
    size = f"{preprocessing.height} rows and {preprocessing.width} columns"
    return f"stretched to {size}" if preprocessing.geometry == "stretch" else f"fitted into {size}"


def _figure(view: View, picture: NDArray[np.uint8], geometry: ViewGeometry) -> str:
    """Draw a view with its chest wall towards the middle of the page, and the crop's frame."""
    chest_wall_right = view.laterality == "R"
    flipped = geometry.mirrored is not chest_wall_right  # mirrored: the source's wall is right
    shown = picture[:, ::-1] if flipped else picture
    png = base64.b64encode(imagecodecs.png_encode(np.ascontiguousarray(shown))).decode()
    rows, columns = geometry.source_shape
    top, left, height, width = geometry.crop
    if flipped:
        left = columns - left - width
    note = " (turned left to right for hanging)" if flipped else ""
    side = "xMaxYMid" if chest_wall_right else "xMinYMid"
    return (
        f'<figure class="{view.laterality}"><svg viewBox="0 0 {columns} {rows}" '
        f'preserveAspectRatio="{side}" role="img" aria-label="{view}">'
        f'<image href="data:image/png;base64,{png}" width="{columns}" height="{rows}" '
        'preserveAspectRatio="none"/>'
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}"/></svg>'
        f"<figcaption>{view}{note}</figcaption></figure>"
    )


def _what_was_read(prediction: Prediction) -> str:
    rows = "".join(_record(record) for record in prediction.views)
    notes = "".join(f"<li>{escape(note)}</li>" for note in prediction.notes)
    return (
        "<h2>What was read</h2><table><thead><tr><th>View</th><th>Image, device</th><th>Pixels</th>"
        "<th>SHA-256 of the pixels</th><th>Also claimed the view</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>" + (f"<ul>{notes}</ul>" if notes else "")
    )


def _record(record: ViewRecord) -> str:
    others = "<br>".join(
        f"{escape(other.name)}: {escape(other.reason)}" for other in record.alternatives
    )
    rows, columns = record.geometry.source_shape
    maker = " ".join(named(record.device)) if record.device else ""
    levels = record.reduction_levels
    reduced = f", without its {levels} finest level{'s' * (levels > 1)}" if levels else ""
    of_what = "<br>of the reduced pixels" if levels else ""
    return (
        f'<tr><th>{record.view}</th><td class="image">{escape(record.name)}<br>{escape(maker)}</td>'
        f"<td>{rows} &times; {columns}<br>{escape(UID(record.transfer_syntax).name)}{reduced}</td>"
        f"<td><code>{record.pixel_sha256[:16]}</code>{of_what}</td>"
        f"<td>{others or 'none'}</td></tr>"
    )


def _what_ran(prediction: Prediction) -> str:
    ran = prediction.provenance
    golden = ran.golden
    asked = "" if ran.device == ran.device_asked else f" (asked for: {ran.device_asked})"
    stages = ", ".join(f"{name} {ms:.1f} ms" for name, ms in prediction.timing.stages().items())
    facts = {
        "Answered": prediction.answered_at,
        "Bundle": f"{ran.bundle} {ran.bundle_version}",
        **({"Signed by": f"key {ran.signed_by}"} if ran.signed_by is not None else {}),
        "SHA-256": ran.bundle_sha256,
        "Device": f"{ran.device}{asked}",
        "Runtime": f"{ran.runtime}, {ran.precision}",
        "Self-test": f"{golden.exams} golden exams, worst {golden.quantity} difference "
        f"{golden.worst_difference:.2g} (at most {golden.tolerance:.2g})",
        "Software": f"mammoclip-sdk {ran.sdk_version}, preprocessing {ran.preprocessing_version}, "
        f"pydicom {ran.pydicom_version}, imagecodecs {ran.imagecodecs_version}, "
        f"numpy {ran.numpy_version}",
        "Reading": f"{'strict' if ran.strict else 'not strict'}, decoded in "
        f"{'child processes' if ran.isolated else 'the same process'}",
        "Time": f"{prediction.timing.total:.0f} ms: {stages}",
    }
    return f"<h2>What ran</h2>{fact_table(facts)}"


def _what_is_known(measurements: Iterable[Measurement], limitations: Iterable[str]) -> str:
    facts: dict[str, str] = {}
    for one in measurements:  # of one figure there may be several, on different exams
        what = f"{one.name}, {one.finding}"
        facts[what] = "; ".join((*([facts[what]] if what in facts else []), _measured(one)))
    limits = "".join(f"<li>{escape(text)}</li>" for text in limitations)
    return f"<h2>What is known of the model</h2>{fact_table(facts)}<ul>{limits}</ul>"


def _measured(measurement: Measurement) -> str:
    value = measurement.value
    return (
        f"{value.estimate:.3f} ({value.level:.0%} interval {value.lower:.3f} to {value.upper:.3f}, "
        f"{method_name(value.method)}) on {measurement.exams} exams: {measurement.data}"
    )


_STYLE = """
.number { margin: 0; font-size: 3.4rem; line-height: 1.1; font-weight: 300;
  font-variant-numeric: tabular-nums }
.answer p { color: var(--soft) }
.answer .number, .answer .reason, .answer b { color: var(--ink) }
.scale { position: relative; height: 6px; max-width: 24rem; margin: .8rem 0; border-radius: 3px;
  background: var(--line) }
.scale i { position: absolute; top: -4px; width: 2px; height: 14px; background: var(--ink) }
.views { display: grid; grid-template-columns: 1fr 1fr; gap: 3px; margin-top: 2rem;
  background: #000; padding: 3px; break-inside: avoid }
figure { position: relative; margin: 0; height: 21rem; background: #000 }
figure svg { display: block; height: 100%; max-width: 100% }
figure.R svg { margin-left: auto }
rect { fill: none; stroke: #7fb2e5; stroke-width: 1.25px; vector-effect: non-scaling-stroke;
  stroke-dasharray: 5 4 }
figcaption { position: absolute; bottom: .4rem; color: #d8d8dc; font-size: .8rem;
  letter-spacing: .04em }
figure.R figcaption { left: .6rem }
figure.L figcaption { right: .6rem }
.image { min-width: 12em; overflow-wrap: anywhere }
@media print {
  .views, figure { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  figure { height: 6.4cm } }
"""
