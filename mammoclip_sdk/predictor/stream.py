"""Exams -> answers, in batches: the next is decoded while one is in the runtime."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
from pydicom import Dataset

from mammoclip_sdk.archive import Archive
from mammoclip_sdk.errors import ExamError, MammoClipError
from mammoclip_sdk.exam import Exam
from mammoclip_sdk.prediction import Prediction
from mammoclip_sdk.predictor.preparation import PreparedExam
from mammoclip_sdk.processor import cores
from mammoclip_sdk.views import ViewSource

Outcome: TypeAlias = Prediction | MammoClipError


def each(exams: Iterable[ViewSource] | Archive) -> Iterator[ViewSource]:
    """Go through exams, and refuse what is one exam: a path's letters would each be read as a path.

    Raises
    ------
    ExamError
        At once.
    """
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


def in_batches(
    exams: Iterator[ViewSource],
    size: int,
    *,
    prepare: Callable[[ViewSource], PreparedExam],
    answer: Callable[[list[PreparedExam]], list[Prediction]],
) -> Generator[Outcome, None, None]:
    """Prepare the exams of the next batch in threads while one batch is answered.

    Yields
    ------
    Prediction or MammoClipError
        In the order of ``exams``, which are taken one batch ahead; an exam's error in its place,
        and an error of ``answer`` in the place of every exam of its batch.
    """
    workers = min(size, cores())
    with ThreadPoolExecutor(workers, thread_name_prefix="mammoclip") as pool:

        def submit() -> list[Future[PreparedExam]]:
            return [pool.submit(prepare, views) for views in itertools.islice(exams, size)]

        following = submit()
        try:
            while following:
                batch = [_settled(future) for future in following]
                following = submit()
                yield from _outcomes(batch, answer)
        finally:  # the caller may stop at any yield
            for future in following:
                future.cancel()


def _settled(future: Future[PreparedExam]) -> PreparedExam | MammoClipError:
    try:
        return future.result()
    except MammoClipError as error:
        return error


def _outcomes(
    batch: list[PreparedExam | MammoClipError],
    answer: Callable[[list[PreparedExam]], list[Prediction]],
) -> Iterator[Outcome]:
    try:
        prepared = [item for item in batch if isinstance(item, PreparedExam)]
        answers: Iterator[Outcome] = iter(answer(prepared))
    except MammoClipError as error:  # of the whole batch
        answers = itertools.repeat(error)
    for item in batch:
        yield next(answers) if isinstance(item, PreparedExam) else item
