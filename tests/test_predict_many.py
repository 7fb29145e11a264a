"""Many exams in batches: in order, one error for one exam, and no work after the caller stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from arrays import arrays
from conftest import FakeSession, tiny_embedding

from mammoclip_sdk import Predictor, predictor
from mammoclip_sdk.archive import scan
from mammoclip_sdk.errors import ExamError, InferenceError, MissingViewError
from mammoclip_sdk.views import read_exam


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
    monkeypatch.setattr("mammoclip_sdk.predictor.stream.cores", lambda: 1)
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
