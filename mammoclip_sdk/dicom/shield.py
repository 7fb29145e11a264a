"""Between pydicom and everybody else: its texts repeat the values of the tags they are about."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from mammoclip_sdk.errors import DicomReadError, MammoClipError


class AttributeNotListedError(LookupError):
    """This software asks a header for an attribute that it does not let through; a defect of its.

    Only the code decides whether it is raised, never the file: no input leads to it.
    """


class _Inside(threading.local):
    """Whether this thread is inside the shield."""

    depth = 0


_inside = _Inside()


class _FromInside:
    """What Python's warning filters take for the pattern of a message: any, of a thread inside."""

    def match(self, _message: str) -> bool:
        """Answer for the thread that warns, which is the one that asks."""
        return bool(_inside.depth)


_IGNORED = ("ignore", _FromInside(), Warning, None, 0)
"""An entry of `warnings.filters`. The filters belong to the process: ``catch_warnings`` around each
header would exchange them under the hands of other threads, which then keep what nobody set."""


def _ignore_warnings_from_inside() -> None:
    """See to it that the entry comes first; who exchanges the filters may have lost it."""
    filters: list[object] = warnings.filters  # type: ignore[assignment]  # the pattern has a method
    if not filters or filters[0] is not _IGNORED:
        filters[:] = [_IGNORED, *(entry for entry in filters if entry is not _IGNORED)]


def _from_outside(_record: logging.LogRecord) -> bool:
    """Hold back what a thread logs while it is inside; a filter runs in the thread that logs."""
    return not _inside.depth


class _Loggers:
    """The loggers of all of pydicom's modules: a filter does not see what its children log."""

    def __init__(self) -> None:
        self._of_pydicom: list[logging.Logger] = []
        self._registered = 0

    def __iter__(self) -> Iterator[logging.Logger]:
        names = logging.root.manager.loggerDict
        if len(names) != self._registered:  # looking through all of them takes longer than a header
            self._registered = len(names)
            known = [name for name in list(names) if f"{name}.".startswith("pydicom.")]
            self._of_pydicom = [logging.getLogger(name) for name in known]
        return iter(self._of_pydicom)


_loggers = _Loggers()


@contextmanager
def shielded(name: str, reading: str = "a header") -> Iterator[None]:
    """Run pydicom code on what is being read, so that nothing it says goes further.

    Every exception that is not this package's own becomes a `DicomReadError` without the original
    text; warnings and log records of this thread are dropped.
    """
    _ignore_warnings_from_inside()
    for logger in _loggers:
        logger.addFilter(_from_outside)  # stays; a second time changes nothing
    _inside.depth += 1
    try:
        yield
    except (MammoClipError, AttributeNotListedError):
        raise
    except Exception as exc:
        # pydicom raises what its parsers happen to raise: ValueError, KeyError, struct.error,
        # RecursionError, MemoryError, EOFError, AttributeError, NotImplementedError ...
        raise_alone(
            DicomReadError(
                name,
                found=f"{reading} that does not parse ({type(exc).__name__})",
                expected="an undamaged DICOM file",
                remedy="Retrieve or export the image again; the file is damaged or incomplete.",
            )
        )
    finally:
        _inside.depth -= 1


def raise_alone(error: MammoClipError) -> NoReturn:
    """Raise an error without the one it answers: ``from None`` only hides it from tracebacks."""
    try:
        raise error from None
    finally:
        error.__context__ = None
