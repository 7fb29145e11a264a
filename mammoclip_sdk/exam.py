"""The nouns that cross the borders between stages: views, images, and what was done to them.

Nothing here reads a file or touches a pixel. ``views`` makes an `Exam`, ``pixels`` turns each
of its `SourceImage` into a `StoredImage`, ``tensor`` turns four of those into a `ModelInput`.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset


class View(enum.StrEnum):
    """The four standard screening views, in the order every array of this project uses."""

    LCC = "LCC"
    RCC = "RCC"
    LMLO = "LMLO"
    RMLO = "RMLO"

    @property
    def laterality(self) -> str:
        """``"L"`` or ``"R"``, the defined terms of Image Laterality (0020,0062)."""
        return self.value[0]

    @property
    def projection(self) -> str:
        """``"CC"`` or ``"MLO"``, the defined terms of View Position (0018,5101)."""
        return self.value[1:]


VIEWS: tuple[View, ...] = tuple(View)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A kind of mammography system, as its images name it; case and spacing do not count."""

    manufacturer: str
    """Manufacturer (0008,0070)."""
    model: str
    """Manufacturer's Model Name (0008,1090)."""


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """Which exams a model was validated on, beyond plain full-field digital mammograms."""

    implants: bool
    """Whether breasts with implants may be scored."""
    synthetic_2d: bool
    """Whether a 2D image synthesised from tomosynthesis may stand for a view."""
    devices: tuple[Device, ...]
    """Images of any other one are scored with a warning."""


PLAIN = Acceptance(implants=False, synthetic_2d=False, devices=())
"""Full-field digital mammograms alone: what is accepted where no model says more."""


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """What a header says of how an image was taken and kept; None where it does not say."""

    device: Device
    """Empty strings where the header has none."""
    patient_orientation: tuple[str, ...]
    """Patient Orientation (0020,0020): where rows and columns lead to, such as ``("A", "R")``."""
    pixel_spacing: tuple[float, float] | None
    """Millimetres between rows and between columns, at the detector or calibrated."""
    modifiers: tuple[str, ...]
    """What makes it no plain view, in the words of `dicom.view_codes`, and ``partial view``."""
    implant: bool
    synthetic_2d: bool
    burned_in_annotation: bool | None
    """Burned In Annotation (0028,0301)."""
    lossy_ratio: float | None
    """Lossy Image Compression Ratio (0028,2112), all steps together; 1 for lossless."""
    pixel_aspect: tuple[float, float] | None = None
    """Pixel Aspect Ratio (0028,0034): height and width of a pixel, where it has no spacing."""


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """One image chosen for a view, before any pixel is decoded.

    Exactly one of ``path``, ``dataset`` and ``array`` is set.
    """

    view: View
    name: str
    """What messages call it: the file's name, or the place in the caller's argument."""
    path: Path | None = field(default=None, repr=False)
    """Not in the text of this object, for folders are named after patients; nor is the rest."""
    dataset: Dataset | None = field(default=None, repr=False)
    array: NDArray[np.uint8] | NDArray[np.uint16] | None = field(default=None, repr=False)
    sop_instance_uid: str | None = None
    """Of the header that was scanned; the decoder checks that the file still holds it."""
    identity: str | None = field(default=None, repr=False)
    """Digest of what else told this image from others, which the decoder checks as well."""
    acquisition: Acquisition | None = None
    """None for an array, of which nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Another image that could have filled a view, and why it was not taken."""

    view: View
    name: str
    reason: str
    sop_instance_uid: str | None = None
    """Which one it is, where several files have one name."""


@dataclass(frozen=True, kw_only=True)
class Exam:
    """Four views of one study of one patient."""

    images: Mapping[View, SourceImage]
    """One image for each member of `VIEWS`, in that order."""
    alternatives: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()
    """Disagreements between tags that were noticed and not needed for the choice."""
    study_instance_uid: str | None = None
    """Study Instance UID (0020,000D) of all four images; None where one of them is an array."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One VOI window, PS3.3 C.11.2.1.2, in modality (rescaled) units."""

    center: float
    width: float
    explanation: str = ""


@dataclass(frozen=True, kw_only=True)
class LookupTable:
    """A Modality or VOI LUT item, PS3.3 C.11.1 and C.11.2.1.1."""

    first: int
    """Input value that maps to ``data[0]``; smaller inputs map there too."""
    data: NDArray[np.uint16]
    explanation: str = ""


@dataclass(frozen=True, kw_only=True)
class DisplayAttributes:
    """What a header says about turning stored values into displayed ones."""

    bits_stored: int
    signed: bool
    photometric: str
    """``"MONOCHROME1"`` or ``"MONOCHROME2"``."""
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: LookupTable | None = None
    windows: tuple[Window, ...] = ()
    voi_function: str = "LINEAR"
    """``"LINEAR"``, ``"LINEAR_EXACT"`` or ``"SIGMOID"``, PS3.3 C.11.2.1.3."""
    voi_luts: tuple[LookupTable, ...] = ()
    padding: tuple[int, int] | None = None
    """Inclusive range of stored values that are not image, PS3.3 C.7.5.1.1.2."""


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """How a JPEG 2000 image was decoded without its finest resolution levels."""

    levels: int
    """1 or more. Sample i of the reduced grid lies at pixel 2**levels * i of the source image."""
    source_shape: tuple[int, int]
    """(rows, columns) of the source image."""
    reversible: bool
    """Whether its wavelet is the 5-3 reversible one, and not the 9-7 irreversible one."""


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One decoded view: stored values, and how the header wants them shown."""

    view: View
    name: str
    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    """(rows, columns), C-contiguous, bits above ``bits_stored`` cleared. Signed values are kept
    as their two's complement in ``bits_stored`` bits."""
    display: DisplayAttributes
    transfer_syntax: str
    """UID the pixels were encoded in; ``"array"`` for pixels handed over as an array."""
    reduction: Reduction | None = None
    """None where ``pixels`` is the source image in full."""

    @property
    def sha256(self) -> str:
        """Of ``pixels`` as bytes, in hexadecimal.

        The same image gives the same hash in every lossless encoding that is decoded in full.
        Computed when first asked for, without the GIL: it takes as long as all of the tensor.
        """
        # functools.cached_property would compute the four views' hashes one after the other:
        # in Python 3.11 it locks the class.
        if "_sha256" not in self.__dict__:
            digest = hashlib.sha256(self.pixels.data).hexdigest()
            object.__setattr__(self, "_sha256", digest)
        return str(self.__dict__["_sha256"])


@dataclass(frozen=True, kw_only=True)
class ViewGeometry:
    """Where a view's model input came from in its source image.

    A source pixel is a unit square: pixel (0, 0) covers 0..1 in both directions.
    """

    view: View
    source_shape: tuple[int, int]
    """(rows, columns) of the source image."""
    crop: tuple[int, int, int, int]
    """(top, left, height, width) of the source rectangle that was kept."""
    mirrored: bool
    """Whether the crop was flipped left to right, so that the chest wall is at the left."""
    placed: tuple[int, int, int, int]
    """(top, left, height, width) of the rectangle of the model input that the crop fills."""

    def to_source(self, row: float, column: float) -> tuple[float, float]:
        """Map a point of the model input, in its pixels, to (row, column) of the source image."""
        top, left, height, width = self.crop
        placed_top, placed_left, placed_height, placed_width = self.placed
        down = (row - placed_top) * height / placed_height
        across = (column - placed_left) * width / placed_width
        return top + down, left + (width - across if self.mirrored else across)

    def to_input(self, row: float, column: float) -> tuple[float, float]:
        """Map a point of the source image to (row, column) of the model input."""
        top, left, height, width = self.crop
        placed_top, placed_left, placed_height, placed_width = self.placed
        across = left + width - column if self.mirrored else column - left
        return (
            placed_top + (row - top) * placed_height / height,
            placed_left + across * placed_width / width,
        )


@dataclass(frozen=True, kw_only=True)
class BreastRegion:
    """What was measured where the breast was found in one view, in the whole source image."""

    share: float
    """Of the image that it fills, 0 to 1."""
    far_edge: float
    """Share, 0 to 1, that it takes of the image's edge opposite to the chest wall."""
    spread: float
    """Displayed values of its tissue, 0 to 1: 95th less 5th percentile."""
    saturated: float
    """Share of its tissue that is shown as white."""
    beside_padding: float = 0.0
    """Largest displayed value, 0 to 1, of the codes next to padding, which itself is shown as 0;
    0 where the header has none."""


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """What one exam gives the graph."""

    tensors: Mapping[str, NDArray[np.float32]]
    """The graph's inputs by name; today ``views``: (1, 4, 1, height, width), 0 (air) to 1."""
    geometry: Mapping[View, ViewGeometry]
    breasts: Mapping[View, BreastRegion]
