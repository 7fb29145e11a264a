"""No file whatever leads to anything but a result or an error of this package's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from assurance import canaries, document, gate_fuzz, mutation
from assurance.bombs import bombs
from assurance.corpus import make_corpus, write_good_views
from assurance.reading import Judgement, words
from assurance.trial import Rate, Table, Trial, measured_on, read_trial, write_trial
from assurance.watch import Watched
from mammoclip_sdk.archive import scan
from mammoclip_sdk.errors import MammoClipError, PixelError
from mammoclip_sdk.views import read_exam
from training.encodings import TRANSFER_SYNTAXES

MUTATED = 1_000
PATIENT = """
import sys, os, logging, warnings
from pathlib import Path
from assurance import reading
reading.MOST_CPU_SECONDS = 0.1
def attack(views, *_, **__):
    {}
reading.prepare = attack
reading.serve(Path(sys.argv[1]))
"""
"""A process under test in which the reading of an exam does something that it must not do."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three good views, and of the fourth as ``LCC``."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "LCC").write_bytes(make_corpus()[0].content)
    return write_good_views(folder)


def failures(judged: dict[str, Judgement]) -> dict[str, Judgement]:
    return {name: judgement for name, judgement in judged.items() if judgement.failed}


# -- what is read ---------------------------------------------------------------------------------


def test_good_files_of_every_syntax_are_scored_before_they_are_damaged(
    good: Path, tmp_path: Path
) -> None:
    corpus = make_corpus()
    assert {seed.syntax for seed in corpus} == set(TRANSFER_SYNTAXES)
    path = tmp_path / "x.dcm"
    with Watched(good) as watched:
        for number, seed in enumerate(corpus):
            path.write_bytes(seed.content)
            judgement = watched.judge(path, 16 * (number % 3))  # as the header's window shows it
            assert judgement.kind == "scored", (seed.syntax, seed.profile, judgement)


def test_damaged_files_end_in_a_result_or_in_an_error_of_ours(tmp_path: Path) -> None:
    corpus = make_corpus()
    cases = list(mutation.run_cases(corpus, range(MUTATED), seed=7, keep=tmp_path / "kept"))
    assert failures({f"7-{case.index}": case.judgement for case in cases}) == {}
    kinds = {
        syntax: {case.judgement.kind for case in cases if case.syntax == syntax}
        for syntax in TRANSFER_SYNTAXES
    }
    # Neither does damage go unseen everywhere, nor is every damaged file refused at the door.
    assert all({"scored", "refused"} <= kinds[syntax] for syntax in TRANSFER_SYNTAXES)
    codes = {case.judgement.code for case in cases}
    assert {"decode_failed", "truncated", "value_unreadable", "value_range"} <= codes


def test_hostile_files_end_in_a_result_or_in_an_error_of_ours(good: Path, tmp_path: Path) -> None:
    judged = {}
    with Watched(good) as watched:
        for bomb in bombs():
            judged[bomb.name] = watched.judge(bomb.place(tmp_path))
    assert failures(judged) == {}
    assert len(judged) > 500
    refused = {name: judgement.code for name, judgement in judged.items() if judgement.code}
    for name, code in (
        ("deflated, 2 GiB of zeros", "unsupported_transfer_syntax"),
        ("RLE, 65535 x 65535 x 16", "image_size"),
        ("J2K, 40000 x 40000 under 100 x 100", "codestream_size"),
        ("JPEG, SOF of 40000 x 40000", "codestream_size"),
        ("a pipe that nobody writes to", "not_a_file"),
        ("a file of 257 MiB", "file_too_large"),
        ("a file of 0 bytes", "not_dicom"),
        ("00280120 UV with every bit set", "value_unreadable"),
        ("VOI LUT: first value of 64 bits", "value_unreadable"),
    ):
        assert refused[name] == code


def test_a_folder_of_damaged_and_hostile_files_is_searched_whole(tmp_path: Path) -> None:
    write_good_views(tmp_path)
    corpus = make_corpus()
    (tmp_path / "LCC").write_bytes(corpus[0].content)
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for index in range(300):
        (hostile / f"IM{index}").write_bytes(mutation.make_file(corpus, 11, index)[1])
    (hostile / "loop").symlink_to(hostile)
    os.mkfifo(hostile / "pipe")
    found = scan(tmp_path, workers=1)
    told = [*found.skipped, *found.incomplete]
    assert len(found.exams) + len(found.incomplete) >= 1
    assert {file.error.code for file in found.skipped} >= {"truncated", "unknown_vr", "not_a_file"}
    assert not canaries.leaked("".join(words(each.error) for each in told))
    with pytest.raises(MammoClipError) as caught:
        read_exam(hostile, strict=True)
    assert not canaries.leaked(words(caught.value))


# -- the judge ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deed", "kind", "code"),
    [
        ("raise ValueError('x')", "defect", "ValueError"),
        ("raise RecursionError", "defect", "RecursionError"),
        ("os.abort()", "crash", "SIGABRT"),
        ("os._exit(0)", "crash", "exit 0"),
        ("while True: pass", "hang", "SIGXCPU"),
        ("sum(range(20_000_000)); return None", "slow", None),
        ("bytearray(600 * 2**20); return None", "memory", None),
        ("bytearray(2**40)", "defect", "MemoryError"),
        ("logging.getLogger('x').debug('of Canary^Yellow'); return None", "leak", "CANARY"),
        ("warnings.warn('born 19270731'); return None", "leak", "19270731"),
        ("os.write(2, b'canary'); return None", "leak", "CANARY"),
    ],
)
def test_what_a_file_must_not_do_is_seen_and_the_next_file_is_read(
    good: Path, deed: str, kind: str, code: str | None
) -> None:
    program = (sys.executable, "-c", PATIENT.format(deed))
    with Watched(good, program=program) as watched:
        for _ in range(2):
            judgement = watched.judge(good / "LCC")
            assert judgement.kind == kind, judgement
            assert code in (None, judgement.code)
            assert judgement.failed


@pytest.mark.parametrize("behind", ["__cause__", "__context__"])
def test_what_stands_behind_an_error_is_heard_too(behind: str) -> None:
    error = PixelError("x", found="a", expected="b", remedy="c")
    assert not canaries.leaked(words(error))
    setattr(error, behind, ValueError(f"could not convert {canaries.NAME}"))
    error.__suppress_context__ = True
    assert canaries.leaked(words(error)) == canaries.WORD


def test_canaries_are_in_every_good_file() -> None:
    for seed in make_corpus():
        for canary in (canaries.NAME, canaries.DIGITS, canaries.WORD):
            assert canary.encode() in seed.content
        assert not canaries.leaked(f"{seed.syntax} {seed.profile}")


def test_a_seed_and_an_index_give_the_same_damage_again() -> None:
    corpus = make_corpus()
    files = [mutation.make_file(corpus, 3, index)[1] for index in range(60)]
    assert files == [mutation.make_file(corpus, 3, index)[1] for index in range(60)]
    assert len(set(files)) > 55
    assert sum(file in {seed.content for seed in corpus} for file in files) < 10
    assert files != [mutation.make_file(corpus, 4, index)[1] for index in range(60)]


@pytest.mark.parametrize("mended", [True, False])
def test_another_frame_has_its_length_said_or_not(mended: bool) -> None:
    for seed in make_corpus():
        assert seed.with_frame(seed.frame, mended=True) == seed.content
        longer = seed.with_frame(seed.frame + b"\1\2", mended=mended)
        assert (longer.replace(seed.frame + b"\1\2", seed.frame) == seed.content) is not mended


def test_a_failing_file_is_kept_with_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Judgement(kind="defect", code="KeyError", detail="where it was")
    monkeypatch.setattr(Watched, "judge", lambda *_: failed)
    corpus = make_corpus()
    [case] = mutation.run_cases(corpus, [5], seed=2, keep=tmp_path / "kept")
    assert case.judgement is failed
    assert (tmp_path / "kept" / "2-5.dcm").read_bytes() == mutation.make_file(corpus, 2, 5)[1]
    assert "where it was" in (tmp_path / "kept" / "2-5.txt").read_text()


# -- the fuzzer -----------------------------------------------------------------------------------


@pytest.mark.skipif(not gate_fuzz.available(), reason="atheris is not installed")
def test_the_fuzzer_of_headers_finds_nothing_in_a_few_seconds(tmp_path: Path) -> None:
    trial = gate_fuzz.run(5, keep=tmp_path)
    assert not any(trial.open.values())
    assert trial.executions > 500
    assert trial.corpus_files > 2 * len(make_corpus())


# -- the page -------------------------------------------------------------------------------------


def some_trial() -> Trial:
    return Trial(
        title="Some trial",
        account="What was done.",
        **measured_on("python -m some"),
        executions=12_345,
        cpu_seconds=7_300.0,
        wall_seconds=61.0,
        peak_mib=None,
        slowest_cpu_seconds=0.5,
        corpus_files=3,
        corpus_bytes=2_048,
        open={"crashes": 0, "hangs": 2},
        rates=(Rate(name="seen", hits=81, of=263, target="more"),),
        tables=(Table(caption="By kind", columns=("a", "b"), rows=(("x|y", "1"),)),),
        notes=("A note.",),
    )


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    trial = some_trial()
    write_trial(trial, tmp_path / "deep" / "some.json")
    assert read_trial(tmp_path / "deep" / "some.json") == trial
    text = (tmp_path / "deep" / "some.json").read_text()
    (tmp_path / "bad.json").write_text(text.replace('"executions"', '"excursions"'))
    with pytest.raises(ValueError, match=r"bad\.json: found excursions: unknown key"):
        read_trial(tmp_path / "bad.json")


def test_the_page_lays_out_a_record() -> None:
    lines = document.page({"some": some_trial()}).splitlines()
    assert "| Some trial | 12,345 | 2.0 h | 3 files, 2.0 KiB | – | 0.50 s | 2 |" in lines
    assert "- open: crashes 0, hangs 2" in lines
    # The interval of 81 in 263 is a textbook's: 0.2553 to 0.3662.
    assert "| seen | 81 of 263 | 30.80 % | 25.53 to 36.62 % | more |" in lines
    assert "| x\\|y | 1 |" in lines
    assert "- A note." in lines


def test_the_page_is_what_the_records_say_and_nothing_is_open() -> None:
    trials = document.read_trials()
    assert set(trials) >= {"bombs", "mutation"}
    assert document.PAGE.read_text("utf-8") == document.page(trials)
    assert {name: sum(trial.open.values()) for name, trial in trials.items()} == dict.fromkeys(
        trials, 0
    )
    assert trials["mutation"].executions >= 20_000
