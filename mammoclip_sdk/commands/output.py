"""What a command prints, and how it ends: lines, JSON, progress, failures and exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
        sys.stdout.flush()
    except MammoClipError as error:
        if as_json:
            print_json({"error": error.to_dict()})
        lines = console.error_text(error).split("\n")
        typer.echo("\n".join(map(strict_json.one_line, lines)), err=True)
        raise typer.Exit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read the output is gone; without this, Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_BROKEN_PIPE) from None


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


def print_lines(lines: Iterable[Text], *, wrap: bool = True) -> None:
    """Print lines in colour where the terminal has some; ``wrap=False`` keeps paths whole.

    Names come from files and headers of others: what would steer the terminal is escaped.
    """
    from rich.console import Console

    screen = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        line.plain = strict_json.one_line(line.plain)
        screen.print(line, soft_wrap=not (wrap and screen.is_terminal))


def print_json(value: object) -> None:
    """Print one JSON value."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
