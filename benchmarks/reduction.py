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
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
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

from benchmarks.machine import describe_machine
from benchmarks.reduction_report import LEVELS, Difference, Report, to_json, to_markdown
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
QUALITIES = (None, 24, 12, 0)
"""Encodings: None is 5-3 reversible, lossless; else 9-7, in dB above 48 dB for 8 bits, to which
6 dB are added for every further bit. The lowest is one that no reader would accept."""
LIMIT = 0.01
"""Largest difference that the rule may let through."""
_VIEWS = (View.LCC, View.RMLO)
_SOURCE = SourceImage(view=View.LCC, name="")
"""Stands for the image whose decoded forms are at hand."""
_SEED = 1


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
