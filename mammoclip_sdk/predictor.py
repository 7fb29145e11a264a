"""Prepared exams -> embeddings -> findings, one exam or a stream of them.

A `Predictor` holds a bundle and an open session, does not change, and may be shared between
threads.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias, overload

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset

from mammoclip_sdk import pixels
from mammoclip_sdk.archive import Archive
from mammoclip_sdk.bundle import Bundle, read_bundle
from mammoclip_sdk.errors import DeviceError, ExamError, InferenceError, MammoClipError
from mammoclip_sdk.exam import Exam
from mammoclip_sdk.golden import require_golden
from mammoclip_sdk.isolation import IsolatedDecoder
from mammoclip_sdk.prediction import Examination, Prediction, Provenance, Timing
from mammoclip_sdk.preparation import PreparedExam, prepare, timed
from mammoclip_sdk.quality import Reason
from mammoclip_sdk.reasons import OUTPUT
from mammoclip_sdk.scoring import FindingScore, score
from mammoclip_sdk.sessions import CheckedSession, Session, open_session
from mammoclip_sdk.views import ViewSource

DEMO_BUNDLE = Path(__file__).parent / "demo" / "bundle"
DEMO_EXAM = Path(__file__).parent / "demo" / "exam"

_Outcome: TypeAlias = Prediction | MammoClipError


class Predictor:
    """A bundle in an open session: the object to make once and to ask often.

    Parameters
    ----------
    bundle
        A folder, a zip of one, or a bundle that was read; None is the demo bundle, which knows
        phantoms only.
    device
        ``auto``, ``tensorrt``, ``cuda``, ``openvino`` or ``cpu``. Only ``auto`` may choose.
    threads
        Most threads that one CPU run may use; None leaves it to the runtime.
    session
        Runs the graph, such as a runtime of the caller's; it sets its own device and threads.
    isolate
        Decode pixels in child processes with limits of their own, for images from sources that are
        not trusted: what crashes or hangs a decoder costs that exam an error. True makes a decoder
        that is closed with the predictor; one of the caller's stays open for the caller to close.

    Raises
    ------
    BundleError
        The bundle cannot be used.
    DeviceError
        The device cannot be used, contradicts the session, or does not reproduce the bundle's
        golden exams; or, ``isolation_unavailable``, no child process can be started.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path | None = None,
        device: str = "auto",
        *,
        threads: int | None = None,
        session: Session | None = None,
        isolate: bool | IsolatedDecoder = False,
    ) -> None:
        self._closed = False
        if session is not None:
            _check_agreement(session, device, threads)
        self._own_decoder = IsolatedDecoder() if isolate is True else None
        self._decoder = self._own_decoder if isinstance(isolate, bool) else isolate
        if self._decoder is not None:
            self._decoder.start()
        if not isinstance(bundle, Bundle):
            bundle = read_bundle(DEMO_BUNDLE if bundle is None else bundle)
        self.bundle = bundle
        self._session: Session = (
            open_session(bundle, device, threads=threads)
            if session is None
            else CheckedSession(session, bundle)
        )
        manifest = self.bundle.manifest
        self.provenance = Provenance(
            bundle=manifest.name,
            bundle_version=manifest.version,
            bundle_sha256=self.bundle.sha256,
            intended_use=manifest.intended_use,
            not_for_clinical_use=manifest.not_for_clinical_use,
            device_asked=device,
            device=self._session.device,
            runtime=self._session.runtime,
            precision=self._session.precision,
            preprocessing_version=manifest.preprocessing.version,
            sdk_version=importlib.metadata.version("mammoclip-sdk"),
            pydicom_version=pydicom.__version__,
            imagecodecs_version=imagecodecs.__version__,
            numpy_version=np.__version__,
            strict=False,
            isolated=self._decoder is not None,
            golden=require_golden(self.bundle, self._session),
        )

    def predict(self, views: ViewSource, *, strict: bool = False) -> Prediction:
        """Score one exam.

        Parameters
        ----------
        views
            A folder, a list of paths, a list of `pydicom.Dataset`, a mapping from view name to
            path, Dataset or 2-D array, or an `Exam` of `archive.scan`.
        strict
            Raise where several images claim one view, instead of choosing.

        Returns
        -------
        Prediction
            ``abstained``, and without a number, where a reason blocks the exam or the model's
            output for it is unusable.

        Raises
        ------
        InputError
            The views cannot be read, or do not make up one exam of a kind that the bundle was
            validated on. ``reason`` says why, where it is one of `reasons.CODES`.
        InferenceError
            The runtime failed.
        DeviceError
            ``closed``: the predictor was.
        """
        prepared = self._prepare(views, strict=strict)
        (prediction,) = self._answer([prepared], strict=strict)
        return prediction

    def examine(self, views: ViewSource, *, strict: bool = False) -> Examination:
        """Score one exam as `predict` does, and keep pictures of its views for a report."""
        prepared = self._prepare(views, strict=strict, pictures=True)
        (prediction,) = self._answer([prepared], strict=strict)
        return Examination(
            prediction=prediction, pictures=prepared.pictures, manifest=self.bundle.manifest
        )

    @overload
    def predict_many(
        self,
        exams: Iterable[ViewSource] | Archive,
        batch_size: int = ...,
        *,
        strict: bool = ...,
        on_error: Literal["raise"] = ...,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict_many(
        self,
        exams: Iterable[ViewSource] | Archive,
        batch_size: int = ...,
        *,
        strict: bool = ...,
        on_error: Literal["return"],
    ) -> Iterator[_Outcome]: ...

    def predict_many(
        self,
        exams: Iterable[ViewSource] | Archive,
        batch_size: int = 8,
        *,
        strict: bool = False,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Iterator[Prediction] | Iterator[_Outcome]:
        """Score exams in batches; the next batch is decoded while this one is in the runtime.

        Parameters
        ----------
        exams
            As for `predict`, each; taken one batch ahead of what was yielded. Or the `Archive` of
            `archive.scan`, for its exams.
        batch_size
            Exams per run of the graph, 1 or more.
        on_error
            ``raise`` raises an exam's error when its turn comes. ``return`` yields the error in
            the exam's place and goes on; only a `MammoClipError` is ever yielded.

        Yields
        ------
        Prediction or MammoClipError
            In the order of ``exams``.

        Raises
        ------
        ExamError
            At once: one exam, or what holds none.
        DeviceError
            At once, ``closed``: the predictor was.
        """
        if batch_size < 1 or on_error not in ("raise", "return"):
            raise ValueError("batch_size is 1 or more, on_error is 'raise' or 'return'")
        self._require_open()
        return self._stream(_each(exams), batch_size, strict=strict, on_error=on_error)

    def close(self) -> None:
        """Free the runtime's memory, and end the child processes that it started to decode."""
        self._closed = True
        self._session.close()
        if self._own_decoder is not None:
            self._own_decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _while_open(self) -> Iterator[None]:
        """Say that the predictor was closed, and not what that led to further down."""
        self._require_open()
        try:
            yield
        except DeviceError:
            self._require_open()
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise DeviceError(
                "predictor",
                found="a Predictor that was closed",
                expected="one that is open",
                remedy="Make another one.",
                code="closed",
            )

    def _prepare(self, views: ViewSource, *, strict: bool, pictures: bool = False) -> PreparedExam:
        manifest = self.bundle.manifest
        with self._while_open():
            return prepare(
                views,
                manifest.preprocessing,
                strict=strict,
                acceptance=manifest.acceptance,
                pictures=pictures,
                decode=pixels.decode if self._decoder is None else self._decoder.decode,
            )

    def _answer(self, batch: list[PreparedExam], *, strict: bool) -> list[Prediction]:
        """Run the graph once for all exams that nothing blocks, and score them."""
        provenance = replace(self.provenance, strict=strict)
        timing: dict[str, float] = {}
        scorable = [prepared for prepared in batch if not prepared.blocked]
        embeddings: Iterator[NDArray[np.float32]] = iter(())
        if scorable:
            with self._while_open(), timed(timing, "inference"):
                embeddings = iter(self._session.run(_stacked(scorable)))
        return [
            _prediction(prepared, prepared.reasons, (), provenance, prepared.timing)
            if prepared.blocked
            else self._scored(prepared, next(embeddings), provenance, timing)
            for prepared in batch
        ]

    def _scored(
        self,
        prepared: PreparedExam,
        embedding: NDArray[np.float32],
        provenance: Provenance,
        timing: Mapping[str, float],
    ) -> Prediction:
        own = {**prepared.timing, **timing}
        reasons = prepared.reasons
        findings: tuple[FindingScore, ...] = ()
        with timed(own, "scoring"):
            try:
                findings = score(embedding, self.bundle.manifest.findings)
            except InferenceError as error:  # of this exam; its neighbours' may be right
                message = f"The model's output is unusable: {error.found}. {error.remedy}"
                unusable = Reason(code=OUTPUT, severity="block", view=None, message=message)
                reasons = (*reasons, unusable)
        return _prediction(prepared, reasons, findings, provenance, own)

    def _stream(
        self, exams: Iterator[ViewSource], batch_size: int, *, strict: bool, on_error: str
    ) -> Iterator[_Outcome]:
        workers = min(batch_size, os.cpu_count() or 1)
        prepare_one = partial(self._prepare, strict=strict)
        with ThreadPoolExecutor(workers, thread_name_prefix="mammoclip") as pool:

            def submit() -> list[Future[PreparedExam]]:
                ahead = itertools.islice(exams, batch_size)
                return [pool.submit(prepare_one, views) for views in ahead]

            following = submit()
            try:
                while following:
                    batch = [_settled(future) for future in following]
                    following = submit()
                    for outcome in self._outcomes(batch, strict=strict):
                        if isinstance(outcome, MammoClipError) and on_error == "raise":
                            raise outcome
                        yield outcome
            finally:  # the caller may stop at any yield
                for future in following:
                    future.cancel()

    def _outcomes(
        self, batch: list[PreparedExam | MammoClipError], *, strict: bool
    ) -> Iterator[_Outcome]:
        prepared = [item for item in batch if isinstance(item, PreparedExam)]
        try:
            answers: Iterator[_Outcome] = iter(self._answer(prepared, strict=strict))
        except MammoClipError as error:  # of the whole batch
            answers = itertools.repeat(error)
        for item in batch:
            yield next(answers) if isinstance(item, PreparedExam) else item


def predict(views: ViewSource, *, device: str = "auto", strict: bool = False) -> Prediction:
    """Score one exam with the demo bundle, which knows phantoms only; see `Predictor.predict`.

    The predictor is made by the first call and kept, one for each device.
    """
    with _MAKING:
        predictor = _demo_predictor(device)
    return predictor.predict(views, strict=strict)


_MAKING = threading.Lock()


@functools.cache
def _demo_predictor(device: str) -> Predictor:
    return Predictor(device=device)


def _check_agreement(session: Session, device: str, threads: int | None) -> None:
    if device not in ("auto", session.device) or threads is not None:
        asked = f"device {device!r}" + ("" if threads is None else f" and threads={threads}")
        raise DeviceError(
            "session",
            found=f"one on {session.device!r}, and {asked} beside it",
            expected="a session alone; it has its device and its threads already",
            remedy="Leave device and threads out, or leave the session out.",
        )


def _each(exams: Iterable[ViewSource] | Archive) -> Iterator[ViewSource]:
    """Refuse what is one exam: a path's letters would each be read as a path."""
    if isinstance(exams, Archive):
        return iter(exams.exams)
    one = isinstance(exams, str | bytes | os.PathLike | Mapping | Exam | Dataset | np.ndarray)
    if one or not isinstance(exams, Iterable):
        path = isinstance(exams, str | bytes | os.PathLike)
        raise ExamError(
            "exams",
            found="one path" if path else f"one {type(exams).__name__}",
            expected="exams, one after the other",
            remedy="Use predict for one exam, or archive.scan(folder).exams for all in a folder.",
        )
    return iter(exams)


def _prediction(
    prepared: PreparedExam,
    reasons: tuple[Reason, ...],
    findings: tuple[FindingScore, ...],
    provenance: Provenance,
    timing: Mapping[str, float],
) -> Prediction:
    return Prediction(
        answered_at=datetime.now(UTC).isoformat(timespec="seconds"),
        status="scored" if findings else "abstained",
        findings=findings,
        reasons=reasons,
        views=prepared.records,
        notes=prepared.notes,
        provenance=provenance,
        timing=Timing.of(timing),
    )


def _stacked(batch: list[PreparedExam]) -> dict[str, NDArray[np.float32]]:
    return {
        name: np.concatenate([prepared.tensors[name] for prepared in batch])
        for name in batch[0].tensors
    }


def _settled(future: Future[PreparedExam]) -> PreparedExam | MammoClipError:
    try:
        return future.result()
    except MammoClipError as error:
        return error
