"""The folded encoder in half precision, written as such, and what of it half precision can hold.

Half (IEEE binary16) has 11 significant bits and ends at 65504. In half are the patch convolution,
the products and adapters of the blocks, and attention. In float32 are the residual stream, the
statistics of the norms, what is added to the patches, pooling, the projection and the embedding's
length: they cost little, and rounding there would reach every logit. Of these the stream matters
most: rounded to half after every sub-layer, it doubles the difference from the float32 model. A
block whose numbers leave the range of half stays in float32 as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from export.encoder import Attention, Block, InferenceEncoder
from export.half_range import (
    ACTIVATION_LIMIT,
    OutOfRange,
    PrecisionError,
    activation_range,
    out_of_range,
    range_report,
    unfit_weights,
)

__all__ = [
    "ACTIVATION_LIMIT",
    "HalfEncoder",
    "OutOfRange",
    "PrecisionError",
    "activation_range",
    "half",
    "out_of_range",
    "range_report",
]


class Cast(nn.Module):
    """A module that computes in a dtype of its own, whatever it is given.

    Parameters
    ----------
    within
        What the input is cast to.
    behind
        What the output is cast to; None leaves it as it is.
    """

    def __init__(
        self, module: nn.Module, within: torch.dtype, behind: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.module, self.within, self.behind = module, within, behind

    def forward(self, x: Tensor) -> Tensor:
        """Apply the module."""
        y = self.module(x.to(self.within))
        return y if self.behind is None else y.to(self.behind)


class Summed(nn.Module):
    """A linear layer of few rows, written as products that are summed.

    TensorRT-RTX compiles no float32 matrix product for Turing, and one in the projection would
    make the whole engine unbuildable there. Over one row for each exam it is slower than a matrix
    product by a ten-thousandth of the encoder's time (ONNX Runtime on one core, ViT-B/16).
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in) to (B, out)."""
        summed = (x.unsqueeze(1) * self.layer.weight).sum(dim=-1)
        return summed if self.layer.bias is None else summed + self.layer.bias


class HalfEncoder(InferenceEncoder):
    """A folded encoder in half precision; float32 exams come in, float32 embeddings go out."""

    float32_blocks: tuple[int, ...]
    """Blocks that stay in float32 as a whole."""


@torch.no_grad()
def half(encoder: InferenceEncoder, *, float32_blocks: Collection[int] = ()) -> HalfEncoder:
    """Return the encoder in half precision, with attention as one operator where it is in half.

    Parameters
    ----------
    encoder
        Folded, in float32; it stays as it is.
    float32_blocks
        Blocks to be kept in float32, from 0: those of `out_of_range`. The patch convolution goes
        with the first block. With any of them TensorRT-RTX builds no engine for Turing.

    Raises
    ------
    PrecisionError
        There is no such block, or half precision cannot hold the weights of one that is not kept.
    """
    depth, kept = len(encoder.blocks), frozenset(float32_blocks)
    if not kept <= set(range(depth)):
        raise PrecisionError(
            "float32_blocks",
            found=", ".join(map(str, sorted(kept))),
            expected=f"blocks from 0 to {depth - 1}",
            remedy="Name blocks that the encoder has.",
        )
    for index, reason in unfit_weights(encoder):
        if index not in kept:
            raise PrecisionError(
                f"block {index}",
                found=reason,
                expected="weights that half precision can hold",
                remedy="Keep the block in float32 (float32_blocks).",
            )
    dtypes = [torch.float32 if index in kept else torch.float16 for index in range(depth)]
    blocks = [_block(*pair) for pair in zip(encoder.blocks, dtypes, strict=True)]
    made = HalfEncoder(
        image_size=(encoder.height, encoder.width),
        patches=Cast(copy.deepcopy(encoder.patches).to(dtypes[0]), dtypes[0], torch.float32),
        added=encoder.added.clone(),
        norm_tokens=copy.deepcopy(encoder.norm_tokens),
        blocks=blocks,
        n_local=encoder.n_local,
        norm_pooled=copy.deepcopy(encoder.norm_pooled),
        project=Summed(encoder.project),
        seen=encoder.seen,
        pooled=encoder.pooled,
    )
    made.float32_blocks = tuple(sorted(kept))
    return made.eval().requires_grad_(False)


def _block(block: Block, dtype: torch.dtype) -> Block:
    """Return the block with its sub-layers in a dtype; what they are added to stays in float32.

    In half attention is one operator. In float32 it is spelt out: TensorRT has no kernel for that
    operator there.
    """
    made = copy.deepcopy(block).to(dtype)
    for name, norm in _norms(block):
        made.set_submodule(name, Cast(copy.deepcopy(norm), torch.float32, dtype))
    for module in made.modules():
        if isinstance(module, Attention):
            module.operator = dtype == torch.float16
    return made


def _norms(block: Block) -> Iterator[tuple[str, nn.LayerNorm]]:
    for name, module in block.named_modules():
        if isinstance(module, nn.LayerNorm):
            yield name, module
