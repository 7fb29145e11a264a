"""The life of one child process that decodes: within limits, and believed by nobody.

``isolation.child`` starts it and asks; see there. Requests come as pickles, from the parent, which
is trusted; answers go back as JSON, since the parent trusts no child.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import pickle
import secrets
import sys
import time
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk import pixels
from mammoclip_sdk.dicom.image_limits import MOST_PIXELS
from mammoclip_sdk.errors import MammoClipError
from mammoclip_sdk.exam import SourceImage

if sys.platform != "win32":
    import fcntl
    import resource

PARTS_OF_AN_ERROR = ("found", "expected", "remedy", "code")
_RESULT_BYTES = 2 * MOST_PIXELS


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a child is told once, before any image."""

    result: int | str
    """`ResultMemory.name`."""
    seconds: float
    """Of processor time for one image."""
    memory: int
    """Bytes of address space."""


class ResultMemory:
    """Memory for the pixels of any image, that a child writes to; pages not written cost nothing.

    Under Linux it has no name in any file system, so that nothing can be left behind, and its size
    is sealed: a child that cut it short would kill the parent, which reads there.
    """

    def __init__(self) -> None:
        self.name: int | str
        """The file descriptor, which the child inherits; on Windows the name of the mapping."""
        if sys.platform == "win32":
            self.name = f"mammoclip-{secrets.token_hex(16)}"
        else:
            self.name = os.memfd_create("mammoclip", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.truncate(self.name, _RESULT_BYTES)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.name, fcntl.F_ADD_SEALS, seals)
        self._memory = _mapped(self.name)

    def take(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a copy of the pixels, which no child can reach, and empty the memory."""
        taken = np.frombuffer(self._memory, dtype, math.prod(shape)).reshape(shape).copy()
        if sys.platform != "win32":
            self._memory.madvise(mmap.MADV_REMOVE)
        return taken

    def close(self) -> None:
        """Give the memory back; it lasts no longer than the child that maps it."""
        self._memory.close()
        if isinstance(self.name, int):
            os.close(self.name)


def _mapped(name: int | str) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, _RESULT_BYTES, tagname=str(name))
    return mmap.mmap(int(name), _RESULT_BYTES)


def serve() -> None:
    """Decode what the parent asks for, until it asks no more.

    The pipes are standard input and output, which are taken away from everybody else first: a
    library that prints would otherwise answer in this module's place.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    terms: Terms = pickle.loads(_request(requests))  # noqa: S301 - written by the parent
    result = _mapped(terms.result)
    _limit_memory(terms.memory)
    _reply(answers, {"ready": True})
    while request := _request(requests):
        _limit_time(terms.seconds)
        image, levels = pickle.loads(request)  # noqa: S301 - written by the parent
        _reply(answers, _answer(image, levels, result))


def _request(requests: IO[bytes]) -> bytes:
    return requests.read(int.from_bytes(requests.read(8), "little"))


def _reply(answers: IO[bytes], answer: dict[str, Any]) -> None:
    text = json.dumps(answer).encode()
    answers.write(len(text).to_bytes(4, "little") + text)
    answers.flush()


def _answer(image: SourceImage, levels: int, result: mmap.mmap) -> dict[str, Any]:
    try:
        stored = pixels.decode(image, levels=levels)
    except MammoClipError as error:
        parts = {part: getattr(error, part) for part in PARTS_OF_AN_ERROR}
        return {"error": type(error).__name__, **parts}
    flat = stored.pixels.reshape(-1)
    np.frombuffer(result, flat.dtype, flat.size)[:] = flat
    reduction = stored.reduction
    return {
        "levels": reduction.levels if reduction else 0,
        "reversible": bool(reduction and reduction.reversible),
        "shape": list(stored.pixels.shape),
    }


def _limit_memory(most: int) -> None:
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold a patient's image


def _limit_time(seconds: float) -> None:
    """Allow so much processor time beyond what was used; a process has one limit for its life."""
    if sys.platform != "win32":
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), most))
