"""Cohorts: strict manifests, splits that keep patients apart, and fine-tuning from files."""

import csv
import hashlib
from dataclasses import replace

import pydicom
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.errors import UnsupportedImageError
from mammoclip_sdk.exam import PLAIN, VIEWS, Acceptance, Device
from mammoclip_sdk.predictor import DEMO_BUNDLE
from training.checkpoint import base_sha256
from training.cohort import CohortExam, devices, load, read_manifest, split
from training.data import phantom_set
from training.demo_model import ACCEPTANCE, DEMO
from training.errors import CohortError
from training.fine_tune import main as fine_tune
from training.model import MammoClip
from training.phantom import PhantomSettings
from training.phantom_files import write_exams
from training.saved_model import load_checkpoint
from training.vendor_profiles import PROFILES

PREPROCESSING = replace(DEMO.preprocessing, height=64, width=32)
PHANTOM = PhantomSettings(seed=21, rows=128, columns=104, transfer_syntax="1.2.840.10008.1.2.1")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_exams(PHANTOM, 24, tmp_path_factory.mktemp("cohort") / "exams")


def rewrite(manifest, path, change):
    """Write a manifest whose rows were changed, its files still where they were."""
    with manifest.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["file"] = str(manifest.parent / row["file"])
    rows = change(rows)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_phantom_manifest_is_a_cohort_and_gives_the_phantoms_tensors(manifest, tmp_path):
    exams = read_manifest(manifest)
    assert len(exams) == 24
    made = phantom_set(PHANTOM, 3, PREPROCESSING, cache=tmp_path / "set", workers=1)
    read = load(exams[:3], PREPROCESSING, acceptance=PLAIN, workers=1)
    assert torch.equal(read.views, made.views)
    assert torch.equal(read.malignant, made.malignant)


def with_implants(manifest, folder):
    """Copy the first exam with an implant in each breast; return it as a cohort's exam."""
    (exam, *_) = read_manifest(manifest)
    files = {}
    for view, path in exam.files.items():
        image = pydicom.dcmread(path)
        image.BreastImplantPresent = "YES"
        files[view] = folder / path.name
        image.save_as(files[view])
    return replace(exam, files=files)


def test_a_cohort_with_implants_is_read_only_where_they_are_accepted(manifest, tmp_path):
    exam = with_implants(manifest, tmp_path)
    accepting = Acceptance(implants=True, synthetic_2d=False, devices=())
    with pytest.raises(CohortError, match="1 of 1 exams") as caught:
        load((exam,), PREPROCESSING, acceptance=PLAIN, workers=1)
    assert "IM0001.dcm: found a breast with an implant" in caught.value.remedy
    with pytest.raises(UnsupportedImageError):
        devices([exam], PLAIN)
    read = load((exam,), PREPROCESSING, acceptance=accepting, workers=1)
    assert len(read) == 1
    assert len(devices([exam], accepting)) == 1


def test_the_devices_of_a_cohort_are_what_its_headers_name_once_each(manifest, tmp_path):
    exams = read_manifest(manifest)
    found = devices(exams, PLAIN)
    assert set(found) <= set(ACCEPTANCE.devices)
    assert len(found) == len(set(found)) > 3
    assert found == devices(reversed(exams), PLAIN)
    image = pydicom.dcmread(exams[0].files[VIEWS[0]])
    image.Manufacturer = image.Manufacturer.upper() + " "
    image.save_as(tmp_path / "IM1")
    shouted = replace(exams[0], files={**exams[0].files, VIEWS[0]: tmp_path / "IM1"})
    assert len(devices([exams[0], shouted], PLAIN)) == 1


def test_the_demo_accepts_plain_mammograms_of_every_profile():
    assert (ACCEPTANCE.implants, ACCEPTANCE.synthetic_2d) == (False, False)
    assert ACCEPTANCE.devices == tuple(
        Device(manufacturer=profile.manufacturer, model=profile.model_name) for profile in PROFILES
    )
    assert read_bundle(DEMO_BUNDLE).manifest.acceptance == ACCEPTANCE


def test_all_problems_of_a_manifest_are_named_together(manifest, tmp_path):
    def spoil(rows):
        rows[0]["view"] = "RCC"
        rows[5]["malignant"] = "maybe"
        rows[9]["file"] = "gone.dcm"
        return rows

    with pytest.raises(ValueError, match="3 problems") as caught:
        read_manifest(rewrite(manifest, tmp_path / "m.csv", spoil))
    for text in ("has the views", "is labelled", "lacks its file gone.dcm"):
        assert text in str(caught.value)


def test_a_manifest_without_a_column_or_an_exam_is_refused(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("exam,view,file\n")
    with pytest.raises(ValueError, match="no column malignant"):
        read_manifest(path)
    path.write_text("exam,malignant,view,file\n")
    with pytest.raises(ValueError, match="no exam"):
        read_manifest(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_manifest_may_come_from_a_spreadsheet(manifest, tmp_path, mark):
    path = rewrite(manifest, tmp_path / "m.csv", lambda rows: rows)
    path.write_bytes(mark + path.read_bytes())
    assert len(read_manifest(path)) == 24


def test_a_manifest_of_another_encoding_or_separator_is_refused(manifest, tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes("exam,malignant,view,file\nMädchen,0,LCC,a\n".encode("latin-1"))
    with pytest.raises(CohortError, match=r"m\.csv: found text that is no CSV in UTF-8"):
        read_manifest(path)
    path.write_text("exam;malignant;view;file\n")
    with pytest.raises(CohortError, match="no column exam, malignant, view, file among exam;mal"):
        read_manifest(path)


def test_a_row_that_ends_early_is_a_problem_of_its_exam(manifest, tmp_path):
    path = rewrite(manifest, tmp_path / "m.csv", lambda rows: rows)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], ",".join(lines[4].split(",")[:2]), *lines[5:]]))
    with pytest.raises(CohortError, match=r"exam-0021-00000 has the views \[''"):
        read_manifest(path)


def test_a_file_in_two_exams_is_refused(manifest, tmp_path):
    def share(rows):
        rows[4]["file"] = rows[0]["file"]
        return rows

    with pytest.raises(CohortError, match=r"1 problems: .*IM0001\.dcm is named 2 times"):
        read_manifest(rewrite(manifest, tmp_path / "m.csv", share))


def test_every_exam_that_cannot_be_read_is_named(manifest, tmp_path):
    def spoil(rows):
        rows[0]["file"], rows[1]["file"] = rows[1]["file"], rows[0]["file"]
        rows[8]["file"] = str(tmp_path / "none.dcm")
        return rows

    (tmp_path / "none.dcm").write_text("no image")
    exams = read_manifest(rewrite(manifest, tmp_path / "m.csv", spoil))
    with pytest.raises(CohortError) as caught:
        load(exams[:3], PREPROCESSING, acceptance=PLAIN, workers=1)
    assert caught.value.found.startswith("2 of 3 exams")
    first, *lines = caught.value.remedy.split("\n  ")
    assert first == "Mend them, or take them out of the manifest:"
    assert [line.split(": ")[0] for line in lines] == ["exam-0021-00000", "exam-0021-00002"]
    assert "LCC" in lines[0]
    assert "none.dcm" in lines[1]


def test_a_patient_with_several_exams_must_be_named(manifest, tmp_path):
    first, second, other = read_manifest(manifest)[:3]
    files = {}
    for view, path in second.files.items():
        image = pydicom.dcmread(path)
        image.PatientID = pydicom.dcmread(first.files[view]).PatientID
        files[view] = tmp_path / path.name
        image.save_as(files[view])
    again = replace(second, files=files)
    with pytest.raises(CohortError) as caught:
        load((first, other, again), PREPROCESSING, acceptance=PLAIN, workers=1)
    assert caught.value.found == f"one Patient ID in the exams {first.name}, {again.name}"
    named = [replace(exam, patient="somebody") for exam in (first, again)]
    assert len(load(named, PREPROCESSING, acceptance=PLAIN, workers=1)) == 2


@given(
    patients=st.lists(st.integers(0, 40).map(str), min_size=1, max_size=60),
    seed=st.integers(0, 99),
)
def test_no_patient_is_in_two_parts_and_later_exams_move_nobody(patients, seed):
    exams = [
        CohortExam(name=str(number), patient=patient, malignant=False, files={})
        for number, patient in enumerate(patients)
    ]

    def parts(of):
        made = split(of, seed=seed, calibration_share=0.2, test_share=0.3)
        return [{exam.patient for exam in part} for part in vars(made).values()]

    training, calibration, test = parts(exams)
    assert not training & calibration
    assert not training & test
    assert not calibration & test
    assert training | calibration | test == set(patients)
    for fewer, more in zip(parts(exams[: len(exams) // 2]), parts(exams), strict=True):
        assert fewer <= more


def test_a_split_takes_the_shares_it_was_asked_for():
    exams = [
        CohortExam(name=str(n), patient=str(n), malignant=False, files={}) for n in range(4000)
    ]
    made = split(exams, seed=1, calibration_share=0.2, test_share=0.3)
    assert len(made.test) == pytest.approx(1200, abs=100)
    assert len(made.calibration) == pytest.approx(800, abs=100)
    with pytest.raises(ValueError, match="sum below 1"):
        split(exams, seed=1, calibration_share=0.5, test_share=0.5)


def command(*arguments):
    app = typer.Typer()
    app.command()(fine_tune)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines_of(result, start):
    return [line for line in result.output.splitlines() if line.startswith(start)]


def classes(manifest, seed):
    """How many exams of the rarer class the smallest part of the default split has."""
    made = split(read_manifest(manifest), seed=seed, calibration_share=0.15, test_share=0.15)
    counts = [
        [exam.malignant for exam in part].count(x) for part in vars(made).values() for x in (0, 1)
    ]
    return min(counts)


def test_fine_tuning_makes_a_checkpoint_that_can_be_exported(manifest, tmp_path):
    out = tmp_path / "checkpoint"
    out.mkdir()
    (out / "config.json").write_text("{}")  # an earlier one, to be replaced
    seed = 226  # one after whose epoch the malignant exams of the calibration part score higher
    result = command(
        "--manifest", manifest, "--out", out, "--model", "phantom-clip",
        "--pretrained", "random", "--height", 64, "--width", 32,
        "--epochs", 1, "--batch-size", 4, "--seed", seed, "--accept-implants",
        "--licence", "CC-BY-4.0", "--training-data", "Phantoms of one generator.",
        "--limitation", "One epoch.", "--overwrite",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "epoch 1 of 1: loss 0." in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    checkpoint = load_checkpoint(out)
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert checkpoint.record.report["manifest_sha256"] == digest
    (finding,) = checkpoint.record.findings
    assert finding.calibration is not None
    assert checkpoint.record.measurements[0].data.startswith("test part of manifest.csv")
    assert checkpoint.record.settings["training"]["epochs"] == 1
    assert "model" not in checkpoint.record.settings  # nor where its weights lay
    assert checkpoint.model.config.image_size == (64, 32)
    parts = split(read_manifest(manifest), seed=seed, calibration_share=0.15, test_share=0.15)
    malignant = sum(exam.malignant for exam in parts.training)
    assert f"training: {len(parts.training)} exams, {malignant} malignant" in result.output
    card = checkpoint.record.model_card
    assert card.licence == "CC-BY-4.0"
    assert card.training_data == (
        f"Phantoms of one generator. Training part of manifest.csv: {len(parts.training)} exams, "
        f"{malignant} malignant. Adapters alone, on phantom-clip with random weights."
    )
    limits = [line.removeprefix("Limit: ") for line in lines_of(result, "Limit: ")]
    assert len(limits) == 3  # the AUC, and the threshold of either class
    assert limits[0].startswith("The interval of the AUC on the test part ")
    assert lines_of(result, "AUC ")[0] in limits[0]
    assert card.limitations[:4] == ("One epoch.", *limits)
    assert card.limitations[4].startswith("Measured on the test part of manifest.csv alone")
    torch.manual_seed(seed)  # what the run started from
    start = MammoClip(replace(checkpoint.model.config, pretrained=None))
    assert checkpoint.record.base_sha256 == base_sha256(start.state_dict())
    assert checkpoint.record.acceptance == Acceptance(
        implants=True, synthetic_2d=False, devices=devices(parts.test, PLAIN)
    )


def test_what_can_be_refused_without_an_image_is_refused_before_one_is_read(
    manifest, tmp_path, monkeypatch
):
    def read(*_, **__):
        raise AssertionError("an image was read")

    monkeypatch.setattr("training.fine_tune.load", read)
    seeds = {
        good: next(seed for seed in range(500) if (classes(manifest, seed) >= 2) == good)
        for good in (True, False)
    }
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "config.json").write_text("{}")
    nowhere = tmp_path / "none.csv"
    for arguments, reason in (
        (("--seed", seeds[False]), "at least two of each class in every part"),
        (("--out", tmp_path / "taken"), "found something that is no checkpoint"),
        (("--out", tmp_path / "taken", "--overwrite"), "found something that is no checkpoint"),
        (
            ("--out", tmp_path / "made"),
            "found a finished checkpoint; expected a new folder, or that of a run that was "
            "interrupted. Name another folder, or ask for --overwrite",
        ),
        (("--out", tmp_path / "made", "--overwrite", "--batch-size", 64), "for batches of 64"),
        (("--batch-size", 64), "examples for batches of 64"),
        (("--pretrained", "openai"), "pretrained weights: found no file openai"),
        (("--pretrained", "openai", "--manifest", nowhere), "found no file openai"),
        (("--model", "ViT-Z", "--manifest", nowhere), "open_clip model 'ViT-Z'"),
        (("--manifest", nowhere), "none.csv: found no file to read (No such file or directory)"),
        (("--manifest", tmp_path), "found a folder; expected a CSV file: UTF-8 with comma-"),
        (("--n-local", 9), "n_local is 9"),
        (
            ("--positive-prompt", "malignant " * 40),
            "a prompt: found more than 30 tokens: 'malignant",
        ),
    ):
        result = command(
            "--manifest", manifest, "--out", tmp_path / "checkpoint", "--model", "phantom-clip",
            "--pretrained", "random", "--height", 64, "--width", 32, "--batch-size", 4,
            "--seed", seeds[True], *arguments,
        )  # fmt: skip
        assert result.exit_code == 2, result.output
        assert result.output.startswith("No checkpoint was written: ")
        assert reason in result.output
    assert not (tmp_path / "checkpoint").exists()
