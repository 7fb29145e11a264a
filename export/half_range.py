"""What of the folded encoder half precision can hold: its activations over exams, and its weights.

Half (IEEE binary16) ends at 65504. Beyond is infinity, and from there to the embedding nothing but
NaN; so the range is measured in float32 before anything is written in half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export.encoder import InferenceEncoder, Product
from export.one_dnn import one_dnn

ACTIVATION_LIMIT = 2.0**14
"""Largest activation, over the calibration exams, that a block in half may have: a quarter of the
type's end, for exams that were not among them."""
WEIGHT_LIMIT = torch.finfo(torch.float16).max
ROUNDING_LIMIT = 2.0**-10
"""Largest accepted change of a layer's weights by rounding, as a share of their norm. Half keeps
2**-11 of each weight, down to 6e-5; what a layer holds below that fades, and vanishes at 3e-8."""


class PrecisionError(ValueError):
    """A model cannot be written in the precision that was asked for.

    Attributes
    ----------
    subject, found, expected, remedy : str
        What the error is about, what was there, what should have been, and what can be done.
    """

    def __init__(self, subject: str, *, found: str, expected: str, remedy: str) -> None:
        self.subject, self.found, self.expected, self.remedy = subject, found, expected, remedy
        super().__init__(f"{subject}: found {found}; expected {expected}. {remedy}")


@torch.no_grad()
def activation_range(
    encoder: InferenceEncoder, exams: NDArray[np.float32] | Tensor
) -> tuple[float, ...]:
    """Measure the largest absolute activation of each block.

    Every result of every operation in attention and MLP counts, and what they are given. So do the
    logits of attention, though a fused operator does not store them: not every runtime fuses. The
    patches count for the first block. The residual stream does not: it stays in float32.

    Parameters
    ----------
    encoder
        Folded, in float32.
    exams
        (N, 4, 1, H, W) float32, 0 (air) to 1; they are computed one at a time.

    Raises
    ------
    PrecisionError
        An activation is infinite or not a number, or there is no exam.
    """
    if len(exams) == 0:
        raise PrecisionError(
            "calibration exams",
            found="none",
            expected="at least one",
            remedy="Measure the range over exams like those that will be scored.",
        )
    watch = _Largest(len(encoder.blocks))
    hooks = [
        hook
        for index, block in enumerate(encoder.blocks)
        for part in (block.attention, block.mlp, *((encoder.patches,) if index == 0 else ()))
        for hook in (
            part.register_forward_pre_hook(partial(watch.enter, index)),
            part.register_forward_hook(watch.leave),
        )
    ]
    try:
        for exam in torch.as_tensor(exams):
            with one_dnn(), watch:
                encoder(exam.unsqueeze(0))
    finally:
        for hook in hooks:
            hook.remove()
    largest = tuple(value.item() for value in watch.largest)
    for index, value in enumerate(largest):
        if not np.isfinite(value):
            raise PrecisionError(
                f"block {index}",
                found=f"an activation that is {value} in float32",
                expected="finite activations",
                remedy="The model itself is unusable: train it again, or take another checkpoint.",
            )
    return largest


class _Largest(TorchFunctionMode):
    """Watches, between `enter` and `leave`, what torch's functions return."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.largest = [torch.zeros(()) for _ in range(depth)]
        self.index: int | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.see(result)
        return result

    def see(self, x: Tensor) -> None:
        if self.index is not None and x.is_floating_point():
            ends = torch.stack(torch.aminmax(x)).abs()  # without a copy of x; a NaN stays one
            self.largest[self.index] = torch.maximum(self.largest[self.index], ends.amax())

    def enter(self, index: int, part: nn.Module, given: tuple[Tensor]) -> None:
        self.index = index
        self.see(given[0])

    def leave(self, part: nn.Module, given: tuple[Tensor], result: Tensor) -> None:
        self.see(result)
        self.index = None


@dataclass(frozen=True, kw_only=True)
class OutOfRange:
    """A block that half precision cannot hold."""

    block: int
    reason: str


def out_of_range(
    encoder: InferenceEncoder, largest_activations: Sequence[float]
) -> tuple[OutOfRange, ...]:
    """Say which blocks have to stay in float32: their activations or their weights do not fit.

    Parameters
    ----------
    encoder
        Folded, in float32.
    largest_activations
        Of each block, as `activation_range` measures them.

    Raises
    ------
    PrecisionError
        There is not one number for each block.
    """
    if len(largest_activations) != len(encoder.blocks):
        raise PrecisionError(
            "largest_activations",
            found=f"{len(largest_activations)} numbers",
            expected=f"one for each of {len(encoder.blocks)} blocks",
            remedy="Measure them for this encoder (activation_range).",
        )
    reasons = {
        index: f"activations up to {value:.5g}, beyond {ACTIVATION_LIMIT:g}"
        for index, value in enumerate(largest_activations)
        if not value <= ACTIVATION_LIMIT
    }
    for index, reason in unfit_weights(encoder):
        reasons.setdefault(index, reason)
    return tuple(OutOfRange(block=index, reason=reasons[index]) for index in sorted(reasons))


def range_report(largest_activations: Sequence[float], kept: Sequence[OutOfRange]) -> str:
    """Return as text what `activation_range` and `out_of_range` found."""
    values = ", ".join(f"{value:.4g}" for value in largest_activations)
    lines = [f"Largest activation of each block, limit {ACTIVATION_LIMIT:g}: {values}"]
    lines += [f"Block {entry.block} stays in float32: it has {entry.reason}." for entry in kept]
    if kept:
        lines.append("TensorRT-RTX builds no engine for Turing from a graph with such a block.")
    else:
        lines.append("Every block can be in half precision.")
    return "\n".join(lines)


def unfit_weights(encoder: InferenceEncoder) -> Iterator[tuple[int, str]]:
    """Find weights that are infinite in half, or layers that fade there."""
    for index, block in enumerate(encoder.blocks):
        modules = [encoder.patches, block] if index == 0 else [block]
        for weight in (weight for module in modules for weight in _weights(module)):
            largest = weight.abs().amax().item()
            if not largest <= WEIGHT_LIMIT:
                yield index, f"a weight of {largest:.5g}, beyond {WEIGHT_LIMIT:g}"
                break
            change = (weight - weight.half()).norm() / weight.norm().clamp_min(1e-38)
            if weight.ndim > 1 and change > ROUNDING_LIMIT:
                yield index, f"weights of {largest:.2g} at most, which fade in half precision"
                break


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """Return weights and biases of all layers, those of a `Product` one by one."""
    for part in module.modules():
        if isinstance(part, Product):
            yield from part.layer.weight.split(part.sizes)
    yield from module.parameters()
