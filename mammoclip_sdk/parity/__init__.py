"""Every runtime that is here, through the parity exams: what a certificate is made from."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.bundle import Bundle
from mammoclip_sdk.bundle.graphs import graph_of, has_graph
from mammoclip_sdk.bundle.manifest import GOLDEN_QUANTITIES
from mammoclip_sdk.engines import Engine, find_all
from mammoclip_sdk.engines.cuda import current_gpu
from mammoclip_sdk.errors import DeviceError, EngineError, InferenceError
from mammoclip_sdk.golden import answer_golden, compare_golden, read_golden
from mammoclip_sdk.parity.agreement import Gate, Worst, gate, judge
from mammoclip_sdk.parity.certificate import (
    BATCHES,
    FORMAT,
    NOT_ASKED,
    Absence,
    Certificate,
    Comparison,
    judged_sha256,
)
from mammoclip_sdk.parity.comparison import Answers, compare
from mammoclip_sdk.parity.exams import ParityExams, attached, read_exams
from mammoclip_sdk.sessions import BATCH_SIZE, RUNS, CheckedSession, Session, open_session, trt

Progress = Callable[[int, int], None]
"""Called with exams done and exams in all, over all runtimes."""


def certify(
    bundle: Bundle,
    device: str = "auto",
    precision: str | None = None,
    *,
    threads: int | None = None,
    issued_at: str | None = None,
    progress: Progress | None = None,
) -> Certificate:
    """Compare every runtime that is there with the reference answers, one after the other.

    Parameters
    ----------
    device, precision
        Narrow what is compared; ``auto`` and None take everything that the bundle has a graph for.
        What was not asked for is listed as absent.
    issued_at
        When, for a certificate that is made on a workstation; it then names the bundle by its
        hash too.

    Raises
    ------
    BundleFormatError
        The bundle has no parity exams, or they are not what it says.
    DeviceError
        Nothing of what was asked for is there. Where something is, the rest is listed as absent,
        with the reasons.
    InferenceError, EngineError
        A runtime that is there does not load or run a graph, or an engine that fits.
    """
    exams = read_exams(bundle)
    pairs = [(name, kind) for name in RUNS for kind in RUNS[name] if has_graph(bundle, kind)]
    asked = [
        (name, kind)
        for name, kind in pairs
        if device in ("auto", name) and precision in (None, kind)
    ]
    comparisons, errors = _compared(bundle, exams, asked, threads, progress)
    if not comparisons:
        raise next(iter(errors.values()), _nothing(bundle, device, precision))
    reasons = {pair: NOT_ASKED for pair in pairs if pair not in asked}
    reasons |= {pair: error.found for pair, error in errors.items()}
    absent = tuple(
        Absence(device=pair[0], precision=pair[1], reason=reasons[pair])
        for pair in pairs
        if pair in reasons
    )
    return _certificate(bundle, exams, issued_at, tuple(comparisons), absent)


_Pair = tuple[str, str]
"""A device and a precision."""


def _compared(
    bundle: Bundle,
    exams: ParityExams,
    asked: list[_Pair],
    threads: int | None,
    progress: Progress | None,
) -> tuple[list[Comparison], dict[_Pair, DeviceError]]:
    """Compare what is here of what was asked for; of the rest, return why it is not."""
    comparisons: list[Comparison] = []
    errors: dict[_Pair, DeviceError] = {}
    for place, pair in enumerate(asked):
        step = _step(progress, place, len(asked), len(exams.views))
        try:
            for session in _opened(bundle, *pair, threads):
                with closing(session):
                    comparisons.append(measure(bundle, exams, session, step=step))
        except DeviceError as error:
            if not _says_absent(error):
                raise
            errors[pair] = error
    return comparisons, errors


def _certificate(
    bundle: Bundle,
    exams: ParityExams,
    issued_at: str | None,
    comparisons: tuple[Comparison, ...],
    absent: tuple[Absence, ...],
) -> Certificate:
    return Certificate(
        format=FORMAT,
        bundle=bundle.manifest.name,
        version=bundle.manifest.version,
        judged_sha256=judged_sha256(bundle.manifest),
        bundle_sha256=None if issued_at is None else bundle.sha256,
        issued_at=issued_at,
        sdk_version=importlib.metadata.version("mammoclip-sdk"),
        reference=exams.reference,
        exams=len(exams.views),
        labelled=exams.labelled,
        positives=exams.positives,
        exams_sha256=attached(bundle).sha256,
        comparisons=comparisons,
        absent=absent,
    )


def _opened(bundle: Bundle, device: str, precision: str, threads: int | None) -> Iterator[Session]:
    """Open what runs on a device, one after the other: with TensorRT, an engine of each flavour."""
    if device != "tensorrt":
        yield open_session(bundle, device, precision=precision, threads=threads)
        return
    best = {one.sidecar.flavour: one for one in reversed(find_all(bundle, precision))}
    for engine in best.values():
        yield CheckedSession(trt.open_engine(bundle, engine), bundle)


def _says_absent(error: DeviceError) -> bool:
    """Whether something is not here, rather than here and at fault."""
    if isinstance(error, EngineError):
        return error.code == "engine_missing"
    return not isinstance(error, InferenceError)


def _step(progress: Progress | None, place: int, pairs: int, exams: int) -> Callable[[int], None]:
    if progress is None:
        return lambda _: None
    return lambda done: progress(place * exams + done, pairs * exams)


def _nothing(bundle: Bundle, device: str, precision: str | None) -> DeviceError:
    present = ", ".join(graph.precision for graph in bundle.manifest.graphs)
    return DeviceError(
        f"device {device!r}, precision {precision!r}",
        found=f"no graph of {bundle.path} to compare: it has {present}",
        expected="; ".join(f"{name} with {', '.join(runs)}" for name, runs in RUNS.items()),
        remedy="Ask for a device and a precision that it runs.",
    )


def measure(
    bundle: Bundle,
    exams: ParityExams,
    session: Session,
    *,
    step: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Run the parity exams and the golden exams through one session, and judge the answers.

    Raises
    ------
    InferenceError
        The runtime failed. An output that is wrong, or no embedding, is a failed gate instead.
    """
    alone = []
    for done, views in enumerate(exams.views, 1):
        alone.append(session.run(_input(views[np.newaxis])))
        step(done)
    batches = [session.run(_input(exams.views[:size])) for size in _batch_sizes(session)]
    answers = Answers(embedding=np.concatenate(alone), batches=tuple(batches))
    agreement = compare(bundle.manifest.findings, exams.embedding, answers, exams.labels)
    graph = graph_of(bundle, session.precision)
    return Comparison(
        runtime=session.runtime,
        device=session.device,
        hardware=hardware(session.device),
        precision=session.precision,
        graph=graph.file,
        graph_sha256=graph.sha256,
        agreement=agreement,
        gates=(*judge(session.precision, agreement), _golden(bundle, session)),
    )


def _batch_sizes(session: Session) -> tuple[int, ...]:
    """Return the sizes of the batches that exams are run in once more.

    An engine takes other kernels for each, so every one up to the usual and its largest is tried.
    """
    engine = getattr(session, "engine", None)
    if not isinstance(engine, Engine):
        return BATCHES
    largest = engine.sidecar.max_batch
    return tuple(sorted({*range(2, min(BATCH_SIZE, largest) + 1), largest}))


def _input(views: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    return {"views": views.astype(np.float32) / np.float32(255)}


def _golden(bundle: Bundle, session: Session) -> Gate:
    limit = bundle.manifest.golden.tolerance[session.precision]
    quantity = f"golden_{GOLDEN_QUANTITIES[session.precision]}"
    golden = read_golden(bundle)
    answers = answer_golden(golden, session)
    try:
        result = compare_golden(bundle, session, golden, answers)
    except InferenceError as error:  # an answer is no embedding
        return gate(quantity, limit, Worst(value=math.inf, where=error.found))
    where = f"{result.exams} golden exams"
    return gate(quantity, limit, Worst(value=result.worst_difference, where=where))


def hardware(device: str) -> str:
    """Name the processor that a device of `sessions.DEVICES` runs on."""
    if device in ("cuda", "tensorrt"):
        try:
            gpu = current_gpu()
        except DeviceError as error:  # it runs all the same
            return f"NVIDIA GPU of unknown name ({error.subject}: {error.found})"
        return f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver}"
    name = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} logical processors"
