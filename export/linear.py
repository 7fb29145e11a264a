"""Linear layers and the norms around them put together: exact algebra, nothing is approximated.

Each function takes layers and returns a new one; its arguments stay as they are. It computes in
their dtype: `export.fold` hands over float64 and rounds once, at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Return x -> weight @ x + bias, for a weight (out, in); without bias where it is None."""
    outputs, inputs = weight.shape
    made = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made


def bias_of(layer: nn.Linear) -> Tensor:
    """Return a layer's bias; zeros where it has none."""
    return torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right, summed term by term: BLAS takes another order on another machine.

    Both are matrices. The same weights then give the same numbers, and the same file, anywhere.
    """
    total = torch.zeros(left.shape[0], right.shape[1], dtype=left.dtype)
    for column, row in zip(left.T, right, strict=True):
        total += torch.outer(column, row)
    return total


def applied(weight: Tensor, vector: Tensor) -> Tensor:
    """Return weight @ vector, summed as `product` does."""
    return product(weight, vector.unsqueeze(1)).squeeze(1)


def composed(outer: nn.Linear, inner: nn.Linear) -> nn.Linear:
    """Return outer(inner(x)) as one layer."""
    weight = product(outer.weight, inner.weight)
    if outer.bias is None and inner.bias is None:
        return linear(weight)
    return linear(weight, applied(outer.weight, bias_of(inner)) + bias_of(outer))


def added(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Return first(x) + second(x) as one layer."""
    weight = first.weight + second.weight
    if first.bias is None and second.bias is None:
        return linear(weight)
    return linear(weight, bias_of(first) + bias_of(second))


def stacked(*layers: nn.Linear) -> nn.Linear:
    """Return one layer whose outputs are those of the layers, one after another."""
    weight = torch.cat([layer.weight for layer in layers])
    if all(layer.bias is None for layer in layers):
        return linear(weight)
    return linear(weight, torch.cat([bias_of(layer) for layer in layers]))


def joined(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Return first(x) + second(y) as one layer of the concatenated (x, y)."""
    weight = torch.cat([first.weight, second.weight], dim=1)
    return linear(weight, bias_of(first) + bias_of(second))


def scaled(layer: nn.Linear, factor: float | Tensor) -> nn.Linear:
    """Return factor * layer(x); a factor of shape (out,) has a number for each output."""
    factor = torch.as_tensor(factor, dtype=layer.weight.dtype)
    bias = None if layer.bias is None else factor * layer.bias
    return linear(factor.unsqueeze(-1) * layer.weight, bias)


def raised(layer: nn.Linear, constant: Tensor) -> nn.Linear:
    """Return layer(x) + constant."""
    return linear(layer.weight, bias_of(layer) + constant)


def unbiased(layer: nn.Linear) -> nn.Linear:
    """Return the layer's product alone."""
    return linear(layer.weight)


def statistics(norm: nn.LayerNorm) -> nn.LayerNorm:
    """Return the norm without gain and bias: what is left once `after_norm` has taken them."""
    return nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)


def after_norm(layer: nn.Linear, norm: nn.LayerNorm) -> nn.Linear:
    """Return the layer that makes of `statistics` of the norm what layer(norm(x)) is."""
    weight, bias = layer.weight, layer.bias
    if norm.bias is not None:
        bias = bias_of(layer) + applied(weight, norm.bias)
    return linear(weight if norm.weight is None else weight * norm.weight, bias)


def scaled_norm(norm: nn.LayerNorm, factor: float | Tensor) -> nn.LayerNorm:
    """Return factor * norm(x): the factor in the norm's gain and bias."""
    shape, biased = norm.normalized_shape, norm.bias is not None
    made = nn.LayerNorm(shape, eps=norm.eps, bias=biased, device="meta")
    gain = torch.ones(shape, dtype=torch.float64) if norm.weight is None else norm.weight
    made.weight = nn.Parameter((factor * gain).detach(), requires_grad=False)
    if biased:
        made.bias = nn.Parameter((factor * norm.bias).detach(), requires_grad=False)
    return made
