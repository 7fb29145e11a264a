"""What JPEG 2000 decoded without its finest resolution levels costs in accuracy, as a table.

``python benchmarks/reduction.py`` decodes phantom views in the header style of every vendor, and
those of a real exam where one is given, in full and reduced, turns both into tensors of several
sizes, and states how far they lie apart. It writes ``reduction.json`` and ``reduction.md`` into
``benchmarks/results``. From it comes `preprocessing.SAMPLES_PER_INPUT_PIXEL`.

A difference is the root mean square over the breast, as a share of the standard deviation that the
tensor of the image decoded in full has there. It includes that of the crop, where the breast was
found elsewhere.
"""

from __future__ import annotations

import copy
import itertools
import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import imagecodecs
import numpy as np
import pydicom
import typer
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian, JPEG2000Lossless
from rich.console import Console
from rich.progress import track

from benchmarks.machine import Machine, describe_machine
from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.exam import SourceImage, StoredImage, View
from mammoclip_sdk.preprocessing import (
    SAMPLES_PER_INPUT_PIXEL,
    Preprocessing,
    reduction_for,
)
from training.data import PREPROCESSING
from training.phantom import PhantomSettings, make_exam
from training.vendors import PROFILES, ExamIdentity, to_dataset

RESULTS = Path(__file__).resolve().parent / "results"
SIZES = ((192, 96), (224, 224), (448, 224), (512, 256), (1024, 512))
"""(height, width) of model inputs."""
LEVELS = (1, 2, 3)
QUALITIES = (None, 24, 12, 0)
"""Encodings: None is 5-3 reversible, lossless; else 9-7, in dB above 48 dB for 8 bits, to which
6 dB are added for every further bit. The lowest is one that no reader would accept."""
LIMIT = 0.01
"""Largest difference that the rule may let through."""
_VIEWS = (View.LCC, View.RMLO)
_SOURCE = SourceImage(view=View.LCC, name="")
"""Stands for the image whose decoded forms are at hand."""
_SEED = 1
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


def compare(
    dataset: Dataset, view: View, *, name: str, preprocessings: Iterable[Preprocessing]
) -> Iterator[Difference]:
    """Compare tensors of one image with native pixels, over all encodings, sizes and levels."""
    for quality in QUALITIES:
        if quality is not None and dataset.PixelRepresentation:
            continue  # a lossy error across the sign of a two's complement turns white into black
        encoded, ratio = _encode(dataset, quality)
        source = SourceImage(view=view, name=name, dataset=encoded)
        decoded = {levels: pixels.decode(source, levels=levels) for levels in (0, *LEVELS)}
        if any(decoded[levels].reduction is None for levels in LEVELS):
            raise ValueError(f"{name}: found an image decoded in full; expected a reduced one")
        for preprocessing in preprocessings:
            for difference in _differences(decoded, preprocessing):
                yield replace(
                    difference,
                    image=name,
                    encoding="5-3 lossless" if quality is None else f"9-7, {48 + quality} dB",
                    ratio=ratio,
                )


def _differences(
    decoded: Mapping[int, StoredImage], preprocessing: Preprocessing
) -> Iterator[Difference]:
    full, placed, _ = tensor.build_view(decoded[0], preprocessing)

    def decode(image: SourceImage, *, levels: int) -> StoredImage:
        return decoded[levels]

    for levels in LEVELS:
        policy = replace(preprocessing, jpeg2000_reduction=levels)
        reduced, geometry, _ = tensor.build_view(decoded[levels], policy)
        image, _ = tensor.decode_and_build_view(_SOURCE, policy, decode)
        _, _, height, width = geometry.crop
        _, _, placed_height, placed_width = geometry.placed
        # Of both: tissue that one of the two leaves out is the largest difference there is.
        inside = np.maximum(full, reduced) > preprocessing.segmentation_threshold
        error = np.sqrt(np.mean((reduced - full)[inside] ** 2, dtype=np.float64))
        yield Difference(
            image="",
            encoding="",
            ratio=0.0,
            height=preprocessing.height,
            width=preprocessing.width,
            levels=levels,
            samples=min(height / placed_height, width / placed_width) / 2**levels,
            enough=levels <= reduction_for(geometry, policy),
            taken=image is decoded[levels],
            same_crop=geometry == placed,
            difference=float(error / full[inside].std(dtype=np.float64)),
        )


def _encode(dataset: Dataset, quality: int | None) -> tuple[Dataset, float]:
    """Return a copy with JPEG 2000 pixels, and how much smaller those are."""
    stored = _stored(dataset)
    bits = int(dataset.BitsStored)
    frame = bytes(
        imagecodecs.jpeg2k_encode(
            stored,
            level=None if quality is None else 48 + quality + 6 * (bits - 8),
            codecformat="J2K",
            bitspersample=bits,
            reversible=quality is None,
        )
    )
    encoded = copy.deepcopy(dataset)
    encoded.file_meta.TransferSyntaxUID = JPEG2000Lossless if quality is None else JPEG2000
    encoded.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    return encoded, stored.nbytes / len(frame)


def _stored(dataset: Dataset) -> NDArray[np.integer]:
    kind = "i" if dataset.PixelRepresentation else "u"
    flat = np.frombuffer(dataset.PixelData, f"<{kind}{dataset.BitsAllocated // 8}")
    return flat[: dataset.Rows * dataset.Columns].reshape(dataset.Rows, dataset.Columns)


def phantom_images(rows: int, columns: int) -> Iterator[tuple[str, View, Dataset]]:
    """Draw a CC and an MLO view in the header style of every vendor, with native pixels."""
    settings = PhantomSettings(seed=_SEED, rows=rows, columns=columns)
    per_exam = 4
    for number, first in enumerate(range(0, len(PROFILES), per_exam)):
        exam = make_exam(settings, number)
        for profile in PROFILES[first : first + per_exam]:
            for view in _VIEWS:
                dataset = to_dataset(
                    exam.views[view].displayed,
                    view=view,
                    profile=profile,
                    identity=ExamIdentity.derive(_SEED, number),
                    pixel_spacing=float(exam.datasets[view].ImagerPixelSpacing[0]),
                    rng=np.random.default_rng([_SEED, number]),
                )
                yield f"phantom {profile.name} {view}", view, dataset


def real_images(folder: Path) -> Iterator[tuple[str, View, Dataset]]:
    """Return the views of an exam as 12 bits, native; fewer bits get their last ones at random."""
    rng = np.random.default_rng(_SEED)
    for path in sorted(folder.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        view = View(dataset.ImageLaterality + dataset.ViewPosition)
        shift = max(0, 12 - int(dataset.BitsStored))
        stored = dataset.pixel_array.astype(np.uint16) << shift
        stored |= rng.integers(0, 1 << shift, stored.shape, dtype=np.uint16)
        dataset.BitsAllocated = 16
        dataset.BitsStored = int(dataset.BitsStored) + shift
        dataset.HighBit = dataset.BitsStored - 1
        for keyword in ("WindowCenter", "WindowWidth"):
            if keyword in dataset:
                value = dataset[keyword].value
                first = float(value if dataset[keyword].VM == 1 else value[0])
                setattr(dataset, keyword, first * (1 << shift))
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OW"
        dataset["PixelData"].is_undefined_length = False
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        yield f"real {view}", view, dataset


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


def _arguments(exam: Path | None) -> list[str]:
    """Return the command's arguments, without where on this machine the real exam lies."""
    return [
        "REAL_EXAM" if exam and argument == str(exam) else argument for argument in sys.argv[1:]
    ]


def main(
    exam: Annotated[
        Path | None, typer.Option(help="Folder of a real exam to measure as well.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows of the phantoms.")] = 4096,
    columns: Annotated[int, typer.Option(help="Columns of the phantoms.")] = 3328,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure, print and write the report on reduced JPEG 2000."""
    preprocessings = [replace(PREPROCESSING, height=h, width=w) for h, w in SIZES]
    images = itertools.chain(real_images(exam) if exam else (), phantom_images(rows, columns))
    differences = [
        difference
        for name, view, dataset in track(images, description="images", total=None)
        for difference in compare(dataset, view, name=name, preprocessings=preprocessings)
    ]
    report = Report(
        command=shlex.join(["python", "benchmarks/reduction.py", *_arguments(exam)]),
        machine=describe_machine(),
        images=len({row.image for row in differences}),
        samples_per_input_pixel=SAMPLES_PER_INPUT_PIXEL,
        differences=tuple(differences),
    )
    text = to_markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    (out / "reduction.json").write_text(to_json(report))
    (out / "reduction.md").write_text("# Reduced JPEG 2000\n\n" + text)
    Console().print(text, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
