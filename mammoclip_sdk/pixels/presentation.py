"""One DICOM header -> `DisplayAttributes`: what it says about showing its stored values.

Nothing is applied here, and nothing is chosen: every window and every LUT of the header is kept.
"""

from __future__ import annotations

import math
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.dicom.header import Header
from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.exam import DisplayAttributes, LookupTable, Window

_VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_MOST_ENTRIES = 2**16


def read_display(header: Header, *, bits_stored: int, signed: bool) -> DisplayAttributes:
    """Collect the Modality LUT, VOI LUT and Image Pixel attributes, PS3.3 C.11.1, C.11.2, C.7.6.3.

    To be called inside ``shielded``: values are converted here.

    Raises
    ------
    PixelError
        An attribute is undefined, not finite, or contradicts another one.
    DicomReadError
        A value does not parse, or is not the only one where there may be one.
    """
    photometric = header.one("PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise _error(
            header,
            "a Photometric Interpretation (0028,0004) that is no MONOCHROME",
            "MONOCHROME1 or MONOCHROME2",
            "photometric",
        )
    slope, intercept = _rescale(header)
    modality_luts = _luts(header, "ModalityLUTSequence", "ModalityLUTType", signed)
    # PS3.3 C.11.2.1.1: the input of a VOI LUT has a sign where the Modality LUT's output may.
    voi_signed = not modality_luts and _lowest_output(bits_stored, signed, slope, intercept) < 0
    return DisplayAttributes(
        bits_stored=bits_stored,
        signed=signed,
        photometric=photometric,
        slope=slope,
        intercept=intercept,
        modality_lut=modality_luts[0] if modality_luts else None,
        windows=_windows(header),
        voi_function=_voi_function(header),
        voi_luts=_luts(header, "VOILUTSequence", "LUTExplanation", voi_signed),
        padding=_padding(header, signed),
    )


def _error(header: Header, found: str, expected: str, code: str) -> PixelError:
    return PixelError(
        header.name,
        found=found,
        expected=expected,
        remedy="Send the image again with a consistent header.",
        code=code,
    )


def _rescale(header: Header) -> tuple[float, float]:
    slope, intercept = header.number("RescaleSlope", 1), header.number("RescaleIntercept", 0)
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise _error(
            header,
            "a Rescale Slope (0028,1053) of 0, or one that is not finite",
            "finite numbers, the slope not 0",
            "rescale",
        )
    return slope, intercept


def _windows(header: Header) -> tuple[Window, ...]:
    """Pair centers and widths by their places, of which an empty one has neither."""
    centers = header.numbers_by_place("WindowCenter")
    widths = header.numbers_by_place("WindowWidth")
    words = header.many("WindowCenterWidthExplanation")
    windows = []
    for place, (center, width) in enumerate(zip_longest(centers, widths)):
        if center is None and width is None:
            continue
        if center is None or width is None or not all(map(math.isfinite, (center, width))):
            raise _error(
                header,
                f"value {place + 1} of Window Center (0028,1050) or of Window Width (0028,1051) "
                "without the other, or not finite",
                "one of each in every place, both finite",
                "window",
            )
        word = words[place] if place < len(words) else ""
        windows.append(Window(center=center, width=width, explanation=word))
    return tuple(windows)


def _voi_function(header: Header) -> str:
    function = header.one("VOILUTFunction") or "LINEAR"  # PS3.3 C.11.2.1.3
    if function not in _VOI_FUNCTIONS:
        raise _error(
            header,
            "an unknown VOI LUT Function (0028,1056)",
            ", ".join(_VOI_FUNCTIONS),
            "voi_function",
        )
    return function


def _lowest_output(bits_stored: int, signed: bool, slope: float, intercept: float) -> float:
    """Return the smallest value that the rescale may give."""
    first = -(2 ** (bits_stored - 1)) if signed else 0
    return min(value * slope for value in (first, first + 2**bits_stored - 1)) + intercept


def _luts(header: Header, sequence: str, explanation: str, signed: bool) -> tuple[LookupTable, ...]:
    tables = []
    for item in header.items(sequence):
        descriptor = item.words("LUTDescriptor")
        if len(descriptor) != 3:
            raise _lut_error(item, f"a LUT Descriptor (0028,3002) of {len(descriptor)} values")
        entries = descriptor[0] % _MOST_ENTRIES or _MOST_ENTRIES  # 0 stands for 65536
        tables.append(
            LookupTable(
                first=_in_sign(descriptor[1], signed),
                data=_lut_data(item, entries),
                explanation=item.one(explanation),
            )
        )
    return tuple(tables)


def _lut_data(item: Header, entries: int) -> NDArray[np.uint16]:
    """LUT Data (0028,3006) is US (a list) or OW (bytes), whose 8-bit entries may be packed."""
    value = next(iter(item.values("LUTData")), None)
    if isinstance(value, bytes) and len(value) in (entries, entries + entries % 2) and entries > 1:
        return np.frombuffer(value, dtype=np.uint8)[:entries].astype(np.uint16)
    data = np.asarray(item.words("LUTData"), dtype=np.int64)
    if data.size != entries:
        raise _lut_error(item, f"LUT Data (0028,3006) of {data.size} entries instead of {entries}")
    return (data % _MOST_ENTRIES).astype(np.uint16)


def _lut_error(item: Header, found: str) -> PixelError:
    return _error(
        item, found, "number of entries, first input value and bits, PS3.3 C.11.1.1", "lut"
    )


def _padding(header: Header, signed: bool) -> tuple[int, int] | None:
    """Pixel Padding Value (0028,0120) and Range Limit (0028,0121), whichever is the greater."""
    value, limit = header.word("PixelPaddingValue"), header.word("PixelPaddingRangeLimit")
    if value is None:
        return None
    limits = [_in_sign(value, signed), _in_sign(value if limit is None else limit, signed)]
    return min(limits), max(limits)


def _in_sign(value: int, signed: bool) -> int:
    """Undo a VR, US or SS, that contradicts what the value is compared with."""
    if signed:
        return value - 2**16 if value >= 2**15 else value
    return value + 2**16 if value < 0 else value
