"""One child process that decodes, as its parent sees it: asked, held to a deadline, not believed.

A child decodes one image at a time, within an address space and a processor time of its own
(``isolation.process`` is its side). The parent knows the shape and the type of the pixels before it
asks, takes a copy of exactly those, and computes their hash.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

from mammoclip_sdk import errors, pixels
from mammoclip_sdk.dicom.shield import shielded
from mammoclip_sdk.errors import DeviceError, InputError, PixelError
from mammoclip_sdk.exam import Reduction, SourceImage, StoredImage
from mammoclip_sdk.isolation.process import PARTS_OF_AN_ERROR, ResultMemory, Terms
from mammoclip_sdk.pixels import Description

_START_SECONDS = 60.0
_LONGEST_ANSWER = 2**16
_LONGEST_PART = 1000  # characters of an error's text
_DAMAGED = "Take the file for damaged, and retrieve the image again from its source."
_BUSY_OR_DAMAGED = "If the machine was busy, try again; otherwise take the file for damaged."
_NAME_ONE = (
    "Name a Python that has this package, by multiprocessing.set_executable(path) or "
    "IsolatedDecoder(command=...); or decode without isolation, if you trust the images' source."
)
_KINDS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, InputError)
}


class DecodingChild:
    """One process, and the memory it leaves pixels in.

    Parameters
    ----------
    command
        What starts a process that calls ``isolation.process.serve``.
    seconds
        Of wall clock, and of processor time, for one image.
    memory
        Bytes of address space.

    Raises
    ------
    DeviceError
        ``isolation_unavailable``: it does not start.
    """

    def __init__(self, command: list[str], seconds: float, memory: int) -> None:
        self._seconds = seconds
        self._timed_out = False
        try:
            self._result = ResultMemory()
        except (OSError, AttributeError) as exc:  # AttributeError: a system without memfd_create
            raise unavailable(f"no memory to share ({type(exc).__name__})") from None
        inherited = [self._result.name] if isinstance(self._result.name, int) else []
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # their stacks are address space
                pass_fds=inherited,
                start_new_session=True,  # an interrupt at the keyboard is the parent's affair
            )
        except OSError as exc:
            self._result.close()
            raise unavailable(f"no child process ({type(exc).__name__})") from None
        terms = Terms(result=self._result.name, seconds=seconds, memory=memory)
        if self._ask(pickle.dumps(terms), _START_SECONDS) != {"ready": True}:
            self.end()
            raise unavailable("a child process that does not start")

    def decode(
        self, image: SourceImage, levels: int, described: Description
    ) -> StoredImage | InputError:
        """Return what the child made of an image, or the error it met.

        Raises
        ------
        PixelError
            The child must not be asked again.
        """
        with shielded(image.name, "a Dataset"):
            request = pickle.dumps((replace(image, acquisition=None), levels))
        answer = self._ask(request, self._seconds)
        if answer is None:
            raise self._death(image.name)
        if "error" in answer:
            return _error(answer, image.name)
        return self._stored(answer, image, levels, described)

    def end(self) -> None:
        """Kill the process, wait for it, and give back what it held."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # bytes that the child never took
                if pipe is not None:
                    pipe.close()
        self._result.close()

    def _ask(self, request: bytes, seconds: float) -> dict[str, Any] | None:
        """Return the child's answer; None where it died, or was killed at the deadline."""
        timer = threading.Timer(seconds, self._time_out)
        timer.daemon = True
        timer.start()
        try:
            return self._exchange(request)
        except (OSError, ValueError, RecursionError):  # a pipe that ended, or no JSON
            return None
        finally:
            timer.cancel()

    def _exchange(self, request: bytes) -> dict[str, Any] | None:
        questions, answers = self._process.stdin, self._process.stdout
        if questions is None or answers is None:
            return None
        questions.write(len(request).to_bytes(8, "little"))
        questions.write(request)
        questions.flush()
        length = int.from_bytes(answers.read(4), "little")
        answer = json.loads(answers.read(min(length, _LONGEST_ANSWER)))
        return answer if isinstance(answer, dict) else None

    def _time_out(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _death(self, name: str) -> PixelError:
        self._process.kill()
        status = self._process.wait()
        used_up = sys.platform != "win32" and status == -signal.SIGXCPU
        if self._timed_out or used_up:
            found = "a decoder that does not come to an end"
            return _child_error(name, found, "decoder_timeout", remedy=_BUSY_OR_DAMAGED)
        return _child_error(name, "a decoder that crashed", "decoder_crashed")

    def _stored(
        self, answer: dict[str, Any], image: SourceImage, levels: int, described: Description
    ) -> StoredImage:
        """Take what a child says for as much as it can be, and no more."""
        done, reversible = answer.get("levels"), answer.get("reversible")
        possible = range(levels + 1) if described.is_jpeg_2000 else range(1)
        if type(done) is not int or done not in possible or type(reversible) is not bool:
            raise _child_error(image.name, "an answer that cannot be", "decoder_answer")
        layout = described.layout
        shape = layout.reduced_shape(done)
        if answer.get("shape") != list(shape):
            raise _child_error(image.name, "pixels of another shape", "decoder_answer")
        taken = self._result.take(shape, layout.dtype)
        if int(taken.max()) >= 2**layout.bits_stored:
            raise _child_error(image.name, "pixels beyond Bits Stored", "decoder_answer")
        source = (layout.rows, layout.columns)
        reduction = Reduction(levels=done, source_shape=source, reversible=reversible)
        return pixels.stored_image(image, taken, described, reduction if done else None)


def _error(answer: dict[str, Any], name: str) -> InputError:
    """Return the error that a child met, if it is one of this package's own kinds."""
    kind = _KINDS.get(str(answer["error"]))
    parts = {part: answer.get(part) for part in PARTS_OF_AN_ERROR}
    if kind is None or not all(isinstance(text, str) for text in parts.values()):
        raise _child_error(name, "an answer that cannot be", "decoder_answer")
    return kind(name, **{part: str(text)[:_LONGEST_PART] for part, text in parts.items()})


def _child_error(name: str, found: str, code: str, *, remedy: str = _DAMAGED) -> PixelError:
    return PixelError(
        name,
        found=found,
        expected="pixels, within the time and the memory of a child process",
        remedy=remedy,
        code=code,
    )


def unavailable(found: str, *, remedy: str = _NAME_ONE) -> DeviceError:
    """Return the error for a decoder that cannot be used at all."""
    return DeviceError(
        "isolation",
        found=found,
        expected="child processes that decode",
        remedy=remedy,
        code="isolation_unavailable",
    )
