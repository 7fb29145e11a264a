"""Small phantom exams of one seed, and the same ones without their lesions."""

from __future__ import annotations

import functools
from dataclasses import replace

from training.phantom import PhantomSettings, make_exam, make_exams

SMALL = PhantomSettings(seed=7, rows=128, columns=104)


@functools.cache
def sixty_exams():
    return list(make_exams(SMALL, 60))


def without_lesions(exam):
    """The same exam with every lesion's contrast at zero, and nothing else changed."""
    index = int(exam.name.rsplit("-", 1)[1])
    return make_exam(replace(SMALL, contrast=(0.0, 0.0)), index)
