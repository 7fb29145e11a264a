"""Four display-ready views as arrays, of which the seed moves and changes the breast."""

from __future__ import annotations

import numpy as np

from mammoclip_sdk.exam import VIEWS


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Four display-ready views; the seed moves and changes the breast."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :80]
    views = {}
    for view in VIEWS:
        reach = (x / rng.uniform(40, 70)) ** 2 + ((y - 48) / rng.uniform(30, 45)) ** 2
        grey = np.where(reach < 1, 45_000 - 25_000 * reach + 15_000 * tissue(rng), 0).astype(
            np.uint16
        )
        views[str(view)] = grey if view.laterality == "L" else grey[:, ::-1]
    return views


def tissue(rng: np.random.Generator) -> np.ndarray:
    """A texture of its own, smooth over a few pixels, -1 to 1."""
    y, x = np.mgrid[:96, :80]
    waves = np.zeros((96, 80))
    for _ in range(6):
        across, down = rng.uniform(-0.15, 0.15, 2)
        waves += np.sin(across * x + down * y + rng.uniform(0, 6)) / 6
    return waves
