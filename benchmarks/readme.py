"""Puts measured figures into the README, between the markers of a region.

``python -m benchmarks.readme`` writes what the shipped bundle says of its own accuracy.
"""

from __future__ import annotations

import re
from pathlib import Path

from mammoclip_sdk.bundle import Interval, Manifest, read_bundle
from mammoclip_sdk.predictor import DEMO_BUNDLE

README = Path(__file__).resolve().parents[1] / "README.md"


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
    write_region(README, "demo-model", accuracy_text(read_bundle(DEMO_BUNDLE).manifest))
