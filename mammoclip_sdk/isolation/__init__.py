"""Decoding in child processes, for callers that feed on sources they do not trust.

A crash, a hang or a blow-up of memory costs one image an error, and another child takes over: see
``isolation.child``. The parent judges headers itself, before it asks.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from mammoclip_sdk import pixels
from mammoclip_sdk.dicom import gate
from mammoclip_sdk.errors import InputError
from mammoclip_sdk.exam import SourceImage, StoredImage
from mammoclip_sdk.interpreter import child_command
from mammoclip_sdk.isolation.child import DecodingChild, unavailable
from mammoclip_sdk.pixels import Description

UNENFORCED: tuple[str, ...] = (
    ("address space", "processor time", "core dumps") if sys.platform == "win32" else ()
)
"""Limits of a child that this operating system does not hold; the wall clock holds everywhere."""


class IsolatedDecoder:
    """Decodes as `pixels.decode` does, in child processes; threads may share it.

    Parameters
    ----------
    workers
        Images decoded at the same time, each in a process of its own, started when first needed.
    seconds
        Of wall clock, and of processor time, for one image. The slowest image that is accepted
        takes about 4 s of a current core; the rest is for older cores, and for sharing them.
    memory
        Bytes of address space of a child, the libraries it loads included. `UNENFORCED` names the
        limits that the operating system does not hold.
    command
        What starts a process that calls ``mammoclip_sdk.isolation.process.serve``; None for the
        interpreter of ``multiprocessing``, which frozen and embedding applications choose with
        ``multiprocessing.set_executable``.

    Raises
    ------
    DeviceError
        ``isolation_unavailable``: no command, and no interpreter is known.
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        seconds: float = 10.0,
        memory: int = 2**30,
        command: Sequence[str] | None = None,
    ) -> None:
        command = command or child_command("isolation.process")
        if command is None:
            raise unavailable("an application that is frozen or embeds Python, and no interpreter")
        self._command = list(command)
        self._seconds, self._memory = seconds, memory
        self._places = threading.BoundedSemaphore(workers)
        self._lock = threading.Lock()
        self._closed = False
        self._idle: list[DecodingChild] = []
        weakref.finalize(self, _end_all, self._idle)  # also when the interpreter exits

    def start(self) -> None:
        """Have a child ready now: an interpreter that cannot be one shows before any image.

        Raises
        ------
        DeviceError
            ``isolation_unavailable``, as from `decode`.
        """
        with self._places:
            self._put_back(self._child())

    def decode(self, image: SourceImage, *, levels: int = 0) -> StoredImage:
        """Decode one view; parameters and result are those of `pixels.decode`.

        Raises
        ------
        PixelError
            ``decoder_crashed``, ``decoder_timeout`` or ``decoder_memory``, where a child came to
            its end or its limits; ``decoder_answer``, where it said what cannot be; and as from
            `pixels.decode`.
        DicomReadError, NotDicomError, UnsupportedTransferSyntaxError
            As from `pixels.decode`.
        DeviceError
            ``isolation_unavailable``: no child could be started, or the decoder is closed.
        """
        if image.array is not None:
            return pixels.decode(image)
        before = _stamp(image)
        described = _describe(image)
        with self._places:
            child = self._child()
            try:
                outcome = child.decode(image, levels, described)
            except BaseException:  # the child is gone, or may be in the midst of an answer
                child.end()
                raise
            self._put_back(child)
        if _stamp(image) != before:
            raise pixels.changed(image.name, "a file that was changed while it was decoded")
        if isinstance(outcome, InputError):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the children; one that is decoding ends when it has answered."""
        with self._lock:
            self._closed = True
        _end_all(self._idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _child(self) -> DecodingChild:
        with self._lock:
            if self._closed:
                raise unavailable("a decoder that was closed", remedy="Make another one.")
            if self._idle:
                return self._idle.pop()
        return DecodingChild(self._command, self._seconds, self._memory)

    def _put_back(self, child: DecodingChild) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                return
        child.end()


def _end_all(children: list[DecodingChild]) -> None:
    while children:
        children.pop().end()


def _stamp(image: SourceImage) -> tuple[int, ...]:
    """Return what changes with a file: here its header is read, and in the child its pixels."""
    if image.path is None:
        return ()
    with contextlib.suppress(OSError, ValueError):  # the gate says what is wrong with the path
        status = image.path.stat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    return ()


def _describe(image: SourceImage) -> Description:
    if image.path is not None:
        dataset = gate.read_header_of(image.path, name=image.name)
    else:
        dataset = pixels.read_source(image)
    return pixels.describe(dataset, name=image.name)
