"""The predictor: what it opens, what it is handed, and that it ends what it began."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import exams
import pydicom
import pytest
from arrays import arrays
from conftest import FakeSession, tiny_embedding

from mammoclip_sdk import Predictor, Trust, predictor
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.errors import (
    AmbiguousViewError,
    BundleError,
    BundleNotFoundError,
    DeviceError,
    InferenceError,
    UnsupportedImageError,
)
from mammoclip_sdk.exam import VIEWS, Acceptance, Device, SourceImage, StoredImage
from mammoclip_sdk.isolation import IsolatedDecoder
from mammoclip_sdk.views import read_exam


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


def test_an_argument_of_another_type_is_told(tiny_bundle: Path) -> None:
    path: Any = "vendor.pub.pem"
    bundle = read_bundle(tiny_bundle)
    for make in (
        lambda: Predictor(tiny_bundle, "cpu", trust=path),
        lambda: Predictor(bundle, "cpu", trust=path),
    ):
        with pytest.raises(BundleError, match=r"trust: found a str; .*Trust\.in_files\(\[PATH\]\)"):
            make()
    with pytest.raises(BundleError, match=r"found one path; expected the paths .* in a list"):
        Trust.in_files(path)
    threads: Any = "2"
    with pytest.raises(DeviceError, match="threads: found '2'; expected 1 or more"):
        Predictor(tiny_bundle, "cpu", threads=threads)
