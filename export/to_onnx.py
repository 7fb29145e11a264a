"""Folded image encoder -> one ONNX file; the same weights give the same bytes on any machine."""

from __future__ import annotations

import onnx
import torch

from export.fold import InferenceEncoder
from mammoclip_sdk.bundle import Graph, Tensor, sha256
from mammoclip_sdk.exam import VIEWS

OPSET = 20
"""The first with Gelu as one operator; ONNX Runtime and TensorRT know it in float32."""
_DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}


def to_onnx(encoder: InferenceEncoder) -> bytes:
    """Export ``views`` (B, 4, 1, H, W) -> ``embedding`` (B, D) as a single file, B being free.

    The exporter leaves stack traces with file names in every node; they are taken out.
    """
    example = torch.zeros(2, len(VIEWS), 1, encoder.height, encoder.width)
    program = torch.onnx.export(
        encoder,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["views"],
        output_names=["embedding"],
        dynamic_shapes={"views": {0: torch.export.Dim("batch")}},
        external_data=False,
        verbose=False,
    )
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def describe(data: bytes, *, file: str) -> Graph:
    """Return the manifest's entry for an exported graph, as the file itself states it."""
    model = onnx.load_from_string(data)
    return Graph(
        file=file,
        sha256=sha256(data),
        precision="fp32",
        opset=next(entry.version for entry in model.opset_import if not entry.domain),
        inputs=tuple(_tensor(value) for value in model.graph.input),
        outputs=tuple(_tensor(value) for value in model.graph.output),
    )


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the computation does not need and what differs from machine to machine."""
    graph = model.graph
    model.producer_name, model.producer_version, model.doc_string = "mammoclip-sdk", "", ""
    graph.name, graph.doc_string = "mammo_clip_image_encoder", ""
    del model.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]  # shapes of intermediate results, which every runtime infers
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    return Tensor(
        name=value.name,
        shape=tuple(size.dim_param or size.dim_value for size in kind.shape.dim),
        dtype=_DTYPES[kind.elem_type],
    )
