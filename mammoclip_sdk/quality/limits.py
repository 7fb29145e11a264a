"""The limits of `quality`: beyond which no answer is given, or one with a caution.

Where they come from: ``python -m assurance.limits`` measured 26 phantom exams in the header styles
of 13 vendors and one real exam, as model inputs of 192 x 96, 448 x 224, 224 x 224 (stretched) and
64 x 32, and what must not be scored. Every right view keeps clear of every limit::

                              phantoms         real exam        wrong, and what was wrong
    share of the image        0.108 - 0.515    0.420 - 0.631    0.002 a lead marker alone
                                                                1.000 inverted polarity
    share of the far edge     0.000            0.000            1.000 inverted polarity
    spread of displayed       0.245 - 0.564    0.427 - 0.722    0.008 a window ten times too wide
    share shown as white      0.000 - 0.020    0.000 - 0.002    0.768 inverted polarity
    contact with the wall     1.000            0.998 - 1.000    0.474 a slice through a body
    rows left at the tip      0.047 - 0.404    0.188 - 0.500    0.9 - 1.0 a chest, a limb, plastic
    pieces in a row           1.000 - 1.141    1.000 - 1.099    no error; see there
    rows that leap            0.027 - 0.035    0.015 - 0.065    0.52 - 1.0 upper bits cut off
    grain                     0.798 - 0.993    0.561 - 0.960    0.026 - 0.104 noise
    compact bright area       0.000            0.000            0.249 a breast implant
    likeness of two views     0.000 - 0.750    0.000 - 0.154    0.99 - 1.000 one image for both
"""

from __future__ import annotations

MIN_SHARE = 0.02
"""Of the image: five times below the smallest breast, ten times above a lead marker."""
MAX_SHARE = 0.95
"""Of the image: a half ellipse that touches all four edges fills 0.79 of it."""
MAX_FAR_EDGE = 0.5
"""Of the edge opposite to the chest wall: where a breast reaches it at all, it does so at the
nipple."""
MIN_SPREAD, LOW_SPREAD = 0.1, 0.15
"""Of displayed values: the first (no answer below it) is less than half of what the flattest right
view has, the second (a warning below it) two thirds."""
MAX_SATURATED, HIGH_SATURATED = 0.5, 0.1
"""Of the tissue: beyond the first (no answer), most of it has no structure; beyond the second (a
warning), seven times as much as in any right view."""
MIN_CONTACT = 0.6
"""Halfway from a slice through a body to the breasts, and nearer to the former: the lower breast
may hang free of the chest wall."""
MAX_TIP = 0.75
"""Halfway from the bluntest breast to a chest."""
MAX_PIECES = 2.0
"""A warning: a hard window, or one that is too wide, makes holes of fat, up to 7 in the real exam;
the breast, and what it is cropped to, are then found less surely."""
MAX_WRAPPED = 0.15
"""Of the rows: twice what markers take, and less than the smoothest phantoms have whose upper bits
are lost; the real exam has 0.94 and more, for its noise crosses every contour line."""
MIN_GRAIN = 0.45
"""Between the right views, of a model input as small as 64 x 32, and noise: up to 0.4 where a model
input has nearly as many rows as the source image."""
MAX_BRIGHT_BODY = 0.1
"""Less than half of what an implant takes in a phantom, and more than any lesion does. Under hard
windows the muscle of an oblique view takes up to 0.16 in the real exam, and nothing in the others
more than 0.02: in an oblique view alone, it is a warning."""
MAX_LIKENESS = 0.82
"""Phantoms' two breasts are more alike than anyone's: 0.75 at most, 0.15 in the real exam. Shifted
by parts of pixels, or saved as JPEG of quality 30, an image is like itself by 0.89 and more."""
PIXEL_SPACING = (0.03, 0.2)
"""Millimetres: detectors for mammography have 0.05 to 0.1."""
MAX_STRETCH = 1.02
"""Of one pixel spacing over the other: pixels are square, but for rounding in the header."""
MAX_BESIDE_PADDING = 0.3
"""Of white, where the values next to padding are shown: air is black, the skin line above it."""
ASPECT = (0.9, 4.0)
"""Rows per column: detectors have 1.2 to 1.35, and images that were cut to the breast up to 3. One
that was turned by a quarter has 0.83 and less."""
MAX_LOSSY_RATIO = 20.0
"""At 20 to 1 (JPEG 2000) at most one of 80 mammograms was told from its original by any of four
readers, at 60 to 1 four of 80; Clinical Radiology 2011, on the acceptable compression of full-field
digital mammograms."""
