"""A Mammo-CLIP of a few thousand weights, and exams for it."""

import json

import torch

from training.adapters import AdapterConfig
from training.model import MammoClip, ModelConfig

ADAPTER = AdapterConfig(
    rank=None, activation="gelu", placement="mlp", connection="serial", scale=1.0
)
DEPTH = 4
SIZE = (64, 32)
PROMPTS = ["a mammogram without malignancy", "a mammogram with malignancy"]
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"layers": DEPTH, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def merged(changes):
    architecture = json.loads(json.dumps(TINY))
    for key, value in changes.items():
        if isinstance(value, dict):
            architecture[key] |= value
        else:
            architecture[key] = value
    return architecture


def tiny_config(folder, changes=None, **keys):
    path = folder / "tiny.json"
    path.write_text(json.dumps(merged(changes or {})))
    defaults = {
        "open_clip_model": str(path),
        "pretrained": None,
        "image_size": SIZE,
        "n_local": 2,
        "image_adapter": ADAPTER,
        "text_adapter": ADAPTER,
    }
    return ModelConfig(**(defaults | keys))


def tiny(folder, changes=None, *, trained=True, **keys):
    torch.manual_seed(0)
    model = MammoClip(tiny_config(folder, changes, **keys)).double().eval()
    if trained:
        train_at_random(model)
    return model


def train_at_random(model, seed=1):
    """Give the adapters weights as if they had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_adapter." in name or name == "image.view_embedding":
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def exams(count=2, views=4, *, channels=1, size=SIZE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, views, channels, *size, generator=generator, dtype=dtype)


def difference(a, b):
    return (a - b).abs().max().item()
