"""Hostile files made for the purpose, each through every stage.

``python -m assurance.bombs`` writes the record. Most are a few bytes that ask for gigabytes of
memory or for hours; some are legal and merely at a limit, and may be scored.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydicom.data.data_manager import DATA_ROOT
from rich.progress import track

from assurance.corpus import write_good_views
from assurance.jpeg2000_bombs import jpeg2000_bombs
from assurance.jpeg_bombs import jpeg_bombs
from assurance.mutation import FAILURES
from assurance.part10 import plain_file
from assurance.path_bombs import path_bombs
from assurance.reading import MOST_CPU_SECONDS, MOST_MIB, Judgement
from assurance.structure_bombs import pixel_bombs, structure_bombs
from assurance.trial import RESULTS, Table, Trial, measured_on, write_trial
from assurance.value_bombs import value_bombs
from assurance.watch import Watched


@dataclass(frozen=True, kw_only=True)
class Bomb:
    """One hostile file or path."""

    name: str
    place: Callable[[Path], Path]
    """Makes it in a folder and returns its path."""


@dataclass(frozen=True, kw_only=True)
class Blast:
    """What came of one."""

    name: str
    file_bytes: int
    judgement: Judgement


def bombs() -> Iterator[Bomb]:
    """Yield all of them; each is made when its turn comes."""
    plain = plain_file()
    for kind in (structure_bombs, value_bombs, pixel_bombs, jpeg_bombs, jpeg2000_bombs):
        for name, content in kind(plain):
            yield _of_bytes(name, content)
    for name, place in path_bombs(plain.content()):
        yield Bomb(name=name, place=place)
    for path in sorted(Path(DATA_ROOT, "test_files").rglob("*")):
        yield Bomb(name=f"pydicom's {path.name}", place=lambda _, path=path: path)


def _of_bytes(name: str, content: bytes) -> Bomb:
    def place(folder: Path) -> Path:
        path = folder / "hostile.dcm"
        path.write_bytes(content)
        return path

    return Bomb(name=name, place=place)


def run(only: Callable[[Bomb], bool] = lambda _: True) -> tuple[list[Blast], float]:
    """Read every bomb that ``only`` lets pass, and return what came of it and the time it took."""
    started = time.perf_counter()
    blasts = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with Watched(write_good_views(place)) as watched:
            for bomb in track(filter(only, bombs()), "Hostile files", total=None):
                path = bomb.place(place)
                blasts.append(
                    Blast(name=bomb.name, file_bytes=_size(path), judgement=watched.judge(path))
                )
    return blasts, time.perf_counter() - started


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def record(blasts: list[Blast], wall_seconds: float) -> Trial:
    """Lay out a run as a trial."""
    judgements = [blast.judgement for blast in blasts]
    costly = sorted(blasts, key=lambda blast: blast.judgement.peak_mib, reverse=True)[:5]
    costly += sorted(blasts, key=lambda blast: blast.judgement.cpu_seconds, reverse=True)[:5]
    return Trial(
        title="Hostile files",
        account=(
            "Files made to exhaust memory, time or patience: lengths that lie, sequences without "
            "end, headers and codestreams that ask for gigabytes, values of no type, paths that "
            "are no files; and the test files that pydicom brings. A failure is anything but a "
            "result or an error of this package, a "
            f"patient's value in any message, more than {MOST_MIB:.0f} MiB of resident memory, or "
            f"more than {MOST_CPU_SECONDS:.0f} s of processor time for a file."
        ),
        **measured_on("python -m assurance.bombs"),
        executions=len(blasts),
        cpu_seconds=round(sum(judgement.cpu_seconds for judgement in judgements), 1),
        wall_seconds=round(wall_seconds, 1),
        peak_mib=round(max(judgement.peak_mib for judgement in judgements), 1),
        slowest_cpu_seconds=round(max(judgement.cpu_seconds for judgement in judgements), 3),
        corpus_files=len(blasts),
        corpus_bytes=sum(blast.file_bytes for blast in blasts if blast.file_bytes < 2**30),
        open={kind: sum(each.kind == kind for each in judgements) for kind in FAILURES},
        rates=(),
        tables=(
            Table(
                caption="The costliest, by memory and by time",
                columns=("file", "bytes", "what came of it", "CPU s", "peak MiB"),
                rows=tuple(dict.fromkeys(map(_row, costly))),
            ),
        ),
        notes=(),
    )


def _row(blast: Blast) -> tuple[str, ...]:
    judgement = blast.judgement
    outcome = judgement.kind + (f" ({judgement.code})" if judgement.code else "")
    return (
        blast.name,
        f"{blast.file_bytes:,}",
        outcome,
        f"{judgement.cpu_seconds:.2f}",
        f"{judgement.peak_mib:.0f}",
    )


def command(
    out: Annotated[Path, typer.Option(help="Record to write.")] = RESULTS / "bombs.json",
    only: Annotated[str, typer.Option(help="Those alone whose names hold this.")] = "",
) -> None:
    """Read hostile files."""
    blasts, wall_seconds = run(lambda bomb: only in bomb.name)
    write_trial(record(blasts, wall_seconds), out)
    failed = [blast for blast in blasts if blast.judgement.failed]
    for blast in failed:
        typer.echo(f"{' | '.join(_row(blast))}\n{blast.judgement.detail[-2000:]}", err=True)
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(command)
