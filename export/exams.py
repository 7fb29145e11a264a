"""Parity exams: labelled phantoms through the real preprocessing, and the extremes of an input.

Noise hides what goes wrong with range; these have air, skin, tissue, lesions and lead markers, as
an exam has. Every value is k / 255 for a whole k, so that the file is small and exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.golden import structured_exams
from mammoclip_sdk.bundle import Preprocessing
from mammoclip_sdk.exam import VIEWS
from training.data import model_input
from training.phantom import PhantomSettings, make_exam

COUNT = 64
"""Phantoms of a certificate; fewer say too little about the worst case."""
RANGE_EXAMS = 16
"""Phantoms that the range of activations is measured over, beside the exam of extremes."""
_CONTRAST = (0.3, 0.6)
"""Of the lesions; those of the shipped demonstration model."""
_ROWS = (128, 1024)
"""Least and most of a phantom's image; in between, twice the model's."""


def parity_exams(
    preprocessing: Preprocessing, *, seed: int, count: int = COUNT
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Make ``count`` phantoms, every second one malignant, and one exam of extremes.

    Parameters
    ----------
    count
        `COUNT` or more.

    Returns
    -------
    views
        uint8 (count + 1, 4, 1, height, width); the model's input is this divided by 255. The last
        exam is black, white, half and half, and a checkerboard.
    labels
        int8 (count + 1,): 1 malignant, 0 not, -1 for the extremes.

    Raises
    ------
    ValueError
        Too few were asked for.
    """
    if count < COUNT:
        raise ValueError(f"found {count} parity exams; expected {COUNT} or more")
    views, labels = phantoms(preprocessing, seed=seed, count=count)
    return np.concatenate([views, extremes(preprocessing)]), np.append(labels, np.int8(-1))


def phantoms(
    preprocessing: Preprocessing, *, seed: int, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Make phantoms as model inputs, the first and every second one after it malignant.

    Returns
    -------
    views
        uint8 (count, 4, 1, height, width); the model's input is this divided by 255.
    labels
        int8 (count,): 1 malignant, 0 not.
    """
    height, width = preprocessing.height, preprocessing.width
    rows = int(np.clip(2 * max(height, width), *_ROWS))
    views = np.zeros((count, len(VIEWS), 1, height, width), np.uint8)
    labels = (1 - np.arange(count) % 2).astype(np.int8)
    for index, malignant in enumerate(labels):
        settings = PhantomSettings(
            seed=seed,
            rows=rows,
            columns=rows * 13 // 16,
            malignant_share=float(malignant),
            contrast=_CONTRAST,
        )
        views[index] = model_input(make_exam(settings, index), preprocessing)
    return views, labels


def extremes(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return one exam (1, 4, 1, height, width): black, white, half and half, a checkerboard."""
    made = structured_exams(preprocessing.height, preprocessing.width, count=1, seed=0)
    return np.round(made * 255).astype(np.uint8)
