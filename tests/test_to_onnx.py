"""Both graphs load and run in ONNX Runtime, agree with the training model, and are reproducible."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from encoders import ARCHITECTURE, DEPTH, SIZE, exams, logits, model, run, structured_exams
from onnx import TensorProto, shape_inference
from torch.nn import functional

from export import to_onnx as module
from export.fold import fold
from export.precision import PrecisionError, half
from export.to_onnx import OPSETS, describe, to_onnx
from mammoclip_sdk.bundle import Tensor
from training import clip
from training.adapters import AdapterConfig

LOGITS = {"fp32": 1e-3, "fp16": 0.05}
"""Largest accepted difference of a logit at scale 100."""
COSINE, LENGTH = 1e-4, 1e-5


def graph_of(reference, precision, **keys):
    encoder = fold(reference)
    return to_onnx(half(encoder, **keys) if precision == "fp16" else encoder, precision)


@torch.no_grad()
def assert_agrees(data, precision, reference, views):
    """One by one and in batches; see that the answers differ from exam to exam, too."""
    expected = reference.encode_exam(views)
    for batch in (1, len(views) - 1, len(views)):
        found = torch.cat([torch.from_numpy(run(data, part)) for part in views.split(batch)])
        assert found.dtype == torch.float32
        assert (logits(found) - logits(expected)).abs().max() <= LOGITS[precision]
        assert (1 - functional.cosine_similarity(found, expected)).max() <= COSINE
        assert (found.double().norm(dim=-1) - 1).abs().max() <= LENGTH
    assert logits(expected).std(dim=0).max() > 10 * LOGITS[precision]


@pytest.fixture(scope="module")
def graphs():
    """Make the graphs of one model in each precision."""
    return {precision: graph_of(model(dtype=torch.float32), precision) for precision in OPSETS}


@pytest.fixture(params=OPSETS)
def graph(request, graphs):
    return request.param, graphs[request.param]


# Agreement in ONNX Runtime

SERIAL, PARALLEL = {"connection": "serial"}, {"connection": "parallel"}
KINDS = [
    SERIAL | {"activation": "gelu", "placement": "both", "n_local": 0},
    SERIAL | {"activation": "linear", "placement": "mlp", "n_local": DEPTH, "size": (16, 64)},
    SERIAL | {"activation": "relu", "placement": "attention", "view_embedding": "learned"},
    SERIAL | {"activation": "quick_gelu", "quick_gelu": True, "pooling": "first_cls"},
    PARALLEL | {"activation": "gelu", "placement": "mlp", "view_embedding": "learned"},
    PARALLEL | {"activation": "linear", "placement": "both", "pooling": "first_cls"},
    PARALLEL | {"activation": "relu", "placement": "both", "n_local": DEPTH, "size": (64, 16)},
    PARALLEL | {"activation": "quick_gelu", "placement": "attention", "quick_gelu": True},
    {"image_adapter": None, "n_local": DEPTH, "pooling": "first_cls"},
    {"vision": {"block_type": "custom", "qk_norm": True, "scale_attn": True, "ls_init_value": 0.3}},
]


@pytest.mark.parametrize("precision", OPSETS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_the_graph_agrees_with_the_training_model(kind, precision):
    reference = model(dtype=torch.float32, **kind)
    views = structured_exams(4, kind.get("size", SIZE))
    assert_agrees(graph_of(reference, precision), precision, reference, views)


@pytest.mark.slow
@pytest.mark.parametrize("precision", OPSETS)
def test_the_graph_of_a_vit_b_32_agrees_with_the_training_model(precision):
    reference = model(
        architecture=clip.architecture_of("ViT-B-32") | {"text_cfg": ARCHITECTURE["text_cfg"]},
        image_adapter=AdapterConfig(
            rank=None, activation="gelu", placement="both", connection="serial", scale=0.5
        ),
        n_local=2,
        size=(224, 224),
        std=0.05,
        dtype=torch.float32,
    )
    data, views = graph_of(reference, precision), structured_exams(3, (224, 224))
    assert_agrees(data, precision, reference, views)


def test_a_block_kept_in_float32_is_so_in_the_graph_and_agrees():
    reference = model(dtype=torch.float32)
    with torch.no_grad():  # a hidden unit of 70 thousand, which is infinite in half
        mlp = reference.image.blocks[1].block.mlp
        mlp.c_fc.weight[5] *= 1.5e5
        mlp.c_proj.weight[:, 5] *= 1e-5
    data = graph_of(reference, "fp16", float32_blocks=[1])
    assert_agrees(data, "fp16", reference, structured_exams())
    matrices = [
        tensor.data_type
        for tensor in onnx.load_from_string(data).graph.initializer
        if len(tensor.dims) == 2 and tensor.dims[0] > 1 and tensor.dims[1] == 128
    ]  # the first of each MLP
    assert sorted(matrices) == sorted([TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT16])


# The file


def test_the_graph_is_whole_and_takes_float32_in_every_precision(graph):
    precision, data = graph
    onnx.checker.check_model(data, full_check=True)
    loaded = onnx.load_from_string(data)
    assert [(entry.domain, entry.version) for entry in loaded.opset_import] == [
        ("", {"fp32": 20, "fp16": 23}[precision])
    ]
    assert not any(t.external_data for t in loaded.graph.initializer)
    assert not loaded.functions
    entry = describe(data, file="a.onnx", precision=precision)
    assert entry.inputs == (Tensor(name="views", shape=("batch", 4, 1, *SIZE), dtype="float32"),)
    assert entry.outputs == (Tensor(name="embedding", shape=("batch", 64), dtype="float32"),)


def test_the_file_says_what_it_is_and_nothing_of_where_it_was_made(graph):
    precision, data = graph
    loaded = onnx.load_from_string(data)
    assert (loaded.producer_name, loaded.ir_version) == ("mammoclip-sdk", 10)
    facts = {entry.key: entry.value for entry in loaded.metadata_props}
    assert facts == {
        "precision": precision,
        "views": "LCC,RCC,LMLO,RMLO",
        "image_size": "48,32",
        "input_range": "0 (air) to 1",
        "output": "embedding of unit length",
    } | ({"float32_blocks": ""} if precision == "fp16" else {})
    names = [tensor.name for tensor in loaded.graph.initializer]
    assert any(name.startswith("blocks.2.") for name in names)
    for tensor in loaded.graph.initializer:
        tensor.ClearField("raw_data")
    text = str(loaded)
    assert not any(word in text for word in ("torch", ".py", "/", "export", torch.__version__))


def test_the_half_graph_has_one_attention_operator_per_block_and_no_product_in_float32(graphs):
    loaded = onnx.load_from_string(graphs["fp16"])
    types = {tensor.name: tensor.data_type for tensor in loaded.graph.initializer}
    inferred = shape_inference.infer_shapes(loaded, strict_mode=True).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    found = {}
    for node in loaded.graph.node:
        found.setdefault(node.op_type, []).append(types[node.output[0]])
    assert found["Attention"] == [TensorProto.FLOAT16] * DEPTH
    scales = [a.f for n in loaded.graph.node for a in n.attribute if a.name == "scale"]
    assert scales == [1.0] * DEPTH
    for product in ("Conv", "MatMul", "Gemm", "Gelu"):
        assert set(found.get(product, [TensorProto.FLOAT16])) == {TensorProto.FLOAT16}
    for exact in ("LayerNormalization", "ReduceMean", "ReduceSum", "ReduceL2", "Div"):
        assert set(found[exact]) == {TensorProto.FLOAT}
    reference = onnx.load_from_string(graphs["fp32"]).graph
    assert "Attention" not in {node.op_type for node in reference.node}


SCRIPT = """
import hashlib, sys
import torch
from encoders import model
from test_to_onnx import graph_of
for precision in ("fp16", "fp32"):
    data = graph_of(model(dtype=torch.float32), precision)
    print(precision, hashlib.sha256(data).hexdigest())
"""


def test_another_process_writes_the_same_bytes(graphs):
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parent,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()}
    assert dict(line.split() for line in found.splitlines()) == expected


# What is refused, and the manifest's entry


def test_an_encoder_of_another_precision_is_refused():
    encoder = fold(model(dtype=torch.float32))
    with pytest.raises(PrecisionError, match="precision 'fp16': found an encoder in fp32"):
        to_onnx(encoder, "fp16")
    with pytest.raises(PrecisionError, match="precision 'fp32': found an encoder in fp16"):
        to_onnx(half(encoder), "fp32")
    with pytest.raises(PrecisionError, match="precision 'int8'"):
        to_onnx(encoder, "int8")


def test_weights_that_no_single_file_can_hold_are_refused(monkeypatch):
    assert module.LARGEST_FILE < 2**31
    encoder = fold(model(dtype=torch.float32))
    size = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    monkeypatch.setattr(module, "LARGEST_FILE", size - 1)
    with pytest.raises(PrecisionError, match=f"found {size:,} bytes of weights"):
        to_onnx(encoder, "fp32")


def test_the_manifests_entry_states_the_file_and_its_range(graph):
    precision, data = graph
    entry = describe(
        data,
        file="model.onnx",
        precision=precision,
        largest_activations=[7.5, 20_000.0, 9.0],
        float32_blocks=[1],
    )
    assert (entry.file, entry.sha256) == ("model.onnx", hashlib.sha256(data).hexdigest())
    assert (entry.precision, entry.opset) == (precision, OPSETS[precision])
    assert entry.largest_activations == (7.5, 20_000.0, 9.0)
    assert entry.float32_blocks == (1,)
    plain = describe(data, file="model.onnx", precision=precision)
    assert (plain.largest_activations, plain.float32_blocks) == ((), ())


def test_any_number_of_exams_fits_a_graph(graphs):
    """Of another size than the exporter's example, and not the batch size of another test."""
    assert_agrees(graphs["fp32"], "fp32", model(dtype=torch.float32), exams(7, dtype=torch.float32))
