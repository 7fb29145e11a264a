"""The process under test: one hostile file after another through every stage, each judged.

``python -m assurance.reading GOOD`` is started by `assurance.watch` alone. It takes jobs, one JSON
object a line, and answers each with a `Judgement` before it takes the next, so that whoever waits
in vain knows which file killed it. ``GOOD`` is a folder of the three views that make up an exam
together with the file of a job.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from assurance.canaries import leaked
from mammoclip_sdk import pixels, tensor
from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.exam import VIEWS, SourceImage, View
from mammoclip_sdk.predictor.preparation import prepare
from mammoclip_sdk.preprocessing import PREPROCESSING_VERSION, Preprocessing
from mammoclip_sdk.views import read_exam

SETTLED = ("scored", "blocked", "refused")
"""What a file may come to."""
SUSPECT = View.LCC
"""The view that the file of a job stands for."""
MOST_CPU_SECONDS, MOST_MIB = 5.0, 512.0
"""Of one file, whatever it holds; the memory is that of the whole process."""
_BACKSTOP_MIB = 3072  # of address space, so that a process gone wild harms no neighbour
READY = "ready"
"""The first line of the process: everything is imported, and it takes jobs."""
_CLEAR_PEAK = "5"  # proc(5), clear_refs: forget the largest resident size so far


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What came of one file."""

    kind: str
    """``scored`` (a tensor that may be scored), ``blocked`` (one that quality forbids) and
    ``refused`` are as it should be; all others are failures: ``defect`` (an exception that is no
    `MammoClipError`), ``leak`` (a patient's value was told), ``memory``, ``slow``, ``crash``,
    ``hang``."""
    code: str = ""
    """Of the error or of the reason, or what names the failure."""
    detail: str = ""
    """For a failure: what a developer needs to see."""
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether this must not happen."""
        return self.kind not in SETTLED


def preprocessing_of(number: int) -> Preprocessing:
    """Return the settings that the case of a number is read with: each choice in its turn."""
    voi = ("header_window", "header_lut", "stored", "percentile")[number % 4]
    return Preprocessing(
        version=PREPROCESSING_VERSION,
        height=64,
        width=32,
        voi=voi,
        percentiles=(1.0, 99.0) if voi == "percentile" else None,
        segmentation_threshold=0.05,
        crop_margin=0.02,
        background=("zero", "keep")[number // 4 % 2],
        geometry=("letterbox", "stretch")[number // 8 % 2],
        resampling="area",
        jpeg2000_reduction=0 if voi == "percentile" else number // 16 % 3,
    )


def read(path: Path, good: Path, number: int) -> Judgement:
    """Take a file through every stage, and judge what came of it."""
    before = _cpu_seconds()
    with _listening() as heard:
        judgement, said = _attempt(path, good, number)
    told = leaked(said + "".join(heard))
    peak = _peak_mib()
    spent = _cpu_seconds() - before
    kind, code, detail = judgement.kind, judgement.code, judgement.detail
    if kind != "defect":
        if told:
            kind, code, detail = "leak", told, said
        elif peak > MOST_MIB or "MemoryError" in said:
            kind, code, detail = "memory", f"{peak:.0f} MiB", said
        elif spent > MOST_CPU_SECONDS:
            kind, code, detail = "slow", f"{spent:.1f} s", said
    return Judgement(kind=kind, code=code, detail=detail, cpu_seconds=spent, peak_mib=peak)


def _attempt(path: Path, good: Path, number: int) -> tuple[Judgement, str]:
    """Return what came of it, and every word that was said about it."""
    views = {view.value: good / view.value for view in VIEWS} | {SUSPECT.value: path}
    said = ""
    judgements = []
    for stage in (
        lambda: prepare(views, preprocessing_of(number), strict=False),
        # What a stage refuses hides the later ones, which are public too.
        lambda: read_exam([path]),
        lambda: _tensor(path, number),
    ):
        try:
            result = stage()
        except MammoClipError as error:
            said += words(error)
            judgements.append(Judgement(kind="refused", code=error.code))
        except Exception as error:
            detail = "".join(traceback.format_exception(error))
            return Judgement(kind="defect", code=type(error).__name__, detail=detail), detail
        else:
            said += repr([getattr(result, part, ()) for part in ("notes", "reasons")])
            judgements.append(_judged(result))
    return judgements[0], said


def _judged(result: object) -> Judgement:
    blocking = [
        reason.code for reason in getattr(result, "reasons", ()) if reason.severity == "block"
    ]
    return Judgement(kind="blocked" if blocking else "scored", code=" ".join(blocking[:1]))


def _tensor(path: Path, number: int) -> None:
    stored = pixels.decode(SourceImage(view=SUSPECT, name=path.name, path=path))
    tensor.build_view(stored, preprocessing_of(number))
    tensor.display(stored, preprocessing_of(number), height=64)


def words(error: BaseException) -> str:
    """Return all that an error and those behind it say, whether or not a traceback shows them."""
    said = "".join(traceback.format_exception(error))
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or link in seen:
            continue
        seen.append(link)
        waiting += [link.__cause__, link.__context__]
        said += f"{link!r} {link} {link.args!r}"
        if isinstance(link, MammoClipError):
            said += json.dumps(link.to_dict())
    return said


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect warnings, log records of every level, and what native code writes to stderr."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(f"{record.getMessage()} {record.args!r} {record.exc_info!r}")

    listener = Listener(logging.NOTSET)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(listener)
    root.setLevel(logging.NOTSET)
    written = os.fstat(2).st_size
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard
        heard += [str(warning.message) for warning in caught]
        sys.stderr.flush()
        heard.append(os.pread(2, os.fstat(2).st_size - written, written).decode("latin-1"))
    finally:
        root.removeHandler(listener)
        root.setLevel(level)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)


def _peak_mib() -> float:
    [line] = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1024


def _limit(limit: int, amount: int) -> None:
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (amount, hard))


def serve(good: Path) -> None:
    """Judge the files named on standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a codec that prints must not be taken for an answer
    _limit(resource.RLIMIT_AS, _BACKSTOP_MIB * 2**20)
    _limit(resource.RLIMIT_CORE, 0)
    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        _limit(resource.RLIMIT_CPU, int(time.process_time() + 3 * MOST_CPU_SECONDS) + 1)
        _forget_peak()
        judgement = read(Path(job["path"]), good, job["number"])
        answers.write(json.dumps(asdict(judgement)) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
