"""Run a command line in this process, and say what a refusal looks like."""

from __future__ import annotations

import sys

import exams
from typer.testing import CliRunner, Result

from mammoclip_sdk.__main__ import app

COMMAND = [sys.executable, "-m", "mammoclip_sdk"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, error: str, *words: object) -> None:
    """The exit code and the message of a refusal; a traceback would be another exception."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{error}: ")
    for word in ("; expected ", *map(str, words)):
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert exams.CANARY not in result.output
