"""Linear layers by oneDNN: another kernel, the same numbers, and nothing else is touched."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from export.one_dnn import one_dnn

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def operators(compute):
    """What torch runs, by the names of its operators."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        result = compute()
    return result, {event.key for event in profiled.key_averages()}


@pytest.fixture
def tokens():
    return torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_linear_layer_is_computed_by_one_dnn_and_agrees_with_float64(tokens):
    layer = nn.Linear(16, 24)
    with one_dnn():
        found, ran = operators(lambda: layer(tokens))
    assert "aten::mkldnn_linear" in ran
    exact = functional.linear(tokens.double(), layer.weight.double(), layer.bias.double())
    assert (found.dtype, found.shape) == (torch.float32, (2, 7, 24))
    assert (found - exact).abs().max() < 1e-6
    with one_dnn():
        assert torch.equal(found, layer(tokens))
    _, ran = operators(lambda: layer(tokens))
    assert "aten::mkldnn_linear" not in ran


@torch.no_grad()
def test_the_layers_within_attention_are_too(tokens):
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    expected = attention(tokens, tokens, tokens, need_weights=False)[0]
    assert torch.backends.mha.get_fastpath_enabled()
    with one_dnn():
        found, ran = operators(lambda: attention(tokens, tokens, tokens, need_weights=False)[0])
    assert "aten::mkldnn_linear" in ran
    assert "aten::_native_multi_head_attention" not in ran
    assert (found - expected).abs().max() < 1e-6
    assert torch.backends.mha.get_fastpath_enabled()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_another_type_is_left_alone(tokens, dtype):
    layer = nn.Linear(16, 24, dtype=dtype)
    expected = layer(tokens.to(dtype))
    with one_dnn():
        assert torch.equal(layer(tokens.to(dtype)), expected)


def test_attention_is_as_it_was_after_an_error():
    with pytest.raises(KeyError), one_dnn():
        raise KeyError
    assert torch.backends.mha.get_fastpath_enabled()
