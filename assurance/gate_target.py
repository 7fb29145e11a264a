"""The fuzzer of headers itself: what it calls with every input, all that parses before a decoder.

``assurance.gate_fuzz`` starts it with libFuzzer's arguments. What is to be covered must not be
imported before it is instrumented, so that this module is imported by nobody.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["mammoclip_sdk", "pydicom"]):
    from assurance.part10 import MAGIC, file_meta
    from mammoclip_sdk.dicom import gate
    from mammoclip_sdk.dicom.header import Header
    from mammoclip_sdk.dicom.shield import shielded
    from mammoclip_sdk.errors import MammoClipError
    from mammoclip_sdk.pixels.codestream import read_jpeg, read_jpeg2000
    from mammoclip_sdk.pixels.image_pixel import read_layout
    from mammoclip_sdk.pixels.presentation import read_display
    from mammoclip_sdk.views.mammogram import read_mammogram
    from training.encodings import TRANSFER_SYNTAXES

_CODESTREAMS = ((b"\xff\xd8", read_jpeg), (b"\xff\x4f", read_jpeg2000))
"""How they begin, and what reads their headers."""
WHOLE = 255
"""First byte of an input that is a whole file; others choose the syntax of the dataset behind."""


def read(data: bytes) -> None:
    """Parse one input; whatever is raised is a finding."""
    source = _as_file(data)
    for attempt in (_views, _pixels):
        try:
            attempt(source)
        except MammoClipError:
            continue


def _as_file(data: bytes) -> bytes:
    if not data or data[0] == WHOLE:
        return data[1:]
    syntax = TRANSFER_SYNTAXES[data[0] % len(TRANSFER_SYNTAXES)]
    return bytes(128) + MAGIC + file_meta(syntax) + data[1:]


def _views(source: bytes) -> None:
    read_mammogram(gate.read_header(source, name="x"), name="x")


def _pixels(source: bytes) -> None:
    dataset = gate.read_dataset(source, name="x")
    with shielded("x"):
        header = Header(dataset, name="x")
        layout = read_layout(header)
        read_display(header, bits_stored=layout.bits_stored, signed=layout.signed)
    pixels = bytes(dataset.PixelData)
    for start, parse in _CODESTREAMS:
        parse(pixels[pixels.find(start) :])


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
