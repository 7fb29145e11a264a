"""One table of synthetic four-view exams, each written the way some device or archive writes it.

``VARIANTS`` is the table; ``write_exam`` makes four files of a row, ``codes`` says which stored
values its decoder must return.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.exam import VIEWS, View

FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
CANARY = "Canary^Yellow"
"""The patient's name in every synthetic header; it may turn up in no message."""
VIEW_CODES = {"CC": ("399162004", "R-10242"), "MLO": ("399368009", "R-10226")}
ROOT = "1.2.826.0.1.3680043.8.498.1"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to write an exam."""

    name: str
    syntax: str = gate.EXPLICIT_LITTLE
    rows: int = 96
    columns: int = 80
    bits_allocated: int = 16
    bits_stored: int = 12
    high_bit: int | None = None
    photometric: str = "MONOCHROME2"
    signed: bool = False
    tolerance: int = 0
    """Largest difference a lossy encoding may make to a stored value."""
    header: Callable[[Dataset, View], None] = lambda header, view: None
    """Changes made to the plain header."""


_WAVES = {View.LCC: (5, 7), View.RCC: (3.5, 10), View.LMLO: (7, 4.5), View.RMLO: (4.2, 5.6)}
"""Of each view's texture, pixels; views whose texture is the same are one image shown twice."""


def codes(view: View, variant: Variant) -> NDArray[np.uint16]:
    """Stored values as codes of ``bits_stored`` bits: two's complement where signed."""
    largest = 2**variant.bits_stored - 1
    y, x = np.mgrid[: variant.rows, : variant.columns].astype(float)
    height, depth = (0.45, 0.7) if view.projection == "CC" else (0.5, 0.8)
    reach = (x / (depth * variant.columns)) ** 2
    reach += ((y / variant.rows - 0.5) / height) ** 2
    across, down = _WAVES[view]
    texture = 0.1 * np.sin(x / across) * np.cos(y / down)
    shown = np.where(reach < 1, 0.45 + 0.25 * (1 - reach) + texture, 0.0)
    if view.laterality == "R":
        shown = shown[:, ::-1]
    if variant.photometric == "MONOCHROME1":
        shown = 1 - shown
    levels = np.rint(shown * largest).astype(np.int64)
    if variant.signed:
        levels -= 2 ** (variant.bits_stored - 1)
    return (levels & largest).astype(np.uint16 if variant.bits_allocated == 16 else np.uint8)


def dataset(view: View, variant: Variant) -> FileDataset:
    """Return one view as a whole DICOM object."""
    number = VIEWS.index(view) + 1
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = FOR_PRESENTATION
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.{number}"
    meta.TransferSyntaxUID = variant.syntax
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = FOR_PRESENTATION
    image.SOPInstanceUID = f"{ROOT}.{number}"
    image.StudyInstanceUID = f"{ROOT}.100"
    image.SeriesInstanceUID = f"{ROOT}.20{number}"
    image.Modality = "MG"
    image.PresentationIntentType = "FOR PRESENTATION"
    image.ImageType = ["ORIGINAL", "PRIMARY", ""]
    image.PatientID = "CANARY-ID"
    image.PatientName = CANARY
    image.AcquisitionDate = "20260102"
    image.AcquisitionTime = f"1010{number:02}"
    image.InstanceNumber = number
    image.ImageLaterality = view.laterality
    image.ViewPosition = view.projection
    image.ViewCodeSequence = [code(VIEW_CODES[view.projection][0])]
    image.LossyImageCompression = "01" if variant.tolerance else "00"
    image.WindowCenter = 2 ** (variant.bits_stored - 1)
    image.WindowWidth = 2**variant.bits_stored
    image.Rows, image.Columns = variant.rows, variant.columns
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = variant.photometric
    image.BitsAllocated, image.BitsStored = variant.bits_allocated, variant.bits_stored
    image.HighBit = variant.bits_stored - 1 if variant.high_bit is None else variant.high_bit
    image.PixelRepresentation = int(variant.signed)
    variant.header(image, view)
    _encode(image, codes(view, variant), variant)
    return image


def write_exam(folder: Path, variant: Variant) -> list[Path]:
    """Write LCC, RCC, LMLO, RMLO, in that order, under names that say nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"IM{number}" for number in range(1, 5)]
    for path, view in zip(paths, VIEWS, strict=True):
        dataset(view, variant).save_as(path, enforce_file_format=True)
    return paths


def code(value: str, scheme: str = "SCT", *modifiers: Dataset) -> Dataset:
    """Return an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    item.ViewModifierCodeSequence = list(modifiers)
    return item


def _encode(image: Dataset, pixels: NDArray[np.uint16], variant: Variant) -> None:
    if variant.high_bit is not None:
        pixels = pixels << (variant.high_bit + 1 - variant.bits_stored)
    if variant.syntax in gate.NATIVE_SYNTAXES:
        raw = pixels.tobytes()
        image.PixelData = raw + b"\0" * (len(raw) % 2)
        image["PixelData"].VR = "OB" if variant.bits_allocated == 8 else "OW"
        return
    if variant.syntax == gate.RLE:
        frame = RLELosslessEncoder.encode(
            pixels.tobytes(),
            rows=variant.rows,
            columns=variant.columns,
            samples_per_pixel=1,
            bits_allocated=variant.bits_allocated,
            bits_stored=variant.bits_stored,
            pixel_representation=0,
            number_of_frames=1,
            photometric_interpretation="MONOCHROME2",
        )
    else:
        frame = compress(pixels, variant)
    image.PixelData = encapsulate([frame])
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True


def compress(pixels: NDArray[np.uint16], variant: Variant) -> bytes:
    """Return one frame in a JPEG-like syntax, as imagecodecs encodes it."""
    bits = variant.bits_stored
    lossless = variant.tolerance == 0
    if variant.syntax in gate.JPEG_LS_SYNTAXES:
        return imagecodecs.jpegls_encode(pixels, level=variant.tolerance)
    if variant.syntax in gate.JPEG_2000_SYNTAXES:
        if variant.signed:
            pixels = (pixels ^ (1 << (bits - 1))).astype(np.int16) - 2 ** (bits - 1)
        return imagecodecs.jpeg2k_encode(
            pixels,
            level=0 if lossless else 60,
            codecformat="J2K",
            reversible=lossless,
            bitspersample=bits,
        )
    if bits == 8:
        pixels = pixels.astype(np.uint8)
    if lossless:
        predictor = 1 if variant.syntax == gate.JPEG_LOSSLESS_SV1 else 6
        return imagecodecs.jpeg8_encode(
            pixels, lossless=True, predictor=predictor, bitspersample=None if bits == 8 else bits
        )
    return imagecodecs.jpeg8_encode(pixels, level=97, bitspersample=None if bits == 8 else bits)


def _views_by_text(image: Dataset, view: View) -> None:
    del image.ImageLaterality, image.ViewCodeSequence
    image.ViewPosition = f"{view.laterality} {view.projection}"


def _views_by_glued_text(image: Dataset, view: View) -> None:
    del image.ImageLaterality, image.ViewCodeSequence, image.ViewPosition
    image.SeriesDescription = f"{view.value} 18x24"


def _views_by_word(image: Dataset, view: View) -> None:
    del image.ImageLaterality, image.ViewCodeSequence, image.ViewPosition
    side = {"L": "LEFT", "R": "RIGHT"}[view.laterality]
    image.ViewPosition = f"{side} {view.projection}"


def _fuji(image: Dataset, view: View) -> None:
    del image.ViewCodeSequence, image.ViewPosition
    image.AcquisitionDeviceProcessingDescription = (
        f"{view.laterality} MAMMOGRAPHY,{view.projection}"
    )
    image.Manufacturer = "FUJIFILM Corporation"


def _retired_codes(image: Dataset, view: View) -> None:
    del image.ViewPosition
    scheme = "SNM3" if view.laterality == "L" else "SRT"
    image.ViewCodeSequence = [code(VIEW_CODES[view.projection][1], scheme)]


def _frame_laterality(image: Dataset, view: View) -> None:
    del image.ImageLaterality
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = view.laterality
    group.FrameAnatomySequence = [anatomy]
    image.SharedFunctionalGroupsSequence = [group]


def _series_laterality(image: Dataset, view: View) -> None:
    del image.ImageLaterality
    image.Laterality = view.laterality


def _ge_display(image: Dataset, view: View) -> None:
    image.WindowCenter, image.WindowWidth = [1800, 1750, 1600], [900, 750, 1050]
    image.WindowCenterWidthExplanation = ["NORMAL", "HARDER", "SOFTER"]
    image.VOILUTFunction = "SIGMOID"
    table = Dataset()
    table.add_new(0x00283002, "US", [64, 142, 12])
    table.LUTExplanation = "USER"
    table.add_new(0x00283006, "OW", np.arange(64, dtype="<u2").tobytes())
    image.VOILUTSequence = [table]
    image.add_new(0x00280120, "US", 658)
    image.add_new(0x00280121, "US", 0)


def _modality_lut(image: Dataset, view: View) -> None:
    table = Dataset()
    table.add_new(0x00283002, "US", [4096, 0, 16])
    table.ModalityLUTType = "US"
    table.add_new(0x00283006, "US", [2 * value for value in range(4096)])
    image.ModalityLUTSequence = [table]


def _signed_display(image: Dataset, view: View) -> None:
    image.WindowCenter, image.RescaleSlope, image.RescaleIntercept = 0, "0.5", "-10"
    image.add_new(0x00280120, "SS", -2048)
    table = Dataset()
    table.add_new(0x00283002, "SS", [0, -2048, 8])
    table.LUTExplanation = "8 bits packed"
    table.add_new(0x00283006, "OW", bytes(range(256)) * 256)
    image.VOILUTSequence = [table]


PLAIN = Variant(name="explicit-le")
VARIANTS: tuple[Variant, ...] = (
    PLAIN,
    Variant(name="implicit-le", syntax=gate.IMPLICIT_LITTLE),
    Variant(name="8-bit-odd-size", bits_allocated=8, bits_stored=8, rows=97, columns=81),
    Variant(name="14-bit", bits_stored=14),
    Variant(name="monochrome1", photometric="MONOCHROME1"),
    Variant(name="signed", signed=True, header=_signed_display),
    Variant(name="signed-implicit", signed=True, syntax=gate.IMPLICIT_LITTLE),
    Variant(name="high-bit-15", high_bit=15),
    Variant(name="rle", syntax=gate.RLE),
    Variant(name="rle-8-bit", syntax=gate.RLE, bits_allocated=8, bits_stored=8),
    Variant(
        name="jpeg-baseline",
        syntax=gate.JPEG_BASELINE,
        bits_allocated=8,
        bits_stored=8,
        tolerance=8,
    ),
    Variant(name="jpeg-extended", syntax=gate.JPEG_EXTENDED, tolerance=8),
    Variant(name="jpeg-lossless", syntax=gate.JPEG_LOSSLESS, bits_stored=14),
    Variant(name="jpeg-lossless-sv1", syntax=gate.JPEG_LOSSLESS_SV1),
    Variant(
        name="jpeg-lossless-8-in-16",
        syntax=gate.JPEG_LOSSLESS_SV1,
        bits_allocated=16,
        bits_stored=8,
    ),
    Variant(name="jpeg-ls", syntax=gate.JPEG_LS),
    Variant(name="jpeg-ls-near", syntax=gate.JPEG_LS_NEAR, tolerance=2),
    Variant(name="jpeg-2000-lossless", syntax=gate.JPEG_2000_LOSSLESS),
    Variant(name="jpeg-2000-signed", syntax=gate.JPEG_2000_LOSSLESS, signed=True),
    Variant(name="jpeg-2000", syntax=gate.JPEG_2000, tolerance=32),
    Variant(name="views-by-text", header=_views_by_text),
    Variant(name="views-by-word", header=_views_by_word),
    Variant(name="views-by-series", header=_views_by_glued_text),
    Variant(name="views-by-fuji", header=_fuji),
    Variant(name="views-by-retired-codes", header=_retired_codes),
    Variant(name="side-by-frame", header=_frame_laterality),
    Variant(name="side-by-series", header=_series_laterality),
    Variant(name="ge-display", header=_ge_display),
    Variant(name="ge-display-implicit", syntax=gate.IMPLICIT_LITTLE, header=_ge_display),
    Variant(name="modality-lut", header=_modality_lut),
)
