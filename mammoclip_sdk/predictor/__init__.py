"""Prepared exams -> embeddings -> findings, one exam or a stream of them.

A `Predictor` holds a bundle and an open session, does not change, and may be shared between
threads.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

from mammoclip_sdk import pixels
from mammoclip_sdk.archive import Archive
from mammoclip_sdk.bundle import Bundle, Trust
from mammoclip_sdk.bundle.releases import USE
from mammoclip_sdk.bundle.trusted import accept_release
from mammoclip_sdk.errors import DeviceError, MammoClipError
from mammoclip_sdk.isolation import IsolatedDecoder
from mammoclip_sdk.prediction import Examination, Prediction
from mammoclip_sdk.predictor.answer import answer
from mammoclip_sdk.predictor.opening import provenance_of, require_agreement, usable_bundle
from mammoclip_sdk.predictor.preparation import PreparedExam, prepare
from mammoclip_sdk.predictor.stream import Outcome, each, in_batches
from mammoclip_sdk.sessions import BATCH_SIZE, CheckedSession, Session, open_session
from mammoclip_sdk.views import ViewSource

DEMO_BUNDLE = Path(__file__).parents[1] / "demo" / "bundle"
DEMO_EXAM = Path(__file__).parents[1] / "demo" / "exam"


class Predictor:
    """A bundle in an open session: the object to make once and to ask often.

    Parameters
    ----------
    bundle
        A folder, a zip of one, or a bundle that was read; None is the demo bundle, which knows
        phantoms only.
    device
        ``auto``, ``tensorrt``, ``cuda``, ``openvino`` or ``cpu``. Only ``auto`` may choose.
    precision
        ``fp32``, ``fp16``, ``bf16`` or ``int8``; None is the device's own (see
        `sessions.open_session`).
    threads
        Most threads that one CPU run may use; None leaves it to the runtime.
    session
        Runs the graph, such as a runtime of the caller's; it sets its own device, precision and
        threads.
    isolate
        Decode pixels in child processes with limits of their own, for images from sources that are
        not trusted: what crashes or hangs a decoder costs that exam an error. True makes a decoder
        that is closed with the predictor; one of the caller's stays open for the caller to close.
    trust
        Keys one of which must have signed the bundle. Once its golden exams have passed, its
        release is recorded, and an older one is refused from then on.

    Raises
    ------
    BundleError
        The bundle cannot be used, or is not trusted.
    DeviceError
        The device cannot be used, contradicts the session, or does not reproduce the bundle's
        golden exams; or, ``isolation_unavailable``, no child process can be started.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path | None = None,
        device: str = "auto",
        *,
        precision: str | None = None,
        threads: int | None = None,
        session: Session | None = None,
        isolate: bool | IsolatedDecoder = False,
        trust: Trust | None = None,
    ) -> None:
        self._closed = False
        if session is not None:
            require_agreement(session, device, precision, threads)
        with ExitStack() as opened:  # closed again if anything below fails
            if isolate is True:
                isolate = opened.enter_context(IsolatedDecoder())
            self._decoder = isolate or None
            if self._decoder is not None:
                self._decoder.start()
            self.bundle = usable_bundle(DEMO_BUNDLE if bundle is None else bundle, trust)
            if session is None:
                self._session: Session = open_session(
                    self.bundle, device, precision=precision, threads=threads
                )
                opened.callback(self._session.close)
            else:
                self._session = CheckedSession(session, self.bundle)
            self.provenance = provenance_of(
                self.bundle, self._session, device_asked=device, isolated=self._decoder is not None
            )
            if trust is not None:
                accept_release(self.bundle, trust, by=USE)
            self._opened = opened.pop_all()

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
    ) -> Iterator[Outcome]: ...

    def predict_many(
        self,
        exams: Iterable[ViewSource] | Archive,
        batch_size: int = BATCH_SIZE,
        *,
        strict: bool = False,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Iterator[Prediction] | Iterator[Outcome]:
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
        ValueError
            At once: a batch size below 1, or another ``on_error``.
        ExamError
            At once: one exam, or what holds none.
        DeviceError
            At once, ``closed``: the predictor was.
        """
        if batch_size < 1 or on_error not in ("raise", "return"):
            raise ValueError("batch_size is 1 or more, on_error is 'raise' or 'return'")
        self._require_open()
        outcomes = in_batches(
            each(exams),
            batch_size,
            prepare=partial(self._prepare, strict=strict),
            answer=partial(self._answer, strict=strict),
        )
        return outcomes if on_error == "return" else _raising(outcomes)

    def close(self) -> None:
        """Free the runtime's memory, and end the child processes that it started to decode."""
        self._closed = True
        self._opened.close()
        self._session.close()

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
        provenance = replace(self.provenance, strict=strict)
        with self._while_open():
            return answer(batch, self._session, self.bundle.manifest.findings, provenance)


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


def _raising(outcomes: Generator[Outcome, None, None]) -> Iterator[Prediction]:
    with closing(outcomes):
        for outcome in outcomes:
            if isinstance(outcome, MammoClipError):
                raise outcome
            yield outcome
