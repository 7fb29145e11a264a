"""Folding is exact: each fold, and all of them together, agree with the model in float64."""

import json

import pytest
import torch
from torch import nn

from export.fold import PlainAttention, added_to_patches, fold, grey_patches, unscaled
from mammoclip_sdk.exam import VIEWS
from training.adapters import Adapter, AdapterConfig
from training.model import MammoClip, ModelConfig

SIZE = (48, 32)
ARCHITECTURE = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 3, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
TOLERANCE = 1e-10  # relative


def assert_close(found, expected):
    assert (found - expected).norm() <= TOLERANCE * expected.norm()


def model(*, vision=None, placement="both", connection="serial", activation="gelu", **keys):
    torch.manual_seed(0)
    architecture = json.loads(json.dumps(ARCHITECTURE))
    architecture["vision_cfg"] |= vision or {}
    adapter = AdapterConfig(
        rank=4, activation=activation, placement=placement, connection=connection, scale=0.3
    )
    config = ModelConfig(
        open_clip_model="tiny",
        pretrained=None,
        image_size=SIZE,
        n_local=keys.pop("n_local", 1),
        image_adapter=keys.pop("image_adapter", adapter),
        text_adapter=None,
        **keys,
    )
    made = MammoClip(config, architecture=architecture).double().eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "_adapter." in name or name == "image.view_embedding" or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def exams(count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, len(VIEWS), 1, *SIZE, generator=generator, dtype=torch.float64)


@torch.no_grad()
def test_the_grey_convolution_is_the_rgb_one_after_normalisation():
    rgb = nn.Conv2d(3, 8, 16, 16, bias=False).double()
    mean, std = torch.tensor([0.48, 0.46, 0.41]), torch.tensor([0.27, 0.26, 0.28])
    grey = torch.rand(2, 1, 32, 48, dtype=torch.float64)
    normalised = (grey - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    folded = grey_patches(rgb, mean, std)
    assert folded.weight.shape == (8, 1, 16, 16)
    assert_close(folded(grey), rgb(normalised))


@torch.no_grad()
def test_the_scale_moves_into_the_up_projection_of_a_new_adapter():
    adapter = Adapter(width=8, rank=3, activation="gelu", scale=0.25).double()
    nn.init.normal_(adapter.up.weight)
    nn.init.normal_(adapter.up.bias)
    before = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    x = torch.randn(5, 8, dtype=torch.float64)
    folded = unscaled(adapter)
    assert folded.scale == 1.0
    assert_close(folded(x), adapter(x))
    assert_close(folded.up(folded.activation(folded.down(x))), adapter(x))
    assert adapter.scale == 0.25
    assert all(torch.equal(before[name], t) for name, t in adapter.state_dict().items())


@torch.no_grad()
def test_class_token_positions_and_view_embedding_become_one_sum():
    class_token, positions = torch.randn(8), torch.randn(7, 8)
    view, patches = torch.randn(4, 8), torch.randn(4, 6, 8)
    tokens = torch.cat([class_token.expand(4, 1, 8), patches], dim=1) + positions
    padded = nn.functional.pad(patches, (0, 0, 1, 0))
    torch.testing.assert_close(padded + added_to_patches(class_token, positions, None), tokens)
    expected = tokens + view.unsqueeze(1)
    torch.testing.assert_close(padded + added_to_patches(class_token, positions, view), expected)


@torch.no_grad()
def test_plain_attention_is_torchs_multi_head_attention():
    attention = nn.MultiheadAttention(24, 3, batch_first=True).double().eval()
    nn.init.normal_(attention.in_proj_bias)
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    assert_close(PlainAttention(attention)(x), attention(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"connection": "parallel"},
        {"placement": "mlp", "activation": "linear"},
        {"image_adapter": None},
        {"n_local": 0, "pooling": "first_cls"},
        {"n_local": 3},
        {"view_embedding": "learned"},
        {"vision": {"ls_init_value": 0.3}},
        {"vision": {"qk_norm": True, "scale_attn": True, "scale_fc": True}},
        {"vision": {"no_ln_pre": True}},
    ],
    ids=str,
)
@torch.no_grad()
def test_the_folded_encoder_is_the_model(keys):
    reference = model(**keys)
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    expected = reference.encode_exam(exams())
    assert_close(fold(reference)(exams()), expected)
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


def test_nothing_of_the_folded_encoder_can_be_trained():
    folded = fold(model())
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
