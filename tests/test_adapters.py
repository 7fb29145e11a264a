"""Adapters: fresh ones change nothing, trained ones do exactly what their formula says."""

import copy

import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.nn import functional

from training.adapters import AdaptedBlock, AdapterConfig

WIDTH, RANK, SCALE = 16, 4, 0.5


def config(**changes):
    keys = {
        "rank": RANK,
        "activation": "gelu",
        "placement": "mlp",
        "connection": "serial",
        "scale": SCALE,
    }
    return AdapterConfig(**(keys | changes))


@pytest.fixture
def block():
    torch.manual_seed(0)
    return ResidualAttentionBlock(WIDTH, 2).double().eval()


@pytest.fixture
def tokens():
    return torch.randn(3, 5, WIDTH, dtype=torch.float64, generator=torch.manual_seed(1))


def adapted(block, *, fresh=False, **changes):
    wrapped = AdaptedBlock(block, width=WIDTH, config=config(**changes), rank=RANK).double()
    if not fresh:
        for name, parameter in wrapped.named_parameters():
            if "_adapter" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return wrapped


@pytest.mark.parametrize("placement", ["attention", "mlp", "both"])
@pytest.mark.parametrize("connection", ["serial", "parallel"])
def test_a_fresh_adapter_leaves_the_block_of_open_clip_as_it_is(
    block, tokens, placement, connection
):
    wrapped = adapted(block, fresh=True, placement=placement, connection=connection)
    assert torch.equal(wrapped(tokens), block(tokens))


def test_without_a_configuration_there_are_no_adapters(block, tokens):
    wrapped = AdaptedBlock(block, width=WIDTH, config=None, rank=0)
    assert torch.equal(wrapped(tokens), block(tokens))
    assert set(wrapped.state_dict()) == {f"block.{name}" for name in block.state_dict()}


def by_hand(adapter, x, activation):
    hidden = activation(x @ adapter.down.weight.T + adapter.down.bias)
    return SCALE * (hidden @ adapter.up.weight.T + adapter.up.bias)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("gelu", functional.gelu),
        ("relu", lambda x: x.clamp_min(0)),
        ("quick_gelu", lambda x: x / (1 + torch.exp(-1.702 * x))),
        ("linear", lambda x: x),
    ],
)
@pytest.mark.parametrize("connection", ["serial", "parallel"])
def test_the_block_with_two_adapters_is_its_formula(block, tokens, name, activation, connection):
    wrapped = adapted(block, activation=name, placement="both", connection=connection)
    normed = block.ln_1(tokens)
    output = block.attn(normed, normed, normed, need_weights=False)[0]
    source = normed if connection == "parallel" else output
    x = tokens + output + by_hand(wrapped.attention_adapter, source, activation)
    normed = block.ln_2(x)
    output = block.mlp(normed)
    source = normed if connection == "parallel" else output
    expected = x + output + by_hand(wrapped.mlp_adapter, source, activation)
    torch.testing.assert_close(wrapped(tokens), expected, rtol=0, atol=1e-12)


def test_a_linear_serial_adapter_is_a_low_rank_change_of_the_layer_before_it(block, tokens):
    wrapped = adapted(block, activation="linear")
    adapter, merged = wrapped.mlp_adapter, copy.deepcopy(block)
    change = torch.eye(WIDTH) + SCALE * adapter.up.weight @ adapter.down.weight
    offset = SCALE * (adapter.up.weight @ adapter.down.bias + adapter.up.bias)
    with torch.no_grad():
        merged.mlp.c_proj.weight.copy_(change @ block.mlp.c_proj.weight)
        merged.mlp.c_proj.bias.copy_(change @ block.mlp.c_proj.bias + offset)
    torch.testing.assert_close(wrapped(tokens), merged(tokens), rtol=0, atol=1e-12)


def test_wrapping_does_not_change_the_block_itself(block, tokens):
    before = block(tokens)
    wrapped = adapted(block, placement="both")
    assert not torch.allclose(wrapped(tokens), before)
    assert torch.equal(block(tokens), before)


def test_the_mask_keeps_later_tokens_from_earlier_ones(block, tokens):
    wrapped = adapted(block, placement="both")
    mask = torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1)
    changed = tokens.clone()
    changed[:, 3:] = -changed[:, 3:]
    torch.testing.assert_close(wrapped(changed, mask)[:, :3], wrapped(tokens, mask)[:, :3])
    assert not torch.allclose(wrapped(changed)[:, :3], wrapped(tokens)[:, :3])


@pytest.mark.parametrize(
    ("width", "placement", "rank"),
    [(768, "mlp", 48), (768, "both", 24), (1024, "attention", 64), (1024, "both", 32)],
)
def test_default_ranks(width, placement, rank):
    assert config(rank=None, placement=placement).resolved_rank(width) == rank
    assert config(rank=7, placement=placement).resolved_rank(width) == 7


def test_all_wrong_keys_are_reported_together():
    with pytest.raises(ValueError, match=r"activation is 'tanh'.*placement is 'all'.*rank is 0"):
        config(activation="tanh", placement="all", rank=0)
