"""What a run of ``benchmarks/reduction.py`` measured, as figures and as tables."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, fields

import numpy as np

from benchmarks.machine import Machine

LEVELS = (1, 2, 3)
_BINS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 7.0, np.inf)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One image at one encoding, model input and reduction."""

    image: str
    encoding: str
    ratio: float
    """Bytes of the stored pixels over those of the frame."""
    height: int
    width: int
    levels: int
    samples: float
    """Of the reduced image along a side of a pixel of the model input, the scarcer direction."""
    enough: bool
    """Whether those are enough by `preprocessing.reduction_for`."""
    taken: bool
    """Whether `tensor.decode_and_build_view` takes the image so, and does not decode it again."""
    same_crop: bool
    difference: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything one run measured."""

    command: str
    machine: Machine
    images: int
    samples_per_input_pixel: float
    differences: tuple[Difference, ...]


def to_json(report: Report) -> str:
    """Return the report as JSON, its differences as a table: keys once, then a line for each."""
    plain = asdict(report)
    rows = [list(row.values()) for row in plain.pop("differences")]
    plain["columns"] = [field.name for field in fields(Difference)]
    head = json.dumps(plain, indent=1).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(_rounded(row)) for row in rows)
    return f'{head},\n "rows": [\n  {lines}\n ]\n}}\n'


def _rounded(row: list[object]) -> list[object]:
    return [round(value, 5) if isinstance(value, float) else value for value in row]


def to_markdown(report: Report) -> str:
    """Lay the report out as tables."""
    taken = [row for row in report.differences if row.taken]
    enough = [row for row in report.differences if row.enough]
    worst = max((row.difference for row in taken), default=0.0)
    lines = [
        f"`{report.command}`, {report.machine.line()}",
        "",
        f"{report.images} images. Root mean square difference over the breast between the tensor "
        "of a reduced and of a full decode, as a share of the standard deviation there. "
        f"{len(enough)} of {len(report.differences)} cases have {report.samples_per_input_pixel:g} "
        "or more samples along a side of a pixel of the model input. In "
        f"{len(enough) - len(taken)} of them the edge of the breast is too sharp to tell the crop "
        "for certain, and the image is decoded again in full. Of the "
        f"{len(taken)} that are taken as they are, {sum(row.same_crop for row in taken)} have the "
        f"very crop of the full decode, and none differs by more than {worst:.2%}.",
        "",
        "Whether taken or not, where the crop is the same:",
        "",
        "| samples for an input pixel | cases | median | 95th percentile | worst | same crop |",
        "|---|---|---|---|---|---|",
    ]
    for low, high in itertools.pairwise(_BINS):
        rows = [row for row in report.differences if low <= row.samples < high]
        if rows:
            to = "more" if high == np.inf else f"{high:g}"
            lines.append(f"| {low:g} to {to} | {len(rows)} | {_spread(rows)} |")
    lines += [
        "",
        "| model input | levels | samples | median | 95th percentile | worst | same crop |",
        "|---|---|---|---|---|---|---|",
    ]
    for height, width in dict.fromkeys((row.height, row.width) for row in report.differences):
        for levels in LEVELS:
            rows = [
                row
                for row in report.differences
                if (row.height, row.width, row.levels) == (height, width, levels)
            ]
            samples = [row.samples for row in rows]
            lines.append(
                f"| {height} x {width} | {levels} | {min(samples):.1f} to {max(samples):.1f} | "
                f"{_spread(rows)} |"
            )
    lines += [
        "",
        "| encoding | bytes saved | worst of what the rule lets through |",
        "|---|---|---|",
    ]
    for encoding in dict.fromkeys(row.encoding for row in report.differences):
        rows = [row for row in report.differences if row.encoding == encoding]
        ratios = [row.ratio for row in rows]
        passed = max((row.difference for row in rows if row.taken), default=0.0)
        lines.append(f"| {encoding} | {min(ratios):.1f} to {max(ratios):.1f} | {passed:.2%} |")
    return "\n".join(lines) + "\n"


def _spread(rows: list[Difference]) -> str:
    values = [row.difference for row in rows if row.same_crop] or [np.nan]
    return (
        f"{np.median(values):.2%} | {np.percentile(values, 95):.2%} | {max(values):.2%} | "
        f"{sum(row.same_crop for row in rows)} of {len(rows)}"
    )
