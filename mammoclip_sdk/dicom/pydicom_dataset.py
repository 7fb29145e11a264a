"""What pydicom is given: the attributes that were found, one by one, and never the file.

Handed a file, it would inflate a deflated one without a limit, and allocate by any length it is
told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from mammoclip_sdk.dicom.attributes import CHARACTER_SET, PIXEL_DATA, READ
from mammoclip_sdk.dicom.element_head import UNDEFINED_LENGTH
from mammoclip_sdk.dicom.elements import Element
from mammoclip_sdk.dicom.shield import shielded


def to_dataset(
    found: Mapping[int, Element], source: bytes, *, transfer_syntax: str, name: str
) -> Dataset:
    """Return the attributes, but for the Pixel Data, as raw elements; ``file_meta`` is set.

    Parameters
    ----------
    found
        By tag, what was found.
    source
        The bytes that it was found in.
    name
        What messages call the file.

    Raises
    ------
    DicomReadError
        pydicom objects to what it is given.
    """
    raw: dict[BaseTag, RawDataElement | DataElement] = {
        READ[tag]: raw_element(element, element.value(source))
        for tag, element in found.items()
        if tag != PIXEL_DATA
    }
    implicit = any(element.implicit for element in found.values())
    charset = found.get(CHARACTER_SET)
    with shielded(name):
        dataset = Dataset(raw)
        encodings = _encodings(b"" if charset is None else charset.value(source))
        dataset.set_original_encoding(implicit, True, encodings)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    return dataset


def raw_element(element: Element, value: bytes | memoryview) -> RawDataElement:
    """Return an element whose value pydicom converts when asked for it."""
    # What is written as UN is what the dictionary says, PS3.5 section 6.2.2.
    vr = None if element.vr in (b"", b"UN") else element.vr.decode()
    is_delimited = element.tag == PIXEL_DATA and element.undefined
    length = UNDEFINED_LENGTH if is_delimited else len(value)
    tag = READ[element.tag]
    untouched = cast(bytes, value)  # pydicom hands pixels on as they are
    return RawDataElement(tag, vr, length, untouched, element.at, element.implicit, True)


def _encodings(value: bytes) -> list[str]:
    """Return what pydicom makes of Specific Character Set (0008,0005)."""
    names = value.decode("ascii", "replace").split("\\")
    return convert_encodings([name.strip(" \0") for name in names])
