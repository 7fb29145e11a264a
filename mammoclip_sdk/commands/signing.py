"""`mammoclip-sdk bundle sign` and `bundle accept`: who vouches for a bundle, and for going back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mammoclip_sdk.commands.options import TRUST, AcceptedFile, AsJson, BundlePath, trust_in
from mammoclip_sdk.commands.output import CODES, failures, print_json, print_lines

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
    """Sign a bundle: read it strictly, and write manifest.sig into it.

    It has to carry a parity certificate of its own, and to have passed it.
    """
    with failures(as_json):
        from mammoclip_sdk.bundle.signature import load_signer
        from mammoclip_sdk.parity.signing import sign_bundle

        signer = load_signer(key)
        bundle = sign_bundle(path, signer)
        if as_json:
            print_json({"bundle_sha256": bundle.sha256, "key_id": signer.key_id})
        else:
            said = f"{bundle.manifest.name} {bundle.manifest.version}: signed"
            print_lines([said, f"  key {signer.key_id}"], wrap=False)


@app.command(epilog=CODES)
def accept(
    path: BundlePath,
    trust: Annotated[list[Path], TRUST],
    accepted: AcceptedFile = None,
    as_json: AsJson = False,
) -> None:
    """Accept a signed release without running it, even one older than what is in use.

    It is recorded as asked for; from then on it is what no release may fall behind.
    """
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
        lines = [f"{manifest.name} {manifest.version} (release {manifest.release}): accepted"]
        if before is not None:
            lines.append(f"  before: {before.version} (release {before.release})")
        print_lines([*lines, f"  recorded in {record}"], wrap=False)
