"""What is read of a header without pydicom is what pydicom reads."""

from __future__ import annotations

import warnings

from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from mammoclip_sdk.dicom.header import Header

MODALITY = BaseTag(0x00080060)


@given(
    st.sampled_from(["AS", "CS", "DA", "DT", "TM", "UI"]),
    st.binary(max_size=24) | st.text("AB.12 \\\0", max_size=24).map(str.encode),
)
def test_coded_text_is_what_pydicom_makes_of_it(vr: str, value: bytes) -> None:
    raw = RawDataElement(MODALITY, vr, len(value), value, 0, False, True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Dataset({MODALITY: raw})[MODALITY].value
    several = list(expected) if isinstance(expected, MultiValue) else [expected] if expected else []
    assert Header(Dataset({MODALITY: raw}), name="x").values("Modality") == several
