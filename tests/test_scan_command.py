"""`scan`: what an archive holds, by headers alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import exams
import pydicom
import pytest
from command import COMMAND, refused, run
from conftest import KeyPair
from signed import sign

from mammoclip_sdk.bundle import read_bundle, write_bundle
from mammoclip_sdk.exam import Acceptance


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """An exam, a study that lacks a view, an exam with a choice in it, and a letter."""
    for number in (1, 2, 3):
        folder = tmp_path / "studies" / str(number)
        for path in exams.write_exam(folder, exams.PLAIN):
            image = pydicom.dcmread(path)
            image.StudyInstanceUID = f"{exams.ROOT}.5.{number}"
            image.SOPInstanceUID += f".{number}"
            image.save_as(path)
    (folder / "IM3").unlink()
    image = pydicom.dcmread(tmp_path / "studies" / "2" / "IM1")
    image.SOPInstanceUID, image.AcquisitionTime = f"{exams.ROOT}.9", "235959"
    image.save_as(tmp_path / "studies" / "2" / "IM9")
    (tmp_path / "studies" / "letter").write_text("not an image")
    return tmp_path / "studies"


def test_scan_lists_what_an_archive_holds(studies: Path) -> None:
    result = run("scan", studies)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[:4] == [
        "exam        1",
        "exam        2",
        "            LCC not 2/IM1: it was acquired earlier",
        "incomplete  3",
    ]
    assert " ".join(lines[4:-2]).split()[:3] == ["MissingViewError:", "LMLO:", "found"]
    assert lines[-2:] == [
        "skipped     1 x not_dicom",
        "2 exams, 1 incomplete, 1 file skipped",
    ]
    assert exams.CANARY not in result.output


def test_scan_names_what_it_skipped_unless_it_is_no_dicom(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, exams.PLAIN)
    (tmp_path / "letter").write_text("not an image")
    whole = (tmp_path / "IM1").read_bytes()
    for number in range(22):
        (tmp_path / f"IN{number:02}").write_bytes(whole[:200])
    result = run("scan", tmp_path)
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines[0] == f"exam        {tmp_path.name}"
    assert [line.split()[0] for line in lines[2:23]] == [f"IN{i:02}" for i in range(20)] + ["and"]
    assert lines[22] == "            and 2 more"
    assert "letter" not in result.stdout
    assert lines[-1] == "1 exam, 0 incomplete, 23 files skipped"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_archive_in_which_nothing_is_an_exam_is_no_success(
    studies: Path, tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", studies / "3"):
        result = run("scan", folder, *options)
        assert (result.exit_code, result.stderr) == (3, "")
        assert result.stdout


def test_several_exams_are_sent_to_scan(tiny_bundle: Path, studies: Path) -> None:
    for arguments in ([studies], [studies / "1", studies / "2"]):
        result = run("predict", *arguments, "--bundle", tiny_bundle)
        assert result.exit_code == 2
        assert "mammoclip-sdk scan (mammoclip_sdk.archive.scan)" in result.stderr


def test_scan_as_json(studies: Path, tiny_bundle: Path) -> None:
    found = json.loads(run("scan", studies, "--bundle", tiny_bundle, "--json").stdout)
    assert [exam["images"]["LCC"] for exam in found["exams"]] == ["1/IM1", "2/IM9"]
    assert [exam["study_instance_uid"] for exam in found["exams"]] == [
        f"{exams.ROOT}.5.1", f"{exams.ROOT}.5.2"
    ]  # fmt: skip
    assert found["exams"][1]["alternatives"] == [
        {"view": "LCC", "name": "2/IM1", "reason": "it was acquired earlier"}
    ]
    [study] = found["incomplete"]
    assert (study["name"], study["files"]) == ("3", ["3/IM1", "3/IM2", "3/IM4"])
    assert study["error"]["code"] == "missing_view"
    assert [(file["name"], file["error"]["code"]) for file in found["skipped"]] == [
        ("letter", "not_dicom")
    ]
    strict = json.loads(run("scan", studies, "--strict", "--json").stdout)
    assert [study["error"]["code"] for study in strict["incomplete"]] == [
        "ambiguous_view", "missing_view"
    ]  # fmt: skip
    refused(run("scan", studies / "letter"), "ExamError", "a single file", "[not_a_folder")


def test_scan_asks_the_bundle_what_is_an_exam(tiny_bundle: Path, tmp_path: Path) -> None:
    with_implants = exams.Variant(
        name="implants", header=lambda image, view: setattr(image, "BreastImplantPresent", "YES")
    )
    exams.write_exam(tmp_path / "exam", with_implants)
    bundle = read_bundle(tiny_bundle)
    accepting = Acceptance(implants=True, synthetic_2d=False, devices=())
    manifest = replace(bundle.manifest, acceptance=accepting)
    write_bundle(tmp_path / "accepting", manifest, bundle.files)
    for path, count in ((tiny_bundle, 0), (tmp_path / "accepting", 1)):
        result = run("scan", tmp_path / "exam", "--bundle", path, "--json")
        assert len(json.loads(result.stdout)["exams"]) == count


def test_scan_trusts_as_predict_does(tiny_bundle: Path, studies: Path, keys: KeyPair) -> None:
    scan = ["scan", studies, "--bundle", tiny_bundle, "--trust", keys.public]
    refused(run(*scan), "BundleSignatureError", "no manifest.sig", "[unsigned]")
    sign(tiny_bundle, keys)
    assert run(*scan).exit_code == 0
    for options in (["--trust", keys.public], ["--bundle", tiny_bundle, "--accepted", "a.json"]):
        result = run("scan", studies, *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "means nothing without --" in result.stderr


def test_a_bar_is_shown_on_a_terminal_alone(studies: Path) -> None:
    pty = pytest.importorskip("pty")  # no pseudo-terminals on Windows
    terminal, other_end = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "scan", str(studies), "--json"],
        stdout=subprocess.PIPE,
        stderr=other_end,
        env={**os.environ, "TERM": "xterm"},
        check=True,
    )
    os.close(other_end)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "Reading headers" in shown
    assert "13/13" in shown
    assert len(json.loads(done.stdout)["exams"]) == 2


def test_names_of_others_do_not_steer_the_terminal(
    tiny_bundle: Path, studies: Path, tmp_path: Path
) -> None:
    folder = "\x1b[2J\u202egpj\u2028negative"
    try:
        shutil.copytree(studies, tmp_path / "archive" / folder)
    except OSError:
        pytest.skip("this file system has no such names")
    said = run("scan", tmp_path / "archive").stdout
    assert r"\x1b[2J\u202egpj\u2028negative" in said
    result = run("predict", tmp_path / folder, "--bundle", tiny_bundle)
    assert r"\x1b[2J\u202egpj" in result.stderr
    for text in (said, result.stderr):
        assert not {"\x1b", "\u202e", "\u2028"} & set(text)
