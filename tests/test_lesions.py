"""Lesions: what each kind is made of, and what its shadow adds to a picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.lesions import Body, Kind, Lesion, add_shadow, make_lesion


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_is_made_of_what_a_reader_would_see(seed):
    made = {
        kind: make_lesion(
            kind, center=(0.0, 0.0, 0.0), contrast=0.3, rng=np.random.default_rng(seed)
        )
        for kind in Kind
    }

    def largest(kind):
        return max(body.radius for body in made[kind].bodies)

    spiculated, smooth = made[Kind.SPICULATED_MASS], made[Kind.CIRCUMSCRIBED_MASS]
    reach = [np.linalg.norm(body.offset) for body in spiculated.bodies if body.radius < 1]
    assert max(reach) > 1.6 * spiculated.radius, "spicules leave the core"
    assert largest(Kind.SPICULATED_MASS) > 2, "which is a mass"
    assert not any(body.sharp for body in spiculated.bodies)
    assert all(body.sharp for body in smooth.bodies)
    assert smooth.extent < 1.1 * smooth.radius
    assert len(made[Kind.MICROCALCIFICATIONS].bodies) >= 12
    assert largest(Kind.MICROCALCIFICATIONS) < 0.75  # mm: below 1 mm across, or little more
    assert 2 <= len(made[Kind.COARSE_CALCIFICATIONS].bodies) <= 4
    assert min(body.radius for body in made[Kind.COARSE_CALCIFICATIONS].bodies) > 1
    assert made[Kind.ASYMMETRY].extent > 8
    assert max(body.amount for body in made[Kind.ASYMMETRY].bodies) <= 0.4, "and no core"


@given(spacing=st.floats(0.05, 1.0), row=st.floats(40, 60), column=st.floats(40, 60))
@settings(max_examples=30, deadline=None)
def test_a_calcification_keeps_its_total_brightness_at_every_pixel_size(spacing, row, column):
    body = Body(offset=(0, 0, 0), radius=0.4, amount=1.0, sharp=False)
    lesion = Lesion(
        kind=Kind.MICROCALCIFICATIONS, center=(0, 0, 0), radius=1, contrast=1.0, bodies=(body,)
    )
    image = np.zeros((100, 100), np.float32)
    add_shadow(image, lesion, points=np.array([[row, column]] * 2), spacing=spacing)
    assert image.sum() * spacing**2 == pytest.approx(np.pi * 0.4**2, rel=0.03)


def test_a_shadow_is_capped_at_four_times_the_contrast():
    body = Body(offset=(0, 0, 0), radius=5.0, amount=3.0, sharp=True)
    lesion = Lesion(
        kind=Kind.ASYMMETRY, center=(0, 0, 0), radius=5, contrast=0.1, bodies=(body, body)
    )
    image = np.zeros((60, 60), np.float32)
    add_shadow(image, lesion, points=np.full((3, 2), 30.5), spacing=1.0)
    assert image.max() == pytest.approx(0.4)
    assert (image == image.max()).sum() > 10, "3 + 3 would have been more"
