"""Adapters: the only weights Mammo-CLIP trains, two thin linear layers beside each sub-layer.

An adapter maps width -> rank -> width. Its up-projection starts at zero, so that a fresh adapter
changes nothing. Blocks of open_clip are wrapped, never edited: `AdaptedBlock` holds the block,
runs its sub-layers and sums the residuals itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

ACTIVATIONS = ("gelu", "relu", "quick_gelu", "linear")
PLACEMENTS = ("attention", "mlp", "both")
CONNECTIONS = ("serial", "parallel")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The adapters of one encoder; every block gets the same."""

    rank: int | None
    """Width of the bottleneck. None takes the image encoder's width / 16, or / 32 where each
    block has two adapters: about 1 % of the parameters of a ViT-B or ViT-L/14."""
    activation: str
    """``gelu``, ``relu``, ``quick_gelu``, or ``linear`` (none: a low-rank update, as LoRA)."""
    placement: str
    """The sub-layer that is adapted: ``attention``, ``mlp`` or ``both``."""
    connection: str
    """``serial``: on the sub-layer's output; ``parallel``: on its normalised input. Either way
    the result is added to the sub-layer's output before the residual sum."""
    scale: float
    """Factor on the adapter's result."""

    def __post_init__(self) -> None:
        """Refuse, all together, values that mean nothing."""
        problems = [
            f"{key} is {value!r}, expected one of {', '.join(allowed)}"
            for key, value, allowed in (
                ("activation", self.activation, ACTIVATIONS),
                ("placement", self.placement, PLACEMENTS),
                ("connection", self.connection, CONNECTIONS),
            )
            if value not in allowed
        ]
        if self.rank is not None and self.rank < 1:
            problems.append(f"rank is {self.rank}, expected at least 1")
        if problems:
            raise ValueError("AdapterConfig: " + "; ".join(problems))

    def resolved_rank(self, image_width: int) -> int:
        """Return ``rank``, or the default for an image encoder of this width."""
        if self.rank is not None:
            return self.rank
        return max(1, image_width // (32 if self.placement == "both" else 16))


class Activation(nn.Module):
    """The non-linearity between the two projections, by its name in `ACTIVATIONS`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Apply it element by element."""
        if self.name == "gelu":
            return nn.functional.gelu(x)
        if self.name == "relu":
            return nn.functional.relu(x)
        if self.name == "quick_gelu":
            return x * torch.sigmoid(1.702 * x)
        return x


class Adapter(nn.Module):
    """scale * up(activation(down(x))); zero until it is trained."""

    def __init__(self, *, width: int, rank: int, activation: str, scale: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.activation = Activation(activation)
        self.up = nn.Linear(rank, width)
        self.scale = scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the (..., width) that is to be added."""
        return self.scale * self.up(self.activation(self.down(x)))


class AdaptedBlock(nn.Module):
    """One residual block of open_clip with its adapters; the block itself stays as it is.

    Where the block scales its sub-layers (LayerScale), the adapter works on the scaled output.
    """

    def __init__(
        self, block: nn.Module, *, width: int, config: AdapterConfig | None, rank: int
    ) -> None:
        super().__init__()
        self.block = block
        self.parallel = config is not None and config.connection == "parallel"
        self.attention_adapter: Adapter | None = None
        self.mlp_adapter: Adapter | None = None
        if config is None:
            return
        if config.placement in ("attention", "both"):
            self.attention_adapter = _adapter(config, width, rank)
        if config.placement in ("mlp", "both"):
            self.mlp_adapter = _adapter(config, width, rank)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens (B, L, width) to tokens; ``mask`` (L, L) is added to the attention logits."""
        normed = self.block.ln_1(x)
        x = x + self._adapted(self.attention_adapter, normed, self._attention(normed, mask))
        normed = self.block.ln_2(x)
        return x + self._adapted(self.mlp_adapter, normed, self.block.ls_2(self.block.mlp(normed)))

    def _attention(self, normed: Tensor, mask: Tensor | None) -> Tensor:
        if hasattr(self.block, "ln_attn"):  # open_clip's block with extra normalisations
            attended = self.block.ln_attn(self.block.attn(normed, attn_mask=mask))
        else:
            attended = self.block.attention(q_x=normed, attn_mask=mask)
        return self.block.ls_1(attended)

    def _adapted(self, adapter: Adapter | None, normed: Tensor, output: Tensor) -> Tensor:
        if adapter is None:
            return output
        return output + adapter(normed if self.parallel else output)


def _adapter(config: AdapterConfig, width: int, rank: int) -> Adapter:
    return Adapter(width=width, rank=rank, activation=config.activation, scale=config.scale)
