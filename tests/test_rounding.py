"""Numbers in eight bits: no sum of two overflows, errors make up for one another, zero is exact."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from export.rounding import Observed, Range, activation_range, round_weights, weight_scales

sizes = st.tuples(st.integers(1, 9), st.integers(1, 4))


@given(
    weight=sizes.flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-4, 4, width=32))
    ),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_no_two_neighbouring_products_overflow_sixteen_bits(weight, seed):
    sample = np.random.default_rng(seed).normal(size=(20, len(weight))).astype(np.float32)
    stored = round_weights(weight, weight_scales(weight), sample).astype(int)
    even = np.concatenate([stored, np.zeros((len(stored) % 2, stored.shape[1]), dtype=int)])
    for sign in (1, -1):
        pairs = np.maximum(sign * even, 0).reshape(-1, 2, stored.shape[1]).sum(axis=1)
        assert (255 * pairs).max() <= 2**15 - 1


def test_one_rows_rounding_is_made_up_for_by_others():
    random = np.random.default_rng(0)
    sample = (random.normal(size=(500, 8)) @ random.normal(size=(8, 48))).astype(np.float32)
    sample += 0.1 * random.normal(size=sample.shape).astype(np.float32)
    weight = random.normal(size=(48, 16)).astype(np.float32)
    scales = weight_scales(weight)
    nearest = np.rint(weight / scales)
    compensated = round_weights(weight, scales, sample)
    error = [np.square(sample @ (w * scales - weight)).mean() for w in (nearest, compensated)]
    assert error[1] < 0.3 * error[0]


def test_a_range_holds_what_was_seen_and_zero_exactly():
    observed = Observed(
        sample=np.zeros((1, 2), np.float32),
        lowest=np.array([1, -0.17], np.float32),
        highest=np.array([3, 5], np.float32),
        rows=1,
    )
    found = activation_range(observed)
    assert found == Range(scale=np.float32(5.17 / 255), zero_point=np.uint8(8))
    values = np.array([0, -0.17, 5, 2.5], np.float32)
    assert found.rounded(values)[0] == 0
    assert np.abs(found.rounded(values) - values).max() <= found.scale
