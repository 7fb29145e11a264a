"""Small Mammo-CLIPs of random weights, none of which is neutral, and exams for them."""

import json

import numpy as np
import onnxruntime
import torch
from torch.nn import functional

from mammoclip_sdk.exam import VIEWS
from training.adapters import AdapterConfig
from training.model import MammoClip, ModelConfig

SIZE = (48, 32)
DEPTH = 3
ARCHITECTURE = {
    "embed_dim": 64,
    "vision_cfg": {"layers": DEPTH, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


def randomise(module, std=0.3):
    """Move every weight that starts at a constant, so that nothing is neutral."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            norm_or_bias = ".ln_" in name or ".ln." in name or name.endswith("bias")
            trained = "_adapter." in name or name == "image.view_embedding"
            if norm_or_bias or trained or name.endswith(("gamma", "head_scale")):
                parameter.add_(torch.randn_like(parameter) * std)
    return module


def model(
    *,
    vision=None,
    architecture=ARCHITECTURE,
    placement="both",
    connection="serial",
    activation="gelu",
    scale=0.3,
    size=SIZE,
    std=0.3,
    dtype=torch.float64,
    **keys,
):
    torch.manual_seed(0)
    architecture = json.loads(json.dumps(architecture))
    architecture["quick_gelu"] = keys.pop("quick_gelu", False)
    architecture["vision_cfg"] |= vision or {}
    adapter = AdapterConfig(
        rank=4, activation=activation, placement=placement, connection=connection, scale=scale
    )
    config = ModelConfig(
        open_clip_model="tiny",
        pretrained=None,
        image_size=size,
        n_local=keys.pop("n_local", 1),
        image_adapter=keys.pop("image_adapter", adapter),
        text_adapter=None,
        **keys,
    )
    return randomise(MammoClip(config, architecture=architecture).to(dtype).eval(), std)


def exams(count=3, size=SIZE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, len(VIEWS), 1, *size, generator=generator, dtype=dtype)


def structured_exams(count=4, size=SIZE, seed=0):
    """Make what noise lacks: black air, an edge, bright tissue with texture, grey values k/255.

    (count, 4, 1, H, W) float32; the last exam's views are black, white, half, and a checkerboard.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] / np.array(size).reshape(2, 1, 1)
    views = np.zeros((count, len(VIEWS), 1, *size), dtype=np.float32)
    for view in views.reshape(-1, *size):
        reach, waves = random.uniform(0.4, 0.95), random.uniform(3, 9, size=2)
        inside = ((rows - 0.5) / 0.4) ** 2 + (columns / reach) ** 2 < 1
        tissue = 0.5 + 0.3 * np.sin(waves[0] * rows) * np.cos(waves[1] * columns)
        view[inside] = (tissue + 0.05 * random.standard_normal(size))[inside]
    views[-1] = 0
    views[-1, 1], views[-1, 2] = 1, rows < 0.5
    views[-1, 3] = np.indices(size).sum(axis=0) % 2
    return torch.from_numpy(np.round(255 * views.clip(0, 1)) / np.float32(255))


def logits(embedding, seed=3):
    prompts = torch.randn(8, embedding.shape[-1], generator=torch.Generator().manual_seed(seed))
    return 100 * torch.as_tensor(embedding) @ functional.normalize(prompts, dim=-1).T


def run(graph, views):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {"views": views.numpy()})[0]
