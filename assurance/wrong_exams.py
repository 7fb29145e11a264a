"""Every way in which four mammograms are no exam, made from good ones; and ways that are good.

``WRONG`` is the table of corruptions and ``GOOD`` that of variants which must not be refused. Each
takes a phantom exam in the header style of some vendor and gives what a caller would hand over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from assurance import wrong_contents
from assurance import wrong_headers as headers
from assurance import wrong_pixels as pixels
from assurance.good_exams import Four, GoodExam, Make, Picture
from assurance.wrong_headers import tagged
from mammoclip_sdk.exam import VIEWS, View
from training import encodings


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One way to be wrong."""

    name: str
    code: str | None
    """Of `mammoclip_sdk.reasons.CODES`; None for what no rule is there for."""
    make: Make
    action: str = "block"
    """``block``, or ``warn`` where the exam is to be scored with a caution."""


_CLASSES = "1.2.840.10008.5.1.4.1.1."


def _named(
    code: str | None, makes: Mapping[str, Make], *, action: str = "block"
) -> tuple[Corruption, ...]:
    return tuple(
        Corruption(name=name, code=code, make=make, action=action) for name, make in makes.items()
    )


_OF_ITS_KIND = {
    "For Processing, by its class": headers.of_class(_CLASSES + "1.2.1"),
    "For Processing, by its intent": tagged(PresentationIntentType="FOR PROCESSING"),
    "Digital X-Ray": headers.of_class(_CLASSES + "1.1"),
    "Computed Radiography": headers.of_class(_CLASSES + "1"),
    "CT": headers.of_class(_CLASSES + "2"),
    "MR": headers.of_class(_CLASSES + "4"),
    "Secondary Capture": headers.of_class(_CLASSES + "7"),
    "tomosynthesis volume": headers.of_class(_CLASSES + "13.1.3"),
    "tomosynthesis projections": headers.of_class(_CLASSES + "13.1.4"),
    "tomosynthesis slice": tagged(VolumetricProperties="VOLUME"),
    "synthetic 2D": tagged(SeriesDescription="C-View"),
    "Modality other than MG": tagged(Modality="DX"),
    "quality control image": tagged(QualityControlImage="YES"),
    "specimen": tagged(SeriesDescription="SPECIMEN"),
    "biopsy": tagged(SeriesDescription="STEREO BIOPSY"),
    "several frames": tagged(NumberOfFrames=4),
    "colour": tagged(SamplesPerPixel=3),
}
_OF_ITS_VIEWS = {
    "one to three views dropped": headers.dropped,
    "ML for a view": headers.with_view("ML", "399260004"),
    "LM for a view": headers.with_view("LM", "399352003"),
    "XCCL for a view": headers.with_view("XCCL", "399192008"),
    "view not named": headers.unnamed,
    "view named in two ways": headers.two_ways_named,
    "both breasts": tagged(ImageLaterality="B"),
    "one side wrong, so that a view is absent": headers.one_side_wrong,
}
_OF_ITS_IDENTITY = {
    "another patient's view": tagged(PatientID="SOMEBODY-ELSE"),
    "another study's view": tagged(StudyInstanceUID=generate_uid(entropy_srcs=["s"])),
    "another birth date": tagged(PatientBirthDate="19010203"),
    "a view of another day": headers.days_apart,
}
_COPIES = {
    "one file under two views": headers.same_file,
    "the same, lossless in another syntax": pixels.copied_as(JPEG2000Lossless),
    "the same, with loss": pixels.copied_as(JPEG2000),
    "mirrored for the other side": pixels.copied(lambda picture, rng: picture, turned=False),
    "windowed otherwise": pixels.copied(pixels.windowed, turned=False),
    "shifted": pixels.copied(pixels.shifted, turned=False),
    "resampled": pixels.copied(pixels.resampled, turned=False),
    "upside down": pixels.copied(lambda picture, rng: picture[::-1], turned=False),
    "half a turn": pixels.copied(lambda picture, rng: picture[::-1, ::-1], turned=True),
    "with noise": pixels.copied(pixels.noisy, turned=False),
}
_OF_ITS_SIDE = {
    "sides swapped in every tag": headers.swapped("CC", "MLO", orientation=True),
    "sides swapped, orientation right": headers.swapped("CC", "MLO", orientation=False),
    "sides swapped in CC": headers.swapped("CC", orientation=True),
    "sides swapped in MLO, orientation right": headers.swapped("MLO", orientation=False),
    "pixels mirrored in one view": pixels.turned(pixels.mirrored, everywhere=False),
    "pixels mirrored in all views": pixels.turned(pixels.mirrored, everywhere=True),
    "pixels mirrored, orientation of the other breast": pixels.turned(
        pixels.mirrored, everywhere=True, orientation=headers.other_breast
    ),
    "pixels half a turn round": pixels.turned(
        lambda picture: picture[::-1, ::-1], everywhere=False
    ),
    "orientation wrong in one view": headers.orientation_wrong,
    "CC and MLO exchanged, orientation right": headers.projections_exchanged(orientation=False),
    "a quarter turned in a square, and said so": pixels.quarter_turned_in_a_square,
}
_QUARTER_TURNED = {
    f"pixels {name} turned": pixels.turned(
        lambda picture, k=k: np.rot90(picture, k), everywhere=False
    )
    for name, k in (("a quarter", 1), ("three quarters", 3))
}
_MODIFIED = {
    "magnified 1.5 times": tagged(EstimatedRadiographicMagnificationFactor="1.5"),
    "magnification, by modifier": headers.modified("399163009"),
    "spot compression": headers.modified("399055006"),
    "tangential": headers.modified("399110001"),
}
_SLIGHTLY_MODIFIED = {
    "rolled lateral": headers.modified("399197002"),
    "part of the breast, by its tag": tagged(PartialView="YES"),
}
_WITH_IMPLANTS = {
    "implant, by its tag": tagged(BreastImplantPresent="YES"),
    "implant displaced": headers.modified("399209000"),
    "implant not declared": pixels.implanted,
}
_OF_ITS_CONTENT = {
    **{name: pixels.content(content) for name, content in wrong_contents.CONTENTS.items()},
    "inverted polarity": pixels.inverted(padded=False),
}
_OF_PADDED_AIR = {"inverted polarity, padded air": pixels.inverted(padded=True)}
_OF_ITS_VALUES = {
    "window ten times too wide": pixels.wide,
    "lower four bits cut off": pixels.stored(lambda values, bits: values >> 4),
    "upper two bits cut off": pixels.stored(lambda values, bits: values & (2 ** (bits - 2) - 1)),
    "bits shifted up by two": pixels.stored(lambda values, bits: values << 2),
}
_DOUBTFUL = {
    "annotation burned in": tagged(BurnedInAnnotation="YES"),
    "compressed 40 to 1": tagged(LossyImageCompression="01", LossyImageCompressionRatio="40"),
}
_OF_ITS_GEOMETRY = {
    "pixels of 0.45 mm": tagged(ImagerPixelSpacing=["0.45", "0.45"]),
    "pixels of 0.01 mm": tagged(ImagerPixelSpacing=["0.01", "0.01"]),
    "pixels that are not square": tagged(ImagerPixelSpacing=["0.09", "0.12"]),
    "pixels that are not square, by their aspect alone": tagged(
        ImagerPixelSpacing=None, PixelAspectRatio=["1", "2"]
    ),
}
_OF_OTHER_DEVICES = {
    "a device of another make": tagged(
        everywhere=True, Manufacturer="Another", ManufacturerModelName="One"
    ),
}
_CUT = {name: pixels.content(content) for name, content in wrong_contents.CUT.items()}
_UNRULED = {
    **{name: pixels.content(content) for name, content in wrong_contents.UNRULED.items()},
    "CC and MLO exchanged in every tag": headers.projections_exchanged(orientation=True),
    "a copy without its upper tenth": pixels.copied(pixels.upper_tenth_cut_off, turned=False),
    "a copy zoomed by a tenth": pixels.copied(pixels.zoomed, turned=False),
}
"""What no rule tells from a good exam."""

WRONG: tuple[Corruption, ...] = (
    *_named("G01", _OF_ITS_KIND),
    *_named("G02", _OF_ITS_VIEWS),
    *_named("G03", _OF_ITS_IDENTITY),
    *_named("G04", _COPIES),
    *_named("G05", _OF_ITS_SIDE),
    *_named("G07", _MODIFIED),
    *_named("G07", _SLIGHTLY_MODIFIED, action="warn"),
    *_named("G08", _WITH_IMPLANTS),
    *_named("G09", _OF_ITS_CONTENT),
    *_named("G09", _OF_PADDED_AIR, action="warn"),
    *_named("G09", _OF_ITS_VALUES),
    *_named("G09", _DOUBTFUL, action="warn"),
    *_named("G10", _OF_ITS_GEOMETRY),
    *_named("G10", _QUARTER_TURNED),
    *_named("G10", _CUT),
    *_named("G11", _OF_OTHER_DEVICES, action="warn"),
    *_named(None, _UNRULED),
)


def _reencoded(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    syntax = (JPEG2000Lossless, JPEGLosslessSV1, RLELossless)[rng.integers(3)]
    return {view: encodings.encode(dataset, syntax) for view, dataset in four.items()}


def _all(change: Callable[[Picture, np.random.Generator], Picture]) -> Make:
    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        return exam.written({view: change(exam.displayed[view], rng) for view in VIEWS})

    return make


def _after_midnight(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    for view, dataset in four.items():
        dataset.AcquisitionDate = "20260301" if view in (View.LCC, View.RCC) else "20260302"
    return four


def _without_orientation(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    for dataset in four.values():
        dataset.PatientOrientation = []
    return four


GOOD: Mapping[str, Make] = {
    "as its device writes it": lambda exam, rng: exam.written(),
    "in another transfer syntax": _reencoded,
    "windowed otherwise": _all(pixels.windowed),
    "with noise": _all(pixels.noisy),
    "moved on the detector": _all(pixels.shifted),
    "stored mirrored, and said so": pixels.turned(
        pixels.mirrored, everywhere=True, orientation=headers.rows_turned
    ),
    "finished after midnight": _after_midnight,
    "without an orientation": _without_orientation,
}
