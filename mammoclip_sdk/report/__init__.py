"""An `Examination` -> one HTML page: what was found, in which pictures, and what ran.

Pictures are data URIs, and every text is escaped, for names of files and findings come from
elsewhere.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.page import DOCTYPE, NOT_FOR_CLINICAL_USE, page, use_note
from mammoclip_sdk.prediction import Examination, Prediction
from mammoclip_sdk.report.answer import answer
from mammoclip_sdk.report.evidence import uid_text, what_is_known, what_ran, what_was_read
from mammoclip_sdk.report.pictures import pictures


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
            answer(prediction, manifest.findings),
            pictures(examination),
            what_was_read(prediction),
            what_ran(prediction),
            what_is_known(manifest.measurements, manifest.model_card.limitations),
        )
    )
    printed = NOT_FOR_CLINICAL_USE if provenance.not_for_clinical_use else ""
    return page(_title(prediction), body, style=_STYLE + printed)


def _title(prediction: Prediction) -> str:
    """Name the exam, for the title is on every printed sheet."""
    if prediction.study_instance_uid is None:  # arrays; what tells them apart are their pixels
        record = prediction.views[0]
        exam = f"{record.view} with pixels {record.pixel_sha256[:16]}"
    else:
        exam = f"study {uid_text(prediction.study_instance_uid)}"
    return f"Mammography report, {exam}, {prediction.answered_at}"


_STYLE = """
.number { margin: 0; font-size: 3.4rem; line-height: 1.1; font-weight: 300;
  font-variant-numeric: tabular-nums }
.answer p { color: var(--soft) }
.answer .number, .answer .caution p, .answer b { color: var(--ink) }
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
.image, .uid { overflow-wrap: anywhere }
.image { min-width: 12em }
@media print {
  .views, figure { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  figure { height: 6.4cm } }
"""
