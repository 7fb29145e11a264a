"""What folding saves, counted on the two graphs: the training encoder's plain export, and ours.

``python -m export.savings --model ViT-B-16``
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Annotated

import onnx
import torch
import typer
from onnx import shape_inference
from torch import Tensor, nn

from export.fold import fold
from export.precision import half
from export.random_checkpoint import random_model
from export.to_onnx import OPSETS, to_onnx
from mammoclip_sdk.exam import VIEWS
from training.adapters import AdapterConfig
from training.model import MammoClip, ModelConfig


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one graph holds, and what it does for one exam of four views."""

    parameters: int
    """Numbers the encoder stores."""
    multiply_adds: int
    """Of matrix products and convolutions; FLOP, as usually counted, are twice as many."""
    operators: Mapping[str, int]
    """ONNX nodes by operator."""
    input_bytes: int
    file_bytes: int
    """Of the ONNX file."""

    @property
    def nodes(self) -> int:
        """ONNX nodes of all operators."""
        return sum(self.operators.values())


@dataclass(frozen=True, kw_only=True)
class Savings:
    """The cost of a model's image encoder before and after folding, both in float32."""

    before: Cost
    after: Cost
    half_file_bytes: int
    """Of the folded encoder's ONNX file with every block in half precision."""


class TrainingEncoder(nn.Module):
    """A model's image encoder as it is trained, over normalised RGB views."""

    def __init__(self, model: MammoClip) -> None:
        super().__init__()
        self.model = model

    def forward(self, views: Tensor) -> Tensor:
        """Encode (B, 4, 3, H, W) as (B, D) of unit length."""
        return self.model.encode_exam(views)


def savings(model: MammoClip) -> Savings:
    """Export a model's image encoder plainly and folded, and count both."""
    folded = fold(model)
    return Savings(
        before=_cost(_plain(model), model.image),
        after=_cost(to_onnx(folded, "fp32"), folded),
        half_file_bytes=len(to_onnx(half(folded), "fp16")),
    )


def multiply_adds(graph: onnx.GraphProto) -> int:
    """Count the multiply-adds of a graph whose shapes are all known."""
    shapes: dict[str, list[int]] = {i.name: list(i.dims) for i in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = [size.dim_value for size in value.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            summed = shapes[node.input[0]][0 if transposed else -1]
        elif node.op_type == "Conv":
            summed = prod(shapes[node.input[1]][1:])
        else:
            continue
        total += summed * prod(shapes[node.output[0]])
    return total


def _plain(model: MammoClip) -> bytes:
    height, width = model.config.image_size
    program = torch.onnx.export(
        TrainingEncoder(model).eval(),
        (torch.zeros(2, len(VIEWS), 3, height, width),),
        dynamo=True,
        opset_version=OPSETS["fp32"],
        dynamic_shapes={"views": {0: torch.export.Dim("batch")}},
        external_data=False,
        verbose=False,
    )
    return program.model_proto.SerializeToString()


def _cost(data: bytes, encoder: nn.Module) -> Cost:
    model = onnx.load_from_string(data)
    del model.graph.value_info[:]  # still with the batch left free
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    views = graph.input[0].type.tensor_type
    return Cost(
        parameters=sum(tensor.numel() for tensor in encoder.state_dict().values()),
        multiply_adds=multiply_adds(graph),
        operators=dict(sorted(Counter(node.op_type for node in graph.node).items())),
        input_bytes=4 * prod(size.dim_value for size in views.shape.dim),
        file_bytes=len(data),
    )


def as_markdown(saved: Savings) -> str:
    """Return two tables, the sums and the nodes by operator, and what half precision saves."""
    before, after = saved.before, saved.after
    lines = ["| per exam | plain | folded | change |", "|---|---:|---:|---:|"]
    for name, key in (
        ("parameters", "parameters"),
        ("multiply-adds", "multiply_adds"),
        ("ONNX nodes", "nodes"),
        ("input bytes", "input_bytes"),
        ("file bytes", "file_bytes"),
    ):
        old, new = getattr(before, key), getattr(after, key)
        lines.append(f"| {name} | {old:,} | {new:,} | {new / old - 1:+.1%} |")
    lines += ["", "| operator | plain | folded |", "|---|---:|---:|"]
    for name in sorted(before.operators | after.operators):
        old, new = before.operators.get(name, 0), after.operators.get(name, 0)
        lines.append(f"| {name} | {old} | {new} |")
    change = saved.half_file_bytes / after.file_bytes - 1
    lines += [
        "",
        f"Folded, in half precision: {saved.half_file_bytes:,} file bytes ({change:+.1%}).",
    ]
    return "\n".join(lines)


def command(
    model: Annotated[str, typer.Option(help="Name of an open_clip model.")] = "ViT-B-16",
    height: Annotated[int, typer.Option(help="Of a view, in pixels.")] = 224,
    width: Annotated[int, typer.Option(help="Of a view, in pixels.")] = 224,
    n_local: Annotated[int, typer.Option(help="Blocks that see one view at a time.")] = 2,
    pooling: Annotated[str, typer.Option(help="mean_cls or first_cls.")] = "mean_cls",
    rank: Annotated[int | None, typer.Option(help="Of the adapters.")] = None,
    placement: Annotated[str, typer.Option(help="attention, mlp or both.")] = "both",
    connection: Annotated[str, typer.Option(help="serial or parallel.")] = "serial",
    activation: Annotated[str, typer.Option(help="gelu, relu, quick_gelu or linear.")] = "gelu",
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
) -> None:
    """Print what folding saves of a model with random weights and adapters, as Markdown."""
    adapter = AdapterConfig(
        rank=rank, activation=activation, placement=placement, connection=connection, scale=0.5
    )
    config = ModelConfig(
        open_clip_model=model,
        pretrained=None,
        image_size=(height, width),
        n_local=n_local,
        pooling=pooling,
        image_adapter=adapter,
        text_adapter=None,
    )
    typer.echo(as_markdown(savings(random_model(config, seed))))


if __name__ == "__main__":
    typer.run(command)
