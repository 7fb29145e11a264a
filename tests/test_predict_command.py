"""`predict` and `demo`: what is printed, what is written, and that bad images are told."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import exams
import numpy as np
import pytest
from command import COMMAND, refused, run

from mammoclip_sdk import predictor
from mammoclip_sdk.bundle import read_bundle, write_bundle
from mammoclip_sdk.exam import VIEWS

REAL_EXAM = Path(__file__).parents[2] / "shared" / "exams" / "real"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in sorted(folder.rglob("*"))
    }


def test_a_scored_exam_in_words(tiny_bundle: Path, exam: Path) -> None:
    result = run("predict", exam, "--bundle", tiny_bundle, "--device", "cpu")
    assert (result.exit_code, result.stderr) == (0, "")
    score = predictor.Predictor(tiny_bundle, "cpu").predict(exam).findings[0].score
    assert result.stdout.startswith(
        f"malignancy  {score:.3f}  (uncalibrated score, no probability)\n"
    )
    for words in (
        'at or above 0.000, the threshold of "always"\n',
        'below 1.000, the threshold of "never"\n',
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
    (finding,) = found["findings"]
    assert finding["probability"] is None  # it was never calibrated
    assert f"{finding['score']:.3f}" in page.read_text("utf-8")


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


def test_a_path_that_is_not_there_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "IM1").write_bytes(b"")
    for paths in (["nobody"], ["IM1", "nobody"], ["x" * 300]):
        typed = [tmp_path / path for path in paths]
        result = run("predict", *typed, "--bundle", tiny_bundle)
        remedy = "Check the path; files of one exam are given one after the other."
        refused(result, "ExamError", f"{typed[-1]}: found nothing that can be read (", remedy)


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


def test_a_point_that_is_not_met_is_told_too(tiny_bundle: Path, tmp_path: Path, exam: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    (finding,) = bundle.manifest.findings
    (never,) = [point for point in finding.operating_points if point.name == "never"]
    manifest = replace(bundle.manifest, findings=(replace(finding, operating_points=(never,)),))
    write_bundle(tmp_path / "strict", manifest, bundle.files)
    predict = ["predict", exam, "--bundle", tmp_path / "strict", "--device", "cpu"]
    assert run(*predict).stdout.splitlines()[1] == '  below 1.000, the threshold of "never"'
    (told,) = json.loads(run(*predict, "--json").stdout)["findings"]
    assert told["operating_points"] == [{"name": "never", "threshold": 1.0, "met": False}]
    assert told["operating_points_met"] == []


@pytest.mark.skipif(not REAL_EXAM.is_dir(), reason="the real exam is not beside the repository")
def test_the_real_exam_is_scored(tiny_bundle: Path) -> None:
    result = run("predict", REAL_EXAM, "--bundle", tiny_bundle, "--device", "cpu", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert [record["name"] for record in found["views"]] == [
        f"IM000{number}.dcm" for number in (1, 2, 3, 4)
    ]
    assert np.isfinite(found["findings"][0]["logit"])
