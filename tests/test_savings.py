"""What folding saves is counted on graphs, and torch counts the same."""

import pytest
import torch
import typer
from onnx import TensorProto, helper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from export import savings
from export.fold import fold
from export.precision import half
from export.random_checkpoint import random_model
from export.savings import TrainingEncoder, as_markdown, multiply_adds
from export.to_onnx import to_onnx
from training.adapters import AdapterConfig
from training.model import ModelConfig

SIZE = (64, 32)
WIDTH, HIDDEN, EMBEDDING, RANK = 128, 512, 128, 4
"""Of phantom-clip, which makes eight patches of this size, and a class token."""


def model(*, activation="relu", adapters=True, n_local=1, **keys):
    adapter = AdapterConfig(
        rank=RANK, activation=activation, placement="both", connection="serial", scale=0.5
    )
    config = ModelConfig(
        open_clip_model="phantom-clip",
        pretrained=None,
        image_size=SIZE,
        n_local=n_local,
        image_adapter=adapter if adapters else None,
        text_adapter=None,
        **keys,
    )
    return random_model(config, seed=0)


@pytest.fixture(scope="module")
def saved():
    return savings.savings(model())


def counted_by_torch(encoder, channels):
    encoder.requires_grad_(True)  # or else torch takes a fused path it does not count
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(torch.rand(1, 4, channels, *SIZE))
    return counter.get_total_flops() / 2


def shapes(encoder):
    return {name: tensor.shape for name, tensor in encoder.state_dict().items()}


def test_multiply_adds_are_what_torch_counts(saved):
    reference = model()
    assert saved.after.multiply_adds == counted_by_torch(fold(reference), 1)
    assert saved.before.multiply_adds == counted_by_torch(TrainingEncoder(reference).eval(), 3)


def test_the_saving_is_that_of_the_patches_and_of_the_last_blocks_other_tokens(saved):
    patches = 4 * 8 * WIDTH * 2 * 16**2  # two of three channels
    tokens = 4 * 8  # all but the class tokens
    block = tokens * (2 * WIDTH**2 + 2 * WIDTH * HIDDEN + 4 * WIDTH * RANK)
    block += tokens * 36 * WIDTH * 2  # their queries with all keys, and their weights with values
    # A bottleneck read from the product before it costs more where that reads more.
    wider = (3 * 36 + 4) * RANK * (HIDDEN - WIDTH)
    assert saved.before.multiply_adds - saved.after.multiply_adds == patches + block - wider


def test_parameters_nodes_and_input_are_counted(saved):
    assert (saved.before.input_bytes, saved.after.input_bytes) == (98_304, 32_768)
    assert saved.before.parameters == sum(p.numel() for p in model().image.parameters())
    assert saved.after.parameters < saved.before.parameters
    assert saved.before.operators["Mul"] > 0
    assert "Mul" not in saved.after.operators
    assert saved.after.nodes == sum(saved.after.operators.values()) < 0.6 * saved.before.nodes
    assert saved.after.operators["Softmax"] == saved.before.operators["Softmax"] == 4


def test_the_files_are_counted_and_half_precision_halves_the_folded_one(saved):
    folded = fold(model())
    assert saved.after.file_bytes == len(to_onnx(folded, "fp32"))
    assert saved.half_file_bytes == len(to_onnx(half(folded), "fp16"))
    assert saved.half_file_bytes < 0.52 * saved.after.file_bytes
    assert saved.before.file_bytes > 4 * saved.before.parameters


def test_adapters_without_non_linearity_cost_nothing_after_folding():
    adapted, without = fold(model(activation="linear")), fold(model(adapters=False))
    assert shapes(adapted) == shapes(without)
    assert counted_by_torch(adapted, 1) == counted_by_torch(without, 1)


def test_a_single_pooled_class_token_saves_the_others_too(saved):
    first = counted_by_torch(fold(model(pooling="first_cls")), 1)
    token = 2 * WIDTH**2 + 2 * WIDTH * HIDDEN + 3 * WIDTH * RANK + HIDDEN * RANK
    assert saved.after.multiply_adds - first == 3 * (token + 36 * WIDTH * 2)


def test_late_fusion_that_pools_one_class_token_reads_one_view():
    four = counted_by_torch(fold(model(n_local=4)), 1)
    one = counted_by_torch(fold(model(n_local=4, pooling="first_cls")), 1)
    projection = WIDTH * EMBEDDING
    assert (four - projection) / (one - projection) == 4


def test_products_are_counted_by_their_shapes():
    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["patches"]),
        helper.make_node("MatMul", ["left", "right"], ["product"]),
        helper.make_node("Gemm", ["tall", "wide"], ["sum"], transA=1),
        helper.make_node("Add", ["sum", "sum"], ["twice"]),
    ]
    inputs = [
        value("image", 2, 6, 8, 8),
        value("kernel", 4, 3, 4, 4),  # of two groups
        value("left", 5, 2, 3),
        value("right", 3, 7),
        value("tall", 10, 2),
        value("wide", 10, 3),
    ]
    outputs = [value("patches", 2, 4, 2, 2), value("product", 5, 2, 7), value("sum", 2, 3)]
    graph = helper.make_graph(nodes, "products", inputs, [*outputs, value("twice", 2, 3)])
    assert multiply_adds(graph) == 32 * 48 + 70 * 3 + 6 * 10


def test_the_command_prints_both_graphs_as_tables(saved):
    app = typer.Typer()
    app.command()(savings.command)
    arguments = ["--model", "phantom-clip", "--height", "64", "--width", "32", "--n-local", "1"]
    arguments += ["--rank", "4", "--activation", "relu"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.strip() == as_markdown(saved)
    assert "| input bytes | 98,304 | 32,768 | -66.7% |" in result.output
    assert "| LayerNormalization | 10 | 10 |" in result.output
    assert f"in half precision: {saved.half_file_bytes:,} file bytes (-4" in result.output
