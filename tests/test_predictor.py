"""The whole path from four images to an answer, with a tiny bundle whose numbers are known."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import exams
import numpy as np
import pydicom
import pytest
from conftest import LOGIT_SCALE, FakeSession, tiny_embedding

from mammoclip_sdk import Predictor, pixels, predictor, tensor
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.errors import (
    AmbiguousViewError,
    BundleNotFoundError,
    InferenceError,
    MissingViewError,
    PixelError,
)
from mammoclip_sdk.exam import VIEWS
from mammoclip_sdk.views import read_exam


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    exams.write_exam(tmp_path / "exam", exams.PLAIN)
    return tmp_path / "exam"


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Four display-ready views; the seed moves and changes the breast."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :80]
    views = {}
    for view in VIEWS:
        reach = (x / rng.uniform(40, 70)) ** 2 + ((y - 48) / rng.uniform(30, 45)) ** 2
        grey = np.where(reach < 1, rng.uniform(20_000, 60_000, reach.shape), 0).astype(np.uint16)
        views[str(view)] = grey if view.laterality == "L" else grey[:, ::-1]
    return views


def test_the_probability_is_what_the_stages_give_one_by_one(tiny_bundle: Path, exam: Path) -> None:
    prediction = Predictor(tiny_bundle, "cpu").predict(exam)
    chosen = read_exam(exam)
    stored = {view: pixels.decode(chosen.images[view]) for view in VIEWS}
    views = tensor.build(stored, read_bundle(tiny_bundle).manifest.preprocessing).tensors["views"]
    (embedding,) = tiny_embedding(views)
    logit = LOGIT_SCALE * float(embedding[1] - embedding[0])

    assert prediction.status == "scored"
    (finding,) = prediction.findings
    assert finding.logit == pytest.approx(logit, abs=1e-4)
    assert finding.probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
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


def test_a_prediction_is_immutable_and_its_json_is_whole(tiny_bundle: Path, exam: Path) -> None:
    prediction = Predictor(tiny_bundle, "cpu").predict(exam)
    with pytest.raises(FrozenInstanceError):
        prediction.status = "abstained"  # type: ignore[misc]
    plain = json.loads(prediction.to_json())
    assert plain == prediction.to_dict()
    assert list(plain) == [
        "status",
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


def test_every_way_to_hand_over_an_exam_gives_the_same_answer(
    tiny_bundle: Path, exam: Path
) -> None:
    files = sorted(exam.iterdir())
    scorer = Predictor(tiny_bundle, "cpu")
    answers = [
        scorer.predict(source).findings
        for source in (
            exam,
            str(exam),
            files[::-1],
            [pydicom.dcmread(file) for file in files],
            dict(zip(map(str, VIEWS), files, strict=True)),
        )
    ]
    assert answers == [answers[0]] * 5


def test_the_same_image_twice_is_not_scored(tiny_bundle: Path, fake_session: FakeSession) -> None:
    views = arrays()
    views["LMLO"] = views["LCC"].copy()
    scorer = Predictor(tiny_bundle, session=fake_session)
    runs = len(fake_session.batches)
    prediction = scorer.predict(views)
    assert prediction.status == "abstained"
    assert prediction.findings == ()
    (reason,) = prediction.reasons
    assert (reason.code, reason.severity, reason.view) == ("G04", "block", "LMLO")
    assert len(fake_session.batches) == runs
    assert "probability" not in prediction.to_json()


@pytest.mark.parametrize("level", [0, 40_000, 65_535])
def test_a_blank_view_never_becomes_a_number(tiny_bundle: Path, level: int) -> None:
    views = {**arrays(), "RMLO": np.full((96, 80), level, np.uint16)}
    with pytest.raises(PixelError, match="RMLO"):
        Predictor(tiny_bundle, "cpu").predict(views)


def test_strict_is_handed_on(tiny_bundle: Path, exam: Path) -> None:
    extra = exams.dataset(VIEWS[0], exams.PLAIN)
    extra.SOPInstanceUID = extra.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    extra.AcquisitionTime = "000001"
    extra.save_as(exam / "again", enforce_file_format=True)
    scorer = Predictor(tiny_bundle, "cpu")
    with pytest.raises(AmbiguousViewError):
        scorer.predict(exam, strict=True)
    assert [a.name for a in scorer.predict(exam).views[0].alternatives] == ["again"]


def test_without_the_default_bundle_there_is_no_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "DEMO_BUNDLE", tmp_path / "none")
    with pytest.raises(BundleNotFoundError):
        Predictor()


def test_predict_keeps_one_predictor_a_device(
    tiny_bundle: Path, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    class Counting(Predictor):
        def __init__(self, device: str) -> None:
            made.append(device)
            super().__init__(tiny_bundle, device)

    monkeypatch.setattr(predictor, "Predictor", Counting)
    predictor._demo_predictor.cache_clear()
    try:
        first, second = (predictor.predict(exam, device="cpu") for _ in range(2))
        predictor.predict(exam)
    finally:
        predictor._demo_predictor.cache_clear()
    assert first.findings == second.findings
    assert made == ["cpu", "auto"]


def test_a_runtime_that_computes_wrongly_is_refused_at_once(tiny_bundle: Path) -> None:
    wrong = FakeSession(lambda views: tiny_embedding(1 - views))
    with pytest.raises(InferenceError, match="golden exams whose logits differ"):
        Predictor(tiny_bundle, session=wrong)


def test_threads_share_a_predictor(tiny_bundle: Path) -> None:
    scorer = Predictor(tiny_bundle, "cpu", threads=1)
    many = [arrays(seed) for seed in range(8)]
    one_by_one = [scorer.predict(views).findings for views in many]
    with ThreadPoolExecutor(4) as pool:
        together = [prediction.findings for prediction in pool.map(scorer.predict, many)]
    assert together == one_by_one


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 50])
def test_many_exams_come_in_order_with_the_numbers_of_one(
    tiny_bundle: Path, fake_session: FakeSession, batch_size: int
) -> None:
    many = [arrays(seed) for seed in range(7)]
    scorer = Predictor(tiny_bundle, session=fake_session)
    golden = len(fake_session.batches)
    found = list(scorer.predict_many(iter(many), batch_size))
    assert fake_session.batches[golden:] == tuple(
        min(batch_size, 7 - start) for start in range(0, 7, batch_size)
    )
    for prediction, views in zip(found, many, strict=True):
        (one,), (batched,) = scorer.predict(views).findings, prediction.findings
        assert batched.logit == pytest.approx(one.logit, abs=1e-4)
    assert len({prediction.findings for prediction in found}) == 7


def test_the_next_batch_is_decoded_while_this_one_is_in_the_runtime(tiny_bundle: Path) -> None:
    decoded = threading.Event()

    def wait_for_the_next(views: np.ndarray) -> np.ndarray:
        assert decoded.wait(10), "nothing was decoded during inference"
        return tiny_embedding(views)

    scorer = Predictor(tiny_bundle, session=FakeSession())
    scorer._session.compute = wait_for_the_next  # type: ignore[attr-defined]
    prepare = scorer._prepare

    def signalling(views: Any, **options: Any) -> Any:
        prepared = prepare(views, **options)
        if views is second:
            decoded.set()
        return prepared

    scorer._prepare = signalling  # type: ignore[method-assign]
    first, second = arrays(1), arrays(2)
    assert len(list(scorer.predict_many([first, second], batch_size=1))) == 2


def test_an_exam_that_fails_is_raised_in_its_turn_or_returned_in_its_place(
    tiny_bundle: Path,
) -> None:
    scorer = Predictor(tiny_bundle, "cpu")
    twin = arrays(2)
    twin["RCC"] = twin["LCC"].copy()
    broken = {view: array for view, array in arrays(1).items() if view != "RMLO"}
    many = [arrays(0), broken, twin, arrays(3)]

    stream = scorer.predict_many(many, batch_size=4)
    assert next(stream).status == "scored"
    with pytest.raises(MissingViewError):
        next(stream)
    assert list(stream) == []

    found = list(scorer.predict_many(many, batch_size=3, on_error="return"))
    assert isinstance(found[1], MissingViewError)
    assert [getattr(item, "status", "error") for item in found] == [
        "scored",
        "error",
        "abstained",
        "scored",
    ]
    expected = scorer.predict(arrays(3)).findings[0].logit
    assert found[3].findings[0].logit == pytest.approx(expected, abs=1e-4)


def test_a_runtime_that_fails_fails_every_exam_of_its_batch(tiny_bundle: Path) -> None:
    session = FakeSession()
    scorer = Predictor(tiny_bundle, session=session)

    def fail(views: np.ndarray) -> np.ndarray:
        raise InferenceError("graph", found="a failure", expected="an answer", remedy="None.")

    session.compute = fail
    found = list(scorer.predict_many([arrays(0), arrays(1)], on_error="return"))
    assert [type(item) for item in found] == [InferenceError, InferenceError]


def test_stopping_early_stops_the_work(tiny_bundle: Path) -> None:
    taken: list[int] = []

    def endless() -> Iterator[dict[str, np.ndarray]]:
        while True:
            taken.append(len(taken))
            yield arrays(len(taken))

    stream = Predictor(tiny_bundle, "cpu").predict_many(endless(), batch_size=2)
    next(stream)
    stream.close()
    assert len(taken) == 4  # the batch that was yielded from, and one ahead
    assert not [t for t in threading.enumerate() if t.name.startswith("mammoclip")]


def test_wrong_settings_are_refused_before_anything_is_read(tiny_bundle: Path) -> None:
    scorer = Predictor(tiny_bundle, "cpu")
    with pytest.raises(ValueError, match="batch_size"):
        scorer.predict_many([], batch_size=0)
    with pytest.raises(ValueError, match="on_error"):
        scorer.predict_many([], on_error="ignore")  # type: ignore[call-overload]


def test_closing_a_predictor_closes_its_session(tiny_bundle: Path) -> None:
    session = FakeSession()
    with Predictor(tiny_bundle, session=session):
        assert not session.closed
    assert session.closed


def test_a_bundle_that_was_read_is_used_as_it_is(tiny_bundle: Path, exam: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    renamed = replace(bundle, manifest=replace(bundle.manifest, name="renamed"))
    assert Predictor(renamed, "cpu").predict(exam).provenance.bundle == "renamed"
