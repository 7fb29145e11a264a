"""The image encoder as inference runs it: modules that `export.fold` fills with folded weights.

Nothing here knows the training model. Every linear layer that reads the same tokens is part of one
product, norms have lost their gain and bias to the layers behind them, and the last block answers
for the class tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.linear import stacked
from mammoclip_sdk.exam import VIEWS


class Product(nn.Module):
    """Linear layers that read the same, as one matrix product; their outputs come apart again."""

    def __init__(self, *layers: nn.Linear) -> None:
        super().__init__()
        self.layer = stacked(*layers)
        self.sizes = [layer.out_features for layer in layers]

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """Map (..., in) to one (..., out) for each layer."""
        outputs = self.layer(x)
        return [outputs] if len(self.sizes) == 1 else outputs.split(self.sizes, dim=-1)


class ClassTokenProduct(nn.Module):
    """Keys and values of every token; queries, and a bottleneck beside them, of class tokens."""

    def __init__(self, asking: Product, telling: Product, rows: slice) -> None:
        super().__init__()
        self.asking, self.telling, self.rows = asking, telling, rows

    def forward(self, normed: Tensor) -> Sequence[Tensor]:
        """Map (B, L, width) to queries (B, Q, width), keys and values (B, L, width), and more."""
        query, *hidden = self.asking(normed[:, self.rows])
        return [query, *self.telling(normed), *hidden]


class NormedOutput(nn.Module):
    """A sub-layer's output with a norm of its own, and an adapter's bottleneck behind that norm."""

    def __init__(self, layer: nn.Linear, norm: nn.LayerNorm, down: nn.Linear | None) -> None:
        super().__init__()
        self.layer, self.norm, self.down = layer, norm, down

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """Map (..., in) to the output (..., width), and the bottleneck (..., rank) if any."""
        output = self.norm(self.layer(x))
        return [output] if self.down is None else [output, self.down(output)]


class Bottleneck(nn.Module):
    """What folding leaves of an adapter: its non-linearity and the product behind it."""

    def __init__(self, activation: nn.Module, up: nn.Linear) -> None:
        super().__init__()
        self.activation, self.up = activation, up

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., rank) to the (..., width) that is to be added."""
        return self.up(self.activation(hidden))


class Attention(nn.Module):
    """Self-attention whose queries come scaled, and the adapter beside it."""

    def __init__(
        self,
        project: Product | ClassTokenProduct,
        output: Product | NormedOutput,
        bottleneck: Bottleneck | None,
        *,
        heads: int,
        norms: tuple[nn.Module, nn.Module, nn.Module],
    ) -> None:
        super().__init__()
        self.project, self.output, self.bottleneck = project, output, bottleneck
        self.norm_query, self.norm_key, self.norm_attended = norms
        self.heads = heads
        self.operator = False
        """Whether attention is one operator, as ONNX has it from opset 23 on, with a scale of 1;
        else it is two products and a softmax."""

    def forward(self, normed: Tensor) -> Tensor:
        """Map normalised tokens (B, L, width) to what is added to those that ask (B, Q, width)."""
        query, key, value, *hidden = self.project(normed)
        count, width = query.shape[1:]
        query = self.norm_query(self._by_head(query))
        key, value = self.norm_key(self._by_head(key)), self._by_head(value)
        if self.operator:
            attended = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        else:
            attended = torch.softmax(query @ key.transpose(-1, -2), dim=-1) @ value
        attended = attended.transpose(1, 2).reshape(-1, count, width)
        output, *late = self.output(self.norm_attended(attended))
        return _with_adapter(output, self.bottleneck, [*hidden, *late])

    def _by_head(self, x: Tensor) -> Tensor:
        count, width = x.shape[1:]
        return x.reshape(-1, count, self.heads, width // self.heads).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with a non-linearity between, and the adapter beside them."""

    def __init__(
        self,
        widen: Product,
        activation: nn.Module,
        norm: nn.Module,
        output: Product,
        bottleneck: Bottleneck | None,
    ) -> None:
        super().__init__()
        self.widen, self.activation, self.norm = widen, activation, norm
        self.output, self.bottleneck = output, bottleneck

    def forward(self, normed: Tensor) -> Tensor:
        """Map normalised tokens (B, L, width) to what is added to them."""
        wide, *hidden = self.widen(normed)
        output, *late = self.output(self.norm(self.activation(wide)))
        return _with_adapter(output, self.bottleneck, [*hidden, *late])


def _with_adapter(output: Tensor, bottleneck: Bottleneck | None, hidden: list[Tensor]) -> Tensor:
    return output if bottleneck is None else output + bottleneck(*hidden)


class Block(nn.Module):
    """A residual block; the last one goes on with the rows of its class tokens alone."""

    def __init__(
        self,
        norms: tuple[nn.LayerNorm, nn.LayerNorm],
        attention: Attention,
        mlp: Mlp,
        rows: slice | None,
    ) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = norms
        self.attention, self.mlp, self.rows = attention, mlp, rows

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, L, width) to (B, L, width), or to (B, Q, width) class tokens."""
        attended = self.attention(self.norm_1(x))
        x = (x if self.rows is None else x[:, self.rows]) + attended
        return x + self.mlp(self.norm_2(x))


class InferenceEncoder(nn.Module):
    """The image encoder of a Mammo-CLIP for four grey views, folded."""

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        patches: nn.Conv2d,
        added: Tensor,
        norm_tokens: nn.Module,
        blocks: Sequence[Block],
        n_local: int,
        norm_pooled: nn.LayerNorm,
        project: nn.Linear,
        seen: int,
        pooled: int,
    ) -> None:
        super().__init__()
        self.height, self.width = image_size
        self.patches = patches
        self.register_buffer("added", added)
        self.norm_tokens = norm_tokens
        self.blocks = nn.ModuleList(blocks)
        self.n_local = n_local
        self.norm_pooled, self.project = norm_pooled, project
        self.seen, self.pooled = seen, pooled

    def forward(self, views: Tensor) -> Tensor:
        """Encode exams (B, 4, 1, H, W), 0 (air) to 1, as (B, D) of unit length in float32."""
        length, width = self.added.shape[1:]
        if self.seen < len(VIEWS):
            views = views[:, : self.seen]
        patches = self.patches(views.reshape(-1, 1, self.height, self.width))
        patches = patches.flatten(2).transpose(1, 2)
        tokens = functional.pad(patches, (0, 0, 1, 0))  # a row of zeros for the class token
        tokens = tokens.reshape(-1, self.seen, length, width) + self.added
        tokens = self.norm_tokens(tokens.reshape(-1, length, width))
        for block in self.blocks[: self.n_local]:
            tokens = block(tokens)
        if self.n_local < len(self.blocks):
            tokens = tokens.reshape(-1, self.seen * length, width)
        for block in self.blocks[self.n_local :]:
            tokens = block(tokens)
        tokens = tokens.reshape(-1, self.pooled, width)
        pooled = tokens.mean(dim=1) if self.pooled > 1 else tokens[:, 0]
        embedding = self.project(self.norm_pooled(pooled))
        # torch's normalize, spelt so that it broadcasts instead of expanding to a shape
        return embedding / embedding.norm(dim=-1, keepdim=True).clamp_min(1e-12)
