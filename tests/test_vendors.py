"""Phantom views written as vendors write them show the phantom to whoever follows the header."""

from __future__ import annotations

import copy
import hashlib
import re
import shutil
import struct
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSNearLossless,
    RLELossless,
)

from mammoclip_sdk.bundle import PREPROCESSING_VERSION, Preprocessing
from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.tensor.grey_values import grey_scale
from mammoclip_sdk.views import read_exam
from training.encodings import LOSSY_METHODS, NATIVE, TRANSFER_SYNTAXES, encode, fits, write
from training.vendors import PROFILES, ExamIdentity, VendorProfile, to_dataset

IDENTITY = ExamIdentity.derive(seed=7, exam=3)
BY_NAME = {profile.name: profile for profile in PROFILES}
STEP = {  # largest distance between neighbouring displayed values
    "GE-like": 1 / 982,
    "Hologic-like": 1 / 2866,
    "Siemens-like": 1 / 2340,
    "Fuji-like": 1 / 16382,
    "Planmed-like": 1 / 16383,
    "Agfa-like": 2 / 4095,
    "IMS-like": 1 / 4095,
    "Metaltronica-like": 1 / 3437,
    "Carestream-like": 1 / 1023,
    "Archive-like": 1 / 255,
    "Philips-like": 1 / 4095,
    "Konica-like": 1 / 1040,
    "Legacy-like": 1 / 16382,
}
SIGMOID_END = 0.00092  # a SIGMOID never reaches 0 and 1
LEVEL = 1 / 65535  # displayed values are told apart no finer
STORED_ERROR = {  # largest error of the lossy encodings on the test image, stored values
    JPEGBaseline8Bit: 8,
    JPEGExtended12Bit: 12,
    JPEGLSNearLossless: 4,
    JPEG2000: 4,
    HTJ2K: 8,
}
HTJ2K_SYNTAXES = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
AS_THE_HEADER_SAYS = Preprocessing(
    version=PREPROCESSING_VERSION,
    height=64,
    width=64,
    voi="header_window",
    percentiles=None,
    segmentation_threshold=0.05,
    crop_margin=0.0,
    background="keep",
    geometry="letterbox",
    resampling="area",
    jpeg2000_reduction=0,
)


def breast(view: View, shape: tuple[int, int] = (121, 87)) -> NDArray[np.float32]:
    """Smooth tissue at the chest wall, air elsewhere, a lead marker at full brightness."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]] / np.array(shape)[:, None, None]
    tissue = 0.5 + 0.3 * np.sin(9 * rows + VIEWS.index(view)) * np.cos(7 * columns)
    tissue += 0.25 * (1 - columns) - 0.2 * rows
    inside = ((rows - 0.5) / 0.45) ** 2 + (columns / 0.7) ** 2 < 1
    image = np.where(inside, np.clip(tissue, 0.01, 0.98), 0).astype(np.float32)
    image[4:12, -20:-6] = 1
    return image if view.laterality == "L" else np.ascontiguousarray(image[:, ::-1])


def dataset_of(profile: VendorProfile, view: View = View.LCC) -> Dataset:
    return to_dataset(
        breast(view),
        view=view,
        profile=profile,
        identity=IDENTITY,
        pixel_spacing=0.07,
        rng=np.random.default_rng(11),
    )


def tolerance(profile: VendorProfile, syntax: UID = ExplicitVRLittleEndian) -> float:
    end = SIGMOID_END if profile.voi_function == "SIGMOID" else 0
    lossless = max(STEP[profile.name] / 2, end) + LEVEL
    return lossless + STORED_ERROR.get(syntax, 0) * STEP[profile.name]


def shown_by_pydicom(dataset: Dataset, *, prefer_lut: bool) -> NDArray[np.float64]:
    """Return what pydicom's own pipeline displays, 0 to 1, padding as air."""
    stored = dataset.pixel_array
    if "VOILUTSequence" in dataset:  # pydicom refuses the wrong depth that some vendors write
        dataset.VOILUTSequence[0].LUTDescriptor[2] = 12
    modality = apply_modality_lut(stored, dataset)
    uses_lut = "VOILUTSequence" in dataset and (prefer_lut or "WindowCenter" not in dataset)
    if uses_lut:  # rescaled by 1, but pydicom wants integers to look up
        modality = modality.astype(np.int64)
    values = apply_voi_lut(modality, dataset, prefer_lut=prefer_lut).astype(np.float64)
    if uses_lut:
        low, high = 0.0, 4095.0
    elif "ModalityLUTSequence" in dataset:
        low, high = 0.0, 65535.0
    else:
        half = 2 ** (dataset.BitsStored - 1) if dataset.PixelRepresentation else 0
        ends = np.array([-half, 2**dataset.BitsStored - 1 - half])
        low, high = ends * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    shown = (values - low) / (high - low)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    if "PixelPaddingValue" in dataset:
        value = dataset.PixelPaddingValue
        ends = sorted((value, dataset.get("PixelPaddingRangeLimit", value)))
        shown[(stored >= ends[0]) & (stored <= ends[1])] = 0
    return shown


def frame_of(encoded: Dataset) -> bytes:
    return next(generate_frames(encoded.PixelData, number_of_frames=1))


def segments(codestream: bytes) -> dict[int, bytes]:
    """Return the main header's marker segments of a JPEG 2000 codestream, or a JPEG's up to SOS."""
    found: dict[int, bytes] = {}
    at = 2
    while (marker := struct.unpack_from(">H", codestream, at)[0]) not in (0xFF90, *found):
        length = struct.unpack_from(">H", codestream, at + 2)[0]
        found[marker] = codestream[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xFFDA:
            break
    return found


@pytest.mark.parametrize("prefer_lut", [False, True], ids=["window", "lut"])
@pytest.mark.parametrize("syntax", NATIVE, ids=["implicit", "explicit"])
@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_pydicom_shows_the_phantom(profile, syntax, prefer_lut, tmp_path):
    write(dataset_of(profile), tmp_path / "view.dcm", syntax)

    shown = shown_by_pydicom(pydicom.dcmread(tmp_path / "view.dcm"), prefer_lut=prefer_lut)

    error = np.abs(shown - breast(View.LCC)).max()
    # A window and a LUT of the same header differ by half a step of the LUT's 12 bits at most.
    assert error <= tolerance(profile) + (0.5 / 4095 if profile.voi == "windows_and_lut" else 0)


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda syntax: str(syntax)[15:])
@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_the_sdk_reads_the_phantom_back(profile, syntax, tmp_path):
    if not fits(profile.bits_stored, signed=profile.signed, transfer_syntax=syntax):
        with pytest.raises(ValueError, match=f"{profile.bits_stored} bits"):
            encode(dataset_of(profile), syntax)
        return
    for number, view in enumerate(VIEWS):
        write(dataset_of(profile, view), tmp_path / f"{number}.dcm", syntax)

    exam = read_exam(tmp_path)

    lossy = [f"{number}.dcm: lossy compressed" for number in range(4)]
    assert list(exam.notes) == (lossy if syntax in LOSSY_METHODS else [])
    for number, view in enumerate(VIEWS):
        assert exam.images[view].name == f"{number}.dcm"
        image = decode(exam.images[view])
        bits = 8 * image.pixels.dtype.itemsize
        table = grey_scale(image.display, AS_THE_HEADER_SAYS, container_bits=bits).values
        error = np.abs(table[image.pixels] - breast(view)).max()
        assert error <= tolerance(profile, syntax)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_datasets_in_memory_are_read_like_files(profile, tmp_path):
    datasets = [dataset_of(profile, view) for view in VIEWS]
    write(datasets[3], tmp_path / "view.dcm", ExplicitVRLittleEndian)

    from_memory = decode(read_exam(datasets).images[View.RMLO])
    from_file = decode(read_exam([*datasets[:3], tmp_path / "view.dcm"]).images[View.RMLO])

    assert from_memory.sha256 == from_file.sha256
    assert from_memory.display.padding == from_file.display.padding
    assert from_memory.display.windows == from_file.display.windows


@pytest.mark.parametrize("syntax", HTJ2K_SYNTAXES[:2], ids=["lossless", "rpcl"])
@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_lossless_htj2k_decodes_bit_exactly(profile, syntax):
    dataset = dataset_of(profile)

    codestream = frame_of(encode(dataset, syntax))

    np.testing.assert_array_equal(imagecodecs.htj2k_decode(codestream), dataset.pixel_array)
    depth = segments(codestream)[0xFF51][36]  # SIZ: Ssiz of the one component
    assert depth == (0x80 if profile.signed else 0) + dataset.BitsAllocated - 1


def test_htj2k_rpcl_orders_by_resolution_and_lists_its_tile_parts():
    codestream = frame_of(encode(dataset_of(BY_NAME["GE-like"]), HTJ2KLosslessRPCL))

    found = segments(codestream)

    assert found[0xFF52][1] == 2  # COD: progression order RPCL, ISO 15444-1 table A.16
    assert found[0xFF52][9] == 1  # reversible 5-3 wavelet
    assert 121 / 2 ** found[0xFF52][5] <= 64  # as many decompositions as bring 121 rows to 64
    # TLM: two bytes, then index and length of one tile-part for each resolution
    assert len(found[0xFF55]) == 2 + 6 * (found[0xFF52][5] + 1)
    assert struct.unpack_from(">H", found[0xFF51])[0] & 0x4000  # SIZ: Part 15


def test_lossy_htj2k_stays_close(tmp_path):
    dataset = dataset_of(BY_NAME["Siemens-like"])

    decoded = imagecodecs.htj2k_decode(frame_of(encode(dataset, HTJ2K))).astype(int)

    error = np.abs(decoded - dataset.pixel_array).max()
    assert 0 < error <= STORED_ERROR[HTJ2K]
    assert decoded.max() < 2**13


@pytest.mark.parametrize(("syntax", "predictor"), [(JPEGLosslessSV1, 1), (JPEGLossless, 6)])
def test_jpeg_lossless_uses_the_predictor_of_its_process(syntax, predictor):
    found = segments(frame_of(encode(dataset_of(BY_NAME["Hologic-like"]), syntax)))

    assert found[0xFFC3][0] == 12  # SOF3: precision
    assert found[0xFFDA][3] == predictor  # SOS: selection value, ISO 10918-1 B.2.3


@pytest.mark.parametrize("syntax", sorted(LOSSY_METHODS))
def test_lossy_encodings_say_so(syntax):
    profile = BY_NAME["Archive-like" if syntax == JPEGBaseline8Bit else "Hologic-like"]
    dataset = dataset_of(profile)

    encoded = encode(dataset, syntax)

    assert encoded.LossyImageCompression == "01"
    assert encoded.LossyImageCompressionMethod == LOSSY_METHODS[syntax]
    ratio = dataset.Rows * dataset.Columns * dataset.BitsAllocated / 8 / len(frame_of(encoded))
    assert float(encoded.LossyImageCompressionRatio) == pytest.approx(ratio, rel=2e-3)
    assert dataset.LossyImageCompression == "00"  # the original is left alone
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(PROFILES),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**32 - 1),
)
def test_rle_is_lossless_for_every_shape(profile, shape, seed):
    rng = np.random.default_rng(seed)
    # Few different values make the runs that RLE is about.
    displayed = (rng.integers(0, 4, shape) / 3).astype(np.float32)
    dataset = to_dataset(
        displayed,
        view=View.RCC,
        profile=profile,
        identity=IDENTITY,
        pixel_spacing=0.05,
        rng=rng,
    )

    encoded = encode(dataset, RLELossless)

    np.testing.assert_array_equal(encoded.pixel_array, dataset.pixel_array)


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda syntax: str(syntax)[15:])
def test_the_same_inputs_give_the_same_bytes(syntax, tmp_path):
    profile = BY_NAME["Archive-like" if syntax == JPEGBaseline8Bit else "GE-like"]

    def file_hash() -> str:
        write(dataset_of(profile), tmp_path / "view.dcm", syntax)
        return hashlib.sha256((tmp_path / "view.dcm").read_bytes()).hexdigest()

    assert file_hash() == file_hash()


@pytest.mark.parametrize("name", ["GE-like", "Metaltronica-like"])
def test_air_of_a_padding_range_is_noise_inside_it(name):
    dataset = dataset_of(BY_NAME[name])
    air = dataset.pixel_array[breast(View.LCC) == 0]
    low, high = sorted((dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit))

    assert low <= air.min() <= low + 10
    assert high - 10 <= air.max() <= high
    tissue = dataset.pixel_array[breast(View.LCC) > 0]
    assert not ((tissue >= low) & (tissue <= high)).any()


@pytest.mark.parametrize(("name", "vr"), [("Hologic-like", "US"), ("Legacy-like", "SS")])
def test_a_padding_value_has_the_sign_of_the_pixels(name, vr):
    dataset = dataset_of(BY_NAME[name])

    assert vr == dataset["PixelPaddingValue"].VR
    np.testing.assert_array_equal(
        dataset.pixel_array == dataset.PixelPaddingValue, breast(View.LCC) == 0
    )


def test_geometry_is_in_millimetres():
    dataset = dataset_of(BY_NAME["GE-like"])

    assert list(dataset.ImagerPixelSpacing) == [0.07, 0.07]
    assert list(dataset.FieldOfViewDimensions) == [8, 6]  # 121 rows and 87 columns
    assert dataset.FieldOfViewRotation == 180


@pytest.mark.parametrize(
    ("view", "orientation"),
    [
        (View.LCC, ["A", "R"]),
        (View.RCC, ["P", "L"]),
        (View.LMLO, ["A", "FR"]),
        (View.RMLO, ["P", "FL"]),
    ],
)
def test_rows_point_away_from_the_chest_wall_of_a_left_breast(view, orientation):
    dataset = dataset_of(BY_NAME["GE-like"], view)

    assert list(dataset.PatientOrientation) == orientation
    assert dataset.ImageLaterality == view.laterality


def test_the_view_is_where_each_kind_of_system_puts_it():
    sct, srt, text, described = (
        dataset_of(BY_NAME[name], View.RMLO)
        for name in ("GE-like", "Planmed-like", "Carestream-like", "Fuji-like")
    )

    assert (sct.ViewCodeSequence[0].CodeValue, sct.ViewPosition) == ("399368009", "MLO")
    assert srt.ViewCodeSequence[0].CodeValue == "R-10226"
    assert srt.ViewCodeSequence[0].CodingSchemeDesignator == "SRT"
    assert "ViewPosition" not in srt
    assert text.ViewPosition == "MLO"
    assert "ViewCodeSequence" not in text
    assert described.AcquisitionDeviceProcessingDescription == "R MAMMOGRAPHY,MLO"
    assert described.Laterality == "R"
    assert not {"ViewPosition", "ViewCodeSequence", "ImageLaterality"} & set(described.dir())


def test_the_profiles_cover_what_readers_must_handle():
    def values(attribute: str) -> set[object]:
        return {getattr(profile, attribute) for profile in PROFILES}

    assert len(BY_NAME) == len(PROFILES) >= 10
    assert values("bits_stored") == {8, 10, 12, 13, 14}
    assert values("photometric") == {"MONOCHROME1", "MONOCHROME2"}
    assert values("voi") == {"window", "windows_and_lut", "lut", "none"}
    assert values("voi_function") == {"LINEAR", "LINEAR_EXACT", "SIGMOID"}
    assert values("padding") == {"none", "value", "range"}
    assert values("tagging") == {"sct", "srt", "text", "description"}
    assert values("signed") == values("modality_lut") == values("lut_depth_error") == {False, True}
    assert any(profile.slope != 1 and profile.intercept != 0 for profile in PROFILES)
    for profile in PROFILES:
        assert fits(
            profile.bits_stored, signed=profile.signed, transfer_syntax=profile.transfer_syntax
        )


def test_identities_follow_from_seed_and_exam_alone():
    again = ExamIdentity.derive(seed=7, exam=3)
    others = [ExamIdentity.derive(seed=s, exam=e) for s in range(3) for e in range(30)]

    assert again == IDENTITY
    assert IDENTITY.patient_name == "PHANTOM^0003"
    uids = [
        u for i in others for u in (i.study_uid, *i.series_uids.values(), *i.instance_uids.values())
    ]
    assert len(set(uids)) == len(uids) == 90 * 9
    assert all(UID(uid).is_valid for uid in uids)


@pytest.mark.parametrize(
    "displayed",
    [
        np.full((4, 4), 1.01, np.float32),
        np.full((4, 4), -0.01, np.float32),
        np.array([[0.0, np.nan]], np.float32),
        np.zeros((4, 4, 1), np.float32),
    ],
    ids=["above", "below", "nan", "shape"],
)
def test_only_displayed_values_are_taken(displayed):
    with pytest.raises(ValueError, match="displayed"):
        to_dataset(
            displayed,
            view=View.LCC,
            profile=PROFILES[0],
            identity=IDENTITY,
            pixel_spacing=0.07,
            rng=np.random.default_rng(0),
        )


def test_only_native_pixels_are_encoded():
    encoded = encode(dataset_of(BY_NAME["GE-like"]), JPEGLosslessSV1)

    with pytest.raises(ValueError, match="expected native"):
        encode(encoded, RLELossless)


def test_a_written_file_is_the_encoded_dataset(tmp_path):
    dataset = dataset_of(BY_NAME["Siemens-like"])

    write(dataset, tmp_path / "view.dcm", BY_NAME["Siemens-like"].transfer_syntax)

    read = pydicom.dcmread(tmp_path / "view.dcm")
    expected = copy.deepcopy(dataset)
    del read["PixelData"], expected["PixelData"]
    assert read == expected


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_dciodvfy_finds_the_deviations_that_are_meant_and_no_other(profile, tmp_path):
    for view in (View.LCC, View.RMLO):
        write(dataset_of(profile, view), tmp_path / "view.dcm", profile.transfer_syntax)
        verdict = subprocess.run(
            ["dciodvfy", "-new", str(Path(tmp_path) / "view.dcm")],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = (verdict.stdout + verdict.stderr).splitlines()
        errors = [line for line in lines if line.startswith("Error")]
        attributes = {re.findall(r"(\w+)\([0-9a-f]{4},[0-9a-f]{4}\)", line)[-1] for line in errors}
        assert attributes == set(profile.deviations), errors
