"""A manifest -> its model card: what the model is for, what is known of it, and where it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from mammoclip_sdk import page as html
from mammoclip_sdk.bundle.manifest import (
    GOLDEN_QUANTITIES,
    Finding,
    Interval,
    Manifest,
    OperatingPoint,
)


def page(manifest: Manifest) -> str:
    """Return the card as one HTML page that stands alone.

    It says what the manifest says and nothing else, and is the same for the same manifest.
    """
    parts = (
        html.use_note(manifest.intended_use, not_for_clinical_use=manifest.not_for_clinical_use),
        f"<h1>Model card: {escape(manifest.name)} {escape(manifest.version)}</h1>",
        f'<p class="caption">Release {manifest.release}, '
        f"licence {escape(manifest.model_card.licence)}</p>",
        "".join(_finding(finding) for finding in manifest.findings),
        _evaluation(manifest),
        f"<h2>Trained on</h2><p>{escape(manifest.model_card.training_data)}</p>",
        f"<h2>Limits</h2>{_list(manifest.model_card.limitations)}",
        f"<h2>Images it accepts</h2>{html.fact_table(dict(_accepted(manifest)))}",
        f"<h2>What is done to an image</h2>{html.fact_table(dict(_preprocessing(manifest)))}",
        f"<h2>Graphs</h2>{_graphs(manifest)}",
        f"<h2>Where it comes from</h2>{html.fact_table(dict(_origin(manifest)))}",
    )
    style = _STYLE + (html.NOT_FOR_CLINICAL_USE if manifest.not_for_clinical_use else "")
    return html.page(f"Model card: {manifest.name} {manifest.version}", "".join(parts), style=style)


def _finding(finding: Finding) -> str:
    if finding.calibration is None:
        kind = "Uncalibrated: its number orders exams, and is no probability."
    else:
        kind = f"Calibrated by Platt scaling, fitted on {finding.calibration.fitted_on}."
    points = (
        _table(
            ("Operating point", "Threshold", "Sensitivity", "Specificity"),
            (_point(point) for point in finding.operating_points),
        )
        if finding.operating_points
        else "<p>It has no operating point: no threshold was validated.</p>"
    )
    return (
        f"<h2>Finding: {escape(finding.name)}</h2>"
        f"<p>{escape(kind)} An exam is scored by how much nearer it lies to "
        f"&ldquo;{escape(finding.positive_prompt)}&rdquo; than to "
        f"&ldquo;{escape(finding.negative_prompt)}&rdquo;.</p>{points}"
    )


def _point(point: OperatingPoint) -> tuple[str, ...]:
    return (
        point.name,
        f"{point.threshold:.3f}",
        _interval(point.sensitivity),
        _interval(point.specificity),
    )


def _evaluation(manifest: Manifest) -> str:
    if not manifest.measurements:
        return "<h2>Measured</h2><p>Nothing was measured on exams that it never saw.</p>"
    rows = (
        (one.name, one.finding, _interval(one.value), str(one.exams), one.data)
        for one in manifest.measurements
    )
    return "<h2>Measured</h2>" + _table(("Figure", "Finding", "Value", "Exams", "Which"), rows)


def _interval(value: Interval) -> str:
    return (
        f"{value.estimate:.3f} ({value.level:.0%} interval {value.lower:.3f} to {value.upper:.3f}, "
        f"{html.method_name(value.method)})"
    )


def _accepted(manifest: Manifest) -> Iterator[tuple[str, str]]:
    accepted = manifest.acceptance
    yield "Views", f"{', '.join(manifest.views)}: all four, of one exam"
    yield "Breast implants", "accepted" if accepted.implants else "refused"
    yield "Synthesised 2D images", "accepted" if accepted.synthetic_2d else "refused"
    devices = ", ".join(f"{d.manufacturer} {d.model}".strip() for d in accepted.devices)
    yield "Devices validated on", devices or "none; every exam gets a caution"


def _preprocessing(manifest: Manifest) -> Iterator[tuple[str, str]]:
    keys = manifest.preprocessing
    yield "Size", f"{keys.height} rows and {keys.width} columns a view, {keys.geometry}"
    window = keys.voi.replace("_", " ")
    if keys.percentiles is not None:
        window += f" {keys.percentiles[0]:g} to {keys.percentiles[1]:g}"
    yield "Grey values", window
    yield (
        "Breast",
        f"found above {keys.segmentation_threshold:g} of the range, cropped with a margin of "
        f"{keys.crop_margin:g}, background {keys.background}",
    )
    yield "Resampling", keys.resampling
    yield "JPEG 2000", _resolution(keys.jpeg2000_reduction)
    yield "Version", str(keys.version)


def _resolution(reduction: int) -> str:
    if reduction == 0:
        return "every resolution level is decoded"
    return (
        f"at most {reduction} finest resolution level{'s' * (reduction > 1)} left out, where the "
        "model input does not need them"
    )


def _graphs(manifest: Manifest) -> str:
    rows = (
        (
            graph.file,
            graph.precision,
            str(graph.opset),
            ", ".join(map(str, graph.float32_blocks)) or "none",
            f"{manifest.golden.tolerance[graph.precision]:.3g} of a "
            f"{GOLDEN_QUANTITIES[graph.precision]}",
        )
        for graph in manifest.graphs
    )
    return _table(("File", "Precision", "Opset", "Blocks in float32", "Golden tolerance"), rows)


def _origin(manifest: Manifest) -> Iterator[tuple[str, str]]:
    source = manifest.source
    yield "Base model", f"open_clip {source.open_clip_model}"
    yield "SHA-256 of its tensors", source.base_sha256
    yield "SHA-256 of the checkpoint", source.checkpoint_sha256
    yield "Git commit", source.git_commit
    yield "Made by", source.command
    yield "Seed", "not recorded" if source.seed is None else str(source.seed)
    for finding in manifest.findings:
        yield f"Tokenizer, {finding.name}", finding.tokenizer
        yield f"SHA-256 of its vocabulary, {finding.name}", finding.tokenizer_sha256
    for name, digest in manifest.file_hashes().items():
        yield f"SHA-256 of {name}", digest


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


_STYLE = """
h1 { font-size: 1.6rem }
h1::first-letter { text-transform: none }
table:last-of-type td { overflow-wrap: anywhere }
"""
