"""Numbers in eight bits, for a matrix product x @ w of activations x and weights w.

Activations are unsigned with a zero point, one scale for all: what CPUs multiply fastest. Weights
are signed, one scale for each output. Everything here is plain NumPy on samples of activations.

CPUs with AVX2 but without VNNI add two neighbouring products of an unsigned and a signed byte in
16 bits, which saturate: 255 * 127 + 255 * 127 does not fit. `weight_scales` and `round_weights`
keep any two such weights within what does fit, whatever the activations are, so that the same
file means the same numbers on every CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LARGEST_WEIGHT = 127
LARGEST_PAIR = 128
"""Of the same sign, added: 255 * 128 = 32 640 still fits in 16 bits."""
_LEVELS = 255
_EXPONENTS = (0.0, 0.25, 0.5, 0.75)
"""How much of a channel's range goes from the activations to the weights, SmoothQuant's alpha."""
_LEFT_BY_COMPENSATION = 0.1
"""Share of the rounding error of weights that `round_weights` leaves, about."""
_DAMPING = 0.01
_BLOCK = 64


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Activations that a product reads, over the calibration exams."""

    sample: Floats
    """(rows, K): some of them."""
    lowest: Floats
    """(K,), over all of them; `highest` alike."""
    highest: Floats
    rows: int
    """Of one exam."""

    def divided(self, factor: Floats) -> Observed:
        """Return what is seen where channel k is divided by factor[k] > 0."""
        return Observed(
            sample=self.sample / factor,
            lowest=self.lowest / factor,
            highest=self.highest / factor,
            rows=self.rows,
        )


@dataclass(frozen=True, kw_only=True)
class Range:
    """x is stored as round(x / scale) + zero_point, 0 to 255."""

    scale: np.float32
    zero_point: np.uint8

    def rounded(self, x: Floats) -> Floats:
        """Return x as the stored numbers give it back."""
        stored = np.clip(np.rint(x / self.scale) + np.float32(self.zero_point), 0, _LEVELS)
        return (stored - np.float32(self.zero_point)) * self.scale


def equalising_factor(observed: Observed, weight: Floats) -> Floats:
    """Return the (K,) by which x is best divided, and w multiplied, before both are rounded.

    Channels with a wide range decide the scale of all others; the weights, whose rounding is
    compensated, bear more. After Xiao et al., arXiv 2211.10438; of `_EXPONENTS` the one with the
    smallest expected error. A weight (K, N) may be that of several products side by side.
    """
    reach = np.maximum(np.maximum(-observed.lowest, observed.highest), np.float32(1e-5))
    weight_reach = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-5))
    found = []
    for exponent in _EXPONENTS:
        factor = reach**exponent / weight_reach ** (1 - exponent) if exponent else reach**0
        factor = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        found.append((_expected_error(observed.divided(factor), weight * factor[:, None]), factor))
    return min(found, key=lambda pair: pair[0])[1]


def activation_range(observed: Observed) -> Range:
    """Return the range of all that was observed; 0 is exact in it.

    To clip it would make the other values finer, but rare values are what a finding shows as.
    """
    lowest = min(float(observed.lowest.min()), 0.0)
    highest = max(float(observed.highest.max()), 0.0)
    scale = np.float32((highest - lowest) / _LEVELS) or np.float32(1)
    zero_point = np.uint8(np.clip(np.rint(-lowest / scale), 0, _LEVELS))
    return Range(scale=np.float32(scale), zero_point=zero_point)


def weight_scales(weight: Floats) -> Floats:
    """Return the (N,) of a weight (K, N), so that neither a number nor a pair is too large."""
    largest = np.abs(weight).max(axis=0) / LARGEST_WEIGHT
    for sign in (1, -1):
        one_sign = np.maximum(sign * weight, 0)
        pairs = one_sign[0 : len(weight) // 2 * 2 : 2] + one_sign[1::2]
        if len(pairs):
            # one below the limit: both may be rounded up
            largest = np.maximum(largest, pairs.max(axis=0) / (LARGEST_PAIR - 1))
    return np.where(largest == 0, 1, largest).astype(np.float32)


def round_weights(weight: Floats, scales: Floats, sample: Floats) -> NDArray[np.int8]:
    """Round (K, N) row by row, each row's error made up for by the rows that follow.

    What one channel's rounding adds to the output, channels correlated with it take away again.
    After Frantar et al., arXiv 2210.17323 (GPTQ).
    """
    left = weight.astype(np.float64)
    count = len(left)
    moments = (sample.T @ sample).astype(np.float64) / len(sample)
    moments[np.diag_indices(count)] += _DAMPING * np.trace(moments) / count + 1e-12
    influence = np.linalg.cholesky(np.linalg.inv(moments)).T
    stored = np.zeros_like(left)
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = np.zeros((end - start, left.shape[1]))
        for row in range(start, end):
            before = stored[row - 1] if row % 2 else np.zeros(left.shape[1])
            lowest = np.maximum(-LARGEST_WEIGHT, -LARGEST_PAIR - np.minimum(before, 0))
            highest = np.minimum(LARGEST_WEIGHT, LARGEST_PAIR - np.maximum(before, 0))
            stored[row] = np.clip(np.rint(left[row] / scales), lowest, highest)
            error = (left[row] - stored[row] * scales) / influence[row, row]
            left[row + 1 : end] -= np.outer(influence[row, row + 1 : end], error)
            errors[row - start] = error
        left[end:] -= influence[start:end, end:].T @ errors
    return stored.astype(np.int8)


def _expected_error(observed: Observed, weight: Floats) -> float:
    """Return the mean square error of the product's outputs, summed, as if errors were chance."""
    scales = weight_scales(weight)
    weight_error = ((np.rint(weight / scales) * scales - weight) ** 2).sum(axis=1)
    power = (observed.sample**2).mean(axis=0, dtype=np.float64)
    error = activation_range(observed).rounded(observed.sample) - observed.sample
    noise = (error**2).mean(axis=0, dtype=np.float64)
    importance = (weight.astype(np.float64) ** 2).sum(axis=1)
    return float(noise @ importance) + _LEFT_BY_COMPENSATION * float(power @ weight_error)
