"""The arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mammoclip_sdk.bundle.signature import Trust

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
BundlePath = Annotated[Path, typer.Argument(help="The bundle's folder, or a zip of it.")]
Device = Annotated[
    str,
    typer.Option(
        help="auto, tensorrt, cuda, openvino or cpu. Only auto chooses: an engine that was built "
        "and checked, else CUDA, else the CPU."
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="fp32, fp16, bf16 or int8. Without it the device's own: fp32 on cpu and openvino, on "
        "cuda and tensorrt fp16 where the bundle has it."
    ),
]
TRUST = typer.Option(
    "--trust",
    help="Public Ed25519 key in PEM that must have signed the bundle; several if repeated. "
    "An older release than was accepted before is then refused.",
)
TrustedKeys = Annotated[list[Path] | None, TRUST]
AcceptedFile = Annotated[
    Path | None,
    typer.Option(
        "--accepted", help="Record of accepted releases; without it, the user's own. Needs --trust."
    ),
]


def trust_of(keys: list[Path] | None, accepted: Path | None) -> Trust | None:
    """Return what a command was told to trust; None where it was told nothing."""
    if keys:
        return trust_in(keys, accepted)
    if accepted is not None:
        raise typer.BadParameter("--accepted means nothing without --trust")
    return None


def trust_in(keys: list[Path], accepted: Path | None) -> Trust:
    """Return the trust in public keys; see `signature.Trust.in_files`."""
    from mammoclip_sdk.bundle.signature import Trust

    return Trust.in_files(keys, accepted=accepted)
