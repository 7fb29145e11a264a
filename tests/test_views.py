"""Which images are screening views, what is refused by name, and what the caller is told."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import exams
import pytest
from exams import VARIANTS, Variant
from headers import Change, coded, exam_of, modified, only, setting
from pydicom.dataset import Dataset

from mammoclip_sdk.dicom.shield import shielded
from mammoclip_sdk.errors import UnsupportedImageError
from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.views import read_exam


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_way_of_writing_an_exam_gives_its_four_views(
    tmp_path: Path, variant: Variant
) -> None:
    exams.write_exam(tmp_path, variant)
    exam = read_exam(tmp_path)
    assert {view: image.name for view, image in exam.images.items()} == {
        View.LCC: "IM1", View.RCC: "IM2", View.LMLO: "IM3", View.RMLO: "IM4"
    }  # fmt: skip
    assert [image.view for image in exam.images.values()] == list(VIEWS)
    assert exam.notes == tuple(
        f"IM{number}: lossy compressed" for number in range(1, 5) if variant.tolerance
    )
    assert exam.alternatives == ()


REFUSED: list[tuple[str, Change]] = [
    ("unsupported_intent", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2.1")),
    ("unsupported_intent", setting(PresentationIntentType="FOR PROCESSING")),
    ("tomosynthesis", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.3")),
    ("tomosynthesis_projections", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.4")),
    ("tomosynthesis_projections", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.13.1.5")),
    ("tomosynthesis_slice", setting(VolumetricProperties="VOLUME")),
    ("tomosynthesis_slice", setting(ConcatenationUID="1.2.3")),
    ("tomosynthesis_slice", setting(ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS"])),
    ("tomosynthesis_slice", setting(ImageType=["ORIGINAL", "PRIMARY", "TOMO_PROJ", "RIGHT"])),
    ("secondary_capture", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")),
    ("secondary_capture", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2")),
    ("unsupported_sop_class", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.1")),
    ("unsupported_sop_class", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.2")),
    ("unsupported_sop_class", setting(SOPClassUID="1.2.3")),
    ("unsupported_modality", setting(Modality="CR")),
    ("multi_frame", setting(NumberOfFrames=2)),
    ("not_greyscale", setting(SamplesPerPixel=3)),
    ("quality_control", setting(QualityControlImage="YES")),
    ("quality_control", setting(QualityControlImage="BOTH")),
    ("quality_control", setting(SeriesDescription="Flat Field L CC")),
    ("quality_control", setting(SeriesDescription="weekly QC")),
    ("quality_control", setting(AcquisitionDeviceProcessingDescription="ACR PHANTOM")),
    ("specimen", setting(SpecimenDescriptionSequence=[Dataset()])),
    ("specimen", setting(SeriesDescription="Specimen L")),
    ("specimen", coded("127457009")),
    ("specimen", coded("G-8310", "SRT")),
    ("biopsy", setting(ImageType=["ORIGINAL", "PRIMARY", "STEREO"])),
    ("biopsy", setting(SeriesDescription="Stereotactic scout L CC")),
    ("biopsy", setting(PaddleDescription="BIOPSY 5X5")),
    ("contrast_enhanced", setting(ContrastBolusAgent="IOHEXOL")),
    ("contrast_enhanced", setting(SeriesDescription="L CC CESM low energy")),
    ("contrast_enhanced", setting(ImageType=["DERIVED", "PRIMARY", "", "RECOMBINED"])),
    ("contrast_enhanced", setting(AcquisitionDeviceProcessingDescription="CEM subtraction")),
    ("contrast_enhanced", setting(ContrastBolusAgentSequence=[Dataset()])),
    ("contrast_enhanced", setting(SeriesDescription="CESM_LE")),
    ("contrast_enhanced", setting(SeriesDescription="L_CC_CEDM")),
    ("contrast_enhanced", setting(SeriesDescription="L CC TiCEM")),
    ("contrast_enhanced", setting(SeriesDescription="CE2D L CC")),
    ("contrast_enhanced", setting(SeriesDescription="L CC I-View")),
    ("contrast_enhanced", setting(ImageType=["DERIVED", "PRIMARY", "LOW_ENERGY"])),
    ("contrast_enhanced", setting(ImageType=["DERIVED", "PRIMARY", "", "DE_SUB"])),
    ("quality_control", setting(SeriesDescription="ACR_QC")),
    ("quality_control", setting(SeriesDescription="FLAT_FIELD")),
    ("biopsy", setting(SeriesDescription="WIRE_LOC L CC")),
    ("biopsy", setting(SeriesDescription="CASINO_BIOPSY")),
    ("synthetic_2d", setting(SeriesDescription="L CC C-View")),
    ("synthetic_2d", setting(SeriesDescription="Insight 2D L CC")),
    ("synthetic_2d", setting(SeriesDescription="L CC SYN2D")),
    ("synthetic_2d", setting(DerivationDescription="Synthesized from tomosynthesis")),
    ("synthetic_2d", setting(AcquisitionDeviceProcessingDescription="S-View")),
    ("synthetic_2d", setting(SeriesDescription="L CC S-View")),
    ("synthetic_2d", setting(ImageType=["DERIVED", "PRIMARY", "TOMO_2D"])),
    ("synthetic_2d", setting(ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"])),
    ("synthetic_2d", setting(
        ManufacturerModelName="FDR-3000AWS", ImageType=["DERIVED", "PRIMARY"])),
    ("magnification", setting(EstimatedRadiographicMagnificationFactor="1.8")),
    ("magnification", setting(EstimatedRadiographicMagnificationFactor="1.21")),
    ("magnification", setting(EstimatedRadiographicMagnificationFactor="0")),
    ("both_breasts", setting(ImageLaterality="B")),
    ("both_breasts", setting(ImageLaterality="BILATERAL")),
    ("laterality_contradiction", lambda header, view: setattr(
        header, "Laterality", {"L": "R", "R": "L"}[view.laterality])),
    ("laterality_contradiction", only(
        setting(ViewPosition="L CC", SeriesDescription="R CC"))),
    ("view_contradiction", setting(ViewPosition="ML")),
    ("unsupported_view", coded("399260004")),
    ("unsupported_view", coded("R-10224", "SNM3")),
    ("unsupported_view", coded("399352003")),
    ("unsupported_view", coded("399099002")),
    ("unsupported_view", coded("399196006")),
    ("unsupported_view", coded("399192008")),
    ("unsupported_view", coded("Y-X1770", "99SDM")),
    ("unsupported_view", only(setting(ViewPosition="L ML"))),
    ("unsupported_view", only(setting(ViewPosition="LMO"))),
    ("spot_compression", modified("399055006")),
    ("magnification", modified("R-102D6", "SRT")),
    ("implant", modified("399209000")),
    ("implant", setting(BreastImplantPresent="YES")),
    ("tangential", modified("399110001")),
    ("tangential", setting(SeriesDescription="Tangential")),
    ("spot_compression", setting(PaddleDescription="10CM SPOT CONTACT")),
    ("spot_compression", setting(PaddleDescription="15 SPT")),
    ("spot_compression", setting(SeriesDescription="Spot Compression")),
    ("magnification", setting(PaddleDescription="1.8MAG STAND")),
    ("implant", only(setting(ViewPosition="LCCID"))),
    ("magnification", only(setting(ViewPosition="L CC M"))),
    ("unknown_view", only()),
    ("unknown_view", only(setting(ImageLaterality="L"))),
    ("unknown_view", only(setting(SeriesDescription="CC and MLO of L and R"))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "change"), REFUSED)
def test_what_is_no_screening_view_is_refused_by_name(reason: str, change: Change) -> None:
    with pytest.raises(UnsupportedImageError) as caught:
        read_exam(exam_of(change))
    assert caught.value.code == reason
    assert caught.value.subject == "views[0]"


def test_a_fuji_image_that_says_of_what_it_was_derived_is_not_taken_for_synthesised() -> None:
    change = setting(
        ManufacturerModelName="FDR-3000AWS", ImageType=["DERIVED", "PRIMARY", "POST_PROCESSED"]
    )
    assert read_exam(exam_of(change)).notes == ()


def test_every_image_of_an_exam_says_how_it_was_acquired(tmp_path: Path) -> None:
    exams.write_exam(tmp_path, Variant(name="made", header=setting(Manufacturer="ACME")))
    for views in (tmp_path, sorted(tmp_path.iterdir()), dict(zip(VIEWS, exam_of(
        setting(Manufacturer="ACME")), strict=True))):  # fmt: skip
        for image in read_exam(views).images.values():
            assert image.acquisition is not None
            assert image.acquisition.device.manufacturer == "ACME"


def test_the_text_of_an_exam_names_no_patient_and_no_folder(tmp_path: Path) -> None:
    change = setting(PatientName="Canary^Jane", PatientID="CANARY-4711")
    exam = read_exam(exam_of(change))
    assert "canary" not in repr(exam).lower()
    (tmp_path / "Canary^Jane").mkdir()
    for number, dataset in enumerate(exam_of(change)):
        dataset.save_as(tmp_path / "Canary^Jane" / f"{number}.dcm", enforce_file_format=True)
    assert "canary" not in repr(read_exam(tmp_path / "Canary^Jane")).lower()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_while_a_thread_reads_a_header_reads_as_well() -> None:
    headers = exam_of()
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with shielded("x"):
            held.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writes, ",".join(read_exam(headers).images).encode())
        finally:
            os._exit(0)
    os.close(writes)
    leave.set()
    thread.join()
    deadline = threading.Timer(30, os.kill, (child, 9))
    deadline.start()
    with os.fdopen(reads, "rb") as answer:
        said = answer.read().decode()
    deadline.cancel()
    os.waitpid(child, 0)
    assert said == ",".join(VIEWS)
