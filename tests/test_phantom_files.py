"""Phantom exams as files: what the manifest says, in the transfer syntax asked for."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from phantoms import SMALL
from pydicom.encaps import generate_frames
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless

from mammoclip_sdk.exam import VIEWS, View
from mammoclip_sdk.pixels import decode
from mammoclip_sdk.tensor import build_view
from mammoclip_sdk.views import read_exam
from training import data
from training.breast import Detector, Parenchyma, draw_breasts, power_law_field, render
from training.encodings import write
from training.phantom import PhantomSettings, make_exam
from training.phantom_files import MANIFEST_COLUMNS, write_exams
from training.vendors import PROFILES, ExamIdentity, to_dataset


def test_written_exams_are_read_back_as_what_the_manifest_says(tmp_path):
    manifest = write_exams(SMALL, 12, tmp_path / "exams")
    with manifest.open(newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames) == MANIFEST_COLUMNS
        rows = list(reader)
    assert len(rows) == 48
    profiles = {row["profile"] for row in rows}
    assert len(profiles) > 4, "a set of exams mixes vendors"
    for name in sorted({row["exam"] for row in rows}):
        mine = {row["view"]: row for row in rows if row["exam"] == name}
        exam = read_exam(tmp_path / "exams" / name)
        assert list(exam.images) == list(VIEWS)
        for view, image in exam.images.items():
            assert image.path == tmp_path / "exams" / mine[view]["file"]
        for row in mine.values():
            for box in json.loads(row["boxes"]):
                assert 0 <= box["top"] < 128
                assert 0 <= box["left"] < 104


def test_writing_over_an_earlier_set_is_refused(tmp_path):
    write_exams(SMALL, 1, tmp_path)
    with pytest.raises(FileExistsError, match="belongs to an earlier set"):
        write_exams(SMALL, 1, tmp_path)


MARKERS = {  # in the first 160 bytes of a frame, in this order
    "1.2.840.10008.1.2.4.81": (b"\xff\xd8", b"\xff\xf7"),  # SOI and SOF55: JPEG-LS
    "1.2.840.10008.1.2.4.91": (b"\xff\x4f", b"\xff\x51"),  # SOC and SIZ: JPEG 2000
    "1.2.840.10008.1.2.4.201": (b"\xff\x4f", b"\xff\x51", b"\xff\x50"),  # and CAP: Part 15
}


def file_rows(manifest):
    with manifest.open(newline="") as stream:
        return [(manifest.parent / row["file"], row) for row in csv.DictReader(stream)]


@pytest.mark.parametrize("syntax", MARKERS)
def test_a_set_is_written_in_the_transfer_syntax_asked_for(tmp_path, syntax):
    asked = replace(SMALL, transfer_syntax=syntax)
    for path, row in file_rows(write_exams(asked, 3, tmp_path)):
        dataset = pydicom.dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == row["transfer_syntax"] == syntax
        head = next(generate_frames(dataset.PixelData, number_of_frames=1))[:160]
        places = [head.find(marker) for marker in MARKERS[syntax]]
        assert places[0] == 0
        assert places == sorted(places)
        assert (b"\xff\x50" in head) == (syntax == HTJ2KLossless)


def test_a_set_is_written_as_each_vendor_writes_unless_asked_otherwise(tmp_path):
    own = {profile.name: profile.transfer_syntax for profile in PROFILES}
    rows = file_rows(write_exams(SMALL, 6, tmp_path))
    assert len({row["transfer_syntax"] for _, row in rows}) > 2
    for path, row in rows:
        written = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
        assert written == row["transfer_syntax"] == own[row["profile"]]


@pytest.mark.parametrize(
    ("syntax", "bits"),
    [
        ("1.2.840.10008.1.2.4.50", {8}),
        ("1.2.840.10008.1.2.4.51", {12}),
        ("1.2.840.10008.1.2.4.91", {8, 10, 12, 13, 14}),
        (None, {8, 10, 12, 13, 14}),
    ],
)
def test_vendors_are_drawn_from_those_whose_values_the_transfer_syntax_holds(syntax, bits):
    profiles = replace(SMALL, transfer_syntax=syntax).profiles
    assert {profile.bits_stored for profile in profiles} == bits
    signed = {profile.signed for profile in profiles}
    assert signed == ({False} if syntax else {False, True}), "a lossy code has no sign"


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"rows": 63}, "rows 64 to 4096; rows / columns"),
        ({"rows": 4097, "columns": 3328}, "rows 64 to 4096; found"),
        ({"rows": 4096, "columns": 3329}, "columns 64 to 3328"),
        ({"rows": 128, "columns": 72}, r"rows / columns 1\.0 to 1\.75"),
        ({"rows": 128, "columns": 129}, r"rows / columns 1\.0 to 1\.75"),
        ({"malignant_share": 1.1}, "malignant_share 0 to 1"),
        ({"incidental_share": float("nan")}, "incidental_share 0 to 1"),
        ({"contrast": (0.4, 0.3)}, "contrast 0 <= low <= high <= 1"),
        ({"transfer_syntax": "1.2.840.10008.1.2.2"}, r"None or one of 1\.2\.840\.10008\.1\.2, "),
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(SMALL, **wrong)


def phantom_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "training.phantom", *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_writes_what_its_options_ask_for_and_says_so_in_a_file(tmp_path):
    asked = PhantomSettings(
        seed=9,
        rows=128,
        columns=104,
        malignant_share=1.0,
        contrast=(0.3, 0.6),
        incidental_share=0.0,
        transfer_syntax="1.2.840.10008.1.2.1",
    )
    sizes = ("--exams", 2, "--seed", 9, "--rows", 128, "--columns", 104)
    shares = ("--malignant-share", 1, "--contrast", 0.3, 0.6, "--incidental-share", 0)
    native = ("--transfer-syntax", "1.2.840.10008.1.2.1")
    done = phantom_command("--out", tmp_path, *sizes, *shares, *native)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "settings.json").read_text())
    assert saved == json.loads(json.dumps(asdict(asked) | {"exams": 2}))
    rows = file_rows(tmp_path / "manifest.csv")
    expected = [make_exam(asked, index).datasets[view] for index in range(2) for view in VIEWS]
    assert len(rows) == len(expected)
    for (path, row), dataset in zip(rows, expected, strict=True):
        assert row["malignant"] == "1"
        assert pydicom.dcmread(path).PixelData == dataset.PixelData


def test_the_command_refuses_in_words_and_writes_nothing(tmp_path):
    done = phantom_command("--out", tmp_path / "exams", "--rows", 9000)
    assert done.returncode == 2
    assert done.stderr.startswith("No exams were written: phantom settings: expected rows 64 to")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "exams").exists()


def test_a_view_of_full_size_goes_from_phantom_to_tensor(tmp_path):
    detector, rng = Detector(rows=4096, columns=3328), np.random.default_rng(1)
    glandular, texture = (power_law_field(detector, rng) for _ in range(2))
    breast = draw_breasts(rng)["R"]
    parenchyma = Parenchyma(glandular=glandular, texture=texture)
    displayed = render(breast, View.RMLO, parenchyma, detector).displayed().clip(0, 1)[:, ::-1]
    profile = next(p for p in PROFILES if p.transfer_syntax == JPEG2000Lossless)
    dataset = to_dataset(
        np.ascontiguousarray(displayed),
        view=View.RMLO,
        profile=profile,
        identity=ExamIdentity.derive(SMALL.seed, 1),
        pixel_spacing=detector.spacing,
        rng=rng,
    )
    write(dataset, tmp_path / "view.dcm", profile.transfer_syntax)
    small = make_exam(SMALL, 1).datasets
    others = [small[view] for view in VIEWS if view is not View.RMLO]
    image = decode(read_exam([*others, tmp_path / "view.dcm"]).images[View.RMLO])
    assert image.pixels.shape == (4096, 3328)
    np.testing.assert_array_equal(image.pixels, dataset.pixel_array)
    tensor = build_view(image, FULL_VIEW)[0]
    assert tensor.shape == (1024, 512)
    wall, far = tensor[400:600, :100], tensor[400:600, -100:]
    assert wall.mean() > 0.2 > 2 * far.mean(), "the chest wall is at the left"
    assert (tensor == 0).mean() > 0.1


FULL_VIEW = replace(data.PREPROCESSING, height=1024, width=512)
