"""One DICOM header -> `DisplayAttributes`: what it says about showing its stored values.

Nothing is applied here, and nothing is chosen: every window and every LUT of the header is kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue

from mammoclip_sdk.errors import PixelError
from mammoclip_sdk.exam import DisplayAttributes, LookupTable, Window

_VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_MOST_ENTRIES = 2**16


def read_display(
    header: Dataset, *, bits_stored: int, signed: bool, name: str
) -> DisplayAttributes:
    """Collect the Modality LUT, VOI LUT and Image Pixel attributes, PS3.3 C.11.1, C.11.2, C.7.6.3.

    To be called inside ``gate.shielded``: values are converted here.

    Raises
    ------
    PixelError
        An attribute is undefined, not finite, or contradicts another one.
    """
    photometric = _text(header, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise _error(
            name,
            "a Photometric Interpretation (0028,0004) that is no MONOCHROME",
            "MONOCHROME1 or MONOCHROME2",
            "photometric",
        )
    slope, intercept = _rescale(header, name)
    modality_luts = _luts(header, "ModalityLUTSequence", "ModalityLUTType", signed, name)
    return DisplayAttributes(
        bits_stored=bits_stored,
        signed=signed,
        photometric=photometric,
        slope=slope,
        intercept=intercept,
        modality_lut=modality_luts[0] if modality_luts else None,
        windows=_windows(header, name),
        voi_function=_voi_function(header, name),
        voi_luts=_luts(header, "VOILUTSequence", "LUTExplanation", signed, name),
        padding=_padding(header, signed),
    )


def _error(name: str, found: str, expected: str, code: str) -> PixelError:
    return PixelError(
        name,
        found=found,
        expected=expected,
        remedy="Send the image again with a consistent header.",
        code=code,
    )


def _rescale(header: Dataset, name: str) -> tuple[float, float]:
    slopes, intercepts = _numbers(header, "RescaleSlope"), _numbers(header, "RescaleIntercept")
    slope = slopes[0] if slopes else 1.0
    intercept = intercepts[0] if intercepts else 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise _error(
            name,
            "a Rescale Slope (0028,1053) of 0, or one that is not finite",
            "finite numbers, the slope not 0",
            "rescale",
        )
    return slope, intercept


def _windows(header: Dataset, name: str) -> tuple[Window, ...]:
    centers, widths = _numbers(header, "WindowCenter"), _numbers(header, "WindowWidth")
    if len(centers) != len(widths) or not all(map(math.isfinite, centers + widths)):
        raise _error(
            name,
            f"{len(centers)} Window Centers (0028,1050), {len(widths)} Window Widths (0028,1051)",
            "as many of each, all finite",
            "window",
        )
    words = [str(word) for word in _values(header, "WindowCenterWidthExplanation")]
    words += [""] * (len(centers) - len(words))
    return tuple(
        Window(center=center, width=width, explanation=word)
        for center, width, word in zip(centers, widths, words, strict=False)
    )


def _voi_function(header: Dataset, name: str) -> str:
    function = _text(header, "VOILUTFunction") or "LINEAR"  # PS3.3 C.11.2.1.3
    if function not in _VOI_FUNCTIONS:
        raise _error(
            name,
            "an unknown VOI LUT Function (0028,1056)",
            ", ".join(_VOI_FUNCTIONS),
            "voi_function",
        )
    return function


def _luts(
    header: Dataset, sequence: str, explanation: str, signed: bool, name: str
) -> tuple[LookupTable, ...]:
    tables = []
    for item in header.get(sequence) or []:
        descriptor = [int(value) for value in _words(item.get("LUTDescriptor"))]
        if len(descriptor) != 3:
            raise _lut_error(name, f"a LUT Descriptor (0028,3002) of {len(descriptor)} values")
        entries = descriptor[0] % _MOST_ENTRIES or _MOST_ENTRIES  # 0 stands for 65536
        # An unsigned image may have a negative first value too, after a negative intercept.
        first = _in_sign(descriptor[1], signed) if signed else descriptor[1]
        data = _lut_data(item, entries, name)
        tables.append(LookupTable(first=first, data=data, explanation=_text(item, explanation)))
    return tuple(tables)


def _lut_data(item: Dataset, entries: int, name: str) -> NDArray[np.uint16]:
    """LUT Data (0028,3006) is US (a list) or OW (bytes), whose 8-bit entries may be packed."""
    value = item.get("LUTData")
    if isinstance(value, bytes) and len(value) in (entries, entries + entries % 2) and entries > 1:
        return np.frombuffer(value, dtype=np.uint8)[:entries].astype(np.uint16)
    data = np.asarray(_words(value), dtype=np.int64)
    if data.size != entries:
        raise _lut_error(name, f"LUT Data (0028,3006) of {data.size} entries instead of {entries}")
    return (data % _MOST_ENTRIES).astype(np.uint16)


def _lut_error(name: str, found: str) -> PixelError:
    return _error(
        name, found, "number of entries, first input value and bits, PS3.3 C.11.1.1", "lut"
    )


def _padding(header: Dataset, signed: bool) -> tuple[int, int] | None:
    """Pixel Padding Value (0028,0120) and Range Limit (0028,0121), whichever is the greater."""
    limits = [
        _in_sign(int(value), signed)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        for value in _words(header.get(keyword))
    ]
    if header.get("PixelPaddingValue") is None or not limits:
        return None
    return min(limits), max(limits)


def _in_sign(value: int, signed: bool) -> int:
    """Undo a VR, US or SS, that contradicts Pixel Representation (0028,0103)."""
    if signed:
        return value - 2**16 if value >= 2**15 else value
    return value + 2**16 if value < 0 else value


def _words(value: Any) -> list[Any]:
    """Return 16-bit numbers, also where an ambiguous VR (US or SS) left them as bytes."""
    if isinstance(value, bytes):
        return list(np.frombuffer(value[: len(value) // 2 * 2], dtype="<u2").tolist())
    if value is None:
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def _values(header: Dataset, keyword: str) -> list[Any]:
    value = header.get(keyword)
    parts = list(value) if isinstance(value, MultiValue | list) else [value]
    return [part for part in parts if part is not None and str(part) != ""]


def _numbers(header: Dataset, keyword: str) -> list[float]:
    return [float(value) for value in _values(header, keyword)]


def _text(header: Dataset, keyword: str) -> str:
    return next((str(value).strip() for value in _values(header, keyword)), "")
