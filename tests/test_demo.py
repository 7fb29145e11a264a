"""The shipped demo: what the bundle claims of itself, and that fresh exams bear it out."""

import re

import numpy as np
import pytest

from mammoclip_sdk import Predictor
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.exam import VIEWS
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.predictor import DEMO_BUNDLE, DEMO_EXAM
from mammoclip_sdk.views import read_exam
from training.demo_model import DEMO
from training.evaluation import auc_interval
from training.example_exam import example_exam
from training.phantom import PhantomSettings, make_exams
from training.phantom_files import write_exam


@pytest.fixture(scope="module")
def bundle():
    return read_bundle(DEMO_BUNDLE)


@pytest.fixture(scope="module")
def measured(bundle):
    return {item.name: item for item in bundle.manifest.measurements}


def test_the_demo_fits_into_the_wheel():
    size = sum(path.stat().st_size for path in DEMO_BUNDLE.parent.rglob("*") if path.is_file())
    assert size <= 10e6


def test_the_task_is_neither_too_easy_nor_too_hard(measured):
    auc = measured["AUC"]
    assert 0.80 <= auc.value.estimate <= 0.95
    assert auc.value.method == "delong"
    assert auc.exams >= 400


def test_models_that_see_one_projection_are_clearly_worse(measured):
    for name in ("AUC of CC views alone", "AUC of MLO views alone"):
        assert measured[name].value.upper < measured["AUC"].value.lower


def test_the_bundle_says_where_it_comes_from_and_what_it_is_not(bundle):
    manifest = bundle.manifest
    assert manifest.source.command == "python -m training.demo_model --out build/demo-model"
    assert manifest.source.seed == DEMO.seed
    assert re.fullmatch(r"[0-9a-f]{40}", manifest.source.git_commit)
    assert manifest.not_for_clinical_use
    assert "never seen a mammogram of a person" in manifest.intended_use
    assert [finding.name for finding in manifest.findings] == ["malignancy"]
    assert manifest.findings[0].calibration is not None


def test_the_example_exam_is_the_phantom_the_program_draws():
    drawn = example_exam()
    shipped = read_exam(DEMO_EXAM)
    for view in VIEWS:
        dataset = drawn.datasets[view]
        stored = decode(shipped.images[view])
        assert np.array_equal(stored.pixels, dataset.pixel_array)
        assert shipped.images[view].sop_instance_uid == dataset.SOPInstanceUID


def test_the_example_exam_is_scored_above_an_operating_point():
    with Predictor(device="cpu") as predictor:
        prediction = predictor.predict(DEMO_EXAM)
    assert prediction.status == "scored"
    assert prediction.reasons == ()
    (finding,) = prediction.findings
    assert finding.calibrated
    assert "sensitivity 90 %" in finding.operating_points_met


@pytest.mark.slow
def test_fresh_exams_as_files_of_every_vendor_bear_the_measured_auc_out(tmp_path, measured):
    settings = PhantomSettings(seed=DEMO.seed + 900, contrast=DEMO.contrast)
    malignant, profiles = [], set()
    for exam in make_exams(settings, 120):
        write_exam(exam, tmp_path)
        malignant.append(exam.malignant)
        profiles.add(exam.profile.name)
    assert len(profiles) > 10
    with Predictor(device="cpu") as predictor:
        folders = sorted(path for path in tmp_path.iterdir())
        logits = [p.findings[0].logit for p in predictor.predict_many(folders)]
    fresh = auc_interval(np.array(malignant), np.array(logits))
    claimed = measured["AUC"].value
    assert fresh.lower < claimed.upper
    assert fresh.upper > claimed.lower
    assert fresh.lower > 0.65, "far better than chance, whatever the sample"
