"""The whole path from four images to an answer, with a tiny bundle whose numbers are known."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import pickle
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import FrozenInstanceError, asdict, replace
from datetime import UTC, datetime
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import exams
import numpy as np
import pydicom
import pytest
from conftest import LOGIT_SCALE, FakeSession, as_npz, prompt, tiny_embedding, tiny_golden

from mammoclip_sdk import Predictor, pixels, predictor, report, tensor
from mammoclip_sdk.archive import scan
from mammoclip_sdk.bundle import Calibration, read_bundle, sha256, write_bundle
from mammoclip_sdk.commands import console
from mammoclip_sdk.errors import (
    AmbiguousViewError,
    BundleError,
    BundleNotFoundError,
    DeviceError,
    ExamError,
    InferenceError,
    MissingViewError,
    PixelError,
    UnsupportedImageError,
)
from mammoclip_sdk.exam import VIEWS, Acceptance, Device, SourceImage, StoredImage
from mammoclip_sdk.isolation import IsolatedDecoder
from mammoclip_sdk.prediction import Prediction
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
        grey = np.where(reach < 1, 45_000 - 25_000 * reach + 15_000 * tissue(rng), 0).astype(
            np.uint16
        )
        views[str(view)] = grey if view.laterality == "L" else grey[:, ::-1]
    return views


def reasons(prediction: Prediction) -> list[tuple[str, str, str | None]]:
    return [(reason.code, reason.severity, reason.view) for reason in prediction.reasons]


def tissue(rng: np.random.Generator) -> np.ndarray:
    """A texture of its own, smooth over a few pixels, -1 to 1."""
    y, x = np.mgrid[:96, :80]
    waves = np.zeros((96, 80))
    for _ in range(6):
        across, down = rng.uniform(-0.15, 0.15, 2)
        waves += np.sin(across * x + down * y + rng.uniform(0, 6)) / 6
    return waves


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
        assert answer.schema == 1
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


@pytest.mark.parametrize(
    "bundle", ["", "x" * 300, "a\0b", Path("y" * 5000)], ids=["empty", "long", "null", "path"]
)
def test_only_none_is_the_demo_bundle_and_no_name_is_a_defect(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: str | Path
) -> None:
    monkeypatch.setattr(predictor, "DEMO_BUNDLE", tiny_bundle)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(BundleError):
        Predictor(bundle, "cpu")
    assert Predictor(None, "cpu").provenance.bundle == "tiny"


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
    assert density.probability == pytest.approx(expected, abs=1e-5)
    assert density.operating_points_met == ()
    plain = prediction.to_dict()["findings"]
    assert [(one["name"], one["calibrated"]) for one in plain] == [
        ("malignancy", False), ("density", True)
    ]  # fmt: skip
    lines = [line.plain for line in console.prediction_lines(prediction, manifest)]
    assert (
        f"malignancy  {malignancy.probability:.3f}  (uncalibrated score, no probability)" in lines
    )
    place = lines.index(f"density  {density.probability:.3f}  (calibrated probability)")
    assert lines[place + 1] == "  no operating point is set for it"
    page = report.to_html(scorer.examine(exam))
    assert page.index("uncalibrated score") < page.index("<h1>density</h1>")
    assert page.index("<h1>density</h1>") < page.index("calibrated probability")
    assert page.count("No operating point is set for it.") == 1


def test_a_session_and_a_device_that_contradict_it_are_refused(
    tiny_bundle: Path, fake_session: FakeSession
) -> None:
    with pytest.raises(DeviceError, match="found one on 'cpu', and device 'cuda' beside it"):
        Predictor(tiny_bundle, "cuda", session=fake_session)
    with pytest.raises(DeviceError, match="'cpu', and threads=2 beside it"):
        Predictor(tiny_bundle, session=fake_session, threads=2)
    with pytest.raises(DeviceError, match="'cuda' and precision='fp16' and threads=2 beside it"):
        Predictor(tiny_bundle, "cuda", precision="fp16", session=fake_session, threads=2)
    assert fake_session.batches == ()
    assert Predictor(tiny_bundle, "cpu", session=fake_session).provenance.device == "cpu"


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda e: e[:0], r"float32 \(0, 6\)"),
        (lambda e: e[:, :3], r"float32 \(1, 3\)"),
    ],
    ids=["empty", "length"],
)
def test_a_session_of_the_callers_is_checked_at_every_exam(
    tiny_bundle: Path, fake_session: FakeSession, spoil: Any, found: str
) -> None:
    scorer = Predictor(tiny_bundle, session=fake_session)
    fake_session.compute = lambda views: spoil(tiny_embedding(views))
    with pytest.raises(InferenceError, match=found):
        scorer.predict(arrays())


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


def test_what_the_model_was_validated_on_is_handed_on(tiny_bundle: Path, exam: Path) -> None:
    """An implant is an error for a plain model, and no reason for one that knows implants."""
    for file in exam.iterdir():
        image = pydicom.dcmread(file)
        image.BreastImplantPresent = "YES"
        image.Manufacturer, image.ManufacturerModelName = "Maker", "One"
        image.save_as(file)
    with pytest.raises(UnsupportedImageError) as caught:
        Predictor(tiny_bundle, "cpu").predict(sorted(exam.iterdir()))
    assert caught.value.reason == "G08"
    bundle = read_bundle(tiny_bundle)
    device = Device(manufacturer="MAKER", model="one")
    acceptance = Acceptance(implants=True, synthetic_2d=False, devices=(device,))
    wider = replace(bundle, manifest=replace(bundle.manifest, acceptance=acceptance))
    prediction = Predictor(wider, "cpu").predict(exam)
    assert (prediction.status, prediction.reasons) == ("scored", ())
    assert {r.device for r in prediction.views} == {Device(manufacturer="Maker", model="One")}


def test_isolated_decoding_gives_the_same_answer_and_ends_with_the_predictor(
    tiny_bundle: Path, exam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Predictor(tiny_bundle, "cpu").predict(exam)
    assert plain.status == "scored"
    decoded: list[str] = []
    decode = IsolatedDecoder.decode

    def noting(self: IsolatedDecoder, image: SourceImage, *, levels: int = 0) -> StoredImage:
        decoded.append(image.view)
        return decode(self, image, levels=levels)

    monkeypatch.setattr(IsolatedDecoder, "decode", noting)
    with Predictor(tiny_bundle, "cpu", isolate=True) as scorer:
        isolated = scorer.predict(exam)
    assert isolated.findings == plain.findings
    assert sorted(decoded) == sorted(VIEWS)
    assert isolated.provenance.isolated
    assert scorer._decoder is not None
    with pytest.raises(DeviceError, match="closed"):
        scorer._decoder.start()


def test_a_decoder_of_the_callers_is_used_and_stays_open(tiny_bundle: Path, exam: Path) -> None:
    with IsolatedDecoder(1) as decoder:
        for _ in range(2):
            with Predictor(tiny_bundle, "cpu", isolate=decoder) as scorer:
                assert len(decoder._idle) == 1
                answer = scorer.predict(exam)
            assert (answer.status, answer.provenance.isolated) == ("scored", True)
        decoder.start()


def test_an_interpreter_that_cannot_isolate_shows_at_once(tiny_bundle: Path) -> None:
    before = spawn.get_executable()
    multiprocessing.set_executable("/bin/false")
    try:
        with pytest.raises(DeviceError, match="does not start") as caught:
            Predictor(tiny_bundle, "cpu", isolate=True)
    finally:
        multiprocessing.set_executable(os.fsdecode(before))
    assert caught.value.code == "isolation_unavailable"


def test_an_exam_that_was_read_before_is_scored_as_it_is(tiny_bundle: Path, exam: Path) -> None:
    scorer = Predictor(tiny_bundle, "cpu")
    assert scorer.predict(read_exam(exam)).findings == scorer.predict(exam).findings


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


def test_the_next_batch_is_decoded_while_this_one_is_in_the_runtime(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = threading.Event()

    def wait_for_the_next(views: np.ndarray) -> np.ndarray:
        assert decoded.wait(10), "nothing was decoded during inference"
        return tiny_embedding(views)

    session = FakeSession()
    scorer = Predictor(tiny_bundle, session=session)
    session.compute = wait_for_the_next
    prepare = predictor.prepare

    def signalling(views: Any, *settings: Any, **options: Any) -> Any:
        prepared = prepare(views, *settings, **options)
        if views is second:
            decoded.set()
        return prepared

    monkeypatch.setattr(predictor, "prepare", signalling)
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


def test_exams_that_wait_for_a_thread_are_dropped_when_the_caller_stops(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    begun, stopped = threading.Event(), threading.Event()
    prepare = predictor.prepare

    def slow(views: Any, *settings: Any, **options: Any) -> Any:
        started.append(1)
        if len(started) > 4:  # the second batch
            begun.set()
            assert stopped.wait(30)
        return prepare(views, *settings, **options)

    monkeypatch.setattr(predictor, "prepare", slow)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    cancel = Future.cancel
    asked: list[bool] = []

    def recording(future: Future[Any]) -> bool:
        asked.append(cancel(future))
        if len(asked) == 4:  # the whole batch
            stopped.set()
        return asked[-1]

    stream = Predictor(tiny_bundle, "cpu").predict_many(map(arrays, range(8)), batch_size=4)
    next(stream)
    assert begun.wait(30)
    monkeypatch.setattr(Future, "cancel", recording)  # from here on no stage uses one
    stream.close()
    assert len(started) == 5  # of the second batch, the one that ran


def test_wrong_settings_are_refused_before_anything_is_read(tiny_bundle: Path) -> None:
    scorer = Predictor(tiny_bundle, "cpu")
    with pytest.raises(ValueError, match="batch_size"):
        scorer.predict_many([], batch_size=0)
    with pytest.raises(ValueError, match="on_error"):
        scorer.predict_many([], on_error="ignore")  # type: ignore[call-overload]


def test_one_exam_is_not_taken_for_many(tiny_bundle: Path, exam: Path) -> None:
    scorer = Predictor(tiny_bundle, "cpu")
    ones: list[tuple[Any, str]] = [
        (str(exam), "one path"),
        (exam, "one path"),
        (bytes(exam), "one path"),
        (arrays(), "one dict"),
        (read_exam(exam), "one Exam"),
        (pydicom.dcmread(exam / "IM1"), "one FileDataset"),
        (arrays()["LCC"], "one ndarray"),
        (4, "one int"),
        (None, "one NoneType"),
    ]
    for one, found in ones:
        with pytest.raises(ExamError, match="Use predict for one exam") as caught:
            scorer.predict_many(one)
        assert caught.value.found == found
        assert "archive.scan(folder).exams" in caught.value.remedy


def test_an_archive_is_its_exams(tiny_bundle: Path, exam: Path) -> None:
    (answer,) = Predictor(tiny_bundle, "cpu").predict_many(scan(exam.parent))
    assert answer.status == "scored"


@pytest.mark.parametrize("isolate", [False, True])
def test_a_closed_predictor_says_so(tiny_bundle: Path, exam: Path, isolate: bool) -> None:
    scorer = Predictor(tiny_bundle, "cpu", isolate=isolate)
    begun = scorer.predict_many(iter([exam, exam, exam]), batch_size=1)
    next(begun)
    scorer.close()
    scorer.close()
    for ask in (
        lambda: scorer.predict(exam),
        lambda: scorer.examine(exam),
        lambda: scorer.predict_many([exam]),
        lambda: next(begun),
    ):
        with pytest.raises(DeviceError, match="a Predictor that was closed") as caught:
            ask()
        assert (caught.value.code, caught.value.remedy) == ("closed", "Make another one.")


def test_closing_a_predictor_closes_its_session(tiny_bundle: Path) -> None:
    session = FakeSession()
    with Predictor(tiny_bundle, session=session):
        assert not session.closed
    assert session.closed


def test_a_bundle_that_was_read_is_used_as_it_is(tiny_bundle: Path, exam: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    renamed = replace(bundle, manifest=replace(bundle.manifest, name="renamed"))
    assert Predictor(renamed, "cpu").predict(exam).provenance.bundle == "renamed"
