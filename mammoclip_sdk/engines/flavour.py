"""TensorRT and TensorRT for RTX, as one: what is installed, and what it says of its failures.

Both are the same library in two flavours, with one Python API but for a few places. Nearly every
call of it answers None or False where it fails, and gives the reason to a log: here each of those
is an error that carries the log.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from mammoclip_sdk.errors import DeviceError, EngineError, RuntimeNotInstalledError

T = TypeVar("T")

FLAVOURS = ("tensorrt", "tensorrt_rtx")
"""Names of both, as their modules have them; the first is preferred where both have an engine."""

RTX = "tensorrt_rtx"
_MODULES = {"tensorrt": ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_MINIMUM = {"tensorrt": (10, 14), RTX: (1, 4)}
"""From these on, the parser knows the operator Attention of ONNX."""
_INSTALL = {
    "tensorrt": 'pip install "mammoclip-sdk[tensorrt]", where pip is given NVIDIA\'s own package '
    "index as an extra index, for the libraries lie there",
    RTX: 'pip install "mammoclip-sdk[tensorrt-rtx]", which is whole on PyPI',
}
_LOG_LINES = 400
_SHOWN_LINES = 12


class Log:
    """The last lines that TensorRT said, from information upwards."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._count = 0

    def add(self, line: str) -> None:
        """Take a line, from whichever thread."""
        self._lines.append(line)
        self._count += 1

    @property
    def position(self) -> int:
        """How many lines there have been."""
        return self._count

    def since(self, position: int) -> tuple[str, ...]:
        """Return the lines after a position, as far as they were kept."""
        lines = tuple(self._lines)
        return lines[max(0, len(lines) - (self._count - position)) :]


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One installed flavour."""

    name: str
    """A member of `FLAVOURS`."""
    version: str
    """In full, such as ``1.7.1.116``."""
    module: Any
    logger: Any
    """The module's own kind of logger; it lives as long as the module, as TensorRT needs."""
    log: Log

    @property
    def runtime(self) -> str:
        """Name and version, never the one's for the other's."""
        return f"{self.name} {self.version}"

    def call(
        self,
        what: str,
        function: Callable[..., T],
        *arguments: Any,
        error: type[DeviceError] = EngineError,
    ) -> T:
        """Call TensorRT.

        Parameters
        ----------
        what
            What the call is for, as it follows on "TensorRT did not".

        Raises
        ------
        ``error``
            It raised, or answered None, False or a negative number; with what it logged meanwhile.
        """
        start = self.log.position
        result = self.run(what, function, *arguments, error=error)
        if _means_failure(result):
            raise self._failure(error, what, start, f"it answered {result}")
        return result

    def run(
        self,
        what: str,
        function: Callable[..., T],
        *arguments: Any,
        error: type[DeviceError] = EngineError,
    ) -> T:
        """Call what answers nothing and only raises; otherwise as `call`."""
        start = self.log.position
        try:
            return function(*arguments)
        except Exception as cause:  # whatever pybind11 makes of a C++ exception
            reason = (str(cause).splitlines() or [type(cause).__name__])[0]
            raise self._failure(error, what, start, f"it raised {reason}") from cause

    def _failure(self, kind: type[DeviceError], what: str, start: int, reason: str) -> DeviceError:
        said = self.log.since(start)
        wrong = [line for line in said if not line.startswith(("INFO", "VERBOSE"))] or [*said]
        log = " | ".join(wrong[-_SHOWN_LINES:]) or "nothing"
        return kind(
            self.runtime,
            found=f"that it did not {what} ({reason}); its log says: {log}",
            expected="a flavour, a graph and a GPU that go together",
            remedy="Check the GPU's driver and free memory, and that this version of the flavour "
            "supports the GPU; device cuda or cpu runs the same bundle without an engine.",
        )


def load(name: str) -> Flavour:
    """Import a flavour; a package that is there and does not load is not installed.

    Raises
    ------
    DeviceError
        No such flavour.
    RuntimeNotInstalledError
        It is not installed, its libraries are not, or it is older than what this software uses.
    """
    if name not in FLAVOURS:
        raise DeviceError(
            f"flavour {name!r}",
            found="no such flavour of TensorRT",
            expected=f"one of {', '.join(FLAVOURS)}",
            remedy="Name one of them.",
        )
    failures = []
    for module in _MODULES[name]:
        try:
            flavour = _flavour(name, importlib.import_module(module))
        except (ImportError, OSError, AttributeError) as error:
            failures.append(f"{module}: {error}")
            continue
        if _numbers(flavour.version) >= _MINIMUM[name]:
            return flavour
        failures = [f"version {flavour.version}"]
        break
    minimum = ".".join(map(str, _MINIMUM[name]))
    other = "" if name == RTX else f" Or take --flavour {RTX}: {_INSTALL[RTX]}."
    raise RuntimeNotInstalledError(
        name,
        found="; ".join(failures),
        expected=f"{name} {minimum} or later, with its libraries",
        remedy=f"{_INSTALL[name]}.{other}",
    )


def installed() -> tuple[Flavour, ...]:
    """Return the flavours that load, the preferred one first."""
    return tuple(flavour for flavour in map(_try, FLAVOURS) if isinstance(flavour, Flavour))


def none_installed() -> RuntimeNotInstalledError:
    """Make the error for a machine without either flavour."""
    failures = [found for found in map(_try, FLAVOURS) if isinstance(found, DeviceError)]
    return RuntimeNotInstalledError(
        "device 'tensorrt'",
        found="; ".join(failure.found for failure in failures),  # each says what it looked for
        expected=f"{' or '.join(FLAVOURS)}",
        remedy=f"TensorRT for RTX: {_INSTALL[RTX]}. TensorRT: {_INSTALL['tensorrt']}.",
    )


def _try(name: str) -> Flavour | RuntimeNotInstalledError:
    try:
        return load(name)
    except RuntimeNotInstalledError as error:
        return error


def _means_failure(result: object) -> bool:
    return result is None or result is False or (isinstance(result, int) and result < 0)


@functools.cache
def _flavour(name: str, module: Any) -> Flavour:
    log = Log()
    return Flavour(
        name=name, version=module.__version__, module=module, logger=_logger(module, log), log=log
    )


def _logger(module: Any, log: Log) -> Any:
    class Captured(module.ILogger):  # type: ignore[misc]
        """TensorRT's log, kept instead of printed."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)  # pybind11 refuses super() here

        def log(self, severity: Any, message: str) -> None:
            if severity.name != "VERBOSE":
                log.add(f"{severity.name}: {message}")

    return Captured()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
