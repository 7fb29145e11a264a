"""The native core withstands its fuzz targets for some seconds, and the targets see a defect."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from assurance import native_fuzz
from assurance.native_fuzz import Engine
from assurance.trial import read_trial

SECONDS = 5.0


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Return the driver of our own, which needs no clang."""
    for compiler in ("g++", "c++"):
        if native_fuzz._links(compiler, "-fsanitize=address,undefined"):
            return Engine(name="standalone driver", compiler=compiler, version="of this machine")
    pytest.skip("no g++ or c++ that links with AddressSanitizer and UBSan")


@pytest.fixture(scope="module")
def programs(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native_fuzz.build(engine, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("target", native_fuzz.TARGETS)
def test_no_input_breaks_the_core(target, engine, programs, tmp_path):
    run = native_fuzz.fuzz(target, programs, engine, seconds=SECONDS, folder=tmp_path)
    assert not any(run.open.values()), run.report
    assert run.executions > native_fuzz._SEEDS
    assert run.corpus_files == native_fuzz._SEEDS
    assert run.cpu_seconds > 0


def test_a_read_beyond_a_table_is_found_and_its_input_kept(engine, tmp_path):
    source = tmp_path / "cpp"
    shutil.copytree(native_fuzz.ROOT / "cpp", source)
    grey_values = source / "src" / "grey_values.cpp"
    right, wrong = "lut.data.size() - 1)", "lut.data.size())"
    text = grey_values.read_text()
    assert text.count(right) == 1
    grey_values.write_text(text.replace(right, wrong))
    programs = native_fuzz.build(engine, tmp_path / "build", source=source, targets=["grey_values"])
    run = native_fuzz.fuzz("grey_values", programs, engine, seconds=30.0, folder=tmp_path)
    assert run.open["crashes"] == 1
    assert "heap-buffer-overflow" in run.report
    (kept,) = (tmp_path / "stopped-at" / "grey_values").iterdir()
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(kept, again)
    command = [programs / "fuzz_grey_values", "-runs=1", again]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


def test_the_same_bytes_are_always_the_seeds(tmp_path):
    native_fuzz.write_seeds(tmp_path / "one")
    native_fuzz.write_seeds(tmp_path / "other")
    one, other = (sorted((tmp_path / name).iterdir()) for name in ("one", "other"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]
    assert {file.stat().st_size for file in one} == set(native_fuzz._SEED_BYTES)


def test_a_run_is_recorded_as_a_trial(monkeypatch, capsys, engine, programs, tmp_path):
    monkeypatch.setattr(native_fuzz, "find_engine", lambda: engine)
    monkeypatch.setattr(native_fuzz, "build", lambda *_: programs)
    monkeypatch.setattr(native_fuzz, "WORK", tmp_path / "work")
    out = tmp_path / "native_fuzz.json"
    assert native_fuzz.main(["--seconds", "1", "--out", str(out)]) == 0
    trial = read_trial(out)
    assert trial.open == {"crashes": 0, "hangs": 0, "out of memory": 0, "leaks": 0}
    assert trial.executions >= 2 * native_fuzz._SEEDS
    assert [row[0] for row in trial.tables[0].rows] == list(native_fuzz.TARGETS.values())
    assert "open: 0" in capsys.readouterr().out


def test_libfuzzers_own_words_are_understood(tmp_path):
    said = (
        "INFO: Loaded 1 PC tables (2030 PCs): 2030 [0x1,0x2),\n"
        "#201\tINITED cov: 833 ft: 2641 corp: 154/71Kb\n"
        "#16078\tDONE   cov: 864 ft: 3389 corp: 484/108Kb\n"
    )
    assert native_fuzz._edges(said) == "864 of 2030"
    assert native_fuzz._edges("stat::number_of_executed_units: 12") == ""
    for name in ("crash-07c1", "timeout-33ab", "oom-11aa", "leak-12", "crash", "slow-unit-4e"):
        (tmp_path / name).touch()
    found = native_fuzz._open(tmp_path, 0, 77)
    assert found == {"crashes": 2, "hangs": 1, "out of memory": 1, "leaks": 1}


def test_a_program_that_fails_without_an_input_counts_as_a_crash(tmp_path):
    assert native_fuzz._open(tmp_path, 0, 1)["crashes"] == 1
    assert not any(native_fuzz._open(tmp_path, 0, 0).values())
    (tmp_path / "crash").touch()  # what the driver was running when its time was up
    assert native_fuzz._open(tmp_path, 1, 1) == {
        "crashes": 0,
        "hangs": 1,
        "out of memory": 0,
        "leaks": 0,
    }
