"""The float32 graph -> one in eight bits for CPUs, calibrated on exams: Q/DQ nodes by hand.

Products of tokens and weights are rounded: nearly all of the work. What stays float32 is small or
sensitive: patch convolution, norms, softmax, the products inside attention, adapters' thin
up-projections, pooling, the last projection and the norm of the embedding. First the channels that
a norm hands on are brought to one range, exactly: the norm has its gain for it. Then everything is
rounded; where the probabilities of the calibration exams move more than they may, the products
that do most harm for the time they save go back to float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from export.products import (
    Product,
    Rounded,
    equalise,
    observe,
    open_session,
    rewritten,
    take_products,
)
from export.rounding import Floats, Observed, activation_range, round_weights, weight_scales

CALIBRATION_EXAMS = 32
"""What `quantize` is best given; more take longer and change little."""
LARGEST_MOVE = 0.04
"""Of a probability's logit, over the calibration exams: at most 0.01 of the probability."""
TYPICAL_MOVE = 0.01
"""Root mean square of the same. What a few exams show as the largest is not what many would."""
_FEWEST_EXAMS = 8
_THIN = 16
"""A product with less than 1/16 of the largest one's weights saves no time in eight bits."""
_LEAST_SHARE = 0.25
"""Of the multiply-adds in eight bits; with fewer the graph has lost its purpose."""
_RANKING_EXAMS = 8
"""Those that move most, on which every product is tried in float32."""


class CalibrationError(ValueError):
    """The exams or the contrasts are not what a graph can be calibrated on."""


class QuantizationError(RuntimeError):
    """The graph cannot be rounded to eight bits without moving probabilities too far."""


@threadpool_limits.wrap(limits=1, user_api="blas")  # sums by more threads round in another order
def quantize(
    fp32_graph: bytes, exams: NDArray[np.float32], contrasts: NDArray[np.float32]
) -> bytes:
    """Return the graph with its products in eight bits; the same arguments give the same bytes.

    Parameters
    ----------
    fp32_graph
        Of `export.to_onnx.to_onnx`, opset 19 or later.
    exams
        (N, 4, 1, H, W) float32, 0 to 1; `CALIBRATION_EXAMS` of them are enough, 8 the fewest. No
        exam may serve to judge the graph later on.
    contrasts
        (K, D) float32: what the embedding is multiplied with to give the logit of a finding's
        probability, i.e. slope * logit scale * (positive - negative text embedding).

    Raises
    ------
    CalibrationError
        Exams or contrasts are too few, of another type or shape, constant or not finite.
    QuantizationError
        The graph has no products, or more than three quarters of their work would have to
        stay float32.
    """
    model, products = take_products(fp32_graph)
    _check_exams(exams, model.graph.input[0])
    if not products:
        raise QuantizationError(
            "found no product of tokens and weights; expected a float32 graph of export.to_onnx"
        )
    embeddings, observed = observe(fp32_graph, products, exams)
    _check_contrasts(contrasts, embeddings)
    equalise(model.graph, products, observed)
    largest = max(product.weight.size for product in products.values())
    rounded = {
        name: _rounded(product, observed[name])
        for name, product in products.items()
        if product.weight.size * _THIN >= largest
    }
    trial = _Trial(model, products, rounded, exams, embeddings, contrasts)
    work = {name: observed[name].rows * products[name].weight.size for name in rounded}
    return trial.graph(_left_in_float(trial, work))


def _check_exams(exams: NDArray[np.float32], views: onnx.ValueInfoProto) -> None:
    shape = tuple(size.dim_value for size in views.type.tensor_type.shape.dim)[1:]
    found = f"{exams.dtype} {exams.shape}"
    if exams.dtype != np.float32 or exams.shape[1:] != shape or len(exams) < _FEWEST_EXAMS:
        problem = found
    elif not np.isfinite(exams).all():
        problem = f"{found} with values that are not finite"
    elif exams.min() < 0 or exams.max() > 1:
        problem = f"{found} with values from {exams.min():g} to {exams.max():g}"
    elif (constant := np.ptp(exams.reshape(len(exams), -1), axis=1) == 0).any():
        problem = f"{found}, of which exam {int(constant.argmax())} has one value everywhere"
    elif np.ptp(exams, axis=0).max() == 0:
        problem = f"{found}, the same exam {len(exams)} times"
    else:
        return
    wanted = ", ".join(map(str, shape))
    raise CalibrationError(
        f"calibration exams: found {problem}; expected float32 (N, {wanted}), 0 to 1, N >= "
        f"{_FEWEST_EXAMS}, that differ. Take {CALIBRATION_EXAMS} phantoms of export.exams."
    )


def _check_contrasts(contrasts: NDArray[np.float32], embeddings: Floats) -> None:
    size = embeddings.shape[1]
    good = contrasts.dtype == np.float32 and contrasts.ndim == 2 and contrasts.shape[1] == size
    if not (good and len(contrasts) and np.isfinite(contrasts).all() and contrasts.any()):
        raise CalibrationError(
            f"contrasts: found {contrasts.dtype} {contrasts.shape}; expected float32 (K, {size}), "
            "finite, not all zero. Take slope * logit scale * (positive - negative) of each "
            "finding's text embeddings."
        )


def _rounded(product: Product, observed: Observed) -> Rounded:
    scales = weight_scales(product.weight)
    return Rounded(
        input=activation_range(observed),
        weights=round_weights(product.weight, scales, observed.sample),
        scales=scales,
    )


@dataclass(frozen=True)
class _Trial:
    """All there is to build a graph and to see how far it moves the calibration exams."""

    model: onnx.ModelProto
    products: Mapping[str, Product]
    rounded: Mapping[str, Rounded]
    exams: NDArray[np.float32]
    embeddings: Floats
    contrasts: NDArray[np.float32]

    def graph(self, left: Collection[str]) -> bytes:
        """Return the graph with all that can be rounded in eight bits, but for those left."""
        rounded = {name: how for name, how in self.rounded.items() if name not in left}
        return rewritten(self.model, self.products, rounded)

    def moves(self, left: Collection[str], chosen: NDArray[np.intp] | slice) -> Floats:
        """Return how far the logit of each finding's probability moves, for chosen exams."""
        session = open_session(self.graph(left))
        found = [session.run(None, {"views": exam[np.newaxis]})[0] for exam in self.exams[chosen]]
        return (np.concatenate(found) - self.embeddings[chosen]) @ self.contrasts.T


def _excess(moves: Floats) -> float:
    """Return how many times too far the exams move; up to 1 is good."""
    typical = float(np.sqrt(np.square(moves, dtype=np.float64).mean()))
    return max(float(np.abs(moves).max()) / LARGEST_MOVE, typical / TYPICAL_MOVE)


def _left_in_float(trial: _Trial, work: Mapping[str, int]) -> tuple[str, ...]:
    """Return the products to be left in float32: few, and those that cost the least time.

    Parameters
    ----------
    work
        Multiply-adds for an exam of each product that can be rounded.
    """
    moves = trial.moves((), slice(None))
    if _excess(moves) <= 1:
        return ()
    order = _by_harm(trial, work, moves)
    spent = np.cumsum([work[name] for name in order]) / sum(work.values())
    too_few, enough = 0, int((spent <= 1 - _LEAST_SHARE).sum())
    excess = _excess(trial.moves(order[:enough], slice(None)))
    if not excess <= 1:
        raise QuantizationError(
            f"found the logits of probabilities moved {excess:.3g} times too far on the "
            f"calibration exams, with {enough} of {len(order)} products in float32; expected "
            f"{LARGEST_MOVE:g} or less at most and {TYPICAL_MOVE:g} or less typically. Export "
            "without int8, or look at the ranges of the model's activations."
        )
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if _excess(trial.moves(order[:middle], slice(None))) <= 1:
            enough = middle
        else:
            too_few = middle
    return order[:enough]


def _by_harm(trial: _Trial, work: Mapping[str, int], moves: Floats) -> tuple[str, ...]:
    """Order products by what the rounding of each adds to the moves, for its work, worst first."""
    chosen = np.abs(moves).max(axis=1).argsort(kind="stable")[-_RANKING_EXAMS:]
    harm = {
        name: float(np.square(moves[chosen] - trial.moves((name,), chosen)).mean()) / work[name]
        for name in work
    }
    return tuple(sorted(harm, key=lambda name: -harm[name]))
