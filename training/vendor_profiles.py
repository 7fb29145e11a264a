"""The kinds of mammography system whose files the phantom generator writes.

A name says whose habits a profile borrows most, not that a device of that make writes exactly
so. Together the profiles cover the ways a header can say how stored values are shown, which view
an image is, and how it is encoded.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)


@dataclass(frozen=True, kw_only=True)
class VendorProfile:
    """How one kind of mammography system stores and tags a view."""

    name: str
    bits_stored: int
    photometric: str
    """``"MONOCHROME1"`` or ``"MONOCHROME2"``."""
    voi: str
    """``"window"``, ``"windows_and_lut"`` (several windows, the first of which shows what the LUT
    does), ``"lut"`` or ``"none"``."""
    tagging: str
    """Where the view is: ``"sct"`` or ``"srt"`` (View Code Sequence), ``"text"`` (View Position)
    or ``"description"`` (Acquisition Device Processing Description, side in Laterality)."""
    transfer_syntax: UID
    """The one this kind of system usually writes."""
    voi_function: str = "LINEAR"
    signed: bool = False
    window_share: float = 1.0
    """Share of the image values that a LINEAR window spans; the rest saturates."""
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: bool = False
    padding: str = "none"
    """``"none"``, ``"value"`` (air is Pixel Padding Value) or ``"range"`` (air is noise between
    Pixel Padding Value and Pixel Padding Range Limit)."""
    lut_depth_error: bool = False
    """Whether the third value of LUT Descriptor holds the number of entries, not of bits."""
    field_of_view_rotation: int = 0
    """Rotation that the system has already applied, degrees."""
    deviations: tuple[str, ...] = ()
    """Attributes that break the Digital Mammography X-Ray IOD, as they do in real archives."""

    @property
    def manufacturer(self) -> str:
        """Manufacturer (0008,0070); never that of a real device."""
        return f"Phantom Works ({self.name})"

    @property
    def model_name(self) -> str:
        """Manufacturer's Model Name (0008,1090)."""
        return f"PHANTOM {self.name.upper()} {self.bits_stored}"


PROFILES: tuple[VendorProfile, ...] = (
    VendorProfile(
        name="GE-like",
        bits_stored=12,
        photometric="MONOCHROME2",
        voi="windows_and_lut",
        voi_function="SIGMOID",
        padding="range",
        tagging="sct",
        field_of_view_rotation=180,
        transfer_syntax=ImplicitVRLittleEndian,
    ),
    VendorProfile(
        name="Hologic-like",
        bits_stored=12,
        photometric="MONOCHROME2",
        voi="window",
        window_share=0.7,
        padding="value",
        tagging="sct",
        transfer_syntax=JPEGLosslessSV1,
    ),
    VendorProfile(
        name="Siemens-like",
        bits_stored=13,
        photometric="MONOCHROME2",
        voi="window",
        voi_function="SIGMOID",
        tagging="sct",
        transfer_syntax=JPEG2000Lossless,
    ),
    VendorProfile(
        name="Fuji-like",
        bits_stored=14,
        photometric="MONOCHROME1",
        voi="window",
        padding="value",
        tagging="description",
        transfer_syntax=JPEGLSLossless,
        deviations=("ViewCodeSequence", "ImageLaterality"),
    ),
    VendorProfile(
        name="Planmed-like",
        bits_stored=14,
        photometric="MONOCHROME2",
        voi="window",
        voi_function="LINEAR_EXACT",
        tagging="srt",
        transfer_syntax=JPEGLossless,
    ),
    VendorProfile(
        name="Agfa-like",
        bits_stored=12,
        photometric="MONOCHROME1",
        voi="lut",
        lut_depth_error=True,
        tagging="text",
        transfer_syntax=ExplicitVRLittleEndian,
        deviations=("ViewCodeSequence", "LUTDescriptor", "LUTData"),
    ),
    VendorProfile(
        name="IMS-like",
        bits_stored=13,
        photometric="MONOCHROME2",
        voi="lut",
        padding="value",
        tagging="srt",
        transfer_syntax=JPEGLSLossless,
    ),
    VendorProfile(
        name="Metaltronica-like",
        bits_stored=12,
        photometric="MONOCHROME1",
        voi="windows_and_lut",
        padding="range",
        tagging="sct",
        transfer_syntax=JPEGExtended12Bit,
    ),
    VendorProfile(
        name="Carestream-like",
        bits_stored=10,
        photometric="MONOCHROME2",
        voi="none",
        tagging="text",
        transfer_syntax=RLELossless,
        deviations=("ViewCodeSequence", "VOILUTSequence", "WindowCenter"),
    ),
    VendorProfile(
        name="Archive-like",
        bits_stored=8,
        photometric="MONOCHROME2",
        voi="window",
        tagging="srt",
        transfer_syntax=JPEGBaseline8Bit,
    ),
    VendorProfile(
        name="Philips-like",
        bits_stored=12,
        photometric="MONOCHROME2",
        voi="window",
        slope=0.5,
        intercept=-512.0,
        tagging="sct",
        transfer_syntax=ExplicitVRLittleEndian,
        deviations=("RescaleSlope", "RescaleIntercept"),
    ),
    VendorProfile(
        name="Konica-like",
        bits_stored=12,
        photometric="MONOCHROME2",
        voi="window",
        modality_lut=True,
        tagging="sct",
        transfer_syntax=JPEG2000Lossless,
        deviations=("RescaleSlope", "RescaleIntercept", "RescaleType"),
    ),
    VendorProfile(
        name="Legacy-like",
        bits_stored=14,
        photometric="MONOCHROME2",
        voi="window",
        signed=True,
        padding="value",
        tagging="srt",
        transfer_syntax=ImplicitVRLittleEndian,
        deviations=("PixelRepresentation",),
    ),
)
