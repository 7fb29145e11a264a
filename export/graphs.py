"""Folded encoder -> the graphs of a bundle: float32, half, and eight bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.fold import InferenceEncoder
from export.int8 import quantize
from export.memory import release
from export.precision import activation_range, half, out_of_range, range_report
from export.stages import Stages
from export.to_onnx import describe, to_onnx
from mammoclip_sdk.bundle import Finding, Graph


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """ONNX files by name, and the manifest's entry for each."""

    files: Mapping[str, bytes]
    entries: tuple[Graph, ...]

    def with_graph(self, data: bytes, entry: Graph) -> Graphs:
        """Return these and one more."""
        return Graphs(files={**self.files, entry.file: data}, entries=(*self.entries, entry))


def file_of(precision: str) -> str:
    """Return the name of a precision's graph, the same in every bundle."""
    return f"model.{precision}.onnx"


def reference_graph(encoder: InferenceEncoder, stages: Stages) -> Graphs:
    """Write the encoder in float32: what every other graph is judged by."""
    with stages("fp32 graph"):
        data = to_onnx(encoder, "fp32")
        release()
        return Graphs(files={}, entries=()).with_graph(
            data, describe(data, file=file_of("fp32"), precision="fp32")
        )


def with_half(
    graphs: Graphs, encoder: InferenceEncoder, exams: NDArray[np.float32], stages: Stages
) -> Graphs:
    """Add the graph in half precision, but for the blocks whose activations leave its range.

    Parameters
    ----------
    exams
        (N, 4, 1, H, W) float32, 0 to 1: the largest activations over them decide.

    Raises
    ------
    PrecisionError
        The encoder itself computes infinities or NaN.
    """
    with stages("activation range"):
        largest = activation_range(encoder, exams)
    kept = out_of_range(encoder, largest)
    stages.say(range_report(largest, kept))
    blocks = tuple(block.block for block in kept)
    with stages("fp16 graph"):
        data = to_onnx(half(encoder, float32_blocks=blocks), "fp16")
        release()
        entry = describe(
            data,
            file=file_of("fp16"),
            precision="fp16",
            largest_activations=largest,
            float32_blocks=blocks,
        )
    return graphs.with_graph(data, entry)


def with_int8(
    graphs: Graphs,
    exams: NDArray[np.float32],
    findings: tuple[Finding, ...],
    stages: Stages,
) -> Graphs:
    """Add the graph in eight bits, made of the float32 one and calibrated on exams.

    Parameters
    ----------
    exams
        (N, 4, 1, H, W) float32, 0 to 1; no phantom of them may be judged by later.

    Raises
    ------
    CalibrationError
        The exams cannot be calibrated on.
    QuantizationError
        No part of the graph can be left in eight bits.
    """
    with stages("int8 graph"):
        release()
        data = quantize(graphs.files[file_of("fp32")], exams, contrasts(findings))
        entry = describe(data, file=file_of("int8"), precision="int8")
        release()
    return graphs.with_graph(data, entry)


def contrasts(findings: tuple[Finding, ...]) -> NDArray[np.float32]:
    """Return (K, D): what an embedding is multiplied with to give the logit of a probability."""
    rows = [
        (1.0 if finding.calibration is None else finding.calibration.slope)
        * finding.logit_scale
        * (np.array(finding.positive_embedding) - np.array(finding.negative_embedding))
        for finding in findings
    ]
    return np.array(rows, dtype=np.float32)
