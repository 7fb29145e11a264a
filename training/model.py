"""Mammo-CLIP: any open_clip ViT, its blocks split in local and global ones, with adapters.

Four views go through the first ``n_local`` blocks one by one, with the same weights; then the
tokens of all views form one sequence, class tokens included, for the remaining blocks. The pooled
class tokens give the exam's embedding, to be compared with the embeddings of text prompts.
After Chen et al., arXiv 2404.15946; what that paper leaves open is a key of `ModelConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mammoclip_sdk.exam import VIEWS, View
from training import checkpoint_folder, clip
from training.adapters import AdaptedBlock, AdapterConfig
from training.checkpoint import is_trained
from training.errors import CheckpointError
from training.model_config import POOLINGS, VIEW_EMBEDDINGS, ModelConfig, config_of

__all__ = [
    "POOLINGS",
    "VIEW_EMBEDDINGS",
    "ImageEncoder",
    "MammoClip",
    "ModelConfig",
    "TextEncoder",
    "config_of",
    "freeze_all_but_adapters",
]


class ImageEncoder(nn.Module):
    """CLIP's vision transformer over one to four views."""

    def __init__(self, visual: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        width = visual.conv1.out_channels
        depth = len(visual.transformer.resblocks)
        if not 0 <= config.n_local <= depth:
            raise ValueError(f"n_local is {config.n_local}; expected 0 to {depth}, the depth")
        self.n_local = config.n_local
        self.pooling = config.pooling
        self.image_size = tuple(config.image_size)
        self.patch_size = tuple(visual.patch_size)
        self.grid = tuple(visual.grid_size)
        self.conv1 = visual.conv1
        self.class_embedding = visual.class_embedding
        self.positional_embedding = visual.positional_embedding
        self.view_embedding: nn.Parameter | None = None
        if config.view_embedding == "learned":
            self.view_embedding = nn.Parameter(torch.zeros(len(VIEWS), width))
        self.ln_pre = visual.ln_pre
        self.blocks = _adapted_blocks(visual.transformer.resblocks, config.image_adapter, width)
        self.ln_post = visual.ln_post
        self.proj = visual.proj

    def forward(self, images: Tensor, views: Sequence[View] | None) -> Tensor:
        """Encode normalised RGB views (B, V, 3, H, W) as (B, D), not yet of unit length.

        ``views`` says which view embedding each image gets; with None they get none.
        """
        batch, count = images.shape[:2]
        tokens = self._tokens(images, views)
        for block in self.blocks[: self.n_local]:
            tokens = block(tokens)
        length = tokens.shape[1]
        tokens = tokens.reshape(batch, count * length, -1)
        for block in self.blocks[self.n_local :]:
            tokens = block(tokens)
        class_tokens = tokens[:, ::length]
        pooled = class_tokens.mean(dim=1) if self.pooling == "mean_cls" else class_tokens[:, 0]
        return self.ln_post(pooled) @ self.proj

    def _tokens(self, images: Tensor, views: Sequence[View] | None) -> Tensor:
        """Return (B * V, 1 + patches, width): class token first, positions and views added."""
        batch, count = images.shape[:2]
        patches = self.conv1(images.flatten(0, 1)).flatten(2).transpose(1, 2)
        class_tokens = self.class_embedding.expand(batch * count, 1, -1)
        tokens = torch.cat([class_tokens, patches], dim=1) + self.positional_embedding
        if self.view_embedding is not None and views is not None:
            chosen = self.view_embedding[[VIEWS.index(view) for view in views]]
            tokens = tokens + chosen.repeat(batch, 1).unsqueeze(1)
        return self.ln_pre(tokens)


class TextEncoder(nn.Module):
    """CLIP's text transformer, taken from either of open_clip's two model classes."""

    def __init__(self, model: nn.Module, config: ModelConfig, image_width: int) -> None:
        super().__init__()
        if hasattr(model, "text"):
            text, self.pool_type, self.eos_id = model.text, model.text.pool_type, model.text.eos_id
        else:
            text, self.pool_type, self.eos_id = model, model.text_pool_type, model.text_eos_id
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.blocks = _adapted_blocks(text.transformer.resblocks, config.text_adapter, image_width)
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection
        self.register_buffer("mask", text.attn_mask, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode token ids (K, context length) as (K, D), not yet of unit length."""
        length = tokens.shape[1]
        mask = None if self.mask is None else self.mask[:length, :length]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        for block in self.blocks:
            x = block(x, mask)
        pooled = clip.text_global_pool(self.ln_final(x), tokens, self.pool_type, self.eos_id)
        if self.text_projection is None:
            return pooled
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(pooled)
        return pooled @ self.text_projection


class MammoClip(nn.Module):
    """Both encoders, the logit scale and the input's normalisation."""

    def __init__(
        self, config: ModelConfig, *, architecture: Mapping[str, object] | None = None
    ) -> None:
        """Build the model and load its starting weights.

        ``architecture`` replaces the look-up of ``config.open_clip_model`` by the open_clip
        configuration itself, as a checkpoint keeps it.
        """
        super().__init__()
        self.config = config
        self.architecture = dict(architecture or clip.architecture_of(config.open_clip_model))
        base = clip.build(self.architecture, config.image_size)
        folder = config.pretrained is not None and Path(config.pretrained).is_dir()
        if config.pretrained is not None and not folder:
            path = clip.weights_file(config.open_clip_model, config.pretrained, self.architecture)
            clip.load_weights(base, path)
        self.image = ImageEncoder(base.visual, config)
        self.text = TextEncoder(base, config, base.visual.conv1.out_channels)
        self.logit_scale = base.logit_scale
        self.register_buffer("pixel_mean", torch.tensor(clip.CLIP_MEAN))
        self.register_buffer("pixel_std", torch.tensor(clip.CLIP_STD))
        if folder:
            _start_from(self, Path(str(config.pretrained)))

    def encode_exam(self, images: Tensor, views: Sequence[View] = VIEWS) -> Tensor:
        """Encode the views of exams.

        Parameters
        ----------
        images : Tensor
            (B, V, C, H, W). One channel: grey, 0 (air) to 1. Three: already normalised by
            CLIP's mean and standard deviation.
        views : sequence of View
            Which view each of the V images is; any subset, in any order.

        Returns
        -------
        Tensor
            (B, D), of unit length.
        """
        if images.ndim != 5 or images.shape[1] != len(views) or len(set(views)) != len(views):
            raise ValueError(
                f"images have shape {tuple(images.shape)} for the views "
                f"{', '.join(views)}; expected (B, {len(set(views))}, C, H, W), each view once"
            )
        return functional.normalize(self.image(self._rgb(images), views), dim=-1)

    def encode_view(self, images: Tensor) -> Tensor:
        """Encode single views (B, C, H, W) as (B, D) of unit length, without view embedding."""
        if images.ndim != 4:
            raise ValueError(f"images have shape {tuple(images.shape)}; expected (B, C, H, W)")
        return functional.normalize(self.image(self._rgb(images.unsqueeze(1)), None), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode token ids (K, context length) as (K, D) of unit length."""
        return functional.normalize(self.text(tokens), dim=-1)

    def logits(
        self, images: Tensor, prompt_tokens: Tensor, views: Sequence[View] = VIEWS
    ) -> Tensor:
        """Return logit scale * cosine of every exam and prompt, (B, K)."""
        exams = self.encode_exam(images, views)
        return self.logit_scale.exp() * exams @ self.encode_text(prompt_tokens).T

    def tokenize(self, texts: list[str]) -> Tensor:
        """Turn texts into token ids (K, context length); a text that does not fit is refused."""
        return self._tokenizer(texts)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that require a gradient, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_share(self) -> float:
        """Return the trainable part of all parameters, 0 to 1."""
        trained = sum(p.numel() for p in self.trainable_parameters().values())
        return trained / sum(p.numel() for p in self.parameters())

    @cached_property
    def _tokenizer(self) -> Callable[[list[str]], Tensor]:
        return clip.tokenizer_of(self.architecture)

    def _rgb(self, images: Tensor) -> Tensor:
        """Bring (B, V, C, H, W) of either kind to normalised RGB."""
        channels, size = images.shape[2], tuple(images.shape[3:])
        if channels not in (1, 3) or size != self.image.image_size:
            raise ValueError(
                f"a view has {channels} channels of {size} pixels; "
                f"expected 1 or 3 of {self.image.image_size} (height, width)"
            )
        if channels == 3:
            return images
        return (images - self.pixel_mean.view(3, 1, 1)) / self.pixel_std.view(3, 1, 1)


def freeze_all_but_adapters(model: MammoClip) -> None:
    """Leave only the adapters, and a learned view embedding, to be trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name))


def _start_from(model: MammoClip, folder: Path) -> None:
    """Load a checkpoint's tensors, which may lack what training adds, or have another grid."""
    record = checkpoint_folder.read_record(folder)
    state = checkpoint_folder.read_tensors(folder)
    checkpoint_folder.check_base(folder, state, record.base_sha256)
    checkpoint_folder.check_trained(folder, state, record.trained_sha256)
    config = config_of(record, folder)
    _require_own_adapters(model.config, config, folder)
    key = "image.positional_embedding"
    if key in state:
        grid = tuple(
            side // patch
            for side, patch in zip(config.image_size, model.image.patch_size, strict=True)
        )
        state[key] = clip.interpolate_positions(state[key], grid, model.image.grid)
    checkpoint_folder.check_tensors(folder, state, model.state_dict(), may_lack=is_trained)
    model.load_state_dict(state, strict=False)


def _require_own_adapters(config: ModelConfig, started_from: ModelConfig, folder: Path) -> None:
    """Refuse to go on with adapters of another kind: what they were trained to do would be lost."""
    kept = {
        key: value
        for key in ("image_adapter", "text_adapter", "view_embedding")
        if (value := getattr(started_from, key)) not in (None, "none", getattr(config, key))
    }
    if kept:
        raise CheckpointError(
            folder,
            found="; ".join(f"{key} {value}" for key, value in kept.items()),
            expected="; ".join(f"{key} {getattr(config, key)}" for key in kept)
            + ", or a checkpoint without any",
            remedy="Start from the base weights that those adapters were trained on, or go on with "
            "the same kind.",
        )


def _adapted_blocks(
    blocks: nn.ModuleList, config: AdapterConfig | None, image_width: int
) -> nn.ModuleList:
    rank = 0 if config is None else config.resolved_rank(image_width)
    width = blocks[0].ln_1.normalized_shape[0]
    return nn.ModuleList(
        AdaptedBlock(block, width=width, config=config, rank=rank) for block in blocks
    )
