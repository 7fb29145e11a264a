"""The answer for an exam: its numbers, its reasons, its provenance, and when there is none."""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import re
from dataclasses import FrozenInstanceError, asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import exams
import numpy as np
import pydicom
import pytest
from arrays import arrays
from conftest import LOGIT_SCALE, FakeSession, as_npz, prompt, tiny_embedding, tiny_golden

from mammoclip_sdk import Predictor, pixels, report, tensor
from mammoclip_sdk.bundle import Calibration, read_bundle, sha256, write_bundle
from mammoclip_sdk.commands import console
from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.exam import VIEWS
from mammoclip_sdk.prediction import Prediction
from mammoclip_sdk.views import read_exam


def reasons(prediction: Prediction) -> list[tuple[str, str, str | None]]:
    return [(reason.code, reason.severity, reason.view) for reason in prediction.reasons]


def test_the_score_is_what_the_stages_give_one_by_one(tiny_bundle: Path, exam: Path) -> None:
    prediction = Predictor(tiny_bundle, "cpu").predict(exam)
    chosen = read_exam(exam)
    stored = {view: pixels.decode(chosen.images[view]) for view in VIEWS}
    views = tensor.build(stored, read_bundle(tiny_bundle).manifest.preprocessing).tensors["views"]
    (embedding,) = tiny_embedding(views)
    logit = LOGIT_SCALE * float(embedding[1] - embedding[0])

    assert prediction.status == "scored"
    assert prediction.study_instance_uid == chosen.study_instance_uid == f"{exams.ROOT}.100"
    (finding,) = prediction.findings
    assert finding.logit == pytest.approx(logit, abs=1e-4)
    assert finding.score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    assert finding.operating_points_met == ("always",)
    assert [record.view for record in prediction.views] == list(VIEWS)
    assert [record.name for record in prediction.views] == ["IM1", "IM2", "IM3", "IM4"]
    assert [r.pixel_sha256 for r in prediction.views] == [stored[view].sha256 for view in VIEWS]
    assert [r.geometry.mirrored for r in prediction.views] == [False, True, False, True]


def test_provenance_says_what_ran(tiny_bundle: Path, exam: Path) -> None:
    found = Predictor(tiny_bundle).predict(exam).provenance
    assert (found.bundle, found.bundle_version) == ("tiny", "1.2.3")
    assert found.bundle_sha256 == read_bundle(tiny_bundle).sha256
    assert found.not_for_clinical_use is True
    assert found.device_asked == "auto"
    assert found.device in ("cpu", "cuda")
    assert found.runtime.startswith("onnxruntime ")
    assert (found.precision, found.preprocessing_version) == ("fp32", 1)
    assert found.golden.exams == 2
    assert found.golden.passed
    assert found.pydicom_version == importlib.metadata.version("pydicom")
    assert found.imagecodecs_version == importlib.metadata.version("imagecodecs")
    assert found.numpy_version == importlib.metadata.version("numpy")


@pytest.mark.parametrize("strict", [False, True])
def test_an_answer_says_how_it_was_read_and_when(
    tiny_bundle: Path, exam: Path, strict: bool
) -> None:
    scorer = Predictor(tiny_bundle, "cpu")
    before = datetime.now(UTC).replace(microsecond=0)
    blocked = {**arrays(), "RMLO": np.full((96, 80), 65_535, np.uint16)}
    for answer in (
        scorer.predict(exam, strict=strict),
        scorer.examine(exam, strict=strict).prediction,
        *scorer.predict_many([exam, blocked], strict=strict),
    ):
        assert (answer.provenance.strict, answer.provenance.isolated) == (strict, False)
        assert answer.schema == 2
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", answer.answered_at)
        assert before <= datetime.fromisoformat(answer.answered_at) <= datetime.now(UTC)


def test_a_prediction_is_immutable_and_its_json_is_whole(tiny_bundle: Path, exam: Path) -> None:
    prediction = Predictor(tiny_bundle, "cpu").predict(exam)
    with pytest.raises(FrozenInstanceError):
        prediction.status = "abstained"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        prediction.timing.total = 0.0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(prediction)) == prediction  # noqa: S301
    assert asdict(prediction)["timing"] == asdict(prediction.timing)
    plain = json.loads(prediction.to_json())
    assert plain == prediction.to_dict()
    assert list(plain) == [
        "schema",
        "answered_at",
        "status",
        "study_instance_uid",
        "findings",
        "reasons",
        "views",
        "notes",
        "provenance",
        "timing",
    ]
    assert list(plain["timing"]) == [
        "read",
        "decode",
        "tensor",
        "quality",
        "inference",
        "scoring",
        "total",
    ]
    assert plain["timing"]["total"] == pytest.approx(sum(list(plain["timing"].values())[:-1]))
    assert exams.CANARY not in prediction.to_json()
    noted = replace(prediction, notes=("乳房\udcff",))
    assert noted.to_json().isascii()
    assert json.loads(noted.to_json())["notes"] == ["乳房\udcff"]


def test_the_same_image_twice_is_not_scored(tiny_bundle: Path, fake_session: FakeSession) -> None:
    views = arrays()
    views["LMLO"] = views["LCC"].copy()
    scorer = Predictor(tiny_bundle, session=fake_session)
    runs = len(fake_session.batches)
    prediction = scorer.predict(views)
    assert prediction.status == "abstained"
    assert prediction.findings == ()
    assert reasons(prediction) == [("G11", "warn", None), ("G04", "block", "LMLO")]
    assert len(fake_session.batches) == runs
    assert "probability" not in prediction.to_json()


@pytest.mark.parametrize("level", [40_000, 65_535])
def test_a_blank_view_never_becomes_a_number(tiny_bundle: Path, level: int) -> None:
    scorer = Predictor(tiny_bundle, "cpu")
    prediction = scorer.predict({**arrays(), "RMLO": np.full((96, 80), level, np.uint16)})
    assert (prediction.status, prediction.findings) == ("abstained", ())
    assert [each for each in reasons(prediction) if each[1] == "block"] == [
        ("G09", "block", "RMLO")
    ]
    with pytest.raises(PixelError, match="RMLO"):  # nothing that a tensor could be made of
        scorer.predict({**arrays(), "RMLO": np.zeros((96, 80), np.uint16)})


def test_sides_that_the_pixels_contradict_are_not_scored(
    tiny_bundle: Path, exam: Path, fake_session: FakeSession
) -> None:
    for number, view in enumerate(VIEWS, start=1):
        image = pydicom.dcmread(exam / f"IM{number}")
        image.ImageLaterality = {"L": "R", "R": "L"}[view.laterality]
        image.save_as(exam / f"IM{number}")
    scorer = Predictor(tiny_bundle, session=fake_session)
    runs = len(fake_session.batches)
    prediction = scorer.predict(exam)
    assert (prediction.status, prediction.findings) == ("abstained", ())
    assert reasons(prediction) == [
        ("G11", "warn", None),
        *(("G05", "block", view) for view in VIEWS),
    ]
    assert len(fake_session.batches) == runs
    assert prediction.timing.inference is None
    assert list(prediction.timing.stages()) == ["read", "decode", "tensor", "quality"]
    assert prediction.to_dict()["timing"]["scoring"] is None


def test_several_findings_are_each_answered(tiny_bundle: Path, tmp_path: Path, exam: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    (first,) = bundle.manifest.findings
    calibration = Calibration(slope=2.0, intercept=-0.5, fitted_on="noise")
    second = replace(
        first,
        name="density",
        positive_embedding=prompt(2),
        calibration=calibration,
        operating_points=(),
    )
    golden = tiny_golden()
    others = np.array([prompt(0), prompt(2)], np.float32)
    logits = np.float32(LOGIT_SCALE) * (golden["embedding"] @ others.T)[:, None, :]
    golden["logits"] = np.concatenate([golden["logits"], logits], axis=1)
    files = {**bundle.files, "golden.npz": as_npz(golden)}
    changed = replace(bundle.manifest.golden, sha256=sha256(files["golden.npz"]))
    manifest = replace(bundle.manifest, findings=(first, second), golden=changed)
    write_bundle(tmp_path / "two", manifest, files)

    scorer = Predictor(tmp_path / "two", "cpu")
    prediction = scorer.predict(exam)
    (alone,) = Predictor(tiny_bundle, "cpu").predict(exam).findings
    malignancy, density = prediction.findings
    assert malignancy == alone
    assert (malignancy.calibrated, density.calibrated) == (False, True)
    expected = 1 / (1 + np.exp(-(2.0 * density.logit - 0.5)))
    assert density.probability == density.score == pytest.approx(expected, abs=1e-5)
    assert density.operating_points_met == ()
    keys = ("name", "probability", "score", "calibrated", "calibrated_on")
    assert [[one[key] for key in keys] for one in prediction.to_dict()["findings"]] == [
        ["malignancy", None, malignancy.score, False, None],
        ["density", density.probability, density.probability, True, "noise"],
    ]
    lines = [line.plain for line in console.prediction_lines(prediction)]
    assert f"malignancy  {malignancy.score:.3f}  (uncalibrated score, no probability)" in lines
    place = lines.index(f"density  {density.probability:.3f}  (calibrated probability)")
    assert lines[place + 1 : place + 3] == [
        "  calibrated on noise",
        "  no operating point is set for it",
    ]
    page = report.to_html(scorer.examine(exam))
    assert page.index("uncalibrated score") < page.index("<h1>density</h1>")
    assert page.index("<h1>density</h1>") < page.index(
        "probability, 0 to 1, as calibrated on noise"
    )
    assert page.count("No operating point is set for it.") == 1


@pytest.mark.parametrize("factor", [np.nan, np.inf, 0, 1.1])
def test_an_output_that_is_unusable_costs_its_exam_alone(
    tiny_bundle: Path, fake_session: FakeSession, factor: float
) -> None:
    scorer = Predictor(tiny_bundle, session=fake_session)

    def spoil_the_second(views: np.ndarray) -> np.ndarray:
        rows = tiny_embedding(views).copy()
        if len(rows) > 1:
            rows[1] = np.where(rows[1] != 0, rows[1] * np.float32(factor), 0)
        return rows

    fake_session.compute = spoil_the_second
    many = [arrays(seed) for seed in range(3)]
    first, second, third = scorer.predict_many(many, batch_size=3)
    assert (second.status, second.findings) == ("abstained", ())
    assert [(r.code, r.severity, r.view) for r in second.reasons][-1] == ("G14", "block", None)
    assert second.timing.inference is not None
    json.loads(second.to_json())
    for found, views in ((first, many[0]), (third, many[2])):
        assert found.status == "scored"
        expected = scorer.predict(views).findings[0].logit
        assert found.findings[0].logit == pytest.approx(expected, abs=1e-4)
