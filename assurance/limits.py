"""What the limits of the gate stand between: measures of right views, and of wrong ones.

``python -m assurance.limits [--real FOLDER]`` prints the table that `mammoclip_sdk.quality.limits`
quotes, for phantom exams, for an exam of one's own, and for what must not be scored, each at
several sizes
and kinds of model input.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from assurance.good_exams import Four, good_exam
from assurance.wrong_exams import WRONG
from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.errors import InputError
from mammoclip_sdk.exam import VIEWS, Exam, StoredImage, View
from mammoclip_sdk.predictor import DEMO_BUNDLE
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.quality.appearance import appearance, likeness, wrapped
from mammoclip_sdk.views import read_exam

SHOWN = (
    ("share", "share of the image"),
    ("far_edge", "share of the far edge"),
    ("spread", "spread of displayed"),
    ("saturated", "share shown as white"),
    ("contact", "contact with the wall"),
    ("tip", "rows left at the tip"),
    ("pieces", "pieces in a row"),
    ("wrapped", "rows that leap"),
    ("grain", "grain"),
    ("bright_body", "compact bright area"),
    ("likeness", "likeness of two views"),
)
_REASONS = ("G04", "G08", "G09")

Measures = dict[str, list[float]]


def settings() -> Iterator[Preprocessing]:
    """Give the kinds of model input that right views are measured on."""
    demo = read_bundle(DEMO_BUNDLE).manifest.preprocessing
    yield demo
    yield replace(demo, height=448, width=224)
    yield replace(demo, height=224, width=224, geometry="stretch", background="keep")
    yield replace(demo, height=64, width=32)


def decoded(exam: Exam) -> dict[View, StoredImage]:
    """Decode the four views."""
    return {view: pixels.decode(exam.images[view]) for view in VIEWS}


def measure(
    images: Mapping[View, StoredImage], preprocessing: Preprocessing, found: Measures
) -> None:
    """Add every measure of every view, and the likeness of every two."""
    model_input = tensor.build(images, preprocessing)
    views = model_input.tensors["views"][0, :, 0]
    for view, shown in zip(VIEWS, views, strict=True):
        for part in (model_input.breasts[view], appearance(shown)):
            for name, _ in SHOWN:
                if hasattr(part, name):
                    found[name].append(float(getattr(part, name)))
    found["wrapped"] += map(wrapped, images.values())
    found["likeness"] += likeness(views, model_input.geometry).values()


def right(exams: int, real: Path | None) -> dict[str, Measures]:
    """Measure phantom exams of every header style, and the caller's exam."""
    columns: dict[str, Measures] = {"phantoms": defaultdict(list)}
    stored = [
        decoded(_read(good_exam(2, n, rows=512, columns=416).written())) for n in range(exams)
    ]
    if real is not None:
        columns["real exam"] = defaultdict(list)
    for preprocessing in settings():
        for images in stored:
            measure(images, preprocessing, columns["phantoms"])
        if real is not None:
            measure(decoded(read_exam(real)), preprocessing, columns["real exam"])
    return columns


def wrong(exams: int) -> Iterator[tuple[str, Measures]]:
    """Measure every wrong exam that is known by its content, in the demo's model input."""
    demo = next(settings())
    for kind in WRONG:
        if kind.code not in _REASONS or kind.action == "warn":
            continue
        found: Measures = defaultdict(list)
        rng = np.random.default_rng(3)
        for number in range(exams):
            try:
                measure(
                    decoded(_read(kind.make(good_exam(2, number, rows=512, columns=416), rng))),
                    demo,
                    found,
                )
            except InputError:  # refused before there is anything to measure
                continue
        if found:
            yield f"{kind.code} {kind.name}", found


def _read(four: Four | list[object]) -> Exam:
    return read_exam(list(four.values()) if isinstance(four, dict) else four)


def _range(values: list[float]) -> str:
    return f"{min(values):.3f} - {max(values):.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m assurance.limits")
    parser.add_argument("--exams", type=int, default=39, help="phantom exams")
    parser.add_argument("--real", type=Path, help="folder of one exam that is known to be good")
    given = parser.parse_args()
    columns = right(given.exams, given.real)
    print(f"{'':24}" + "".join(f"{name:18}" for name in columns))
    for name, words in SHOWN:
        print(f"{words:24}" + "".join(f"{_range(found[name]):18}" for found in columns.values()))
    print("\nOf all four views, one of which is wrong:")
    for title, found in wrong(max(1, given.exams // 13)):
        print(title)
        for name, words in SHOWN:
            print(f"    {words:24}{_range(found[name])}")


if __name__ == "__main__":
    main()
