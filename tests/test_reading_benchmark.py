"""What the reports on reading say is what was measured, and both sides do the same work."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks import peak_memory, reading, reading_sides, reduction
from benchmarks.machine import describe_machine
from benchmarks.reading_report import Cores, Memory, ReadingSettings, Report, Row
from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.preprocessing import SAMPLES_PER_INPUT_PIXEL
from training.data import PREPROCESSING

SMALL = ReadingSettings(rounds=1, rows=640, columns=512)


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exam")
    reading.write_exam(folder, SMALL)
    return folder


@pytest.mark.parametrize("name", reading.SYNTAXES)
def test_reference_and_software_read_the_same_breast(exam, name):
    path = exam / name / "RMLO.dcm"
    keys = replace(PREPROCESSING, height=32, width=32, geometry="letterbox")
    ours, theirs = reading.our_view(path, keys), reading.whole_reference(path, keys)
    assert ours.shape == theirs.shape == (32, 32)
    # Not the same crop: the reference takes the lead marker for a part of the breast.
    assert ours[:, :8].mean() > 2 * ours[:, -8:].mean()
    assert theirs[:, :8].mean() > 2 * theirs[:, -8:].mean()


def test_a_reference_that_cannot_decode_is_named_and_not_timed():
    def fails():
        raise RuntimeError("Unable to decompress as plugins are missing\nand more")

    row = reading._timed("JPEG-LS", fails, lambda: None, rounds=1, goal=3.0)
    assert (row.reference_ms, row.ratio) == (None, None)
    assert row.note == "not measured: Unable to decompress as plugins are missing"
    assert row.ours_ms > 0


def test_the_ratio_is_that_of_the_medians():
    row = reading._timed("sum", lambda: sum(range(400_000)), lambda: None, rounds=3, goal=None)
    assert row.ratio == pytest.approx(row.reference_ms / row.ours_ms)
    assert row.ratio > 10


def test_the_report_shows_each_figure_beside_its_machine():
    report = Report(
        command="python benchmarks/reading.py",
        settings=SMALL,
        machine=describe_machine(),
        plugins={"pyjpegls": "1.5.1"},
        rows=(
            Row(work="native", reference_ms=120.0, ours_ms=10.0, ratio=12.0, goal=8.0),
            Row(
                work="JPEG-LS",
                reference_ms=None,
                ours_ms=50.0,
                ratio=None,
                goal=None,
                note="not measured: no plugin",
            ),
        ),
        cores=(Cores(syntax="native", one_ms=100.0, two_ms=52.0, ratio=1.923),),
        memory=(Memory(syntax="native", one_view=1.1, four_views=1.05),),
        headers=4000,
        headers_per_second=2345.6,
    )
    text = reading.to_markdown(report)
    assert "| native | 120.0 | 10.0 | 12.0 | 8 |" in text
    assert "| JPEG-LS | not measured: no plugin | 50.0 |  |  |" in text
    assert "| native | 100.0 | 52.0 | 1.92 |" in text
    assert "| native | 1.10 | 1.05 |" in text
    assert "4000 files of 1000 studies" in text
    assert "2346 headers a second" in text
    assert describe_machine().processor in text
    assert "pyjpegls 1.5.1" in text
    assert "640 x 512 pixels" in text
    json.dumps(asdict(report))


def test_an_archive_holds_as_many_files_as_asked_for(tmp_path):
    reading.write_archive(tmp_path, 8)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 8
    assert {name.split("-")[1] for name in names} == {f"{view}.dcm" for view in VIEWS}


def test_peaks_are_of_the_work_alone():
    def work():
        return np.ones(4_000_000).sum()

    grown = peak_memory._peak_resident(work)
    assert 20e6 < grown < 60e6


def phantom(rows, columns):
    settings = reading_sides.PhantomSettings(seed=2, rows=rows, columns=columns)
    exam = reading_sides.make_exam(settings, 0)
    (profile,) = (profile for profile in reading_sides.PROFILES if profile.name == "Philips-like")
    return reading_sides.to_dataset(
        exam.views[View.LCC].displayed,
        view=View.LCC,
        profile=profile,
        identity=reading_sides.ExamIdentity.derive(2, 0),
        pixel_spacing=0.2,
        rng=np.random.default_rng(2),
    )


def test_differences_grow_with_the_levels_and_are_small_where_the_rule_allows_them():
    keys = [replace(PREPROCESSING, height=96, width=48)]
    rows = list(
        reduction.compare(phantom(1280, 1024), View.LCC, name="phantom", preprocessings=keys)
    )
    assert len(rows) == len(reduction.QUALITIES) * len(reduction.LEVELS)
    assert {row.encoding for row in rows} == {
        "5-3 lossless",
        "9-7, 72 dB",
        "9-7, 60 dB",
        "9-7, 48 dB",
    }
    lossless = [row for row in rows if row.encoding == "5-3 lossless"]
    assert [row.samples for row in lossless] == pytest.approx(
        [lossless[0].samples / 2**k for k in range(3)], rel=0.02
    )
    assert lossless[2].difference > 2 * lossless[0].difference
    assert all(row.enough == (row.samples >= SAMPLES_PER_INPUT_PIXEL) for row in rows)
    assert any(row.taken for row in rows)
    for row in rows:
        assert row.enough or not row.taken
        assert not row.taken or (row.same_crop and row.difference < reduction.LIMIT)
    report = reduction.Report(
        command="python benchmarks/reduction.py",
        machine=describe_machine(),
        images=1,
        samples_per_input_pixel=SAMPLES_PER_INPUT_PIXEL,
        differences=tuple(rows),
    )
    saved = json.loads(reduction.to_json(report))
    assert saved["images"] == 1
    assert len(saved["rows"]) == len(rows)
    kept = dict(zip(saved["columns"], saved["rows"][0], strict=True))
    assert kept["difference"] == pytest.approx(rows[0].difference, abs=1e-5)
    text = reduction.to_markdown(report)
    worst = max(row.difference for row in rows if row.taken)
    assert f"none differs by more than {worst:.2%}" in text
    assert "| 96 x 48 | 3 |" in text


def test_jpeg_2000_is_read_in_full_and_reduced_and_all_else_in_full():
    cases = reading._cases()
    assert [syntax for syntax, _ in cases.values()] == [*reading.SYNTAXES, "JPEG 2000"]
    assert [keys.jpeg2000_reduction for _, keys in cases.values()] == [0] * 5 + [reading.REDUCTION]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no such limit here")
def test_threads_that_run_already_are_kept_to_the_cores_as_well():
    allowed = os.sched_getaffinity(0)
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.get_native_id).result()
        with reading.on_cores(1):
            assert os.sched_getaffinity(thread) == os.sched_getaffinity(0) == {min(allowed)}
        assert os.sched_getaffinity(thread) == os.sched_getaffinity(0) == allowed
