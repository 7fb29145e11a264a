"""How an image was taken and kept: device, geometry, implants, synthesis, loss, and when."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from mammoclip_sdk.dicom import gate
from mammoclip_sdk.dicom.header import Header, described
from mammoclip_sdk.dicom.view_codes import IMPLANT_DISPLACED, SYNTHETIC_2D
from mammoclip_sdk.errors import DicomReadError, UnsupportedImageError
from mammoclip_sdk.exam import Acceptance, Acquisition, Device

PARTIAL = "partial view"
"""The modifier that is an attribute of its own, Partial View (0028,1350)."""
_ALWAYS_LOSSY = frozenset({gate.JPEG_BASELINE, gate.JPEG_EXTENDED})
_PERHAPS_LOSSY = frozenset({gate.JPEG_LS_NEAR, gate.JPEG_2000, gate.HTJ2K})
_YES_OR_NO = {"YES": True, "NO": False}
_TEXTS = ("SeriesDescription", "DerivationDescription", "AcquisitionDeviceProcessingDescription")
_DAY = len("YYYYMMDD")
_FUJI_SYNTHETIC = "FDR-3000AWS"  # AMULET's workstation writes no flavour for a synthesised image


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When an image was acquired, as texts of which the later is the greater; empty if unknown."""

    text: str
    """``YYYYMMDDHHMMSS.ffffff`` as far as known, by the clock of the device."""
    utc: str
    """The same in UTC; empty where the time or the clock's offset is not known."""

    def in_utc(self) -> Moment:
        """Return it by the clock of UTC."""
        return replace(self, text=self.utc)


def read_acquisition(header: Header, modifiers: Collection[str], *, lossy: bool) -> Acquisition:
    """Read what a header says beside its view.

    Raises
    ------
    DicomReadError
        A value does not parse, or there are too many or too few of them.
    """
    partial = [PARTIAL] if header.one("PartialView") not in ("", "NO") else []
    return Acquisition(
        device=Device(
            manufacturer=header.text("Manufacturer"), model=header.text("ManufacturerModelName")
        ),
        patient_orientation=tuple(header.many("PatientOrientation")),
        pixel_spacing=_pixel_spacing(header),
        pixel_aspect=_two_numbers(header, "PixelAspectRatio"),
        modifiers=(*sorted(modifiers), *partial),
        implant=IMPLANT_DISPLACED in modifiers
        or header.one("BreastImplantPresent") not in ("", "NO"),
        synthetic_2d=is_synthetic(header),
        burned_in_annotation=_YES_OR_NO.get(header.one("BurnedInAnnotation")),
        lossy_ratio=_lossy_ratio(header) if lossy else 1.0,
    )


def require_accepted(acquisition: Acquisition, acceptance: Acceptance, *, name: str) -> None:
    """Refuse what a model was not validated on.

    Raises
    ------
    UnsupportedImageError
        ``code`` is ``implant`` or ``synthetic_2d``.
    """
    for present, accepted, found, code in (
        (acquisition.implant, acceptance.implants, "a breast with an implant", "implant"),
        (
            acquisition.synthetic_2d,
            acceptance.synthetic_2d,
            "a 2D image synthesised from tomosynthesis",
            "synthetic_2d",
        ),
    ):
        if present and not accepted:
            raise UnsupportedImageError(
                name,
                found=found,
                expected="an image of the kinds that the bundle was validated on",
                remedy="Leave this image out; use a bundle whose acceptance lists its kind.",
                code=code,
            )


def is_synthetic(header: Header) -> bool:
    """Tell a 2D image synthesised from tomosynthesis; no attribute says it for every vendor."""
    kinds = [kind.upper() for kind in header.many("ImageType")]
    texts = (header.text(keyword).upper() for keyword in _TEXTS)
    if any(SYNTHETIC_2D.search(text) for text in (*kinds, *texts)):
        return True
    return (
        _FUJI_SYNTHETIC in header.text("ManufacturerModelName").upper()
        and kinds[:2] == ["DERIVED", "PRIMARY"]
        and not any(kinds[2:])
    )


def is_lossy(header: Header, syntax: str) -> bool:
    """Tell whether pixels were ever changed by compression, PS3.3 C.7.6.1.1.5."""
    flag = header.one("LossyImageCompression")
    return flag == "01" or syntax in _ALWAYS_LOSSY or (not flag and syntax in _PERHAPS_LOSSY)


_CLOCK = re.compile(
    r"(?P<hour>[01][0-9]|2[0-3])"
    r"(?:(?P<minute>[0-5][0-9])(?P<second>(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?"
)
_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>0[0-9]|1[0-4])(?P<minutes>[0-5][0-9])")


def acquired(header: Header) -> Moment:
    """Return the first moment of a header that has a time, or else the first day.

    A time without its day says nothing.
    """
    moments = [moment for moment in _moments(header) if moment.text]
    return next(
        (moment for moment in moments if len(moment.text) > _DAY),
        next(iter(moments), Moment(text="", utc="")),
    )


def _moments(header: Header) -> Iterator[Moment]:
    """Read the moments that a header has, the one nearest to the exposure first."""
    offset = header.one("TimezoneOffsetFromUTC")  # of all that has none of its own, PS3.3 C.12.1
    whole = header.one("AcquisitionDateTime")
    yield _moment(whole[:_DAY], whole[_DAY:], offset)
    for kind in ("Acquisition", "Content"):
        # ACR-NEMA wrote periods into dates and colons into times, PS3.5 section 6.2.
        day, clock = header.one(f"{kind}Date"), header.one(f"{kind}Time")
        yield _moment(day.replace(".", ""), clock.replace(":", ""), offset)


def _moment(day: str, clock: str, offset: str) -> Moment:
    """Join a day, a time that an offset from UTC may follow, and the header's offset."""
    if _day(day) is None:
        return Moment(text="", utc="")
    time = _CLOCK.match(clock)
    if time is None:
        return Moment(text=day, utc="")
    zone = _OFFSET.fullmatch(clock[time.end() :] or offset)
    return Moment(text=day + time[0], utc=_in_utc(day, time, zone) if zone else "")


def _in_utc(day: str, time: re.Match[str], zone: re.Match[str]) -> str:
    ahead = timedelta(hours=int(zone["hours"]), minutes=int(zone["minutes"]))
    there = datetime.fromisoformat(f"{day}T{time['hour']}{time['minute'] or '00'}")
    here = there - ahead if zone["sign"] == "+" else there + ahead
    return f"{here:%Y%m%d%H%M}{time['second'] or ''}"


def acquisition_day(header: Header) -> date | None:
    """Return the day of acquisition, or None; a Content Date may be that of a later processing."""
    written = (header.one(keyword) for keyword in ("AcquisitionDateTime", "AcquisitionDate"))
    days = (_day(text.replace(".", "")[:_DAY]) for text in written)
    return next((day for day in days if day is not None), None)


def _day(text: str) -> date | None:
    """Return a day; None for what is none, such as the zeros in place of one that was removed."""
    if re.fullmatch(r"[12][0-9]{7}", text) is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _pixel_spacing(header: Header) -> tuple[float, float] | None:
    """Return millimetres in the breast: at the detector over the magnification, or calibrated."""
    at_detector = _two_numbers(header, "ImagerPixelSpacing")
    if at_detector is None:
        return _two_numbers(header, "PixelSpacing")
    magnification = header.number("EstimatedRadiographicMagnificationFactor", 1)
    return at_detector[0] / magnification, at_detector[1] / magnification


def _two_numbers(header: Header, keyword: str) -> tuple[float, float] | None:
    numbers = header.numbers(keyword)
    if not numbers:
        return None
    if len(numbers) != 2:
        raise DicomReadError(
            header.name,
            found=f"{len(numbers)} value{'s' * (len(numbers) > 1)} of {described(keyword)}",
            expected="two: between rows and between columns",
            remedy="Have the header corrected at the source, and send the image again.",
            code="value_multiplicity",
        )
    return numbers[0], numbers[1]


def _lossy_ratio(header: Header) -> float | None:
    """Multiply the ratios of all steps of compression, PS3.3 C.7.6.1.1.5.2."""
    ratios = header.numbers("LossyImageCompressionRatio")
    return math.prod(ratios) if ratios else None
