"""Tools that turn a float32 graph into one in eight bits, side by side: accuracy and time.

``python benchmarks/quantization.py`` takes a bundle's float32 graph through every tool there is
here, runs the results and the bundle's own int8 graph in ONNX Runtime and in OpenVINO, and judges
them by the float32 graph's answers to phantoms that none of them was calibrated on. It writes
``quantization.json`` and ``quantization.md`` into ``benchmarks/results``, and the tables into
``docs/figures.md``.

A tool that this project does not depend on is used where it is importable (``nncf``), else the
report says that it was absent. Attention's own products stay float32 in every graph but NNCF's,
which decides for itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from rich.console import Console
from sklearn.metrics import roc_auc_score

from benchmarks.figures import publish
from benchmarks.latency import time_in_turn
from benchmarks.machine import command_line, describe_machine
from benchmarks.quantization_report import Case, Judgement, Report, to_markdown
from mammoclip_sdk.bundle import Bundle, Finding, Preprocessing, read_bundle
from mammoclip_sdk.predictor import DEMO_BUNDLE
from mammoclip_sdk.sessions import openvino, ort
from training.data import model_input
from training.phantom import PhantomSettings, make_exam

RESULTS = Path(__file__).resolve().parent / "results"
OWN, FLOAT32 = "this project's export/int8.py", "float32"
_CONTRAST = (0.3, 0.6)
_CALIBRATION_SEED, _JUDGED_SEED = 4711, 4712

Views = NDArray[np.float32]
Run = Callable[[Views], NDArray[np.float32]]


class _Exams:
    """Exams one by one, as ONNX Runtime's calibration asks for them."""

    def __init__(self, exams: Views) -> None:
        self._inputs = iter([{"views": exam[np.newaxis]} for exam in exams])

    def get_next(self) -> dict[str, Views] | None:
        """Return the next exam, or None behind the last."""
        return next(self._inputs, None)


def phantoms(preprocessing: Preprocessing, *, seed: int, count: int) -> tuple[Views, NDArray[Any]]:
    """Make exams (N, 4, 1, H, W), 0 to 1, and their labels, every second one malignant."""
    labels = np.arange(count) % 2 == 0
    rows = int(np.clip(2 * max(preprocessing.height, preprocessing.width), 128, 1024))
    drawn = PhantomSettings(seed=seed, rows=rows, columns=rows * 13 // 16, contrast=_CONTRAST)
    exams = [
        make_exam(replace(drawn, malignant_share=float(label)), index)
        for index, label in enumerate(labels)
    ]
    views = np.stack([model_input(exam, preprocessing) for exam in exams])
    return views / np.float32(255), labels


def tools(graph: Path, exams: Views, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield every tool's graph, made of a float32 one."""
    ort.load()
    rounding = importlib.import_module("onnxruntime.quantization")
    dynamic = folder / "dynamic.onnx"
    rounding.quantize_dynamic(
        graph,
        dynamic,
        per_channel=True,
        weight_type=rounding.QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )
    yield "ONNX Runtime, dynamic, per channel", dynamic
    kinds, methods = rounding.QuantType, rounding.CalibrationMethod
    for name, activations, method in (
        ("unsigned activations", kinds.QUInt8, methods.MinMax),
        ("signed activations", kinds.QInt8, methods.MinMax),
        ("unsigned activations, percentile", kinds.QUInt8, methods.Percentile),
    ):
        static = folder / f"{name}.onnx"
        rounding.quantize_static(
            graph,
            static,
            _Exams(exams),
            quant_format=rounding.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=_inside_attention(graph),
            per_channel=True,
            activation_type=activations,
            weight_type=rounding.QuantType.QInt8,
            calibrate_method=method,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        yield f"ONNX Runtime, static, {name}", static
    if importlib.util.find_spec("nncf") is not None:
        yield "NNCF, transformer, SmoothQuant", _by_nncf(graph, exams, folder)


def _inside_attention(graph: Path) -> list[str]:
    """Name the products of two activations."""
    loaded = onnx.load(graph).graph
    constants = {tensor.name for tensor in loaded.initializer}
    return [
        node.name
        for node in loaded.node
        if node.op_type == "MatMul" and node.input[1] not in constants
    ]


def _by_nncf(graph: Path, exams: Views, folder: Path) -> Path:
    import nncf

    made = nncf.quantize(
        onnx.load(graph),
        nncf.Dataset([{"views": exam[np.newaxis]} for exam in exams]),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(exams),
    )
    onnx.save(made, folder / "nncf.onnx")
    return folder / "nncf.onnx"


def runtimes(graph: Path, threads: int) -> Iterator[tuple[str, Run]]:
    """Yield the graph in every runtime there is here, with float32 for what is not in eight bits.

    OpenVINO also in bfloat16, which is what the float32 graph competes with on newer CPUs.
    """
    runtime = ort.load()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    yield "ONNX Runtime", lambda views: session.run(None, {"views": views})[0]
    if importlib.util.find_spec("openvino") is None:
        return
    core = openvino.load().Core()
    for name, hint in (("OpenVINO", "f32"), ("OpenVINO, bf16", "bf16")):
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
        request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
        yield name, lambda views, request=request: request.infer({"views": views})[0].copy()


def judged(
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    finding: Finding,
    labels: NDArray[np.bool_],
) -> Judgement:
    """Compare embeddings (N, D) by what they mean for a finding; times are for the caller."""
    prompts = np.array([finding.negative_embedding, finding.positive_embedding])
    logits = [finding.logit_scale * embeddings @ prompts.T for embeddings in (expected, found)]
    slope, intercept = 1.0, 0.0
    if finding.calibration is not None:
        slope, intercept = finding.calibration.slope, finding.calibration.intercept
    scores = [
        1 / (1 + np.exp(-(slope * (positive - negative) + intercept)))
        for negative, positive in (pair.T for pair in logits)
    ]
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    areas = [float(roc_auc_score(labels, score)) for score in scores]
    return Judgement(
        tool="",
        runtime="",
        megabytes=0.0,
        worst_probability=float(np.abs(scores[1] - scores[0]).max()),
        worst_logit=float(np.abs(logits[1] - logits[0]).max()),
        worst_cosine=float((1 - (expected * found).sum(axis=1) / lengths).max()),
        auc=abs(areas[1] - areas[0]),
        median_ms=0.0,
        speedup=0.0,
    )


def compare(bundle: Bundle, *, exams: int, calibration: int, rounds: int, threads: int) -> Case:
    """Judge and time every tool's graph of a bundle's float32 one, and the bundle's own."""
    files = {graph.precision: bundle.files[graph.file] for graph in bundle.manifest.graphs}
    preprocessing, finding = bundle.manifest.preprocessing, bundle.manifest.findings[0]
    given, _ = phantoms(preprocessing, seed=_CALIBRATION_SEED, count=calibration)
    views, labels = phantoms(preprocessing, seed=_JUDGED_SEED, count=exams)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "float32.onnx").write_bytes(files["fp32"])
        graphs = {FLOAT32: folder / "float32.onnx"}
        graphs |= tools(folder / "float32.onnx", given, folder)
        if "int8" in files:
            (folder / "own.onnx").write_bytes(files["int8"])
            graphs[OWN] = folder / "own.onnx"
        sizes = {tool: path.stat().st_size / 1e6 for tool, path in graphs.items()}
        runs = {
            (tool, runtime): run
            for tool, path in graphs.items()
            for runtime, run in runtimes(path, threads)
        }
    expected = _embeddings(runs[FLOAT32, "ONNX Runtime"], views)
    found = [judged(expected, _embeddings(run, views), finding, labels) for run in runs.values()]
    times = time_in_turn(
        [lambda run=run: run(views[:1]) for run in runs.values()], rounds=rounds, what="tools"
    )
    medians = dict(zip(runs, np.median(times, axis=1), strict=True))
    return Case(
        model=bundle.manifest.name,
        bundle_sha256=bundle.sha256,
        exams=exams,
        calibration_exams=calibration,
        rounds=rounds,
        threads=threads,
        absent=tuple(_absent(files)),
        judgements=tuple(
            replace(
                judgement,
                tool=tool,
                runtime=runtime,
                megabytes=sizes[tool],
                median_ms=float(medians[tool, runtime]),
                speedup=float(medians[FLOAT32, "ONNX Runtime"] / medians[tool, runtime]),
            )
            for (tool, runtime), judgement in zip(runs, found, strict=True)
        ),
    )


def _embeddings(run: Run, views: Views) -> NDArray[np.float32]:
    return np.concatenate([run(exam[np.newaxis]) for exam in views])


def _absent(files: Mapping[str, bytes]) -> Iterator[str]:
    for module in ("nncf", "openvino"):
        if importlib.util.find_spec(module) is None:
            yield f"{module} is not installed"
    if "int8" not in files:
        yield "the bundle has no int8 graph"


def main(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Bundles with float32 and int8 graphs.")
    ] = None,
    exams: Annotated[int, typer.Option(min=64, help="Phantoms to judge by.")] = 64,
    calibration: Annotated[int, typer.Option(min=8, help="Phantoms to calibrate on.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Timed exams of each contender.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads of each.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    documents: Annotated[bool, typer.Option(help="Write the tables into the documents.")] = True,
) -> None:
    """Measure, print and write the comparison of tools."""
    logging.disable(logging.WARNING)  # the tools' advice to call them otherwise
    paths: Sequence[Path] = bundles or [DEMO_BUNDLE]
    settings = {"exams": exams, "calibration": calibration, "rounds": rounds, "threads": threads}
    report = Report(
        command=command_line("benchmarks/quantization.py", sys.argv[1:]),
        machine=describe_machine(),
        cases=tuple(compare(read_bundle(path), **settings) for path in paths),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "quantization.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    text = to_markdown(report)
    (out / "quantization.md").write_text("# Tools for eight bits\n\n" + text)
    if documents:
        publish("quantization", text)
    Console().print(text, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
