"""What the answer rests on: the images that were read, what ran, and what is known of the model."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from pydicom.uid import UID

from mammoclip_sdk.bundle import Measurement
from mammoclip_sdk.page import fact_table, method_name
from mammoclip_sdk.prediction import Prediction, ViewRecord
from mammoclip_sdk.printable import printable
from mammoclip_sdk.quality import named

_LONGEST_UID = 64  # PS3.5, 9.1; a header may hold anything


def uid_text(uid: str) -> str:
    """Return a UID of a header as a page may show it."""
    return printable(uid)[:_LONGEST_UID]


def what_was_read(prediction: Prediction) -> str:
    """Return the section on the study, its four images, and the others."""
    rows = "".join(_record(record) for record in prediction.views)
    notes = "".join(f"<li>{escape(note)}</li>" for note in prediction.notes)
    study = prediction.study_instance_uid
    of_study = (
        "No Study Instance UID: an array was handed over."
        if study is None
        else f"Study Instance UID {uid_text(study)}"
    )
    return (
        f'<h2>What was read</h2><p class="uid">{escape(of_study)}</p>'
        "<table><thead><tr><th>View</th><th>Image, device, SOP Instance UID</th>"
        "<th>Pixels</th><th>SHA-256 of the pixels</th><th>Also claimed the view</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>" + (f"<ul>{notes}</ul>" if notes else "")
    )


def _record(record: ViewRecord) -> str:
    others = "<br>".join(
        f"{escape(other.name)}: {escape(other.reason)}" for other in record.alternatives
    )
    rows, columns = record.geometry.source_shape
    maker = " ".join(named(record.device)) if record.device else ""
    image = (record.name, maker, uid_text(record.sop_instance_uid or ""))
    # An array has no transfer syntax, and as a UID its name would raise a warning.
    syntax = UID(record.transfer_syntax).name if record.sop_instance_uid else "array"
    levels = record.reduction_levels
    reduced = f", without its {levels} finest level{'s' * (levels > 1)}" if levels else ""
    of_what = "<br>of the reduced pixels" if levels else ""
    return (
        f'<tr><th>{record.view}</th><td class="image">'
        f"{'<br>'.join(escape(line) for line in image if line)}</td>"
        f"<td>{rows} &times; {columns}<br>{escape(syntax)}{reduced}</td>"
        f"<td><code>{record.pixel_sha256[:16]}</code>{of_what}</td>"
        f"<td>{others or 'none'}</td></tr>"
    )


def what_ran(prediction: Prediction) -> str:
    """Return the section on the bundle, the device and the software."""
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


def what_is_known(measurements: Iterable[Measurement], limitations: Iterable[str]) -> str:
    """Return the section on what was measured of the model, and where it ends."""
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
