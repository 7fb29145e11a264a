"""Weights rewritten so that inference does less: exact algebra, nothing is approximated.

Each function takes modules of the training model and returns new ones; the model stays as it is.
Products are computed in float64, block by block, and stored in the model's dtype.

What cannot vanish: a bottleneck with a non-linearity stays between two products, of which the first
joins the layer before it. The one exception is a parallel adapter of an MLP with the MLP's own
non-linearity: it is a few more hidden units. A parallel adapter without non-linearity passes the
sub-layer's own by, and what it reads has no linear layer before it: it keeps its two thin products
too. A norm's gain and bias stay where the result is read by a residual sum (``ln_pre``, and
open_clip's ``ln_attn``) or by a product of two such results (norms of queries and keys).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.adapter import more_hidden_units, with_adapter
from export.encoder import Attention, Block, ClassTokenProduct, InferenceEncoder, Mlp, Product
from export.linear import (
    after_norm,
    applied,
    bias_of,
    linear,
    raised,
    scaled,
    scaled_norm,
    statistics,
    unbiased,
)
from mammoclip_sdk.exam import VIEWS
from training.adapters import AdaptedBlock
from training.model import ImageEncoder, MammoClip

__all__ = ["InferenceEncoder", "fold"]


@torch.no_grad()
def fold(model: MammoClip) -> InferenceEncoder:
    """Return the folded image encoder of a model, in evaluation mode and without gradients.

    Raises
    ------
    ValueError
        The encoder has attention by cosine, which open_clip itself cannot run.
    """
    image = model.image
    dtype, depth = image.proj.dtype, len(image.blocks)
    pooled = len(VIEWS) if image.pooling == "mean_cls" else 1
    # Without a global block, the first view's class token has seen no other view.
    seen = pooled if image.n_local == depth else len(VIEWS)
    patches = grey_patches(image.conv1, model.pixel_mean, model.pixel_std)
    added_once = added_to_patches(
        image.class_embedding, image.positional_embedding, image.view_embedding, patches.bias
    )
    last = class_token_rows(image, pooled)
    blocks = [
        fold_block(
            copy.deepcopy(block).double(),
            rows=last if index == depth - 1 else None,
        ).to(dtype)
        for index, block in enumerate(image.blocks)
    ]
    ln_post = copy.deepcopy(image.ln_post).double()
    project = after_norm(linear(image.proj.detach().double().T), ln_post)
    encoder = InferenceEncoder(
        image_size=image.image_size,
        patches=without_bias(patches),
        added=added_once[:seen],
        norm_tokens=copy.deepcopy(image.ln_pre),
        blocks=blocks,
        n_local=image.n_local,
        norm_pooled=statistics(ln_post),
        project=project,
        seen=seen,
        pooled=pooled,
    )
    return encoder.to(dtype).eval().requires_grad_(False)


# What comes before the blocks


def grey_patches(conv: nn.Conv2d, mean: Tensor, std: Tensor) -> nn.Conv2d:
    """Turn the RGB patch convolution into one for the grey image, 0 to 1, it is fed with.

    sum_c w_c * (x - mean_c) / std_c = (sum_c w_c / std_c) * x - sum_c w_c * mean_c / std_c, and
    the last term is the same for every patch: it becomes the bias. The result is float64.
    """
    grey = nn.Conv2d(1, conv.out_channels, conv.kernel_size, conv.stride, device="meta")
    weight = conv.weight.detach().double() / std.double().view(1, 3, 1, 1)
    bias = -(weight * mean.double().view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    if conv.bias is not None:
        bias = bias + conv.bias.detach().double()
    grey.weight = nn.Parameter(weight.sum(dim=1, keepdim=True), requires_grad=False)
    grey.bias = nn.Parameter(bias, requires_grad=False)
    return grey


def without_bias(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the convolution alone, for `added_to_patches` has taken its bias."""
    made = copy.deepcopy(conv)
    made.bias = None
    return made


def added_to_patches(
    class_embedding: Tensor,
    positional_embedding: Tensor,
    view_embedding: Tensor | None,
    patch_bias: Tensor,
) -> Tensor:
    """Sum all that is added to the patches of a view, and its class token, once.

    Returns
    -------
    Tensor
        (V, 1 + patches, width) in float64, V being 1 where no view embedding tells the views
        apart. The first row is the class token; the patches of the image are to be added below.
    """
    rows = positional_embedding.detach().double().clone()
    rows[0] += class_embedding.detach()
    rows[1:] += patch_bias
    if view_embedding is None:
        return rows.unsqueeze(0)
    return rows.unsqueeze(0) + view_embedding.detach().double().unsqueeze(1)


# Attention


@dataclass(frozen=True, kw_only=True)
class AttentionLayers:
    """The layers of attention over what `statistics` of the norm before it returns."""

    query: nn.Linear
    """With 1 / sqrt(head size) inside, or in the norm of the queries where there is one."""
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    norms: tuple[nn.Module, nn.Module, nn.Module]
    """Of queries and keys, head by head, and of what the heads return; or identities."""


def attention_layers(attention: nn.Module, before: nn.LayerNorm) -> AttentionLayers:
    """Fold attention, torch's own or open_clip's, with the norm before it.

    Raises
    ------
    ValueError
        Attention by cosine, which open_clip itself cannot run.
    """
    if getattr(attention, "logit_scale", None) is not None:
        raise ValueError("attention by cosine (scaled_cosine_attn) is not supported")
    query, key, value = (after_norm(layer, before) for layer in projections(attention))
    norm_query, norm_key, inner = (
        getattr(attention, name, nn.Identity()) for name in ("ln_q", "ln_k", "ln_inner")
    )
    scale = (query.out_features // attention.num_heads) ** -0.5
    if isinstance(norm_query, nn.LayerNorm):
        norm_query = scaled_norm(norm_query, scale)
    else:
        query, key = scaled(query, scale), without_key_bias(key)
    output = attention.out_proj
    if isinstance(inner, nn.LayerNorm):
        output, inner = after_norm(output, inner), statistics(inner)
    else:
        value, output = value_bias_behind(value, output)
    return AttentionLayers(
        query=query, key=key, value=value, output=output, norms=(norm_query, norm_key, inner)
    )


def projections(attention: nn.Module) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """Return attention's layers for queries, keys and values.

    A factor on each head (open_clip's ``head_scale``) goes into the values: attention weighs them,
    and a sum of scaled values is the scaled sum.
    """
    biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
    query, key, value = map(linear, attention.in_proj_weight.chunk(3), biases)
    factor = getattr(attention, "head_scale", None)
    if factor is not None:
        size = attention.in_proj_weight.shape[1] // attention.num_heads
        value = scaled(value, factor.detach().flatten().repeat_interleave(size))
    return query, key, value


def without_key_bias(key: nn.Linear) -> nn.Linear:
    """Drop the keys' bias: it adds the same to all logits of a query, and softmax ignores that."""
    return unbiased(key)


def value_bias_behind(value: nn.Linear, output: nn.Linear) -> tuple[nn.Linear, nn.Linear]:
    """Move the values' bias through the output layer: the weights of attention sum to one."""
    return unbiased(value), raised(output, applied(output.weight, bias_of(value)))


def class_token_rows(image: ImageEncoder, pooled: int) -> slice:
    """Say which rows of its sequence the last block has to answer for.

    Nothing but pooled class tokens is read behind it. Their queries need the keys and values of
    every token; the other tokens' queries, their MLP and adapters are never needed.
    """
    if image.n_local == len(image.blocks) or pooled == 1:
        return slice(0, 1)
    return slice(None, None, image.positional_embedding.shape[0])


# Blocks


def fold_block(adapted: AdaptedBlock, *, rows: slice | None) -> Block:
    """Fold one block; with ``rows``, one that answers for these rows of its tokens alone."""
    block = adapted.block
    return Block(
        (statistics(block.ln_1), statistics(block.ln_2)),
        fold_attention(adapted, rows=rows),
        fold_mlp(adapted),
        rows,
    )


def fold_attention(adapted: AdaptedBlock, *, rows: slice | None) -> Attention:
    """Fold attention with the norm before it, LayerScale behind it and its adapter."""
    block = adapted.block
    layers = attention_layers(block.attn, block.ln_1)
    output, behind = layer_scaled(
        layers.output, getattr(block, "ln_attn", nn.Identity()), block.ls_1
    )
    beside, last, bottleneck = with_adapter(
        adapted.attention_adapter,
        parallel=adapted.parallel,
        before=block.ln_1,
        output=output,
        behind=behind,
    )
    if rows is None:
        project = Product(layers.query, layers.key, layers.value, *beside)
    else:
        asking, telling = Product(layers.query, *beside), Product(layers.key, layers.value)
        project = ClassTokenProduct(asking, telling, rows)
    return Attention(project, last, bottleneck, heads=block.attn.num_heads, norms=layers.norms)


def fold_mlp(adapted: AdaptedBlock) -> Mlp:
    """Fold an MLP with the norm before it, LayerScale behind it and its adapter."""
    block, adapter = adapted.block, adapted.mlp_adapter
    widen, activation, output = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
    norm = getattr(block.mlp, "ln", nn.Identity())
    if isinstance(norm, nn.LayerNorm):
        output, norm = after_norm(output, norm), statistics(norm)
    output, behind = layer_scaled(output, nn.Identity(), block.ls_2)
    same = adapter is not None and adapter.activation.name == _name_of(activation)
    if same and adapted.parallel and isinstance(norm, nn.Identity):
        widen, output = more_hidden_units(widen, output, adapter)
        adapter = None
    beside, last, bottleneck = with_adapter(
        adapter, parallel=adapted.parallel, before=block.ln_2, output=output, behind=behind
    )
    first = Product(after_norm(widen, block.ln_2), *beside)
    return Mlp(first, activation, norm, last, bottleneck)


def layer_scaled(
    output: nn.Linear, norm: nn.Module, scale: nn.Module
) -> tuple[nn.Linear, nn.Module]:
    """Move LayerScale into the sub-layer's last layer, or into the norm behind that."""
    if isinstance(scale, nn.Identity):
        return output, norm
    if isinstance(norm, nn.LayerNorm):
        return output, scaled_norm(norm, scale.gamma.detach())
    return scaled(output, scale.gamma.detach()), norm


def _name_of(activation: nn.Module) -> str | None:
    """Return the name, in `training.adapters.ACTIVATIONS`, of an MLP's non-linearity."""
    if isinstance(activation, nn.GELU):
        return "gelu" if activation.approximate == "none" else None
    return "quick_gelu" if type(activation).__name__ == "QuickGELU" else None
