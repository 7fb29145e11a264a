"""What the command line says of its results: lines for people, plain values for programs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rich.text import Text

from mammoclip_sdk.errors import NotDicomError

_LISTED = 20  # skipped files of one kind that are named before they are only counted

if TYPE_CHECKING:
    from mammoclip_sdk.archive import Archive
    from mammoclip_sdk.bundle import Bundle
    from mammoclip_sdk.errors import MammoClipError
    from mammoclip_sdk.exam import Exam
    from mammoclip_sdk.prediction import Prediction
    from mammoclip_sdk.scoring import FindingScore


def error_text(error: MammoClipError) -> str:
    """Return an error's message with its codes, for programs' logs and for the manual."""
    codes = ", ".join(code for code in (error.code, error.reason) if code)
    return f"{type(error).__name__}: {error} [{codes}]"


def prediction_lines(prediction: Prediction) -> Iterator[Text]:
    """Say what was found, on which images, and by what."""
    if prediction.status == "abstained":
        yield Text("Not scored. This is not a negative result.", "bold")
    for score in prediction.findings:
        yield from _finding_lines(score)
    for reason in sorted(prediction.reasons, key=lambda reason: reason.severity != "block"):
        weight = "blocks" if reason.severity == "block" else "caution"
        yield Text(f"  {reason.code} {weight}: {reason.message}")
    for record in prediction.views:
        yield Text(f"  {record.view:<4}  {record.name}")
        if record.reduction_levels:
            yield Text(f"        finest resolution levels left out: {record.reduction_levels}")
        for other in record.alternatives:
            yield Text(f"        not {other.name}: {other.reason}", "dim")
    for note in prediction.notes:
        yield Text(f"  note: {note}", "dim")
    ran = prediction.provenance
    yield Text(f"  {ran.bundle} {ran.bundle_version}, {ran.runtime}, {ran.precision}", "dim")
    if ran.signed_by:
        yield Text(f"  signed by key {ran.signed_by}", "dim")
    yield Text(f"  {prediction.timing.total:.0f} ms", "dim")
    if ran.not_for_clinical_use:
        yield Text(f"Not for clinical use. {ran.intended_use}")


def report_line(report: Path) -> Text:
    """Say where a report was written."""
    return Text(f"Report: {report.resolve()}")


def _finding_lines(score: FindingScore) -> Iterator[Text]:
    kind = "calibrated probability" if score.calibrated else "uncalibrated score, no probability"
    yield Text(f"{score.name}  {score.score:.3f}  ({kind})", "bold")
    if score.calibrated_on is not None:
        yield Text(f"  calibrated on {score.calibrated_on}")
    for point in score.operating_points:
        side = "at or above" if point.met else "below"
        yield Text(f'  {side} {point.threshold:.3f}, the threshold of "{point.name}"')
    if not score.operating_points:
        yield Text("  no operating point is set for it", "dim")


def bundle_lines(bundle: Bundle) -> Iterator[Text]:
    """Say what a bundle holds."""
    manifest = bundle.manifest
    yield Text(f"{manifest.name} {manifest.version} (release {manifest.release})")
    yield Text(f"  sha256     {bundle.sha256}")
    yield Text(f"  signed     {_signed(bundle)}")
    yield Text(f"  use        {manifest.intended_use}")
    yield Text(f"  licence    {manifest.model_card.licence}")
    accepted = manifest.acceptance
    kinds = {"implants": accepted.implants, "synthesised 2D": accepted.synthetic_2d}
    said = ", ".join(kind if accepts else f"no {kind}" for kind, accepts in kinds.items())
    devices = _count(len(accepted.devices), "device")
    yield Text(f"  accepts    {said}; validated on {devices}")
    keys = manifest.preprocessing
    yield Text(
        f"  input      {keys.height} x {keys.width} pixels a view, {keys.geometry}, "
        f"jpeg2000_reduction {keys.jpeg2000_reduction}"
    )
    for graph in manifest.graphs:
        size = f"{bundle.size(graph.file) / 1e6:.1f} MB"
        blocks = len(graph.float32_blocks)
        kept = f", {_count(blocks, 'block')} in float32" if blocks else ""
        yield Text(f"  graph      {graph.file}, {graph.precision}, {size}{kept}")
    for finding in manifest.findings:
        kind = "calibrated" if finding.calibration else "uncalibrated"
        points = ", ".join(point.name for point in finding.operating_points) or "none"
        yield Text(f"  finding    {finding.name}, {kind}, operating points: {points}")
    for measured in manifest.measurements:
        value = measured.value
        yield Text(
            f"  measured   {measured.finding}, {measured.name} {value.estimate:.3f} "
            f"({value.lower:.3f} to {value.upper:.3f}) on {measured.exams} exams: {measured.data}"
        )
    for limitation in manifest.model_card.limitations:
        yield Text(f"  limit      {limitation}")
    for attachment in manifest.attachments:
        yield Text(f"  attached   {attachment.file}, {attachment.kind.replace('_', ' ')}")


def _signed(bundle: Bundle) -> str:
    if bundle.signature is None:
        return "no"
    said = "trusted" if bundle.trusted else "not verified: no key was given to trust"
    return f"by key {bundle.signature.key_id}, {said}"


def bundle_values(bundle: Bundle) -> dict[str, object]:
    """Return everything in the manifest but the numbers of the text embeddings."""
    from mammoclip_sdk.strict_json import to_plain

    manifest = to_plain(bundle.manifest)
    for finding in manifest["findings"]:
        for key in ("negative_embedding", "positive_embedding"):
            finding[key] = f"{len(finding[key])} numbers"
    return {
        "path": bundle.path,
        "sha256": bundle.sha256,
        "signed_by": None if bundle.signature is None else bundle.signature.key_id,
        "trusted": bundle.trusted,
        "bytes": {name: bundle.size(name) for name in bundle.files},
        "manifest": manifest,
    }


def archive_lines(archive: Archive, folder: Path) -> Iterator[Text]:
    """List exams, incomplete studies, and by kind the skipped files that are DICOM.

    What lies in the scanned folder itself is named after it.
    """
    own = folder.resolve().name or str(folder)
    for exam in archive.exams:
        yield Text(f"exam        {_place(exam, own)}")
        for other in exam.alternatives:
            yield Text(f"            {other.view} not {other.name}: {other.reason}", "dim")
    for study in archive.incomplete:
        yield Text(f"incomplete  {own if study.name == '.' else study.name}")
        yield Text(f"            {error_text(study.error)}", "dim")
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for file in archive.skipped:
        kinds[str(file.error.code)].append(file.name)
    for code, names in sorted(kinds.items()):
        yield Text(f"skipped     {len(names)} x {code}")
        if code != NotDicomError.code:
            yield from (Text(f"            {name}", "dim") for name in names[:_LISTED])
            if len(names) > _LISTED:
                yield Text(f"            and {len(names) - _LISTED} more", "dim")
    yield Text(
        f"{_count(len(archive.exams), 'exam')}, {len(archive.incomplete)} incomplete, "
        f"{_count(len(archive.skipped), 'file')} skipped",
        "bold",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def archive_values(archive: Archive) -> dict[str, Any]:
    """Return an archive as plain dicts, lists and strings."""
    return {
        "exams": [
            {
                "study_instance_uid": exam.study_instance_uid,
                "images": {str(view): image.name for view, image in exam.images.items()},
                "alternatives": [
                    {"view": str(other.view), "name": other.name, "reason": other.reason}
                    for other in exam.alternatives
                ],
                "notes": list(exam.notes),
            }
            for exam in archive.exams
        ],
        "incomplete": [
            {"name": study.name, "files": list(study.files), "error": study.error.to_dict()}
            for study in archive.incomplete
        ],
        "skipped": [{"name": file.name, "error": file.error.to_dict()} for file in archive.skipped],
    }


def _place(exam: Exam, own: str) -> str:
    """Return the folder of an exam's images, or the images where they lie in several."""
    names = [image.name for image in exam.images.values()]
    folders = {str(PurePosixPath(name).parent) for name in names}
    if len(folders) > 1:
        return ", ".join(names)
    return own if folders == {"."} else folders.pop()
