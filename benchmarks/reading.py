"""From a file to a view of the model's input, side by side with what one would write in Python.

``python benchmarks/reading.py`` draws a phantom exam of 4096 x 3328 pixels and 12 bits, writes it
in each transfer syntax, and reads it in turn by this software and by the reference: pydicom's
``pixel_array`` and ``apply_voi_lut``, a mask by NumPy, and Pillow's box resize of floats. It writes
``reading.json`` and ``reading.md`` into ``benchmarks/results``.

One view is read on one processor core, whatever threads a library would like to have; four views
are read on one core and on two. For JPEG Lossless pydicom needs python-gdcm, for JPEG-LS pyjpegls;
neither is needed by this software.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import shlex
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydicom
import typer
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from rich.console import Console

from benchmarks.latency import time_in_turn
from benchmarks.machine import Machine, describe_machine
from benchmarks.readme import README, write_region
from mammoclip_sdk import archive, pixels, tensor
from mammoclip_sdk.exam import VIEWS, SourceImage, View
from mammoclip_sdk.preparation import prepare
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.views import read_exam
from training import encodings
from training.data import PREPROCESSING
from training.phantom import PhantomSettings, make_exam
from training.vendors import PROFILES, ExamIdentity, to_dataset

RESULTS = Path(__file__).resolve().parent / "results"
SYNTAXES = {
    "native": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG Lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
REDUCTION = 2
"""Resolution levels left out of JPEG 2000 at most; see ``reduction.md`` for what that costs."""
GOALS = {"native": 8.0, "JPEG Lossless": 3.0, f"JPEG 2000, {REDUCTION} levels less": 12.0}
PLUGINS = ("python-gdcm", "pyjpegls", "pylibjpeg-openjpeg")
"""Decoders of pydicom's that the reference uses where they are installed."""
_VIEW = View.LMLO
"""A view whose crop a reduced image tells for certain, so that it is decoded once."""
_SEED = 1
_WARM_UPS = 2
_SCANNED = 4000


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """Settings of one run."""

    rounds: int = 7
    rows: int = 4096
    columns: int = 3328


@dataclass(frozen=True, kw_only=True)
class Row:
    """One piece of work, by the reference and by this software."""

    work: str
    reference_ms: float | None
    """Median; None where the reference cannot do it."""
    ours_ms: float
    ratio: float | None
    goal: float | None
    note: str = ""
    """Why the reference was not measured."""


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Four views on one and on two processor cores, from their files to the tensor."""

    syntax: str
    one_ms: float
    two_ms: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peak of a process above what it had before, in decoded views."""

    syntax: str
    one_view: float
    four_views: float
    """Divided by four."""
    traced: float
    """Of one view, what Python's allocators handed out."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything one run measured."""

    command: str
    settings: ReadingSettings
    machine: Machine
    plugins: Mapping[str, str]
    """Those of `PLUGINS` that are installed."""
    rows: tuple[Row, ...]
    cores: tuple[Cores, ...]
    memory: tuple[Memory, ...]
    headers: int
    headers_per_second: float


def reference_pixels(path: Path) -> tuple[pydicom.Dataset, NDArray[Any]]:
    """Read and decode by pydicom."""
    dataset = pydicom.dcmread(path)
    return dataset, dataset.pixel_array


def reference_view(
    dataset: pydicom.Dataset, stored: NDArray[Any], preprocessing: Preprocessing
) -> NDArray[np.float32]:
    """Do what `tensor.build_view` does, but for small bright objects beside the breast."""
    shown = apply_voi_lut(stored, dataset) / (2**dataset.BitsStored - 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    mask = shown > preprocessing.segmentation_threshold
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    middle = mask.shape[1] // 2
    mirrored = mask[:, middle:].sum() > mask[:, :middle].sum()
    crop = np.where(mask[inside], shown[inside], 0).astype(np.float32)
    scale = min(preprocessing.height / crop.shape[0], preprocessing.width / crop.shape[1])
    height, width = (max(1, round(side * scale)) for side in crop.shape)
    small = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BOX))
    view = np.zeros((preprocessing.height, preprocessing.width), np.float32)
    top = (preprocessing.height - height) // 2
    view[top : top + height, :width] = small[:, ::-1] if mirrored else small
    return view


def our_view(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read one view by this software."""
    source = SourceImage(view=View(path.stem), name=path.name, path=path)
    _, (view, _, _) = tensor.decode_and_build_view(source, preprocessing, pixels.decode)
    return view


def whole_reference(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read one view by the reference."""
    return reference_view(*reference_pixels(path), preprocessing)


def write_exam(folder: Path, settings: ReadingSettings) -> None:
    """Write a phantom exam of 12 bits, in a folder for each transfer syntax, files by view."""
    exam = make_exam(PhantomSettings(seed=_SEED, rows=settings.rows, columns=settings.columns), 0)
    profile = next(profile for profile in PROFILES if profile.name == "Philips-like")
    for view in VIEWS:
        dataset = to_dataset(
            exam.views[view].displayed,
            view=view,
            profile=profile,
            identity=ExamIdentity.derive(_SEED, 0),
            pixel_spacing=float(exam.datasets[view].ImagerPixelSpacing[0]),
            rng=np.random.default_rng(_SEED),
        )
        for name, syntax in SYNTAXES.items():
            (folder / name).mkdir(exist_ok=True)
            encodings.write(dataset, folder / name / f"{view}.dcm", syntax)


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keep this process and its threads to so many processor cores."""
    before = os.sched_getaffinity(0)
    if len(before) < count:
        raise RuntimeError(f"found {len(before)} processor cores; expected {count} for this figure")
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compare_one_view(folder: Path, settings: ReadingSettings) -> list[Row]:
    """Time one view on one core: after decoding, and from file to tensor in every syntax."""
    path = folder / "native" / f"{_VIEW}.dcm"
    dataset, stored = reference_pixels(path)
    image = pixels.decode(SourceImage(view=_VIEW, name="", path=path))
    rows = [
        _timed(
            "after decoding",
            partial(reference_view, dataset, stored, PREPROCESSING),
            partial(tensor.build_view, image, PREPROCESSING),
            rounds=settings.rounds,
            goal=10.0,
        )
    ]
    reduced = replace(PREPROCESSING, jpeg2000_reduction=REDUCTION)
    for name in SYNTAXES:
        path = folder / name / f"{_VIEW}.dcm"
        cases = {name: replace(PREPROCESSING, jpeg2000_reduction=0)}
        if name == "JPEG 2000":
            cases = {
                f"{name}, in full": cases[name],
                f"{name}, {REDUCTION} levels less": reduced,
            }
        for work, preprocessing in cases.items():
            rows.append(
                _timed(
                    work,
                    partial(whole_reference, path, preprocessing),
                    partial(our_view, path, preprocessing),
                    rounds=settings.rounds,
                    goal=GOALS.get(work),
                )
            )
    return rows


def _timed(
    work: str,
    reference: Callable[[], object],
    ours: Callable[[], object],
    *,
    rounds: int,
    goal: float | None,
) -> Row:
    try:
        reference()
    except (RuntimeError, NotImplementedError, AttributeError) as exc:
        (mine,) = time_in_turn([ours], rounds=rounds, what=work)
        return Row(
            work=work,
            reference_ms=None,
            ours_ms=float(np.median(mine)),
            ratio=None,
            goal=goal,
            note=f"not measured: {str(exc).splitlines()[0]}",
        )
    theirs, mine = time_in_turn([reference, ours], rounds=rounds, what=work)
    return Row(
        work=work,
        reference_ms=float(np.median(theirs)),
        ours_ms=float(np.median(mine)),
        ratio=float(np.median(theirs) / np.median(mine)),
        goal=goal,
    )


def compare_cores(folder: Path, settings: ReadingSettings) -> list[Cores]:
    """Time four views, files to tensor, on one core and on two, in turn."""
    measured = []
    in_full = replace(PREPROCESSING, jpeg2000_reduction=0)
    cases = {name: (name, in_full) for name in SYNTAXES if name != "JPEG 2000"}
    cases["JPEG 2000, in full"] = "JPEG 2000", in_full
    reduced = replace(PREPROCESSING, jpeg2000_reduction=REDUCTION)
    cases[f"JPEG 2000, up to {REDUCTION} levels less"] = "JPEG 2000", reduced
    for name, (syntax, preprocessing) in cases.items():

        def run(cores: int, syntax: str = syntax, keys: Preprocessing = preprocessing) -> None:
            with on_cores(cores):
                tensor.decode_and_build(read_exam(folder / syntax), keys, pixels.decode)

        one, two = time_in_turn(
            [partial(run, 1), partial(run, 2)], rounds=settings.rounds, what=f"four views, {name}"
        )
        measured.append(
            Cores(
                syntax=name,
                one_ms=float(np.median(one)),
                two_ms=float(np.median(two)),
                ratio=float(np.median(one) / np.median(two)),
            )
        )
    return measured


def measure_memory(folder: Path, settings: ReadingSettings) -> list[Memory]:
    """Measure each syntax in a child process of its own, after a first exam has loaded it all."""
    view_bytes = 2 * settings.rows * settings.columns
    measured = []
    for name in SYNTAXES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
            one, four, traced = child.submit(_peaks, folder / name).result()
        measured.append(
            Memory(
                syntax=name,
                one_view=one / view_bytes,
                four_views=four / view_bytes / len(VIEWS),
                traced=traced / view_bytes,
            )
        )
    return measured


def _peaks(folder: Path) -> tuple[int, int, int]:
    """Return extra bytes at the peak: of one view, of four, and of one by Python's own count."""
    keys = replace(PREPROCESSING, jpeg2000_reduction=REDUCTION)
    one = partial(our_view, folder / f"{_VIEW}.dcm", keys)
    four = partial(prepare, folder, keys, strict=False)
    four()
    resident = [_peak_resident(work) for work in (one, four)]
    tracemalloc.start()
    one()
    _, traced = tracemalloc.get_traced_memory()
    return resident[0], resident[1], traced


def _peak_resident(work: Callable[[], object]) -> int:
    """Return by how much the process grew at most; Linux counts it, and can be told to begin."""
    ctypes.CDLL(None).malloc_trim(0)  # else what was freed before hides what is taken now
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def write_archive(folder: Path, files: int) -> None:
    """Write so many small files of many studies, four a study."""
    profile = PROFILES[0]
    displayed = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    for number in range(files // len(VIEWS)):
        for view in VIEWS:
            dataset = to_dataset(
                displayed,
                view=view,
                profile=profile,
                identity=ExamIdentity.derive(_SEED, number),
                pixel_spacing=0.1,
                rng=np.random.default_rng(_SEED),
            )
            encodings.write(dataset, folder / f"{number:05d}-{view}.dcm", profile.transfer_syntax)


def headers_per_second(folder: Path) -> float:
    """Return the rate of `archive.scan` on two cores and a warm cache."""
    files = sum(1 for _ in folder.iterdir())
    times = []
    with on_cores(2):
        for _ in range(_WARM_UPS + 3):
            start = time.perf_counter()
            archive.scan(folder, workers=2)
            times.append(time.perf_counter() - start)
    return files / float(np.median(times[_WARM_UPS:]))


def to_markdown(report: Report) -> str:
    """Lay the report out as tables."""
    plugins = ", ".join(f"{name} {version}" for name, version in report.plugins.items())
    settings = report.settings
    lines = [
        f"`{report.command}`, {report.machine.line()}, {plugins or 'no plugin of pydicom'}",
        "",
        f"One view of {settings.rows} x {settings.columns} pixels, 12 bits, on one core; median of "
        f"{settings.rounds} rounds. The reference is pydicom's pixel_array and apply_voi_lut, a "
        "mask by NumPy and Pillow's box resize. Of JPEG 2000 the view is one that is decoded but "
        "once; reduction.md beside this file says how many are, and how exact they come out.",
        "",
        "| work | reference ms | mammoclip-sdk ms | times as fast | goal |",
        "|---|---|---|---|---|",
    ]
    for row in report.rows:
        reference = row.note if row.reference_ms is None else f"{row.reference_ms:.1f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        goal = "" if row.goal is None else f"{row.goal:g}"
        lines.append(f"| {row.work} | {reference} | {row.ours_ms:.1f} | {ratio} | {goal} |")
    lines += [
        "",
        "Four views, from their files to the tensor, a thread each.",
        "",
        "| syntax | one core ms | two cores ms | times as fast |",
        "|---|---|---|---|",
    ]
    for cores in report.cores:
        lines.append(
            f"| {cores.syntax} | {cores.one_ms:.1f} | {cores.two_ms:.1f} | {cores.ratio:.2f} |"
        )
    lines += [
        "",
        "Peak memory above what the process had, in decoded views for each view that is read at "
        f"once; JPEG 2000 with up to {REDUCTION} levels less.",
        "",
        "| syntax | one view | four views, each | traced by Python, one view |",
        "|---|---|---|---|",
    ]
    for memory in report.memory:
        lines.append(
            f"| {memory.syntax} | {memory.one_view:.2f} | {memory.four_views:.2f} | "
            f"{memory.traced:.2f} |"
        )
    lines += [
        "",
        f"A folder of {report.headers} files of {report.headers // len(VIEWS)} studies is scanned "
        f"on two cores, from a warm cache, at {report.headers_per_second:.0f} headers a second.",
    ]
    return "\n".join(lines) + "\n"


def _plugins() -> dict[str, str]:
    found = {}
    for name in PLUGINS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def measure(settings: ReadingSettings, *, command: str, scanned: int = _SCANNED) -> Report:
    """Measure all of it."""
    with tempfile.TemporaryDirectory() as name:
        exams, small = Path(name) / "exams", Path(name) / "small"
        exams.mkdir()
        small.mkdir()
        write_exam(exams, settings)
        write_archive(small, scanned)
        with on_cores(1):
            rows = compare_one_view(exams, settings)
        return Report(
            command=command,
            settings=settings,
            machine=describe_machine(),
            plugins=_plugins(),
            rows=tuple(rows),
            cores=tuple(compare_cores(exams, settings)),
            memory=tuple(measure_memory(exams, settings)),
            headers=scanned,
            headers_per_second=headers_per_second(small),
        )


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Times of each figure.")] = 7,
    rows: Annotated[int, typer.Option(help="Rows of the phantoms.")] = 4096,
    columns: Annotated[int, typer.Option(help="Columns of the phantoms.")] = 3328,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    readme: Annotated[bool, typer.Option(help="Write the table into the README.")] = True,
) -> None:
    """Measure, print and write the report on reading."""
    report = measure(
        ReadingSettings(rounds=rounds, rows=rows, columns=columns),
        command=shlex.join(["python", "benchmarks/reading.py", *sys.argv[1:]]),
    )
    text = to_markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    (out / "reading.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    (out / "reading.md").write_text("# Reading\n\n" + text)
    if readme:
        write_region(README, "reading", text)
    Console().print(text, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
