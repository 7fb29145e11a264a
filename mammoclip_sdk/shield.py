"""Between pydicom and everybody else: its texts repeat the values of the tags they are about."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mammoclip_sdk.errors import DicomReadError, MammoClipError

_pydicom_lock = threading.RLock()


@contextmanager
def shielded(name: str, reading: str = "a header") -> Iterator[None]:
    """Run pydicom code on what is being read, so that nothing it says goes further.

    Every exception that is not this package's own becomes a `DicomReadError` without the original
    text; warnings and log records of this thread are dropped. Python's warning filters belong to
    the process, so one thread at a time is inside.
    """
    thread = threading.get_ident()

    def of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    with _pydicom_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loggers = _pydicom_loggers()
        for logger in loggers:
            logger.addFilter(of_another_thread)
        try:
            yield
        except MammoClipError:
            raise
        except Exception as exc:
            # pydicom raises what its parsers happen to raise: ValueError, KeyError, struct.error,
            # RecursionError, MemoryError, EOFError, AttributeError, NotImplementedError ...
            raise DicomReadError(
                name,
                found=f"{reading} that does not parse ({type(exc).__name__})",
                expected="an undamaged DICOM file",
                remedy="Retrieve or export the image again; the file is damaged or incomplete.",
            ) from None
        finally:
            for logger in loggers:
                logger.removeFilter(of_another_thread)


def _pydicom_loggers() -> list[logging.Logger]:
    """Return the loggers of all its modules: a filter does not see what its children log."""
    named = list(logging.root.manager.loggerDict)
    return [logging.getLogger(name) for name in named if f"{name}.".startswith("pydicom.")]
