"""What an export takes and gives: time, memory, sizes, and how far each graph is from PyTorch.

``python benchmarks/export.py`` makes a checkpoint of random weights for each model, exports it as
``export/build_engine.py`` does for anyone, with an engine of TensorRT for RTX where that is
installed, and writes ``export-MODEL.json`` and ``export-MODEL.md`` into ``benchmarks/results`` and
the tables of all models there into ``docs/figures.md``. Each export is a process of its own, whose
peak memory the system counts.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.figures import publish
from benchmarks.latency_report import absences
from benchmarks.machine import Machine, describe_machine
from mammoclip_sdk.bundle import read_bundle
from mammoclip_sdk.parity.certificate import Certificate, Comparison, certificate_from_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MODELS = ("ViT-B-16", "ViT-L-14")
SEED = 2404
_MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class Export:
    """One model's export."""

    command: str
    machine: Machine
    model: str
    commands: tuple[str, ...]
    bundle_sha256: str
    stages: tuple[Mapping[str, object], ...]
    """``name``, ``seconds`` and ``peak_mib`` of each: the process's peak so far."""
    files: Mapping[str, int]
    """Bytes of each file of the bundle."""
    engines: tuple[Mapping[str, object], ...]
    certificate: Certificate


def export(model: str, folder: Path) -> Export:
    """Make a checkpoint of random weights and a bundle of it, in ``folder``.

    Raises
    ------
    subprocess.CalledProcessError
        The export failed, such as at a gate of its certificate.
    """
    checkpoint, bundle, record = (folder / f"{model}{end}" for end in ("-checkpoint", "", ".json"))
    made = ["-m", "export.random_checkpoint", "--model", model, "--seed", str(SEED)]
    built = ["export/build_engine.py", "--checkpoint", str(checkpoint), "--out", str(bundle),
             "--name", f"random-{model}"]  # fmt: skip
    if importlib.util.find_spec("tensorrt_rtx_bindings") is not None:
        built += ["--engine", "tensorrt_rtx", "--engines", str(folder / "engines")]
    for command in ([*made, "--out", str(checkpoint)], [*built, "--record", str(record)]):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    measured = json.loads(record.read_text(encoding="utf-8"))
    read = read_bundle(bundle)
    return Export(
        command=f"python benchmarks/export.py --model {model}",
        machine=describe_machine(),
        model=model,
        commands=tuple(_as_typed(command, folder) for command in (made, built)),
        bundle_sha256=read.sha256,
        stages=tuple(measured["stages"]),
        files=measured["files"],
        engines=tuple(measured["engines"]),
        certificate=certificate_from_json(
            read.files["certificate.json"].decode(), subject="certificate.json"
        ),
    )


def _as_typed(command: Sequence[str], folder: Path) -> str:
    """Return the command without the folder of this run."""
    return shlex.join(["python", *(part.replace(f"{folder}/", "") for part in command)])


def to_markdown(one: Export) -> str:
    """Lay an export out as tables, with everything one needs to judge the numbers."""
    certificate = one.certificate
    total = sum(float(stage["seconds"]) for stage in one.stages if not _of_engine(stage))
    int8 = sum(float(stage["seconds"]) for stage in one.stages if "int8" in str(stage["name"]))
    peak = max(float(stage["peak_mib"]) for stage in one.stages)
    graphs = ", ".join(
        f"{name} {size / _MIB:.0f} MiB" for name, size in one.files.items() if ".onnx" in name
    )
    lines = [
        f"`{one.command}`, {one.machine.line()}",
        "",
        f"**{one.model}**, random weights of seed {SEED} (bundle `{one.bundle_sha256[:12]}`): "
        f"{total:.0f} s, of them {int8:.0f} s for int8; peak memory {peak / 1024:.2f} GiB; "
        f"{graphs}.",
        "",
        "| stage | seconds | peak memory so far, GiB |",
        "|---|---|---|",
        *(
            f"| {stage['name']} | {stage['seconds']:.1f} | {stage['peak_mib'] / 1024:.2f} |"
            for stage in one.stages
        ),
        "",
        f"Over {certificate.exams} phantom exams, worst case, at logit scale 100:",
        "",
        "| runtime | precision | logit | 1 - cosine | length - 1 | probability | AUC |",
        "|---|---|---|---|---|---|---|",
        *map(_comparison_line, certificate.comparisons),
        "",
        "Random weights do not tell malignant exams from others, so that no area under the curve "
        "could change: it is not judged here.",
        "",
        *([f"Not compared: {_absences(certificate)}.", ""] if certificate.absent else []),
        *_engine_lines(one),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _of_engine(stage: Mapping[str, object]) -> bool:
    return str(stage["name"]).startswith("engine")


def _comparison_line(comparison: Comparison) -> str:
    measured = comparison.agreement
    probabilities = [f.probability.value for f in measured.findings if f.probability]
    values = [
        *(None if one is None else one.value
          for one in (measured.logit, measured.cosine, measured.length)),
        max(probabilities, default=None),
    ]  # fmt: skip
    cells = " | ".join("" if value is None else f"{value:.1e}" for value in values)
    judged = [gate for gate in comparison.gates if gate.quantity == "auc"]
    areas = {"not judged" if gate.value is None else f"{gate.value:.1e}" for gate in judged}
    return f"| {comparison.runtime} | {comparison.precision} | {cells} | {', '.join(areas)} |"


def _absences(certificate: Certificate) -> str:
    return absences({f"{one.device} in {one.precision}": one.reason for one in certificate.absent})


def _engine_lines(one: Export) -> list[str]:
    if not one.engines:
        return ["No engine was built: TensorRT for RTX is not installed.", ""]
    stages = {str(stage["name"]): stage for stage in one.stages}
    lines = []
    for engine in one.engines:
        stage = stages[f"engine {engine['flavour']}"]
        lines += [
            f"Engine of {engine['flavour']} {engine['version']} in {engine['precision']}, without "
            f"a GPU: built in {float(stage['seconds']):.1f} s, "
            f"{int(engine['plan_bytes']) / _MIB:.0f} MiB; parity: {engine['parity']}.",
            "",
        ]
    return lines


def main(
    model: Annotated[
        list[str] | None, typer.Option(help="open_clip model; again for another.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep checkpoints and bundles in this folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    documents: Annotated[bool, typer.Option(help="Write the tables into the documents.")] = True,
) -> None:
    """Export random models, measure, print and write the report."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if keep is None else keep.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for name in model or MODELS:
            one = export(name, folder)
            text = to_markdown(one)
            (out / f"export-{name}.json").write_text(json.dumps(asdict(one), indent=2) + "\n")
            (out / f"export-{name}.md").write_text(f"# Export of {name}\n\n{text}")
            Console().print(text, markup=False, highlight=False)
    if documents:
        publish("export", tables(out))


def tables(results: Path) -> str:
    """Return the tables of every model that was measured."""
    texts = (path.read_text() for path in sorted(results.glob("export-*.md")))
    return "\n".join(text.partition("\n\n")[2] for text in texts)


if __name__ == "__main__":
    typer.run(main)
