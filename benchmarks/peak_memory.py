"""How much memory reading takes at its peak, measured in processes that do nothing else."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.reading_report import Memory, ReadingSettings
from benchmarks.reading_sides import our_view
from mammoclip_sdk._native import release_idle_memory
from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.predictor.preparation import prepare
from mammoclip_sdk.preprocessing import Preprocessing


def measure_memory(
    folder: Path,
    settings: ReadingSettings,
    cases: Mapping[str, tuple[str, Preprocessing]],
    view: View,
) -> list[Memory]:
    """Measure each case in a child process of its own, after a first exam has loaded it all.

    Parameters
    ----------
    cases
        By name: the folder of the exam within ``folder``, and how it is read.
    view
        The one that is read alone.
    """
    view_bytes = 2 * settings.rows * settings.columns
    measured = []
    for name, (syntax, keys) in cases.items():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
            one, four = child.submit(_peaks, folder / syntax, keys, view).result()
        measured.append(
            Memory(
                syntax=name,
                one_view=one / view_bytes,
                four_views=four / view_bytes / len(VIEWS),
            )
        )
    return measured


def _peaks(folder: Path, keys: Preprocessing, view: View) -> tuple[int, int]:
    """Return extra bytes at the peak: of one view, and of four."""
    one = partial(our_view, folder / f"{view}.dcm", keys)
    four = partial(prepare, folder, keys, strict=False)
    four()
    return _peak_resident(one), _peak_resident(four)


def _peak_resident(work: Callable[[], object]) -> int:
    """Return by how much the process grew at most; Linux counts it, and can be told to begin."""
    release_idle_memory()  # else what was freed before hides what is taken now
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
