"""The command line: `mammoclip-sdk`, and `python -m mammoclip_sdk`."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mammoclip_sdk import __version__
from mammoclip_sdk.commands import bundle as bundle_commands
from mammoclip_sdk.commands import console, signing
from mammoclip_sdk.commands import engine as engine_commands
from mammoclip_sdk.commands.options import (
    AcceptedFile,
    AsJson,
    Device,
    Precision,
    TrustedKeys,
    trust_of,
    views_of,
)
from mammoclip_sdk.commands.output import (
    CODES,
    EXIT_ERROR,
    EXIT_NOT_SCORED,
    failures,
    print_error,
    print_json,
    print_lines,
    print_text,
    progress_bar,
)
from mammoclip_sdk.strict_json import one_line

if TYPE_CHECKING:
    from mammoclip_sdk.predictor import Predictor


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
            print_json({"error": _usage_error(message)})
            print_error(f"UsageError: {message}")
            sys.exit(EXIT_ERROR)
        sys.exit(code if isinstance(code, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # As a path, a shell's variable that is not set would be the folder one is in.
        if any(not one or (one.startswith("--") and one.endswith("=")) for one in args):
            raise typer.BadParameter("one of the arguments is empty", ctx)
        return super().parse_args(ctx, args)


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
    epilog=CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
bundle_commands.app.add_typer(signing.app)
app.add_typer(bundle_commands.app, name="bundle")
app.add_typer(engine_commands.app, name="engine")

Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse an exam where two images claim one view.")
]


def main() -> None:
    """Run the command line; the entry point of the installed command."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what it cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    # What a warning says, without the line of this software that says it.
    warnings.formatwarning = lambda message, kind, *_, **__: (
        f"{kind.__name__}: {one_line(str(message))}\n"
    )
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print_text(f"mammoclip-sdk {__version__}")
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


@app.command(epilog=CODES)
def predict(
    paths: Annotated[
        list[Path], typer.Argument(help="A folder with one exam, or its DICOM files.")
    ],
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle; without it, the demo bundle (phantoms only).")
    ] = None,
    device: Device = "auto",
    precision: Precision = None,
    trust: TrustedKeys = None,
    accepted: AcceptedFile = None,
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
    with failures(as_json):
        from mammoclip_sdk.predictor import Predictor

        trusted = trust_of(trust, accepted)
        with Predictor(
            bundle, device, precision=precision, isolate=isolate, trust=trusted
        ) as predictor:
            _score(predictor, paths, strict=strict, as_json=as_json, report=report)


@app.command(epilog=CODES)
def scan(
    folder: Annotated[Path, typer.Argument(help="A folder with any number of studies.")],
    bundle: Annotated[
        Path | None,
        typer.Option(help="Take what it accepts for an exam; without it, plain mammograms alone."),
    ] = None,
    trust: TrustedKeys = None,
    accepted: AcceptedFile = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """List the exams in an archive by their headers; no pixel is decoded."""
    if trust and bundle is None:
        raise typer.BadParameter("--trust means nothing without --bundle")
    with failures(as_json):
        from mammoclip_sdk import archive
        from mammoclip_sdk.bundle import read_bundle
        from mammoclip_sdk.exam import PLAIN

        trusted = trust_of(trust, accepted)
        acceptance = PLAIN if bundle is None else read_bundle(bundle, trusted).manifest.acceptance
        with progress_bar("Reading headers") as progress:
            found = archive.scan(folder, strict=strict, acceptance=acceptance, progress=progress)
        if as_json:
            print_json(console.archive_values(found))
        else:
            print_lines(console.archive_lines(found, folder))
        if not found.exams:  # to a script, this must not look like an archive that was scored
            raise typer.Exit(EXIT_NOT_SCORED)


@app.command(epilog=CODES)
def demo(
    report: Annotated[Path, typer.Option(help="Write the HTML page there.")] = Path(
        "mammoclip-report.html"
    ),
    device: Device = "auto",
    precision: Precision = None,
    as_json: AsJson = False,
) -> None:
    """Score the example exam, a phantom, with the demo bundle."""
    with failures(as_json):
        from mammoclip_sdk.predictor import DEMO_EXAM, Predictor

        with Predictor(device=device, precision=precision) as predictor:
            _score(predictor, [DEMO_EXAM], strict=False, as_json=as_json, report=report)


def _score(
    predictor: Predictor,
    paths: list[Path],
    *,
    strict: bool,
    as_json: bool,
    report: Path | None,
) -> None:
    views = views_of(paths)
    if report is None:
        prediction = predictor.predict(views, strict=strict)
    else:
        from mammoclip_sdk.report import write_report

        examination = predictor.examine(views, strict=strict)
        write_report(examination, report)
        prediction = examination.prediction
    if as_json:
        print_text(prediction.to_json())
    else:
        print_lines(console.prediction_lines(prediction))
        if report is not None:
            print_lines([console.report_line(report)], wrap=False)  # a path is there to be copied
    if prediction.status == "abstained":
        raise typer.Exit(EXIT_NOT_SCORED)


if __name__ == "__main__":
    main()
