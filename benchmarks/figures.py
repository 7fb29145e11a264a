"""Puts measured figures where people read them: all into ``docs/figures.md``, few into the README.

``python -m benchmarks.figures`` writes what the shipped bundle says of its own accuracy, and from
the records of all benchmarks the table in the README.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import dcmread

from mammoclip_sdk.bundle import Interval, Manifest, read_bundle
from mammoclip_sdk.predictor import DEMO_BUNDLE, DEMO_EXAM

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FIGURES = ROOT / "docs" / "figures.md"
RESULTS = ROOT / "benchmarks" / "results"
ASSURANCE = ROOT / "assurance" / "results"
_BLOCKED = "good exams blocked"


def publish(region: str, text: str) -> None:
    """Write a benchmark's tables into ``docs/figures.md``, and the README's table again."""
    write_region(FIGURES, region, text)
    write_region(README, "figures", chief_figures(read_bundle(DEMO_BUNDLE).manifest))


def write_region(path: Path, region: str, text: str) -> None:
    """Replace what stands between ``<!-- begin: region -->`` and ``<!-- end: region -->``.

    Raises
    ------
    ValueError
        The file does not hold the two markers exactly once.
    """
    begin, end = f"<!-- begin: {region} -->", f"<!-- end: {region} -->"
    before = path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    if len(pattern.findall(before)) != 1:
        raise ValueError(
            f"{path.name}: found no single region {region!r}; expected {begin} … {end}"
        )
    after = pattern.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", before)
    path.write_text(after, encoding="utf-8")


def chief_figures(manifest: Manifest) -> str:
    """Lay out the figures that decide whether to read on, from the records of every benchmark."""
    rows = [
        *_accuracy_rows(manifest),
        *_latency_rows(_record(RESULTS / "latency.json")),
        *_export_rows([_record(path) for path in sorted(RESULTS.glob("export-*.json"))]),
        *_reading_rows(_record(RESULTS / "reading.json")),
        *_assurance_rows({path.stem: _record(path) for path in ASSURANCE.glob("*.json")}),
    ]
    lines = ["| figure | measured | by |", "|---|---|---|"]
    lines += [f"| {figure} | {measured} | `{command}` |" for figure, measured, command in rows]
    lines += [
        "",
        f"{_hardware()}. Each with its versions, and all others, in "
        "[docs/figures.md](docs/figures.md) and [docs/assurance.md](docs/assurance.md).",
    ]
    return "\n".join(lines)


Row = tuple[str, str, str]
"""Figure, what was measured, the command."""


def _record(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _hardware() -> str:
    """Name the hardware of all records; they are of one machine, or each machine is named."""
    machines = [_record(path)["machine"] for path in sorted(RESULTS.glob("*.json"))]
    found = {
        f"{one['processor']}, {one['cores']} cores, {', '.join(one['gpus']) or 'no NVIDIA GPU'}"
        for one in machines
    }
    return "; ".join(sorted(found))


def _accuracy_rows(manifest: Manifest) -> Iterator[Row]:
    area = manifest.measurements[0]
    value = area.value
    yield (
        f"{area.name} of the demo model on {area.exams} phantoms it has not seen",
        f"{value.estimate:.3f} ({value.lower:.3f} to {value.upper:.3f})",
        manifest.source.command,
    )


def _latency_rows(report: Any) -> Iterator[Row]:
    command = report["command"]
    for case in report["cases"]:
        reference, *others = case["timings"]
        times = ", ".join(f"{_short(one['contender'])} {one['speedup']:.1f}x" for one in others)
        yield (
            f"{case['model'].partition(',')[0]}, four views through the network, beside PyTorch "
            f"({reference['median_ms']:.0f} ms)",
            times,
            command,
        )
    images = [dcmread(path, stop_before_pixels=True) for path in sorted(DEMO_EXAM.glob("*.dcm"))]
    sizes = {f"{image.Rows} x {image.Columns}" for image in images}
    total = report["stages_ms"]["total"]
    yield (
        f"demo model, from four files ({', '.join(sorted(sizes))}, JPEG 2000) to a probability",
        f"{total:.0f} ms",
        command,
    )


def _short(contender: str) -> str:
    """Shorten ``onnxruntime 1.32.0 CPUExecutionProvider, fp32`` to runtime and precision."""
    runtime, _, precision = contender.rpartition(", ")
    return f"{runtime.split()[0]} {precision}"


def _export_rows(reports: list[Any]) -> Iterator[Row]:
    for report in reports:
        worst: dict[tuple[str, str], float] = {}
        for one in report["certificate"]["comparisons"]:
            agreement, precision = one["agreement"], one["precision"]
            kind = "logit" if precision in ("fp32", "fp16") else "probability"
            found = (
                [agreement["logit"]]
                if kind == "logit"
                else [finding["probability"] for finding in agreement["findings"]]
            )
            value = max(one["value"] for one in found if one)
            worst[precision, kind] = max(value, worst.get((precision, kind), 0.0))
        yield (
            f"{report['model']}, worst difference from PyTorch over "
            f"{report['certificate']['exams']} exams",
            ", ".join(f"{name} {value:.1e} of a {kind}" for (name, kind), value in worst.items()),
            report["command"],
        )


def _reading_rows(report: Any) -> Iterator[Row]:
    ratios = [f"{row['work']} {row['ratio']:.1f}x" for row in report["rows"] if row["goal"]]
    yield (
        "reading and preprocessing one view, beside pydicom, NumPy and Pillow",
        ", ".join(ratios),
        report["command"],
    )
    size = f"{report['settings']['rows']} x {report['settings']['columns']}"
    times = [f"{row['syntax']} {row['two_ms']:.0f} ms" for row in report["cores"]]
    yield (
        f"four views ({size}, 12 bits) from their files to the model's input, two cores",
        ", ".join(times),
        report["command"],
    )
    yield (
        "headers scanned a second, two cores",
        f"{report['headers_per_second']:.0f}",
        report["command"],
    )


def _assurance_rows(trials: dict[str, Any]) -> Iterator[Row]:
    thrown = [trial for name, trial in trials.items() if name != "corruption"]
    executions = sum(trial["executions"] for trial in thrown)
    failures = sum(sum(trial["open"].values()) for trial in thrown)
    yield (
        "hostile and damaged input: executions, failures still open",
        f"{executions:,}, {failures}",
        "`, `".join(trials[name]["command"] for name in sorted(trials) if name != "corruption"),
    )
    command = trials["corruption"]["command"]
    rates = trials["corruption"]["rates"]
    softer = [rate for rate in rates if re.match(r"G(07|08|09|10|11) ", rate["name"])]
    found = {
        **{rate["name"]: (rate["hits"], rate["of"]) for rate in rates if rate["target"]},
        "G07 to G11 together, detected": (
            sum(rate["hits"] for rate in softer),
            sum(rate["of"] for rate in softer),
        ),
    }
    for name in ("G01 to G05 together, detected", "G07 to G11 together, detected", _BLOCKED):
        hits, of = found[name]
        yield f"exams made wrong or kept right: {name}", f"{hits:,} of {of:,}", command


def accuracy_text(manifest: Manifest) -> str:
    """Lay out a bundle's own measurements as Markdown."""
    share = manifest.source.training_report["report"]["trained_share"]
    lines = [
        f"Bundle {manifest.name} {manifest.version}, made by `{manifest.source.command}` at commit "
        f"`{manifest.source.git_commit[:12]}`, seed {manifest.source.seed}. What was trained on "
        f"exams, adapters and view embedding, is {100 * share:.1f} % of its weights.",
        "",
        f"Measured on {manifest.measurements[0].data}; the model has seen none of them.",
        "",
        "| figure | value | 95 % interval | exams |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {item.name} | {_value(item.value)} | {item.exams} |" for item in manifest.measurements
    ]
    for finding in manifest.findings:
        for point in finding.operating_points:
            for kind, interval in (
                ("sensitivity", point.sensitivity),
                ("specificity", point.specificity),
            ):
                lines.append(f"| {kind} at the point “{point.name}” | {_value(interval)} | |")
    return "\n".join(lines) + "\n"


def _value(interval: Interval) -> str:
    return f"{interval.estimate:.3f} | {interval.lower:.3f} to {interval.upper:.3f}"


if __name__ == "__main__":
    publish("demo-model", accuracy_text(read_bundle(DEMO_BUNDLE).manifest))
