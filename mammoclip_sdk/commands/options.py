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


def views_of(paths: list[Path]) -> list[Path] | Path:
    """Return what `Predictor.predict` takes for the paths that were typed.

    Raises
    ------
    ExamError
        ``not_a_folder``: there is nothing at one of them. It shows the whole path, which whoever
        typed it may see; the stages behind never do, for folders are named after patients.
    """
    from mammoclip_sdk.errors import ExamError

    for path in paths:
        try:
            path.stat()
        except OSError as error:
            raise ExamError(
                str(path),
                found=f"nothing that can be read ({error.strerror})",
                expected="a folder with the DICOM files of one exam, or these files",
                remedy="Check the path; files of one exam are given one after the other.",
                code="not_a_folder",
            ) from error
    return paths if len(paths) > 1 or paths[0].is_file() else paths[0]


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
