"""`mammoclip-sdk bundle sign` and `bundle accept`: who vouches for a bundle, and for going back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mammoclip_sdk.commands.options import AcceptedFile, AsJson, BundlePath, TrustedKeys, trust_in
from mammoclip_sdk.commands.output import CODES, failures, print_json

app = typer.Typer()


@app.command(epilog=CODES)
def sign(
    path: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    key: Annotated[
        Path,
        typer.Option(
            help="Private Ed25519 key in PEM (PKCS #8). The password of an encrypted one is taken "
            "from MAMMOCLIP_KEY_PASSWORD, or asked for."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Sign a bundle: read it strictly, and write manifest.sig into it."""
    with failures(as_json):
        from mammoclip_sdk.bundle.signature import load_signer
        from mammoclip_sdk.bundle.trusted import sign_bundle

        signer = load_signer(key)
        bundle = sign_bundle(path, signer)
        if as_json:
            print_json({"bundle_sha256": bundle.sha256, "key_id": signer.key_id})
        else:
            typer.echo(f"{bundle.manifest.name} {bundle.manifest.version}: signed")
            typer.echo(f"  key {signer.key_id}")


@app.command(epilog=CODES)
def accept(
    path: BundlePath,
    trust: TrustedKeys = None,
    accepted: AcceptedFile = None,
    as_json: AsJson = False,
) -> None:
    """Accept a signed release without running it, even one older than what is in use.

    It is recorded as asked for; from then on it is what a release may not fall behind. Needs
    --trust.
    """
    if not trust:
        raise typer.BadParameter("bundle accept needs --trust, the key that signed the bundle")
    with failures(as_json):
        from dataclasses import replace

        from mammoclip_sdk.bundle import read_bundle
        from mammoclip_sdk.bundle.releases import COMMAND, record_file
        from mammoclip_sdk.bundle.trusted import accept_release
        from mammoclip_sdk.strict_json import to_plain

        asked = replace(trust_in(trust, accepted), allow_older=True)
        bundle = read_bundle(path, asked)
        before = accept_release(bundle, asked, by=COMMAND)
        record = record_file(accepted)
        if as_json:
            said = {"accepted": bundle.release(), "before": before}
            print_json({**to_plain(said), "record": str(record)})
            return
        manifest = bundle.manifest
        typer.echo(f"{manifest.name} {manifest.version} (release {manifest.release}): accepted")
        if before is not None:
            typer.echo(f"  before: {before.version} (release {before.release})")
        typer.echo(f"  recorded in {record}")
