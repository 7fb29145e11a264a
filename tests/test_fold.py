"""Folding is exact: each fold, and all of them together, agree with the model in float64."""

import itertools

import numpy as np
import onnx
import pytest
import torch
from encoders import DEPTH, exams, logits, model, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from export import linear
from export.adapter import bottleneck_beside, merged, more_hidden_units, unscaled
from export.encoder import Product
from export.fold import (
    added_to_patches,
    attention_layers,
    fold,
    fold_attention,
    fold_mlp,
    grey_patches,
    layer_scaled,
    value_bias_behind,
    without_bias,
    without_key_bias,
)
from export.to_onnx import to_onnx
from mammoclip_sdk.exam import VIEWS
from training.adapters import ACTIVATIONS, CONNECTIONS, PLACEMENTS, Adapter, AdapterConfig
from training.model import POOLINGS, VIEW_EMBEDDINGS

TOLERANCE = 1e-10  # relative
LOGIT_TOLERANCE = 1e-4  # at logit scale 100, in float32
CUSTOM_BLOCK = ("qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).norm() <= TOLERANCE * expected.norm()


def tokens(count=6, width=32):
    return torch.randn(2, count, width, dtype=torch.float64)


def random_linear(inputs, outputs, *, bias=True):
    return nn.Linear(inputs, outputs, bias=bias).double().requires_grad_(False)


def random_norm(width=32, **keys):
    norm = nn.LayerNorm(width, **keys).double().requires_grad_(False)
    for parameter in norm.parameters():
        parameter.add_(torch.randn_like(parameter))
    return norm


def random_adapter(activation="gelu", width=32):
    adapter = Adapter(width=width, rank=3, activation=activation, scale=0.25).double()
    nn.init.normal_(adapter.up.weight)
    nn.init.normal_(adapter.up.bias)
    return adapter.requires_grad_(False)


# Layers put together


@pytest.mark.parametrize(
    ("first_bias", "second_bias"), list(itertools.product([True, False], repeat=2))
)
def test_linear_layers_put_together_are_the_layers_one_by_one(first_bias, second_bias):
    x = tokens()
    first, second = random_linear(32, 8, bias=first_bias), random_linear(32, 8, bias=second_bias)
    outer, wide = random_linear(8, 5, bias=first_bias), random_linear(5, 8)
    assert_close(linear.composed(outer, second)(x), outer(second(x)))
    assert_close(linear.added(first, second)(x), first(x) + second(x))
    assert_close(linear.stacked(first, second)(x), torch.cat([first(x), second(x)], dim=-1))
    y = tokens(width=5)
    assert_close(linear.joined(first, wide)(torch.cat([x, y], dim=-1)), first(x) + wide(y))
    factor = torch.randn(8, dtype=torch.float64)
    assert_close(linear.scaled(first, factor)(x), factor * first(x))
    assert_close(linear.scaled(first, 0.3)(x), 0.3 * first(x))
    assert_close(linear.raised(first, factor)(x), first(x) + factor)
    if not first_bias and not second_bias:  # nothing is added where nothing was
        for layer in (linear.composed(outer, second), linear.stacked(first, second)):
            assert layer.bias is None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keys", [{}, {"bias": False}, {"elementwise_affine": False}, {"eps": 1.0}])
def test_a_norms_gain_and_bias_move_into_every_layer_that_reads_it(keys, bias):
    norm, x = random_norm(**keys), tokens()
    bare = linear.statistics(norm)
    assert list(bare.parameters()) == []
    for layer in (random_linear(32, 96, bias=bias), random_linear(32, 4, bias=bias)):
        assert_close(linear.after_norm(layer, norm)(bare(x)), layer(norm(x)))
    factor = torch.randn(32, dtype=torch.float64)
    assert_close(linear.scaled_norm(norm, factor)(x), factor * norm(x))


def test_products_are_summed_in_one_order_whatever_blas_there_is():
    left, right = tokens(8, 300)[0].numpy(), tokens(300, 40)[0].numpy()
    expected = np.zeros((8, 40))
    for k in range(300):
        expected += left[:, k, np.newaxis] * right[k]
    found = linear.product(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    assert np.array_equal(found, expected)
    assert np.abs(found - left @ right).max() < 1e-12


def test_one_product_gives_the_outputs_of_all_layers_that_read_the_same():
    layers = [random_linear(32, 7), random_linear(32, 3, bias=False), random_linear(32, 5)]
    product, x = Product(*layers), tokens()
    assert [tuple(p.shape) for p in product.parameters()] == [(15, 32), (15,)]
    for found, layer in zip(product(x), layers, strict=True):
        assert_close(found, layer(x))


# What comes before the blocks


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_the_grey_convolution_is_the_rgb_one_after_normalisation(bias):
    rgb = nn.Conv2d(3, 8, 16, 16, bias=bias).double()
    mean, std = torch.tensor([0.48, 0.46, 0.41]), torch.tensor([0.27, 0.26, 0.28])
    grey = torch.rand(2, 1, 32, 48, dtype=torch.float64)
    normalised = (grey - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    folded = grey_patches(rgb, mean, std)
    assert folded.weight.shape == (8, 1, 16, 16)
    assert_close(folded(grey), rgb(normalised))
    assert_close(without_bias(folded)(grey) + folded.bias.view(8, 1, 1), folded(grey))


@torch.no_grad()
def test_class_token_positions_view_embedding_and_patch_bias_become_one_sum():
    class_token, positions, bias = torch.randn(8), torch.randn(7, 8), torch.randn(8)
    view, patches = torch.randn(4, 8), torch.randn(4, 6, 8)
    expected = torch.cat([class_token.expand(4, 1, 8), patches + bias], dim=1) + positions
    padded = functional.pad(patches, (0, 0, 1, 0)).double()
    alike = added_to_patches(class_token, positions, None, bias)
    assert alike.shape == (1, 7, 8)
    torch.testing.assert_close((padded + alike).float(), expected)
    told_apart = added_to_patches(class_token, positions, view, bias)
    torch.testing.assert_close((padded + told_apart).float(), expected + view.unsqueeze(1))


# Adapters


def test_the_scale_moves_into_the_up_projection_of_a_new_adapter():
    adapter, x = random_adapter(), tokens()
    before = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    folded = unscaled(adapter)
    assert folded.scale == 1.0
    assert_close(folded(x), adapter(x))
    assert_close(folded.up(folded.activation(folded.down(x))), adapter(x))
    assert adapter.scale == 0.25
    assert all(torch.equal(before[name], t) for name, t in adapter.state_dict().items())


@pytest.mark.parametrize("bias", [True, False])
def test_an_adapter_without_non_linearity_vanishes_into_the_layer_before_it(bias):
    layer, adapter, x = random_linear(16, 32, bias=bias), random_adapter("linear"), tokens(width=16)
    folded = merged(layer, adapter)
    assert folded.weight.shape == layer.weight.shape
    assert_close(folded(x), layer(x) + adapter(layer(x)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_serial_adapter_reads_its_bottleneck_from_the_product_before_it(activation, bias):
    layer, adapter = random_linear(16, 32, bias=bias), random_adapter(activation)
    x = tokens(width=16)
    output, down, bottleneck = bottleneck_beside(layer, adapter)
    assert down.weight.shape == (3, 16)
    assert bottleneck.up.bias is None
    result, hidden = Product(output, down)(x)
    assert_close(result + bottleneck(hidden), layer(x) + adapter(layer(x)))


def test_a_parallel_adapter_with_the_mlps_own_non_linearity_is_more_hidden_units():
    widen, output = random_linear(32, 64), random_linear(64, 32)
    adapter, x = random_adapter("gelu"), tokens()
    wider, narrower = more_hidden_units(widen, output, adapter)
    assert (wider.out_features, narrower.in_features) == (67, 67)
    expected = output(functional.gelu(widen(x))) + adapter(x)
    assert_close(narrower(functional.gelu(wider(x))), expected)


def test_layer_scale_moves_into_the_layer_or_the_norm_before_it():
    x, layer, norm = tokens(), random_linear(32, 32), random_norm()
    (block,) = model(vision={"ls_init_value": 0.3, "layers": 1}, n_local=0).image.blocks
    scale = block.block.ls_1.requires_grad_(False)
    assert scale.gamma.std() > 0.1
    folded, nothing = layer_scaled(layer, nn.Identity(), scale)
    assert_close(nothing(folded(x)), scale(layer(x)))
    same, folded = layer_scaled(layer, norm, scale)
    assert same is layer
    assert_close(folded(same(x)), scale(norm(layer(x))))
    assert layer_scaled(layer, norm, nn.Identity()) == (layer, norm)


# Attention


def attend(query, key, value, heads=2):
    """Attention without any scale, head by head."""
    by_head = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value)]
    weights = torch.softmax(by_head[0] @ by_head[1].transpose(-1, -2), dim=-1)
    return (weights @ by_head[2]).transpose(1, 2).flatten(-2)


def test_the_keys_bias_is_nothing_and_the_values_bias_belongs_to_the_output():
    query, key, value, output = (random_linear(32, 32) for _ in range(4))
    x = tokens()
    expected = output(attend(query(x), key(x), value(x)))
    key = without_key_bias(key)
    assert_close(output(attend(query(x), key(x), value(x))), expected)
    value, output = value_bias_behind(value, output)
    assert (key.bias, value.bias) == (None, None)
    assert_close(output(attend(query(x), key(x), value(x))), expected)


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_scale_biases_and_norm_leave_nothing_but_products_of_torchs_attention(bias):
    attention = nn.MultiheadAttention(32, 2, bias=bias, batch_first=True).double().eval()
    if bias:
        nn.init.normal_(attention.in_proj_bias)
    norm, x = random_norm(), tokens()
    layers = attention_layers(attention, norm)
    assert (layers.key.bias, layers.value.bias) == (None, None)
    bare = linear.statistics(norm)(x)
    found = layers.output(attend(layers.query(bare), layers.key(bare), layers.value(bare)))
    assert_close(found, attention(norm(x), norm(x), norm(x), need_weights=False)[0])


@pytest.mark.parametrize("extra", [(), *((name,) for name in CUSTOM_BLOCK), CUSTOM_BLOCK], ids=str)
@torch.no_grad()
def test_the_factor_and_the_norms_of_open_clips_own_attention_are_kept(extra):
    vision = dict.fromkeys(extra, True) | {"block_type": "custom"}
    adapted = model(vision=vision).image.blocks[0]
    folded = fold_attention(adapted, rows=None)
    x = tokens()
    normed = adapted.block.ln_1(x)
    output = adapted.block.ln_attn(adapted.block.attn(normed))
    expected = output + adapted.attention_adapter(output)
    assert_close(folded(linear.statistics(adapted.block.ln_1)(x)), expected)


def test_attention_by_cosine_is_refused():
    with pytest.raises(ValueError, match="by cosine"):
        fold(model(vision={"scaled_cosine_attn": True}))


@pytest.mark.parametrize("rows", [slice(0, 1), slice(None, None, 3)])
@pytest.mark.parametrize("connection", CONNECTIONS)
@torch.no_grad()
def test_class_tokens_that_ask_alone_get_the_answers_they_had_among_all(connection, rows):
    adapted = model(connection=connection).image.blocks[0]
    every = fold_attention(adapted, rows=None)
    chosen = fold_attention(adapted, rows=rows)
    x = tokens(9)
    assert_close(chosen(x), every(x)[:, rows])


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("connection", CONNECTIONS)
@torch.no_grad()
def test_a_folded_mlp_is_the_mlp_with_its_adapter(connection, activation, quick_gelu):
    adapted = model(connection=connection, activation=activation, quick_gelu=quick_gelu).image
    adapted = adapted.blocks[0]
    block, x = adapted.block, tokens()
    normed = block.ln_2(x)
    output = block.mlp(normed)
    expected = output + adapted.mlp_adapter(normed if connection == "parallel" else output)
    folded = fold_mlp(adapted)
    assert_close(folded(linear.statistics(block.ln_2)(x)), expected)
    own = activation == ("quick_gelu" if quick_gelu else "gelu")
    vanished = own if connection == "parallel" else activation == "linear"
    assert (folded.bottleneck is None) == vanished


# The whole encoder


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("placement", PLACEMENTS)
@torch.no_grad()
def test_the_folded_encoder_is_the_model_for_every_adapter_depth_and_pooling(
    placement, connection, activation
):
    views = exams()
    for n_local, pooling in itertools.product(range(DEPTH + 1), POOLINGS):
        keys = {"placement": placement, "connection": connection, "activation": activation}
        reference = model(n_local=n_local, pooling=pooling, **keys)
        assert_close(fold(reference)(views), reference.encode_exam(views))


VISIONS = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.booleans() for name in CUSTOM_BLOCK},
        "block_type": st.just("custom"),
        "ls_init_value": st.sampled_from([0.3, 1e-3]),
        "no_ln_pre": st.booleans(),
        "norm_kwargs": st.sampled_from(
            [{"eps": 1e-2}, {"bias": False}, {"elementwise_affine": False}]
        ),
        "act_kwargs": st.just({"approximate": "tanh"}),
        "layers": st.integers(1, 2),
        "mlp_ratio": st.sampled_from([1.5, 4.0]),
    },
)
ADAPTERS = st.none() | st.builds(
    AdapterConfig,
    rank=st.integers(1, 5),
    activation=st.sampled_from(ACTIVATIONS),
    placement=st.sampled_from(PLACEMENTS),
    connection=st.sampled_from(CONNECTIONS),
    scale=st.sampled_from([1.0, -0.5, 4.0]),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
@torch.no_grad()
def test_the_folded_encoder_is_the_model_whatever_open_clip_can_build(data):
    vision = data.draw(VISIONS)
    quick = "act_kwargs" not in vision and data.draw(st.booleans())
    size = data.draw(st.sampled_from([(16, 16), (48, 32), (16, 64)]))
    reference = model(
        vision=vision,
        quick_gelu=quick,
        image_adapter=data.draw(ADAPTERS),
        n_local=data.draw(st.integers(0, vision.get("layers", DEPTH))),
        pooling=data.draw(st.sampled_from(POOLINGS)),
        view_embedding=data.draw(st.sampled_from(VIEW_EMBEDDINGS)),
        size=size,
    )
    views = exams(2, size)
    expected = reference.encode_exam(views)
    folded = fold(reference)
    assert_close(folded(views), expected)
    for block in folded.blocks:
        block.attention.operator = True
    assert_close(folded(views), expected)


@torch.no_grad()
def test_folding_leaves_the_model_as_it_was():
    reference = model(vision={"ls_init_value": 0.3}, view_embedding="learned")
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    expected = reference.encode_exam(exams())
    folded = fold(reference)
    for parameter in (*folded.parameters(), *folded.buffers()):
        parameter.zero_()
    assert all(torch.equal(before[name], t) for name, t in reference.state_dict().items())
    assert torch.equal(reference.encode_exam(exams()), expected)


@torch.no_grad()
def test_the_folded_encoder_depends_on_the_adapters_and_on_every_view():
    reference = model()
    folded = fold(reference)(exams())
    without = model(image_adapter=None)
    without.load_state_dict(
        {n: t for n, t in reference.state_dict().items() if "_adapter." not in n}
    )
    assert (fold(without)(exams()) - folded).abs().max() > 1e-3
    for view in range(len(VIEWS)):
        changed = exams()
        changed[:, view] = 1 - changed[:, view]
        assert (fold(reference)(changed) - folded).abs().max() > 1e-3


def test_nothing_of_the_folded_encoder_can_be_trained_and_it_keeps_the_models_dtype():
    for dtype in (torch.float32, torch.float64):
        folded = fold(model(dtype=dtype))
        assert not folded.training
        assert not any(parameter.requires_grad for parameter in folded.parameters())
        assert {t.dtype for t in (*folded.parameters(), *folded.buffers())} == {dtype}


# In float32, and as a graph


@pytest.mark.parametrize("connection", CONNECTIONS)
@torch.no_grad()
def test_the_graph_agrees_in_float32_at_the_largest_logit_scale(connection):
    reference = model(connection=connection, dtype=torch.float32, view_embedding="learned")
    graph = to_onnx(fold(reference), "fp32")
    views = exams(5, dtype=torch.float32)
    expected = logits(reference.encode_exam(views))
    assert (logits(run(graph, views)) - expected).abs().max() <= LOGIT_TOLERANCE
    assert (logits(run(graph, views[:1])) - expected[:1]).abs().max() <= LOGIT_TOLERANCE


def graph_of(**keys):
    folded = fold(model(dtype=torch.float32, vision={"layers": 2}, **keys))
    data = to_onnx(folded, "fp32")
    graph = onnx.load_from_string(data).graph
    return graph, [node.op_type for node in graph.node]


def test_nothing_that_was_folded_is_left_in_the_graph():
    graph, operators = graph_of()
    assert "Mul" not in operators  # no scale of an adapter or of attention
    gains = {node.input[1] for node in graph.node if node.op_type == "LayerNormalization"}
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    assert sum(not np.all(values[name] == 1) for name in gains) == 1  # ln_pre's
    block = 4 + 2 + 2  # its own, those of attention's weights, and each adapter's second
    products = 1 + block + (block + 1) + 1  # patches, blocks, the last asking apart, embedding
    assert sum(operators.count(name) for name in ("Conv", "MatMul", "Gemm")) == products


def test_adapters_that_vanish_leave_the_graph_of_a_model_without_any():
    _, without = graph_of(image_adapter=None)
    assert graph_of(activation="linear")[1] == without
    assert graph_of(placement="mlp", connection="parallel")[1] == without
