"""Folded image encoder -> one ONNX file; the same weights give the same bytes on any machine."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch

from export.encoder import InferenceEncoder
from export.precision import HalfEncoder, PrecisionError
from mammoclip_sdk.bundle import Graph, Tensor, sha256
from mammoclip_sdk.exam import VIEWS

OPSETS = {"fp32": 20, "fp16": 23}
"""20 is the first with Gelu as one operator, 23 the first with Attention. In float32 TensorRT has
no kernel for Attention, so that graph spells it out."""
IR_VERSION = 10
"""The lowest that opset 23 allows: older runtimes refuse a newer one."""
LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights; protobuf takes no message of 2 GiB, and the nodes need some room."""
_DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}


def to_onnx(encoder: InferenceEncoder, precision: str) -> bytes:
    """Export ``views`` (B, 4, 1, H, W) -> ``embedding`` (B, D) as a single file, B being free.

    Input and output are float32 in every precision. That the file loads and computes what it should
    is for `export.verify` to say.

    Parameters
    ----------
    encoder
        Of `export.fold.fold` for ``fp32``, of `export.precision.half` for ``fp16``.

    Raises
    ------
    PrecisionError
        The encoder is of another precision, or its weights are too large for a single file.
    """
    _check(encoder, precision)
    example = torch.zeros(2, len(VIEWS), 1, encoder.height, encoder.width)
    program = torch.onnx.export(
        encoder,
        (example,),
        dynamo=True,
        opset_version=OPSETS[precision],
        input_names=["views"],
        output_names=["embedding"],
        dynamic_shapes={"views": {0: torch.export.Dim("batch")}},
        external_data=False,
        verbose=False,
    )
    model = program.model_proto
    del program  # a copy of the weights
    model.ir_version = IR_VERSION
    _strip(model)
    onnx.helper.set_model_props(model, _facts(encoder, precision))
    return model.SerializeToString(deterministic=True)


def describe(
    data: bytes,
    *,
    file: str,
    precision: str,
    largest_activations: Sequence[float] = (),
    float32_blocks: Sequence[int] = (),
) -> Graph:
    """Return the manifest's entry for an exported graph, as the file itself states it.

    Parameters
    ----------
    largest_activations, float32_blocks
        What decided which blocks are in half, and which are not.
    """
    model = onnx.load_from_string(data)
    return Graph(
        file=file,
        sha256=sha256(data),
        precision=precision,
        opset=next(entry.version for entry in model.opset_import if not entry.domain),
        inputs=tuple(_tensor(value) for value in model.graph.input),
        outputs=tuple(_tensor(value) for value in model.graph.output),
        largest_activations=tuple(largest_activations),
        float32_blocks=tuple(float32_blocks),
    )


def _check(encoder: InferenceEncoder, precision: str) -> None:
    own = "fp16" if isinstance(encoder, HalfEncoder) else "fp32"
    if precision != own:
        raise PrecisionError(
            f"precision {precision!r}",
            found=f"an encoder in {own}",
            expected=" or ".join(OPSETS),
            remedy="fp32 takes the folded encoder, fp16 what export.precision.half makes of it.",
        )
    size = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    if size > LARGEST_FILE:
        raise PrecisionError(
            f"a graph in {precision}",
            found=f"{size:,} bytes of weights",
            expected=f"at most {LARGEST_FILE:,}, the size of a single ONNX file",
            remedy="Take a smaller backbone, or fp16 alone, which is half as large.",
        )


def _facts(encoder: InferenceEncoder, precision: str) -> dict[str, str]:
    """Return what a reader of the file alone has to know; the weights decide it, and no version."""
    facts = {
        "precision": precision,
        "views": ",".join(VIEWS),
        "image_size": f"{encoder.height},{encoder.width}",
        "input_range": "0 (air) to 1",
        "output": "embedding of unit length",
    }
    if isinstance(encoder, HalfEncoder):
        facts["float32_blocks"] = ",".join(map(str, encoder.float32_blocks))
    return facts


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the computation does not need and what differs from machine to machine.

    The exporter leaves stack traces with file names in every node.
    """
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
