"""The transfer syntaxes of mammography: a native DICOM image re-encoded and written to a file."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
LOSSY_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    HTJ2K: "ISO_15444_15",
}
"""Lossy syntaxes, and the defined term of Lossy Image Compression Method, PS3.3 C.7.6.1.1.5.1."""
TRANSFER_SYNTAXES: tuple[UID, ...] = (
    *NATIVE,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    HTJ2K,
)


def fits(bits_stored: int, *, signed: bool, transfer_syntax: UID) -> bool:
    """Return whether pixels of this kind can be encoded so by `encode`.

    The lossy JPEG processes have one precision each; the lossy codecs are given unsigned values
    only, since an error across the sign of a two's complement would turn white into black.
    """
    if transfer_syntax == JPEGBaseline8Bit:
        return bits_stored == 8
    if transfer_syntax == JPEGExtended12Bit:
        return bits_stored == 12 and not signed
    return transfer_syntax in TRANSFER_SYNTAXES and not (
        signed and transfer_syntax in LOSSY_METHODS
    )


def encode(dataset: Dataset, transfer_syntax: UID) -> Dataset:
    """Return a copy of a dataset with native pixels, encoded in another transfer syntax.

    Lossy encodings stay within a dozen stored values of a smooth original, and say that they are
    lossy (PS3.3 C.7.6.1.1.5). The precision of a JPEG-LS or HTJ2K frame is Bits Allocated.

    Raises
    ------
    ValueError
        If the dataset's pixels are not native, or cannot be encoded so.
    """
    syntax = UID(transfer_syntax)
    if dataset.file_meta.TransferSyntaxUID not in NATIVE:
        raise ValueError(f"encode: found {dataset.file_meta.TransferSyntaxUID}, expected native")
    signed = bool(dataset.PixelRepresentation)
    if not fits(dataset.BitsStored, signed=signed, transfer_syntax=syntax):
        kind = "signed" if signed else "unsigned"
        raise ValueError(f"encode: {syntax.name} does not hold {kind} {dataset.BitsStored} bits")
    encoded = copy.deepcopy(dataset)
    encoded.file_meta.TransferSyntaxUID = syntax
    if syntax in NATIVE:
        return encoded
    frame = _encode_frame(_pixels(dataset), dataset.BitsStored, syntax)
    # The codecs' sizes are odd half of the time; PS3.5 A.4 wants fragments of even length.
    encoded.add(DataElement("PixelData", "OB", encapsulate([frame + b"\0" * (len(frame) % 2)])))
    encoded["PixelData"].is_undefined_length = True
    if syntax in LOSSY_METHODS:
        ratio = dataset.Rows * dataset.Columns * dataset.BitsAllocated / 8 / len(frame)
        encoded.LossyImageCompression = "01"
        encoded.LossyImageCompressionRatio = f"{ratio:.4g}"
        encoded.LossyImageCompressionMethod = LOSSY_METHODS[syntax]
    return encoded


def write(dataset: Dataset, path: Path, transfer_syntax: UID) -> None:
    """Write a dataset with native pixels as a DICOM Part 10 file, encoded in a transfer syntax.

    The same dataset gives the same bytes.
    """
    pydicom.dcmwrite(path, encode(dataset, transfer_syntax), enforce_file_format=True)


def _pixels(dataset: Dataset) -> NDArray[np.integer]:
    kind = "i" if dataset.PixelRepresentation else "u"
    size = dataset.BitsAllocated // 8
    count = dataset.Rows * dataset.Columns
    pixels = np.frombuffer(dataset.PixelData, f"<{kind}{size}", count)
    return pixels.reshape(dataset.Rows, dataset.Columns)


_NEAR = 2
"""Largest error of JPEG-LS near-lossless, stored values."""
_HTJ2K_HEADROOM = 4
"""Stored values kept free at the top for the error of lossy HTJ2K, 2 at most when measured."""


def _encode_frame(pixels: NDArray[np.integer], bits: int, syntax: UID) -> bytes:
    if syntax == RLELossless:
        return _rle(pixels)
    if syntax in (JPEG2000Lossless, JPEG2000):
        return _jpeg2000(pixels, bits, lossless=syntax == JPEG2000Lossless)
    if syntax in (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K):
        return _htj2k(pixels, bits, syntax)
    # These know nothing of signs: they get the two's complement in Bits Stored bits.
    container = np.uint8 if pixels.dtype.itemsize == 1 else np.uint16
    codes = pixels.astype(container, copy=False) & container(2**bits - 1)
    if syntax in (JPEGLSLossless, JPEGLSNearLossless):
        near = _NEAR if syntax == JPEGLSNearLossless else 0
        top = container(2**bits - 1 - near)
        return bytes(imagecodecs.jpegls_encode(np.minimum(codes, top), level=near))
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        # .70 is Process 14 with predictor 1; .57 may use any of the seven.
        predictor = 1 if syntax == JPEGLosslessSV1 else 6
        return bytes(
            imagecodecs.jpeg8_encode(codes, lossless=True, predictor=predictor, bitspersample=bits)
        )
    return bytes(imagecodecs.jpeg8_encode(codes, level=95, bitspersample=bits))


def _rle(pixels: NDArray[np.integer]) -> bytes:
    """Encode one segment per byte of a value, most significant first, PS3.5 G."""
    size = pixels.dtype.itemsize
    planes = pixels.view(np.uint8).reshape(*pixels.shape, size)[..., ::-1]
    segments = []
    for plane in np.moveaxis(planes, -1, 0):
        segment = bytes(imagecodecs.packbits_encode(plane.copy(), axis=-1))
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = 64 + np.cumsum([0, *map(len, segments)])[:-1]
    header = np.zeros(16, "<u4")
    header[0] = len(segments)
    header[1 : 1 + len(segments)] = offsets
    return header.tobytes() + b"".join(segments)


def _jpeg2000(pixels: NDArray[np.integer], bits: int, *, lossless: bool) -> bytes:
    level = None if lossless else 60 + 6 * (bits - 8)  # PSNR, dB: 6 more for each bit
    return bytes(
        imagecodecs.jpeg2k_encode(
            pixels,
            level=level,
            codecformat="J2K",
            bitspersample=bits,
            resolutions=_decompositions(pixels.shape) + 1,
            reversible=lossless,
        )
    )


def _htj2k(pixels: NDArray[np.integer], bits: int, syntax: UID) -> bytes:
    """Encode High-Throughput JPEG 2000, whose codec knows the progression order RPCL alone.

    The syntax named after that order also gets one tile-part a resolution and the TLM segment
    that lists them. The codestream's precision is the container's, and its sign the pixels'; the
    codec offers no other.
    """
    container_bits = 8 * pixels.dtype.itemsize
    # What this codec calls resolutions are decompositions.
    options: dict[str, object] = {"resolutions": _decompositions(pixels.shape)}
    if syntax == HTJ2KLosslessRPCL:
        options |= {"tlm": True, "tilepart": imagecodecs.HTJ2K.TILEPART.RESOLUTIONS}
    if syntax != HTJ2K:
        return bytes(imagecodecs.htj2k_encode(pixels, reversible=True, **options))
    top = np.asarray(2**bits - 1 - _HTJ2K_HEADROOM, pixels.dtype)
    step = 2.0 ** (1 - container_bits)  # of the quantiser, as a share of the container's range
    frame = bytes(
        imagecodecs.htj2k_encode(np.minimum(pixels, top), level=step, reversible=False, **options)
    )
    if imagecodecs.htj2k_decode(frame).max() >= 2**bits:
        raise ValueError(f"HTJ2K: decoded values leave {bits} bits; the image is too rough for it")
    return frame


def _decompositions(shape: tuple[int, ...]) -> int:
    """Return how many wavelet decompositions leave at most 64 pixels on the longer side."""
    return max(1, math.ceil(math.log2(max(shape) / 64)))
