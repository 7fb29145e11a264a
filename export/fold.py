"""Weights rewritten so that inference does less: exact algebra, nothing is approximated.

Each function takes modules of the training model and returns new ones; the model stays as it is.
A bottleneck with a non-linearity cannot vanish into its neighbours' weights: adapters stay in the
graph as two thin products each.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from mammoclip_sdk.exam import VIEWS
from training.adapters import AdaptedBlock, Adapter
from training.model import MammoClip


def grey_patches(conv: nn.Conv2d, mean: Tensor, std: Tensor) -> nn.Conv2d:
    """Turn the RGB patch convolution into one for the grey image, 0 to 1, it is fed with.

    sum_c w_c * (x - mean_c) / std_c = (sum_c w_c / std_c) * x - sum_c w_c * mean_c / std_c, and
    the last term is the same for every patch: it becomes the bias.
    """
    grey = nn.Conv2d(
        1, conv.out_channels, conv.kernel_size, conv.stride, dtype=conv.weight.dtype
    ).requires_grad_(False)
    weight = conv.weight.detach().double() / std.double().view(1, 3, 1, 1)
    bias = -(weight * mean.double().view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    if conv.bias is not None:
        bias = bias + conv.bias.detach().double()
    grey.weight.copy_(weight.sum(dim=1, keepdim=True))
    grey.bias.copy_(bias)
    return grey


def unscaled(adapter: Adapter) -> Adapter:
    """Move an adapter's scale into its up-projection."""
    folded = copy.deepcopy(adapter).requires_grad_(False)
    folded.up.weight.mul_(adapter.scale)
    folded.up.bias.mul_(adapter.scale)
    folded.scale = 1.0
    return folded


def added_to_patches(
    class_embedding: Tensor, positional_embedding: Tensor, view_embedding: Tensor | None
) -> Tensor:
    """Sum all that is added to the patches of a view, and its class token, once.

    Returns
    -------
    Tensor
        (V, 1 + patches, width), V being 1 where no view embedding tells the views apart. The
        first row is the class token; the patches of the image are to be added below it.
    """
    rows = positional_embedding.detach().clone()
    rows[0] += class_embedding.detach()
    if view_embedding is None:
        return rows.unsqueeze(0)
    return rows.unsqueeze(0) + view_embedding.detach().unsqueeze(1)


class PlainAttention(nn.Module):
    """Self-attention of `torch.nn.MultiheadAttention`, without its branches.

    Written as matrix products, so that a graph made from it has nothing else.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.width = attention.embed_dim
        self.input = nn.Linear(self.width, 3 * self.width)
        self.input.weight = copy.deepcopy(attention.in_proj_weight)
        self.input.bias = copy.deepcopy(attention.in_proj_bias)
        self.output = copy.deepcopy(attention.out_proj)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, width) to (B, L, width)."""
        length, size = x.shape[1], self.width // self.heads
        query, key, value = (
            part.reshape(-1, length, self.heads, size).transpose(1, 2)
            for part in self.input(x).split(self.width, dim=-1)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) * size**-0.5, dim=-1)
        return self.output((weights @ value).transpose(1, 2).reshape(-1, length, self.width))


class InferenceBlock(nn.Module):
    """An `AdaptedBlock` for inference alone."""

    def __init__(self, adapted: AdaptedBlock) -> None:
        super().__init__()
        block = copy.deepcopy(adapted.block)
        attention = block.attn
        if isinstance(attention, nn.MultiheadAttention):
            attention = PlainAttention(attention)
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        extra = getattr(block, "ln_attn", nn.Identity())
        self.attention = nn.Sequential(attention, extra, block.ls_1)
        self.mlp = nn.Sequential(block.mlp, block.ls_2)
        self.parallel = adapted.parallel
        self.attention_adapter = _unscaled_or_none(adapted.attention_adapter)
        self.mlp_adapter = _unscaled_or_none(adapted.mlp_adapter)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, width) to (B, L, width)."""
        normed = self.ln_1(x)
        x = x + self._adapted(self.attention_adapter, normed, self.attention(normed))
        normed = self.ln_2(x)
        return x + self._adapted(self.mlp_adapter, normed, self.mlp(normed))

    def _adapted(self, adapter: Adapter | None, normed: Tensor, output: Tensor) -> Tensor:
        if adapter is None:
            return output
        source = normed if self.parallel else output
        return output + adapter.up(adapter.activation(adapter.down(source)))


def _unscaled_or_none(adapter: Adapter | None) -> Adapter | None:
    return None if adapter is None else unscaled(adapter)


class InferenceEncoder(nn.Module):
    """The image encoder of a Mammo-CLIP for four grey views, folded."""

    def __init__(self, model: MammoClip) -> None:
        super().__init__()
        image = model.image
        self.height, self.width = image.image_size
        self.n_local, self.pooling = image.n_local, image.pooling
        self.patches = grey_patches(image.conv1, model.pixel_mean, model.pixel_std)
        added = added_to_patches(
            image.class_embedding, image.positional_embedding, image.view_embedding
        )
        self.register_buffer("added", added)
        self.ln_pre = copy.deepcopy(image.ln_pre)
        self.blocks = nn.ModuleList(InferenceBlock(block) for block in image.blocks)
        self.ln_post = copy.deepcopy(image.ln_post)
        self.proj = copy.deepcopy(image.proj)

    def forward(self, views: Tensor) -> Tensor:
        """Encode exams (B, 4, 1, H, W), 0 (air) to 1, as (B, D) of unit length in float32."""
        count, (length, width) = len(VIEWS), self.added.shape[1:]
        patches = self.patches(views.reshape(-1, 1, self.height, self.width))
        patches = patches.flatten(2).transpose(1, 2)
        tokens = functional.pad(patches, (0, 0, 1, 0))  # a row of zeros for the class token
        tokens = tokens.reshape(-1, count, length, width) + self.added
        tokens = self.ln_pre(tokens.reshape(-1, length, width))
        for block in self.blocks[: self.n_local]:
            tokens = block(tokens)
        tokens = tokens.reshape(-1, count * length, width)
        for block in self.blocks[self.n_local :]:
            tokens = block(tokens)
        class_tokens = tokens[:, ::length]
        pooled = class_tokens.mean(dim=1) if self.pooling == "mean_cls" else class_tokens[:, 0]
        embedding = self.ln_post(pooled) @ self.proj
        # torch's normalize, spelt so that it broadcasts instead of expanding to a shape
        return embedding / embedding.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def fold(model: MammoClip) -> InferenceEncoder:
    """Return the folded image encoder of a model, in evaluation mode and without gradients."""
    return InferenceEncoder(model).eval().requires_grad_(False)
