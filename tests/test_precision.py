"""Half precision holds what it is said to hold, and what leaves its range stays in float32."""

import itertools

import numpy as np
import pytest
import torch
from encoders import DEPTH, logits, model, structured_exams
from torch.nn import functional

from export.encoder import Attention
from export.fold import fold
from export.precision import (
    ACTIVATION_LIMIT,
    OutOfRange,
    PrecisionError,
    activation_range,
    half,
    out_of_range,
    range_report,
)
from training.adapters import ACTIVATIONS, CONNECTIONS, PLACEMENTS
from training.model import POOLINGS, VIEW_EMBEDDINGS

HALF_ENDS = 65504
LOGITS, COSINE, LENGTH = 0.05, 1e-4, 1e-5
"""What half precision may change: a logit at scale 100, a cosine, the embedding's length."""


def folded(**keys):
    return fold(model(dtype=torch.float32, **keys))


def assert_agrees(found, expected):
    assert found.dtype == torch.float32
    assert (logits(found) - logits(expected)).abs().max() <= LOGITS
    assert (1 - functional.cosine_similarity(found, expected)).max() <= COSINE
    assert (found.double().norm(dim=-1) - 1).abs().max() <= LENGTH


@torch.no_grad()
def assert_half_agrees(reference, views, **keys):
    encoder = fold(reference)
    assert_agrees(half(encoder, **keys)(views), reference.encode_exam(views))


# Agreement; on the CPU torch rounds every result of half precision to half


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_half_agrees_for_every_adapter_depth_and_pooling(placement, connection, activation):
    views = structured_exams()
    for n_local, pooling in itertools.product((0, 1, DEPTH), POOLINGS):
        reference = model(
            placement=placement,
            connection=connection,
            activation=activation,
            n_local=n_local,
            pooling=pooling,
            dtype=torch.float32,
        )
        assert_half_agrees(reference, views)


@pytest.mark.parametrize("size", [(16, 64), (64, 16)])
@pytest.mark.parametrize("view_embedding", VIEW_EMBEDDINGS)
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_half_agrees_for_every_size_and_view_embedding(size, view_embedding, quick_gelu):
    reference = model(
        size=size, view_embedding=view_embedding, quick_gelu=quick_gelu, dtype=torch.float32
    )
    assert_half_agrees(reference, structured_exams(size=size))


@pytest.mark.parametrize("name", ["qk_norm", "scale_heads", "scale_attn_inner", "scale_attn"])
def test_half_agrees_with_the_extra_norms_of_open_clips_own_block(name):
    vision = {"block_type": "custom", name: True, "ls_init_value": 0.3}
    reference = model(vision=vision, dtype=torch.float32)
    assert_half_agrees(reference, structured_exams())


@torch.no_grad()
def test_the_encoder_is_left_as_it_was():
    encoder, views = folded(), structured_exams()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    expected = encoder(views)
    made = half(encoder, float32_blocks=[1])
    for tensor in made.state_dict().values():
        tensor.zero_()
    assert all(torch.equal(before[name], t) for name, t in encoder.state_dict().items())
    assert torch.equal(encoder(views), expected)


# What is in half, and what is not


def dtypes(encoder, views):
    """Return, for every module, the dtypes it is given and returns."""
    seen = {}

    def watch(name):
        def hook(_, given, result):
            result = result if isinstance(result, torch.Tensor) else result[0]
            seen[name] = (given[0].dtype, result.dtype)

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in encoder.named_modules()]
    with torch.no_grad():
        encoder(views)
    for hook in hooks:
        hook.remove()
    return seen


def test_the_trunk_is_in_half_and_statistics_pooling_projection_and_length_are_not():
    encoder = half(folded(), float32_blocks=[1])
    seen = dtypes(encoder, structured_exams())
    wide, narrow = torch.float32, torch.float16
    assert seen[""] == (wide, wide)
    assert seen["patches.module"] == (narrow, narrow)
    for name in ("norm_tokens", "norm_pooled", "project"):
        assert seen[name] == (wide, wide)
    for index, own in enumerate((narrow, wide, narrow)):
        block = f"blocks.{index}"
        for layer in ("attention.project", "attention.output", "mlp.widen", "mlp.output"):
            assert seen[f"{block}.{layer}"] == (own, own)
        for norm in ("norm_1", "norm_2"):
            assert seen[f"{block}.{norm}"] == (wide, own)
            assert seen[f"{block}.{norm}.module"] == (wide, wide)
        attention = encoder.get_submodule(f"{block}.attention")
        assert isinstance(attention, Attention)
        assert attention.operator == (own == narrow)
    # the residual stream: into and out of every block
    assert all(seen[f"blocks.{index}"] == (wide, wide) for index in range(DEPTH))
    assert encoder.added.dtype == wide
    assert encoder.float32_blocks == (1,)


def test_the_patches_go_with_the_first_block():
    seen = dtypes(half(folded(), float32_blocks=[0]), structured_exams())
    assert seen["patches.module"] == (torch.float32, torch.float32)


def test_a_block_that_is_not_there_is_refused():
    with pytest.raises(PrecisionError, match="found 1, 3; expected blocks from 0 to 2"):
        half(folded(), float32_blocks=[3, 1])


# The range of activations


def largest_of(encoder, views):
    return activation_range(encoder, views.numpy())


def test_every_exam_counts_and_they_are_computed_one_at_a_time():
    encoder, views = folded(), structured_exams(4)
    alone = [largest_of(encoder, exam[None]) for exam in views]
    sizes = []
    hook = encoder.patches.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    together = largest_of(encoder, views)
    hook.remove()
    assert sizes == [4, 4, 4, 4]  # views of one exam
    assert together == tuple(max(values) for values in zip(*alone, strict=True))
    assert len(set(alone)) == 4


def loud(part):
    """Return an encoder whose second block has one kind of activation louder than all others."""
    encoder = folded(n_local=0, connection="parallel", activation="relu")
    block = encoder.blocks[1]
    layer = block.attention.project.layer
    query, key, value, _ = layer.weight.split([32, 32, 32, 4])
    widen = block.mlp.widen.layer
    if part == "stream":
        block.mlp.output.layer.bias[3] = 1000
    elif part == "stream between":
        block.attention.output.layer.bias[3] = 1000
        block.mlp.output.layer.bias[3] = -1000
    elif part == "query":
        query *= 1000
        key /= 1000
    elif part == "key":
        query /= 1000
        key *= 1000
    elif part == "value":
        value *= 1000
        block.attention.output.layer.weight /= 1000
    elif part == "logits":
        query *= 30
        key *= 30
    elif part == "adapter hidden":
        layer.bias[96:] = -1000  # which the adapter's relu turns to nothing
    elif part == "mlp hidden":
        widen.bias[5] = -1000  # which gelu turns to nothing
    return encoder


@pytest.mark.parametrize(
    "part",
    [
        "stream",
        "stream between",
        "query",
        "key",
        "value",
        "logits",
        "adapter hidden",
        "mlp hidden",
    ],
)
@torch.no_grad()
def test_whatever_a_block_stores_counts(part):
    views = structured_exams()
    quiet, found = largest_of(loud(None), views), largest_of(loud(part), views)
    assert max(quiet) < 50
    assert found[0] == quiet[0]
    assert found[1] > 500
    assert found[2] < 50  # what it is added to stays in float32


@torch.no_grad()
def test_the_logits_of_attention_are_measured():
    encoder, views = loud("logits"), structured_exams(1)
    stored = {}
    block = encoder.blocks[1].attention
    hook = block.project.register_forward_hook(lambda _, __, result: stored.update(all=result))
    found = largest_of(encoder, views)
    hook.remove()
    query, key = (part.unflatten(-1, (2, 16)).transpose(1, 2) for part in stored["all"][:2])
    assert found[1] == (query @ key.mT).abs().max().item()


@torch.no_grad()
def test_the_patches_count_for_the_first_block():
    encoder, views = folded(), structured_exams()
    encoder.patches.weight *= 1000
    found = largest_of(encoder, views)
    assert found[0] == encoder.patches(views.flatten(0, 1)).abs().max().item() > 500
    assert found[1] < 50  # ln_pre has brought them back


@pytest.mark.parametrize("value", [np.nan, np.inf])
@torch.no_grad()
def test_a_model_that_computes_no_numbers_is_refused(value):
    encoder = folded()
    encoder.blocks[1].mlp.output.layer.bias[0] = value
    with pytest.raises(PrecisionError, match=f"block 1: found an activation that is {value}"):
        largest_of(encoder, structured_exams())


def test_no_exams_are_refused():
    with pytest.raises(PrecisionError, match="calibration exams: found none"):
        activation_range(folded(), np.zeros((0, 4, 1, 48, 32), np.float32))


# What follows from it


def test_the_limit_is_a_quarter_of_what_half_holds_and_only_beyond_it_is_out():
    assert ACTIVATION_LIMIT == 2**14 == (HALF_ENDS + 32) / 4
    beyond = np.nextafter(2**14, np.inf)
    assert out_of_range(folded(), (2**14, 1.0, 2**14)) == ()
    (found,) = out_of_range(folded(), (2**14, beyond, 1.0))
    assert found == OutOfRange(block=1, reason="activations up to 16384, beyond 16384")
    with pytest.raises(PrecisionError, match="found 2 numbers; expected one for each of 3 blocks"):
        out_of_range(folded(), (1.0, 1.0))


def beyond_half(reference, *, stream):
    """Push a block's hidden unit, or the stream behind it, where half has nothing but infinity.

    No weight leaves the range, and in float32 the model is as good as any other.
    """
    block = reference.image.blocks[1].block
    with torch.no_grad():
        if stream:
            block.mlp.c_proj.weight[3] += 3e4
        else:
            block.mlp.c_fc.weight[5] *= 1.5e5
            block.mlp.c_proj.weight[:, 5] *= 1e-5
    return reference


@pytest.mark.parametrize("stream", [False, True])
@torch.no_grad()
def test_a_block_beyond_the_range_stays_in_float32_and_agrees_where_half_would_not(stream):
    reference = beyond_half(model(dtype=torch.float32), stream=stream)
    encoder, views = fold(reference), structured_exams()
    largest = largest_of(encoder, views)
    kept = out_of_range(encoder, largest)
    assert [entry.block for entry in kept] == [1]
    assert largest[1] > HALF_ENDS
    assert_half_agrees(reference, views, float32_blocks=[1])
    assert not half(encoder)(views).isfinite().all()


@torch.no_grad()
def test_weights_that_half_cannot_hold_keep_their_block_in_float32():
    encoder, quiet = folded(), (1.0, 1.0, 1.0)
    encoder.blocks[1].mlp.widen.layer.weight[2, 3] = 70_000
    (found,) = out_of_range(encoder, quiet)
    assert found == OutOfRange(block=1, reason="a weight of 70000, beyond 65504")
    with pytest.raises(PrecisionError, match="block 1: found a weight of 70000"):
        half(encoder, float32_blocks=[0])
    half(encoder, float32_blocks=[1])


@pytest.mark.parametrize("place", ["values", "output", "patches"])
@torch.no_grad()
def test_layers_that_fade_in_half_keep_their_block_in_float32(place):
    encoder = folded()
    block = encoder.blocks[1]
    if place == "values":  # beside queries and keys, in one product
        block.attention.project.layer.weight[64:96] *= 1e-5
    elif place == "output":  # as an untrained LayerScale leaves it
        block.mlp.output.layer.weight *= 1e-5
    else:
        encoder.patches.weight *= 1e-5
    (found,) = out_of_range(encoder, (1.0, 1.0, 1.0))
    assert found.block == (0 if place == "patches" else 1)
    assert "fade in half precision" in found.reason


@torch.no_grad()
def test_weights_that_are_small_or_zero_beside_others_do_not_matter():
    encoder = folded()
    encoder.blocks[1].mlp.output.layer.weight[0] *= 1e-9
    encoder.blocks[1].mlp.bottleneck.up.weight.zero_()  # as a new adapter's
    assert out_of_range(encoder, (1.0, 1.0, 1.0)) == ()


def test_the_report_says_what_is_kept_and_why():
    kept = (OutOfRange(block=1, reason="activations up to 31000, beyond 16384"),)
    assert range_report((7.25, 31_000.4), kept).splitlines() == [
        "Largest activation of each block, limit 16384: 7.25, 3.1e+04",
        "Block 1 stays in float32: it has activations up to 31000, beyond 16384.",
        "TensorRT-RTX builds no engine for Turing from a graph with such a block.",
    ]
    assert range_report((7.25,), ()).endswith("Every block can be in half precision.")
