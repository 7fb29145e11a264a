"""The command line: `mammoclip-sdk`, and `python -m mammoclip_sdk`."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mammoclip_sdk import __version__
from mammoclip_sdk.errors import MammoClipError

if TYPE_CHECKING:
    from mammoclip_sdk.bundle import Bundle
    from mammoclip_sdk.prediction import Prediction

EXIT_ERROR = 2
EXIT_ABSTAINED = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

_CODES = (
    "Exit codes: 0 done; 2 refused, with the reason on stderr (and as JSON on stdout with "
    "--json); 3 read, but not scored (abstained); 1 a defect of this software."
)

app = typer.Typer(
    help="Score four-view screening mammography exams.",
    epilog=_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
bundle_app = typer.Typer(help="Look into a bundle, or check it.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
Device = Annotated[str, typer.Option(help="auto, tensorrt, cuda, openvino or cpu.")]
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
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse an exam where two images claim one view.")
    ] = False,
    as_json: AsJson = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page there.")] = None,
) -> None:
    """Score one exam."""
    with _failures(as_json):
        _score(paths, bundle, device, strict=strict, as_json=as_json, report=report)


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
        from mammoclip_sdk.predictor import DEMO_EXAM

        _score([DEMO_EXAM], None, device, strict=False, as_json=as_json, report=report)


@bundle_app.command()
def inspect(path: BundlePath, as_json: AsJson = False) -> None:
    """Read a bundle strictly, and say what it holds. No runtime is needed."""
    with _failures(as_json):
        from mammoclip_sdk.bundle import read_bundle

        bundle = read_bundle(path)
        if as_json:
            _print_json(_description(bundle))
        else:
            _show_bundle(bundle)


@bundle_app.command()
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
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(EXIT_ERROR) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read the output is gone; without this, Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_BROKEN_PIPE) from None


def _score(
    paths: list[Path],
    bundle: Path | None,
    device: str,
    *,
    strict: bool,
    as_json: bool,
    report: Path | None,
) -> None:
    from mammoclip_sdk.predictor import Predictor

    views = paths if len(paths) > 1 or _is_file(paths[0]) else paths[0]
    with Predictor(bundle, device) as predictor:
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
        _show(prediction, report)
    if prediction.status == "abstained":
        raise typer.Exit(EXIT_ABSTAINED)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long; whoever opens it says so
        return False


def _show(prediction: Prediction, report: Path | None) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if prediction.status == "abstained":
        console.print("Not scored. This is not a negative result.", style="bold")
    for finding in prediction.findings:
        kind = "calibrated" if finding.calibrated else "uncalibrated"
        console.print(f"{finding.name}  {finding.probability:.3f}  ({kind})", style="bold")
        if finding.operating_points_met:
            console.print(f"  reaches {', '.join(finding.operating_points_met)}")
    for reason in prediction.reasons:
        console.print(f"  {reason.code} {reason.message}")
    for record in prediction.views:
        console.print(f"  {record.view:<4}  {record.name}")
        for other in record.alternatives:
            console.print(f"        not {other.name}: {other.reason}", style="dim")
    for note in prediction.notes:
        console.print(f"  note: {note}", style="dim")
    ran = prediction.provenance
    console.print(f"  {ran.bundle} {ran.bundle_version}, {ran.runtime}", style="dim")
    console.print(f"  {prediction.timing.total:.0f} ms", style="dim")
    if ran.not_for_clinical_use:
        console.print(f"Not for clinical use. {ran.intended_use}")
    if report is not None:
        console.print(f"Report: {report.resolve()}", soft_wrap=True)


def _description(bundle: Bundle) -> dict[str, object]:
    """Everything in the manifest but the numbers of the text embeddings."""
    from mammoclip_sdk.strict_json import to_plain

    manifest = to_plain(bundle.manifest)
    for finding in manifest["findings"]:
        for key in ("negative_embedding", "positive_embedding"):
            finding[key] = f"{len(finding[key])} numbers"
    return {
        "path": bundle.path,
        "sha256": bundle.sha256,
        "bytes": {name: len(data) for name, data in bundle.files.items()},
        "manifest": manifest,
    }


def _show_bundle(bundle: Bundle) -> None:
    manifest = bundle.manifest
    typer.echo(f"{manifest.name} {manifest.version} (release {manifest.release})")
    typer.echo(f"  sha256     {bundle.sha256}")
    typer.echo(f"  use        {manifest.intended_use}")
    keys = manifest.preprocessing
    typer.echo(f"  input      {keys.height} x {keys.width} pixels a view, {keys.geometry}")
    for graph in manifest.graphs:
        size = len(bundle.files[graph.file]) / 1e6
        typer.echo(f"  graph      {graph.file}, {graph.precision}, {size:.1f} MB")
    for finding in manifest.findings:
        kind = "calibrated" if finding.calibration else "uncalibrated"
        points = ", ".join(point.name for point in finding.operating_points) or "none"
        typer.echo(f"  finding    {finding.name}, {kind}, operating points: {points}")
    for measured in manifest.measurements:
        value = measured.value
        typer.echo(
            f"  measured   {measured.name} {value.estimate:.3f} "
            f"({value.lower:.3f} to {value.upper:.3f}) on {measured.exams} exams: {measured.data}"
        )


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


if __name__ == "__main__":
    main()
