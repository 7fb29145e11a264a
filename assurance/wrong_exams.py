"""Every way in which four mammograms are no exam, made from good ones; and ways that are good.

``WRONG`` is the table of corruptions and ``GOOD`` that of variants which must not be refused. Each
takes a phantom exam in the header style of some vendor and gives what a caller would hand over.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from assurance import wrong_contents
from mammoclip_sdk.exam import VIEWS, View
from training import encodings, vendors
from training.phantom import PhantomSettings, make_exam

SPACING = 0.09
"""Millimetres, as a detector has: a phantom of few pixels is a miniature."""
_OTHER = {"L": "R", "R": "L"}

Four = dict[View, Dataset]
Picture = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class GoodExam:
    """A phantom exam that can be written again with other pixels."""

    number: int
    displayed: Mapping[View, Picture]
    profile: vendors.VendorProfile

    def written(self, changed: Mapping[View, Picture] | None = None) -> Four:
        """Return the four views as this profile's device writes them."""
        identity = vendors.ExamIdentity.derive(1, self.number)
        shown = {**self.displayed, **(changed or {})}
        return {
            view: vendors.to_dataset(
                np.ascontiguousarray(shown[view], dtype=np.float32),
                view=view,
                profile=self.profile,
                identity=identity,
                pixel_spacing=SPACING,
                rng=np.random.default_rng([self.number, VIEWS.index(view)]),
            )
            for view in VIEWS
        }


def good_exam(seed: int, number: int, *, rows: int, columns: int) -> GoodExam:
    """Make a phantom exam; profiles and the contrast of lesions take turns."""
    contrast = ((0.05, 0.1), (0.2, 0.45), (0.45, 0.9))[number % 3]
    settings = PhantomSettings(seed=seed, rows=rows, columns=columns, contrast=contrast)
    exam = make_exam(settings, number)
    return GoodExam(
        number=number,
        displayed={view: exam.views[view].displayed for view in VIEWS},
        profile=vendors.PROFILES[number % len(vendors.PROFILES)],
    )


Make = Callable[[GoodExam, np.random.Generator], Four | list[Dataset]]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One way to be wrong."""

    name: str
    code: str | None
    """Of `mammoclip_sdk.reasons.CODES`; None for what no rule is there for."""
    make: Make
    action: str = "block"
    """``block``, or ``warn`` where the exam is to be scored with a caution."""


def _one(rng: np.random.Generator) -> View:
    return VIEWS[rng.integers(len(VIEWS))]


def tagged(everywhere: bool = False, **tags: object) -> Make:
    """Return what sets tags in one view, or in all."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four, only = exam.written(), _one(rng)
        for view, dataset in four.items():
            if everywhere or view is only:
                for keyword, value in tags.items():
                    setattr(dataset, keyword, copy.deepcopy(value))
        return four

    return make


def _of_class(uid: str) -> Make:
    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        dataset = four[_one(rng)]
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
        return four

    return make


def _code(value: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    return item


def _with_view(position: str, code: str) -> Make:
    """Replace one MLO or CC view by another projection, in every tag that this profile writes."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        dataset = four[_one(rng)]
        for keyword in (
            "ViewPosition",
            "ViewCodeSequence",
            "AcquisitionDeviceProcessingDescription",
        ):
            if keyword in dataset:
                del dataset[keyword]
        dataset.ViewPosition = position
        dataset.ViewCodeSequence = [_code(code)]
        return four

    return make


def _modified(*codes: str) -> Make:
    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        four[_one(rng)].ViewModifierCodeSequence = [_code(code) for code in codes]
        return four

    return make


def _dropped(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    for view in rng.permutation(np.array(VIEWS, object))[: rng.integers(1, 4)]:
        del four[view]
    return four


def _unnamed(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    dataset = four[_one(rng)]
    for keyword in (
        "ViewPosition",
        "ViewCodeSequence",
        "AcquisitionDeviceProcessingDescription",
    ):
        if keyword in dataset:
            del dataset[keyword]
    return four


def _two_ways_named(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    view = _one(rng)
    other = "MLO" if view.projection == "CC" else "CC"
    four[view].ViewPosition = other
    four[view].ViewCodeSequence = [_code({"CC": "399162004", "MLO": "399368009"}[view.projection])]
    return four


def _days_apart(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    day = f"{rng.integers(2010, 2019)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    four[_one(rng)].AcquisitionDate = day
    return four


_VIEW_TAGS = (
    "ImageLaterality",
    "Laterality",
    "ViewPosition",
    "ViewCodeSequence",
    "PatientOrientation",
    "AcquisitionDeviceProcessingDescription",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "AcquisitionTime",
    "ContentTime",
)


def _retagged(dataset: Dataset, tags: Dataset) -> Dataset:
    """Return an image under the identity and the view tags of another."""
    moved = copy.deepcopy(dataset)
    for keyword in _VIEW_TAGS:
        if keyword in moved:
            del moved[keyword]
        if keyword in tags:
            moved[keyword] = copy.deepcopy(tags[keyword])
    moved.file_meta.MediaStorageSOPInstanceUID = moved.SOPInstanceUID
    return moved


def _pair(rng: np.random.Generator) -> tuple[View, View]:
    first, second = rng.permutation(len(VIEWS))[:2]
    return VIEWS[first], VIEWS[second]


def _same_file(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    view, other = _pair(rng)
    four[other] = _retagged(four[view], four[other])
    return four


def _copied(change: Callable[[Picture, np.random.Generator], Picture], *, turned: bool) -> Make:
    """Show one view's picture as another view too, changed, with its chest wall where it belongs.

    ``turned`` leaves the chest wall where the change puts it.
    """

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        view, other = _pair(rng)
        picture = change(exam.displayed[view], rng)
        if not turned and view.laterality != other.laterality:
            picture = picture[:, ::-1]
        return exam.written({other: picture})

    return make


def _copied_as(syntax: str) -> Make:
    """Show one view as another, encoded in another transfer syntax, with loss or without."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        view, other = _pair(rng)
        copied = _retagged(four[view], four[other])
        if encodings.fits(
            copied.BitsStored, signed=bool(copied.PixelRepresentation), transfer_syntax=syntax
        ):
            copied = encodings.encode(copied, syntax)
        four[other] = copied
        return four

    return make


def _windowed(picture: Picture, rng: np.random.Generator) -> Picture:
    """Change brightness and contrast by up to a tenth, and a gamma by up to a fifth."""
    picture = picture ** rng.uniform(0.85, 1.2)
    return np.clip(picture * rng.uniform(0.9, 1.05), 0, 1).astype(np.float32)


def _shifted(picture: Picture, rng: np.random.Generator) -> Picture:
    rows = int(rng.integers(1, max(2, picture.shape[0] // 40)))
    return np.roll(picture, rows if rng.random() < 0.5 else -rows, axis=0)


def _noisy(picture: Picture, rng: np.random.Generator) -> Picture:
    noise = rng.normal(0, 0.005, picture.shape)
    return np.clip(picture + np.where(picture > 0.02, noise, 0), 0, 1).astype(np.float32)


def _swapped(*projections: str, orientation: bool) -> Make:
    """Exchange left and right in the tags of both breasts' views of some projections."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        swapped = dict(four)
        for view, dataset in four.items():
            if view.projection in projections:
                other = View(_OTHER[view.laterality] + view.projection)
                moved = _retagged(dataset, four[other])
                if not orientation:
                    moved.PatientOrientation = dataset.PatientOrientation
                swapped[other] = moved
        return swapped

    return make


def _one_side_wrong(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    view = _one(rng)
    dataset = four[view]
    if "ImageLaterality" in dataset:
        dataset.ImageLaterality = _OTHER[view.laterality]
    else:
        dataset.Laterality = _OTHER[view.laterality]
    return four


def _turned(
    how: Callable[[Picture], Picture],
    *,
    everywhere: bool,
    orientation: Callable[[list[str]], list[str]] | None = None,
) -> Make:
    """Turn the pixels of one view or of all, and say so or not."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        only = _one(rng)
        chosen = [view for view in VIEWS if everywhere or view is only]
        four = exam.written({view: how(exam.displayed[view]) for view in chosen})
        for view in chosen:
            if orientation:
                letters = orientation(list(four[view].PatientOrientation))
                four[view].PatientOrientation = letters
        return four

    return make


_ACROSS = str.maketrans("AP", "PA")


def _rows_turned(letters: list[str]) -> list[str]:
    """Say that rows lead the other way, as they do in an image that is stored mirrored."""
    return [letters[0].translate(_ACROSS), letters[1]]


def _other_breast(letters: list[str]) -> list[str]:
    return [letters[0].translate(_ACROSS), letters[1].translate(str.maketrans("LR", "RL"))]


def _orientation_wrong(exam: GoodExam, rng: np.random.Generator) -> Four:
    four = exam.written()
    dataset = four[_one(rng)]
    change = _rows_turned if rng.random() < 0.5 else _other_breast
    dataset.PatientOrientation = change(list(dataset.PatientOrientation))
    return four


def _mirrored(picture: Picture) -> Picture:
    return picture[:, ::-1]


def _content(make_picture: Callable[[Picture, np.random.Generator], Picture]) -> Make:
    """Put another content into one view, its chest wall where the view's is."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        view = _one(rng)
        shown = exam.displayed[view]
        left = shown[:, ::-1] if view.laterality == "R" else shown
        picture = make_picture(left, rng)
        return exam.written({view: picture[:, ::-1] if view.laterality == "R" else picture})

    return make


def _implanted(exam: GoodExam, rng: np.random.Generator) -> Four:
    """Put an implant into both views of one breast."""
    side = "LR"[rng.integers(2)]
    shown = {}
    for view in VIEWS:
        if view.laterality == side:
            turn = -1 if side == "R" else 1
            shown[view] = wrong_contents.implant(exam.displayed[view][:, ::turn], rng)[:, ::turn]
    return exam.written(shown)


def _stored(change: Callable[[NDArray[np.uint16], int], NDArray[np.uint16]]) -> Make:
    """Change the stored values of one view behind its header's back."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        four = exam.written()
        dataset = four[_one(rng)]
        kind = np.dtype(f"<u{dataset.BitsAllocated // 8}")
        values = np.frombuffer(dataset.PixelData, kind, dataset.Rows * dataset.Columns)
        mask = 2**dataset.BitsStored - 1
        changed = change(values.astype(np.uint16), dataset.BitsStored) & mask
        data = changed.astype(kind).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        return four

    return make


def _inverted(*, padded: bool) -> Make:
    """Exchange black and white; of a device that pads the air, or of one that does not."""

    def make(exam: GoodExam, rng: np.random.Generator) -> Four:
        styles = [each for each in vendors.PROFILES if (each.padding != "none") == padded]
        four = replace(exam, profile=styles[exam.number % len(styles)]).written()
        dataset = four[_one(rng)]
        other = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}
        dataset.PhotometricInterpretation = other[dataset.PhotometricInterpretation]
        return four

    return make


def _wide(exam: GoodExam, rng: np.random.Generator) -> Four:
    return exam.written({(view := _one(rng)): exam.displayed[view] / np.float32(10)})


_CLASSES = "1.2.840.10008.5.1.4.1.1."

WRONG: tuple[Corruption, ...] = (
    *(
        Corruption(name=name, code="G01", make=make)
        for name, make in (
            ("For Processing, by its class", _of_class(_CLASSES + "1.2.1")),
            ("For Processing, by its intent", tagged(PresentationIntentType="FOR PROCESSING")),
            ("Digital X-Ray", _of_class(_CLASSES + "1.1")),
            ("Computed Radiography", _of_class(_CLASSES + "1")),
            ("CT", _of_class(_CLASSES + "2")),
            ("MR", _of_class(_CLASSES + "4")),
            ("Secondary Capture", _of_class(_CLASSES + "7")),
            ("tomosynthesis volume", _of_class(_CLASSES + "13.1.3")),
            ("tomosynthesis projections", _of_class(_CLASSES + "13.1.4")),
            ("tomosynthesis slice", tagged(VolumetricProperties="VOLUME")),
            ("synthetic 2D", tagged(SeriesDescription="C-View")),
            ("Modality other than MG", tagged(Modality="DX")),
            ("quality control image", tagged(QualityControlImage="YES")),
            ("specimen", tagged(SeriesDescription="SPECIMEN")),
            ("biopsy", tagged(SeriesDescription="STEREO BIOPSY")),
            ("several frames", tagged(NumberOfFrames=4)),
            ("colour", tagged(SamplesPerPixel=3)),
        )
    ),
    *(
        Corruption(name=name, code="G02", make=make)
        for name, make in (
            ("one to three views dropped", _dropped),
            ("ML for a view", _with_view("ML", "399260004")),
            ("LM for a view", _with_view("LM", "399352003")),
            ("XCCL for a view", _with_view("XCCL", "399192008")),
            ("view not named", _unnamed),
            ("view named in two ways", _two_ways_named),
            ("both breasts", tagged(ImageLaterality="B")),
            ("one side wrong, so that a view is absent", _one_side_wrong),
        )
    ),
    *(
        Corruption(name=name, code="G03", make=make)
        for name, make in (
            ("another patient's view", tagged(PatientID="SOMEBODY-ELSE")),
            ("another study's view", tagged(StudyInstanceUID=generate_uid(entropy_srcs=["s"]))),
            ("another birth date", tagged(PatientBirthDate="19010203")),
            ("a view of another day", _days_apart),
        )
    ),
    *(
        Corruption(name=name, code="G04", make=make)
        for name, make in (
            ("one file under two views", _same_file),
            ("the same, lossless in another syntax", _copied_as(JPEG2000Lossless)),
            ("the same, with loss", _copied_as(JPEG2000)),
            ("mirrored for the other side", _copied(lambda picture, rng: picture, turned=False)),
            ("windowed otherwise", _copied(_windowed, turned=False)),
            ("shifted", _copied(_shifted, turned=False)),
            ("upside down", _copied(lambda picture, rng: picture[::-1], turned=False)),
            ("half a turn", _copied(lambda picture, rng: picture[::-1, ::-1], turned=True)),
            ("with noise", _copied(_noisy, turned=False)),
        )
    ),
    *(
        Corruption(name=name, code="G05", make=make)
        for name, make in (
            ("sides swapped in every tag", _swapped("CC", "MLO", orientation=True)),
            ("sides swapped, orientation right", _swapped("CC", "MLO", orientation=False)),
            ("sides swapped in CC", _swapped("CC", orientation=True)),
            ("sides swapped in MLO, orientation right", _swapped("MLO", orientation=False)),
            ("pixels mirrored in one view", _turned(_mirrored, everywhere=False)),
            ("pixels mirrored in all views", _turned(_mirrored, everywhere=True)),
            (
                "pixels mirrored, orientation of the other breast",
                _turned(_mirrored, everywhere=True, orientation=_other_breast),
            ),
            (
                "pixels half a turn round",
                _turned(lambda picture: picture[::-1, ::-1], everywhere=False),
            ),
            ("orientation wrong in one view", _orientation_wrong),
        )
    ),
    *(
        Corruption(name=name, code="G07", make=make)
        for name, make in (
            ("magnified 1.5 times", tagged(EstimatedRadiographicMagnificationFactor="1.5")),
            ("magnification, by modifier", _modified("399163009")),
            ("spot compression", _modified("399055006")),
            ("tangential", _modified("399110001")),
        )
    ),
    Corruption(name="rolled lateral", code="G07", make=_modified("399197002"), action="warn"),
    Corruption(
        name="part of the breast, by its tag",
        code="G07",
        make=tagged(PartialView="YES"),
        action="warn",
    ),
    Corruption(name="implant, by its tag", code="G08", make=tagged(BreastImplantPresent="YES")),
    Corruption(name="implant displaced", code="G08", make=_modified("399209000")),
    Corruption(name="implant not declared", code="G08", make=_implanted),
    *(
        Corruption(name=name, code="G09", make=_content(content))
        for name, content in wrong_contents.CONTENTS.items()
    ),
    Corruption(name="inverted polarity", code="G09", make=_inverted(padded=False)),
    Corruption(
        name="inverted polarity, padded air",
        code="G09",
        make=_inverted(padded=True),
        action="warn",
    ),
    Corruption(name="window ten times too wide", code="G09", make=_wide),
    Corruption(
        name="lower four bits cut off", code="G09", make=_stored(lambda values, bits: values >> 4)
    ),
    Corruption(
        name="upper two bits cut off",
        code="G09",
        make=_stored(lambda values, bits: values & (2 ** (bits - 2) - 1)),
    ),
    Corruption(
        name="bits shifted up by two", code="G09", make=_stored(lambda values, bits: values << 2)
    ),
    Corruption(
        name="annotation burned in",
        code="G09",
        make=tagged(BurnedInAnnotation="YES"),
        action="warn",
    ),
    Corruption(
        name="compressed 40 to 1",
        code="G09",
        make=tagged(LossyImageCompression="01", LossyImageCompressionRatio="40"),
        action="warn",
    ),
    Corruption(
        name="pixels of 0.45 mm", code="G10", make=tagged(ImagerPixelSpacing=["0.45", "0.45"])
    ),
    Corruption(
        name="pixels of 0.01 mm", code="G10", make=tagged(ImagerPixelSpacing=["0.01", "0.01"])
    ),
    Corruption(
        name="pixels that are not square",
        code="G10",
        make=tagged(ImagerPixelSpacing=["0.09", "0.12"]),
    ),
    Corruption(
        name="a device of another make",
        code="G11",
        make=tagged(everywhere=True, Manufacturer="Another", ManufacturerModelName="One"),
        action="warn",
    ),
    *(
        Corruption(name=name, code=None, make=_content(content))
        for name, content in wrong_contents.UNRULED.items()
    ),
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
    "windowed otherwise": _all(_windowed),
    "with noise": _all(_noisy),
    "moved on the detector": _all(_shifted),
    "stored mirrored, and said so": _turned(_mirrored, everywhere=True, orientation=_rows_turned),
    "finished after midnight": _after_midnight,
    "without an orientation": _without_orientation,
}
