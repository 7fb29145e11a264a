"""What a command prints, and how it ends: lines, JSON, progress, failures and exit codes."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

import typer

from mammoclip_sdk import strict_json
from mammoclip_sdk.commands import console
from mammoclip_sdk.errors import MammoClipError

if TYPE_CHECKING:
    from rich.text import Text

EXIT_ERROR = 2
EXIT_NOT_SCORED = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

CODES = (
    "Exit codes: 0 done; 2 refused, with the reason on stderr (and as JSON on stdout with "
    "--json); 3 read, but not scored (abstained), or nothing that scan takes for an exam; "
    "1 a defect of this software."
)


@contextmanager
def failures(as_json: bool) -> Iterator[None]:
    """Turn what a user can mend into a message and an exit code; let defects show as such."""
    try:
        yield
    except MammoClipError as error:
        if as_json:
            with suppress(MammoClipError):  # it is stdout that cannot be written
                print_json({"error": error.to_dict()})
        lines = console.error_text(error).split("\n")
        print_error("\n".join(map(strict_json.one_line, lines)))
        raise typer.Exit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something has come, on a terminal alone: stderr may be a log."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    terminal = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    hidden = not terminal.is_terminal
    with Progress(*columns, console=terminal, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_lines(lines: Iterable[Text | str], *, wrap: bool = True) -> None:
    """Print lines in colour where the terminal has some; ``wrap=False`` keeps paths whole.

    Names come from files and headers of others: what would steer the terminal is escaped.
    """
    from rich.console import Console
    from rich.text import Text

    # rich makes the text, and does not print it: where the reader is gone, it would exit with 1.
    seen, page = Console(), io.StringIO()
    escapes = seen.is_terminal and not seen.legacy_windows
    screen = Console(file=page, force_terminal=escapes, highlight=False, markup=False, emoji=False)
    for line in lines:
        text = Text(line) if isinstance(line, str) else line
        text.plain = strict_json.one_line(text.plain)
        screen.print(text, soft_wrap=not (wrap and seen.is_terminal))
    _print(page.getvalue())


def print_json(value: object) -> None:
    """Print one JSON value."""
    print_text(json.dumps(value, indent=2, allow_nan=False))


def print_text(text: str) -> None:
    """Print text as it is, and end the line."""
    _print(f"{text}\n")


def print_error(text: str) -> None:
    """Say on stderr what went wrong; where that cannot be written, the exit code says it alone."""
    with suppress(OSError):
        _write(f"{text}\n", sys.stderr)


def _print(text: str) -> None:
    try:
        _write(text, sys.stdout)
    except OSError as error:
        # What is left has nowhere to go; without this, Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read the output is gone
            sys.exit(EXIT_BROKEN_PIPE)
        raise MammoClipError(
            "standard output",
            found=f"a place that cannot be written ({error.strerror})",
            expected="one that takes what is printed",
            remedy="Make room there, or send the output to another place.",
            code="stdout",
        ) from error


def _write(text: str, stream: TextIO | None) -> None:
    if stream is not None:  # closed by whoever started this process
        stream.write(text)
        stream.flush()
