"""Checkpoint -> bundle: fold, export, prove that every graph agrees, write; or write nothing.

``python export/build_engine.py --checkpoint CHECKPOINT --out BUNDLE``
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from export import manifest
from export.answers import Answers, ask
from export.engines import BuiltEngine, build_engines, require_flavours
from export.errors import ExportError
from export.exams import RANGE_EXAMS, extremes, phantoms
from export.graphs import Graphs, reference_graph, with_half, with_int8
from export.int8 import CALIBRATION_EXAMS, QuantizationError
from export.place import check_place
from export.runtimes import incomparable, require_compared, require_runtimes
from export.settings import PRECISIONS, ExportConfig
from export.stages import Stages
from export.verify import ParityError, verify
from mammoclip_sdk.bundle import (
    Bundle,
    Manifest,
    manifest_from_json,
    manifest_to_json,
    model_card,
    sbom,
    sha256,
    write_bundle,
)
from mammoclip_sdk.bundle.signature import load_signer
from mammoclip_sdk.errors import BundleFormatError, MammoClipError
from mammoclip_sdk.parity import certificate_page
from mammoclip_sdk.parity.agreement import gate_text
from mammoclip_sdk.parity.certificate import (
    Certificate,
    certificate_to_json,
    require_certificate,
)
from mammoclip_sdk.parity.exams import write_exams
from mammoclip_sdk.parity.signing import signature_of


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A bundle that was written, and what was found out on the way."""

    certificate: Certificate
    engines: tuple[BuiltEngine, ...]
    files: dict[str, int]
    """Sizes in bytes."""


def main(config: ExportConfig, stages: Stages | None = None) -> Exported:
    """Make a bundle whose graphs agree with the training model on every runtime that is here.

    Raises
    ------
    ParityError, QuantizationError
        They do not agree; no bundle was written.
    CheckpointError, ExportError, PrecisionError
        The checkpoint or the settings cannot be used; no bundle was written.
    BundleError
        The key or the place cannot be used, or the disk refused; no bundle was written.
    DeviceError
        The bundle was written, but an engine was not built, or does not agree on this GPU. Where
        the engine's runtime is not installed, this is said first, and no bundle was written.
    """
    stages = stages or Stages(Console(quiet=True))
    signer = None if config.sign is None else load_signer(config.sign)
    require_flavours(config)
    require_runtimes(config)
    check_place(config)
    answers, encoder = ask(config, stages)
    graphs = reference_graph(encoder, stages)
    check_description(config, answers, graphs)
    calibration = calibration_exams(config, answers, stages)
    if "fp16" in config.precisions:
        graphs = with_half(graphs, encoder, calibration[: 1 + RANGE_EXAMS], stages)
    del encoder  # a copy of the weights, and the next stages need the memory
    if "int8" in config.precisions:
        graphs = with_int8(graphs, calibration[1:], answers.findings, stages)
    bundle, certificate = certified(config, answers, graphs, stages)
    with stages("write"):
        signature = None if signer is None else signature_of(bundle, signer)
        write_bundle(
            config.out,
            bundle.manifest,
            bundle.files,
            overwrite=config.overwrite,
            signature=signature,
        )
    sizes = {name: len(data) for name, data in bundle.files.items()}
    return Exported(certificate=certificate, engines=build_engines(config, stages), files=sizes)


def check_description(config: ExportConfig, answers: Answers, graphs: Graphs) -> None:
    """Refuse, before the long work, settings or a checkpoint's record that no manifest takes.

    Raises
    ------
    ExportError
    """
    try:
        text = manifest_to_json(manifest.make_manifest(config, answers, graphs))
        manifest_from_json(text, subject=str(config.checkpoint))
    except BundleFormatError as error:
        raise ExportError(
            f"{config.checkpoint}, with these settings",
            found=error.found,
            expected=error.expected,
            remedy="Correct the option, or the checkpoint's record, that says it.",
        ) from error


def calibration_exams(config: ExportConfig, answers: Answers, stages: Stages) -> np.ndarray:
    """Make the exam of extremes, which the certificate has too, and behind it phantoms of another
    seed than the certificate's: as many as the precisions need.
    """
    needed = {"fp16": RANGE_EXAMS, "int8": CALIBRATION_EXAMS}
    count = max(needed.get(precision, 0) for precision in config.precisions)
    if count == 0:
        return np.zeros(0, np.float32)
    preprocessing = answers.record.preprocessing
    with stages("calibration exams"):
        views, _ = phantoms(preprocessing, seed=config.seed + 1, count=count)
        views = np.concatenate([extremes(preprocessing), views])
        return views.astype(np.float32) / np.float32(255)


def certified(
    config: ExportConfig, answers: Answers, graphs: Graphs, stages: Stages
) -> tuple[Bundle, Certificate]:
    """Compare the graphs with the training model; return the bundle with what came of it.

    Raises
    ------
    ParityError
        A gate failed, or nothing here runs one of the precisions.
    """
    made = manifest.make_manifest(config, answers, graphs)
    files = {**graphs.files, manifest.GOLDEN: answers.golden}
    made = manifest.attached(made, files, "parity_exams", write_exams(answers.parity))
    with stages("compare") as progress:
        certificate = verify(in_memory(config, made, files), progress)
    require_compared(certificate, config.precisions)
    made = manifest.attached(made, files, "certificate", certificate_to_json(certificate))
    page = certificate_page.to_html(certificate, made)
    made = manifest.attached(made, files, "certificate_page", page)
    made = manifest.attached(made, files, "model_card", model_card.page(made))
    parts = sbom.to_json(made, tools=manifest.tool_versions())  # the card is one of them
    made = manifest.attached(made, files, "sbom", parts)
    bundle = in_memory(config, made, files)
    require_certificate(bundle)
    return bundle, certificate


def in_memory(config: ExportConfig, made: Manifest, files: dict[str, bytes]) -> Bundle:
    """Return a bundle as it would be read once it were written."""
    digest = sha256(manifest_to_json(made).encode())
    return Bundle(manifest=made, sha256=digest, files=files, path=str(config.out))


def summary(config: ExportConfig, done: Exported) -> str:
    """Say what was written and how far each graph is from the training model at worst."""
    certificate = done.certificate
    lines = [f"{config.out}: {certificate.exams} exams, against {certificate.reference}"]
    for one in certificate.comparisons:
        lines.append(f"  {one.runtime}, {one.precision}: {one.verdict}")
        lines += [f"    {gate_text(gate)}" for gate in one.gates]
    return "\n".join(lines)


def write_record(path: Path, stages: Stages, done: Exported) -> None:
    """Write what the export took as JSON: times and memory have no place in a bundle."""
    engines = [
        {
            "flavour": one.sidecar.flavour,
            "version": one.sidecar.version,
            "precision": one.sidecar.precision,
            "seconds": one.sidecar.build_seconds,
            "plan_bytes": one.sidecar.plan_bytes,
            "parity": one.sidecar.parity,
        }
        for one in done.engines
    ]
    record = {
        "stages": [asdict(stage) for stage in stages.ended],
        "files": done.files,
        "engines": engines,
    }
    with path.open("x", encoding="utf-8", newline="\n") as file:  # a file that is there stays
        file.write(json.dumps(record, indent=2) + "\n")


def command(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    exams: Annotated[
        Path | None, typer.Option(help="Golden exams: .npz, or a folder of exam folders.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = ExportConfig.name,
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = ExportConfig.version,
    release: Annotated[int, typer.Option(help="Sequence number.")] = ExportConfig.release,
    not_for_clinical_use: Annotated[
        bool, typer.Option("--not-for-clinical-use/--clinical-use", help="What the bundle says.")
    ] = ExportConfig.not_for_clinical_use,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier bundle.")
    ] = ExportConfig.overwrite,
    precisions: Annotated[
        str | None,
        typer.Option(help="What it is certified for, by commas; else all that run here."),
    ] = None,
    parity_exams: Annotated[
        int, typer.Option(help="Exams of the certificate.")
    ] = ExportConfig.parity_exams,
    seed: Annotated[int, typer.Option(help="Of the exams that are made.")] = ExportConfig.seed,
    base_sha256: Annotated[
        str | None, typer.Option(help="Of the base model that is expected.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(help="Private Ed25519 key (PEM) that signs the bundle.")
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="Also build a device engine: tensorrt_rtx or tensorrt. Repeatable."),
    ] = None,
    engines: Annotated[
        Path | None, typer.Option(help="Folder of the engines; else the runtime's cache.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write times, memory and sizes to this JSON file.")
    ] = None,
) -> None:
    """Make a bundle from a checkpoint. Exit code 1: no parity; 2: unusable input."""
    options = locals()
    console = Console(stderr=True)
    stages = Stages(console)
    try:
        if precisions is None:
            options["precisions"] = comparable(stages)
        config = config_of(options)
        done = main(config, stages)
        if config.record is not None:
            write_record(config.record, stages, done)
    except (ParityError, QuantizationError, MammoClipError, ValueError, OSError) as error:
        written = any(stage.name == "write" for stage in stages.ended)
        state = "The bundle was written, but then" if written else "No bundle was written"
        stages.say(f"{state}: {error}")
        raise typer.Exit(1 if disagrees(error) else 2) from error
    typer.echo(summary(config, done))


def disagrees(error: Exception) -> bool:
    """Whether an error says that something computes other answers than the training model."""
    mismatch = getattr(error, "code", "") == "golden_mismatch"
    return mismatch or isinstance(error, ParityError | QuantizationError)


def comparable(stages: Stages) -> str:
    """Return all precisions that something here runs, by commas; say which are left out."""
    absent = incomparable()
    for one, why in absent.items():
        stages.say(f"{one} is left out, and the bundle will not be run in it: found here {why}.")
    return ",".join(one for one in PRECISIONS if one not in absent)


def config_of(options: dict[str, object]) -> ExportConfig:
    """Turn the command's options into settings; `ExportError` says what is wrong with them."""
    options = dict(options)
    precisions = [one.strip() for one in str(options.pop("precisions")).split(",")]
    engine, folder = options.pop("engine"), options.pop("engines")
    return ExportConfig(
        **options, precisions=tuple(precisions), engines=tuple(engine or ()), engine_folder=folder
    )


if __name__ == "__main__":
    typer.run(command)
