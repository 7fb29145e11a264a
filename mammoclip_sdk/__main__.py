"""The command line: `mammoclip-sdk`, and `python -m mammoclip_sdk`."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mammoclip_sdk import __version__, console
from mammoclip_sdk.errors import MammoClipError

if TYPE_CHECKING:
    from rich.text import Text

    from mammoclip_sdk.predictor import Predictor

EXIT_ERROR = 2
EXIT_NOT_SCORED = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

_CODES = (
    "Exit codes: 0 done; 2 refused, with the reason on stderr (and as JSON on stdout with "
    "--json); 3 read, but not scored (abstained), or nothing that scan takes for an exam; "
    "1 a defect of this software."
)


class _Commands(TyperGroup):
    """The commands; where JSON was asked for, usage errors are JSON too."""

    def main(self, *args: Any, **options: Any) -> Any:
        given = args[0] if args else options.get("args")
        if "--json" not in (sys.argv[1:] if given is None else given):
            return super().main(*args, **options)
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except Exception as error:
            if not hasattr(error, "format_message"):  # only usage errors have one
                raise
            message = error.format_message()
            _print_json({"error": _usage_error(message)})
            typer.echo(f"UsageError: {message}", err=True)
            sys.exit(EXIT_ERROR)
        sys.exit(code if isinstance(code, int) else 0)


def _usage_error(message: str) -> dict[str, str | None]:
    return {
        "type": "UsageError",
        "code": "usage",
        "reason": None,
        "subject": "command line",
        "found": message,
        "expected": "the commands, arguments and options that --help lists",
        "remedy": "Run mammoclip-sdk --help, or the command with --help.",
    }


app = typer.Typer(
    cls=_Commands,
    help="Score four-view screening mammography exams.",
    epilog=_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
bundle_app = typer.Typer(help="Look into a bundle, or check it.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cuda or cpu. This version knows tensorrt and openvino by name alone, and says "
        "what they will need."
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse an exam where two images claim one view.")
]
BundlePath = Annotated[Path, typer.Argument(help="The bundle's folder, or a zip of it.")]


def main() -> None:
    """Run the command line; the entry point of the installed command."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what it cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mammoclip-sdk {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Hold the options that come before any command."""


@app.command(epilog=_CODES)
def predict(
    paths: Annotated[
        list[Path], typer.Argument(help="A folder with one exam, or its DICOM files.")
    ],
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle; without it, the demo bundle (phantoms only).")
    ] = None,
    device: Device = "auto",
    strict: Strict = False,
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate",
            help="Decode in child processes with limits of memory and time, for files you do not "
            "trust.",
        ),
    ] = False,
    as_json: AsJson = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page there.")] = None,
) -> None:
    """Score one exam."""
    with _failures(as_json):
        from mammoclip_sdk.predictor import Predictor

        with Predictor(bundle, device, isolate=isolate) as predictor:
            _score(predictor, paths, strict=strict, as_json=as_json, report=report)


@app.command(epilog=_CODES)
def scan(
    folder: Annotated[Path, typer.Argument(help="A folder with any number of studies.")],
    bundle: Annotated[
        Path | None,
        typer.Option(help="Take what it accepts for an exam; without it, plain mammograms alone."),
    ] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """List the exams in an archive by their headers; no pixel is decoded."""
    with _failures(as_json):
        from mammoclip_sdk import archive
        from mammoclip_sdk.bundle import read_bundle
        from mammoclip_sdk.exam import PLAIN

        acceptance = PLAIN if bundle is None else read_bundle(bundle).manifest.acceptance
        with _progress_bar("Reading headers") as progress:
            found = archive.scan(folder, strict=strict, acceptance=acceptance, progress=progress)
        if as_json:
            _print_json(console.archive_values(found))
        else:
            _print(console.archive_lines(found))
        if not found.exams:  # to a script, this must not look like an archive that was scored
            raise typer.Exit(EXIT_NOT_SCORED)


@app.command(epilog=_CODES)
def demo(
    report: Annotated[Path, typer.Option(help="Write the HTML page there.")] = Path(
        "mammoclip-report.html"
    ),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score the example exam, a phantom, with the demo bundle."""
    with _failures(as_json):
        from mammoclip_sdk.predictor import DEMO_EXAM, Predictor

        with Predictor(device=device) as predictor:
            _score(predictor, [DEMO_EXAM], strict=False, as_json=as_json, report=report)


@bundle_app.command(epilog=_CODES)
def inspect(path: BundlePath, as_json: AsJson = False) -> None:
    """Read a bundle strictly, and say what it holds. No runtime is needed."""
    with _failures(as_json):
        from mammoclip_sdk.bundle import read_bundle

        bundle = read_bundle(path)
        if as_json:
            _print_json(console.bundle_values(bundle))
        else:
            _print(console.bundle_lines(bundle))


@bundle_app.command(epilog=_CODES)
def verify(path: BundlePath, device: Device = "auto", as_json: AsJson = False) -> None:
    """Read a bundle strictly, and run its golden exams on this machine."""
    with _failures(as_json):
        from mammoclip_sdk.bundle import read_bundle
        from mammoclip_sdk.golden import require_golden
        from mammoclip_sdk.sessions import open_session
        from mammoclip_sdk.strict_json import to_plain

        bundle = read_bundle(path)
        with closing(open_session(bundle, device)) as session:
            result = require_golden(bundle, session)
        if as_json:
            _print_json({"bundle_sha256": bundle.sha256, "verified": True, **to_plain(result)})
            return
        typer.echo(f"{bundle.manifest.name} {bundle.manifest.version}: verified")
        typer.echo(f"  {result.runtime}, {result.precision}")
        typer.echo(
            f"  {result.exams} golden exams, worst logit difference "
            f"{result.worst_difference:.3g}, at most {result.tolerance:.3g}"
        )


@contextmanager
def _failures(as_json: bool) -> Iterator[None]:
    """Turn what a user can mend into a message and an exit code; let defects show as such."""
    try:
        yield
        sys.stdout.flush()
    except MammoClipError as error:
        if as_json:
            _print_json({"error": error.to_dict()})
        typer.echo(console.error_text(error), err=True)
        raise typer.Exit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read the output is gone; without this, Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_BROKEN_PIPE) from None


@contextmanager
def _progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something has come, on a terminal alone: stderr may be a log."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    terminal = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    hidden = not terminal.is_terminal
    with Progress(*columns, console=terminal, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _score(
    predictor: Predictor,
    paths: list[Path],
    *,
    strict: bool,
    as_json: bool,
    report: Path | None,
) -> None:
    views = paths if len(paths) > 1 or _is_file(paths[0]) else paths[0]
    if report is None:
        prediction = predictor.predict(views, strict=strict)
    else:
        from mammoclip_sdk.report import write_report

        examination = predictor.examine(views, strict=strict)
        write_report(examination, report)
        prediction = examination.prediction
    if as_json:
        typer.echo(prediction.to_json())
    else:
        _print(console.prediction_lines(prediction, predictor.bundle.manifest))
        if report is not None:
            _print([console.report_line(report)], wrap=False)  # a path is there to be copied
    if prediction.status == "abstained":
        raise typer.Exit(EXIT_NOT_SCORED)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long; whoever opens it says so
        return False


def _print(lines: Iterable[Text], *, wrap: bool = True) -> None:
    from rich.console import Console

    screen = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        screen.print(line, soft_wrap=not wrap)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


if __name__ == "__main__":
    main()
