"""The command: what it prints, what it exits with, and that bad input is told and not thrown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import exams
import numpy as np
import pydicom
import pytest
from conftest import FakeSession, KeyPair, make_keys, tiny_embedding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import mammoclip_sdk
from mammoclip_sdk import predictor, sessions
from mammoclip_sdk.__main__ import app
from mammoclip_sdk.bundle import read_bundle, write_bundle
from mammoclip_sdk.bundle.signature import load_signer
from mammoclip_sdk.exam import VIEWS, Acceptance

COMMAND = [sys.executable, "-m", "mammoclip_sdk"]
REAL_EXAM = Path(__file__).parents[2] / "shared" / "exams" / "real"


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    exams.write_exam(tmp_path / "exam", exams.PLAIN)
    return tmp_path / "exam"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, error: str, *words: object) -> None:
    """The exit code and the message of a refusal; a traceback would be another exception."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{error}: ")
    for word in ("; expected ", *map(str, words)):
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert exams.CANARY not in result.output


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in sorted(folder.rglob("*"))
    }


def test_a_scored_exam_in_words(tiny_bundle: Path, exam: Path) -> None:
    result = run("predict", exam, "--bundle", tiny_bundle, "--device", "cpu")
    assert (result.exit_code, result.stderr) == (0, "")
    probability = predictor.Predictor(tiny_bundle, "cpu").predict(exam).findings[0].probability
    assert result.stdout.startswith(
        f"malignancy  {probability:.3f}  (uncalibrated score, no probability)\n"
    )
    for words in (
        "reaches always (threshold 0)\n",
        "RMLO  IM4",
        "tiny 1.2.3, onnxruntime",
        "CPUExecutionProvider, fp32",
        "Not for clinical use.",
    ):
        assert words in result.stdout


def test_a_scored_exam_as_json_and_its_report(
    tiny_bundle: Path, exam: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    files = sorted(exam.iterdir(), reverse=True)
    result = run("predict", *files, "--bundle", tiny_bundle, "--json", "--report", page)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["status"] == "scored"
    assert [record["view"] for record in found["views"]] == [str(view) for view in VIEWS]
    assert f"{found['findings'][0]['probability']:.3f}" in page.read_text("utf-8")


def test_an_exam_that_is_not_scored_exits_with_three(tiny_bundle: Path, exam: Path) -> None:
    twin = exams.dataset(VIEWS[1], exams.PLAIN)
    twin.PixelData = exams.dataset(VIEWS[3], exams.PLAIN).PixelData
    twin.save_as(exam / "IM2", enforce_file_format=True)
    result = run("predict", exam, "--bundle", tiny_bundle)
    assert result.exit_code == 3
    assert result.stdout.startswith("Not scored. This is not a negative result.\n  G04 blocks: ")
    assert "\n  G11 caution: " in result.stdout  # a caution comes behind what blocks
    plain = run("predict", exam, "--bundle", tiny_bundle, "--json")
    assert plain.exit_code == 3
    assert json.loads(plain.stdout)["status"] == "abstained"


def without_a_view(exam: Path) -> None:
    (exam / "IM3").unlink()


def with_text_for_a_view(exam: Path) -> None:
    (exam / "IM3").write_text("This is a letter, and longer than the 132 bytes before DICM." * 5)


def with_a_ct_for_a_view(exam: Path) -> None:
    other = exams.dataset(VIEWS[2], exams.PLAIN)
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    other.Modality = "CT"
    other.save_as(exam / "IM3", enforce_file_format=True)


def with_a_truncated_view(exam: Path) -> None:
    whole = (exam / "IM3").read_bytes()
    (exam / "IM3").write_bytes(whole[: len(whole) - 3000])


def with_another_patient(exam: Path) -> None:
    other = exams.dataset(VIEWS[2], exams.PLAIN)
    other.PatientID = "CANARY-OTHER"
    other.save_as(exam / "IM3", enforce_file_format=True)


def with_a_blank_view(exam: Path) -> None:
    other = exams.dataset(VIEWS[2], exams.PLAIN)
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(exam / "IM3", enforce_file_format=True)


@pytest.mark.parametrize(
    ("spoil", "error", "word"),
    [
        (without_a_view, "MissingViewError", "LMLO"),
        (with_text_for_a_view, "NotDicomError", "IM3"),
        (with_a_ct_for_a_view, "UnsupportedImageError", "IM3"),
        (with_a_truncated_view, "DicomReadError", "IM3"),
        (with_another_patient, "MixedExamError", "Patient"),
        (with_a_blank_view, "PixelError", "IM3"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
def test_bad_images_are_refused_and_leave_nothing_behind(
    tiny_bundle: Path,
    exam: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    error: str,
    word: str,
    as_json: bool,
) -> None:
    spoil(exam)
    before = tree(tmp_path)
    options = ["--bundle", tiny_bundle, "--report", tmp_path / "page.html"]
    result = run("predict", *sorted(exam.iterdir()), *options, *(["--json"] if as_json else []))
    refused(result, error, word)
    assert tree(tmp_path) == before
    if as_json:
        told = json.loads(result.stdout)["error"]
        assert told["type"] == error
        assert list(told) == ["type", "code", "reason", "subject", "found", "expected", "remedy"]
        assert f"{told['found']}; expected {told['expected']}" in result.stderr
        codes = ", ".join(filter(None, [told["code"], told["reason"]]))
        assert result.stderr.endswith(f" [{codes}]\n")
    else:
        assert result.stdout == ""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
def test_a_file_name_that_the_output_cannot_hold_is_escaped(
    tiny_bundle: Path, exam: Path, tmp_path: Path, encoding: str, as_json: bool
) -> None:
    name = os.fsdecode("乳房".encode() + b"\xff")
    shown = "乳房" + r"\udcff"
    (exam / "IM2").rename(exam / name)
    page = tmp_path / f"{name}.html"
    options = ["--bundle", str(tiny_bundle), "--report", str(page)]
    done = subprocess.run(
        [*COMMAND, "predict", str(exam), *options, *(["--json"] if as_json else [])],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    if as_json:
        assert json.loads(done.stdout.decode("ascii"))["views"][1]["name"] == shown
    else:
        assert r"\udcff.html" in done.stdout.decode(encoding)
    assert shown in page.read_text("utf-8")


def test_verify_closes_its_session(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    monkeypatch.setattr(sessions, "open_session", lambda *arguments, **options: session)
    assert run("bundle", "verify", tiny_bundle).exit_code == 0
    assert session.closed
    session.closed, session.compute = False, lambda views: -tiny_embedding(views)
    refused(run("bundle", "verify", tiny_bundle), "InferenceError", "golden exams whose logits")
    assert session.closed


def test_a_name_that_no_file_can_have_is_refused(tiny_bundle: Path, exam: Path) -> None:
    for arguments in (
        ["predict", "x" * 300, "--bundle", tiny_bundle],
        ["predict", exam, "--bundle", "x" * 300],
        ["bundle", "inspect", "x" * 300],
        ["predict", exam, "--bundle", tiny_bundle, "--report", "x" * 300],
    ):
        result = run(*arguments)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 2
        assert "xxx: found " in result.stderr


def test_a_path_that_is_not_there_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    result = run("predict", tmp_path / "nobody", "--bundle", tiny_bundle)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert "nobody" in result.stderr


@pytest.mark.parametrize("command", ["predict", "inspect", "verify"])
def test_a_bundle_that_is_not_there_is_named(tmp_path: Path, exam: Path, command: str) -> None:
    absent = tmp_path / "nothing"
    arguments = ["predict", exam, "--bundle", absent]
    if command != "predict":
        arguments = ["bundle", command, absent]
    refused(run(*arguments), "BundleNotFoundError", absent)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), data=st.data())
def test_a_bundle_with_any_bit_flipped_is_refused(
    tiny_bundle: Path, exam: Path, place: float, bit: int, data: st.DataObject
) -> None:
    file = tiny_bundle / data.draw(st.sampled_from(sorted(f.name for f in tiny_bundle.iterdir())))
    command = data.draw(st.sampled_from(["predict", "inspect", "verify"]))
    intact = file.read_bytes()
    damaged = bytearray(intact)
    damaged[int(place * len(damaged))] ^= 1 << bit
    file.write_bytes(damaged)
    arguments = ["predict", exam, "--bundle", tiny_bundle]
    if command != "predict":
        arguments = ["bundle", command, tiny_bundle]
    try:
        refused(run(*arguments), "BundleIntegrityError", tiny_bundle)
    finally:
        file.write_bytes(intact)


def test_inspect_shows_the_manifest(tiny_bundle: Path) -> None:
    words = run("bundle", "inspect", tiny_bundle)
    assert words.exit_code == 0
    for part in (
        "tiny 1.2.3 (release 4)",
        "licence    Apache-2.0",
        "limit      It knows nothing about breasts.",
        "32 x 24 pixels",
        "jpeg2000_reduction 0",
        "accepts    no implants, no synthesised 2D; validated on 0 devices",
        "malignancy, uncalibrated",
        "AUC 0.500",
    ):
        assert part in words.stdout
    plain = json.loads(run("bundle", "inspect", tiny_bundle, "--json").stdout)
    assert plain["manifest"]["findings"][0]["positive_embedding"] == "6 numbers"
    assert plain["bytes"]["model.fp32.onnx"] == (tiny_bundle / "model.fp32.onnx").stat().st_size


def test_verify_runs_the_golden_exams(tiny_bundle: Path) -> None:
    words = run("bundle", "verify", tiny_bundle, "--device", "cpu")
    assert words.exit_code == 0
    assert words.stdout.startswith("tiny 1.2.3: verified\n")
    plain = json.loads(run("bundle", "verify", tiny_bundle, "--json").stdout)
    assert plain["verified"] is True
    assert 0 <= plain["worst_difference"] < 1e-5
    assert plain["exams"] == 2


def test_demo_scores_the_example_and_says_where_its_report_is(
    tiny_bundle: Path, exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "DEMO_BUNDLE", tiny_bundle)
    monkeypatch.setattr(predictor, "DEMO_EXAM", exam)
    monkeypatch.chdir(tmp_path)
    result = run("demo")
    assert result.exit_code == 0
    page = tmp_path / "mammoclip-report.html"
    assert f"Report: {page}" in result.stdout
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert json.loads(run("demo", "--json", "--report", tmp_path / "b.html").stdout)["status"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "x", "--nonsense"],
        ["nonsense"],
        ["bundle", "inspect"],
        ["bundle", "nonsense"],
        ["bundle", "sign", "x"],
        ["scan"],
    ],
)
def test_a_usage_error_is_json_where_json_was_asked_for(arguments: list[str]) -> None:
    result = run(*arguments, "--json")
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    told = json.loads(result.stdout)["error"]
    assert list(told) == ["type", "code", "reason", "subject", "found", "expected", "remedy"]
    assert (told["type"], told["code"]) == ("UsageError", "usage")
    assert told["found"]
    assert result.stderr == f"UsageError: {told['found']}\n"
    plain = run(*arguments)
    assert (plain.exit_code, plain.stdout) == (2, "")
    assert "Usage: " in plain.stderr


def test_asking_for_json_changes_no_exit_code(tiny_bundle: Path, tmp_path: Path) -> None:
    assert run("bundle", "verify", tiny_bundle, "--json").exit_code == 0
    assert run("bundle", "verify", tmp_path / "absent", "--json").exit_code == 2
    assert run("predict", "--json", "--help").exit_code == 0


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
    assert lines[0] == "exam        ."
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


def test_isolation_is_the_predictors(
    tiny_bundle: Path, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    make = predictor.Predictor.__init__

    def noting(self: predictor.Predictor, *arguments: object, **options: object) -> None:
        asked.append(options.pop("isolate"))
        make(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor.Predictor, "__init__", noting)
    for options in ([], ["--isolate"]):
        assert run("predict", exam, "--bundle", tiny_bundle, *options).exit_code == 0
    assert asked == [False, True]


@pytest.mark.parametrize("command", [["predict"], ["demo"], ["bundle", "verify"]])
def test_help_names_every_device_and_precision(command: list[str]) -> None:
    words = " ".join(run(*command, "--help").stdout.replace("│", " ").split())
    for name in (*sessions.DEVICES, *sessions.PRECISIONS):
        assert name in words


def test_the_precision_asked_for_is_the_one_that_runs(
    tiny_bundle: Path, exam: Path, tmp_path: Path
) -> None:
    options = ["--bundle", tiny_bundle, "--device", "cpu", "--precision"]
    result = run("predict", exam, *options, "fp32", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["provenance"]["precision"] == "fp32"
    refused(run("predict", exam, *options, "fp16"), "DeviceError", "fp16")
    refused(run("predict", exam, *options, "fp8"), "DeviceError", "fp8")
    refused(run("bundle", "verify", tiny_bundle, "--precision", "int8"), "DeviceError", "int8")


# --- signatures and releases ---


@pytest.fixture
def signed(tiny_bundle: Path, keys: KeyPair) -> Path:
    assert run("bundle", "sign", tiny_bundle, "--key", keys.private).exit_code == 0
    return tiny_bundle


def older(bundle: Path, path: Path, keys: KeyPair) -> Path:
    """The release before, signed as well."""
    newer = read_bundle(bundle)
    manifest = replace(newer.manifest, release=newer.manifest.release - 1, version="1.2.2")
    write_bundle(path, manifest, newer.files, signer=load_signer(keys.private))
    return path


def test_sign_says_which_key_signed(tiny_bundle: Path, keys: KeyPair) -> None:
    key_id = load_signer(keys.private).key_id
    result = run("bundle", "sign", tiny_bundle, "--key", keys.private)
    assert (result.exit_code, result.stdout) == (0, f"tiny 1.2.3: signed\n  key {key_id}\n")
    plain = json.loads(run("bundle", "sign", tiny_bundle, "--key", keys.private, "--json").stdout)
    assert plain == {"bundle_sha256": read_bundle(tiny_bundle).sha256, "key_id": key_id}
    refused(run("bundle", "sign", tiny_bundle, "--key", keys.public), "BundleSignatureError")


def test_inspect_says_whether_a_signature_was_verified(signed: Path, keys: KeyPair) -> None:
    key_id = load_signer(keys.private).key_id
    said = run("bundle", "inspect", signed).stdout
    assert f"signed     by key {key_id}, not verified: no key was given to trust\n" in said
    said = run("bundle", "inspect", signed, "--trust", keys.public).stdout
    assert f"signed     by key {key_id}, trusted\n" in said
    plain = json.loads(run("bundle", "inspect", signed, "--trust", keys.public, "--json").stdout)
    assert (plain["signed_by"], plain["trusted"]) == (key_id, True)
    (signed / "manifest.sig").unlink()
    assert "signed     no\n" in run("bundle", "inspect", signed).stdout


@pytest.mark.parametrize("command", ["predict", "inspect", "verify", "accept"])
def test_a_bundle_that_no_trusted_key_signed_is_refused(
    tiny_bundle: Path, exam: Path, keys: KeyPair, tmp_path: Path, command: str
) -> None:
    def start(trusted: Path) -> Result:
        if command == "predict":
            return run("predict", exam, "--bundle", tiny_bundle, "--trust", trusted)
        return run("bundle", command, tiny_bundle, "--trust", trusted)

    refused(start(keys.public), "BundleSignatureError", "no manifest.sig", "[unsigned]")
    run("bundle", "sign", tiny_bundle, "--key", keys.private)
    stranger = make_keys(tmp_path, "stranger")
    refused(start(stranger.public), "BundleSignatureError", "[untrusted_key]")
    refused(start(tmp_path / "absent.pem"), "BundleSignatureError", "[trust_key]")
    assert start(keys.public).exit_code == 0


def test_predict_records_what_it_used_and_refuses_to_go_back(
    signed: Path, exam: Path, keys: KeyPair, tmp_path: Path, own_state: Path
) -> None:
    before = older(signed, tmp_path / "older", keys)
    trust = ["--trust", keys.public, "--json"]
    assert run("bundle", "inspect", signed, *trust).exit_code == 0
    assert run("bundle", "verify", signed, *trust).exit_code == 0
    assert run("predict", exam, "--bundle", before, *trust).exit_code == 0
    result = run("predict", exam, "--bundle", signed, *trust)
    assert result.exit_code == 0
    found = json.loads(result.stdout)["provenance"]["signed_by"]
    assert found == load_signer(keys.private).key_id
    for command in (["predict", exam, "--bundle", before], ["bundle", "inspect", before]):
        result = run(*command, *trust)
        refused(result, "BundleReleaseError", "release 3", "release 4", "[release_rolled_back]")
        assert json.loads(result.stdout)["error"]["code"] == "release_rolled_back"
    assert run("predict", exam, "--bundle", before).exit_code == 0  # where nothing is asked for


def test_going_back_takes_a_command_of_its_own(
    signed: Path, exam: Path, keys: KeyPair, tmp_path: Path
) -> None:
    before = older(signed, tmp_path / "older", keys)
    record = tmp_path / "site" / "accepted.json"
    trust = ["--trust", keys.public, "--accepted", record]
    assert run("predict", exam, "--bundle", signed, *trust).exit_code == 0
    result = run("bundle", "accept", before, *trust)
    assert result.exit_code == 0
    assert result.stdout == (
        f"tiny 1.2.2 (release 3): accepted\n  before: 1.2.3 (release 4)\n  recorded in {record}\n"
    )
    assert run("predict", exam, "--bundle", before, *trust).exit_code == 0
    plain = json.loads(run("bundle", "accept", signed, *trust, "--json").stdout)
    assert (plain["accepted"]["release"], plain["before"]["release"]) == (4, 3)
    assert plain["record"] == str(record)
    kept = json.loads(record.read_text("utf-8"))["acceptances"]
    assert [(one["accepted"]["release"], one["by"]) for one in kept] == [
        (4, "use"), (3, "command"), (4, "command")
    ]  # fmt: skip


def test_the_remedy_for_an_older_release_names_the_record_it_was_held_against(
    signed: Path, keys: KeyPair, tmp_path: Path
) -> None:
    before = older(signed, tmp_path / "older", keys)
    record = tmp_path / "site" / "accepted.json"
    trust = ["--trust", keys.public, "--accepted", record]
    run("bundle", "accept", signed, *trust)
    refused(run("bundle", "inspect", before, *trust), "BundleReleaseError", f"--accepted {record}")


def test_what_no_operating_point_is_met_for_is_said(
    tiny_bundle: Path, tmp_path: Path, exam: Path
) -> None:
    bundle = read_bundle(tiny_bundle)
    (finding,) = bundle.manifest.findings
    (never,) = [point for point in finding.operating_points if point.name == "never"]
    manifest = replace(bundle.manifest, findings=(replace(finding, operating_points=(never,)),))
    write_bundle(tmp_path / "strict", manifest, bundle.files)
    lines = run("predict", exam, "--bundle", tmp_path / "strict", "--device", "cpu").stdout
    assert lines.splitlines()[1] == "  reaches no operating point"


def test_a_figure_is_told_with_its_finding(tiny_bundle: Path) -> None:
    said = run("bundle", "inspect", tiny_bundle).stdout
    assert "measured   malignancy, AUC 0.500 (0.400 to 0.600) on 100 exams: noise\n" in said


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


def test_a_record_of_releases_needs_a_key(tiny_bundle: Path, tmp_path: Path) -> None:
    for arguments in (
        ["bundle", "inspect", tiny_bundle, "--accepted", tmp_path / "a.json"],
        ["bundle", "accept", tiny_bundle],
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--trust" in result.stderr
        told = json.loads(run(*arguments, "--json").stdout)["error"]
        assert (told["type"], "--trust" in told["found"]) == ("UsageError", True)


def test_help_names_the_exit_codes_and_version_the_version() -> None:
    for arguments in (
        ["--help"],
        ["predict", "--help"],
        ["scan", "--help"],
        ["bundle", "inspect", "--help"],
        ["bundle", "verify", "--help"],
        ["bundle", "sign", "--help"],
        ["bundle", "accept", "--help"],
        ["engine", "build", "--help"],
    ):
        words = " ".join(run(*arguments).stdout.split())
        assert "3 read, but not scored (abstained), or nothing that scan takes for an exam" in words
    assert run("--version").stdout == f"mammoclip-sdk {mammoclip_sdk.__version__}\n"


def test_help_loads_none_of_the_heavy_modules() -> None:
    code = (
        "import sys\nfrom mammoclip_sdk.__main__ import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'pydicom', 'imagecodecs', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_defect_shows_as_one(
    tiny_bundle: Path, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(predictor.Predictor, "predict", broken)
    result = run("predict", exam, "--bundle", tiny_bundle)
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == 1


def test_an_interrupt_ends_quietly(
    tiny_bundle: Path, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor.Predictor, "predict", interrupted)
    result = run("predict", exam, "--bundle", tiny_bundle)
    assert (result.exit_code, result.output) == (130, "")


def test_a_reader_that_goes_away_is_no_defect(tiny_bundle: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "bundle", "inspect", str(tiny_bundle), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), errors) == (141, b"")


def test_the_installed_command_refuses_without_a_traceback(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    command = shutil.which("mammoclip-sdk", path=str(Path(sys.executable).parent))
    for start in ([command] if command else [], COMMAND):
        if start:
            done = subprocess.run(
                [*start, "bundle", "verify", str(tmp_path / "absent")],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 2
            assert done.stderr.startswith("BundleNotFoundError: ")
            assert "Traceback" not in done.stderr
            assert done.stdout == ""


@pytest.mark.skipif(not REAL_EXAM.is_dir(), reason="the real exam is not beside the repository")
def test_the_real_exam_is_scored(tiny_bundle: Path) -> None:
    result = run("predict", REAL_EXAM, "--bundle", tiny_bundle, "--device", "cpu", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert [record["name"] for record in found["views"]] == [
        f"IM000{number}.dcm" for number in (1, 2, 3, 4)
    ]
    assert np.isfinite(found["findings"][0]["logit"])
