"""Exams that are wrong by what one of their views shows, or how its pixels are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assurance import wrong_contents
from assurance.good_exams import Four, GoodExam, Make, Picture, one_view, two_views
from assurance.wrong_headers import quarter_turned, retagged
from mammoclip_sdk.exam import VIEWS
from training import encodings, vendors


def copied(change: Callable[[Picture, np.random.Generator], Picture], *, turned: bool) -> Make:
    """Show one view's picture as another view too, changed, with its chest wall where it belongs.

    ``turned`` leaves the chest wall where the change puts it.
    """

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        view, other = two_views(rng)
        picture = change(exam.displayed[view], rng)
        if not turned and view.laterality != other.laterality:
            picture = picture[:, ::-1]
        return exam.written({other: picture})

    return make


def copied_as(syntax: str) -> Make:
    """Show one view as another, encoded in another transfer syntax, with loss or without."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        view, other = two_views(rng)
        twice = retagged(four[view], four[other])
        if encodings.fits(
            twice.BitsStored, signed=bool(twice.PixelRepresentation), transfer_syntax=syntax
        ):
            twice = encodings.encode(twice, syntax)
        four[other] = twice
        return four

    return make


def windowed(picture: Picture, rng: np.random.Generator) -> Picture:
    """Change brightness and contrast by up to a tenth, and a gamma by up to a fifth."""
    picture = picture ** rng.uniform(0.85, 1.2)
    return np.clip(picture * rng.uniform(0.9, 1.05), 0, 1).astype(np.float32)


def shifted(picture: Picture, rng: np.random.Generator) -> Picture:
    """Move the breast along the chest wall by up to a fortieth of the rows."""
    rows = int(rng.integers(1, max(2, picture.shape[0] // 40)))
    return np.roll(picture, rows if rng.random() < 0.5 else -rows, axis=0)


def resampled(picture: Picture, rng: np.random.Generator) -> Picture:
    """Archive the image at another size, as a whole."""
    factor = rng.uniform(0.5, 0.9) if rng.random() < 0.5 else rng.uniform(1.1, 1.5)
    size = tuple(round(side * factor) for side in picture.shape[::-1])
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def upper_tenth_cut_off(picture: Picture, rng: np.random.Generator) -> Picture:
    """Leave out the rows at the top."""
    return picture[len(picture) // 10 :]


def zoomed(picture: Picture, rng: np.random.Generator) -> Picture:
    """Show the upper left of the image larger by a tenth, in as many pixels."""
    rows, columns = picture.shape
    box = (0, 0, columns / 1.1, rows / 1.1)
    larger = Image.fromarray(picture).resize((columns, rows), Image.Resampling.BILINEAR, box)
    return np.asarray(larger)


def noisy(picture: Picture, rng: np.random.Generator) -> Picture:
    """Add what a lower dose would."""
    noise = rng.normal(0, 0.005, picture.shape)
    return np.clip(picture + np.where(picture > 0.02, noise, 0), 0, 1).astype(np.float32)


def turned(
    how: Callable[[Picture], Picture],
    *,
    everywhere: bool,
    orientation: Callable[[list[str]], list[str]] | None = None,
) -> Make:
    """Turn the pixels of one view or of all, and say so or not."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        only = one_view(rng)
        chosen = [view for view in VIEWS if everywhere or view is only]
        four = exam.written({view: how(exam.displayed[view]) for view in chosen})
        for view in chosen:
            if orientation:
                letters = orientation(list(four[view].PatientOrientation))
                four[view].PatientOrientation = letters
        return four

    return make


def quarter_turned_in_a_square(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Turn one view by a quarter to either side, and say so, in an image as wide as it is high."""
    view, quarters = one_view(rng), (1, 3)[rng.integers(2)]
    shown = exam.displayed[view]
    air = shown.shape[0] - shown.shape[1]
    beside = (0, air) if view.laterality == "L" else (air, 0)
    four = exam.written({view: np.rot90(np.pad(shown, ((0, 0), beside)), quarters)})
    letters = quarter_turned(list(four[view].PatientOrientation), quarters)
    four[view].PatientOrientation = letters
    return four


def mirrored(picture: Picture) -> Picture:
    """Turn left to right."""
    return picture[:, ::-1]


def content(make_picture: Callable[[Picture, np.random.Generator], Picture]) -> Make:
    """Put another content into one view, its chest wall where the view's is."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        view = one_view(rng)
        shown = exam.displayed[view]
        left = shown[:, ::-1] if view.laterality == "R" else shown
        picture = make_picture(left, rng)
        return exam.written({view: picture[:, ::-1] if view.laterality == "R" else picture})

    return make


def implanted(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Put an implant into both views of one breast."""
    side = "LR"[rng.integers(2)]
    shown = {}
    for view in VIEWS:
        if view.laterality == side:
            turn = -1 if side == "R" else 1
            shown[view] = wrong_contents.implant(exam.displayed[view][:, ::turn], rng)[:, ::turn]
    return exam.written(shown)


def stored(change: Callable[[NDArray[np.uint16], int], NDArray[np.uint16]]) -> Make:
    """Change the stored values of one view behind its header's back."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        dataset = four[one_view(rng)]
        kind = np.dtype(f"<u{dataset.BitsAllocated // 8}")
        values = np.frombuffer(dataset.PixelData, kind, dataset.Rows * dataset.Columns)
        mask = 2**dataset.BitsStored - 1
        changed = change(values.astype(np.uint16), dataset.BitsStored) & mask
        data = changed.astype(kind).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        return four

    return make


def inverted(*, padded: bool) -> Make:
    """Exchange black and white; of a device that pads the air, or of one that does not."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        styles = [each for each in vendors.PROFILES if (each.padding != "none") == padded]
        four = replace(exam, profile=styles[exam.number % len(styles)]).written()
        dataset = four[one_view(rng)]
        other = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}
        dataset.PhotometricInterpretation = other[dataset.PhotometricInterpretation]
        return four

    return make


def wide(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Show one view through a window ten times too wide."""
    view = one_view(rng)
    return exam.written({view: exam.displayed[view] / np.float32(10)})
