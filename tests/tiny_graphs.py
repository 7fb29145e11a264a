"""The graph of the tiny bundle in other precisions, and a bundle that holds them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from conftest import (
    FEATURES,
    HEIGHT,
    SIZE,
    WIDTH,
    as_npz,
    tiny_embedding,
    tiny_files,
    tiny_golden,
    tiny_graph,
    tiny_manifest,
    tiny_weights,
)
from onnx import TensorProto, helper, numpy_helper

from mammoclip_sdk.bundle import Attachment, Bundle, manifest_to_json, sha256
from mammoclip_sdk.golden import logits_of
from mammoclip_sdk.parity.exams import ParityExams, write_exams

STEP = np.float32(1 / 255)
"""Of the quantised features, 0 to 1."""
WEIGHT_STEP = np.float32(np.abs(tiny_weights()).max() / 127)


def half_graph() -> bytes:
    """The tiny graph with its product in float16, its input, output and length in float32."""
    bias = np.full(SIZE, 0.01, np.float16)
    return _graph(
        [
            helper.make_node("Cast", ["features"], ["halves"], to=TensorProto.FLOAT16),
            helper.make_node("Gemm", ["halves", "weights", "bias"], ["half_product"]),
            helper.make_node("Cast", ["half_product"], ["product"], to=TensorProto.FLOAT),
        ],
        {"weights": tiny_weights().astype(np.float16), "bias": bias},
    )


def int8_graph() -> bytes:
    """The tiny graph with features and weights rounded to eight bits (Q/DQ)."""
    weights = np.round(tiny_weights() / WEIGHT_STEP).astype(np.int8)
    return _graph(
        [
            helper.make_node("QuantizeLinear", ["features", "step", "zero"], ["bytes"]),
            helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["rounded"]),
            helper.make_node("DequantizeLinear", ["weights", "weight_step"], ["kernel"]),
            helper.make_node("MatMul", ["rounded", "kernel"], ["sums"]),
            helper.make_node("Add", ["sums", "bias"], ["product"]),
        ],
        {
            "weights": weights,
            "step": STEP,
            "zero": np.uint8(0),
            "weight_step": WEIGHT_STEP,
            "bias": np.full(SIZE, 0.01, np.float32),
        },
    )


def int8_embedding(views: np.ndarray) -> np.ndarray:
    """What `int8_graph` computes, in NumPy."""
    tiles = views.reshape(len(views), 4, HEIGHT // 8, 8, WIDTH // 8, 8).mean(axis=(3, 5))
    features = np.round(tiles.reshape(len(views), FEATURES) / STEP) * STEP
    product = features @ (np.round(tiny_weights() / WEIGHT_STEP) * WEIGHT_STEP) + 0.01
    return (product / np.linalg.norm(product, axis=1, keepdims=True)).astype(np.float32)


def _graph(nodes: list[onnx.NodeProto], constants: Mapping[str, np.ndarray]) -> bytes:
    tile = {"kernel_shape": [8, 8], "strides": [8, 8]}
    shapes = {
        "grid": np.array([-1, 4, HEIGHT, WIDTH], np.int64),
        "row": np.array([-1, FEATURES], np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["views", "grid"], ["grey"]),
            helper.make_node("AveragePool", ["grey"], ["tiles"], **tile),
            helper.make_node("Reshape", ["tiles", "row"], ["features"]),
            *nodes,
            helper.make_node("LpNormalization", ["product"], ["embedding"], axis=1, p=2),
        ],
        "tiny",
        [helper.make_tensor_value_info("views", TensorProto.FLOAT, ["B", 4, 1, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", SIZE])],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in {**shapes, **constants}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def exams(count: int = 20) -> ParityExams:
    """Parity exams of noise with the tiny graph's own answers; those it is surest of labelled."""
    views = np.random.default_rng(5).integers(0, 256, (count, 4, 1, HEIGHT, WIDTH), np.uint8)
    embedding = tiny_embedding(views.astype(np.float32) / np.float32(255))
    findings = tiny_manifest(tiny_files()).findings
    logits = logits_of(embedding, findings).astype(np.float32)
    order = np.argsort(logits[:, 0, 1] - logits[:, 0, 0])
    labels = np.full(count, -1, np.int8)
    labels[order[: count // 3]], labels[order[-(count // 3) :]] = 0, 1
    return ParityExams(
        views=views,
        labels=labels,
        embedding=embedding,
        logits=logits,
        reference="NumPy, float32",
    )


def many_bundle(parity: ParityExams | bytes | None = None, **graphs: bytes) -> Bundle:
    """A bundle in memory, with the graphs of all precisions (or those given) and parity exams."""
    graphs = graphs or {"fp32": tiny_graph(), "fp16": half_graph(), "int8": int8_graph()}
    parity = exams() if parity is None else parity
    packed = parity if isinstance(parity, bytes) else write_exams(parity)
    files = {f"model.{precision}.onnx": data for precision, data in graphs.items()}
    files |= {"golden.npz": as_npz(tiny_golden()), "parity.npz": packed}
    manifest = tiny_manifest(tiny_files())
    (graph,) = manifest.graphs
    manifest = replace(
        manifest,
        graphs=tuple(
            replace(
                graph,
                file=f"model.{precision}.onnx",
                precision=precision,
                sha256=sha256(files[f"model.{precision}.onnx"]),
            )
            for precision in graphs
        ),
        golden=replace(
            manifest.golden, tolerance={"fp32": 1e-4, "fp16": 0.005, "bf16": 0.02, "int8": 0.02}
        ),
        attachments=(Attachment(kind="parity_exams", file="parity.npz", sha256=sha256(packed)),),
    )
    digest = sha256(manifest_to_json(manifest).encode())
    return Bundle(manifest=manifest, sha256=digest, files=files, path="many")
