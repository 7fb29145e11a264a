"""An archive: which exams a folder of many studies holds, and what became of everything else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exams
import pytest
from exams import PLAIN
from pydicom.dataset import Dataset

from mammoclip_sdk.archive import Archive, scan
from mammoclip_sdk.errors import (
    AmbiguousViewError,
    DicomReadError,
    ExamError,
    MissingViewError,
    MixedExamError,
)
from mammoclip_sdk.exam import VIEWS, Acceptance, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.predictor import Predictor
from mammoclip_sdk.views import header_reading, read_exam


def write_study(folder: Path, number: int, *, views: Any = VIEWS, **values: Any) -> list[Path]:
    """Write a study of its own patient; every file of every study has a UID of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for view in views:
        image = exams.dataset(view, PLAIN)
        image.PatientID, image.StudyInstanceUID = f"CANARY-{number}", f"{exams.ROOT}.5.{number}"
        image.SOPInstanceUID = f"{image.StudyInstanceUID}.{VIEWS.index(view) + 1}"
        for keyword, value in values.items():
            setattr(image, keyword, value)
        paths.append(save(image, folder / f"{number:03}{view}"))
    return paths


def save(image: Dataset, path: Path) -> Path:
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(path, enforce_file_format=True)
    return path


def names(found: Archive) -> list[list[str]]:
    return [[image.name for image in exam.images.values()] for exam in found.exams]


def test_studies_are_told_apart_wherever_their_files_lie(tmp_path: Path) -> None:
    write_study(tmp_path / "b", 1)
    write_study(tmp_path / "a", 2)
    write_study(tmp_path / "a", 3)
    for path in write_study(tmp_path / "c", 4, views=VIEWS[:2]):
        (tmp_path / "d").mkdir(exist_ok=True)
        path.rename(tmp_path / "d" / path.name)
    write_study(tmp_path / "c", 4, views=VIEWS[2:])
    found = scan(tmp_path)
    assert names(found) == [
        [f"a/002{view}" for view in VIEWS],
        [f"a/003{view}" for view in VIEWS],
        [f"b/001{view}" for view in VIEWS],
        ["d/004LCC", "d/004RCC", "c/004LMLO", "c/004RMLO"],
    ]
    assert found.incomplete == found.skipped == ()


def test_an_exam_of_an_archive_is_what_its_own_folder_gives(tmp_path: Path) -> None:
    write_study(tmp_path / "a", 1)
    write_study(tmp_path / "b", 2)
    alone = read_exam(tmp_path / "b")
    in_archive = scan(tmp_path).exams[1]
    assert in_archive.notes == alone.notes
    for view in VIEWS:
        one, other = in_archive.images[view], alone.images[view]
        assert (one.path, one.sop_instance_uid) == (other.path, other.sop_instance_uid)
        assert one.acquisition == other.acquisition


def test_what_could_not_become_an_exam_is_named_with_its_error(tmp_path: Path) -> None:
    write_study(tmp_path / "short", 1, views=VIEWS[:3])
    write_study(tmp_path / "mixed", 2)
    write_study(tmp_path / "mixed", 2, views=[View.RCC], PatientID="CANARY-OTHER")
    write_study(tmp_path / "flat", 3, views=VIEWS[1:])
    write_study(tmp_path / "flat", 4, views=VIEWS[:1])
    write_study(tmp_path / "good", 5)
    found = scan(tmp_path)
    assert names(found) == [[f"good/005{view}" for view in VIEWS]]
    assert [(study.name, type(study.error), len(study.files)) for study in found.incomplete] == [
        ("flat/003LMLO", MissingViewError, 3),
        ("flat/004LCC", MissingViewError, 1),
        ("mixed", MixedExamError, 4),
        ("short", MissingViewError, 3),
    ]
    assert found.incomplete[3].error.subject == "RMLO"
    assert "CANARY" not in repr(found.incomplete)


def test_what_is_no_candidate_is_skipped_and_told_to_its_own_study(tmp_path: Path) -> None:
    write_study(tmp_path / "a", 1, views=VIEWS[:3])
    write_study(tmp_path / "a", 1, views=VIEWS[3:], BreastImplantPresent="YES")
    write_study(tmp_path / "a", 2)
    write_study(tmp_path / "ct", 3, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    (tmp_path / "README.txt").write_text("not an image")
    found = scan(tmp_path)
    assert [(file.name, file.error.code) for file in found.skipped] == [
        ("README.txt", "not_dicom"),
        ("a/001RMLO", "implant"),
        *((f"ct/003{view}", "unsupported_sop_class") for view in sorted(VIEWS)),
    ]
    [study] = found.incomplete
    assert study.error.found == (
        "LCC, RCC, LMLO; skipped a/001RMLO (implant: a breast with an implant)"
    )
    assert found.exams[0].notes == ()
    accepting = Acceptance(implants=True, synthetic_2d=False, devices=())
    assert len(scan(tmp_path, acceptance=accepting).exams) == 2


def test_a_damaged_retake_is_told_to_the_exams_of_its_folder_alone(tmp_path: Path) -> None:
    write_study(tmp_path / "a", 1)
    write_study(tmp_path / "b", 2)
    (retake,) = write_study(tmp_path / "a", 9, views=[View.LCC])
    retake.write_bytes(retake.read_bytes()[:200])
    first, second = scan(tmp_path).exams
    [note] = first.notes
    assert note.startswith("skipped a/009LCC (")
    assert [note.replace("a/", "")] == list(read_exam(tmp_path / "a").notes)
    assert second.notes == ()


def damage(path: Path) -> None:
    """Leave a file that says nothing of its study, for it ends in its file meta."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM\2")


def test_damage_in_a_neighbouring_folder_is_counted_in_the_exams_of_the_patient(
    tmp_path: Path,
) -> None:
    jane, june = tmp_path / "CANARY^JANE", tmp_path / "CANARY^JUNE"
    for number, view in enumerate(VIEWS):  # a folder for each series
        write_study(jane / "study 1" / f"series {number}", 1, views=[view])
    write_study(jane / "study 2", 2, PatientID="CANARY-1")
    write_study(june / "study 3", 3)
    write_study(june / "ct", 4, SOPClassUID="1.2.840.10008.5.1.4.1.1.2", PatientID="CANARY-3")
    (jane / "study 1" / "README.txt").write_text("no image, and no damage")

    def notes() -> list[tuple[str, ...]]:
        found = scan(tmp_path)
        assert len(found.exams) == 3
        assert scan(tmp_path, strict=True).exams == found.exams
        return [exam.notes for exam in found.exams]

    assert notes() == [(), (), ()]
    damage(june / "ct" / "IM9")  # beside images of another kind: one of these
    damage(tmp_path / "lost" / "IM9")  # as well of the one patient as of the other
    assert notes() == [(), (), ()]
    one = ("skipped 1 file or folder nearby, not readable, that may be of this exam",)
    two = ("skipped 2 files or folders nearby, not readable, that may be of this exam",)
    damage(jane / "study 1" / "series 9" / "IM1")
    assert notes() == [one, (), ()]
    damage(jane / "study 9" / "series 1" / "IM1")
    assert notes() == [two, one, ()]
    (june / "link").symlink_to(jane)  # a folder that is not searched
    assert notes() == [two, one, one]
    assert len(scan(tmp_path).skipped) == 10

    (jane / "study 1" / "series 3" / "001RMLO").unlink()  # the damaged one may be this
    [study] = scan(tmp_path).incomplete
    assert study.error.found == "LCC, RCC, LMLO; " + two[0]


def test_a_folder_whose_name_begins_with_a_dot_is_no_other_folder(tmp_path: Path) -> None:
    write_study(tmp_path / ".a", 1, views=VIEWS[:3])
    write_study(tmp_path / "a", 2)
    damage(tmp_path / "a" / "IM9")
    found = scan(tmp_path)
    assert [study.name for study in found.incomplete] == [".a"]
    assert "IM9" not in found.incomplete[0].error.found
    assert len(found.exams[0].notes) == 1


def test_an_exam_found_by_a_relative_path_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "archive" / "a", 1)
    monkeypatch.chdir(tmp_path)
    found = scan("archive").exams[0], read_exam(Path("archive"))
    monkeypatch.chdir("/")
    for exam, name in zip(found, ("a/001RCC", "a/001RCC"), strict=True):
        assert exam.images[View.RCC].name == name
        assert exam.images[View.RCC].path == tmp_path / "archive" / "a" / "001RCC"
        assert decode(exam.images[View.RCC]).pixels.size


def test_strict_leaves_choices_and_damage_to_the_caller(tmp_path: Path) -> None:
    write_study(tmp_path / "twice", 1)
    again = exams.dataset(View.LCC, PLAIN)
    again.PatientID, again.StudyInstanceUID = "CANARY-1", f"{exams.ROOT}.5.1"
    again.SOPInstanceUID = f"{exams.ROOT}.77"
    save(again, tmp_path / "twice" / "again")
    write_study(tmp_path / "damaged", 2)
    (damaged,) = write_study(tmp_path / "damaged", 9, views=[View.LCC])
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    write_study(tmp_path / "good", 3)
    found = scan(tmp_path)
    assert len(found.exams) == 3
    assert len(found.exams[2].alternatives) == 1
    strict = scan(tmp_path, strict=True)
    assert names(strict) == [[f"good/003{view}" for view in VIEWS]]
    assert [(study.name, type(study.error)) for study in strict.incomplete] == [
        ("damaged", DicomReadError),
        ("twice", AmbiguousViewError),
    ]
    assert strict.incomplete[0].error.subject == "damaged/009LCC"


def test_the_exams_of_an_archive_are_scored(tiny_bundle: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_study(tmp_path / "archive", number)
    found = scan(tmp_path / "archive")
    with Predictor(tiny_bundle, "cpu") as predictor:
        scored = list(predictor.predict_many(found.exams, batch_size=2))
    assert [one.views[0].name for one in scored] == ["000LCC", "001LCC", "002LCC"]
    assert {one.status for one in scored} == {"scored"}


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not an image")
    for place, found in (
        (tmp_path / "nowhere", "nothing at this path"),
        (tmp_path / "file", "a single file"),
        ("", "an empty path"),
        ("a\0b", "nothing at this path|a path that no folder can have"),
        (5, "an object of type int"),
        ([tmp_path], "an object of type list"),
        (os.fsencode(tmp_path), "an object of type bytes"),
    ):
        with pytest.raises(ExamError, match=found) as caught:
            scan(place)  # type: ignore[arg-type]
        assert caught.value.code == "not_a_folder"
        assert "any number of studies" in caught.value.expected
    (tmp_path / "file").unlink()
    with pytest.raises(ValueError, match="expected 1 or more"):
        scan(tmp_path, workers=0)
    assert scan(tmp_path) == Archive(exams=(), incomplete=(), skipped=())


# Several processes


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An archive that is worth several processes, because less is made to be."""
    monkeypatch.setattr(header_reading, "_WORTH_A_CHILD", 8)
    monkeypatch.setattr(header_reading, "_CHUNK", 3)
    for number in range(24):
        write_study(tmp_path / "archive" / str(number % 4), number)
    (tmp_path / "archive" / "letter").write_text("not an image")
    return tmp_path / "archive"


def told(found: Archive) -> list[tuple[str, str]]:
    return [(file.name, str(file.error)) for file in found.skipped]


def test_children_find_what_one_process_finds(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = scan(many, workers=1)
    answered: list[int] = []
    ask = header_reading._ask

    def asked(child: Any, question: Any) -> Any:
        answered.append(child.pid)
        return ask(child, question)

    monkeypatch.setattr(header_reading, "_ask", asked)
    # Long enough for children to be there before this process is through.
    examined = header_reading._examined
    monkeypatch.setattr(
        header_reading, "_examined", lambda *arguments: (time.sleep(0.2), examined(*arguments))[1]
    )
    together = scan(many, workers=3)
    assert len(set(answered)) == 2
    assert os.getpid() not in answered
    assert together.exams == alone.exams
    assert len(together.exams) == 24
    assert told(together) == told(alone)


def test_progress_reaches_every_file_in_this_thread(many: Path) -> None:
    seen: list[tuple[int, int]] = []
    scan(many, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (97, 97)
    assert len(seen) > 3


@pytest.mark.parametrize(
    "child",
    [
        "raise SystemExit(1)",
        "import sys; sys.stdin.buffer.read(10)",
        "print('not a pickle', flush=True)",
        "import sys, pickle\nwhile True:\n pickle.load(sys.stdin.buffer); pickle.dump(1 / 0, 1)",
    ],
    ids=["absent", "dying", "babbling", "failing"],
)
def test_a_child_that_fails_costs_nothing_but_time(
    many: Path, monkeypatch: pytest.MonkeyPatch, child: str
) -> None:
    monkeypatch.setattr(
        header_reading, "child_command", lambda _module: [sys.executable, "-c", child]
    )
    assert scan(many, workers=3).exams == scan(many, workers=1).exams


def test_a_caller_that_gives_up_leaves_no_child(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(header_reading.subprocess, "Popen", noted)

    def give_up(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(many, workers=3, progress=give_up)
    assert [child.returncode is not None for child in started] == [True, True]


def test_a_script_without_a_main_guard_is_not_run_again(many: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('started')\n"
        "from mammoclip_sdk import archive\n"
        "from mammoclip_sdk.views import header_reading\n"
        "header_reading._WORTH_A_CHILD = 8\n"
        f"print(len(archive.scan({str(many)!r}, workers=3).exams))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["started", "24"]


def test_a_child_imports_nothing_from_the_folder_it_is_started_in(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("open('imported', 'w')")
    (tmp_path / "pydicom.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    assert len(scan(many, workers=2).exams) == 24
    assert not (tmp_path / "imported").exists()
