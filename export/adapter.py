"""What folding leaves of an adapter: as little as its non-linearity allows."""

from __future__ import annotations

import copy

from torch import nn

from export.encoder import Bottleneck, NormedOutput, Product
from export.linear import (
    added,
    after_norm,
    bias_of,
    composed,
    joined,
    raised,
    scaled,
    stacked,
    unbiased,
)
from training.adapters import Adapter


def unscaled(adapter: Adapter) -> Adapter:
    """Move an adapter's scale into its up-projection."""
    folded = copy.deepcopy(adapter).requires_grad_(False)
    folded.up = scaled(adapter.up, adapter.scale)
    folded.scale = 1.0
    return folded


def merged(layer: nn.Linear, adapter: Adapter) -> nn.Linear:
    """Return layer(x) + adapter(layer(x)) as one layer, for an adapter without non-linearity."""
    return added(layer, composed(unscaled(adapter).up, composed(adapter.down, layer)))


def bottleneck_beside(
    layer: nn.Linear, adapter: Adapter
) -> tuple[nn.Linear, nn.Linear, Bottleneck]:
    """Fold a serial adapter into the layer whose output it reads.

    layer(x) + adapter(layer(x)) = output(x) + bottleneck(down(x)), where output and down read the
    same and make one `Product`. The up-projection's bias is part of output. Where the layer reads
    more than it writes, as an MLP's last one does, down is larger for it: one product fewer is
    paid with rank * (in - out) more multiply-adds for each token.
    """
    adapter = unscaled(adapter)
    output = raised(layer, bias_of(adapter.up))
    remainder = Bottleneck(adapter.activation, unbiased(adapter.up))
    return output, composed(adapter.down, layer), remainder


def more_hidden_units(
    widen: nn.Linear, output: nn.Linear, adapter: Adapter
) -> tuple[nn.Linear, nn.Linear]:
    """Fold a parallel adapter with the MLP's own non-linearity f into the MLP's two layers.

    output(f(widen(x))) + up(f(down(x))) is one MLP that is wider by the adapter's rank.
    """
    adapter = unscaled(adapter)
    return stacked(widen, adapter.down), joined(output, adapter.up)


def with_adapter(
    adapter: Adapter | None,
    *,
    parallel: bool,
    before: nn.LayerNorm,
    output: nn.Linear,
    behind: nn.Module,
) -> tuple[list[nn.Linear], Product | NormedOutput, Bottleneck | None]:
    """Fold an adapter into its sub-layer.

    Parameters
    ----------
    before
        The norm in front of the sub-layer.
    output, behind
        The sub-layer's last layer, and the norm behind it, or an identity where there is none.

    Returns
    -------
    beside : list of Linear
        What joins the sub-layer's first product: a parallel adapter's down-projection.
    output : Product or NormedOutput
        The sub-layer's last product, a serial adapter's down-projection included.
    bottleneck : Bottleneck or None
        What the adapter still does with the bottleneck that one of the two hands on.
    """
    normed = isinstance(behind, nn.LayerNorm)
    if adapter is None:
        return [], NormedOutput(output, behind, None) if normed else Product(output), None
    adapter = unscaled(adapter)
    beside = [after_norm(adapter.down, before)] if parallel else []
    if normed:
        last = NormedOutput(output, behind, None if parallel else adapter.down)
        return beside, last, Bottleneck(adapter.activation, adapter.up)
    if parallel:
        last = Product(raised(output, bias_of(adapter.up)))
        return beside, last, Bottleneck(adapter.activation, unbiased(adapter.up))
    if adapter.activation.name == "linear":
        return [], Product(merged(output, adapter)), None
    output, down, bottleneck = bottleneck_beside(output, adapter)
    return [], Product(output, down), bottleneck
