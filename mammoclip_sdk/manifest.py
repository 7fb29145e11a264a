"""Everything a bundle says of itself: the keys of ``manifest.json``, and what they may hold.

Every key is required and none has a default. `manifest_from_json` reports all problems together:
keys, types, and values that are out of range or contradict one another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mammoclip_sdk import strict_json
from mammoclip_sdk.bundle_files import CHECKSUM, MANIFEST, is_plain_name
from mammoclip_sdk.errors import BundleFormatError, BundleVersionError
from mammoclip_sdk.exam import VIEWS, Acceptance
from mammoclip_sdk.preprocessing import (
    PREPROCESSING_VERSION,
    Preprocessing,
    preprocessing_problems,
)

SCHEMA = 3


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    lower: float
    upper: float
    level: float
    """Coverage, such as 0.95."""
    method: str
    """``delong``, ``wilson``, ``bootstrap``."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Platt scaling: p = sigmoid(slope * (positive logit - negative logit) + intercept)."""

    slope: float
    intercept: float
    fitted_on: str


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A threshold on the reported probability, met when the probability is at least this."""

    name: str
    threshold: float
    sensitivity: Interval
    specificity: Interval


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One question the bundle answers, by similarity to a negative and a positive prompt."""

    name: str
    negative_prompt: str
    positive_prompt: str
    tokenizer: str
    tokenizer_sha256: str
    """Of the vocabulary that the prompts were cut into tokens with."""
    negative_embedding: tuple[float, ...]
    """L2-normalised, float32."""
    positive_embedding: tuple[float, ...]
    logit_scale: float
    calibration: Calibration | None
    operating_points: tuple[OperatingPoint, ...]


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Name, shape and type of a graph's input or output; a string in a shape is a free size."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file."""

    file: str
    sha256: str
    precision: str
    """``fp32``, ``fp16`` or ``int8``."""
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    largest_activations: tuple[float, ...]
    """Of each block, over the calibration exams, in float32; none where they limit nothing."""
    float32_blocks: tuple[int, ...]
    """Blocks that an ``fp16`` graph keeps in float32, for their activations leave half's range."""


@dataclass(frozen=True, kw_only=True)
class GoldenExams:
    """Exams with the reference model's answers, to be reproduced by whatever runs the graph."""

    file: str
    """A ``.npz`` (no pickle) with ``views`` (N, 4, 1, height, width), ``embedding`` (N, D) and
    ``logits`` (N, findings, 2), all float32."""
    sha256: str
    count: int
    tolerance: Mapping[str, float]
    """Largest accepted absolute difference of a logit, by precision."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model came from."""

    git_commit: str
    checkpoint_sha256: str
    open_clip_model: str
    base_sha256: str
    """Of the weights that stayed as they were while the adapters were trained."""
    seed: int | None
    command: str
    training_report: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A figure measured on exams the model never saw."""

    name: str
    finding: str
    value: Interval
    exams: int
    data: str


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What the other keys do not say of a model, and its user has to know."""

    training_data: str
    limitations: tuple[str, ...]
    licence: str
    """Of the weights, as an SPDX expression; ``LicenseRef-...`` where SPDX has none."""


ATTACHMENTS = ("parity_exams", "certificate", "certificate_page", "model_card", "sbom")


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A file that no graph needs: evidence, or something to read."""

    kind: str
    """One of `ATTACHMENTS`."""
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a bundle says of itself."""

    schema: int
    name: str
    version: str
    release: int
    """Sequence number; a later release of the same bundle has a greater one."""
    intended_use: str
    not_for_clinical_use: bool
    acceptance: Acceptance
    source: Source
    views: tuple[str, ...]
    """Order of the views in the graph's input."""
    preprocessing: Preprocessing
    findings: tuple[Finding, ...]
    graphs: tuple[Graph, ...]
    golden: GoldenExams
    measurements: tuple[Measurement, ...]
    model_card: ModelCard
    attachments: tuple[Attachment, ...]

    def attachment(self, kind: str) -> Attachment | None:
        """Return the attachment of a kind, or None where the bundle has none."""
        return next((one for one in self.attachments if one.kind == kind), None)


def manifest_to_json(manifest: Manifest) -> str:
    """Write the manifest as JSON text that `manifest_from_json` turns back into its equal."""
    try:
        return strict_json.dumps(manifest) + "\n"
    except (TypeError, ValueError) as error:
        raise format_error("manifest", [str(error)]) from error


def manifest_from_json(text: str, *, subject: str) -> Manifest:
    """Read a manifest, with every problem in one error.

    Raises
    ------
    BundleVersionError
        Before anything else is looked at: a newer schema has keys that mean nothing here.
    BundleFormatError
    """
    plain, problems = strict_json.parse(text)
    _check_schema(plain, subject)
    manifest = None if plain is None else strict_json.from_plain(Manifest, plain, problems)
    if manifest is not None:
        problems.extend(_contradictions(manifest))
    if manifest is None or problems:
        raise format_error(subject, problems)
    return manifest


def _check_schema(plain: object, subject: str) -> None:
    if not isinstance(plain, dict):
        return
    schema, preprocessing = plain.get("schema"), plain.get("preprocessing")
    version = preprocessing.get("version") if isinstance(preprocessing, dict) else None
    known = {"schema": (schema, SCHEMA), "preprocessing.version": (version, PREPROCESSING_VERSION)}
    for key, (found, expected) in known.items():
        if type(found) is int and found != expected:
            age = "newer" if found > expected else "older"
            raise BundleVersionError(
                f"{subject}: {key}",
                found=str(found),
                expected=str(expected),
                remedy=f"Use the {age} version of mammoclip-sdk that this bundle was made for.",
            )


def format_error(subject: str, problems: list[str]) -> BundleFormatError:
    """Put every problem that was found into one error."""
    return BundleFormatError(
        subject,
        found=f"{len(problems)} problem{'s' * (len(problems) != 1)}: " + "; ".join(problems),
        expected=f"a manifest of schema {SCHEMA}, with all of its keys and no others",
        remedy="Make the bundle again with the exporter of this version.",
    )


_PRECISIONS = ("fp32", "fp16", "int8")
_HEX64 = frozenset("0123456789abcdef")


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """Say everything that types cannot: ranges, and values that exclude one another."""
    for key in ("name", "version", "intended_use"):
        if not getattr(manifest, key).strip():
            yield f"{key}: empty"
    if manifest.views != tuple(VIEWS):
        yield f"views: {list(manifest.views)} instead of {[str(view) for view in VIEWS]}"
    if not manifest.findings or not manifest.graphs:
        yield "findings, graphs: at least one of each is needed"
        return
    yield from _repeats("acceptance.devices", map(str, manifest.acceptance.devices))
    yield from preprocessing_problems(manifest.preprocessing)
    yield from _finding_problems(manifest.findings)
    yield from _graph_problems(manifest)
    yield from _golden_problems(manifest)
    for measurement in manifest.measurements:
        place = f"measurements {measurement.name!r}"
        yield from _interval_problems(place, measurement.value)
        if measurement.finding not in {finding.name for finding in manifest.findings}:
            yield f"{place}: no finding {measurement.finding!r}"
        if measurement.exams < 1:
            yield f"{place}: {measurement.exams} exams"


def _finding_problems(findings: tuple[Finding, ...]) -> Iterator[str]:
    yield from _repeats("findings", (finding.name for finding in findings))
    for finding in findings:
        place = f"findings {finding.name!r}"
        for key in ("negative_embedding", "positive_embedding"):
            length = math.hypot(*getattr(finding, key))
            if abs(length - 1) > 1e-4:
                yield f"{place}.{key}: length {length:.6g} instead of 1"
        if finding.logit_scale <= 0:
            yield f"{place}.logit_scale: {finding.logit_scale} is not positive"
        if finding.calibration and finding.calibration.slope <= 0:
            yield f"{place}.calibration.slope: {finding.calibration.slope} is not positive"
        yield from _repeats(f"{place}.operating_points", (p.name for p in finding.operating_points))
        for point in finding.operating_points:
            if not 0 <= point.threshold <= 1:
                yield f"{place}.{point.name}: threshold {point.threshold} is not in 0 to 1"
            yield from _interval_problems(f"{place}.{point.name}", point.sensitivity)
            yield from _interval_problems(f"{place}.{point.name}", point.specificity)
    sizes = {len(f.negative_embedding) for f in findings} | {
        len(f.positive_embedding) for f in findings
    }
    if len(sizes) > 1:
        yield f"findings: embeddings of different lengths {sorted(sizes)}"


def _graph_problems(manifest: Manifest) -> Iterator[str]:
    keys, size = manifest.preprocessing, len(manifest.findings[0].positive_embedding)
    yield from _repeats("graphs.precision", (graph.precision for graph in manifest.graphs))
    for graph in manifest.graphs:
        yield from _file_problems(graph.file, graph.sha256)
        if graph.precision not in _PRECISIONS:
            yield f"{graph.file}: precision {graph.precision!r} is none of {', '.join(_PRECISIONS)}"
        views = {tensor.name: tensor.shape for tensor in graph.inputs}.get("views", ())
        if views[1:] != (len(VIEWS), 1, keys.height, keys.width):
            yield f"{graph.file}: views {views} instead of (B, 4, 1, {keys.height}, {keys.width})"
        outputs = [(tensor.name, tensor.shape[1:]) for tensor in graph.outputs]
        if outputs != [("embedding", (size,))]:
            yield f"{graph.file}: outputs {outputs} instead of one embedding of {size} numbers"
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.dtype != "float32":
                yield f"{graph.file}: {tensor.name} is {tensor.dtype!r} instead of 'float32'"


def _golden_problems(manifest: Manifest) -> Iterator[str]:
    golden = manifest.golden
    yield from _file_problems(golden.file, golden.sha256)
    yield from _repeats("files", (golden.file, *(graph.file for graph in manifest.graphs)))
    if golden.count < 1:
        yield f"golden.count: {golden.count}"
    for graph in manifest.graphs:
        if graph.precision not in golden.tolerance:
            yield f"golden.tolerance: none for {graph.precision}, the precision of {graph.file}"
    for precision, tolerance in golden.tolerance.items():
        if precision not in _PRECISIONS or tolerance <= 0:
            yield f"golden.tolerance: {tolerance} for {precision!r}"


def _interval_problems(place: str, interval: Interval) -> Iterator[str]:
    if not interval.lower <= interval.estimate <= interval.upper:
        yield f"{place}: {interval.estimate} outside {interval.lower} to {interval.upper}"
    if not 0 < interval.level < 1:
        yield f"{place}: level {interval.level} is not between 0 and 1"


def _file_problems(name: str, digest: str) -> Iterator[str]:
    if not is_plain_name(name) or name in (MANIFEST, CHECKSUM):
        yield f"{name!r}: not a plain file name"
    if len(digest) != 64 or not _HEX64.issuperset(digest):
        yield f"{name}: sha256 is not 64 lower-case hexadecimal digits"


def _repeats(place: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{place}: {name!r} occurs {count} times"
