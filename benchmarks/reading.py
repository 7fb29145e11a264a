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

import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from benchmarks.figures import publish
from benchmarks.latency import time_in_turn
from benchmarks.machine import describe_machine
from benchmarks.peak_memory import measure_memory
from benchmarks.reading_report import Cores, ReadingSettings, Report, Row, to_markdown
from benchmarks.reading_sides import (
    SYNTAXES,
    our_view,
    reference_pixels,
    reference_view,
    whole_reference,
    write_archive,
    write_exam,
)
from mammoclip_sdk import archive, pixels, tensor
from mammoclip_sdk.exam import SourceImage, View
from mammoclip_sdk.preprocessing import Preprocessing
from mammoclip_sdk.views import read_exam
from training.data import PREPROCESSING

RESULTS = Path(__file__).resolve().parent / "results"
REDUCTION = 2
"""Resolution levels left out of JPEG 2000 at most; see ``reduction.md`` for what that costs."""
GOALS = {"native": 8.0, "JPEG Lossless": 3.0, f"JPEG 2000, {REDUCTION} levels less": 12.0}
PLUGINS = ("python-gdcm", "pyjpegls", "pylibjpeg-openjpeg")
"""Decoders of pydicom's that the reference uses where they are installed."""
_VIEW = View.LMLO
"""A view whose crop a reduced image tells for certain, so that it is decoded once."""
_WARM_UPS = 2
_SCANNED = 4000


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keep this process and its threads to so many processor cores."""
    before = os.sched_getaffinity(0)
    if len(before) < count:
        raise RuntimeError(f"found {len(before)} processor cores; expected {count} for this figure")
    _keep_to(set(sorted(before)[:count]))
    try:
        yield
    finally:
        _keep_to(before)


def _keep_to(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # one that ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)


def _cases() -> dict[str, tuple[str, Preprocessing]]:
    """Return by name what is read in one way: a syntax, and the keys it is read with."""
    in_full = replace(PREPROCESSING, jpeg2000_reduction=0)
    cases = {name: (name, in_full) for name in SYNTAXES if name != "JPEG 2000"}
    cases["JPEG 2000, in full"] = "JPEG 2000", in_full
    reduced = replace(PREPROCESSING, jpeg2000_reduction=REDUCTION)
    cases[f"JPEG 2000, up to {REDUCTION} levels less"] = "JPEG 2000", reduced
    return cases


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
    for name, (syntax, preprocessing) in _cases().items():

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
            memory=tuple(measure_memory(exams, settings, _cases(), _VIEW)),
            headers=scanned,
            headers_per_second=headers_per_second(small),
        )


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Times of each figure.")] = 7,
    rows: Annotated[int, typer.Option(help="Rows of the phantoms.")] = 4096,
    columns: Annotated[int, typer.Option(help="Columns of the phantoms.")] = 3328,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    documents: Annotated[bool, typer.Option(help="Write the tables into the documents.")] = True,
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
    if documents:
        publish("reading", text)
    Console().print(text, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
