"""What a manifest's types cannot refuse: values out of range, or that exclude one another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from mammoclip_sdk import strict_json
from mammoclip_sdk.bundle.files import OWN_NAMES, is_plain_name
from mammoclip_sdk.bundle.manifest import (
    ATTACHMENTS,
    GOLDEN_QUANTITIES,
    GRAPH_PRECISIONS,
    Attachment,
    Calibration,
    Finding,
    Graph,
    Interval,
    Manifest,
    Measurement,
    ModelCard,
    Source,
)
from mammoclip_sdk.exam import VIEWS
from mammoclip_sdk.preprocessing import preprocessing_problems

GOLDEN_LIMITS: Mapping[str, float] = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.02, "int8": 0.02}
"""Largest tolerance of a golden exam's answer: the certificate's gate on what `GOLDEN_QUANTITIES`
names. With a wider one, another model's graph would pass for this one."""
LOGIT_SCALE = 100.0
"""At which the limit of a logit holds; at a lower scale it is as much lower, at a higher the same.
"""
LARGEST_COEFFICIENT = 1e3
"""Of a calibration: with more, thousandths of a logit decide, and nothing is a probability."""
_ROUNDING = 1 + 1e-9
_HEXADECIMAL = frozenset("0123456789abcdef")


def contradictions(manifest: Manifest) -> Iterator[str]:
    """Say everything that types cannot, of one place after the other."""
    yield from _name_problems("name", manifest.name)
    yield from _name_problems("version", manifest.version)
    if not manifest.intended_use.strip():
        yield "intended_use: empty"
    if manifest.release < 0:
        yield f"release: {manifest.release} is negative"
    if manifest.views != tuple(VIEWS):
        yield f"views: {list(manifest.views)} instead of {[str(view) for view in VIEWS]}"
    if not manifest.findings or not manifest.graphs:
        yield "findings, graphs: at least one of each is needed"
        return
    yield from _repeats("acceptance.devices", map(str, manifest.acceptance.devices))
    yield from preprocessing_problems(manifest.preprocessing)
    yield from _source_problems(manifest.source)
    yield from _finding_problems(manifest.findings)
    yield from _graph_problems(manifest)
    yield from _golden_problems(manifest)
    yield from _measurement_problems(manifest.measurements, manifest.findings)
    yield from _card_problems(manifest.model_card)
    yield from _attachment_problems(manifest.attachments)
    yield from _repeats("files", (name.lower() for name in _files(manifest)))  # as Windows does
    yield from _text_problems(manifest)


def _source_problems(source: Source) -> Iterator[str]:
    yield from _hash_problems("source.checkpoint_sha256", source.checkpoint_sha256)
    yield from _hash_problems("source.base_sha256", source.base_sha256)
    for key in ("git_commit", "open_clip_model"):
        if not getattr(source, key).strip():
            yield f"source.{key}: empty"


def _finding_problems(findings: tuple[Finding, ...]) -> Iterator[str]:
    yield from _repeats("findings", (finding.name.casefold() for finding in findings))
    for finding in findings:
        place = f"findings {finding.name!r}"
        yield from _name_problems(place, finding.name)
        yield from _hash_problems(f"{place}.tokenizer_sha256", finding.tokenizer_sha256)
        yield from _prompt_problems(place, finding)
        if finding.logit_scale <= 0:
            yield f"{place}.logit_scale: {finding.logit_scale} is not positive"
        if finding.calibration is not None:
            yield from _calibration_problems(f"{place}.calibration", finding.calibration)
        yield from _point_problems(place, finding)
    sizes = {len(f.negative_embedding) for f in findings} | {
        len(f.positive_embedding) for f in findings
    }
    if len(sizes) > 1:
        yield f"findings: embeddings of different lengths {sorted(sizes)}"


def _calibration_problems(place: str, calibration: Calibration) -> Iterator[str]:
    if calibration.slope <= 0:
        yield f"{place}.slope: {calibration.slope} is not positive"
    for key in ("slope", "intercept"):
        value = getattr(calibration, key)
        if abs(value) > LARGEST_COEFFICIENT:
            yield f"{place}.{key}: {value:g} is beyond {LARGEST_COEFFICIENT:g}"


def _prompt_problems(place: str, finding: Finding) -> Iterator[str]:
    for key in ("negative_embedding", "positive_embedding"):
        length = math.hypot(*getattr(finding, key))
        if abs(length - 1) > 1e-4:
            yield f"{place}.{key}: length {length:.6g} instead of 1"
    for key in ("negative_prompt", "positive_prompt"):
        if not getattr(finding, key).strip():
            yield f"{place}.{key}: empty"
    if finding.negative_embedding == finding.positive_embedding:
        yield f"{place}: prompts of one meaning, between which no exam lies"


def _point_problems(place: str, finding: Finding) -> Iterator[str]:
    yield from _repeats(f"{place}.operating_points", (p.name for p in finding.operating_points))
    for point in finding.operating_points:
        yield from _name_problems(f"{place}.operating_points", point.name)
        if not 0 <= point.threshold <= 1:
            yield f"{place}.{point.name}: threshold {point.threshold} is not in 0 to 1"
        yield from _interval_problems(f"{place}.{point.name}", point.sensitivity)
        yield from _interval_problems(f"{place}.{point.name}", point.specificity)


def _graph_problems(manifest: Manifest) -> Iterator[str]:
    keys, size = manifest.preprocessing, len(manifest.findings[0].positive_embedding)
    yield from _repeats("graphs.precision", (graph.precision for graph in manifest.graphs))
    for graph in manifest.graphs:
        yield from _file_problems(graph.file, graph.sha256)
        if graph.precision not in GRAPH_PRECISIONS:
            known = ", ".join(GRAPH_PRECISIONS)
            yield f"{graph.file}: precision {graph.precision!r} is none of {known}"
        if graph.opset < 1:
            yield f"{graph.file}: opset {graph.opset} is not positive"
        views = {tensor.name: tensor.shape for tensor in graph.inputs}.get("views", ())
        if views[1:] != (len(VIEWS), 1, keys.height, keys.width):
            yield f"{graph.file}: views {views} instead of (B, 4, 1, {keys.height}, {keys.width})"
        outputs = [(tensor.name, tensor.shape[1:]) for tensor in graph.outputs]
        if outputs != [("embedding", (size,))]:
            yield f"{graph.file}: outputs {outputs} instead of one embedding of {size} numbers"
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.dtype != "float32":
                yield f"{graph.file}: {tensor.name} is {tensor.dtype!r} instead of 'float32'"
        yield from _range_problems(graph)


def _range_problems(graph: Graph) -> Iterator[str]:
    if graph.precision != "fp16" and (graph.largest_activations or graph.float32_blocks):
        yield f"{graph.file}: activations or float32 blocks, which limit no {graph.precision} graph"
    for block, largest in enumerate(graph.largest_activations):
        if largest < 0:
            yield f"{graph.file}: largest activation {largest} of block {block} is negative"
    yield from _repeats(f"{graph.file}: float32_blocks", map(str, graph.float32_blocks))
    for block in graph.float32_blocks:
        if not 0 <= block < len(graph.largest_activations):
            yield (
                f"{graph.file}: float32 block {block} is none of the "
                f"{len(graph.largest_activations)} that were measured"
            )


def _golden_problems(manifest: Manifest) -> Iterator[str]:
    golden = manifest.golden
    yield from _file_problems(golden.file, golden.sha256)
    if golden.count < 1:
        yield f"golden.count: {golden.count}"
    for graph in manifest.graphs:
        if graph.precision not in golden.tolerance:
            yield f"golden.tolerance: none for {graph.precision}, the precision of {graph.file}"
    for precision, tolerance in golden.tolerance.items():
        if precision not in GOLDEN_LIMITS or tolerance <= 0:
            yield f"golden.tolerance: {tolerance} for {precision!r}"
            continue
        largest = largest_tolerance(manifest.findings, precision)
        if tolerance > largest * _ROUNDING:
            yield f"golden.tolerance: {tolerance:g} for {precision!r}, more than {largest:g}"


def largest_tolerance(findings: tuple[Finding, ...], precision: str) -> float:
    """Return how far a golden exam's answer may be from the reference's, at most."""
    scale = min(max(finding.logit_scale for finding in findings) / LOGIT_SCALE, 1.0)
    is_logit = GOLDEN_QUANTITIES[precision] == "logit"
    return GOLDEN_LIMITS[precision] * (scale if is_logit else 1.0)


def _measurement_problems(
    measurements: tuple[Measurement, ...], findings: tuple[Finding, ...]
) -> Iterator[str]:
    for measurement in measurements:
        place = f"measurements {measurement.name!r}"
        yield from _interval_problems(place, measurement.value)
        if measurement.finding not in {finding.name for finding in findings}:
            yield f"{place}: no finding {measurement.finding!r}"
        if measurement.exams < 1:
            yield f"{place}: {measurement.exams} exams"


def _card_problems(card: ModelCard) -> Iterator[str]:
    for key in ("training_data", "licence"):
        if not getattr(card, key).strip():
            yield f"model_card.{key}: empty"
    if not card.limitations or not all(text.strip() for text in card.limitations):
        yield "model_card.limitations: none, or an empty one; no model is without"


def _attachment_problems(attachments: tuple[Attachment, ...]) -> Iterator[str]:
    yield from _repeats("attachments", (attachment.kind for attachment in attachments))
    for attachment in attachments:
        yield from _file_problems(attachment.file, attachment.sha256)
        if attachment.kind not in ATTACHMENTS:
            known = ", ".join(ATTACHMENTS)
            yield f"{attachment.file}: attachment {attachment.kind!r} is none of {known}"


def _text_problems(manifest: Manifest) -> Iterator[str]:
    """Say what a terminal would not show as it is; of its origin, nothing is shown on one."""
    plain = strict_json.to_plain(manifest)
    del plain["source"]
    for place, text in _texts("", plain):
        if strict_json.one_line(text) != text:
            yield f"{place[1:]}: {text[:60]!a} has control characters"


def _texts(place: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(f"{place}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(f"{place}[{index}]", item)


def _files(manifest: Manifest) -> Iterator[str]:
    yield manifest.golden.file
    yield from (graph.file for graph in manifest.graphs)
    yield from (attachment.file for attachment in manifest.attachments)


def _name_problems(place: str, name: str) -> Iterator[str]:
    """Say why another name could be read as this one; it decides which releases belong together."""
    if not name.strip():
        yield f"{place}: empty"
    elif name != name.strip() or not name.isprintable():
        yield f"{place}: {name!a} has spaces around it, or letters that nobody sees"


def _interval_problems(place: str, interval: Interval) -> Iterator[str]:
    """Every figure is a share, or an area under a curve."""
    if not interval.lower <= interval.estimate <= interval.upper:
        yield f"{place}: {interval.estimate} outside {interval.lower} to {interval.upper}"
    if interval.lower < 0 or interval.upper > 1:
        yield f"{place}: {interval.lower} to {interval.upper} is not in 0 to 1"
    if not 0 < interval.level < 1:
        yield f"{place}: level {interval.level} is not between 0 and 1"


def _file_problems(name: str, digest: str) -> Iterator[str]:
    if not is_plain_name(name) or name.lower() in OWN_NAMES:
        yield f"{name!r}: not a plain file name"
    yield from _hash_problems(f"{name}: sha256", digest)


def _hash_problems(place: str, digest: str) -> Iterator[str]:
    if len(digest) != 64 or not _HEXADECIMAL.issuperset(digest):
        yield f"{place} is not 64 lower-case hexadecimal digits"


def _repeats(place: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{place}: {name!r} occurs {count} times"
