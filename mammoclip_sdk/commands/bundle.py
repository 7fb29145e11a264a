"""`mammoclip-sdk bundle`: look into a bundle, or check it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from mammoclip_sdk.commands import console
from mammoclip_sdk.commands.options import (
    AcceptedFile,
    AsJson,
    BundlePath,
    Device,
    Precision,
    TrustedKeys,
    trust_of,
)
from mammoclip_sdk.commands.output import (
    CODES,
    EXIT_ERROR,
    failures,
    print_error,
    print_json,
    print_lines,
    progress_bar,
)
from mammoclip_sdk.errors import MammoClipError

if TYPE_CHECKING:
    from mammoclip_sdk.bundle import Bundle, Manifest
    from mammoclip_sdk.parity.certificate import Certificate, Comparison

app = typer.Typer(help="Look into a bundle, or check it.", no_args_is_help=True)


@app.command(epilog=CODES)
def inspect(
    path: BundlePath,
    trust: TrustedKeys = None,
    accepted: AcceptedFile = None,
    as_json: AsJson = False,
) -> None:
    """Read a bundle strictly, and say what it holds. No runtime is needed."""
    with failures(as_json):
        from mammoclip_sdk.bundle import read_bundle

        bundle = read_bundle(path, trust_of(trust, accepted))
        if as_json:
            print_json(console.bundle_values(bundle))
        else:
            print_lines(console.bundle_lines(bundle))


@app.command(epilog=CODES)
def verify(
    path: BundlePath,
    device: Device = "auto",
    precision: Precision = None,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity",
            help="Run the bundle's parity exams on every device and precision that is here, or on "
            "those that are named, and judge them; minutes instead of seconds.",
        ),
    ] = False,
    certificate: Annotated[
        Path | None,
        typer.Option(help="Write the certificate there, .json or .html. Needs --parity."),
    ] = None,
    trust: TrustedKeys = None,
    accepted: AcceptedFile = None,
    as_json: AsJson = False,
) -> None:
    """Read a bundle strictly, and run its golden exams on this machine, or all parity exams."""
    if certificate is not None and not parity:
        raise typer.BadParameter("--certificate needs --parity")
    with failures(as_json):
        from mammoclip_sdk.bundle import read_bundle

        bundle = read_bundle(path, trust_of(trust, accepted))
        certified = _require_shipped(bundle)
        if parity:
            _verify_parity(bundle, device, precision, certificate, as_json=as_json)
        else:
            _verify_golden(bundle, device, precision, certified, as_json=as_json)


def _require_shipped(bundle: Bundle) -> int | None:
    """Return how many exams the certificate in the bundle rests on; None where it has none."""
    from mammoclip_sdk.parity.certificate import KIND, require_certificate

    if bundle.manifest.attachment(KIND) is None:
        return None
    return require_certificate(bundle).exams


def _verify_golden(
    bundle: Bundle, device: str, precision: str | None, certified: int | None, *, as_json: bool
) -> None:
    from mammoclip_sdk.golden import require_golden
    from mammoclip_sdk.sessions import open_session
    from mammoclip_sdk.strict_json import to_plain

    with closing(open_session(bundle, device, precision=precision)) as session:
        result = require_golden(bundle, session)
    if as_json:
        said = {"bundle_sha256": bundle.sha256, "verified": True, "certificate_exams": certified}
        print_json({**said, **to_plain(result)})
        return
    worst = f"{result.worst_difference:.3g}, at most {result.tolerance:.3g}"
    print_lines(
        (
            f"{bundle.manifest.name} {bundle.manifest.version}: verified",
            f"  {result.runtime}, {result.precision}",
            f"  {result.exams} golden exams, worst {result.quantity} difference {worst}",
            "  it has no parity certificate"
            if certified is None
            else f"  its parity certificate is its own and passed, over {certified} exams",
        )
    )


def _verify_parity(
    bundle: Bundle, device: str, precision: str | None, file: Path | None, *, as_json: bool
) -> None:
    from mammoclip_sdk.parity import certify
    from mammoclip_sdk.strict_json import to_plain

    if file is not None:
        _require_new(file)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with progress_bar("Running the parity exams") as progress:
        made = certify(bundle, device, precision, issued_at=now, progress=progress)
    if file is not None:
        _write(made, bundle.manifest, file)
    asked = _asked(device, precision)
    if as_json:
        narrowed = {"device": device, "precision": precision} if asked else None
        said = {"verified": made.passed, "narrowed_to": narrowed, "certificate": to_plain(made)}
        print_json(said)
    else:
        print_lines(_lines(made, asked))
        if file is not None:
            print_lines([f"Certificate: {file.resolve()}"], wrap=False)
    if not made.passed:
        for failure in made.failures:
            print_error(f"Gate failed: {failure}")
        raise typer.Exit(EXIT_ERROR)


def _asked(device: str, precision: str | None) -> str:
    """Say what a run was narrowed to; nothing where it was not."""
    where = "" if device == "auto" else f"on device {device} "
    return where if precision is None else f"{where}in precision {precision} "


def _lines(made: Certificate, asked: str) -> Iterator[Text]:
    which = f"every runtime {asked or 'that was here '}agrees within its limits"
    said = which if made.passed else f"not {which}"
    rest = "; no other was asked for" if asked else ""
    yield Text(f"{made.bundle} {made.version}: {said}{rest}", "bold")
    yield Text(f"  {made.exams} exams, worst cases, compared with {made.reference}")
    for one in made.comparisons:
        yield from _comparison_lines(one)
    for absent in made.absent:
        yield Text(f"  not compared: {absent.device}, {absent.precision}: {absent.reason}", "dim")


def _comparison_lines(one: Comparison) -> Iterator[Text]:
    from mammoclip_sdk.parity.agreement import gate_text

    yield Text(f"  {one.runtime}, {one.precision}: {one.verdict}")
    yield Text(f"    {one.hardware}", "dim")
    for gate in one.gates:
        yield Text(f"    {gate_text(gate)}", "bold" if gate.verdict == "failed" else "dim")


def _require_new(file: Path) -> None:
    """Refuse before minutes of work; a certificate that is there is a record, and stays."""
    from mammoclip_sdk.bundle.folder import enclosing_bundle

    if file.suffix not in (".json", ".html"):
        raise _unwritable(file, f"the ending {file.suffix!r}", "a name that ends .json or .html")
    around = enclosing_bundle(file.parent)
    if around is not None:
        raise _unwritable(file, f"a place inside the bundle {around}", "one outside of any bundle")
    if file.exists() or not file.parent.is_dir():
        found = "something of that name" if file.exists() else "no such folder"
        raise _unwritable(file, found, "a new name, in a folder that exists")


def _write(made: Certificate, manifest: Manifest, file: Path) -> None:
    from mammoclip_sdk.parity.certificate import certificate_to_json
    from mammoclip_sdk.parity.certificate_page import to_html

    text = certificate_to_json(made) if file.suffix == ".json" else to_html(made, manifest)
    try:
        with file.open("x", encoding="utf-8") as stream:
            try:
                stream.write(text)
                stream.flush()
            except OSError:
                with suppress(OSError):
                    file.unlink()
                raise
    except (OSError, ValueError) as error:
        found = f"a place that cannot be written ({getattr(error, 'strerror', error)})"
        raise _unwritable(file, found, "a new name, in a folder that exists") from error


def _unwritable(file: Path, found: str, expected: str) -> MammoClipError:
    return MammoClipError(
        str(file),
        found=found,
        expected=expected,
        remedy="Choose another place for the certificate.",
        code="certificate",
    )
